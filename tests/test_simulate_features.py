"""Measuring, fitting and checking on labelled features."""

import numpy as np
import pytest
from scipy.stats import binom, kstest, normaltest, pearsonr, uniform

from simulate.counting import measure
from simulate.experiments import halves
from simulate.experiments.all_classes import WAYS, all_classes
from simulate.experiments.hypotheses import _holm, _margins, check, expected_on_samples
from simulate.feature_models.gaussian import fit
from simulate.sampler import factor
from tests.problems import random_problem
from theory.prediction import expected_distortion
from theory.setting.compression import compress
from theory.setting.errors import InputError
from theory.setting.files import Features, read_statistics
from theory.spread import Errors


def sample(problem, n, rng, dtype: type = np.float64):
    y = rng.choice(problem.classes, n, p=problem.priors)
    z = rng.standard_normal((n, problem.features))
    for k in range(problem.classes):
        z[y == k] = problem.means[k] + z[y == k] @ factor(problem.covariance(k)).T
    return Features(features=z.astype(dtype), labels=y, weights=problem.weights, bias=problem.bias)


def test_measure_counts_decisions(seed):
    problem = random_problem(8, seed, K=5)
    features = sample(problem, 3001, np.random.default_rng(seed), np.float32)
    z = features.features.astype(np.float64)
    for record in measure(features, scheme="affine", bits=[2, 4]):
        What = compress(problem.weights, "affine", record.bits).weights
        before, after = (np.argmax(z @ W.T + problem.bias, 1) for W in (problem.weights, What))
        change = (after != features.labels).astype(float) - (before != features.labels)
        assert record.distortion == pytest.approx(change.mean(), abs=1e-15)
        assert record.standard_error == pytest.approx(change.std() / np.sqrt(3001), rel=1e-12)
        assert record.flip_rate == np.mean(before != after)
        assert record.flip_rate_standard_error == pytest.approx(np.std(before != after) / np.sqrt(3001))
        assert abs(record.distortion) <= record.flip_rate
        for k, one in enumerate(record.per_class):
            assert one["recall_after"] == pytest.approx(np.mean(after[features.labels == k] == k))
        low, high = record.interval
        assert (low + high) / 2 == pytest.approx(record.distortion)


def test_measure_restricts_and_survives_empty_classes(seed):
    problem = random_problem(4, seed, K=4)
    features = sample(problem, 500, np.random.default_rng(seed))
    part = features.take(np.flatnonzero(features.labels != 2))
    (record,) = measure(part, scheme="symmetric", bits=[2])
    assert record.per_class[2]["prior"] == 0
    assert any("class 2" in warning for warning in record.warnings)
    (pair,) = measure(features, scheme="symmetric", bits=[3], classes=(3, 1))
    assert pair.n == np.isin(features.labels, (1, 3)).sum()


def test_ties_go_to_the_lowest_class():
    features = Features(
        features=np.array([[1.0, 1.0], [1.0, 0.0]]), labels=np.array([1, 1]), weights=np.ones((2, 2)), bias=np.zeros(2)
    )
    (record,) = measure(features, scheme="symmetric", bits=[4])
    assert record.risk_before == 1.0
    head = Features(
        features=np.array([[1.0], [-1.0], [0.0]]), labels=np.array([1, 0, 0]), weights=np.ones((1, 1)), bias=np.zeros(1)
    )
    (record,) = measure(head, scheme="symmetric", bits=[4])
    assert record.risk_before == 0.0


def test_fit_gives_the_sample_moments(seed, tmp_path):
    problem = random_problem(6, seed, K=3)
    features = sample(problem, 2000, np.random.default_rng(seed))
    fitted = fit(features, out=tmp_path / "s.npz")
    for k in range(3):
        rows = features.features[features.labels == k]
        np.testing.assert_allclose(fitted.means[k], rows.mean(0), atol=1e-12)
        np.testing.assert_allclose(fitted.covariances[k], np.cov(rows.T), atol=1e-12)
        assert fitted.counts is not None
        assert fitted.counts[k] == len(rows)
    again = read_statistics(tmp_path / "s.npz")
    np.testing.assert_array_equal(again.covariances, fitted.covariances)
    assert again.provenance["n"] == 2000
    assert len(again.provenance["features_sha256"]) == 64


def test_small_classes_are_shrunk_and_lonely_ones_take_the_pooled(seed, capsys):
    problem = random_problem(12, seed, K=3)
    rng = np.random.default_rng(seed)
    features = sample(problem, 3000, rng)
    keep = np.concatenate(
        [
            np.flatnonzero(features.labels == 0),
            np.flatnonzero(features.labels == 1)[:8],
            np.flatnonzero(features.labels == 2)[:1],
        ]
    )
    fitted = fit(features.take(keep))
    assert "class 2 has 1 sample:" in capsys.readouterr().err
    assert np.linalg.eigvalsh(fitted.covariances[1])[0] > 1e-3
    np.testing.assert_allclose(fitted.covariances[2], fitted.covariances[2].T)
    own = np.cov(features.take(keep).features[features.take(keep).labels == 1].T)
    true = problem.covariance(1)
    assert np.linalg.norm(fitted.covariances[1] - true) < np.linalg.norm(own - true)
    with pytest.raises(InputError, match="at least two samples"):
        fit(features.take(keep[[0, -1]]))


def test_a_class_of_one_sample_needs_no_warning_elsewhere(seed):
    problem = random_problem(3, seed, K=3)
    features = sample(problem, 300, np.random.default_rng(seed))
    part = features.take(np.flatnonzero(features.labels != 1))
    fitted = fit(part)
    assert fitted.priors[1] == 0


def test_averaging_over_samples_tends_to_the_gaussian_prediction(seed):
    problem = random_problem(30, seed)
    features = sample(problem, 200_000, np.random.default_rng(seed))
    errors = Errors(compress(problem.weights, "symmetric", 3).steps)
    value, se = expected_on_samples(features, errors)
    v, k4, k6 = errors.moments()
    want = expected_distortion(problem, v=v, k4=k4, k6=k6)
    assert abs(value - want) < 4 * se + 2e-3 * abs(want)


def test_holm():
    np.testing.assert_allclose(_holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(_holm(np.array([0.5, 0.9])), [1.0, 1.0])


def test_the_normality_test_has_its_size(seed):
    """On Gaussian features the hypothesis is rejected in 5 % of 300 data sets at most (Holm over four), give or take."""
    rng, rejections = np.random.default_rng(seed), 0
    problem = random_problem(40, seed)
    for _ in range(300):
        records = check(sample(problem, 600, rng), scheme="symmetric", bits=[6])
        rejections += not next(r for r in records if r["hypothesis"] == "Gaussian margins")["holds"]
    assert rejections <= binom.ppf(1 - 1e-4, 300, 0.05), rejections


def test_the_normality_test_is_corrected_for_its_two_classes_and_for_all_records(seed):
    problem = random_problem(30, seed)
    features = sample(problem, 800, np.random.default_rng(seed))
    t = features.features @ (problem.weights[1] - problem.weights[0])
    p = min(1, 2 * min(normaltest(t[features.labels == k]).pvalue for k in (0, 1)))
    assert _margins(features, fit(features), Errors(np.array([0.1, 0.1])), 0.0)["p_value"] == pytest.approx(p)
    records = check(features, bits=[3, 8])
    raw = _raw(problem, (3, 8), p)  # eight records, one family
    np.testing.assert_allclose(sorted(r["p_value"] for r in records), sorted(_holm(np.array(raw))), rtol=1e-9)


def _raw(problem, bits, p):
    """The p-values of the error model by SciPy, and p twice."""
    found = [p, p]
    for width in bits:
        layer = compress(problem.weights, "symmetric", width)
        E, W = (layer.weights - problem.weights) / layer.steps[0], problem.weights
        found += [
            float(kstest(E.ravel(), uniform(-0.5, 1).cdf).pvalue),
            float(np.asarray(pearsonr(E.ravel(), W.ravel()))[1]),
            float(np.asarray(pearsonr(E[0], E[1]))[1]),
        ]
    return found


def test_checks_have_power(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(200, seed)
    features = sample(problem, 800, rng)
    heavy = Features(
        features=features.features * np.exp(0.5 * rng.standard_normal((800, 1))),
        labels=features.labels,
        weights=features.weights,
        bias=features.bias,
    )
    found = {r["hypothesis"]: r for r in check(heavy, bits=[4])}
    assert not found["Gaussian margins"]["holds"]
    w = problem.weights[1] - problem.weights[0]
    tied = Features(features=features.features, labels=features.labels, weights=np.stack([-w, w]) / 2, bias=features.bias)
    found = {r["hypothesis"]: r for r in check(tied, bits=[4])}
    assert not found["errors independent between rows"]["holds"]
    assert found["errors independent between rows"]["statistic"] == pytest.approx(-1)
    assert found["errors independent between rows"]["effect"] > 0
    found = {r["hypothesis"]: r for r in check(features, bits=[2])}
    assert not found["errors uncorrelated with the weights"]["holds"]
    assert not found["errors uniform in +-step/2"]["holds"]


def test_the_effects_are_those_of_the_corrected_variance(seed):
    """Tied rows double the error variance; a coarse step's errors, gain removed, are those of theory's v_eff."""
    problem = random_problem(200, seed)
    features = sample(problem, 400, np.random.default_rng(seed))
    w = problem.weights[1] - problem.weights[0]
    tied = Features(features=features.features, labels=features.labels, weights=np.stack([-w, w]) / 2, bias=features.bias)
    found = {r["hypothesis"]: r for r in check(tied, bits=[4])}
    fitted = fit(tied)
    v, k4, k6 = Errors(compress(tied.weights, "symmetric", 4).steps).moments()
    double, single = (expected_distortion(fitted, v=x, k4=k4, k6=k6) for x in (2 * v, v))
    assert found["errors independent between rows"]["effect"] == pytest.approx(double - single, rel=1e-6)
    found = {r["hypothesis"]: r for r in check(features, bits=[2])}
    fitted = fit(features)
    layer = compress(problem.weights, "symmetric", 2)
    v, k4, k6 = Errors(layer.steps).moments()
    E, W = layer.weights - problem.weights, problem.weights
    alpha, rho = np.sum(E * W) / np.sum(W**2), np.corrcoef(E.ravel(), W.ravel())[0, 1]
    corrected, plain = (expected_distortion(fitted, v=x, k4=k4, k6=k6) for x in (v * (1 - rho**2) / (1 + alpha) ** 2, v))
    assert found["errors uncorrelated with the weights"]["effect"] == pytest.approx(corrected - plain, rel=1e-6)


def test_check_is_sorted_and_speaks(seed):
    records = check(sample(random_problem(20, seed), 500, np.random.default_rng(seed)), bits=[3, 4])
    effects = [abs(r["effect"]) for r in records]
    assert effects == sorted(effects, reverse=True)
    assert sorted(r["bits"] for r in records) == [3] * 4 + [4] * 4
    assert all("points" in r["sentence"] for r in records)
    with pytest.raises(InputError, match="two classes"):
        check(sample(random_problem(4, seed, K=3), 500, np.random.default_rng(seed)))
    with pytest.raises(InputError, match="20 samples"):
        check(sample(random_problem(4, seed), 30, np.random.default_rng(seed)))


def test_halves_are_apart_and_summarized(seed):
    problem = random_problem(5, seed, K=3)
    features = sample(problem, 3001, np.random.default_rng(seed))
    one, other = halves.split(features, seed)
    assert len(one.labels) + len(other.labels) == 3001
    together = {row.tobytes() for row in one.features} & {row.tobytes() for row in other.features}
    assert not together
    counts = halves.measured_counts(other, schemes=("symmetric",), bits=(2, 3))
    assert len(counts) == 3 * 2 * 2
    rows = halves.predicted(fit(one), counts[:4], errors="expected")
    table = halves.summary(rows)
    assert [line["bits"] for line in table] == [2, 3]
    assert all(0 <= line["inside"] <= 1 and line["delta_2"] is not None for line in table)


def test_all_classes_three_ways(seed):
    """Gaussian features: both Gaussian predictions and the distribution-free one hold most measured distortions."""
    problem = random_problem(12, seed, K=3)
    features = sample(problem, 4000, np.random.default_rng(seed))
    rows = all_classes(features, schemes=("symmetric",), bits=(3,), seed=seed)
    assert len(rows) == 3 * 2
    assert {row["way"] for row in rows} == set(WAYS)
    assert sum(row["low"] <= row["distortion"] <= row["high"] for row in rows) >= 4
    known = [row for row in rows if row["way"] == "Gaussian, actual"]
    assert all(abs(row["predicted"] - row["distortion"]) < 5 * np.sqrt(row["flip_rate"] / row["n"]) + 0.01 for row in known)
    assert {line["bits"] for line in halves.summary(rows)} == {3}
