"""What a known compressed layer of any number of classes does to a Gaussian class, integrated exactly along lines.

Given the class, clean and compressed logits are linear in z. Along a line z = z_0 + tau u, tau ~ N(0, 1), a class is decided
between two crossings, so the probability that both layers are right, or that only one is, is a difference of Phi at the
crossings: nothing is counted and nothing cancels, whatever the number of classes, and rows may be dependent. The rest of z is
averaged over scrambled Sobol points. The line of a class runs towards one of its rivals, drawn in proportion to its pairwise
probability of error.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr as ndtr_numpy
from scipy.special import ndtri as ndtri_numpy

from theory.orthant import Phi, point_sets

REACH = 9.0  # standard deviations along a line beyond which nothing is looked at: 2e-19
ALIKE = 1e-12  # variance of a contrast over that of its logits below which the two rows give no direction
PARALLEL = 1e-12  # slope difference over slopes below which two logits never cross


class Law(NamedTuple):
    """Stacked logits of one class: mean (H, K) and factor (H, K, r) of H heads, the clean one first, r normals in common."""

    mean: np.ndarray
    factor: np.ndarray


def law(heads: np.ndarray, bias: np.ndarray, mean: np.ndarray, root: np.ndarray) -> Law:
    """The law of the logits of all heads (H, K, d) for a class of mean (d,) and covariance root root' (d, d)."""
    H, K, d = heads.shape
    image = heads.reshape(H * K, d) @ root
    factor = np.asarray(np.linalg.qr(image.T, mode="r")).T if d > H * K else image
    return Law(heads @ mean + bias, factor.reshape(H, K, -1))


def rivals(k: int, one: Law) -> np.ndarray:
    """(K,) probabilities of choosing each rival of class k as the direction of a line: as P(it beats k in the clean head)."""
    clean = one.factor[0]
    power = np.einsum("jr,jr->j", clean, clean)
    variance = power[k] + power - 2 * clean @ clean[k]
    sd = np.sqrt(np.where(variance > ALIKE * (power[k] + power), variance, 0.0))
    margin = one.mean[0, k] - one.mean[0]
    beaten = ndtr_numpy(-margin / np.maximum(sd, 1e-300))
    beaten[k] = 0
    beaten[sd == 0] = 0
    total = beaten.sum()
    if total > 0:
        return beaten / total
    nearest = np.where(sd > 0, margin / np.maximum(sd, 1e-300), np.inf)
    nearest[k] = np.inf
    return np.eye(len(beaten))[np.argmin(nearest)]


class Lines(NamedTuple):
    """n lines of one class: logits a + slope tau, each (n, H, K)."""

    start: np.ndarray
    slope: np.ndarray


def lines(k: int, one: Law, points: np.ndarray) -> Lines:
    """The lines of class k at points (n, r + 1) of the unit cube; the last coordinate chooses the rival."""
    share = np.cumsum(rivals(k, one))
    chosen = np.minimum(np.searchsorted(share, points[:, -1] * share[-1], side="right"), len(share) - 1)
    u = one.factor[0, k] - one.factor[0, chosen]
    u = u / np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)
    g = ndtri_numpy(points[:, :-1])
    g = g - np.sum(g * u, 1, keepdims=True) * u
    H, K, r = one.factor.shape
    flat = one.factor.reshape(H * K, r)
    start = (g @ flat.T).reshape(-1, H, K) + one.mean
    directions, which = np.unique(chosen, return_index=True)  # no more than there are rivals
    slope = (u[which] @ flat.T).reshape(-1, H, K)[np.searchsorted(directions, chosen)]
    return Lines(start, slope)


def _between(low: jax.Array, high: jax.Array) -> jax.Array:
    """P(low < tau < high), 0 where low >= high, without cancellation in either tail."""
    high = jnp.maximum(low, high)
    return jnp.where(low > 0, Phi(-low) - Phi(-high), Phi(high) - Phi(low))


@jax.jit
def compare(start: jax.Array, slope: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Along each of n lines (n, H, K) of class k, for each compressed head (the clean one is head 0).

    Both decisions are followed from tau = -REACH to REACH, from one crossing of either to the next.

    Returns:
        right, made, mended and flipped, each (n, H - 1): P(clean right), P(only clean right), P(only compressed right), P(the
        decisions differ). Equal logits go to the lowest class.
    """
    n, H, K = start.shape
    a = jnp.stack([jnp.broadcast_to(start[:, :1], (n, H - 1, K)), start[:, 1:]], 2)
    b = jnp.stack([jnp.broadcast_to(slope[:, :1], (n, H - 1, K)), slope[:, 1:]], 2)

    def crossing(decided):
        """When each logit overtakes the decided one: never where it is not steeper."""
        own = jnp.take_along_axis(a, decided[..., None], -1)
        own_slope = jnp.take_along_axis(b, decided[..., None], -1)
        rate = b - own_slope
        steeper = rate > PARALLEL * (jnp.abs(b) + jnp.abs(own_slope))
        return jnp.where(steeper, (own - a) / jnp.where(steeper, rate, 1.0), jnp.inf)

    def live(carry):
        return jnp.any(carry[0] < REACH)

    def step(carry):
        tau, decided, sums = carry
        times = crossing(decided)
        times = jnp.maximum(times, tau[..., None, None])
        soonest = jnp.min(times, -1)  # (n, H - 1, 2)
        then = jnp.minimum(jnp.min(soonest, -1), REACH)
        weight = _between(tau, then)
        right = decided == k
        events = (
            right[..., 0],
            right[..., 0] & ~right[..., 1],
            ~right[..., 0] & right[..., 1],
            decided[..., 0] != decided[..., 1],
        )
        sums = sums + jnp.stack([jnp.where(event, weight, 0.0) for event in events])
        moves = (soonest <= then[..., None]) & (then[..., None] < REACH)
        steepest = jnp.where(times <= soonest[..., None], b, -jnp.inf)
        decided = jnp.where(moves, jnp.argmax(steepest, -1).astype(decided.dtype), decided)
        return then, decided, sums

    first = jnp.argmax(a - REACH * b, -1)
    zero = jnp.zeros((4, n, H - 1), start.dtype)
    _, _, sums = jax.lax.while_loop(live, step, (jnp.full((n, H - 1), -REACH, start.dtype), first, zero))
    right, made, mended, flipped = sums
    return right, made, mended, flipped


def class_change(laws: Iterable[Law], *, n: int, seeds: Sequence[tuple[int, ...]], block: int = 512) -> np.ndarray:
    """(4, sets, B, K): :func:`compare` averaged over n lines of every class, for each of the sets and each compressed head.

    Args:
        laws: per class its :class:`Law`. n: a power of two. seeds: one a set of points, independent between the classes.
    """
    found = []
    for k, one in enumerate(laws):
        points = np.concatenate([next(iter(point_sets(one.factor.shape[-1] + 1, n, 1, *seed, 4, k))) for seed in seeds])
        parts = []
        for first in range(0, len(points), block):
            chosen = lines(k, one, points[first : first + block])
            parts.append(np.array(compare(jnp.asarray(chosen.start), jnp.asarray(chosen.slope), jnp.asarray(k))))
        sums = np.concatenate(parts, 1)  # (4, sets n, B)
        found.append(sums.reshape(4, len(seeds), n, -1).mean(2))
    return np.moveaxis(np.array(found), 0, -1)
