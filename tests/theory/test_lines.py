"""Lines: decisions along them against a dense grid; known and random layers against counting; shared points; equal rows; small
steps."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from simulate import run
from simulate.sampling.paired_counting import brute_force
from tests.support.cases import known
from tests.support.problems import random_problem
from theory import small_steps
from theory.budget import Budget
from theory.integrals import contrasts, line_averages, lines
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.schemes import compress


def on_a_grid(start, slope, own):
    """(4, H - 1, n): the same probabilities by deciding at 40,001 equidistant points of each line; argmax takes the lowest."""
    tau = np.linspace(-9, 9, 40_001)
    weight = norm.pdf(tau) * (tau[1] - tau[0])
    decided = np.argmax(start[..., None] + slope[..., None] * tau, 1)  # (H, n, tau)
    right = decided == own
    events = np.stack(
        np.broadcast_arrays(right[:1], right[:1] & ~right[1:], ~right[:1] & right[1:], decided[:1] != decided[1:])
    )
    return events @ weight


def test_decisions_along_lines_are_those_of_a_dense_grid(seed):
    rng = np.random.default_rng(seed)
    start, slope = rng.normal(0, 1.5, (3, 6, 40)), rng.normal(0, 1, (3, 6, 40))
    start[1:], slope[1:] = start[:1] + 0.2 * start[1:], slope[:1] + 0.2 * slope[1:]
    slope[:, 3, :10] = slope[:, 1, :10]  # parallel
    start[:, 4, :20], slope[:, 4, :20] = start[:, 2, :20], slope[:, 2, :20]  # two equal rows
    slope[:, :, 39] = 0  # nothing moves
    for own in (0, 2, 4):
        want = on_a_grid(start, slope, own)
        right = lines.correctness(jnp.asarray(start), jnp.asarray(slope), jnp.asarray(own))
        flipped = lines.flips(jnp.asarray(start), jnp.asarray(slope))
        np.testing.assert_allclose(np.concatenate([right, flipped[None]]), want, atol=2e-3)
        np.testing.assert_allclose(np.concatenate([right, flipped[None]]).mean(-1), want.mean(-1), atol=1e-4)


def test_shared_points_and_fewer_flips_change_no_mean(seed):
    """Points shared by three classes, one line in four followed for the flips: the same averages within their errors."""
    problem = random_problem(12, seed + 4, K=7, shared=True)
    heads = np.stack([problem.weights, compress(problem.weights, "symmetric", 3).weights])
    law = lines.law(heads, problem.bias, problem.means, contrasts.root(problem.covariances))
    alone, shared = (
        lines.class_change(
            [lambda: law], n=512, seeds=[(seed, r + 16 * together) for r in range(16)], together=together, walked=walked
        )
        for together, walked in ((1, 512), (3, 128))
    )
    for one, other in zip(alone, shared, strict=True):  # right, made, mended, flipped: (16, 1, 7)
        values = [x[:, 0] @ problem.priors for x in (one, other)]
        noise = np.sqrt(sum(x.var(ddof=1) / 16 for x in values))
        assert abs(values[0].mean() - values[1].mean()) < 5 * noise
        assert noise < 0.02 * values[0].mean()


@pytest.mark.parametrize("shared", [True, False])
def test_random_layers_along_lines_against_networks_drawn(shared, seed):
    """Blocks that do not divide the networks, flips of a part of them: class by class against brute force."""
    problem = random_problem(5, seed + 6, K=4, shared=shared)
    errors = independent_errors(compress(problem.weights, "symmetric", 3, per_channel=True).steps)
    factors = [contrasts.root(problem.covariances)] if shared else contrasts.roots(problem)
    heads = lines.heads_of(problem.weights, problem.bias, problem.means, factors)
    how: dict = dict(networks=1000, walked=500, block=12 * 300)
    sets = np.array([lines.random_change(heads, errors, seed=(seed, r), **how) @ problem.priors for r in range(16)])
    rng, seen = np.random.default_rng(seed), []
    for i in range(300):
        E = errors.of(rng.random(problem.weights.shape) - 0.5)
        pair = brute_force(problem, [problem.weights + E, problem.weights - E], n=4000, seed=1000 * seed + i)
        seen.append(np.mean(pair, 0)[[0, 2, 3]])
    seen = np.array(seen) * np.array([-1, 1, 1]) + np.array([1, 0, 0])
    said = np.stack([sets[:, 0], sets[:, 1] - sets[:, 2], sets[:, 3]], 1)
    noise = np.sqrt(seen.var(0, ddof=1) / len(seen) + said.var(0, ddof=1) / len(said))
    assert np.all(np.abs(seen.mean(0) - said.mean(0)) < 4.5 * noise), (seen.mean(0), said.mean(0), noise)
    assert np.all(noise[1:] < 0.03 * said.mean(0)[1:])


def test_random_layers_in_groups_of_classes(seed):
    """Seven classes in groups of three, the last padded, against one at a time."""
    problem = random_problem(9, seed + 2, K=7, shared=True)
    errors = independent_errors(compress(problem.weights, "symmetric", 3, per_channel=True).steps)
    heads = lines.heads_of(problem.weights, problem.bias, problem.means, [contrasts.root(problem.covariances)])

    def sets(few_lines):
        how: dict = dict(networks=600, walked=600, few_lines=few_lines)
        return np.array([lines.random_change(heads, errors, seed=(seed, r), **how) for r in range(16)])

    grouped, alone = sets(3 * 600), sets(1)
    noise = np.sqrt((grouped.var(0, ddof=1) + alone.var(0, ddof=1)) / 16)  # (4, K)
    assert np.all(np.abs(grouped.mean(0) - alone.mean(0)) < 5.5 * noise + 1e-12)
    assert np.all(noise[0] < 0.03)
    assert np.ptp(alone.mean(0)[3]) > 0.02  # classes that could be exchanged would be seen


@pytest.mark.slow
def test_two_random_classes_have_the_spread_of_networks_not_of_lines(seed):
    """More classes than features: few lines and many give the same spread, that of networks counted."""
    problem = random_problem(3, seed + 1, K=5)
    errors = independent_errors(compress(problem.weights, "symmetric", 3).steps)
    budgets = [Budget(line_work=work) for work in (4e5, 1.6e6)]
    spread = [line_averages.networks_on_lines(problem, errors, seed=seed, budget=one).std() for one in budgets]
    question: dict = dict(scheme="symmetric", bits=[3], errors="expected", seed=seed)
    (counted,) = run(problem, n=1024 * 4096 * 5, networks=1024, **question)
    np.testing.assert_allclose(spread, counted.interval_sources["network"], rtol=0.25)


@in_float64
def test_a_row_common_to_all_classes_changes_nothing(seed):
    problem, shift = random_problem(5, seed + 3, K=4), 1e5 * np.ones((1, 5))
    What = compress(problem.weights, "symmetric", 3).weights
    (plain,), (moved,) = (
        known(replace(problem, weights=problem.weights + x), (What + x)[None], method="lines", seed=seed)
        for x in (0 * shift, shift)
    )
    np.testing.assert_allclose(moved.distortion, plain.distortion, atol=1e-6)
    np.testing.assert_allclose(moved.flips, plain.flips, atol=1e-6)


@pytest.mark.slow
def test_classes_too_far_apart_for_any_density():
    """Every boundary beyond the reach of a double: no distortion, by every method."""
    problem = Problem(
        weights=np.array([[0.0], [1.0], [2.0]]),
        bias=np.array([0.0, -500.0, -2000.0]),
        priors=np.full(3, 1 / 3),
        means=np.array([[0.0], [1000.0], [2000.0]]),
        covariances=np.eye(1),
    )
    (record,) = predict(problem, scheme="symmetric", bits=[8], errors="expected", method="line_average")
    assert record.distortion == pytest.approx(0, abs=1e-12)
    assert small_steps.small_steps(problem, np.full(3, 0.01)).distortion.value == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer", ["two rows", *(pytest.param(layer, marks=pytest.mark.slow) for layer in ("all rows", "zero"))]
)
def test_equal_rows_before_and_after(layer, seed):
    """The lower class wins the tie, in the clean layer too; random errors break it."""
    problem = random_problem(70, seed + 8, K=7)
    weights, bias = problem.weights.copy(), problem.bias.copy()
    if layer == "two rows":
        weights[4], bias[4] = weights[2], bias[2]
    elif layer == "all rows":
        weights[:], bias[:] = weights[2], 0.0
    else:
        weights[:] = 0.0
    tied = replace(problem, weights=weights, bias=bias)
    question: dict = dict(scheme="symmetric", bits=[3], seed=seed)
    (actual,), (expected,) = (predict(tied, errors=errors, **question) for errors in ("actual", "expected"))
    assert (actual.method, expected.method) == ("lines", "line_average")
    What = compress(weights, "symmetric", 3).weights
    ((before, _, distortion, flips),) = brute_force(tied, [What], n=200_000, seed=seed)
    noise = np.sqrt((flips + 1e-5) / 200_000)
    for one in (actual, expected):
        assert one.risk_before == pytest.approx(before, abs=5e-3)
        assert one.per_class[4]["recall_before"] == pytest.approx(0, abs=1e-9) or layer == "zero"
    assert abs(actual.distortion - distortion) < 4.5 * np.hypot(noise, actual.numerical_error / 2) + 1e-9
    assert abs(actual.flip_rate - flips) < 4.5 * np.hypot(noise, actual.flip_rate_error / 2) + 1e-9
    (counted,) = run(tied, n=2_000_000, errors="expected", **question)
    for said, error, seen, se in (
        (expected.distortion, expected.numerical_error, counted.distortion, counted.standard_error),
        (expected.flip_rate, expected.flip_rate_error, counted.flip_rate, counted.flip_rate_standard_error),
    ):
        assert abs(said - seen) < 4.5 * np.hypot(se or 0.0, error / 2) + 1e-9
