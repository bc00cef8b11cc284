"""Paired Monte Carlo: the same features through the clean and the compressed layers, by argmax and counting.

For known layers all logits are linear in z, so a sample needs only r = min(rows, d) normals, where rows counts the
stacked heads: z = mu + L g, H L g has the law of R'g with R from the QR factorization of (H L)'. One g serves every class
(each with its own mean and factor), so a sample is one g and n counts K feature vectors for it.

Compressed logits are W z + b plus E z with E = What - W stacked as a head of its own: float32 rounding of the clean logits
is then common to both decisions.

Draws come in blocks of ``BLOCK`` normals with the key ``fold_in(key, block)``; counts are exact integers, block sums of
squares are added on the host in the order of the blocks. The chunk size changes nothing.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from theory.setting.door import progress
from theory.setting.problem import Problem, decide

BLOCK = 4096
CHUNK = 32  # blocks a compiled call
HIGHEST = jax.lax.Precision.HIGHEST


class Tally(NamedTuple):
    """What was counted, for B compressed layers and K classes.

    ``samples`` draws of a shared normal; ``wrong`` (K,) errors of the clean layer by class; ``made``, ``mended`` and
    ``flips`` (B, K) errors made, errors mended and decisions changed; ``squares`` (B, 2) sums over the independent units
    of the squared unit value of distortion and flips; ``units`` how many there are; ``sample_squares`` (B,) the sum over
    samples of the squared distortion value.
    """

    samples: int
    units: int
    wrong: np.ndarray
    made: np.ndarray
    mended: np.ndarray
    flips: np.ndarray
    squares: np.ndarray
    sample_squares: np.ndarray

    def __add__(self, other: "Tally") -> "Tally":  # pyright: ignore[reportIncompatibleMethodOverride]
        sums: list[Any] = [a + b for a, b in zip(self, other, strict=True)]
        return Tally(*sums)


def key_of(seed: int) -> jax.Array:
    """A key from all 63 bits of the seed, whatever JAX's 64-bit switch says."""
    return jax.random.wrap_key_data(jnp.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)))


def factor(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, also for a singular one."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))


def reduced_heads(problem: Problem, errors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, rows) and transposed factors (K, rows, r) of the stacked logits [W z + b; E_1 z; ...] given the class."""
    heads = np.concatenate([problem.weights, *errors])
    bias = np.concatenate([problem.bias, np.zeros(len(heads) - len(problem.bias))])
    factors = []
    for k in range(problem.classes):
        image = heads @ factor(problem.covariance(k)) if not problem.shared or k == 0 else None
        factors.append(factors[0] if image is None else np.asarray(np.linalg.qr(image.T, mode="r")).T)
    return problem.means @ heads.T + bias, np.stack(factors)


def exact_ties(heads: Sequence[np.ndarray], bias: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What rounding must not decide, for heads (rows, d) with one bias: equal rows give equal logits, zero rows their bias.

    Returns:
        (heads, rows, 1): the lowest row with the same weights and bias; whether the row is zero; the bias.
    """
    stack = np.stack([np.concatenate([head, bias[:, None]], 1) for head in heads])
    same = np.all(stack[:, :, None] == stack[:, None], -1)
    zero = ~np.any(stack[:, :, :-1], -1)
    biases = np.broadcast_to(bias, zero.shape)
    first = jnp.asarray(np.argmax(same, -1)[..., None], jnp.int32)
    return first, jnp.asarray(zero[..., None]), jnp.asarray(biases[..., None], jnp.float32)


@functools.partial(jax.jit, static_argnames=("rows", "chunk"))
def _known_chunk(key, start, last, means, factors, priors, ties, *, rows: int, chunk: int):
    """Counts of the blocks start .. start + chunk - 1 that are below last."""
    first, zero, bias = ties
    K, total, r = factors.shape
    layers = total // rows - 1

    def block(index):
        g = jax.random.normal(jax.random.fold_in(key, index), (r, BLOCK), jnp.float32)

        def one_class(carry, inputs):
            y, f = carry
            k, mean, L, prior = inputs
            logits = jnp.expand_dims(mean, 1) + jnp.matmul(L, g, precision=HIGHEST)
            clean, shift = logits[:rows], logits[rows:].reshape(layers, rows, BLOCK)
            both = jnp.concatenate([clean[None], clean[None] + shift])  # (1 + layers, rows, BLOCK)
            both = jnp.where(zero, bias, jnp.take_along_axis(both, first, 1))
            decided = _decide(jnp.moveaxis(both, 1, 0))
            before, after = decided[0], decided[1:]
            wrong, wrong_after = before != k, after != k
            made = wrong_after & ~wrong[None]
            mended = ~wrong_after & wrong[None]
            flips = after != before[None]
            y = y + prior * (made.astype(jnp.float32) - mended.astype(jnp.float32))
            f = f + prior * flips.astype(jnp.float32)
            counts = tuple(jnp.sum(x, -1, dtype=jnp.int32) for x in (wrong, made, mended, flips))
            return (y, f), counts

        nothing = jnp.zeros((layers, BLOCK), jnp.float32)
        (y, f), counts = jax.lax.scan(one_class, (nothing, nothing), (jnp.arange(K, dtype=jnp.int32), means, factors, priors))
        live = (index < last).astype(jnp.int32)
        squares = jnp.stack([jnp.sum(y * y, -1), jnp.sum(f * f, -1)], -1) * live.astype(jnp.float32)
        return tuple(x * live for x in counts), squares

    counts, squares = jax.lax.map(block, start + jnp.arange(chunk, dtype=jnp.uint32))
    return tuple(jnp.sum(x, 0) for x in counts), squares


def _decide(logits: jax.Array) -> jax.Array:
    """Decisions along the first axis; one output decides by its sign."""
    return (logits[0] > 0).astype(jnp.int32) if logits.shape[0] == 1 else jnp.argmax(logits, 0).astype(jnp.int32)


def count_known(
    problem: Problem, layers: Sequence[np.ndarray], *, seed: int, first: int, last: int, chunk: int = CHUNK
) -> Tally:
    """Count the blocks ``first`` .. ``last - 1`` for known compressed layers.

    Args:
        problem: K classes. layers: B arrays (rows, d), the compressed weights.
        seed: of the draws. first, last: block numbers. chunk: blocks a compiled call; changes no count.
    """
    chunk = min(chunk, max(1, last - first))
    means, factors = reduced_heads(problem, [What - problem.weights for What in layers])
    rows, key = len(problem.weights), key_of(seed)
    device = [jnp.asarray(x, jnp.float32) for x in (means, factors, problem.priors)]
    ties = exact_ties([problem.weights, *layers], problem.bias)

    def parts() -> Iterator:
        for start in range(first, last, chunk):
            yield _known_chunk(key, np.uint32(start), np.uint32(last), *device, ties, rows=rows, chunk=chunk)

    K, B = problem.classes, len(layers)
    total = [np.zeros(K, np.int64)] + [np.zeros((B, K), np.int64) for _ in range(3)]
    squares = np.zeros((B, 2))
    for counts, block_squares in progress(parts(), total=-(-(last - first) // chunk), what="sampling", unit="chunk"):
        total = [old + np.asarray(new).astype(np.int64).T for old, new in zip(total, counts, strict=True)]
        for one in np.asarray(block_squares, np.float64):  # in the order of the blocks, whatever the chunk
            squares = squares + one
    samples = (last - first) * BLOCK
    wrong, made, mended, flips = total
    return Tally(samples, samples, wrong, made, mended, flips, squares, squares[:, 0])


@functools.partial(jax.jit, static_argnames=("each", "chunk"))
def _network_chunk(key, first, last, w, means, covariances, m, s, steps, priors, *, each: int, chunk: int):
    """As ``_known_chunk`` for random binary layers: BLOCK // each networks a block, ``each`` samples a network."""
    networks, (layers, rows), d = max(1, BLOCK // each), steps.shape, len(w)

    def block(index):
        one, two = jax.random.split(jax.random.fold_in(key, index))
        u = jax.random.uniform(one, (rows, networks, d), jnp.float32, -0.5, 0.5)
        g = jax.random.normal(two, (2, networks, each), jnp.float32)
        sign = jnp.asarray([-1.0, 1.0] if rows == 2 else [1.0], jnp.float32)
        c = steps * jnp.expand_dims(sign, 0)  # (layers, rows): e = sum over rows of c u

        def one_class(carry, inputs):
            y, f = carry
            k, mean, S, m, s, prior = inputs
            image = jnp.matmul(u, S, precision=HIGHEST)
            gram = jnp.einsum("anj,bnj->abn", image, u, precision=HIGHEST)
            a = jnp.einsum("la,anj,j->ln", c, u, mean, precision=HIGHEST)
            q = jnp.einsum("la,anj,j->ln", c, image, w, precision=HIGHEST)
            r = jnp.einsum("la,lb,abn->ln", c, c, gram, precision=HIGHEST)
            slope = q / jnp.where(s > 0, s, 1.0)  # a constant margin stays what it is
            rest = jnp.sqrt(jnp.maximum(r - slope**2, 0))
            t = m + s * g[:1]  # (1, networks, each)
            x = jnp.expand_dims(a, -1) + jnp.expand_dims(slope, -1) * g[:1] + jnp.expand_dims(rest, -1) * g[1:]
            before, after, right = t > 0, t + x > 0, k == 1
            wrong, wrong_after = before != right, after != right
            made, mended = wrong_after & ~wrong, ~wrong_after & wrong
            flips = after != before
            y = y + prior * (made.astype(jnp.float32) - mended.astype(jnp.float32))
            f = f + prior * flips.astype(jnp.float32)
            return (y, f), tuple(jnp.sum(x, (-2, -1), dtype=jnp.int32) for x in (wrong[0], made, mended, flips))

        zero = jnp.zeros((layers, networks, each), jnp.float32)
        (y, f), counts = jax.lax.scan(
            one_class, (zero, zero), (jnp.arange(2, dtype=jnp.int32), means, covariances, m, s, priors)
        )
        live = (index < last).astype(jnp.int32)
        squares = jnp.stack(
            [jnp.sum(jnp.mean(y, -1) ** 2, -1), jnp.sum(jnp.mean(f, -1) ** 2, -1), jnp.sum(y * y, (-2, -1))], -1
        )
        return tuple(x * live for x in counts), squares * live.astype(jnp.float32)

    counts, squares = jax.lax.map(block, first + jnp.arange(chunk, dtype=jnp.uint32))
    return tuple(jnp.sum(x, 0) for x in counts), squares


@functools.partial(jax.jit, static_argnames=("each", "chunk"))
def _many_chunk(key, first, last, weights, bias, means, factors, steps, priors, *, each: int, chunk: int):
    """As ``_network_chunk`` for more than two classes, in the full feature space: z = mu + L g, E z by the drawn E itself."""
    (K, d), networks, layers = weights.shape, max(1, BLOCK // each), len(steps)

    def block(index):
        one, two = jax.random.split(jax.random.fold_in(key, index))
        u = jax.random.uniform(one, (networks, K, d), jnp.float32, -0.5, 0.5)
        g = jax.random.normal(two, (d, networks * each), jnp.float32)
        common = jnp.matmul(factors[0], g, precision=HIGHEST) if len(factors) == 1 else None

        def one_class(carry, inputs):
            y, f = carry
            k, mean, prior = inputs
            centred = jnp.matmul(factors[k], g, precision=HIGHEST) if common is None else common
            z = jnp.expand_dims(mean, 1) + centred
            clean = jnp.matmul(weights, z, precision=HIGHEST) + jnp.expand_dims(bias, 1)
            noise = jnp.einsum("njd,dns->jns", u, z.reshape(d, networks, each), precision=HIGHEST).reshape(K, -1)
            shift = jnp.expand_dims(steps, 2) * jnp.expand_dims(noise, 0)  # (layers, K, networks * each)
            before = _decide(clean)
            after = _decide(jnp.moveaxis(jnp.expand_dims(clean, 0) + shift, 1, 0))
            wrong, wrong_after = before != k, after != k
            made, mended = wrong_after & ~wrong[None], ~wrong_after & wrong[None]
            flips = after != before[None]
            y = y + prior * (made.astype(jnp.float32) - mended.astype(jnp.float32))
            f = f + prior * flips.astype(jnp.float32)
            return (y, f), tuple(jnp.sum(x, -1, dtype=jnp.int32) for x in (wrong, made, mended, flips))

        zero = jnp.zeros((layers, networks * each), jnp.float32)
        (y, f), counts = jax.lax.scan(one_class, (zero, zero), (jnp.arange(K, dtype=jnp.int32), means, priors))
        live = (index < last).astype(jnp.int32)
        y, f = y.reshape(layers, networks, each), f.reshape(layers, networks, each)
        squares = jnp.stack(
            [jnp.sum(jnp.mean(y, -1) ** 2, -1), jnp.sum(jnp.mean(f, -1) ** 2, -1), jnp.sum(y * y, (-2, -1))], -1
        )
        return tuple(x * live for x in counts), squares * live.astype(jnp.float32)

    counts, squares = jax.lax.map(block, first + jnp.arange(chunk, dtype=jnp.uint32))
    return tuple(jnp.sum(x, 0) for x in counts), squares


def count_networks(
    problem: Problem, steps: np.ndarray, *, each: int, seed: int, first: int, last: int, chunk: int = CHUNK
) -> Tally:
    """Count blocks of samples through random layers W + E, E independent and uniform in +-step/2.

    A block is max(1, BLOCK // each) networks with ``each`` samples; the networks are the independent units. With two
    classes the clean and the noisy margin are bivariate normal given E, so a sample needs two normals whatever d.

    Args:
        problem: K classes. steps: (B, rows) steps of B widths; the widths share the uniforms.
    """
    if problem.classes > 2:
        factors = [factor(one) for one in (problem.covariances[None] if problem.shared else problem.covariances)]
        many = [problem.weights, problem.bias, problem.means, np.stack(factors), steps, problem.priors]
        return _count_blocks(_many_chunk, problem, steps, many, each, seed, first, last, chunk)
    w = problem.weights[-1] - (problem.weights[0] if len(problem.weights) == 2 else 0)
    c = problem.bias[-1] - (problem.bias[0] if len(problem.bias) == 2 else 0)
    covariances = np.broadcast_to(problem.covariances, (2, *problem.covariances.shape[-2:]))
    s = np.sqrt(np.maximum(np.einsum("i,kij,j->k", w, covariances, w), 0))
    two = [w, problem.means, covariances, problem.means @ w + c, s, steps, problem.priors]
    return _count_blocks(_network_chunk, problem, steps, two, each, seed, first, last, chunk)


def _count_blocks(compiled, problem: Problem, steps, arrays, each: int, seed: int, first: int, last: int, chunk: int) -> Tally:
    arrays, chunk = [jnp.asarray(x, jnp.float32) for x in arrays], min(chunk, max(1, last - first))
    key, B, K = key_of(seed), len(steps), problem.classes
    total, squares = [np.zeros(K, np.int64)] + [np.zeros((B, K), np.int64) for _ in range(3)], np.zeros((B, 3))
    starts = range(first, last, chunk)
    for start in progress(starts, total=len(starts), what="sampling", unit="chunk"):
        counts, block_squares = compiled(key, np.uint32(start), np.uint32(last), *arrays, each=each, chunk=chunk)
        total = [old + np.asarray(new).astype(np.int64).T for old, new in zip(total, counts, strict=True)]
        for one in np.asarray(block_squares, np.float64):
            squares = squares + one
    networks = max(1, BLOCK // each) * (last - first)
    wrong, made, mended, flips = total
    return Tally(networks * each, networks, wrong, made, mended, flips, squares[:, :2], squares[:, 2])


def brute_force(problem: Problem, layers: Sequence[np.ndarray], *, n: int, seed: int) -> np.ndarray:
    """The reference: full feature vectors, labels drawn from the priors, argmax of W z + b, in float64 NumPy.

    Returns:
        (B, 4): risk before, risk after, distortion and flip rate of each layer, on the same n samples.
    """
    rng = np.random.default_rng(seed)
    y = rng.choice(problem.classes, n, p=problem.priors)
    z = rng.standard_normal((n, problem.features))
    for k in range(problem.classes):
        z[y == k] = problem.means[k] + z[y == k] @ factor(problem.covariance(k)).T
    before = decide(z @ problem.weights.T + problem.bias)
    rows = []
    for What in layers:
        after = decide(z @ What.T + problem.bias)
        risks = np.mean(before != y), np.mean(after != y)
        rows.append([*risks, risks[1] - risks[0], np.mean(after != before)])
    return np.array(rows)
