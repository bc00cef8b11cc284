"""The distribution-free prediction: random layers averaged over the labelled features themselves.

Given z the logit noise E z has independent rows of variance sigma_j^2 |z|^2, nearly Gaussian: the probability of a decision is
a one-dimensional integral (``own_noise`` in :mod:`derivations.multiclass`), exact for two classes. Nothing is assumed of the
features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from scipy.special import stdtrit

from theory.error_model import ErrorModel
from theory.integrals.orthant import Phi
from theory.setting.features import Features
from theory.setting.problem import decide, two_rows

REACH = 8.5  # standard deviations of the own noise: 2e-17 beyond
NODES = 65  # of the trapezoid rule at least: 4e-5 with equal rows; twice as many 3e-9
MOST = 1025
LEAST_DEVIATION = 1e-300
QUIET = 1 / 64  # a row's noise over the loudest below which it is raised to that: 1/4096 of the variance
ROWS = 2**16  # logits times nodes a block
DRAWS = 512  # networks behind the interval, less where a pass over the features is dear
DRAW_WORK = 2e10


def decided(logits: np.ndarray, deviations: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """(n,) probabilities that the noisy layer decides the chosen class, and the largest error of the quadrature.

    Args:
        logits: (n, K) clean. deviations: (n, K) of the independent noise of each logit; of two classes (n, 1), that of their
            difference. chosen: (n,) classes.
    """
    rows = np.arange(len(chosen))
    if logits.shape[1] == 2:
        gap, spread = logits[rows, chosen] - logits[rows, 1 - chosen], deviations[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(spread > 0, gap / spread, np.where((gap > 0) | ((gap == 0) & (chosen == 0)), np.inf, -np.inf))
        return np.asarray(Phi(jnp.asarray(ratio))), 0.0
    loudest = deviations.max(1)
    if loudest.max() == 0:
        return (decide(logits) == chosen).astype(float), 0.0
    deviations = np.maximum(np.maximum(deviations, QUIET * loudest[:, None]), LEAST_DEVIATION)
    ratio = float((deviations.min(1) / deviations.max(1)).min())
    spacing = min(0.5 * ratio, 2 * REACH / (NODES - 1))
    nodes = min(MOST, 2 * int(np.ceil(REACH / spacing / 2 * (1 - 1e-12))) * 2 + 1)  # 4 m + 1: every other node makes a rule too
    block = max(1, ROWS // (nodes * logits.shape[1] // 16))
    fine, coarse = [], []
    for first in range(0, len(rows), block):
        part = slice(first, first + block)
        pad = block - len(rows[part])  # one shape to compile
        a, s, c = (np.concatenate([x[part], x[:1].repeat(pad, 0)]) for x in (logits, deviations, chosen))
        both = _compiled(*map(jnp.asarray, (a, s, c)), jnp.linspace(-REACH, REACH, nodes))
        fine.append(np.asarray(both[0])[: block - pad])
        coarse.append(np.asarray(both[1])[: block - pad])
    value, rough = np.concatenate(fine), np.concatenate(coarse)
    return value, float(np.abs(value - rough).max())


@jax.jit
def _compiled(logits, deviations, chosen, t):
    """(n,) by the trapezoid rule on the nodes t, and on every other one. The product of the factors is summed in logarithms."""
    n, K = logits.shape
    own, own_deviation = (jnp.take_along_axis(x, chosen[:, None], 1) for x in (logits, deviations))
    others = jnp.arange(K)[None] != chosen[:, None]

    def rival(total, inputs):
        logit, deviation, other = inputs
        # Phi of this argument is the derived factor; its logarithm keeps the far tail
        argument = (own - logit[:, None] + own_deviation * t[None]) / deviation[:, None]
        return total + jnp.where(other[:, None], log_ndtr(argument), 0.0), None

    total, _ = jax.lax.scan(rival, jnp.zeros((n, len(t))), (logits.T, deviations.T, others.T))
    integrand = jnp.exp(total - 0.5 * t[None] ** 2) / np.sqrt(2 * np.pi)
    spacing = t[1] - t[0]
    return jnp.sum(integrand, 1) * spacing, jnp.sum(integrand[:, ::2], 1) * 2 * spacing


def deviations_of(z: np.ndarray, model: ErrorModel) -> np.ndarray:
    """(n, K) standard deviations of the noise that errors make of each logit at features z (n, d); of two rows (n, 1), that of
    the difference, and of one row (n, 1) its own."""
    rows = model.rows
    if len(rows) == 2 and model.tied:
        rows = np.abs(model.sign[1:] * model.rows[1:] - model.sign[:1] * model.rows[:1])
    elif len(rows) == 2:
        rows = np.sqrt(np.sum(rows**2, 0, keepdims=True))
    if rows.shape[1] == 1:
        return np.linalg.norm(z * model.columns, axis=1)[:, None] * rows[:, 0]
    return np.sqrt((z * model.columns) ** 2 @ (rows**2).T)


class NoiseAverage(NamedTuple):
    """What random layers do on average on samples, by class (K,), as :class:`theory.effect.Effect` has it; the largest errors
    of the quadrature; of single networks distortion, with the noise of the finite sample removed, and share whose correctness
    changes (draws,); and the sampling variance of the average."""

    before: np.ndarray
    distortion: np.ndarray
    flips: np.ndarray
    error: float
    flips_error: float
    networks: np.ndarray
    changed: np.ndarray
    variance: float


def expected(features: Features, model: ErrorModel, *, seed: int = 0) -> NoiseAverage:
    """What random layers do on average on these samples, beside the clean layer: the noise of the logits integrated out, or
    where rows of more than two classes are tied, so that their logits share it, counted on networks drawn."""
    z, labels, K = features.features.astype(np.float64), features.labels, features.classes
    mean, bias = two_rows(model.mean, features.bias)
    logits, deviations = z @ mean.T + bias, deviations_of(z, model)
    clean = decide(z @ features.weights.T + features.bias)
    drawn = by_networks(z * model.columns, logits, model, labels, clean, seed)
    if K > 2 and model.tied:
        right, same = drawn.right, drawn.same
        error_right, error_same = (_error_95(of_network) for of_network in (drawn.distortion, drawn.flips))
    else:
        right, error_right = decided(logits, deviations, labels)
        same, error_same = decided(logits, deviations, clean)
    change = (clean == labels) - right
    counts = np.maximum(np.bincount(labels, minlength=K), 1)

    def by_class(x: np.ndarray) -> np.ndarray:
        return np.bincount(labels, weights=x, minlength=K) / counts

    draws, changed, n = drawn.distortion, drawn.changed, len(labels)
    noise = max(float(np.mean(changed - draws**2)) - float(change.var()), 0.0) / n  # of one network's D beyond the average's
    # the variance over networks is not below what so many draws can tell from none
    share = np.sqrt(max(np.sqrt(2 / len(draws)), 1 - noise / max(draws.var(), 1e-300)))
    return NoiseAverage(
        before=by_class(clean != labels),
        distortion=by_class(change),
        flips=by_class(1 - same),
        error=error_right,
        flips_error=error_same,
        networks=(draws - draws.mean()) * share + change.mean(),
        changed=changed,
        variance=float(change.var(ddof=1)) / n if n > 1 else 0.0,
    )


class Networks(NamedTuple):
    """What networks drawn, in antithetic pairs one after the other, decide: distortion, share of changed correctness and flips
    of each (draws,); the share of them that decides the label of each sample, and what the clean layer decides (n,)."""

    distortion: np.ndarray
    changed: np.ndarray
    flips: np.ndarray
    right: np.ndarray
    same: np.ndarray


def by_networks(z, logits, model: ErrorModel, labels, clean, seed: int) -> Networks:
    """Networks of uniform errors, their decisions counted. In float32, of leads over the class of the clean decision, which is
    the given one: of rows whose errors are the same what is left is exact. Samples lie along the minor axis.

    Args:
        z: (n, d), each column times the standard deviation of its errors. logits: (n, K) before noise. model: of the errors.
        labels, clean: (n,). seed: of the draws.
    """
    (n, d), K = z.shape, logits.shape[1]
    rows, group, sign = model.rows, model.group, model.sign
    if len(rows) == 1:  # one output: a first row of zeros, without errors
        rows, group, sign = np.concatenate([0 * rows, rows]), np.arange(2), np.concatenate([0 * sign, sign])
    pairs = int(np.clip(DRAW_WORK / (2 * n * d * K), 16, DRAWS // 2))
    wide = (np.sqrt(12) * sign * rows).astype(np.float32)
    E = (np.random.default_rng([seed, 8]).random((pairs, K, d), np.float32) - 0.5)[:, group] * wide
    leads = logits - logits[np.arange(n), clean][:, None]
    given = (jnp.asarray(x) for x in (E, z.T.astype(np.float32), leads.T.astype(np.float32), labels, clean))
    (right, same), counts = _count_pairs(*given)
    made, mended, flips = np.asarray(counts, float).reshape(-1, 3).T / n
    return Networks(made - mended, made + mended, flips, *(np.asarray(x, float) / (2 * pairs) for x in (right, same)))


@jax.jit
def _count_pairs(E, z, leads, labels, clean):
    """Of W + E and W - E: how many decide the label of each sample, and the clean decision (n,); and of each errors made and
    mended, and decisions changed (pairs, 2, 3)."""
    before = clean == labels

    def pair(totals, e):
        noise, counts = jnp.matmul(e, z, precision=jax.lax.Precision.HIGHEST), []
        noise = noise - jnp.take_along_axis(noise, clean[None], 0)
        for noisy in (leads + noise, leads - noise):
            decided = jnp.argmax(noisy, 0)
            after, same = decided == labels, decided == clean
            totals = tuple(total + x.astype(jnp.int32) for total, x in zip(totals, (after, same), strict=True))
            counts.append(jnp.stack([jnp.sum(before & ~after), jnp.sum(~before & after), jnp.sum(~same)]))
        return totals, jnp.stack(counts)

    nothing = jnp.zeros(len(labels), jnp.int32)
    return jax.lax.scan(pair, (nothing, nothing), E)


def _error_95(of_networks: np.ndarray) -> float:
    """Half-width of the average over networks drawn in pairs."""
    pairs = of_networks.reshape(-1, 2).mean(1)
    return float(stdtrit(len(pairs) - 1, 0.975) * pairs.std(ddof=1) / np.sqrt(len(pairs)))
