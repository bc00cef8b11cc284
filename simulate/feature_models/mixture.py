"""A mixture of Gaussians per class, by expectation and maximization, its covariances shrunk."""

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from simulate.feature_models.gaussian import shrinkage
from theory.setting.features import Features
from theory.setting.problem import Components, Problem

COMPONENTS = 4
FEWEST = 8  # samples a component: a class with fewer gets fewer components
STARTS, ROUNDS = 3, 40
STILL = 1e-3  # mean change of the responsibilities with which it stops: shrunk, the likelihood need not grow
RIDGE = 1e-6  # of the mean variance, added to each: a component of few samples stays regular


def components(features: Features, problem: Problem) -> Components:
    """COMPONENTS Gaussians a class, fewer where it has few samples, none without. Each covariance is shrunk towards the mean
    one of its class with the Ledoit-Wolf intensity of the samples that are mostly its own. The best of STARTS; nothing depends
    on a seed of the user."""
    classes, shares, means, covariances = [], [], [], []
    for k in range(problem.classes):
        z = features.features[features.labels == k].astype(np.float64)
        if not len(z):
            continue
        M = int(np.clip(len(z) // FEWEST, 1, COMPONENTS))
        if M == 1:
            found = np.ones(1), problem.means[[k]], problem.covariance(k)[None]
        else:
            found = max((_fitted(z, M, np.random.default_rng([k, r])) for r in range(STARTS)), key=lambda one: one[0])[1:]
        for whole, part in zip((shares, means, covariances), found, strict=True):
            whole.append(part)
        classes.append(np.full(len(found[0]), k))
    return Components(
        classes=np.concatenate(classes),
        shares=np.concatenate(shares),
        means=np.concatenate(means),
        covariances=np.concatenate(covariances),
    )


def _fitted(z: np.ndarray, M: int, rng: np.random.Generator) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Log-likelihood, shares (M,), means (M, d) and covariances (M, d, d) from one random start."""
    centres = z[rng.choice(len(z), M, replace=False)]
    spread = np.where(np.ptp(z, 0) > 0, z.std(0), 1.0)
    own = np.argmin(((z[:, None] - centres[None]) ** 2 / spread**2).sum(-1), 1)
    weight, given, likelihood = np.eye(M)[own], _maximized(z, np.eye(M)[own]), -np.inf
    for _ in range(ROUNDS):
        score = np.log(given[0]) + np.stack([_log_density(z, m, S) for m, S in zip(*given[1:], strict=True)], 1)
        each = np.asarray(logsumexp(score, axis=1))
        last, weight, likelihood = weight, np.exp(score - each[:, None]), float(each.mean())
        if np.abs(weight - last).mean() < STILL:
            break
        given = _maximized(z, weight)
    return likelihood, *given


def _maximized(z: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, means and shrunk covariances for responsibilities (n, M)."""
    total = weight.sum(0) + 1e-10
    shares, means = total / total.sum(), (weight / total).T @ z
    own = [((weight[:, [m]] / total[m]) * (z - means[m])).T @ (z - means[m]) for m in range(len(total))]
    within = np.tensordot(shares, np.array(own), 1)
    within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    covariances = []
    for m, S in enumerate(own):
        members = z[weight[:, m] > 0.5] - means[m]
        share = shrinkage(members, S, within) if len(members) > 1 else 1.0
        covariances.append((1 - share) * S + share * within)
    covariances = np.array(covariances)
    return shares, means, covariances + RIDGE * np.trace(within) / len(within) * np.eye(len(within))


def _log_density(z: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    L = np.linalg.cholesky(covariance)
    white = solve_triangular(L, (z - mean).T, lower=True)
    return -0.5 * np.sum(white**2, 0) - np.log(np.diagonal(L)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
