"""Synthetic problems with Gaussian features: nothing symmetric that could hide a sign or a transpose."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from theory.setting.checks import seed_of, whole
from theory.setting.errors import InputError
from theory.setting.problem import Problem
from theory.setting.record import version

COVARIANCES = ("shared", "unequal")
PRIORS = ("equal", "unequal")
LAYERS = ("optimal", "perturbed", "trained")
PENALTY = 1e-3

RANGE = 4.0  # standard deviations of a feature about the mean of its class in the feature range


def synthetic(
    *,
    classes: int,
    features: int,
    separation: float,
    covariance: str = "shared",
    priors: str = "equal",
    layer: str = "optimal",
    seed: int = 0,
) -> Problem:
    """A random problem with correlated Gaussian features of unequal scales.

    The shared covariance is D (A A' + 0.3 I) D with A (d, d) of N(0, 1/d) entries and D = diag exp U(-0.5, 0.5); class
    means are N(0, D^2), scaled so that the mean over classes of sqrt(mu_k' Sigma^-1 mu_k) is ``separation``.

    Args:
        classes, features: K >= 2 and d >= 1.
        separation: mean Mahalanobis distance of a class mean from the origin, > 0.
        covariance: ``unequal`` multiplies the shared one by U(0.7, 1.4) per class.
        priors: ``unequal`` draws them from Dirichlet(8, ..., 8).
        layer: ``optimal`` is the Bayes rule w_k = Sigma^-1 mu_k, b_k = -mu_k' Sigma^-1 mu_k/2 + log pi_k of the shared
            covariance (of the prior-weighted mean of unequal ones, then no longer optimal); ``perturbed`` adds
            0.15 mean|W| N(0, 1) to its weights; ``trained`` is multinomial logistic regression on 20 d samples, mean
            cross-entropy plus (1e-3/2) |W|^2.
        seed: of all of it.

    Returns:
        The problem, its statistics known exactly.

    Raises:
        InputError: an option out of range.
    """
    for name, value, known in (("covariance", covariance, COVARIANCES), ("priors", priors, PRIORS), ("layer", layer, LAYERS)):
        if value not in known:
            raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    classes, features, seed = whole("classes", classes, 2), whole("features", features, 1), seed_of(seed)
    if not 0 < separation < np.inf:
        raise InputError(f"separation: expected a positive number, got {separation}")
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(-0.5, 0.5, features))
    A = rng.standard_normal((features, features)) / np.sqrt(features)
    shared = (A @ A.T + 0.3 * np.eye(features)) * np.outer(scale, scale)
    shared = (shared + shared.T) / 2
    means = rng.standard_normal((classes, features)) * scale
    distances = np.sqrt(np.einsum("kd,dk->k", means, np.linalg.solve(shared, means.T)))
    means *= separation / distances.mean()
    pi = np.full(classes, 1 / classes) if priors == "equal" else rng.dirichlet(np.full(classes, 8.0))
    factors = np.ones(classes) if covariance == "shared" else rng.uniform(0.7, 1.4, classes)
    middle = shared * (pi @ factors)
    weights = np.linalg.solve(middle, means.T).T
    bias = -0.5 * np.einsum("kd,kd->k", weights, means) + np.log(pi)
    if layer == "perturbed":
        weights = weights + 0.15 * np.abs(weights).mean() * rng.standard_normal(weights.shape)
    if layer == "trained":
        weights, bias = _trained(weights, bias, *_samples(rng, pi, means, shared, factors, 20 * features))
    deviations = np.sqrt(np.diagonal(shared) * (1.0 if covariance == "shared" else float(np.max(factors))))
    return Problem(
        weights=weights,
        bias=bias,
        priors=pi,
        means=means,
        covariances=shared if covariance == "shared" else factors[:, None, None] * shared,
        feature_range=np.array([(means - RANGE * deviations).min(), (means + RANGE * deviations).max()]),
        source_bits=64,
        provenance={
            "source": "synthetic",
            "classes": classes,
            "features": features,
            "separation": separation,
            "covariance": covariance,
            "priors": priors,
            "layer": layer,
            "seed": seed,
            "by": f"simulate.synthetic {version()}",
        },
    )


def _samples(rng, priors, means, shared, factors, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n labelled samples (n, d), (n,) of the problem whose class k has the covariance factors[k] * shared."""
    labels = rng.choice(len(priors), n, p=priors)
    noise = rng.standard_normal((n, means.shape[1])) @ np.linalg.cholesky(shared).T
    scale = np.sqrt(np.take(factors, labels)).reshape(-1, 1)
    return means[labels] + scale * noise, labels


def _trained(weights, bias, z: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The layer of least penalized cross-entropy on the samples, sought from the given one."""
    n, (K, d) = len(z), weights.shape
    target = np.eye(K)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = flat[: K * d].reshape(K, d), flat[K * d :]
        logits = z @ W.T + b
        normalizer = np.asarray(logsumexp(logits, axis=1))
        residual = (np.exp(logits - normalizer[:, None]) - target) / n
        value = np.mean(normalizer - logits[np.arange(n), labels]) + 0.5 * PENALTY * np.sum(W**2)
        return float(value), np.concatenate([(residual.T @ z + PENALTY * W).reshape(-1), residual.sum(0)])

    found = minimize(loss, np.concatenate([weights.reshape(-1), bias]), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return found.x[: K * d].reshape(K, d), found.x[K * d :]
