"""More than two classes at small steps: flips ~ step and expected distortion ~ step^2 with their constants, and a certified
bracket of the risk at any step.

Only the decision boundary counts there: faces where two logits tie with the others below, and edges where three tie. The
features of class y are Gaussian given the tie; faces and edges are drawn in proportion to their density.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, owens_t

from theory.integrals.contrasts import roots
from theory.integrals.orthant import SCRAMBLINGS, Estimate, estimate
from theory.integrals.two_classes import evaluate
from theory.setting.problem import Problem

DRAWS = 2**15  # faces, as many edges
CLOSE = 1e-4  # variance of a contrast over that of its logits below which it is taken from the rows themselves
MOST = 128  # classes beyond which the pairs of rivals are too many for Bonferroni's inequality


class Laws(NamedTuple):
    """Leading terms for given steps: expected distortion, its part from edges, and flip rate, each with its 95 % error."""

    distortion: Estimate
    edges: Estimate
    flips: Estimate


def small_steps(problem: Problem, steps: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Laws:
    """Leading terms in the step of random layers W + E, E independent and uniform in +-steps/2 (K,).

    Kind: asymptotic; the error is that of the constant, not of the law. Assumes features Gaussian given the class.
    """
    rng, sigma, n = np.random.default_rng([seed, 9]), steps / np.sqrt(12), draws // SCRAMBLINGS
    leads = [_Leads(problem, k, root) for k, root in enumerate(roots(problem))]
    replicates = [
        (_faces(leads, sigma, n, rng), _edges(leads, sigma, n, rng), _flips(leads, sigma, n, rng)) for _ in range(SCRAMBLINGS)
    ]
    faces, edges, flips = map(np.array, zip(*replicates, strict=True))
    return Laws(estimate((faces + edges).sum(1)), estimate(edges.sum(1)), estimate(flips))


class _Leads:
    """Class k: its logits' law, and features conditioned on ties."""

    def __init__(self, problem: Problem, k: int, root: np.ndarray):
        self.k, self.prior, self.mean, self.root = k, problem.priors[k], problem.means[k], root
        self.weights, self.bias = problem.weights, problem.bias
        self.images = root @ (root.T @ problem.weights.T)  # Sigma W', (d, K)
        self.gram = problem.weights @ self.images
        self.logits = problem.weights @ self.mean + problem.bias

    def tie(self, first: np.ndarray, second: np.ndarray):
        """Of the differences of logits first - second: mean, variance, density at 0."""
        mean = self.logits[first] - self.logits[second]
        variance = self.gram[first, first] + self.gram[second, second] - 2 * self.gram[first, second]
        positive = np.maximum(variance, 1e-300)
        density = np.where(variance > 0, np.exp(-0.5 * mean**2 / positive) / np.sqrt(2 * np.pi * positive), 0.0)
        return mean, positive, density

    def features(self, rng: np.random.Generator, ties: np.ndarray):
        """Features (n, d) given that the logits of each row of ties (n, 2 or 3) are equal, whether all others are below
        them, and the derivative of the features in the first lead (d,)."""
        z = self.mean + rng.standard_normal((len(ties), self.root.shape[1])) @ self.root.T
        own, others = ties[:, :1], ties[:, 1:]
        images = self.images.T[own] - self.images.T[others]  # (n, m - 1, d)
        lead = np.einsum("nmd,nd->nm", self.weights[own] - self.weights[others], z) + self.bias[own] - self.bias[others]
        cross = np.einsum("nmd,nld->nml", self.weights[own] - self.weights[others], images)
        z = z - np.einsum("nmd,nm->nd", images, np.linalg.solve(cross, lead[..., None])[..., 0])
        logits = z @ self.weights.T + self.bias
        tied = np.take_along_axis(logits, own, 1)
        below = logits < tied
        np.put_along_axis(below, ties, True, 1)
        return z, below.all(1), images[:, 0] / cross[:, :1, 0]


def _draw(rng: np.random.Generator, weights: np.ndarray, n: int) -> np.ndarray:
    """n indices in proportion to the weights (any shape, flattened), systematic."""
    total = np.cumsum(weights.reshape(-1))
    return np.minimum(np.searchsorted(total, (np.arange(n) + rng.random()) / n * total[-1], side="right"), len(total) - 1)


def _faces(leads: list[_Leads], sigma: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    K = len(sigma)
    total = np.zeros(K)
    densities = np.zeros((len(leads), K))
    for one in leads:
        rivals = np.delete(np.arange(K), one.k)
        densities[one.k, rivals] = one.prior * one.tie(np.full(K - 1, one.k), rivals)[2]
    if not densities.any():
        return total
    chosen = np.stack(np.unravel_index(_draw(rng, densities, n), densities.shape), 1)
    for one in leads:
        ties = chosen[chosen[:, 0] == one.k]
        if not len(ties):
            continue
        mean, variance, _ = one.tie(*ties.T)
        z, below, slope = one.features(rng, ties)
        rate = evaluate("face_rate")(
            own=sigma[one.k],
            rival=sigma[ties[:, 1]],
            density=1.0,
            density_slope=mean / variance,
            power=np.sum(z**2, 1),
            power_slope=2 * np.sum(z * slope, 1),
        )
        total[one.k] += np.sum(rate * below)
    return total * float(densities.sum()) / n


def _edges(leads: list[_Leads], sigma: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    K = len(sigma)
    total = np.zeros(K)
    first, second = np.triu_indices(K - 1, 1)
    if not len(first):
        return total
    densities, laws = [], []
    for one in leads:
        rivals = np.delete(np.arange(K), one.k)
        own, j, m = np.full(len(first), one.k), rivals[first], rivals[second]
        (mean_j, var_j, _), (mean_l, var_l, _) = one.tie(own, j), one.tie(own, m)
        cross = one.gram[one.k, one.k] - one.gram[one.k, j] - one.gram[one.k, m] + one.gram[j, m]
        determinant = var_j * var_l - cross**2
        regular = determinant > 1e-12 * var_j * var_l
        safe = np.where(regular, determinant, 1.0)
        exponent = (var_l * mean_j**2 - 2 * cross * mean_j * mean_l + var_j * mean_l**2) / safe
        densities.append(one.prior * np.where(regular, np.exp(-0.5 * exponent) / (2 * np.pi * np.sqrt(safe)), 0.0))
        laws.append((j, m, cross / var_j, cross / var_l))
    weights = np.array(densities)
    if not weights.any():
        return total
    chosen = np.unravel_index(_draw(rng, weights, n), weights.shape)
    for one, (j, m, kappa_j, kappa_l) in zip(leads, laws, strict=True):
        edge = chosen[1][chosen[0] == one.k]
        if not len(edge):
            continue
        z, below, _ = one.features(rng, np.stack([np.full(len(edge), one.k), j[edge], m[edge]], 1))
        for rival, kappa in ((j[edge], kappa_j[edge]), (m[edge], kappa_l[edge])):
            rate = evaluate("edge_rate")(
                own=sigma[one.k], rival=sigma[rival], pair_density=1.0, kappa=kappa, power=np.sum(z**2, 1)
            )
            total[one.k] += np.sum(rate * below)
    return total * float(weights.sum()) / n


def _flips(leads: list[_Leads], sigma: np.ndarray, n: int, rng: np.random.Generator) -> float:
    first, second = np.triu_indices(len(sigma), 1)
    weights, total = np.array([one.prior * one.tie(first, second)[2] for one in leads]), 0.0
    if not weights.any():
        return total
    chosen = np.unravel_index(_draw(rng, weights, n), weights.shape)
    for one in leads:
        pair = chosen[1][chosen[0] == one.k]
        if not len(pair):
            continue
        i, j = first[pair], second[pair]
        z, below, _ = one.features(rng, np.stack([i, j], 1))
        norm, variance = np.linalg.norm(z, axis=1), (sigma[i] ** 2 + sigma[j] ** 2) / 2
        # uniform entries have the excess kurtosis -6/5
        l4 = -1.2 * (sigma[i] ** 4 + sigma[j] ** 4) / (2 * variance) ** 2 * np.sum(z**4, 1) / norm**4
        rate = evaluate("flip_law")(v=variance, density_2=2.0, boundary_norm=norm, l4=l4)
        total += float(np.sum(rate * below))
    return total * float(weights.sum()) / n


def risk_bracket(problem: Problem, weights: np.ndarray) -> tuple[float, float]:
    """Certified bounds of the risk of a known head (K, d): Bonferroni's inequality and the union bound, by class clipped to
    what the likeliest rival alone says and to 1. Beyond MOST classes the likeliest rival alone bounds from below.

    Kind: bound (both sides). Assumes features Gaussian given the class.
    """
    low = high = 0.0
    images = gram = np.zeros(0)
    for k, root in enumerate(roots(problem)):
        if k == 0 or not problem.shared:
            images = weights @ root
            gram = images @ images.T
        others = np.delete(np.arange(problem.classes), k)
        mean = (weights[others] - weights[k]) @ problem.means[k] + problem.bias[others] - problem.bias[k]
        both = gram[k, k] + np.diag(gram)[others]
        sd = np.sqrt(np.maximum(both - 2 * gram[k, others], 0))
        close = sd**2 < CLOSE * both  # cancels
        sd[close] = np.linalg.norm(images[others[close]] - images[k], axis=1)
        fixed = np.where((mean > 0) | ((mean == 0) & (others < k)), np.inf, -np.inf)
        u = np.where(sd > 0, mean / np.where(sd > 0, sd, 1.0), fixed)
        single, below = ndtr(u), 0.0
        if problem.classes <= MOST:
            unit = (images[others] - images[k]) / np.maximum(sd, 1e-300)[:, None]
            correlation = np.clip(unit @ unit.T, -1, 1)
            i, j = np.triu_indices(len(others), 1)
            both = bivariate(u[i], u[j], correlation[i, j])
            below = float(evaluate("bonferroni")(singles=single.sum(), pairs=both.sum()))
        union = float(evaluate("union_bound")(singles=single.sum()))
        low += problem.priors[k] * max(below, float(single.max()))
        high += problem.priors[k] * min(union, 1.0)
    return float(low), float(high)


def bivariate(h: np.ndarray, k: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """P(x < h, y < k) of standard normals of correlation rho, by Owen's T function."""
    rest = np.sqrt(np.maximum(1 - rho**2, 0))
    finite = np.isfinite(h) & np.isfinite(k)
    regular = finite & (rest > 1e-8)
    h0, k0, r0, s0 = (np.where(regular, x, y) for x, y in ((h, 1.0), (k, 1.0), (rho, 0.0), (rest, 1.0)))
    h0, k0 = (np.where(x == 0, 1e-300, x) for x in (h0, k0))
    inside = 0.5 * (ndtr(h0) + ndtr(k0) - (h0 * k0 < 0))
    inside = inside - owens_t(h0, (k0 - r0 * h0) / (h0 * s0)) - owens_t(k0, (h0 - r0 * k0) / (k0 * s0))
    parallel = np.where(rho > 0, np.minimum(ndtr(h), ndtr(k)), np.maximum(ndtr(h) + ndtr(k) - 1, 0))
    return np.where(regular, np.maximum(inside, 0), np.where(finite, parallel, ndtr(h) * ndtr(k)))
