"""Averages over a part of the noise and quasi-random sequences against counting."""

import numpy as np
import pytest

from simulate import run
from simulate.sampling.ghk import average_sequences
from tests.support.problems import random_problem
from theory.setting.errors import InputError
from theory.setting.schemes import compress


@pytest.mark.parametrize(
    ("K", "rows", "errors"),
    [
        pytest.param(2, 1, "expected", marks=pytest.mark.slow),
        (4, 2, "actual"),
        pytest.param(4, 2, "expected", marks=pytest.mark.slow),
    ],
)
def test_conditional_averages_agree_with_counts(K, rows, errors, seed):
    """The same quantities by plain counting; the standard error of D smaller for the same number of feature vectors."""
    problem = random_problem(9, seed + 60, K=K, rows=rows)
    question: dict = dict(scheme="symmetric", bits=[3, 6], errors=errors, seed=seed)
    counted = run(problem, n=1_000_000, **question)
    for one, plain in zip(run(problem, method="conditional", n=20_000 * K, **question), counted, strict=True):
        assert one.method == "conditional"
        se = np.hypot(one.standard_error or 0.0, plain.standard_error or 0.0)
        assert abs(one.distortion - plain.distortion) < 4.5 * se
        flips_se = np.hypot(one.flip_rate_standard_error or 0.0, plain.flip_rate_standard_error or 0.0)
        assert abs(one.flip_rate - plain.flip_rate) < 4.5 * flips_se
        for a, b in zip(one.per_class, plain.per_class, strict=True):
            assert a["recall_after"] == pytest.approx(b["recall_after"], abs=0.02)
    fewer = run(problem, n=20_000 * K, **question)[1]
    conditional = run(problem, method="conditional", n=20_000 * K, **question)[1]
    assert (conditional.standard_error or 1.0) < 0.7 * (fewer.standard_error or 0.0)


def test_conditional_standard_errors_are_the_spread_of_repeated_runs(seed):
    """40 runs, chi-square at 0.1 % both sides."""
    problem = random_problem(6, seed + 2, K=3)
    question: dict = dict(scheme="symmetric", bits=[4], errors="expected", method="conditional", n=3 * 1024)
    records = [run(problem, seed=seed + i, **question)[0] for i in range(40)]
    for value, error in (("distortion", "standard_error"), ("flip_rate", "flip_rate_standard_error")):
        spread = np.var([getattr(one, value) for one in records], ddof=1)
        said = np.mean([getattr(one, error) ** 2 for one in records])
        assert 16.3 < 39 * spread / said < 74.7  # chi2.ppf([5e-4, 0.9995], 39)


def test_conditional_goes_on_until_its_standard_error_is_met():
    problem = random_problem(6, 3, K=3)
    (record,) = run(problem, scheme="symmetric", bits=[4], method="conditional", standard_error=2e-4)
    assert (record.standard_error or 1.0) <= 2.1e-4
    with pytest.raises(InputError, match="networks"):
        run(problem, scheme="symmetric", bits=[4], errors="expected", method="conditional", networks=5)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_sequences_agree_with_counts_and_lines_and_know_their_error(shared, seed):
    """Unequal steps; the mirrored pairs against counted networks and against lines at 6 bits, where counting is blind."""
    problem = random_problem(9, seed + 70, K=4, shared=shared)
    steps = np.stack([compress(problem.weights, "symmetric", bits, per_channel=True).steps[:, 0] for bits in (3, 6)])
    sums = average_sequences(problem, steps, seed=seed, first=0, last=40)
    mean, se = sums.distortion(problem.priors)
    question: dict = dict(scheme="symmetric", errors="expected", per_channel=True, seed=seed)
    (counted,) = run(problem, bits=[3], n=1_000_000, **question)
    (lined,) = run(problem, bits=[6], method="conditional", n=200_000, **question)
    for value, error, other in ((mean[0], se[0], counted), (mean[1], se[1], lined)):
        assert abs(value - other.distortion) < 4.5 * np.hypot(error, other.standard_error or 0.0)
    assert se[1] < 0.5 * (lined.standard_error or 0.0)
    assert 1 - sums.right @ problem.priors / sums.pairs == pytest.approx(counted.risk_before, abs=0.01)
    values = [
        average_sequences(problem, steps[:1], seed=seed + i, first=0, last=2).distortion(problem.priors) for i in range(40)
    ]
    spread, said = np.var([v[0][0] for v in values], ddof=1), np.mean([v[1][0] ** 2 for v in values])
    assert 16.3 < 39 * spread / said < 74.7  # chi2.ppf([5e-4, 0.9995], 39)
