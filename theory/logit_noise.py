"""The distribution-free prediction: random layers averaged over the labelled features themselves.

Given z the logit noise E z has independent rows of variance sigma_j^2 |z|^2, nearly Gaussian: the probability of a decision is
a one-dimensional integral (``own_noise`` in :mod:`derivations.multiclass`), exact for two classes. Nothing is assumed of the
features.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr

from theory.error_model import ErrorModel
from theory.multiclass import Change
from theory.orthant import Phi
from theory.setting.files import Features
from theory.setting.problem import decide, two_rows

REACH = 8.5  # standard deviations of the own noise: 2e-17 beyond
NODES = 65  # of the trapezoid rule at least: 4e-5 with equal rows; twice as many 3e-9
MOST = 1025
QUIET = 1 / 64  # a row's noise over the loudest below which it is raised to that: 1/4096 of the variance
ROWS = 2**16  # logits times nodes a block
DRAWS = 512  # networks behind the interval, less where a pass over the features is dear
DRAW_WORK = 2e10


def decided(logits: np.ndarray, norms: np.ndarray, sigma: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, float]:
    """(n,) probabilities that the noisy layer decides the chosen class, and the largest error of the quadrature.

    Args:
        logits: (n, K) clean. norms: (n,) |z|. sigma: (K,) standard deviation of an entry of a row of E.
        chosen: (n,) classes.
    """
    rows = np.arange(len(chosen))
    if logits.shape[1] == 2:
        gap = logits[rows, chosen] - logits[rows, 1 - chosen]
        spread = norms * np.sqrt(np.sum(sigma**2))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(spread > 0, gap / spread, np.where((gap > 0) | ((gap == 0) & (chosen == 0)), np.inf, -np.inf))
        return np.asarray(Phi(jnp.asarray(ratio))), 0.0
    if sigma.max() == 0:
        return (decide(logits) == chosen).astype(float), 0.0
    sigma = np.maximum(sigma, QUIET * sigma.max())
    spacing = min(0.5 * sigma.min() / sigma.max(), 2 * REACH / (NODES - 1))
    nodes = min(MOST, 2 * int(np.ceil(REACH / spacing / 2)) * 2 + 1)  # 4 m + 1: every other node makes a rule too
    block = max(1, ROWS // (nodes * logits.shape[1] // 16))
    fine, coarse = [], []
    for first in range(0, len(rows), block):
        part = slice(first, first + block)
        pad = block - len(rows[part])  # one shape to compile
        a, s, c = (np.concatenate([x[part], x[:1].repeat(pad, 0)]) for x in (logits, norms, chosen))
        both = _line(jnp.asarray(a), jnp.asarray(s), jnp.asarray(sigma), jnp.asarray(c), nodes=nodes)
        fine.append(np.asarray(both[0])[: block - pad])
        coarse.append(np.asarray(both[1])[: block - pad])
    value, rough = np.concatenate(fine), np.concatenate(coarse)
    return value, float(np.abs(value - rough).max())


def _line(logits, norms, sigma, chosen, *, nodes: int):
    return _compiled(logits, jnp.maximum(norms, 1e-300), sigma, chosen, jnp.linspace(-REACH, REACH, nodes))


@jax.jit
def _compiled(logits, norms, sigma, chosen, t):
    """(n,) by the trapezoid rule on the nodes t, and on every other one. The product of the factors is summed in logarithms."""
    n, K = logits.shape
    own = jnp.take_along_axis(logits, chosen[:, None], 1)
    others = jnp.arange(K)[None] != chosen[:, None]

    def rival(total, inputs):
        logit, sd, other = inputs
        # Phi of this argument is the derived factor; its logarithm keeps the far tail
        argument = (own - logit[:, None] + (sigma[chosen] * norms)[:, None] * t[None]) / (sd * norms)[:, None]
        return total + jnp.where(other[:, None], log_ndtr(argument), 0.0), None

    total, _ = jax.lax.scan(rival, jnp.zeros((n, len(t))), (logits.T, sigma, others.T))
    integrand = jnp.exp(total - 0.5 * t[None] ** 2) / np.sqrt(2 * np.pi)
    spacing = t[1] - t[0]
    return jnp.sum(integrand, 1) * spacing, jnp.sum(integrand[:, ::2], 1) * 2 * spacing


def expected(features: Features, model: ErrorModel, *, seed: int = 0) -> tuple[Change, np.ndarray, float]:
    """What random layers do on average on these samples, beside the clean layer.

    Returns:
        The change (its ``draws`` are distortions of single networks with the noise of the finite sample removed), the share
        (draws,) of samples whose correctness each changes, and the sampling variance of the average.
    """
    z, labels, K = features.features.astype(np.float64), features.labels, features.classes
    mean, bias, rows = two_rows(model.mean, features.bias, model.rows)
    logits = z @ mean.T + bias
    clean, norms = decide(z @ features.weights.T + features.bias), np.linalg.norm(z * model.columns, axis=1)
    right, error_right = decided(logits, norms, rows, labels)
    same, error_same = decided(logits, norms, rows, clean)
    change = (clean == labels) - right
    counts = np.maximum(np.bincount(labels, minlength=K), 1)

    def by_class(x: np.ndarray) -> np.ndarray:
        return np.bincount(labels, weights=x, minlength=K) / counts

    draws, changed = by_networks(z * model.columns, logits, rows, labels, clean, seed)
    n = len(labels)
    noise = max(float(np.mean(changed - draws**2)) - float(change.var()), 0.0) / n  # of one network's D beyond the average's
    # the variance over networks is not below what so many draws can tell from none
    share = np.sqrt(max(np.sqrt(2 / len(draws)), 1 - noise / max(draws.var(), 1e-300)))
    single = (draws - draws.mean()) * share + change.mean()
    made_or_mended = np.where(clean == labels, 1 - right, right)
    return (
        Change(
            before=by_class(clean != labels),
            distortion=by_class(change),
            flips=by_class(1 - same),
            changed=by_class(made_or_mended),
            error=error_right,
            flips_error=error_same,
            method="own_noise",
            draws=single,
        ),
        changed,
        float(change.var(ddof=1)) / n if n > 1 else 0.0,
    )


def by_networks(z, logits, sigma, labels, clean, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distortion and share of changed correctness (draws,) of networks of uniform errors, counted, in antithetic pairs one
    after the other. In float32, samples along the minor axis; the clean decision is the given one.

    Args:
        z: (n, d), each column times the standard deviation of its errors. logits: (n, K) before noise. sigma: (K,) standard
            deviation of the errors of each row. labels, clean: (n,). seed: of the draws.
    """
    (n, d), K = z.shape, len(sigma)
    pairs = int(np.clip(DRAW_WORK / (2 * n * d * K), 16, DRAWS // 2))
    wide = (np.sqrt(12) * sigma)[:, None].astype(np.float32)
    E = (np.random.default_rng([seed, 8]).random((pairs, K, d), np.float32) - 0.5) * wide
    given = (jnp.asarray(x) for x in (E, z.T.astype(np.float32), logits.T.astype(np.float32), labels, clean == labels))
    made, mended = np.asarray(_count_pairs(*given), float).reshape(-1, 2).T / n
    return made - mended, made + mended


@jax.jit
def _count_pairs(E, z, logits, labels, before):
    """(pairs, 2, 2): errors made and mended by W + E and by W - E."""

    def pair(e):
        noise = jnp.matmul(e, z, precision=jax.lax.Precision.HIGHEST)
        counts = []
        for noisy in (logits + noise, logits - noise):
            after = jnp.argmax(noisy, 0) == labels
            counts.append(jnp.stack([jnp.sum(before & ~after), jnp.sum(~before & after)]))
        return jnp.stack(counts)

    return jax.lax.map(pair, E)
