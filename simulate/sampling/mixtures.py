"""Paired Monte Carlo for classes that are mixtures of Gaussians: a component drawn for every sample, decisions counted."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simulate.sampling.blocks import BLOCK, CHUNK, block_sums
from simulate.sampling.paired_counting import HIGHEST, Tally, decisions, factor, nothing, tally_classes
from theory.setting.problem import Problem


class Mixtures(NamedTuple):
    """By class, padded: cumulative shares (K, M), component means (K, M, rows), which covariance each component has (K, M), and
    the factors of these (K, C, rows, r)."""

    shares: np.ndarray
    means: np.ndarray
    which: np.ndarray
    factors: np.ndarray


def mixtures_of(problem: Problem, heads: np.ndarray) -> Mixtures:
    """The law of heads (rows, d) times features, in float32."""
    assert problem.components is not None
    groups = [problem.components.group(k) for k in range(problem.classes)]
    M = max(sum(len(members) for members, _ in group) for group in groups)
    C, (rows, d) = max(map(len, groups)), heads.shape
    r = min(rows, d)
    shares, means, which = np.ones((len(groups), M)), np.zeros((len(groups), M, rows)), np.zeros((len(groups), M), np.int32)
    factors = np.zeros((len(groups), C, rows, r))
    for k, group in enumerate(groups):
        if not group:
            continue
        members = np.concatenate([one for one, _ in group])
        shares[k, : len(members)] = np.cumsum(problem.components.shares[members])
        means[k, : len(members)] = problem.components.means[members] @ heads.T
        which[k, : len(members)] = np.repeat(np.arange(len(group)), [len(one) for one, _ in group])
        for c, (_, covariance) in enumerate(group):
            image = heads @ factor(covariance)
            factors[k, c] = image if r == d else np.asarray(np.linalg.qr(image.T, mode="r")).T
    shares[:, -1] = np.inf
    return Mixtures(*(x if x.dtype == np.int32 else x.astype(np.float32) for x in (shares, means, which, factors)))


def drawn(own: Mixtures, u, g):
    """(rows, n) heads times features of one class, by uniforms (n,) and normals (r, n)."""
    chosen = jnp.searchsorted(own.shares, u, side="right")
    noise = jnp.matmul(own.factors[0], g, precision=HIGHEST)
    for c in range(1, len(own.factors)):
        other = jnp.matmul(own.factors[c], g, precision=HIGHEST)
        noise = jnp.where((own.which[chosen] == c)[None], other, noise)
    return own.means[chosen].T + noise


def _known_block(key, mixtures: Mixtures, bias, priors, *, rows: int):
    one, two = jax.random.split(key)
    g = jax.random.normal(one, (mixtures.factors.shape[-1], BLOCK), jnp.float32)
    u = jax.random.uniform(two, (BLOCK,), jnp.float32)
    layers = mixtures.means.shape[-1] // rows - 1

    def decide_class(own: Mixtures):
        logits = drawn(own, u, g)
        clean = logits[:rows] + bias[:, None]
        noisy = clean[None] + logits[rows:].reshape(layers, rows, BLOCK)
        return decisions(clean), decisions(jnp.moveaxis(noisy, 1, 0))

    counts, y, f = tally_classes(decide_class, mixtures, priors, (layers, BLOCK))
    y2 = jnp.sum(y * y, -1)
    return counts, jnp.stack([y2, jnp.sum(f * f, -1), y2], -1)


def count_known(
    problem: Problem,
    layers: Sequence[np.ndarray],
    *,
    seed: int,
    first: int,
    last: int,
    chunk: int = CHUNK,
    onto: Tally | None = None,
) -> Tally:
    """As :func:`simulate.sampling.paired_counting.count_known`, of a problem with components."""
    heads = np.concatenate([problem.weights, *(What - problem.weights for What in layers)])
    arrays = (mixtures_of(problem, heads), *(x.astype(np.float32) for x in (problem.bias, problem.priors)))
    tally = nothing(len(layers), problem.classes) if onto is None else onto
    found = block_sums(
        _known_block, arrays, seed=seed, first=first, last=last, chunk=chunk, what="sampling", rows=len(problem.weights)
    )
    for counts, squares in found:
        tally = tally.more(len(squares) * BLOCK, len(squares) * BLOCK, counts, squares)
    return tally
