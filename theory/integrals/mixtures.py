"""Classes that are mixtures of Gaussians, fitted ones or samples smoothed: what known and random layers do to them.

Known layers: along lines, as :mod:`theory.integrals.lines` does for Gaussian classes, each line within one component, the
components of a class in turn. Random layers: averaged over points drawn from the mixture
(:mod:`theory.integrals.logit_noise`).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from theory.budget import DEFAULT, Budget
from theory.integrals import lines
from theory.integrals.contrasts import centred, root
from theory.integrals.line_averages import SETS, LineAverage, average_of
from theory.integrals.orthant import moved
from theory.integrals.points import sobol
from theory.setting.features import Features
from theory.setting.problem import Components, Problem, two_rows
from theory.statistics_variance import between_classes

WORK = 2e7  # crossings of each class's lines, all heads
LEAST, MOST = 2**7, 2**12  # lines of a class in one set
TOGETHER = 2**16  # logits a compiled call
POINTS = 2**16  # drawn for random layers


@functools.partial(jax.jit, static_argnames="walked")
def _along(points, picks, factor, gram, means, own, *, walked: bool) -> tuple[jax.Array, jax.Array]:
    """(3, B, n) and (B, n): :func:`theory.integrals.lines.correctness` and flips (0 unless walked) of lines within components
    of one covariance.

    Args:
        points (n, r), picks (n,): in the unit cube. factor (H, K, r), gram (H, K, K): as :class:`theory.integrals.lines.Law`.
        means: (H, K, n) of the logits in each line's component. own: the class.
    """
    images = lines.images_of(factor, points)
    shares, length = jax.vmap(lines.directions, (None, 1, None))(own, means[0], gram[0])
    rival = jax.vmap(lines.choose)(shares, picks[:, None])[:, 0]
    start, slope = lines.towards(own, rival, jnp.take_along_axis(length, rival[:, None], 1)[:, 0], gram, images)
    start = start + means
    right = lines.correctness(start, slope, own)
    return right, lines.flips(start, slope) if walked else jnp.zeros_like(right[0])


def known(
    problem: Problem, layers: np.ndarray, *, seed: int, budget: Budget = DEFAULT
) -> tuple[list[LineAverage], list[float]]:
    """What each of the known compressed layers (B, rows, d) does, and the sampling variance of its distortion.

    Kind: exact up to the reported errors.
    """
    sums, within = _sums(problem, layers, SETS, True, seed, budget)
    averages = [average_of(sums[:, :, [i]], problem.priors) for i in range(len(layers))]
    if problem.counts is None:
        return averages, [0.0] * len(averages)
    return averages, [between_classes(problem, one.distortion) + float(v) for one, v in zip(averages, within, strict=True)]


def distortions(problem: Problem, layers: np.ndarray, *, sets: int, seed: int, budget: Budget = DEFAULT) -> np.ndarray:
    """(B,) distortions of known layers (B, rows, d) alone, by this many sets of lines."""
    (_, made, mended, _), _ = _sums(problem, layers, sets, False, seed, budget)
    return (made - mended).mean(0) @ problem.priors


def _sums(
    problem: Problem, layers: np.ndarray, sets: int, walked: bool, seed: int, budget: Budget
) -> tuple[np.ndarray, np.ndarray]:
    """(4, sets, B, K) averages of right, made, mended and flipped (0 unless walked), and sampling variances (B,)."""
    heads, (bias,) = centred(np.stack([two_rows(one)[0] for one in (problem.weights, *layers)])), two_rows(problem.bias)
    sums, variances = np.zeros((4, sets, len(layers), problem.classes)), np.zeros(len(layers))
    for k in np.flatnonzero(problem.priors > 0):
        sums[..., k], variance = _class(problem, heads, bias, int(k), sets, walked, seed, budget)
        variances += problem.priors[k] ** 2 * variance
    return sums, variances


def _class(
    problem: Problem, heads: np.ndarray, bias: np.ndarray, k: int, sets: int, walked: bool, seed: int, budget: Budget
) -> tuple[np.ndarray, np.ndarray]:
    """(4, sets, B) averages of right, made, mended and flipped of class k, and the sampling variance (B,) of the change."""
    assert problem.components is not None
    H, K, _ = heads.shape
    mixture, n = problem.components, int(np.clip(budget.mixture_work / SETS / K**2 / H, LEAST, MOST))
    sums, variance = np.zeros((4, sets, H - 1)), np.zeros(H - 1)
    for members, covariance in mixture.group(k):
        shares = mixture.shares[members]
        law = lines.law(heads, bias, mixture.means[members], root(covariance))
        each = max(1, round(n * shares.sum() / len(members)))  # lines a component and set
        block = max(1, TOGETHER // (H * K * sets))
        rank = law.factor.shape[-1]
        of = np.tile(np.arange(len(members)), each)
        size = max(1, int(np.ceil(np.log2(len(of)))))
        seeds = ([seed, 15, k, int(members[0]), r] for r in range(sets))
        points = np.stack([sobol(rank + 1, rng=np.random.default_rng(one)).random_base2(size)[: len(of)] for one in seeds], 1)
        own = np.zeros((sets, H - 1, len(members)))
        for first in range(0, len(of), block):
            part = np.minimum(np.arange(first, first + block), len(of) - 1)  # one shape to compile
            some = moved(jnp.asarray(points[part].reshape(-1, rank + 1)), jnp.zeros((1, rank + 1)))
            means = jnp.asarray(np.moveaxis(law.means[of[part]], 0, -1).repeat(sets, -1))
            correct, flipped = _along(some[:, :-1], some[:, -1], law.factor, law.gram, means, jnp.asarray(k), walked=walked)
            seen = np.concatenate([np.asarray(correct), np.asarray(flipped)[None]]).reshape(4, H - 1, block, sets)
            seen = seen[:, :, : len(of) - first]
            each_share = shares[of[part[: seen.shape[2]]]] / each
            sums += np.einsum("qbns,n->qsb", seen, each_share)
            change = np.moveaxis(seen[1] - seen[2], -1, 0) / each  # (sets, B, n)
            np.add.at(np.moveaxis(own, -1, 0), of[part[: seen.shape[2]]], np.moveaxis(change, -1, 0))
        if sets > 1:
            variance += _between_samples(own, shares)
    if problem.counts is None:
        return sums, variance
    count = max(1, int(problem.counts[k]))
    D = (sums[1] - sums[2]).mean(0)
    if len(mixture.means[mixture.classes == k]) >= count:  # the samples themselves
        return sums, np.maximum(variance - D**2, 0) / count
    return sums, np.maximum((sums[1] + sums[2]).mean(0) - D**2, 0) / count


def _between_samples(own: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(B,): the share-weighted mean square of each component's change (sets, B, components), the noise of the lines removed."""
    noise = own.var(0, ddof=1) / len(own)
    return (own.mean(0) ** 2 - noise) @ shares


def draw(problem: Problem, seed: int, budget: Budget = DEFAULT) -> Features:
    """Points of the features' law, labelled, each class in proportion to its prior, each component to its share."""
    mixture, K, d = problem.components, problem.classes, problem.features
    if mixture is None:
        covariances = np.broadcast_to(problem.covariances, (K, d, d))
        mixture = Components(classes=np.arange(K), shares=np.ones(K), means=problem.means, covariances=covariances)
    rng, parts, labels = np.random.default_rng([seed, 16]), [], []
    for k in np.flatnonzero(problem.priors > 0):
        n = max(2, round(budget.drawn_points * problem.priors[k]))
        for members, covariance in mixture.group(int(k)):
            shares = mixture.shares[members]
            count = max(1, round(n * shares.sum()))
            # every component its share of a sorted row of points, with a random start: stratified
            at = (np.arange(count) + rng.random()) / count * shares.sum()
            chosen = members[np.minimum(np.searchsorted(np.cumsum(shares), at), len(members) - 1)]
            noise = rng.standard_normal((count, d)) @ root(covariance).T
            parts.append(mixture.means[chosen] + noise)
            labels.append(np.full(count, k))
    return Features(
        features=np.concatenate(parts),
        labels=np.concatenate(labels),
        weights=problem.weights,
        bias=problem.bias,
        source_bits=problem.source_bits,
        provenance=problem.provenance,
    )
