"""Synthetic problems with Gaussian features: nothing symmetric that could hide a sign or a transpose."""

import numpy as np

from theory.setting.arguments import seed_of, whole
from theory.setting.errors import InputError
from theory.setting.problem import Problem
from theory.setting.record import version

COVARIANCES = ("shared", "unequal")
PRIORS = ("equal", "unequal")
LAYERS = ("optimal", "perturbed")


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
            0.15 mean|W| N(0, 1) to its weights.
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
    return Problem(
        weights=weights,
        bias=bias,
        priors=pi,
        means=means,
        covariances=shared if covariance == "shared" else factors[:, None, None] * shared,
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
