"""Small steps: the constants of the two laws against simulation; bounds of the risk that hold."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from simulate import run
from simulate.sampling.ghk import average_sequences
from tests.support.problems import exact_risk, random_problem
from theory.prediction import predict
from theory.setting.schemes import compress
from theory.small_steps import bivariate, risk_bracket, small_steps

DRAWS = 2**19


@pytest.fixture(scope="module")
def case(request):
    """Five classes, very unequal rows of about 9 bits: a problem where a third of the law comes from edges."""
    seed = request.config.getoption("--seed")
    problem = random_problem(6, 20, K=5)
    steps = compress(problem.weights, "symmetric", 9, per_channel=True).steps[:, 0] * np.array([2, 0.2, 2, 0.2, 2])
    mean, se = average_sequences(problem, steps[None], seed=seed, first=0, last=2000, points=4).distortion(problem.priors)
    return problem, steps, small_steps(problem, steps, draws=DRAWS, seed=seed), mean[0], se[0]


def test_distortion_grows_like_the_square_of_the_step(case):
    _, _, laws, mean, se = case
    assert se < 0.006 * mean
    assert abs(laws.distortion.value - mean) < 4 * np.hypot(se, laws.distortion.error / 2)


def test_the_edges_count(case):
    """Without them, or with twice them, the law is refused."""
    _, _, laws, mean, se = case
    noise = np.hypot(se, laws.distortion.error / 2)
    assert abs(laws.edges.value) > 4 * noise
    for wrong in (laws.distortion.value - laws.edges.value, laws.distortion.value + laws.edges.value):
        assert abs(wrong - mean) > 4 * noise


def test_flips_grow_like_the_step(case, seed):
    problem, _, _, _, _ = case
    steps = compress(problem.weights, "symmetric", 8, per_channel=True).steps[:, 0]
    law = small_steps(problem, steps, draws=DRAWS, seed=seed).flips
    question: dict = dict(scheme="symmetric", bits=[8], per_channel=True, errors="expected", seed=seed)
    (counted,) = run(problem, n=20_000_000, **question)
    noise = np.hypot(counted.flip_rate_standard_error or 0.0, law.error / 2)
    assert noise < 0.01 * counted.flip_rate
    assert abs(law.value - counted.flip_rate) < 4 * noise
    one, half = (small_steps(problem, s, seed=seed) for s in (steps, steps / 2))
    assert half.flips.value == pytest.approx(one.flips.value / 2, rel=1e-9)
    assert half.distortion.value == pytest.approx(one.distortion.value / 4, rel=1e-9)


@pytest.mark.slow
def test_the_bracket_holds_the_risk(seed):
    """Up to ten classes, compressed layers; for two classes both ends are the risk."""
    for K, d in ((2, 5), (4, 6), (10, 24)):
        problem = random_problem(d, seed + K, K=K)
        (record,) = predict(problem, scheme="symmetric", bits=[3], seed=seed)
        low, high = risk_bracket(problem, compress(problem.weights, "symmetric", 3).weights)
        slack = 1e-9 if K == 2 else 2e-4
        assert low - slack <= record.risk_after <= high + slack, K
        if K == 2:
            assert high - low < 1e-12
        else:
            assert record.provenance["risk_after_between"] == [low, high]
            assert high - low > 1e-4


def test_the_bracket_at_its_ends():
    """Rows all equal: the lowest class is decided. A class of risk near 1 among ten: the union bound is cut at 1. Rows that
    differ by 1e-5: the exact risk, for two classes."""
    problem = random_problem(12, 3, K=10)
    equal = np.tile(problem.weights[3], (10, 1))
    same = replace(problem, bias=np.zeros(10))
    np.testing.assert_allclose(risk_bracket(same, equal), 1 - problem.priors[0], atol=1e-12)
    lost = replace(problem, bias=problem.bias - 1e3 * np.eye(10)[4])
    assert risk_bracket(lost, problem.weights)[1] <= risk_bracket(problem, problem.weights)[1] + problem.priors[4] + 1e-9
    two = random_problem(6, 4)
    near = two.weights[:1] + 1e-5 * np.stack([0 * two.weights[0], two.weights[1]])
    near_problem = replace(two, bias=1e-5 * two.bias)
    np.testing.assert_allclose(risk_bracket(near_problem, near), exact_risk(near_problem, near), rtol=1e-6)


def test_bivariate_normal_probabilities():
    rng = np.random.default_rng(0)
    h, k, rho = rng.normal(0, 2, 60), rng.normal(0, 2, 60), rng.uniform(-0.99, 0.99, 60)
    h[0], k[1] = 0.0, 0.0
    want = [
        multivariate_normal.cdf([a, b], cov=np.array([[1, r], [r, 1]]))  # pyright: ignore[reportArgumentType]
        for a, b, r in zip(h, k, rho, strict=True)
    ]
    np.testing.assert_allclose(bivariate(h, k, rho), want, atol=1e-12)
    edge = bivariate(np.array([0.3, 0.3, np.inf, -np.inf]), np.array([1.0, 1.0, 1.0, 1.0]), np.array([1.0, -1.0, 0.2, 0.2]))
    assert edge == pytest.approx([0.6179114, 0.6179114 + 0.8413447 - 1, 0.8413447, 0.0], abs=1e-6)
