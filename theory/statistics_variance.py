"""More than two classes: the sampling variance of a predicted distortion whose statistics were estimated."""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from theory.integrals.contrasts import centred, has_orthants, orders, points_and_shifts
from theory.integrals.orthant import SCRAMBLINGS, cholesky, moved, separated
from theory.setting.error_law import UniformErrors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem


def between_classes(problem: Problem, distortion: np.ndarray) -> float:
    """Sampling variance of a distortion, by class (K,), when the priors were estimated; 0 where they are known."""
    if problem.counts is None:
        return 0.0
    pi = problem.priors
    return float(pi @ distortion**2 - (pi @ distortion) ** 2) / max(1, int(problem.counts.sum()))


def statistics_variance(problem: Problem, distortion: np.ndarray, changed: np.ndarray, within: float | None) -> float:
    """Sampling variance of the distortion of a known layer when means, covariances and priors were estimated.

    That of the priors, and that ``within`` classes by :func:`within_classes`; where this is None the paired sampling variance
    of each class, which is larger.

    Args:
        problem: with counts, or the variance is 0. distortion, changed: (K,) change of risk, share whose correctness changes.
    """
    if problem.counts is None:
        return 0.0
    if within is None:
        n = np.maximum(problem.counts, 1)
        within = float(np.sum(problem.priors**2 * (changed - distortion**2) / n))
    return between_classes(problem, distortion) + within


def within_classes(problem: Problem, layers: np.ndarray, *, seed: int = 0) -> np.ndarray | None:
    """(B,) sampling variance of the distortion of known layers (B, K, d) when means and covariances were estimated; None
    where they are known or there are no orthants.

    Delta method on the orthants: gradient g and G of each class's change in the mean and covariance C of its 2 K logits,
    variance (g'C g + 2 tr G C G C)/n_k.
    """
    if problem.counts is None or not has_orthants(problem):
        return None
    rivals = orders(problem)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(lambda What: _within(problem, What, rivals, seed), layers)))


@in_float64  # a switch of each thread
def _within(problem: Problem, What: np.ndarray, rivals: np.ndarray, seed: int) -> float:
    assert problem.counts is not None  # the caller has looked
    pi, n, K = problem.priors, np.maximum(problem.counts, 1), problem.classes
    heads = centred(np.stack([problem.weights, What]))
    points, shifts = points_and_shifts(K, 256, seed, SCRAMBLINGS)
    within, flat = 0.0, heads.reshape(2 * K, -1)
    for k in range(K):
        S = problem.covariance(k)
        logits = heads @ problem.means[k] + problem.bias
        C = flat @ S @ flat.T
        grams = np.stack([C[:K, :K], C[K:, K:]])
        g, G = _gradient(*map(jnp.asarray, (logits, grams, k, rivals[k])), moved(points, shifts[k : k + 1]))
        g, G = np.array(g), np.array(G)
        g[1], G[1] = -g[1], -G[1]
        block = np.zeros((2 * K, 2 * K))
        block[:K, :K], block[K:, K:] = (G[0] + G[0].T) / 2, (G[1] + G[1].T) / 2
        slope, GC = g.reshape(-1), block @ C
        within += pi[k] ** 2 / n[k] * float(slope @ C @ slope + 2 * np.sum(GC * GC.T))
    return within


def expected_statistics_variance(
    problem: Problem, errors: UniformErrors, distortion: np.ndarray, changed: np.ndarray, seed: int = 0
) -> float:
    """The same for random layers: averaged over a few of them."""
    if problem.counts is None:
        return 0.0
    rng = np.random.default_rng([seed, 7])
    layers = problem.weights + errors.of(rng.random((4, *problem.weights.shape)) - 0.5)
    within = within_classes(problem, layers, seed=seed)
    return statistics_variance(problem, distortion, changed, None if within is None else float(within.mean()))


@jax.jit
def _gradient(logits, grams, k, rival, points):
    """Of each head's recall of class k in the means (2, K) and covariances (2, K, K) of its logits."""

    def recall(logit, gram):
        cross = gram[k][rival]
        covariance = gram[k, k] - cross[:, None] - cross[None, :] + gram[rival[:, None], rival[None, :]]
        return jnp.mean(separated(logit[k] - logit[rival], cholesky(covariance), points))

    return jax.vmap(jax.grad(recall, argnums=(0, 1)))(logits, grams)
