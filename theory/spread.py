"""The law of the distortion over networks: D of single layers drawn from the error law, at quasi-random points.

Two laws. *Error draws*: e itself at scrambled Sobol points; exact whatever d, and cheap for small d. *Reduced law*
(:mod:`derivations.spread`): R(w + e) depends on e through a_k, q_k and r_k only; (a_0, a_1, q_0, q_1) is taken as normal
and r_k given them as Gamma with their exact conditional mean and covariance. It is used where the four linear
combinations of e are close to normal, judged by their fourth cumulant.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.special import gammaincinv, ndtr, ndtri
from scipy.stats import qmc, t

from theory import binary
from theory.binary import Change, Margin, Pair

POINTS = 2**14
SCRAMBLINGS = 16
CUMULANT = 0.02  # |excess kurtosis| above which the linear combinations are not taken as normal
WORK = 2e10  # multiplications spent on e'Sigma e per average


class Errors(NamedTuple):
    """Errors of w under the uniform hypothesis: the stored steps of the rows of the head, (1,) or (2,)."""

    steps: np.ndarray

    def moments(self) -> tuple[float, float, float]:
        """v, k4 and k6 of one entry of e = e_1 - e_0 (or of the single row)."""
        one, other = self.steps[0], self.steps[1] if len(self.steps) == 2 else 0.0
        if one == other == 0:
            return 0.0, 0.0, 0.0
        values = (binary.evaluate(name)(step_0=one, step_1=other) for name in ("error_variance", "error_k4", "error_k6"))
        v, k4, k6 = (float(x) for x in values)
        return v, k4, k6

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """(n, rows * d) uniforms on (0, 1) to (n, d) errors of w."""
        rows = uniforms.reshape(len(uniforms), len(self.steps), -1) - 0.5
        return rows[:, 0] * self.steps[0] if len(self.steps) == 1 else rows[:, 1] * self.steps[1] - rows[:, 0] * self.steps[0]


class Average(NamedTuple):
    """Expected change per class (2,) of risk and flips, and the error of the prior-weighted distortion (95 %)."""

    distortion: np.ndarray
    flips: np.ndarray
    error: float


class Draws(NamedTuple):
    """Single networks: distortion (n,), flip rate (n,), and the sampling variance (n,) of each from the statistics."""

    law: str
    distortion: np.ndarray
    flips: np.ndarray
    statistics_variance: np.ndarray


def sobol_average(pair: Pair, at: Margin, errors: Errors, seed: int) -> Average:
    """The expected change by averaging the exact one over Sobol points of e and their negatives.

    Exact up to the reported error, for any d; the reference for small d. Cost grows as d^2 a point.
    """
    d = len(pair.w)
    per = int(2 ** np.clip(np.floor(np.log2(WORK / SCRAMBLINGS / d**2)), 7, 12))
    parts = []
    for scrambling in range(SCRAMBLINGS):
        points = _uniforms(len(errors.steps) * d, np.random.default_rng([seed, 0, scrambling]))(per)
        by = binary.change(pair, errors.draw(points), np.zeros(per))
        both = [by, Change(-by.a, -by.q, by.r)]
        parts.append(np.mean([[binary.class_distortion(at, one), binary.class_flips(at, one)] for one in both], (0, 2)))
    parts = np.stack(parts)  # (scramblings, 2, 2)
    total = parts[:, 0] @ pair.priors
    error = t.ppf(0.975, SCRAMBLINGS - 1) * total.std(ddof=1) / np.sqrt(SCRAMBLINGS)
    distortion, flips = parts.mean(0)
    return Average(distortion, flips, float(error))


def _uniforms(dimensions: int, rng):
    """A source of points in the unit cube: scrambled Sobol points up to SciPy's limit of dimensions, random ones beyond."""
    if dimensions <= qmc.Sobol.MAXDIM:
        return qmc.Sobol(dimensions, rng=rng).random
    return lambda n: rng.random((n, dimensions))


def draw_networks(pair: Pair, at: Margin, errors: Errors, counts: np.ndarray | None, seed: int) -> Draws:
    """Single networks from the error law.

    Args:
        pair: the problem, no batch axes. at: its margin. errors: the steps.
        counts: (2,) samples behind the statistics, or None when they are exact.
        seed: of the scrambling.
    """
    directions = np.concatenate([pair.means, np.einsum("kij,j->ki", pair.covariances, pair.w)])
    _, k4, _ = errors.moments()
    norms = np.sum(directions**2, 1)
    peaked = np.sum(directions**4, 1)[norms > 0] / norms[norms > 0] ** 2
    normal = abs(k4) * np.max(peaked, initial=0.0) <= CUMULANT
    rng = np.random.default_rng([seed, 1])
    if not errors.steps.any():
        by = Change(*(jnp.zeros((POINTS, 2)) for _ in Change._fields))
    else:
        by = _reduced(pair, errors, directions, rng) if normal else _drawn(pair, errors, rng)
    distortion = np.asarray(binary.class_distortion(at, by)) @ pair.priors
    flips = np.asarray(binary.class_flips(at, by)) @ pair.priors
    variance = np.zeros_like(distortion)
    if counts is not None:
        variance = np.asarray(binary.statistics_variance(pair.priors, counts.astype(float), at, by))
    return Draws("reduced law" if normal else "error draws", distortion, flips, variance)


def _drawn(pair: Pair, errors: Errors, rng) -> Change:
    d = len(pair.w)
    slabs = min(POINTS // 64, 2 ** max(0, int(np.ceil(np.log2(d / 64)))))  # equal ones: one shape to compile
    uniforms, size = _uniforms(len(errors.steps) * d, rng), POINTS // slabs
    parts = [binary.change(pair, errors.draw(uniforms(size)), np.zeros(size)) for _ in range(slabs)]
    return Change(*(jnp.concatenate(x) for x in zip(*parts, strict=True)))


def _reduced(pair: Pair, errors: Errors, directions: np.ndarray, rng) -> Change:
    v, k4, _ = errors.moments()
    values, vectors = np.linalg.eigh(directions @ directions.T)
    keep = values > 1e-12 * values[-1]
    # e = basis' y + orthogonal rest, y standard normal times sqrt(v) in the span of the directions
    basis = (vectors[:, keep] / np.sqrt(values[keep])).T @ directions
    rank = len(basis)
    points = np.clip(qmc.Sobol(rank + 2, rng=rng).random(POINTS), 2.0**-40, 1 - 2.0**-40)
    y = np.sqrt(v) * ndtri(points[:, :rank])
    x = y @ (basis @ directions.T)  # (n, 4)
    a, q = x[:, :2], x[:, 2:]
    covariances = pair.covariances
    images = np.einsum("kij,rj->kri", covariances, basis)  # Sigma_k b_r
    inside = np.einsum("kri,si->krs", images, basis)
    from_mean = np.einsum("nr,krs,ns->nk", y, inside, y)
    outside = images - inside @ basis  # Q Sigma_k b_r
    rest = np.stack(
        [
            S - basis.T @ image - image.T @ basis + basis.T @ core @ basis
            for S, image, core in zip(covariances, images, inside, strict=True)
        ]
    )  # Q Sigma_k Q
    mean = binary.evaluate("reduced_mean")(v=v, from_mean=from_mean, trace_Q=np.trace(rest, axis1=1, axis2=2))
    covariance = {}
    for k, j in ((0, 0), (1, 1), (0, 1)):
        cross = np.einsum("nr,rs,ns->n", y, outside[k] @ outside[j].T, y)
        covariance[k, j] = binary.evaluate("reduced_covariance")(
            v=v, k4=k4, cross=cross, trace_QQ=np.sum(rest[k] * rest[j]), diagonal=np.diag(rest[k]) @ np.diag(rest[j])
        )
    variance = np.maximum(np.stack([covariance[0, 0], covariance[1, 1]], 1), 1e-300)
    corr = np.clip(covariance[0, 1] / np.sqrt(variance[:, 0] * variance[:, 1]), -1, 1)
    normals = ndtri(points[:, rank:])
    normals[:, 1] = corr * normals[:, 0] + np.sqrt(1 - corr**2) * normals[:, 1]
    return Change(jnp.asarray(a), jnp.asarray(q), jnp.asarray(_gamma(mean, variance, normals, a, q, pair)))


def _gamma(mean, variance, normals, a, q, pair: Pair) -> np.ndarray:
    """Gamma variables of the given mean and variance at the given normal scores; normal where the shape is large."""
    shape = mean**2 / variance
    small = shape < 1e4
    r = mean + np.sqrt(variance) * normals
    r[small] = gammaincinv(shape[small], ndtr(normals[small])) * (variance / mean)[small]
    power = np.einsum("i,kij,j->k", pair.w, pair.covariances, pair.w)
    return np.maximum(r, q**2 / np.maximum(power, 1e-300))  # Cauchy-Schwarz: e'Sigma e >= (e'Sigma w)^2/(w'Sigma w)
