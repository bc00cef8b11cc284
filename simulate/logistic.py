"""Labelled samples of a Gaussian problem, and multinomial logistic regression on them."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from theory.setting.problem import Problem

PENALTY = 1e-3  # of the mean cross-entropy: half of this times the squared weights


def samples_of(rng, problem: Problem, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n labelled samples (n, d), (n,)."""
    labels = rng.choice(problem.classes, n, p=problem.priors)
    normals = rng.standard_normal((n, problem.features))
    z = np.empty_like(normals)
    for k in range(problem.classes):
        own = labels == k
        z[own] = problem.means[k] + normals[own] @ np.linalg.cholesky(problem.covariance(k)).T
    return z, labels


def trained_layer(weights, bias, z: np.ndarray, labels: np.ndarray, steps: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """The layer of least penalized cross-entropy on the samples, sought from the given one in so many steps at most."""
    n, (K, d) = len(z), weights.shape
    target = np.eye(K)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = flat[: K * d].reshape(K, d), flat[K * d :]
        logits = z @ W.T + b
        normalizer = np.asarray(logsumexp(logits, axis=1))
        residual = (np.exp(logits - normalizer[:, None]) - target) / n
        value = np.mean(normalizer - logits[np.arange(n), labels]) + 0.5 * PENALTY * np.sum(W**2)
        return float(value), np.concatenate([(residual.T @ z + PENALTY * W).reshape(-1), residual.sum(0)])

    found = minimize(loss, np.concatenate([weights.reshape(-1), bias]), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return found.x[: K * d].reshape(K, d), found.x[K * d :]
