"""More classes than features: the law of the noise, the posterior, the points and what follows from them, each against another
way; the simulation near the boundary against conditional sampling."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import irwinhall, multivariate_normal, qmc

from derivations import RESULTS
from derivations.jax_code import compile_result
from simulate import run
from simulate.generator import synthetic
from simulate.sampling.importance_sampling import Boundary, average_boundary
from tests.support.problems import random_problem
from tests.support.statistical import rejected
from theory.budget import Budget
from theory.integrals import line_averages, near_boundary
from theory.integrals.orthant import estimate
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.precision import in_float64
from theory.setting.schemes import compress

QUESTION: dict = dict(scheme="symmetric", errors="expected")


@in_float64
def test_law_of_a_noisy_logit_is_that_of_sums_of_uniform_numbers():
    """Twelve equal features: the law of Irwin and Hall, of variance 1."""
    x = np.linspace(-6.4, 6.4, 301)
    coefficients = near_boundary.characteristic(jnp.ones((1, 12)), near_boundary.ORDERS)
    reach = near_boundary.support(jnp.ones((1, 12))).astype(jnp.float32)
    assert reach[0] == pytest.approx(6)  # twelve halves
    below, density = near_boundary.noise_law(jnp.asarray(x[:, None], jnp.float32), coefficients.astype(jnp.float32), reach)
    outside = np.abs(x) > 6
    np.testing.assert_array_equal(np.asarray(below)[outside, 0], (x > 0)[outside])
    assert not np.asarray(density)[outside].any()
    np.testing.assert_allclose(np.asarray(below)[:, 0], irwinhall.cdf(x + 6, 12), atol=3e-6)
    np.testing.assert_allclose(np.asarray(density)[:, 0], irwinhall.pdf(x + 6, 12), atol=3e-6)
    assert np.abs(np.asarray(below)[:, 0] - multivariate_normal.cdf(x[:, None])).max() > 1e-3  # it is not the normal one


@in_float64
def test_series_of_the_noise_is_the_derived_one(seed):
    z, x = np.random.default_rng(seed).standard_normal(7), np.linspace(-6, 6, 101)
    coefficients = np.asarray(near_boundary.characteristic(jnp.asarray(z[None]), 20))[:, 0]
    orders = np.arange(1, 21)[:, None]
    term = compile_result(RESULTS["noisy_logit"], backend="numpy")
    below, density = term(x=x[None], half=near_boundary.HALF, cf=coefficients[:, None], order=orders)
    reach = (jnp.full(1, 6.1, jnp.float32),)
    series = 0.5 + x / (2 * near_boundary.HALF) + below.sum(0), 0.5 / near_boundary.HALF + density.sum(0)
    got = near_boundary.noise_law(jnp.asarray(x[:, None], jnp.float32), jnp.asarray(coefficients[:, None], jnp.float32), *reach)
    for one, want in zip(got, series, strict=True):
        np.testing.assert_allclose(np.asarray(one)[:, 0], want, atol=5e-6)


@in_float64
def test_the_largest_noisy_logit_against_layers_drawn(seed):
    """Rows of unequal steps, near ties: each class as often as in 400,000 layers; with normal noise not."""
    rng = np.random.default_rng(seed)
    K, d, n = 7, 8, 400_000
    z, steps = rng.standard_normal(d) * np.array([2.0, *[0.5] * 7]), rng.uniform(0.4, 1.5, K)
    sigma = steps / np.sqrt(12)
    logits = -np.linalg.norm(z) * 0.5 * np.sort(rng.random(K))
    drawn = np.argmax(logits + ((rng.random((n, K, d), np.float32) - 0.5) @ z.astype(np.float32)) * steps, 1)
    seen = np.bincount(drawn, minlength=K) / n

    def said(coefficients):
        rows = jnp.asarray(logits[None]), jnp.asarray([np.linalg.norm(z)]), jnp.asarray(sigma[None])
        return np.asarray(
            near_boundary.decided(*rows, coefficients, near_boundary.support(jnp.asarray(z[None])), nodes=121)[0]
        )[0]

    exact = near_boundary.characteristic(jnp.asarray(z[None]), 2 * near_boundary.ORDERS)
    normal = jnp.exp(-0.5 * (np.pi / near_boundary.HALF * jnp.arange(1.0, 29.0)) ** 2)[:, None]
    noise = np.sqrt(seen * (1 - seen) / n)
    assert rejected((said(exact) - seen) / noise) == 0
    assert rejected((said(normal) - seen) / noise) > 0


@pytest.mark.parametrize("shared", [True, False])
@in_float64
def test_posterior_is_bayes_rule(shared, seed):
    problem = random_problem(6, seed, K=5, shared=shared)
    z = np.random.default_rng(seed).standard_normal((20, 6)) * 2
    laws = [multivariate_normal(mean, np.array(problem.covariance(k))) for k, mean in enumerate(problem.means)]  # pyright: ignore
    densities = np.stack([law.pdf(z) for law in laws], 1)
    want = densities * problem.priors / (densities @ problem.priors)[:, None]
    got = near_boundary.posterior(jnp.asarray(z), near_boundary.setting_of(problem))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [pytest.param(True, marks=pytest.mark.slow), False])
@in_float64
def test_weighted_points_have_the_law_of_the_features(shared, seed):
    """Weights add up to 1; moments that see every coordinate, and the share of each label."""
    problem = random_problem(6, seed, K=9, shared=shared)
    s, sigma = (
        near_boundary.setting_of(problem),
        jnp.asarray(compress(problem.weights, "symmetric", 3).steps[:, 0] / np.sqrt(12)),
    )
    seen = []
    for r in range(16):
        u = qmc.Sobol(10, rng=np.random.default_rng([seed, r])).random(2048)
        at = near_boundary.points(jnp.asarray(u), s, sigma)
        z, w = np.asarray(at.z), np.asarray(at.weights)[:, None]
        seen.append(np.concatenate([w.mean(0), (w * z).mean(0), (w * z**2).mean(0), (w * np.asarray(at.posterior)).mean(0)]))
    seen = np.array(seen)
    means = problem.priors @ problem.means
    variances = np.stack([np.diag(problem.covariance(k)) for k in range(9)])
    want = np.concatenate([[1.0], means, problem.priors @ (problem.means**2 + variances), problem.priors])
    noise = seen.std(0, ddof=1) / 4
    assert rejected((seen.mean(0) - want) / noise * 0.8) == 0  # 16 sets: Student's tails
    assert noise[0] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["optimal", "perturbed"])
def test_posteriors_equal_orthants_where_both_are(layer, seed):
    """K = 6, d = 9, a step a row: distortion, flips, recalls; within errors that are small."""
    budget = Budget(boundary_work=3e9)
    problem = random_problem(9, seed, K=6, layer=layer, shared=layer == "optimal")
    for width in (2, 4):
        one, other = (
            predict(problem, bits=[width], per_channel=True, method=method, seed=seed, budget=budget, **QUESTION)[0]
            for method in ("orthant_average", "posterior_average")
        )
        error = np.hypot(one.numerical_error, other.numerical_error)
        assert abs(one.distortion - other.distortion) < 2 * error
        assert error < 0.02 * one.distortion
        flips_errors = [x.flip_rate_error for x in (one, other)]
        assert abs(one.flip_rate - other.flip_rate) < 2 * np.hypot(flips_errors[0], flips_errors[1])
        assert other.risk_before == pytest.approx(one.risk_before, abs=2e-3)
        for a, b in zip(one.per_class, other.per_class, strict=True):
            assert a["recall_after"] == pytest.approx(b["recall_after"], abs=0.01)
        spreads = [x.interval_sources["network"] for x in (one, other)]
        assert spreads[1] == pytest.approx(spreads[0], rel=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_more_classes_than_features_against_simulation(shared, seed):
    """K = 12, d = 6: distortion and flips at 2 to 6 bits against 200 million decisions counted on random networks, known to 1 %
    and better, to which the importance sampling agrees; refused with noise of a tenth more, and with the labels of the next
    class."""
    budget = Budget(boundary_work=1e9)
    problem, bits = random_problem(6, seed + 5, K=12, shared=shared), (2, 4, 6)
    steps = np.stack([compress(problem.weights, "symmetric", b).steps[:, 0] for b in bits])
    counted = run(problem, bits=bits, n=200_000_000, seed=seed, **QUESTION)
    seen = np.array([[one.distortion, one.flip_rate] for one in counted])
    noise = np.array([[one.standard_error, one.flip_rate_standard_error] for one in counted], float)
    assert np.all(noise < 0.01 * np.abs(seen))
    value, error = average_boundary(problem, steps[1:], seed=seed, first=0, last=1500).estimates()
    assert rejected((value - seen[1:]) / np.hypot(error, noise[1:])) == 0

    def scores(problem, scale=1.0):
        z = []
        for i, step in enumerate(steps):
            sums = near_boundary.averages(problem, scale * step, seed=seed, budget=budget)
            for j, x in enumerate((sums.loss, sums.flips)):
                said = estimate(x.sum(1))
                z.append((said.value - seen[i, j]) / np.hypot(noise[i, j], said.error / 2))
        return np.array(z)

    right = in_float64(scores)(problem)
    assert rejected(right) == 0, right
    assert rejected(in_float64(scores)(problem, 1.1)) > 0
    wrong = replace(problem, weights=np.roll(problem.weights, 1, 0), bias=np.roll(problem.bias, 1))
    assert rejected(in_float64(scores)(wrong)) > 0


@pytest.mark.slow
def test_simulation_near_the_boundary_in_pieces(seed):
    """Blocks one after the other, interrupted: the same bits."""
    problem = random_problem(5, seed, K=8, shared=True)
    steps = compress(problem.weights, "symmetric", 4).steps[:, 0][None]
    whole = average_boundary(problem, steps, seed=seed, first=0, last=40)
    part = average_boundary(problem, steps, seed=seed, first=0, last=17)
    pieces = average_boundary(problem, steps, seed=seed, first=17, last=40, onto=part)
    assert isinstance(pieces, Boundary)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@in_float64
def test_small_steps_have_their_laws_to_many_bits(seed):
    """A Bayes rule of twelve classes, eight features: distortion over the square of the step and flips over the step."""
    budget = Budget(boundary_work=1.5e9)
    problem = synthetic(classes=12, features=8, separation=3.5, layer="optimal", seed=seed + 1)
    found = []
    for width in (8, 11, 14):
        steps = compress(problem.weights, "symmetric", width).steps[:, 0]
        sums = near_boundary.averages(problem, steps, seed=seed, budget=budget)
        loss, flips = (estimate(x.sum(1)) for x in (sums.loss, sums.flips))
        neglected = sums.neglected.mean(0)
        assert neglected[0] + loss.error < 0.03 * loss.value
        found.append([loss.value / steps[0] ** 2, flips.value / steps[0]])
    np.testing.assert_allclose(found[1:], found[:1] * np.ones((2, 1)), rtol=0.03)


@pytest.mark.slow
def test_one_feature_that_outweighs_the_others(seed):
    """Ten deviations of it in common to all classes: its error is felt by all logits, as a uniform number."""
    budget = Budget(boundary_work=2e9)
    plain = random_problem(9, seed + 3, K=14, shared=True, layer="optimal")
    shift = np.zeros(9)
    shift[0] = 10 * np.sqrt(plain.covariances[0, 0])
    means = plain.means + shift
    bias = plain.bias - plain.weights @ shift
    problem = replace(plain, means=means, bias=bias)
    steps = compress(problem.weights, "symmetric", 6).steps[:, 0]
    value, error = average_boundary(problem, steps[None], seed=seed, first=0, last=1500).estimates()
    (record,) = predict(problem, bits=[6], method="posterior_average", seed=seed, budget=budget, **QUESTION)
    assert abs(record.distortion - value[0, 0]) < 4.5 * np.hypot(error[0, 0], record.numerical_error / 2)
    assert record.numerical_error < 0.1 * value[0, 0]
    assert record.distortion == pytest.approx(value[0, 0], rel=0.02)
    assert record.interval[0] < record.distortion < record.interval[1]
    assert sum(record.interval) / 2 == pytest.approx(record.distortion, rel=0.02)


@pytest.mark.slow
def test_a_rare_class_far_away(seed):
    """No feature of it is ever drawn: its recall is known all the same."""
    problem = random_problem(6, seed, K=9, shared=True, layer="optimal")
    priors = np.append(problem.priors[:-1] * (1 - 1e-7) / problem.priors[:-1].sum(), 1e-7)
    means = problem.means.copy()
    means[-1] *= 20
    weights = np.linalg.solve(problem.covariances, means.T).T
    bias = -0.5 * np.einsum("kd,kd->k", weights, means) + np.log(priors)
    (record,) = predict(
        replace(problem, means=means, weights=weights, bias=bias, priors=priors),
        bits=[8],
        method="posterior_average",
        budget=Budget(boundary_work=2e8, spread_lines=2**9),
        **QUESTION,
    )
    assert np.isfinite([record.risk_before, record.distortion, *record.interval]).all()
    assert record.per_class[-1]["recall_before"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_spread_over_networks_near_the_boundary(seed):
    """That of networks counted: K = 9, d = 6."""
    problem = random_problem(6, seed + 1, K=9)
    steps = compress(problem.weights, "symmetric", 3).steps[:, 0]
    seen = in_float64(near_boundary.networks)(problem, steps, seed=seed)
    (counted,) = run(problem, bits=[3], n=512 * 8192 * 9, networks=512, seed=seed, **QUESTION)
    np.testing.assert_allclose(line_averages.in_common(seen[None]).std(), counted.interval_sources["network"], rtol=0.25)


@pytest.mark.slow
def test_where_labels_cannot_be_integrated_out(seed):
    """Equal rows, a class without prior, a singular covariance, too few features: lines; by name a message."""
    budget = Budget(random_line_work=5e6, boundary_work=1e8)
    problem = random_problem(6, seed, K=9, shared=True)
    weights, covariance = problem.weights.copy(), problem.covariances.copy()
    weights[4] = weights[2]
    covariance[0], covariance[:, 0] = 0, 0
    priors = np.append(np.zeros(1), np.full(8, 1 / 8))
    loud = problem.weights * np.append(np.full((8, 1), 1.0), np.full((1, 1), 40.0), 0)
    bad = (
        replace(problem, weights=weights),
        replace(problem, covariances=covariance),
        replace(problem, priors=priors),
    )
    ask: dict = dict(bits=[3], method="posterior_average", seed=seed, budget=budget, **QUESTION)
    assert predict(problem, **ask)[0].method == "posterior_average"
    (record,) = predict(replace(problem, weights=loud), bits=[3], per_channel=True, seed=seed, budget=budget, **QUESTION)
    assert record.method == "line_average"
    with pytest.raises(InputError, match="posterior_average needs"):
        predict(random_problem(5, seed, K=9), **ask)
    for one in bad:
        assert predict(one, bits=[3], seed=seed, budget=budget, **QUESTION)[0].method == "line_average"
        with pytest.raises(InputError, match="posterior_average needs"):
            predict(one, bits=[3], method="posterior_average", seed=seed, budget=budget, **QUESTION)


@pytest.mark.slow
def test_more_classes_than_features_as_counted(seed):
    """Distortion, flips and spread over networks of the method near the boundary, at a small budget, against counting; rows
    that are tied are refused, unless they are taken as independent."""
    problem = synthetic(
        classes=9, features=6, separation=3.0, layer="perturbed", priors="unequal", covariance="unequal", seed=seed
    )
    ask: dict = dict(method="posterior_average", bits=[3], seed=seed, **QUESTION)
    ask["budget"] = Budget(boundary_work=2e8, line_work=2e5, spread_lines=2**9)
    (said,), (seen,) = predict(problem, **ask), run(problem, bits=[3], n=2_000_000, seed=seed, **QUESTION)
    errors = [
        (said.distortion - seen.distortion, said.numerical_error, seen.standard_error),
        (said.flip_rate - seen.flip_rate, said.flip_rate_error, seen.flip_rate_standard_error),
    ]
    for gap, numerical, standard in errors:
        assert abs(gap) < 4.5 * np.hypot((numerical or 0.0) / 1.96, standard or 0.0)
        assert (numerical or 0.0) < 0.05 * seen.distortion
    assert said.interval_sources["network"] == pytest.approx(seen.interval_sources["network"], rel=0.4)
    tied = replace(problem, weights=np.concatenate([problem.weights[:8], -problem.weights[:1]]))
    with pytest.raises(InputError, match="rows that differ"):
        predict(tied, **ask)
    assert predict(tied, row_errors="independent", **ask)[0].method == "posterior_average"
    del ask["method"]  # lines suffice where their error is small beside the spread of networks
    for precision, method in ((0.0, "posterior_average"), (2.0, "line_average")):
        ask["budget"] = replace(ask["budget"], spread_precision=precision, random_line_work=1e6, random_line_rounds=1)
        assert predict(problem, **ask)[0].method == method
