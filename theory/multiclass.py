"""Any number of classes: risk, recalls and flips of known compressed layers, and of random ones under the error law.

The probability that class k is decided is that of K - 1 contrasts a_k - a_j being positive: a Gaussian orthant, computed for
the clean and every compressed layer at the same points (:mod:`theory.orthant`), so that the error of the distortion falls
with the distortion. What orthants don't give, the flips between two wrong classes, and what they can't, layers of more
classes than features, is integrated along lines (:mod:`theory.lines`).
"""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from theory import lines, posterior
from theory.orthant import SCRAMBLINGS, cholesky, estimate, lattices, moved, order_of, raw_points, separated
from theory.setting.errors import InputError
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

WORK = 2e8  # factors Phi spent on the orthants of one layer
PRECISE = 2e-3  # error of a distortion over itself, or over a tenth of the flips where it nearly cancels, with which they stop
SURE = 5e-5  # error that is not enough anyway
DOUBLE = 16  # classes up to which they are integrated in double precision
LINE_WORK = 4e7  # crossings spent on lines, those of one event of every line
LINE_SETS = 8
RANDOM_WORK, MOST_ROUNDS = 4e8, 4  # nanoseconds a round spent on random layers along lines
FLIPS_ENOUGH = 4e-3  # error of their flips over the flips with which they stop
WALKED = 8  # lines of which one goes through all decisions, for the flips, where classes are more than MOST
TOGETHER = 25  # classes that share points there
MOST = 128  # classes beyond which orthants give way to lines
LEAST, DRAWN = 8, 1024  # pairs of networks a scrambling, at least and at most
ENOUGH = 2e-3  # error of the average over the average with which it stops
WORK_OF_PAIRS = 5e7  # multiplications a scrambling where that means fewer pairs
SOBOL = 2048  # entries of E up to which Sobol points serve
INNER, FEW_INNER = 64, 16  # points of the orthants of a pair of networks; few where Sobol points do the better part
CHUNK = 8  # pairs of networks a compiled call


class Change(NamedTuple):
    """What compression does, by class (K,): risk before, change of risk, flips, share whose correctness changes; the 95 %
    errors of the prior-weighted distortion and flip rate; the method; the distortions of single layers, where drawn."""

    before: np.ndarray
    distortion: np.ndarray
    flips: np.ndarray
    changed: np.ndarray
    error: float
    flips_error: float
    method: str
    draws: np.ndarray = np.zeros(0)


def centred(heads):
    """Heads (..., K, d) less their mean row: the same decisions, no large common part to cancel."""
    return heads - heads.mean(-2, keepdims=True)


def root(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, also for a singular one."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0))


def roots(problem: Problem) -> list[np.ndarray]:
    """One factor a class, the same one where the covariance is shared."""
    if problem.shared:
        return [root(problem.covariances)] * problem.classes
    return [root(one) for one in problem.covariances]


def has_orthants(problem: Problem) -> bool:
    """Whether the K - 1 contrasts of the clean layer are linearly independent in every class, and not too many."""
    K = problem.classes
    return min(MOST, problem.features) >= K - 1 and _independent(problem, problem.weights)


def _independent(problem: Problem, weights: np.ndarray) -> bool:
    head = centred(weights)
    for k in range(1 if problem.shared else problem.classes):
        values = np.linalg.eigvalsh(head @ problem.covariance(k) @ head.T)  # the least is the common row's, 0
        if values[1] <= 1e-10 * values[-1]:
            return False
    return True


def orders(problem: Problem) -> np.ndarray:
    """(K, K - 1) rivals of each class in the order of integration, the least likely beaten first in the clean layer."""
    K, head = problem.classes, centred(problem.weights)
    rivals = np.array([np.delete(np.arange(K), k) for k in range(K)])
    means, covariances = [], []
    for k in range(K):
        contrast = head[k] - head[rivals[k]]
        means.append(contrast @ problem.means[k] + problem.bias[k] - problem.bias[rivals[k]])
        covariances.append(contrast @ problem.covariance(k) @ contrast.T)
    order = order_of(np.array(means), np.array(covariances))
    return np.take_along_axis(rivals, order, 1)


@functools.partial(jax.jit, static_argnames="dependent")
def contrasts(heads, bias, means, covariances, rivals, *, dependent: bool) -> tuple[jax.Array, jax.Array]:
    """Law of the contrasts a_k - a_j of each class k over its rivals: means (K, H, K - 1) and lower factors of the covariances.

    Args:
        heads: (H, K, d), less their mean row. bias: (K,). means: (K, d). covariances: (1 or K, d, d).
        rivals: (K, K - 1). dependent: whether contrasts may be functions of each other (slower).
    """
    logits = jnp.einsum("hjd,kd->khj", heads, means) + bias[None, None]
    shared = covariances.shape[0] == 1
    grams = jnp.einsum("hid,hjd->hij", heads @ covariances[0], heads)[None] if shared else None

    def one_class(inputs):
        k, logit, rival, S = inputs
        gram = grams[0] if grams is not None else jnp.einsum("hid,hjd->hij", heads @ S, heads)
        mean = logit[:, k][:, None] - logit[:, rival]
        cross = gram[:, k][:, rival]
        covariance = (
            gram[:, k, k][:, None, None] - cross[:, :, None] - cross[:, None, :] + gram[:, rival[:, None], rival[None, :]]
        )
        same = jnp.all(heads[:, k][:, None] == heads[:, rival], -1)
        gap = bias[k] - bias[rival]
        # equal rows differ by their bias alone; equal logits go to the lowest class
        constant = jnp.where(gap == 0, jnp.where(k < rival, 1.0, -1.0), gap)
        mean = jnp.where(same, constant[None], mean)
        covariance = jnp.where(same[:, :, None] | same[:, None, :], 0.0, covariance)
        return mean, cholesky(covariance) if dependent else jnp.linalg.cholesky(covariance)

    K = means.shape[0]
    return jax.lax.map(one_class, (jnp.arange(K), logits, rivals, covariances if not shared else jnp.zeros((K, 1, 1))))


@jax.jit
def recalls(means, factors, points, shifts) -> jax.Array:
    """(H, K) probabilities that all contrasts of a class are positive: that it is decided when it is true.

    Args:
        means (K, H, K - 1), factors (K, H, K - 1, K - 1): as :func:`contrasts` gives them.
        points: (n, K - 1), in the precision of the integration. shifts: (K, K - 1), those of each class.
    """

    def one_class(inputs):
        mean, L, shift = inputs
        u = moved(points, shift[None])
        values = jax.vmap(separated, (0, 0, None))(mean.astype(u.dtype), L.astype(u.dtype), u)
        return jnp.mean(values, 1, dtype=mean.dtype)

    return jax.lax.map(one_class, (means, factors, shifts)).T


def _arrays(problem: Problem):
    covariances = problem.covariances[None] if problem.shared else problem.covariances
    return jnp.asarray(problem.bias), jnp.asarray(problem.means), jnp.asarray(covariances)


def points_and_shifts(K: int, n: int, seed: int, scrambling: int, dtype=jnp.float64) -> tuple[jax.Array, jax.Array]:
    """Points (n, K - 1) of one scrambling, n a power of two, and shifts (K, K - 1): moved, the classes' errors are uncorrelated
    and there is one scrambling to pay for."""
    rng = np.random.default_rng([seed, 3, scrambling])
    return jnp.asarray(raw_points(K - 1, n, rng), dtype), jnp.asarray(rng.random((K, K - 1)), dtype)


def known(
    problem: Problem, layers: np.ndarray, *, method: str | None = None, seed: int = 0, enough: np.ndarray | float = 0.0
) -> list[Change]:
    """What each of the known compressed layers (B, K, d) does; they share points and lines. An error of ``enough`` (B,) of the
    distortion will do, and then a quarter of the lines.

    Kind: exact up to the reported errors. Assumes features Gaussian given the class.
    """
    sets = along_lines(problem, layers, seed=seed, work=LINE_WORK / 4 if np.any(enough) else LINE_WORK)
    changes = [_average(problem, sets[:, :, [i]], "lines") for i in range(len(layers))]
    if method == "lines" or not has_orthants(problem):
        return [_checked(change, method) for change in changes]
    K = problem.classes
    most = int(2 ** np.clip(np.floor(np.log2(WORK / SCRAMBLINGS / (2 * K * (K - 1)))), 7, 15))
    n, dtype, laws = min(most, 128), jnp.float64 if K <= DOUBLE else jnp.float32, laws_of(problem, layers)
    while True:
        replicates = orthants(laws, n=n, seed=seed, dtype=dtype)
        average = estimate((replicates[:, :1] - replicates[:, 1:]) @ problem.priors)
        scale = [
            max(abs(D), 0.1 * float(change.flips @ problem.priors)) for D, change in zip(average.value, changes, strict=True)
        ]
        if n == most or np.all(average.error <= np.maximum(np.minimum(PRECISE * np.array(scale), SURE), enough)):
            break
        n = min(most, 4 * n)
    found = []
    for i, change in enumerate(changes):
        shift = replicates[:, 0] - replicates[:, 1 + i]
        error = float(estimate(shift @ problem.priors).error)
        if method == "orthants" or error <= change.error:  # else dependent or nearly tied contrasts of the compressed layer
            before = 1 - replicates[:, 0].mean(0)
            change = change._replace(before=before, distortion=shift.mean(0), error=error, method="orthants")
        found.append(change)
    return found


def laws_of(problem: Problem, layers: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Means and factors of the contrasts of the clean and the known compressed layers (B, K, d), as :func:`contrasts` gives
    them."""
    heads, rivals = jnp.asarray(centred(np.concatenate([problem.weights[None], layers]))), jnp.asarray(orders(problem))
    dependent = not all(_independent(problem, layer) for layer in layers)
    return contrasts(heads, *_arrays(problem), rivals, dependent=dependent)


def orthants(laws: tuple[jax.Array, jax.Array], *, n: int, seed: int, dtype=jnp.float64) -> np.ndarray:
    """(SCRAMBLINGS, H, K) recalls of H layers, each at the same n points, in the given precision: below 1e-9 single precision
    ends."""

    @in_float64  # a switch of each thread
    def one(scrambling: int) -> np.ndarray:
        return np.asarray(recalls(*laws, *points_and_shifts(len(laws[0]), n, seed, scrambling, dtype)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA leaves cores idle here
        return np.array(list(pool.map(one, range(SCRAMBLINGS))))


def expected(problem: Problem, steps: np.ndarray, *, method: str | None = None, seed: int = 0) -> Change:
    """What random layers W + E do on average, E independent and uniform in +-steps/2 (K,), and the distortion of single ones.

    Pairs W + E, W - E, each pair along a line a class of its own; their distortion by orthants, each pair and the clean layer
    at points of their own, where there are orthants. More pairs until the error is below ENOUGH of the average. Without
    orthants by posteriors, where there are these and their error is the smaller one.

    Returns:
        The change, with ``draws`` (n,) the distortions of independent networks.
    """
    serves = posterior.serves(problem, steps)
    if method == "posterior_average":
        if serves:
            return _by_posteriors(problem, steps, seed)
        raise InputError(f"method: {method} needs {posterior.NEEDS}")
    sets = random_lines(problem, steps, seed=seed)
    change = _average(problem, sets[:, :, None], "line_average")
    if method == "line_average" or not has_orthants(problem):
        if method is None and serves:
            other = _by_posteriors(problem, steps, seed)
            if other.error < change.error:
                return other
        around = networks_on_lines(problem, steps, seed=seed)
        return _checked(change, method)._replace(draws=change.distortion @ problem.priors + around)
    values, error, noise = orthant_pairs(problem, steps, seed=seed)
    shifts = values[:, :, :1] - values[:, :, 1:]
    draws = (shifts @ problem.priors).reshape(-1)
    spread = np.sqrt(max(0.0, 1 - noise / max(draws.var(), 1e-300)))  # of networks, without the noise of the points
    return change._replace(
        before=1 - values[:, :, 0].mean((0, 1)),
        distortion=shifts.mean((0, 1, 2)),
        error=error,
        method="orthant_average",
        draws=draws.mean() + spread * (draws - draws.mean()),
    )


def _by_posteriors(problem: Problem, steps: np.ndarray, seed: int) -> Change:
    sums, pi = posterior.averages(problem, steps, seed=seed), problem.priors
    right = along_lines(problem, problem.weights[None], seed=seed)[0]
    neglected = sums.neglected.mean(0)
    distortion, flips = estimate(sums.loss.sum(1)), estimate(sums.flips.sum(1))
    return Change(
        before=1 - right.mean((0, 1)),
        distortion=sums.loss.mean(0) / pi,
        flips=sums.flips.mean(0) / pi,
        changed=sums.changed.mean(0) / pi,
        error=float(distortion.error + neglected[0]),
        flips_error=float(flips.error + neglected[1]),
        method="posterior_average",
        draws=float(distortion.value) + _in_common(posterior.networks(problem, steps, seed=seed)[None]),
    )


def random_lines(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """(4, SCRAMBLINGS, K): right, made, mended and flipped of random layers, each pair along one line a class."""
    K, d = problem.weights.shape
    factors = [root(problem.covariances)] if problem.shared else roots(problem)
    heads = lines.heads_of(centred(problem.weights), problem.bias, problem.means, factors)
    cost = 60 * K + 8 * d + d**2 / 30  # nanoseconds a line, with its part of the network
    networks = int(np.clip(RANDOM_WORK / (SCRAMBLINGS * K * cost), 1, 2**14))
    walked = -(-networks // WALKED) if K > MOST else networks
    sums = np.zeros((4, SCRAMBLINGS, K))
    for round in range(MOST_ROUNDS):
        sums = sums + np.stack(
            [
                lines.random_change(heads, steps, networks=networks, walked=walked, seed=(seed, 5, r, round))
                for r in range(SCRAMBLINGS)
            ],
            1,
        )
        flips = estimate(sums[3] @ problem.priors)
        if flips.error <= FLIPS_ENOUGH * flips.value:
            break
    return sums / (round + 1)


def networks_on_lines(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Distortions of single networks less their mean, each seen along two independent sets of lines: what the two have in
    common is the spread over networks, the rest is noise of the lines."""
    K, d = problem.weights.shape
    few = int(2 ** np.clip(np.floor(np.log2(512 / K)), 2, 6))  # networks of a set of lines
    seen = []
    for r in range(LINE_SETS // 2):
        E = (np.random.default_rng([seed, 10, r]).random((few, K, d)) - 0.5) * steps[:, None]
        _, made, mended, _ = along_lines(problem, problem.weights + np.concatenate([E, -E]), seed=seed, sets=(2 * r, 2 * r + 1))
        seen.append((made - mended) @ problem.priors)
    return _in_common(np.array(seen))


def _in_common(shift: np.ndarray) -> np.ndarray:
    """Deviations of networks' distortions (groups, 2, n), each seen twice, scaled to what the two have in common."""
    centred = shift - shift.mean((0, 2), keepdims=True)
    products = centred[:, 0] * centred[:, 1]
    common = max(float(products.mean()), float(products.std()) / np.sqrt(products.size))  # not below what can be seen
    both = centred.mean(1).reshape(-1)
    return both * np.sqrt(common / max(float(np.mean(both**2)), 1e-300))


def orthant_pairs(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, float, float]:
    """Recalls (SCRAMBLINGS, pairs, 3, K) of the clean layer, W + E and W - E for each of the pairs; the 95 % error of the
    average distortion; and the variance that the points add to the distortion of one network, from pairs taken twice."""
    K, d = problem.weights.shape
    arrays, rivals, clean = _arrays(problem), jnp.asarray(orders(problem)), jnp.asarray(centred(problem.weights))
    sobol = K * d <= SOBOL
    inner = FEW_INNER if sobol else INNER
    rngs = [np.random.default_rng([seed, 6, r]) for r in range(SCRAMBLINGS)]
    sources = [qmc.Sobol(K * d, rng=rng) if sobol else rng for rng in rngs]
    most = int(2 ** np.floor(np.log2(np.clip(WORK_OF_PAIRS / (K**2 * inner + K**3), LEAST, DRAWN))))
    found: list[list[np.ndarray]] = [[] for _ in rngs]
    pairs, twice = LEAST, []

    def recalls_of(E: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        points, shifts = lattices(rng, len(E), inner, K - 1), rng.random((len(E), K, K - 1))
        return np.asarray(_pair_recalls(clean, jnp.asarray(E), *arrays, rivals, points, shifts))

    while True:  # pairs a scrambling
        more = pairs - sum(map(len, found[0]))
        for rng, source, parts in zip(rngs, sources, found, strict=True):
            E = (source.random(more * K * d if not sobol else more).reshape(-1, K, d) - 0.5) * steps[:, None]
            for first in range(0, more, CHUNK):
                parts.append(recalls_of(E[first : first + CHUNK], rng))
            if len(twice) < SCRAMBLINGS // 2:
                twice.append(recalls_of(E[:CHUNK], rng) - parts[0])
        values = np.array([np.concatenate(parts) for parts in found])  # (R, pairs, 3, K)
        shifts = values[:, :, :1] - values[:, :, 1:]
        average = estimate(shifts.mean((1, 2)) @ problem.priors)
        error = float(average.error)
        if pairs >= most or error <= ENOUGH * abs(float(average.value)):
            gaps = np.array([(x[:, :1] - x[:, 1:]) @ problem.priors for x in twice])
            return values, error, float(np.mean(gaps**2)) / 2
        pairs *= 2


@jax.jit
def _pair_recalls(clean, E, bias, means, covariances, rivals, points, shifts):
    """(n, 3, K) recalls of the clean layer and of the pairs W + E, W - E (n, K, d), each pair at its own points."""

    def one(E, points, shifts):
        law = contrasts(centred(jnp.stack([clean, clean + E, clean - E])), bias, means, covariances, rivals, dependent=False)
        return recalls(*law, points, shifts)

    return jax.vmap(one)(E, points, shifts)


def _checked(change: Change, method: str | None) -> Change:
    if method is not None and method != change.method:
        raise InputError(
            f"method: {method} needs at most {MOST + 1} classes, no more than features + 1, and linearly independent contrasts"
        )
    return change


def along_lines(
    problem: Problem, layers: np.ndarray, *, seed: int = 0, sets: Sequence[int] = range(LINE_SETS), work: float = LINE_WORK
) -> np.ndarray:
    """(4, sets, B, K): right, made, mended and flipped of the compressed layers (B, K, d); the more layers, the fewer lines."""
    K, heads = problem.classes, centred(np.concatenate([problem.weights[None], layers]))
    least = 6 if K > MOST and len(heads) == 2 else 4  # there the distortion comes from them
    n = int(2 ** np.clip(np.round(np.log2(work / LINE_SETS / K**2 / len(heads))), least, 13))
    if problem.shared:
        laws = [lines.law(heads, problem.bias, problem.means, root(problem.covariances))]
    else:
        laws = [lines.law(heads, problem.bias, problem.means[[k]], one) for k, one in enumerate(roots(problem))]
    many = K > MOST
    return lines.class_change(
        laws,
        n=n,
        seeds=[(seed, 4, r) for r in sets],
        together=TOGETHER if many else 1,
        walked=n // WALKED if many else n,
    )


def _average(problem: Problem, sets: np.ndarray, method: str) -> Change:
    """Over the sets of lines and the layers in them."""
    (right, made, mended, flipped), pi = sets, problem.priors  # each (sets, layers, K)
    return Change(
        before=1 - right.mean((0, 1)),
        distortion=(made - mended).mean((0, 1)),
        flips=flipped.mean((0, 1)),
        changed=(made + mended).mean((0, 1)),
        error=float(estimate((made - mended).mean(1) @ pi).error),
        flips_error=float(estimate(flipped.mean(1) @ pi).error),
        method=method,
    )
