"""Orthant probabilities: known answers, an honest error, layers that are degenerate."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import binom, norm, sem, t

from simulate.generator import synthetic
from theory.budget import Budget
from theory.integrals.contrasts import laws_of, orthant_pairs, orthants
from theory.integrals.logit_noise import decided
from theory.integrals.orthant import cholesky, estimate, moved, order_of, orthant, raw_points
from theory.integrals.points import sobol
from theory.setting.error_law import independent_errors
from theory.setting.precision import in_float64
from theory.setting.schemes import compress


@pytest.mark.parametrize(("m", "n"), [(1, 64), (2, 1024), (9, 1024), (99, 512), pytest.param(999, 64, marks=pytest.mark.slow)])
def test_equicorrelated_one_half_is_one_over_m_plus_one(m, n, seed):
    """m + 1 independent logits: the first is the largest once in m + 1 times. Within 2 reported 95 % errors (p < 1e-3)."""
    found = orthant(np.zeros(m), 0.5 * (np.eye(m) + np.ones((m, m))), n=n, seed=seed)
    assert abs(found.value - 1 / (m + 1)) <= 2 * found.error + 1e-14
    if m <= 99:  # beyond, near-tied contrasts defeat separation of variables: the error says so, and lines take its place
        assert found.error < 0.1 / (m + 1)


@pytest.mark.parametrize(("K", "lead"), [(3, 0.5), (10, 2.0), (100, 3.0)])
def test_independent_logits_with_a_lead(K, lead, seed):
    """Int phi(t) Phi(t + lead)^(K - 1) dt: by orthants within their error, by the one-dimensional method to 1e-8."""
    want = quad(lambda x: norm.pdf(x) * ndtr(x + lead) ** (K - 1), -12, 12, epsabs=1e-13)[0]
    found = orthant(np.full(K - 1, lead), np.eye(K - 1) + np.ones((K - 1, K - 1)), n=512, seed=seed)
    assert abs(found.value - want) <= 2 * found.error
    logits = np.concatenate([[lead], np.zeros(K - 1)])[None]
    line, error = decided(logits, np.ones((1, K)), np.zeros(1, int))
    assert abs(line[0] - want) < 1e-8
    assert error < 1e-4


@pytest.mark.parametrize("sigma", [(1.0, 0.2, 2.0, 0.7), (0.05, 1.0, 1.0, 1.0), (1.0, 0.02, 1.0, 1.0)])
def test_rows_of_unequal_noise(sigma):
    """The chosen class's own noise and each rival's, integrated directly."""
    logits, norm_z, sigma = np.array([[0.4, 0.1, -0.3, 0.2]]), 1.3, np.array(sigma)
    for c in range(4):
        others = [j for j in range(4) if j != c]

        def integrand(t, c=c, others=others):
            own = logits[0, c] + sigma[c] * norm_z * t
            return norm.pdf(t) * np.prod([ndtr((own - logits[0, j]) / (sigma[j] * norm_z)) for j in others])

        want = quad(integrand, -9, 9, epsabs=1e-12, limit=400, points=[0])[0]
        value, error = decided(logits, norm_z * sigma[None], np.array([c]))
        assert value[0] == pytest.approx(want, abs=1e-7)
        assert abs(value[0] - want) <= error + 1e-12


def test_the_error_is_students_interval():
    replicates = np.arange(16.0) ** 1.5
    low, high = t.interval(0.95, 15, replicates.mean(), sem(replicates))
    np.testing.assert_allclose(estimate(replicates), (replicates.mean(), (high - low) / 2))


def test_moved_points_are_uniform_and_apart():
    """A shift moves every coordinate; the moved points fill the cube as evenly as before."""
    points = jnp.asarray(raw_points(3, 4096, np.random.default_rng(0)))
    one, other = (np.asarray(moved(points, jnp.asarray(shift)[None])) for shift in ([0.0, 0.0, 0.0], [0.21, 0.47, 0.83]))
    for x in (one, other):
        np.testing.assert_allclose([x.mean(0), (x**2).mean(0)], [[0.5] * 3, [1 / 3] * 3], atol=1e-3)
    assert np.all(np.abs(one - other).max(0) > 0.3)


def test_the_reported_error_covers_the_truth_in_95_per_cent_of_trials(seed):
    """200 random laws of 3 contrasts; 1/8 + (sum of the arcsines of the correlations)/(4 pi); what 95 % leaves at p = 1e-4."""
    rng, held, trials = np.random.default_rng(seed), 0, 200
    for trial in range(trials):
        A = rng.standard_normal((3, 3))
        covariance = A @ A.T + 0.1 * np.eye(3)
        sd = np.sqrt(np.diag(covariance))
        truth = 0.125 + np.sum(np.arcsin((covariance / np.outer(sd, sd))[np.triu_indices(3, 1)])) / (4 * np.pi)
        found = orthant(np.zeros(3), covariance, n=64, seed=trial)
        held += abs(found.value - truth) <= found.error
    assert held >= binom.ppf(1e-4, trials, 0.95), held


def test_an_understated_error_would_be_seen():
    """Half the error covers some 70 %: the same count refuses it."""
    assert binom.cdf(binom.ppf(1e-4, 200, 0.95), 200, 0.75) > 1 - 1e-3


def test_the_factor_of_a_singular_covariance():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 3))
    L = np.asarray(cholesky(jnp.asarray(A @ A.T)))
    np.testing.assert_allclose(L @ L.T, A @ A.T, atol=1e-12)
    assert np.all(L[:, 3:] == 0)
    full = rng.standard_normal((4, 5, 5))
    full = full @ full.transpose(0, 2, 1)
    np.testing.assert_allclose(np.asarray(cholesky(jnp.asarray(full))), np.linalg.cholesky(full), atol=1e-12)


def test_the_least_likely_condition_comes_first():
    order = order_of(np.array([[3.0, -1.0, 0.5]]), np.eye(3)[None])
    assert order.tolist() == [[1, 2, 0]]


@pytest.mark.slow
@in_float64
def test_the_noise_of_points_is_that_of_single_networks(seed):
    """Twenty classes, where it is a seventh of the variance over networks: what the distortions of the first networks miss of
    those at many points."""
    problem = synthetic(classes=20, features=24, separation=3.0, layer="perturbed", seed=seed + 1)
    errors = independent_errors(compress(problem.weights, "symmetric", 4).steps)
    recalls, _, noise = orthant_pairs(problem, errors, seed=seed, budget=Budget(average_precision=1.0, pair_work=1e6))
    pairs, missed = recalls.shape[1], []
    for r, some in enumerate(recalls[:8]):
        uniforms = sobol(20 * 24, rng=np.random.default_rng([seed, 6, r])).random(pairs).reshape(pairs, 20, 24)
        E = errors.of(uniforms - 0.5)
        known = orthants(laws_of(problem, problem.weights + np.concatenate([E, -E])), n=2**7, seed=seed).mean(0)
        exact = (known[:1] - known[1:]) @ problem.priors
        drawn = (some[:, :1] - some[:, 1:]) @ problem.priors
        missed += list(drawn.T.reshape(-1) - exact)
    assert 0.7 < np.mean(np.square(missed)) / noise < 1.4
