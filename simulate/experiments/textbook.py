"""The textbook answers for the expected distortion of more than two classes, to be held against simulation.

Each gives one number for random layers W + E, E uniform in +-steps/2, on a Gaussian problem. None is used for predictions.
"""

import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from simulate.sampling.paired_counting import factor
from theory.integrals.orthant import SCRAMBLINGS, cholesky, order_of, point_sets, separated
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

SAMPLES = 2**13  # features behind Sakr's bounds
WORK = 2e7  # factors of the orthants


def textbook(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> list[dict[str, float | None]]:
    """All of them by name, for each of the steps (B, K); None where one has no answer (orthants of more classes than features
    + 1)."""
    found = []
    for some, plain in zip(steps, plain_mean(problem, steps, seed=seed), strict=True):
        sums, nearest = _pairwise(problem, some)
        chebyshev, chernoff = _sakr(problem, some, seed)
        found.append({"pairwise_q": sums, "top_rival": nearest, "plain_mean": plain, "sakr_1": chebyshev, "sakr_2": chernoff})
    return found


def _leads(problem: Problem, steps: np.ndarray, k: int):
    """Of class k over its rivals: means (K - 1,), covariance of the leads, and of their noise at the plain mean of |z|^2."""
    rivals, S, mu = np.delete(np.arange(problem.classes), k), problem.covariance(k), problem.means[k]
    contrast = problem.weights[k] - problem.weights[rivals]
    power = float(np.trace(S) + mu @ mu) / 12
    noise = power * (np.diag(steps[rivals] ** 2) + steps[k] ** 2)
    return contrast @ mu + problem.bias[k] - problem.bias[rivals], contrast @ S @ contrast.T, noise


def _pairwise(problem: Problem, steps: np.ndarray) -> tuple[float, float]:
    """Sum over rivals of the change of Q(lead/deviation), and that of the rival with the largest Q alone."""
    total = nearest = 0.0
    for k, prior in enumerate(problem.priors):
        mean, clean, noise = _leads(problem, steps, k)
        before = ndtr(-mean / np.sqrt(np.diag(clean)))
        change = ndtr(-mean / np.sqrt(np.diag(clean + noise))) - before
        total, nearest = total + prior * change.sum(), nearest + prior * change[np.argmax(before)]
    return float(total), float(nearest)


@in_float64
def plain_mean(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> list[float | None]:
    """Orthants with the noise of the plain mean of |z|^2, as if it did not depend on the logits, at common points."""
    K, totals = problem.classes, np.zeros(len(steps))
    if problem.features < K - 1:
        return [None] * len(steps)
    n = int(2 ** np.clip(np.floor(np.log2(WORK / SCRAMBLINGS / (2 * K * (K - 1)))), 6, 12))
    for k, prior in enumerate(problem.priors):
        (mean, clean, _), noises = _leads(problem, steps[0], k), [_leads(problem, some, k)[2] for some in steps]
        order = order_of(mean[None], clean[None])[0]
        L = [cholesky(x[np.ix_(order, order)]) for x in (clean, *(clean + noise for noise in noises))]
        for points in point_sets(K - 1, n, SCRAMBLINGS, seed, 3, k):
            before, *after = (float(jnp.mean(separated(jnp.asarray(mean[order]), x, points))) for x in L)
            totals += prior * (before - np.array(after)) / SCRAMBLINGS
    return [float(total) for total in totals]


def _sakr(problem: Problem, steps: np.ndarray, seed: int) -> tuple[float, float]:
    """Sakr, Kim and Shanbhag (ICML 2017): bounds of the probability that the decision changes, theorems 1 (Chebyshev) and 2
    (Chernoff), weights quantized alone. Each rival's term is cut at 1: the first has no finite mean for continuous features."""
    rng, totals = np.random.default_rng([seed, 1]), np.zeros(2)
    labels = rng.choice(problem.classes, SAMPLES, p=problem.priors)
    for k in range(problem.classes):
        n = int(np.sum(labels == k))
        z = problem.means[k] + rng.standard_normal((n, problem.features)) @ factor(problem.covariance(k)).T
        logits = z @ problem.weights.T + problem.bias
        chosen = logits.argmax(1)
        gap = logits[np.arange(n), chosen][:, None] - logits
        variance = (steps**2 + steps[chosen][:, None] ** 2) / 12 * np.sum(z**2, 1)[:, None]
        others = np.arange(problem.classes) != chosen[:, None]
        ratio = gap**2 / np.maximum(variance, 1e-300)
        bounds = 0.5 / np.maximum(ratio, 1e-300), np.exp(-0.5 * ratio)
        totals += [float(np.sum(np.minimum(x, 1.0), where=others)) for x in bounds]
    return float(totals[0] / SAMPLES), float(totals[1] / SAMPLES)
