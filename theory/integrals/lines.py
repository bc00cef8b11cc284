"""What compressed layers of any number of classes do to a Gaussian class, integrated exactly along lines.

Given the class, clean and compressed logits are linear in z. Along a line z = z_0 + tau u, tau ~ N(0, 1), each layer decides a
class on one interval of tau, so the probability that both layers are right, or that only one is, is a difference of Phi at the
ends: nothing is counted and nothing cancels, whatever the number of classes, and rows may be dependent. The rest of z is
averaged: over scrambled Sobol points for known layers, over normals for random ones. The line of a class runs towards one of
its rivals, drawn in proportion to its pairwise probability of error. Lines lie along the minor axis of every array.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from theory.integrals.orthant import Phi, moved, raw_points
from theory.setting.error_law import UniformErrors
from theory.setting.precision import in_float64

REACH = 9.0  # standard deviations along a line beyond which nothing is looked at: 2e-19
ALIKE = 1e-12  # variance of a contrast over that of its logits below which the two rows give no direction
PARALLEL = 1e-12  # slope difference over slopes below which two logits never cross
NEVER = -1e300  # logit of a class that is never decided
BLOCK = 2**16  # logits, those of all lines and heads, a compiled call
ENTRIES = 2**22  # entries of random layers in one
FEW_LINES = 128  # too few to be worth one


class Law(NamedTuple):
    """Logits of H heads, the clean one first, functions of r normals in common: means (classes, H, K) given each class, a
    factor (H, K, r) of their covariance, and ``gram`` (H, K, K) = factor x the clean factor'."""

    means: np.ndarray
    factor: jax.Array
    gram: jax.Array


def law(heads: np.ndarray, bias: np.ndarray, means: np.ndarray, root: np.ndarray, nevers: np.ndarray | None = None) -> Law:
    """The law of the logits of all heads (H, K, d) for classes of means (classes, d) and covariance root root' (d, d);
    ``nevers`` (H, K) is what :func:`never` says of each head, where it is known."""
    H, K, d = heads.shape
    nevers = np.array([never(head, bias) for head in heads]) if nevers is None else nevers
    image = heads.reshape(H * K, d) @ root
    factor = np.asarray(np.linalg.qr(image.T, mode="r")).T if d > 2 * H * K else image
    factor = jnp.asarray(factor.reshape(H, K, -1))
    logits = np.moveaxis(heads @ means.T, -1, 0) + bias
    return Law(np.where(nevers, NEVER, logits), factor, factor @ factor[0].T)


def never(weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(K,) whether a class is never decided: its row (K, d) and bias (K,) are those of a lower class, which wins all ties."""
    rows = np.concatenate([weights, bias[:, None]], 1) + 0.0  # -0 is 0
    _, first, same = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first[same.reshape(-1)] != np.arange(len(rows))


def directions(own: jax.Array, mean: jax.Array, gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of class ``own`` in the clean layer, mean (K,) and covariance (K, K): the probability (K,) of choosing each rival as the
    direction of a line, as P(it beats the class), and the length (K,) of that direction; all lengths are 0, and lines don't
    move, where all rows are equal."""
    power = jnp.diagonal(gram)
    variance = power[own] + power - 2 * gram[own]
    length = jnp.sqrt(jnp.where(variance > ALIKE * (power[own] + power), variance, 0.0))
    some = (length > 0) & (jnp.arange(len(mean)) != own)
    margin = (mean[own] - mean) / jnp.where(some, length, 1.0)
    beaten = jnp.where(some, Phi(-margin), 0.0)
    nearest = jnp.arange(len(mean)) == jnp.argmin(jnp.where(some, margin, jnp.inf))
    total = jnp.sum(beaten)
    return jnp.where(total > 0, beaten / jnp.where(total > 0, total, 1.0), nearest.astype(beaten.dtype)), length


def choose(shares: jax.Array, pick: jax.Array) -> jax.Array:
    """(n,) rivals, each in proportion to its share, by picks (n,) in the unit interval."""
    total = jnp.cumsum(shares)
    return jnp.minimum(jnp.searchsorted(total, pick * total[-1], side="right"), len(shares) - 1)


def inverse(length: jax.Array) -> jax.Array:
    """1/length, 0 where the length is."""
    return jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1.0), 0.0)


def _between(low: jax.Array, high: jax.Array) -> jax.Array:
    """P(low < tau < high), 0 where low >= high, without cancellation in either tail."""
    high = jnp.maximum(low, high)
    upper = low > 0
    return Phi(jnp.where(upper, -low, high)) - Phi(jnp.where(upper, -high, low))


def _ends(start: jax.Array, slope: jax.Array, decided: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Along lines of logits start + slope tau (H, K, n): where each rival gives way to the decided class (a scalar or (n,)),
    and where it takes over: the class is decided from the last of the one, (H, K, n), to the first of the other. Equal logits
    go to the lowest class."""
    at = jnp.broadcast_to(decided, start.shape[-1:])[None, None]
    own, own_slope = jnp.take_along_axis(start, at, 1), jnp.take_along_axis(slope, at, 1)
    gap, rate = start - own, own_slope - slope
    crosses = jnp.abs(rate) > PARALLEL * (jnp.abs(slope) + jnp.abs(own_slope))
    tau = gap / jnp.where(crosses, rate, 1.0)
    lower = jnp.arange(start.shape[1])[None, :, None] < at
    never = ~crosses & ((gap > 0) | ((gap == 0) & lower))
    return (
        jnp.where(crosses & (rate > 0), tau, jnp.where(never, jnp.inf, -jnp.inf)),
        jnp.where(crosses & (rate < 0), tau, jnp.inf),
    )


def correctness(start: jax.Array, slope: jax.Array, own: jax.Array) -> jax.Array:
    """(3, H - 1, n): along lines of logits start + slope tau (H, K, n) of class ``own``, P(clean right), P(only clean right)
    and P(only compressed right), for each compressed head (the clean one is head 0)."""
    gives, takes = _ends(start, slope, own)
    low, high = jnp.max(gives, 1), jnp.min(takes, 1)
    both = _between(jnp.maximum(low[:1], low[1:]), jnp.minimum(high[:1], high[1:]))
    each = _between(low, high)
    return jnp.stack([jnp.broadcast_to(each[:1], both.shape), each[:1] - both, each[1:] - both])


def flips(start: jax.Array, slope: jax.Array) -> jax.Array:
    """(H - 1, n): P(clean and compressed decisions differ) along the lines, clean decisions followed from one to the next."""

    def live(carry):
        return jnp.any(carry[0] < REACH)

    def step(carry):
        tau, decided, same = carry
        gives, takes = _ends(start, slope, decided)
        then = jnp.maximum(takes[0], tau[None])
        end = jnp.min(then, 0)
        following = jnp.argmax(jnp.where(then <= end[None], slope[0], -jnp.inf), 0)  # the steepest of those that take over
        end = jnp.minimum(end, REACH)
        low, high = jnp.maximum(tau[None], jnp.max(gives[1:], 1)), jnp.minimum(end[None], jnp.min(takes[1:], 1))
        return end, jnp.where(end < REACH, following, decided), same + jnp.where((tau < REACH)[None], _between(low, high), 0.0)

    H, _, n = start.shape
    first = jnp.argmax(start[0] - REACH * slope[0], 0)
    begin = (jnp.full(n, -REACH, start.dtype), first, jnp.zeros((H - 1, n), start.dtype))
    return 1 - jax.lax.while_loop(live, step, begin)[2]


@jax.jit
def images_of(factor: jax.Array, points: jax.Array) -> jax.Array:
    """(H, K, n) logits less their means at points (n, r)."""
    return jnp.einsum("hkr,nr->hkn", factor, ndtri(points))


def towards(own, rival: jax.Array, length: jax.Array, gram: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Starts, less the means, and slopes (H, K, n) of lines from class ``own`` towards rivals (n,), each of a direction of this
    length (n,), through the points of images (H, K, n); gram (H, K, K) as in :class:`Law`."""
    pace = inverse(length)
    slope = (gram[:, :, own][:, :, None] - gram[:, :, rival]) * pace[None, None]
    tau = (images[0, own] - jnp.take_along_axis(images[0], rival[None], 0)[0]) * pace
    return images - slope * tau[None, None], slope


@functools.partial(jax.jit, static_argnames="walked")
def _class(own, mean, gram, images, pick, *, walked: int) -> tuple[jax.Array, jax.Array]:
    shares, length = directions(own, mean[0], gram[0])
    rival = choose(shares, pick)
    start, slope = towards(own, rival, length[rival], gram, images)
    start = start + mean[:, :, None]
    return correctness(start, slope, own), flips(start[:, :, :walked], slope[:, :, :walked])


def class_change(
    laws: Sequence[Callable[[], Law]], *, n: int, seeds: Sequence[tuple[int, ...]], together: int = 1, walked: int
) -> np.ndarray:
    """(4, sets, B, K): averages over n lines a class of :func:`correctness`, and over ``walked`` of them of :func:`flips`,
    for each of the sets and each compressed head; ``walked`` 0 leaves out the flips.

    Args:
        laws: what makes the one for all classes, or that of each class, which is gone when the class is done: K x K entries.
        n: a power of two. seeds: one a set of points.
        together: classes of one law that share points; each group has them shifted at random.
    """
    H, K, r = laws[0]().factor.shape
    sets = len(seeds)
    if len(laws) > 1:
        together = 1
    points = np.stack([raw_points(r + 1, n, np.random.default_rng([*seed, 1])) for seed in seeds], 1)
    points = jnp.asarray(points)  # (n, sets, r + 1)
    few = max(BLOCK // (H * K), FEW_LINES) // sets + 1  # lines of every set in one call
    sums = np.zeros((4, sets, H - 1, K))

    @in_float64  # a switch of each thread
    def some_classes(k: int) -> None:
        one = laws[min(k, len(laws) - 1)]()
        shifts = np.stack([np.random.default_rng([*seed, 2, k]).random(r + 1) for seed in seeds])
        for first in range(0, n, few):
            some = moved(points[first : first + few], jnp.asarray(shifts[None])).reshape(-1, r + 1)
            images = images_of(one.factor, some[:, :-1])
            for own in range(k, min(k + together, K)):
                mean = jnp.asarray(one.means[own if len(laws) == 1 else 0])
                seen = sets * int(np.clip(walked - first, 0, few))
                correct, flipped = _class(own, mean, one.gram, images, some[:, -1], walked=seen)
                sums[:3, :, :, own] += np.asarray(correct).reshape(3, H - 1, -1, sets).sum(2).transpose(0, 2, 1)
                sums[3, :, :, own] += np.asarray(flipped).reshape(H - 1, seen // sets, sets).sum(1).T

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA leaves cores idle here
        list(pool.map(some_classes, range(0, K, together)))
    return sums / np.array([n, n, n, max(walked, 1)])[:, None, None, None]


class Heads(NamedTuple):
    """A clean head and the classes: weights (K, d), bias (K,), which classes it never decides (K,), means (K, d); of one common
    covariance or one a class its factor (1 or K, d, r), ``tilts`` weights x covariance (1 or K, K, d) and ``grams`` tilts x
    weights' (1 or K, K, K)."""

    weights: jax.Array
    bias: jax.Array
    never: jax.Array
    means: jax.Array
    factors: jax.Array
    tilts: jax.Array
    grams: jax.Array


def heads_of(weights: np.ndarray, bias: np.ndarray, means: np.ndarray, factors: Sequence[np.ndarray]) -> Heads:
    tilts = np.stack([weights @ root @ root.T for root in factors])
    return Heads(*map(jnp.asarray, (weights, bias, never(weights, bias), means, np.stack(factors), tilts, tilts @ weights.T)))


def random_change(
    heads: Heads,
    errors: UniformErrors,
    *,
    networks: int,
    walked: int,
    seed: tuple[int, ...],
    block: int = BLOCK,
    few_lines: int = FEW_LINES,
) -> np.ndarray:
    """(4, K): averages over pairs of random layers W + E, W - E, E uniform, each pair along one line a class, of
    :func:`correctness`, and over ``walked`` of them of :func:`flips`. A compiled call takes logits up to ``block``, and as
    many classes as make ``few_lines`` lines."""
    K, d = heads.weights.shape
    few = min(networks, max(1, block // (3 * K)), max(1, ENTRIES // (K * d)))
    few = -(-networks // -(-networks // few))  # as many calls of equal size
    together = 1 if len(heads.factors) > 1 else min(K, max(1, few_lines // few))
    classes = np.minimum(np.arange(-(-K // together) * together).reshape(-1, together), K - 1)
    sums, total, walks = np.zeros((4, K)), 0, 0
    for first in range(0, networks, few):
        rng = np.random.default_rng([*seed, first])  # NumPy's numbers: none of JAX's generator to compile
        E = errors.of(rng.random((few, K, d), np.float32) - np.float32(0.5)).astype(np.float32)
        normals = rng.standard_normal((*classes.shape, few, heads.factors.shape[-1]), np.float32)
        picks = rng.random((*classes.shape, few))
        seen = few if walked >= networks else int(np.clip(walked - first, 0, few))  # one program where all are walked
        correct, flipped = _random(heads, E, classes, normals, picks, walked=seen)
        sums[:3] += np.asarray(correct).reshape(-1, 3)[:K].T
        sums[3] += np.asarray(flipped).reshape(-1)[:K]
        total, walks = total + few, walks + seen
    return sums / np.array([total, total, total, walks])[:, None]


@functools.partial(jax.jit, static_argnames="walked")
def _random(heads: Heads, E, classes, normals, picks, *, walked: int) -> tuple[jax.Array, jax.Array]:
    """(groups, c, 3) and (groups, c) sums over networks of errors E (n, K, d) for classes (groups, c), each network along one
    line a class, drawn by normals (groups, c, n, r) and picks (groups, c, n) in the unit interval. Features and errors in
    float32, what follows from them in float64."""
    K, networks = heads.weights.shape[0], len(E)
    factors, tilts = heads.factors.astype(jnp.float32), heads.tilts.astype(jnp.float32)
    means, highest = heads.means @ heads.weights.T, jax.lax.Precision.HIGHEST

    def some(inputs):
        """Arrays (K, c, n) for c classes, n networks, flat (K, c n) in the end."""
        own, g, pick = inputs
        of = jnp.minimum(own[0], len(factors) - 1)
        gram, c = heads.grams[of], len(own)
        z = heads.means[own].astype(jnp.float32)[:, None] + jnp.einsum("cnr,dr->cnd", g, factors[of], precision=highest)
        mean = jnp.where(heads.never[None], NEVER, means[own] + heads.bias[None])
        shares, length = jax.vmap(directions, (0, 0, None))(own, mean, gram)
        rival = jax.vmap(choose)(shares, pick)
        pace = inverse(jnp.take_along_axis(length, rival, 1))
        along = (tilts[of][own][:, None] - tilts[of][rival]) * pace.astype(jnp.float32)[..., None]
        logits = jnp.einsum("kd,cnd->kcn", heads.weights, z.astype(gram.dtype))
        slope = (gram[:, own][:, :, None] - gram[:, rival]) * pace[None]

        def lead(logits):
            """Of the own logit over the rival's, (c, n), from logits (K, c, n)."""
            return jnp.take_along_axis(logits, own[None, :, None], 0)[0] - jnp.take_along_axis(logits, rival[None], 0)[0]

        tau = lead(logits - means[own].T[:, :, None]) * pace
        noise, tilt = (jnp.einsum("nkd,cnd->kcn", E, x, precision=highest).astype(gram.dtype) for x in (z, along))
        noise, start = noise - tilt * tau[None], logits + heads.bias[:, None, None] - slope * tau[None]
        clean = jnp.where(heads.never[:, None, None], NEVER, start)
        starts, slopes = jnp.stack([clean, start + noise, start - noise]), jnp.stack([slope, slope + tilt, slope - tilt])
        flat, walk = (3, K, c * networks), (3, K, c * walked)
        right = correctness(starts.reshape(flat), slopes.reshape(flat), jnp.repeat(own, networks))
        flipped = flips(starts[..., :walked].reshape(walk), slopes[..., :walked].reshape(walk))
        return right.reshape(3, 2, c, networks).mean(1).sum(2).T, flipped.reshape(2, c, walked).mean(0).sum(1)

    return jax.lax.map(some, (classes, normals, picks))
