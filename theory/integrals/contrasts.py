"""Any number of Gaussian classes: recalls of clean and compressed layers as orthants of their contrasts.

The probability that class k is decided is that of K - 1 contrasts a_k - a_j being positive: a Gaussian orthant, computed for
the clean and every compressed layer at the same points (:mod:`theory.integrals.orthant`), so that the error of the distortion
falls with the distortion. It serves known layers, and pairs of random ones.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from theory.budget import DEFAULT, Budget
from theory.integrals.orthant import SCRAMBLINGS, cholesky, estimate, moved, order_of, raw_points, separated
from theory.integrals.points import lattices, sobol
from theory.setting.error_law import UniformErrors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

DOUBLE = 16  # classes up to which they are integrated in double precision
MOST_RIVALS = 128  # contrasts of a class beyond which orthants give way to lines
LEAST, DRAWN = 8, 1024  # pairs of networks a scrambling, at least and at most
SOBOL = 2048  # entries of E up to which Sobol points serve
INNER, FEW_INNER = 64, 16  # points of the orthants of a pair of networks; few where Sobol points do the better part
ENTRIES = 2**24  # of the covariances of the contrasts of the pairs of networks in one compiled call


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
    return min(MOST_RIVALS, problem.features) >= K - 1 and _independent(problem, problem.weights)


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


def orthant_pairs(
    problem: Problem, errors: UniformErrors, *, seed: int = 0, budget: Budget = DEFAULT
) -> tuple[np.ndarray, float, float]:
    """Recalls (SCRAMBLINGS, pairs, 3, K) of the clean layer, W + E and W - E for each of the pairs; the 95 % error of the
    average distortion; and the variance that the points add to the distortion of one network, from pairs taken twice."""
    K, d = problem.weights.shape
    arrays, rivals, clean = _arrays(problem), jnp.asarray(orders(problem)), jnp.asarray(centred(problem.weights))
    by_sobol = K * d <= SOBOL
    inner = FEW_INNER if by_sobol else INNER
    rngs = [np.random.default_rng([seed, 6, r]) for r in range(SCRAMBLINGS)]
    sources = [sobol(K * d, rng=rng) if by_sobol else rng for rng in rngs]
    points_rng = np.random.default_rng([seed, 6, SCRAMBLINGS])
    most = int(2 ** np.floor(np.log2(np.clip(budget.pair_work / (K**2 * inner + K**3), LEAST, DRAWN))))
    together = int(2 ** np.floor(np.log2(np.clip(ENTRIES / (3 * K**3), LEAST, LEAST * SCRAMBLINGS))))
    found: list[np.ndarray] = []  # of (SCRAMBLINGS, pairs, 3, K)
    twice: list[np.ndarray] = []

    def recalls_of(E: np.ndarray) -> np.ndarray:
        """Of errors (SCRAMBLINGS, pairs, K, d), each at points of its own."""
        flat, parts = E.reshape(-1, K, d), []
        for first in range(0, len(flat), together):
            points = lattices(points_rng, together, inner, K - 1)
            shifts = points_rng.random((together, K, K - 1))
            some = jnp.asarray(flat[first : first + together])
            parts.append(np.asarray(_pair_recalls(clean, some, *arrays, rivals, points, shifts)))
        return np.concatenate(parts).reshape(*E.shape[:2], 3, K)

    while True:
        pairs = sum(part.shape[1] for part in found)
        more = max(LEAST, pairs)
        uniforms = [source.random(more if by_sobol else more * K * d).reshape(more, K, d) for source in sources]
        E = errors.of(np.stack(uniforms) - 0.5)
        found.append(recalls_of(E))
        if not twice:
            twice.append(recalls_of(E) - found[0])
        values = np.concatenate(found, 1)
        shifts = values[:, :, :1] - values[:, :, 1:]
        average = estimate(shifts.mean((1, 2)) @ problem.priors)
        error = float(average.error)
        if pairs + more >= most or error <= budget.average_precision * abs(float(average.value)):
            gaps = (twice[0][:, :, :1] - twice[0][:, :, 1:]) @ problem.priors
            return values, error, float(np.mean(gaps**2)) / 2


@jax.jit
def _pair_recalls(clean, E, bias, means, covariances, rivals, points, shifts):
    """(n, 3, K) recalls of the clean layer and of the pairs W + E, W - E (n, K, d), each pair at its own points."""

    def one(E, points, shifts):
        law = contrasts(centred(jnp.stack([clean, clean + E, clean - E])), bias, means, covariances, rivals, dependent=False)
        return recalls(*law, points, shifts)

    return jax.vmap(one)(E, points, shifts)
