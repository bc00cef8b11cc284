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

from theory.budget import DEFAULT, Budget
from theory.effect import Draws
from theory.integrals import two_classes
from theory.integrals.orthant import SCRAMBLINGS, estimate
from theory.integrals.points import has_sobol, lattices, sobol
from theory.integrals.two_classes import Margin, MarginChange, Pair
from theory.setting.error_law import UniformErrors

QUIETEST_STEP = 1e-6  # of the loudest column: one without errors is given so much, so that features can be scaled
TINY = 1e-300


class MarginErrors(NamedTuple):
    """Errors of the margin's weights under the uniform hypothesis.

    steps: (rows, 1), or (rows, d) where groups of weights have their own, of the one or two rows of independent uniforms.
    columns: None, or (d,): where steps differ along a row the margin is taken in the features z_j columns_j, in which every
    error has one variance; the steps are those there.
    """

    steps: np.ndarray
    columns: np.ndarray | None = None

    def cumulants(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """v, k4 and k6 of the entries of the error, (1,) or (d,); v is 0 where an entry has no error."""
        first, second = self.steps[0], self.steps[1] if len(self.steps) == 2 else 0.0 * self.steps[0]
        random = (first != 0) | (second != 0)
        first = np.where(random, first, 1.0)
        names = ("error_variance", "error_k4", "error_k6")
        values = [two_classes.evaluate(name)(step_0=first, step_1=second) for name in names]
        v, k4, k6 = (np.where(random, value, 0.0) for value in values)
        return v, k4, k6

    def moments(self) -> tuple[float, float, float]:
        """v, which all entries with an error have in common, and k4 and k6 averaged over the entries."""
        v, k4, k6 = self.cumulants()
        return float(np.max(v)), float(np.mean(k4)), float(np.mean(k6))

    def weights(self) -> tuple[np.ndarray | float, np.ndarray | float]:
        """k4 and k6 of the entries over their averages: 1, or (d,)."""
        _, k4, k6 = self.cumulants()
        fourth, sixth = (1.0 if len(k) == 1 or not k.any() else k / k.mean() for k in (k4, k6))
        return fourth, sixth

    def draw(self, uniforms: np.ndarray) -> np.ndarray:
        """(n, rows * d) uniforms on (0, 1) to (n, d) errors of w."""
        rows = uniforms.reshape(len(uniforms), len(self.steps), -1) - 0.5
        return rows[:, 0] * self.steps[0] if len(self.steps) == 1 else rows[:, 1] * self.steps[1] - rows[:, 0] * self.steps[0]


def margin_errors(errors: UniformErrors) -> MarginErrors:
    """The errors of the margin of two classes: of a head of one row, of two independent rows, or of two tied ones, which are
    one."""
    steps = errors.wide
    if len(steps) == 2 and errors.tied:
        steps = np.abs(steps[1:] - steps[:1])
    steps = np.abs(steps)
    if steps.shape[1] == 1:
        return MarginErrors(steps)
    deviation = np.sqrt(np.sum(steps**2, 0))
    columns = np.maximum(deviation, QUIETEST_STEP * deviation.max()) / max(deviation.max(), TINY)
    return MarginErrors(steps / columns, columns) if deviation.any() else MarginErrors(steps[:, :1])


class Average(NamedTuple):
    """Expected change per class (2,) of risk and flips, and the errors of both, weighted by the priors: 95 % half-widths by
    Sobol points, what the truncation may be by the quadrature, the distance from it by older formulas."""

    distortion: np.ndarray
    flips: np.ndarray
    error: float
    flips_error: float


def sobol_average(pair: Pair, at: Margin, errors: MarginErrors, seed: int, budget: Budget = DEFAULT) -> Average:
    """The expected change by averaging the exact one over Sobol points of e and their negatives.

    Exact up to the reported error, for any d; the reference for small d. Cost grows as d^2 a point.
    """
    d = len(pair.w)
    per = int(2 ** np.clip(np.floor(np.log2(budget.sobol_work / SCRAMBLINGS / d**2)), 7, 12))
    parts = []
    for scrambling in range(SCRAMBLINGS):
        points = _uniforms(len(errors.steps) * d, np.random.default_rng([seed, 0, scrambling]))(per)
        change = two_classes.change(pair, errors.draw(points), np.zeros(per))
        both = [change, MarginChange(-change.a, -change.q, change.r)]
        parts.append(
            np.mean([[two_classes.class_distortion(at, each), two_classes.class_flips(at, each)] for each in both], (0, 2))
        )
    parts = np.stack(parts)  # (scramblings, 2, 2)
    return Average(*parts.mean(0), *map(float, estimate(parts @ pair.priors).error))


def _uniforms(dimensions: int, rng):
    """A source of points in the unit cube: scrambled Sobol points up to SciPy's limit of dimensions, random ones beyond."""
    if has_sobol(dimensions):
        return sobol(dimensions, rng=rng).random
    return lambda n: rng.random((n, dimensions))


def draw_networks(
    pair: Pair, at: Margin, errors: MarginErrors, counts: np.ndarray | None, seed: int, budget: Budget = DEFAULT
) -> Draws:
    """Single networks from the error law, or from the reduced law where the four linear combinations are close to normal.

    Args:
        pair: the problem, no batch axes. at: its margin. errors: the steps.
        counts: (2,) samples behind the statistics, or None when they are exact.
        seed: of the scrambling. budget: how many networks, and what is close to normal.

    Returns:
        Distortion, flips and the variance that the statistics leave, (budget.networks,) each.
    """
    directions = np.concatenate([pair.means, np.einsum("kij,j->ki", pair.covariances, pair.w)])
    k4 = np.abs(errors.cumulants()[1]).max()
    norms = np.sum(directions**2, 1)
    peaked = np.sum(directions**4, 1)[norms > 0] / norms[norms > 0] ** 2
    normal = k4 * np.max(peaked, initial=0.0) <= budget.largest_excess
    rng = np.random.default_rng([seed, 1])
    if not errors.steps.any():
        change = MarginChange(*(jnp.zeros((budget.networks, 2)) for _ in MarginChange._fields))
    else:
        n = budget.networks
        change = _reduced(pair, errors, directions, n, rng) if normal else _drawn(pair, errors, n, rng)
    distortion = np.asarray(two_classes.class_distortion(at, change)) @ pair.priors
    flips = np.asarray(two_classes.class_flips(at, change)) @ pair.priors
    variance = np.zeros_like(distortion)
    if counts is not None:
        variance = np.asarray(two_classes.statistics_variance(pair.priors, counts.astype(float), at, change))
    return Draws("reduced law" if normal else "error draws", distortion, flips, variance)


def _lattice(rng: np.random.Generator, n: int, dimensions: int) -> np.ndarray:
    """(n, dimensions) points in the unit cube, each uniform."""
    return (lattices(rng, 1, n, dimensions)[0] + rng.random(dimensions)) % 1.0


def _drawn(pair: Pair, errors: MarginErrors, n: int, rng) -> MarginChange:
    d = len(pair.w)
    slabs = min(n // 64, 2 ** max(0, int(np.ceil(np.log2(d / 64)))))  # equal ones: one shape to compile
    size, dimensions = n // slabs, len(errors.steps) * d
    draws = (errors.draw(_lattice(rng, size, dimensions)) for _ in range(slabs))
    parts = [two_classes.change(pair, drawn, np.zeros(size)) for drawn in draws]
    return MarginChange(*(jnp.concatenate(x) for x in zip(*parts, strict=True)))


def _reduced(pair: Pair, errors: MarginErrors, directions: np.ndarray, n: int, rng) -> MarginChange:
    (v, k4, _), (fourth, _) = errors.moments(), errors.weights()
    values, vectors = np.linalg.eigh(directions @ directions.T)
    keep = values > 1e-12 * values[-1]
    # e = basis' y + orthogonal rest, y standard normal times sqrt(v) in the span of the directions
    basis = (vectors[:, keep] / np.sqrt(values[keep])).T @ directions
    rank = len(basis)
    points = np.clip(_lattice(rng, n, rank + 2), 2.0**-40, 1 - 2.0**-40)
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
    mean = two_classes.evaluate("reduced_mean")(v=v, from_mean=from_mean, trace_Q=np.trace(rest, axis1=1, axis2=2))
    covariance = {}
    for k, j in ((0, 0), (1, 1), (0, 1)):
        cross = np.einsum("nr,rs,ns->n", y, outside[k] @ outside[j].T, y)
        covariance[k, j] = two_classes.evaluate("reduced_covariance")(
            v=v, k4=k4, cross=cross, trace_QQ=np.sum(rest[k] * rest[j]), diagonal=np.diag(rest[k]) @ (fourth * np.diag(rest[j]))
        )
    variance = np.maximum(np.stack([covariance[0, 0], covariance[1, 1]], 1), TINY)
    corr = np.clip(covariance[0, 1] / np.sqrt(variance[:, 0] * variance[:, 1]), -1, 1)
    normals = ndtri(points[:, rank:])
    normals[:, 1] = corr * normals[:, 0] + np.sqrt(1 - corr**2) * normals[:, 1]
    return MarginChange(jnp.asarray(a), jnp.asarray(q), jnp.asarray(_gamma(mean, variance, normals, a, q, pair)))


def _gamma(mean, variance, normals, a, q, pair: Pair) -> np.ndarray:
    """Gamma variables of the given mean and variance at the given normal scores; normal where the shape is large."""
    shape = mean**2 / variance
    small = shape < 1e4
    r = mean + np.sqrt(variance) * normals
    r[small] = gammaincinv(shape[small], ndtr(normals[small])) * (variance / mean)[small]
    power = np.einsum("i,kij,j->k", pair.w, pair.covariances, pair.w)
    return np.maximum(r, q**2 / np.maximum(power, TINY))  # Cauchy-Schwarz: e'Sigma e >= (e'Sigma w)^2/(w'Sigma w)
