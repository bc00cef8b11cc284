"""Measuring and fitting on labelled features."""

import numpy as np
import pytest

from simulate import measure
from simulate.experiments import halves
from simulate.experiments.all_classes import WAYS, all_classes
from simulate.feature_models.fit import fit
from tests.support.problems import random_problem
from tests.support.samples import sample
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_statistics
from theory.setting.schemes import compress


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


@pytest.mark.slow
def test_all_classes_five_ways(seed):
    """Gaussian features: all predictions hold most measured distortions."""
    problem = random_problem(12, seed, K=3)
    features = sample(problem, 4000, np.random.default_rng(seed))
    rows = all_classes(features, schemes=("symmetric",), bits=(3,), seed=seed)
    assert len(rows) == 5 * 2
    assert {row["way"] for row in rows} == set(WAYS)
    assert sum(row["low"] <= row["distortion"] <= row["high"] for row in rows) >= 8
    known = [row for row in rows if row["way"] == "Gaussian, actual"]
    assert all(abs(row["predicted"] - row["distortion"]) < 5 * np.sqrt(row["flip_rate"] / row["n"]) + 0.01 for row in known)
    assert {line["bits"] for line in halves.summary(rows)} == {3}
