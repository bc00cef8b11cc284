"""Conditional Monte Carlo: labelled samples on random lines of the feature space, the position on the line integrated out.

z = mu + L (g_perp + tau u) with g normal, u a unit vector drawn apart from it and tau ~ N(0, 1). Every head is linear along the
line, so its argmax is the true class between two crossings, and the probability of that is a difference of normal
distribution functions: nothing is counted for the distortion, whose variance falls with the distortion itself. Random layers
come as pairs W + E, W - E. Flips are counted, at one position a line. Checked against plain counting (tests).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from scipy.special import ndtr as ndtr_numpy

from simulate.sampling.blocks import block_sums
from simulate.sampling.paired_counting import factor
from simulate.sampling.random_networks import common_group
from theory.setting.error_law import UniformErrors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

LINES = 256  # lines a block
HIGHEST = jax.lax.Precision.HIGHEST


class Lines(NamedTuple):
    """Sums over ``lines`` lines, each with one sample line of every class: B layers, K classes.

    right (K,) of the clean layer; shift and flips (B, K); squares (B, 2) of the prior-weighted distortion and flips of a line.
    """

    lines: int
    right: np.ndarray
    shift: np.ndarray
    flips: np.ndarray
    squares: np.ndarray

    def __add__(self, other: "Lines") -> "Lines":  # pyright: ignore[reportIncompatibleMethodOverride]
        return Lines(*(a + b for a, b in zip(self, other, strict=True)))  # pyright: ignore[reportArgumentType]


@in_float64
def count_lines(
    problem: Problem,
    *,
    layers: np.ndarray | None = None,
    errors: Sequence[UniformErrors] | None = None,
    seed: int,
    first: int,
    last: int,
    onto: Lines | None = None,
) -> Lines:
    """Blocks ``first`` .. ``last - 1`` of LINES lines, for known layers (B, rows, d) or for the errors of B random ones, added
    to the sums of the blocks before them."""
    weights, bias, random = problem.weights, problem.bias, errors is not None
    noise = np.asarray(layers) - weights if errors is None else np.stack([one.wide for one in errors])
    group = np.arange(len(weights)) if errors is None else common_group(errors)
    if len(weights) == 1:  # one output: a second row of zeros that wins ties
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
        noise, group = np.concatenate([0 * noise, noise], 1), np.arange(2)
    factors = [factor(one) for one in (problem.covariances[None] if problem.shared else problem.covariances)]
    directions, shares = line_directions(problem, weights, bias, factors)
    arrays = [
        jnp.asarray(x)
        for x in (weights, bias, problem.means, np.stack(factors), directions, shares, problem.priors, noise, group)
    ]
    total = onto
    for chunk in block_sums(_block, tuple(arrays), seed=seed, first=first, last=last, what="lines", random=random):
        for one in zip(*chunk, strict=True):
            total = Lines(LINES, *one) if total is None else total + Lines(LINES, *one)
    assert total is not None  # first < last
    return total


def line_directions(problem: Problem, weights: np.ndarray, bias: np.ndarray, factors: list[np.ndarray]):
    """Unit vectors (K, K, d) from each class towards each rival's boundary, and their cumulative shares (K, K): as likely as
    the rival alone would beat the class."""
    K, d = problem.classes, weights.shape[1]
    directions, shares = np.zeros((K, K, d)), np.zeros((K, K))
    for k in range(K):
        contrast = (weights[k] - weights) @ factors[k if len(factors) > 1 else 0]
        sd = np.linalg.norm(contrast, axis=1)
        lead = (weights[k] - weights) @ problem.means[k] + bias[k] - bias
        directions[k] = contrast / np.maximum(sd, 1e-300)[:, None]
        directions[k][sd == 0] = np.eye(d)[0]
        odds = np.where(sd > 0, ndtr_numpy(-lead / np.maximum(sd, 1e-300)), 0.0) + 1e-12
        odds[k] = 0
        shares[k] = np.cumsum(odds) / odds.sum()
    return directions, shares


def _right(start, slope, k):
    """Ends of the interval of the line (K, n) where the argmax is class k; low > high where it never is."""
    # k is right where gap + rate tau > 0 (ties: >= against later classes)
    gap, rate = start[k][None] - start, slope[k][None] - slope
    other = (jnp.arange(len(start)) != k)[:, None]
    later = (jnp.arange(len(start)) > k)[:, None]
    crossing = -gap / jnp.where(rate == 0, 1.0, rate)
    low = jnp.max(jnp.where(other & (rate > 0), crossing, -jnp.inf), 0)
    high = jnp.min(jnp.where(other & (rate < 0), crossing, jnp.inf), 0)
    never = jnp.any(other & (rate == 0) & ((gap < 0) | ((gap == 0) & ~later)), 0)
    return jnp.where(never, jnp.inf, low), high


def _mass(low, high):
    high = jnp.maximum(low, high)
    return jnp.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))


def _block(key, weights, bias, means, factors, directions, shares, priors, noise, group, *, random: bool):
    (K, d), layers = weights.shape, len(noise)
    keys = jax.random.split(key, 4)
    g = jax.random.normal(keys[0], (LINES, d), jnp.float64)
    choice = jax.random.uniform(keys[1], (LINES,), jnp.float64)
    tau = jax.random.normal(keys[2], (LINES,), jnp.float64)
    u = jax.random.uniform(keys[3], (LINES, K, d), jnp.float64, -0.5, 0.5)[:, group] if random else None

    def along(z, slope):
        """Noise of each layer on start and slope: (layers, K, LINES) each."""
        if u is None:
            return tuple(jnp.einsum("bjd,nd->bjn", noise, x, precision=HIGHEST) for x in (z, slope))
        if noise.shape[-1] == 1:
            return tuple(noise * jnp.einsum("njd,nd->jn", u, x, precision=HIGHEST)[None] for x in (z, slope))
        return tuple(jnp.einsum("bjd,njd,nd->bjn", noise, u, x, precision=HIGHEST) for x in (z, slope))

    def one_class(carry, inputs):
        y, f = carry
        k, mean, direction, share, prior = inputs
        L = factors[k] if len(factors) > 1 else factors[0]
        v = direction[jnp.minimum(jnp.searchsorted(share, choice, side="right"), K - 1)]
        z = mean[None] + jnp.matmul(g - jnp.sum(g * v, 1, keepdims=True) * v, L.T, precision=HIGHEST)
        s = jnp.matmul(v, L.T, precision=HIGHEST)
        start, slope = jnp.matmul(weights, z.T, precision=HIGHEST) + bias[:, None], jnp.matmul(weights, s.T, precision=HIGHEST)
        right = _mass(*_right(start, slope, k))
        off, tilt = along(z, s)
        noisy = [(start[None] + off, slope[None] + tilt)]
        if u is not None:
            noisy.append((start[None] - off, slope[None] - tilt))
        after = [jax.vmap(lambda a, b: _mass(*_right(a, b, k)))(*one) for one in noisy]
        shift = right[None] - sum(after) / len(after)
        clean = jnp.argmax(start + slope * tau[None], 0)
        changed = jnp.stack([jnp.argmax(a + b * tau[None, None], 1) != clean[None] for a, b in noisy])
        flips = jnp.mean(changed, 0, dtype=jnp.float64)
        sums = jnp.sum(right), jnp.sum(shift, 1), jnp.sum(flips, 1)
        return (y + prior * shift, f + prior * flips), sums

    zero = jnp.zeros((layers, LINES))
    inputs = (jnp.arange(means.shape[0]), means, directions, shares, priors)
    (y, f), (right, shift, flips) = jax.lax.scan(one_class, (zero, zero), inputs)
    return right, shift.T, flips.T, jnp.stack([jnp.sum(y**2, 1), jnp.sum(f**2, 1)], -1)


def blocks_of(n: int, K: int) -> int:
    """Blocks that hold n feature vectors (a line counts K)."""
    return math.ceil(n / K / LINES)
