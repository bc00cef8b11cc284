"""Asymmetric problems for the tests, and independent references in NumPy, SciPy and mpmath."""

import itertools

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr

from theory.setting.problem import Problem, margin


def random_problem(d: int, seed: int, *, layer: str = "perturbed", shared: bool = False, rows: int = 2, K: int = 2) -> Problem:
    """Unequal priors, correlated features of unequal scales, a common mean: nothing symmetric."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((d, d)) / np.sqrt(d)
    scale = np.exp(rng.uniform(-0.6, 0.6, d))
    S = (A @ A.T + 0.3 * np.eye(d)) * np.outer(scale, scale)
    S = (S + S.T) / 2
    means = rng.standard_normal((K, d)) * scale
    means *= 2.5 / np.sqrt(np.einsum("kd,dk->k", means, np.linalg.solve(S, means.T))).mean()
    means += scale * np.abs(rng.standard_normal(d)) / np.sqrt(d)
    priors = rng.dirichlet(np.full(K, 8.0)) * 0.8 + 0.2 * np.arange(1, K + 1) / (K * (K + 1) / 2)
    weights = np.linalg.solve(S, means.T).T
    bias = -0.5 * np.einsum("kd,kd->k", weights, means) + np.log(priors)
    if layer == "perturbed":
        weights = weights + 0.15 * np.abs(weights).mean() * rng.standard_normal(weights.shape)
    if rows == 1:
        weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
    covariances = S if shared else np.stack([S * f for f in rng.uniform(0.7, 1.4, K)])
    return Problem(weights=weights, bias=bias, priors=priors, means=means, covariances=covariances, source_bits=64)


def exact_risk(problem: Problem, What: np.ndarray | None = None) -> float:
    w, c = margin(problem.weights if What is None else What, problem.bias)
    total = 0.0
    for k, sign in ((0, 1.0), (1, -1.0)):
        s = np.sqrt(w @ problem.covariance(k) @ w)
        total += problem.priors[k] * ndtr(sign * (w @ problem.means[k] + c) / s)
    return float(total)


def exact_flips(problem: Problem, What: np.ndarray) -> float:
    """By integrating over the clean margin the probability that the compressed one has the other sign."""
    (w, c), (v, _) = margin(problem.weights, problem.bias), margin(What, problem.bias)
    total = 0.0
    for k in (0, 1):
        S, mu = problem.covariance(k), problem.means[k]
        m, m_hat, power, cross = w @ mu + c, v @ mu + c, w @ S @ w, w @ S @ v
        rest = np.sqrt(max(v @ S @ v - cross**2 / power, 0.0))
        if rest < 1e-7 * np.sqrt(power):  # parallel directions: decisions differ between the two thresholds
            ends = sorted((-m / np.sqrt(power), -m_hat * np.sqrt(power) / cross))
            between = ndtr(ends[1]) - ndtr(ends[0])
            total += problem.priors[k] * (between if cross > 0 else 1 - between)
            continue

        def crossed(t, m=m, m_hat=m_hat, power=power, cross=cross, rest=rest):
            centre = m_hat + cross / power * (t - m)
            return ndtr(-np.sign(t) * centre / rest) * np.exp(-((t - m) ** 2) / (2 * power)) / np.sqrt(2 * np.pi * power)

        s = np.sqrt(power)
        edges = np.unique(np.concatenate([m + s * np.linspace(-9, 9, 13), np.array([-4, -1, 0, 1, 4]) * rest]))
        pieces = itertools.pairwise(edges)
        total += problem.priors[k] * sum(quad(crossed, a, b, epsabs=1e-14, epsrel=1e-12)[0] for a, b in pieces)
    return float(total)
