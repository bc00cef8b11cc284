"""The interval: it holds the networks it promises, and each of its sources is the size it says."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from simulate.experiments.averaging import distortions
from simulate.experiments.coverage import coverage
from simulate.feature_models.gaussian import problem as moments
from simulate.sampling.paired_counting import factor
from tests.support.problems import exact_risk, random_problem
from theory.budget import Budget
from theory.integrals import network_draws
from theory.integrals.network_draws import MarginErrors
from theory.integrals.two_classes import pair_of
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import Problem, decide
from theory.setting.schemes import compress


def test_coverage_of_simulated_networks(seed):
    """The documented study, on fewer cells; 93.5 to 96.5 % and balanced tails, plus the noise of 20,000 networks."""
    for row in coverage(features=(8, 64), bits=(2, 4, 8), seed=seed):
        noise = 4 * np.sqrt(0.05 * 0.95 / row["networks"])
        assert 0.935 - noise <= row["inside"] <= 0.965 + noise, row
        assert abs(row["below"] - row["above"]) <= 0.015 + noise, row
        assert row["predicted_sd"] == pytest.approx(row["simulated_sd"], rel=0.05), row


def test_a_normal_interval_would_fail():
    """The negative control: mean +- 1.96 sd misses the skewed law of an optimal layer in few dimensions."""
    problem = random_problem(8, 2, layer="optimal", shared=True)
    steps = compress(problem.weights, "symmetric", 4).steps[:, 0]
    values = distortions(problem, steps[None], networks=20_000, seed=1)[0]
    low, high = values.mean() + np.array([-1.96, 1.96]) * values.std()
    assert abs(np.mean(values < low) - np.mean(values > high)) > 0.015


@pytest.mark.parametrize("networks", [32, 1000])
def test_lattices_need_a_power_of_two(networks):
    with pytest.raises(InputError, match=f"networks: expected a power of two of at least 64, got {networks}"):
        Budget(networks=networks)


def test_both_laws_agree_where_both_hold():
    problem = random_problem(200, 3)
    record = predict(problem, scheme="symmetric", bits=[3], errors="expected")[0]
    assert record.provenance["interval_law"] == "reduced law"
    drawn = Budget(largest_excess=-1.0)
    other = predict(problem, scheme="symmetric", bits=[3], errors="expected", budget=drawn)[0]
    assert other.provenance["interval_law"] == "error draws"
    np.testing.assert_allclose(record.interval, other.interval, rtol=0.03)


def test_the_reduced_law_has_the_variance_of_the_quadratic_form():
    """Var(e'Sigma e) = 2 v^2 tr Sigma^2 + k4 v^2 sum Sigma_ii^2 where conditioning carries much of it."""
    problem = random_problem(12, 7)
    steps = MarginErrors(np.array([[0.3], [0.3]]))
    v, k4, _ = steps.moments()
    pair = pair_of(problem)
    directions = np.concatenate([pair.means, np.einsum("kij,j->ki", pair.covariances, pair.w)])
    r = np.asarray(network_draws._reduced(pair, steps, directions, 2**14, np.random.default_rng(0)).r)
    for k in (0, 1):
        S = problem.covariance(k)
        assert r[:, k].mean() == pytest.approx(v * np.trace(S), rel=0.01)
        gaussian = 2 * v**2 * np.sum(S * S)
        # the k4 of the part along the four directions is left out by the law: between the two values
        low, high = gaussian + k4 * v**2 * np.sum(np.diag(S) ** 2), gaussian
        assert 0.97 * low <= r[:, k].var() <= 1.03 * high


def test_the_test_set_source_is_the_paired_sampling_noise():
    (record,) = predict(random_problem(9, 4), scheme="symmetric", bits=[3], test_size=400)
    noise = np.sqrt((record.flip_rate - record.distortion**2) / 400)
    assert record.interval_sources["test_set"] == pytest.approx(noise, rel=1e-12)


def _sample(problem, n, rng):
    y = rng.choice(2, n, p=problem.priors)
    z = rng.standard_normal((n, problem.features))
    for k in (0, 1):
        z[y == k] = problem.means[k] + z[y == k] @ factor(problem.covariance(k)).T
    return Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)


@pytest.mark.parametrize("errors", ["actual", pytest.param("expected", marks=pytest.mark.slow)])
def test_interval_of_a_measured_test_set(errors, seed):
    """Fit on 1,500 samples, measure on 700: statistics and test set both count, and the promise is kept."""
    problem = random_problem(6, seed + 21)
    rng = np.random.default_rng(seed)
    inside, trials = 0, 300 if errors == "actual" else 120
    What = compress(problem.weights, "symmetric", 3).weights
    for _ in range(trials):
        fitted = moments(_sample(problem, 1500, rng))
        (record,) = predict(fitted, scheme="symmetric", bits=[3], errors=errors, test_size=700)
        test = _sample(problem, 700, rng)
        if errors == "expected":
            What = problem.weights + (rng.random(problem.weights.shape) - 0.5) * compress(problem.weights, "symmetric", 3).steps
        before = decide(test.features @ problem.weights.T + problem.bias)
        after = decide(test.features @ What.T + problem.bias)
        seen = (int(np.sum(after != test.labels)) - int(np.sum(before != test.labels))) / 700
        inside += record.interval[0] <= seen <= record.interval[1]
    low, high = binom.interval(1 - 1e-3, trials, 0.955)
    assert low <= inside <= high + 6, inside


def test_rare_flips_are_counts_not_normal():
    """When a flip is expected in one test set of three, one sample off zero must be inside a 95 % interval."""
    problem = random_problem(20, 6)
    for bits in range(6, 13):
        (record,) = predict(problem, scheme="symmetric", bits=[bits], test_size=200)
        if 0.05 < 200 * record.flip_rate < 0.3:
            assert record.interval[0] <= 0 <= record.interval[1]
            assert record.interval[1] - record.interval[0] >= 1 / 200
            return
    pytest.fail("no width with rare flips")


def test_statistics_source_is_the_sampling_spread_of_the_prediction(seed):
    """Refit many times: the standard deviation of the predicted distortion is what one prediction says. Unequal priors."""
    problem = replace(random_problem(5, seed + 31), priors=np.array([0.15, 0.85]))
    rng = np.random.default_rng(seed)
    fits = [moments(_sample(problem, 800, rng)) for _ in range(400)]
    values = [predict(one, scheme="symmetric", bits=[3])[0].distortion for one in fits]
    said = np.mean([predict(one, scheme="symmetric", bits=[3])[0].interval_sources["statistics"] for one in fits[:40]])
    assert np.std(values) == pytest.approx(said, rel=0.15)
    What = compress(problem.weights, "symmetric", 3).weights
    true = exact_risk(problem, What) - exact_risk(problem)
    assert abs(np.mean(values) - true) < 4 * np.std(values) / np.sqrt(len(values)) + 2 * said**2 / abs(true)


def test_statistics_source_knows_that_the_priors_were_counted(seed):
    """Both rows round to the same one: every decision becomes class 0, and D is risk against prior. Priors rule it."""
    rng = np.random.default_rng(seed)
    problem = Problem(
        weights=np.array([[0.9, 0.1], [0.8, 0.2]]),
        bias=np.zeros(2),
        priors=np.array([0.6, 0.4]),
        means=np.array([[3.0, 0], [0, 3.0]]),
        covariances=np.eye(2),
    )
    fits = [moments(_sample(problem, 500, rng)) for _ in range(400)]
    records = [predict(one, scheme="symmetric", bits=[2])[0] for one in fits]
    said = np.mean([record.interval_sources["statistics"] for record in records])
    assert np.std([record.distortion for record in records]) == pytest.approx(said, rel=0.15)
    assert said == pytest.approx(np.sqrt(0.6 * 0.4 / 500), rel=0.1)  # R(W) is 1.7 %: nearly the prior's own deviation


def test_known_statistics_leave_nothing_to_doubt():
    problem = random_problem(5, 1)
    (record,) = predict(problem, scheme="symmetric", bits=[3])
    assert record.interval == (record.distortion, record.distortion)
    assert set(record.interval_sources.values()) == {0.0}
    counted = replace(problem, counts=np.array([400, 600]))
    (record,) = predict(counted, scheme="symmetric", bits=[3])
    half = norm.isf(0.025) * record.interval_sources["statistics"]
    np.testing.assert_allclose(record.interval, (record.distortion - half, record.distortion + half), rtol=1e-12)
    (narrow,) = predict(counted, scheme="symmetric", bits=[3], confidence=0.5)
    assert narrow.interval[1] < record.interval[1]


def test_variance_formula_is_stable_when_nothing_changes():
    problem = replace(random_problem(5, 1), counts=np.array([50, 50]))
    (record,) = predict(problem, scheme="symmetric", bits=[16])
    assert 0 < record.interval_sources["statistics"] < 1e-5
