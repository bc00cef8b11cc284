"""Probabilities that jointly Gaussian contrasts are all positive, by separation of variables, with a reported error.

P(x > 0) for x ~ N(m, L L') is written over the unit cube (Genz, J. Comput. Graph. Statist. 1 (1992) 141): with
b_i = (m_i + sum_{j<i} L_ij w_j)/L_ii the factors Phi(b_i) multiply and w_i = -Phi^-1(u_i Phi(b_i)). Several laws with the same
points and the same order of the variables give differences whose error falls with the difference itself.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from scipy.special import ndtr as ndtr_numpy
from scipy.special import stdtrit

from theory.integrals.points import has_sobol, sobol

SCRAMBLINGS = 16
FEW = 64  # points below which Latin hypercubes serve
SINGULAR = 1e-12  # conditional variance over variance below which a contrast is a function of those before it
TINY = 1e-300


class Estimate(NamedTuple):
    """A mean over independently scrambled point sets and its 95 % error (Student's quantile times the standard error)."""

    value: np.ndarray
    error: np.ndarray


def estimate(replicates: np.ndarray, confidence: float = 0.95) -> Estimate:
    """From (scramblings, ...) replicates."""
    n = len(replicates)
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return Estimate(replicates.mean(0), quantile * replicates.std(0, ddof=1) / np.sqrt(n))


def orthant(mean: np.ndarray, covariance: np.ndarray, *, n: int = 2**12, seed: int = 0) -> Estimate:
    """P(x > 0) for x ~ N(mean, covariance).

    Args:
        mean: (m,). covariance: (m, m), positive semi-definite. n: points a scrambling, of SCRAMBLINGS.
        seed: of the scrambling.

    Returns:
        The probability and its 95 % error.

    Kind: exact up to the reported error. Call inside :func:`theory.setting.precision.in_float64`.
    """
    order = order_of(mean[None], covariance[None])[0]
    L = cholesky(covariance[np.ix_(order, order)])
    parts = [
        np.mean(separated(jnp.asarray(mean[order]), L, points)) for points in point_sets(len(mean), n, SCRAMBLINGS, seed, 3)
    ]
    return estimate(np.array(parts))


def raw_points(dimensions: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, dimensions) scrambled Sobol points, or a Latin hypercube where they are few (as good, and made in no time) or beyond
    SciPy's limit of dimensions."""
    if n < FEW or not has_sobol(dimensions):
        return (np.argsort(rng.random((n, dimensions)), 0) + rng.random((n, dimensions))) / n
    return sobol(dimensions, rng=rng).random(n)


@jax.jit
def moved(points: jax.Array, shift: jax.Array) -> jax.Array:
    """Points (..., dimensions) moved around the unit cube by a shift of as many axes and folded by the tent map: each still
    uniform and none at the edge; the map makes integrands periodic, which spares smooth ones the boundary term."""
    x = points + shift
    edge = 2.0**-40 if x.dtype == jnp.float64 else 1e-7
    return jnp.clip(1 - jnp.abs(2 * (x - jnp.floor(x)) - 1), edge, 1 - edge)


def point_sets(dimensions: int, n: int, scramblings: int, *seed: int):
    """``scramblings`` independent point sets (n, dimensions) in the open unit cube, each point uniform."""
    for scrambling in range(scramblings):
        points = jnp.asarray(raw_points(dimensions, n, np.random.default_rng([*seed, scrambling])))
        yield moved(points, jnp.zeros((1, dimensions), points.dtype))


def order_of(means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(batch, m) orders of the variables, the least likely condition first given those before it at their means.

    Gibson, Glasbey and Elston (1994): greedy, O(m^3) a law.
    """
    batch, m = means.shape
    means, covariances, rows = means.copy(), covariances.copy(), np.arange(batch)
    order, left = np.zeros((batch, m), int), np.ones((batch, m), bool)
    floor = SINGULAR * np.diagonal(covariances, axis1=1, axis2=2)
    for i in range(m):
        variance = np.maximum(np.diagonal(covariances, axis1=1, axis2=2), floor)
        b = np.where(left, means / np.sqrt(np.maximum(variance, TINY)), np.inf)
        chosen = np.argmin(b, 1)
        order[:, i], left[rows, chosen] = chosen, False
        lowest, power = b[rows, chosen], variance[rows, chosen]
        # E[w | w > -b] = phi(b)/Phi(b)
        probability = np.maximum(ndtr_numpy(lowest), TINY)
        shift = np.where(lowest > -30, np.exp(-0.5 * np.minimum(lowest**2, 1400)) / np.sqrt(2 * np.pi) / probability, -lowest)
        column = covariances[rows, chosen] / np.sqrt(np.maximum(power, TINY))[:, None]
        means = means + column * shift[:, None]
        covariances = covariances - column[:, :, None] * column[:, None, :]
    return order


@jax.jit
def cholesky(covariance: jax.Array) -> jax.Array:
    """Lower factors L with L L' = covariance (..., m, m), a zero column where a variable is a function of those before it."""
    covariance = jnp.asarray(covariance)
    m = covariance.shape[-1]
    scale = jnp.maximum(jnp.diagonal(covariance, axis1=-2, axis2=-1), TINY)
    index = jnp.arange(m)

    def step(i, carry):
        L, rest = carry
        pivot = jnp.take(jnp.diagonal(rest, axis1=-2, axis2=-1), i, axis=-1)
        free = pivot > SINGULAR * jnp.take(scale, i, axis=-1)
        root = jnp.sqrt(jnp.where(free, pivot, 1.0))
        column = jnp.where(free[..., None], jnp.take(rest, i, axis=-1) / root[..., None], 0.0)
        column = jnp.where(index >= i, column, 0.0)
        rest = rest - column[..., :, None] * column[..., None, :]
        return jnp.where(index == i, column[..., :, None], L), rest

    return jax.lax.fori_loop(0, m, step, (jnp.zeros_like(covariance), covariance))[0]


def Phi(x: jax.Array) -> jax.Array:
    """The normal distribution function by erfc: as exact in both tails as ``ndtr`` and several times as fast."""
    return 0.5 * jax.lax.erfc(-x * math.sqrt(0.5))


def _quantile(p: jax.Array) -> jax.Array:
    """Phi^-1; in single precision by the quick inverse of erf, cut off at 5.3 standard deviations."""
    if p.dtype == jnp.float64:
        return ndtri(jnp.maximum(p, TINY))
    return math.sqrt(2) * jax.lax.erf_inv(jnp.clip(2 * p - 1, -1 + 1.2e-7, 1 - 1.2e-7))


@jax.jit
def separated(mean: jax.Array, L: jax.Array, points: jax.Array) -> jax.Array:
    """The integrand of P(x > 0) at points (n, m) for one law mean (m,), factor L (m, m): (n,)."""
    m = mean.shape[-1]
    u = points.T

    def step(i, carry):
        product, w = carry
        centre = mean[i] + L[i] @ w
        spread = L[i, i]
        b = jnp.where(spread > 0, centre / jnp.where(spread > 0, spread, 1.0), jnp.where(centre > 0, jnp.inf, -jnp.inf))
        factor = Phi(b)
        drawn = -_quantile(u[i] * factor)
        return product * factor, w.at[i].set(jnp.where(spread > 0, drawn, 0.0))

    start = (jnp.ones(points.shape[0], mean.dtype), jnp.zeros_like(u))
    return jax.lax.fori_loop(0, m, step, start)[0]
