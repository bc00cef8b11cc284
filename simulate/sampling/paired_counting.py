"""Paired Monte Carlo: the same features through the clean and the compressed layers, by argmax and counting.

For known layers all logits are linear in z, so a sample needs only r = min(rows, d) normals, where rows counts the
stacked heads: z = mu + L g, H L g has the law of R'g with R from the QR factorization of (H L)'. One g serves every class
(each with its own mean and factor), so a sample is one g and n counts K feature vectors for it. It serves every problem of a
grid too: one compiled program.

Compressed logits are W z + b plus E z with E = What - W stacked as a head of its own: float32 rounding of the clean logits
is then common to both decisions.

Counts are exact integers; sums of squares are added on the host in the order of the blocks. The chunk size, an interruption
and the number of devices change nothing (on a GPU, the eighth digit of the sums of squares).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simulate.sampling.blocks import BLOCK, CHUNK, at_once, block_sums, in_batches, temporaries
from theory.setting.problem import Problem, decide

UNROLLED = 16  # rows up to which the argmax is written out
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

    def more(self, samples: int, units: int, counts, squares: np.ndarray) -> "Tally":
        """With what came next: counts (blocks, ...) of wrong, made, mended and flips, squares (blocks, B, 3)."""
        wrong, made, mended, flips = (old + new.astype(np.int64).sum(0) for old, new in zip(self[2:6], counts, strict=True))
        total = np.concatenate([self.squares, self.sample_squares[:, None]], 1)
        for one in squares.astype(np.float64):  # in the order of the blocks, whatever the chunk
            total = total + one
        return Tally(self.samples + samples, self.units + units, wrong, made, mended, flips, total[:, :2], total[:, 2])


def nothing(layers: int, classes: int) -> Tally:
    """The tally of no sample."""
    none = np.zeros((layers, classes), np.int64)
    return Tally(0, 0, np.zeros(classes, np.int64), none, none, none, np.zeros((layers, 2)), np.zeros(layers))


def factor(covariance: np.ndarray) -> np.ndarray:
    """L with L L' = covariance, also for a singular one."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0))


def reduced_heads(problem: Problem, errors: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Means (K, rows) and transposed factors (1 or K, rows, r) of the stacked logits [W z + b; E_1 z; ...] given the class."""
    heads = np.concatenate([problem.weights, *errors])
    bias = np.concatenate([problem.bias, np.zeros(len(heads) - len(problem.bias))])
    factors = []
    for k in range(1 if problem.shared else problem.classes):
        image = heads @ factor(problem.covariance(k))
        factors.append(np.asarray(np.linalg.qr(image.T, mode="r")).T)
    return problem.means @ heads.T + bias, np.stack(factors)


def exact_ties(heads: Sequence[np.ndarray], bias: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What rounding must not decide, for heads (rows, d) with one bias: equal rows give equal logits, zero rows their bias.

    Returns:
        (heads, rows, 1): the lowest row with the same weights and bias; whether the row is zero; the bias.
    """
    stack = np.stack([np.concatenate([head, bias[:, None]], 1) for head in heads])
    same = np.stack([np.all(head[:, None] == head[None], -1) for head in stack])
    zero = ~np.any(stack[:, :, :-1], -1)
    biases = np.broadcast_to(bias, zero.shape)
    return np.argmax(same, -1)[..., None].astype(np.int32), zero[..., None], biases[..., None].astype(np.float32)


def decisions(logits: jax.Array) -> jax.Array:
    """Decisions along the first axis, as float32; one output decides by its sign. Ties go to the lowest class."""
    if len(logits) == 1:
        return jnp.where(logits[0] > 0, 1.0, 0.0).astype(jnp.float32)

    def better(j, best):
        value, index = best
        up = logits[j] > value
        return jnp.where(up, logits[j], value), jnp.where(up, jnp.asarray(j, jnp.float32), index)

    best = logits[0], jnp.zeros(logits.shape[1:], jnp.float32)
    if len(logits) > UNROLLED:
        return jax.lax.fori_loop(1, len(logits), better, best)[1]
    for j in range(1, len(logits)):
        best = better(j, best)
    return best[1]


def tally_classes(decide_class: Callable[..., tuple[jax.Array, jax.Array]], inputs: Any, priors: jax.Array, shape):
    """Compare the decisions of all classes on n samples of shape (layers, n).

    Args:
        decide_class: from one class of ``inputs`` to its decisions before (n,) and after (layers, n), as float32.
        inputs: arrays with the classes along the first axis.

    Returns:
        Counts of wrong (K,), made, mended and flips (layers, K), and the samples' prior-weighted distortion and flips.
    """

    def count(x):  # columns first: the sum along the minor axis is a chain of dependent additions
        width = 128 if x.shape[-1] % 128 == 0 else 1
        return jnp.sum(jnp.sum(x.reshape(*x.shape[:-1], -1, width), -2), -1).astype(jnp.int32)

    def one_class(carry, inputs):
        y, f = carry
        k, prior, own = inputs
        before, after = decide_class(own)
        wrong, wrong_after, flip = (jnp.where(x, 1.0, 0.0) for x in (before != k, after != k, after != before[None]))
        # computed once: every sum below would compute the decisions again
        code = jax.lax.optimization_barrier((wrong[None] + 2 * wrong_after + 4 * flip).astype(jnp.float32))
        flip = jnp.floor(code / 4)
        wrong_after = jnp.floor((code - 4 * flip) / 2)
        wrong = code - 4 * flip - 2 * wrong_after
        change = wrong_after - wrong
        net, either = count(change), count(change * change)
        counts = count(wrong[0]), (either + net) // 2, (either - net) // 2, count(flip)
        return (y + prior * change, f + prior * flip), counts

    zero = jnp.zeros(shape, jnp.float32)
    classes = jnp.arange(len(priors), dtype=jnp.float32)
    (y, f), (wrong, *others) = jax.lax.scan(one_class, (zero, zero), (classes, priors, inputs))
    return (wrong, *(x.T for x in others)), y, f


def _known_block(key, means, factors, priors, ties, *, rows: int, tied: bool, problems_at_once: int):
    """Counts and squares (G, ...) of one block for the problems of a grid, so many at once: means (G, K, heads * rows),
    factors (G, 1 or K, heads * rows, r), priors (G, K)."""
    layers = means.shape[-1] // rows - 1
    g = jax.random.normal(key, (factors.shape[-1], BLOCK), jnp.float32)

    def one_problem(inputs):
        means, factors, priors, (first, zero, bias) = inputs
        common = jnp.matmul(factors[0], g, precision=HIGHEST) if len(factors) == 1 else None

        def decide_class(own):
            mean, L = own
            logits = jnp.expand_dims(mean, 1) + (jnp.matmul(L, g, precision=HIGHEST) if common is None else common)
            clean, shift = logits[:rows], logits[rows:].reshape(layers, rows, BLOCK)
            noisy = jnp.expand_dims(clean, 0) + shift
            if tied:
                both = jnp.concatenate([clean[None], noisy])  # (1 + layers, rows, BLOCK)
                both = jnp.where(zero, bias, jnp.take_along_axis(both, first, 1))
                clean, noisy = both[0], both[1:]
            return decisions(clean), decisions(jnp.moveaxis(noisy, 1, 0))

        each = factors if common is None else jnp.zeros((len(means), 0))
        counts, y, f = tally_classes(decide_class, (means, each), priors, (layers, BLOCK))
        y2 = jnp.sum(y * y, -1)
        return counts, jnp.stack([y2, jnp.sum(f * f, -1), y2], -1)

    return in_batches(one_problem, (means, factors, priors, ties), problems_at_once)


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
    """Count the blocks ``first`` .. ``last - 1`` for known compressed layers of one problem.

    Args:
        problem: K classes. layers: B arrays (rows, d), the compressed weights.
        seed: of the draws. first, last: block numbers. chunk: blocks a compiled call; changes no count.
        onto: the tally of the blocks before, to go on from.
    """
    before = None if onto is None else [onto]
    return count_grid([problem], [layers], seed=seed, first=first, last=last, chunk=chunk, onto=before)[0]


def count_grid(
    problems: Sequence[Problem],
    layers: Sequence[Sequence[np.ndarray]],
    *,
    seed: int,
    first: int,
    last: int,
    chunk: int = CHUNK,
    onto: Sequence[Tally] | None = None,
) -> list[Tally]:
    """As :func:`count_known` for a grid of problems of one shape (classes, features, rows, layers) as one compiled program.

    All of them see the same normals, and each the same as alone.
    """
    arrays, static = grid_program(problems, layers)
    tallies = list(onto) if onto is not None else [nothing(len(layers[0]), p.classes) for p in problems]
    blocks = max(1, at_once(BLOCK * arrays[0].shape[-1]) // static["problems_at_once"])
    question: dict = dict(seed=seed, first=first, last=last, chunk=chunk, blocks_at_once=blocks, what="sampling")
    found = block_sums(_known_block, arrays, **question, **static)
    for counts, squares in found:
        samples = len(squares) * BLOCK
        tallies = [tally.more(samples, samples, [x[:, i] for x in counts], squares[:, i]) for i, tally in enumerate(tallies)]
    return tallies


def grid_program(problems: Sequence[Problem], layers: Sequence[Sequence[np.ndarray]]) -> tuple[tuple, dict[str, Any]]:
    """The arrays and static arguments of the block that counts a grid."""
    reduced = [reduced_heads(p, [What - p.weights for What in known]) for p, known in zip(problems, layers, strict=True)]
    heads = [exact_ties([p.weights, *known], p.bias) for p, known in zip(problems, layers, strict=True)]
    ties = tuple(np.stack(x) for x in zip(*heads, strict=True))
    rows = len(problems[0].weights)
    tied = bool(np.any(ties[1]) or np.any(ties[0] != np.arange(rows)[:, None]))
    stacked = [np.stack(x) for x in zip(*reduced, strict=True)] + [np.stack([p.priors for p in problems])]
    side_by_side = min(len(problems), at_once(BLOCK * stacked[0].shape[-1]))
    static = {"rows": rows, "tied": tied, "problems_at_once": side_by_side}
    return (*(np.asarray(x, np.float32) for x in stacked), ties), static


def grid_temporaries(problems: Sequence[Problem], layers: Sequence[Sequence[np.ndarray]]) -> int:
    """Bytes that :func:`count_grid` needs beside its arguments and results."""
    arrays, static = grid_program(problems, layers)
    return temporaries(_known_block, arrays, **static)


def draw(problem: Problem, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) in float64 and labels (n,) drawn from the priors."""
    y = rng.choice(problem.classes, n, p=problem.priors)
    z, mixture = rng.standard_normal((n, problem.features)), problem.components
    if mixture is None and problem.shared:
        return problem.means[y] + z @ factor(problem.covariances).T, y
    for k in np.unique(y):
        if mixture is None:
            z[y == k] = problem.means[k] + z[y == k] @ factor(problem.covariances[k]).T
            continue
        own, last = np.flatnonzero(mixture.classes == k), np.flatnonzero(y == k)
        chosen = own[np.searchsorted(np.cumsum(mixture.shares[own])[:-1], rng.random(len(last)), side="right")]
        for members, covariance in mixture.group(int(k)):
            rows = np.isin(chosen, members)
            z[last[rows]] = mixture.means[chosen[rows]] + z[last[rows]] @ factor(covariance).T
    return z, y


def brute_force(problem: Problem, layers: Sequence[np.ndarray], *, n: int, seed: int) -> np.ndarray:
    """The reference: full feature vectors, labels drawn from the priors, argmax of W z + b, in float64 NumPy.

    Returns:
        (B, 4): risk before, risk after, distortion and flip rate of each layer, on the same n samples.
    """
    z, y = draw(problem, n, np.random.default_rng(seed))
    before = decide(z @ problem.weights.T + problem.bias)
    rows = []
    for What in layers:
        after = decide(z @ What.T + problem.bias)
        risks = np.mean(before != y), np.mean(after != y)
        rows.append([*risks, risks[1] - risks[0], np.mean(after != before)])
    return np.array(rows)
