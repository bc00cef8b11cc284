"""A known compressed layer: distortion, flips and risk are exact, at the edges too."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.problems import exact_flips, exact_risk, random_problem
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.problem import Problem
from theory.setting.schemes import compress

CASES = [
    (d, scheme, bits, channel)
    for d in (1, 5, 30)
    for scheme, bits in (
        ("symmetric", 2),
        ("symmetric", 5),
        ("symmetric", 12),
        ("affine", 1),
        ("affine", 3),
        ("midrise", 2),
        ("midrise", 8),
    )
    for channel in (False, True)
]


@pytest.mark.parametrize(("d", "scheme", "bits", "channel"), CASES)
def test_known_layers_are_exact(d, scheme, bits, channel, seed):
    for rows in (2, 1):
        problem = random_problem(d, seed + d, rows=rows)
        (record,) = predict(problem, scheme=scheme, bits=[bits], per_channel=channel)
        What = compress(problem.weights, scheme, bits, per_channel=channel).weights
        assert record.risk_before == pytest.approx(exact_risk(problem), abs=1e-13)
        if np.any(What[-1] - (What[0] if rows == 2 else 0)):
            assert record.distortion == pytest.approx(exact_risk(problem, What) - exact_risk(problem), abs=1e-9)
            assert record.flip_rate == pytest.approx(exact_flips(problem, What), abs=1e-9)
        assert abs(record.distortion) <= record.flip_rate
        recalls = record.per_class
        after = sum(one["prior"] * (1 - one["recall_after"]) for one in recalls)
        assert after == pytest.approx(record.risk_after, abs=1e-12)


def test_sixteen_bits_keep_their_digits(seed):
    """A distortion of 1e-9 is a small difference of risks: it must not be rounding noise."""
    problem = random_problem(20, seed)
    (record,) = predict(problem, scheme="symmetric", bits=[16])
    What = compress(problem.weights, "symmetric", 16).weights
    assert record.flip_rate == pytest.approx(exact_flips(problem, What), rel=1e-4)
    assert abs(record.distortion) < 1e-4


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.integers(2, 8))
def test_invariances(number, bits):
    problem = random_problem(6, number)
    base = predict(problem, scheme="symmetric", bits=[bits])[0]
    shifted = predict(replace(problem, bias=problem.bias + 3.7), scheme="symmetric", bits=[bits])[0]
    assert shifted.distortion == pytest.approx(base.distortion, abs=1e-12)
    order = [1, 0]
    swapped = replace(
        problem,
        weights=problem.weights[order],
        bias=problem.bias[order],
        priors=problem.priors[order],
        means=problem.means[order],
        covariances=problem.covariances[order],
    )
    other = predict(swapped, scheme="symmetric", bits=[bits])[0]
    assert other.distortion == pytest.approx(base.distortion, abs=1e-12)
    assert other.flip_rate == pytest.approx(base.flip_rate, abs=1e-12)
    # scaling the features and un-scaling the weights changes nothing, whatever the power of two
    scaled = replace(problem, weights=problem.weights / 4, means=problem.means * 4, covariances=problem.covariances * 16)
    assert predict(scaled, scheme="symmetric", bits=[bits])[0].distortion == pytest.approx(base.distortion, abs=1e-12)


def _plain(weights, priors=(0.9, 0.1), bias=(0.0, 0.0)):
    return Problem(
        weights=np.array(weights, float),
        bias=np.array(bias, float),
        priors=np.array(priors),
        means=np.array([[1.0, 0], [0, 1.0]]),
        covariances=np.eye(2),
    )


def test_equal_rows_go_to_the_lowest_class():
    (record,) = predict(_plain([[0.9, 0.1], [0.8, 0.2]]), scheme="symmetric", bits=[2])
    assert record.risk_after == pytest.approx(0.1, abs=1e-15)
    assert record.distortion < 0
    assert "negative distortion" in record.warnings[0]
    (other,) = predict(_plain([[0.9, 0.1], [0.8, 0.2]], bias=(0.0, 1e-3)), scheme="symmetric", bits=[2])
    assert other.risk_after == pytest.approx(0.9, abs=1e-15)
    assert other.flip_rate >= abs(other.distortion)


@pytest.mark.parametrize("weights", [[[0.9, 0.1], [0.8, 0.2]], [[0.37, 0.1], [0.33, -0.13]], [[1.0, 0.5], [0.5, 1.0]]])
@pytest.mark.parametrize("scheme", ["affine", "symmetric", "midrise"])
def test_flips_where_a_mean_margin_is_exactly_zero(weights, scheme):
    problem = _plain(weights)
    for bits in (2, 3):
        What = compress(problem.weights, scheme, bits).weights
        if np.any(What[0] != What[1]):
            (record,) = predict(problem, scheme=scheme, bits=[bits])
            assert record.flip_rate == pytest.approx(exact_flips(problem, What), abs=1e-9)


def test_numerical_error_grows_with_the_cancellation():
    """A common offset of the features by 1e6 costs six digits of the margin, and the record says so."""
    problem = random_problem(20, 3, shared=True)
    (base,) = predict(problem, scheme="symmetric", bits=[4])
    far = replace(problem, means=problem.means + 1e6, bias=problem.bias - problem.weights @ np.full(20, 1e6))
    far_error = predict(far, scheme="symmetric", bits=[4])[0].numerical_error
    assert base.numerical_error < 1e-14
    assert far_error > 1e-11


def test_weights_on_the_grid_lose_nothing():
    problem = _plain([[3.0, -1.0], [2.0, 1.0]], bias=(0.1, -0.2))
    (record,) = predict(problem, scheme="symmetric", bits=[3])
    assert record.distortion == 0
    assert record.flip_rate == 0
    assert record.warnings == []


def test_zero_weights_and_classes_without_samples_are_finite():
    for errors in ("actual", "expected"):
        for weights in ([[0.0, 0.0], [0.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]], [[0.0, 0.0], [0.8, -0.2]]):
            for priors in ((0.9, 0.1), (1.0, 0.0)):
                for record in predict(_plain(weights, priors), scheme="symmetric", bits=[2, 4], errors=errors):
                    assert np.isfinite([record.risk_after, record.distortion, record.flip_rate, *record.interval]).all()


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("test_size", [None, 50])
def test_constant_margins_with_counted_statistics_are_finite(rows, test_size):
    for weights in (np.zeros((rows, 2)), np.full((rows, 2), 0.5)):
        problem = replace(_plain(weights, bias=(0.1,) * rows), counts=np.array([30, 20]))
        for errors in ("actual", "expected"):
            for channel in (False, True):
                (record,) = predict(
                    problem, scheme="symmetric", bits=[4], errors=errors, per_channel=channel, test_size=test_size
                )
                assert np.isfinite([*record.interval, *record.interval_sources.values(), record.numerical_error]).all()


CONSTANT: dict = dict(scheme="symmetric", bits=[4], errors="expected", row_errors="independent")


def test_the_quadrature_asked_for_is_not_replaced():
    """Equal rows have equal errors, and a constant margin stays one; taken as independent it varies."""
    with pytest.raises(InputError, match="margin_quadrature needs a margin that varies"):
        predict(_plain([[0.5, 0.5], [0.5, 0.5]]), method="margin_quadrature", **CONSTANT)
    (tied,) = predict(_plain([[0.5, 0.5], [0.5, 0.5]]), **{**CONSTANT, "row_errors": "tied"})
    assert (tied.distortion, tied.flip_rate) == (0.0, 0.0)


def test_older_formulas_refuse_a_constant_margin():
    with pytest.raises(InputError, match="delta_2 needs a margin that varies"):
        predict(_plain([[0.5, 0.5], [0.5, 0.5]]), method="delta_2", **CONSTANT)


def test_distortion_vanishes_as_the_rate_grows():
    problem = random_problem(12, 5)
    flips = [record.flip_rate for record in predict(problem, scheme="symmetric", bits=[4, 8, 12, 16])]
    assert all(after < before / 8 for before, after in itertools.pairwise(flips))


def test_options_are_checked():
    problem = random_problem(3, 0)
    for question, named in (
        ({"scheme": "symmetric", "bits": [1]}, "bits"),
        ({"scheme": "none", "bits": [4]}, "symmetric, affine"),
        ({"scheme": "symmetric", "bits": []}, "bits"),
        ({"scheme": "symmetric", "bits": [4], "errors": "no"}, "errors"),
        ({"scheme": "symmetric", "bits": [4], "method": "delta_2"}, "method"),
        ({"scheme": "symmetric", "bits": [4], "confidence": 1.0}, "confidence"),
        ({"scheme": "symmetric", "bits": [4], "test_size": 0}, "test_size"),
        ({"scheme": "symmetric", "bits": [4], "classes": [0, 2]}, "classes"),
    ):
        with pytest.raises(InputError, match=named):
            predict(problem, **question)
    with pytest.raises(InputError, match="binary_risk needs two classes; expected one of orthants, lines here"):
        predict(random_problem(3, 0, K=3), scheme="symmetric", bits=[4], method="binary_risk")
