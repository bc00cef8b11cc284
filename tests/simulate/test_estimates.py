"""What ``simulate.run`` makes of its counts: errors, intervals, layers whose ties differ; options that are refused."""

from dataclasses import replace

import numpy as np
import pytest

from simulate import run
from simulate.generator import synthetic
from simulate.samplers.integer_sums import EACH
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import count_known
from tests.support.problems import random_problem
from theory.prediction import predict
from theory.setting.error_law import uniform_errors
from theory.setting.errors import InputError
from theory.setting.problem import Problem
from theory.setting.schemes import compress


def test_run_options_are_checked():
    problem = random_problem(3, 0)
    question: dict
    for question, named in (
        ({"n": 0}, "n"),
        ({"n": 5, "standard_error": 0.1}, "both"),
        ({"standard_error": 2.0}, "standard_error"),
        ({"standard_error": 1e-9}, "1e-09 needs some .e.1. feature vectors"),
        ({"standard_error": 1e-9, "method": "conditional"}, "1e-09 needs some .e.1. feature vectors"),
        ({"standard_error": 1e-9, "errors": "expected"}, "1e-09 needs some .e.1. feature vectors"),
        ({"networks": 10**12, "errors": "expected"}, "at most 1e.09, got 1e.12"),
        ({"n": 10**10, "scheme": "integer", "activation_bits": 8}, "at most 1e.08"),
        ({"networks": 5}, "networks"),
        ({"errors": "no"}, "errors"),
        ({"method": "random_networks"}, "expected one of reduced_pairs, conditional"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(InputError, match=named):
            run(problem, **{"scheme": "symmetric", "bits": [3], **question})


def test_rows_tied_at_one_width_and_entry_by_entry_at_another(seed):
    """Opposite rows under ``midrise``: entries that lie between two levels from 3 bits on are rounded up in both rows."""
    rng = np.random.default_rng(seed)
    row = np.concatenate([[1.0, 0.25], rng.uniform(-0.9, 0.9, 6)])
    problem = synthetic(means=np.stack([row, -row]), covariance=np.eye(8))
    problem = replace(problem, weights=np.stack([row, -row]), bias=np.zeros(2))
    widths = (3, 2, 4)
    layers = [compress(problem.weights, "midrise", width) for width in widths]
    assert [uniform_errors(problem.weights, layer).wide.shape for layer in layers] == [(2, 8), (2, 1), (2, 8)]
    ask: dict = dict(scheme="midrise", errors="expected", n=2_000_000, seed=seed)  # the two are 12 deviations apart
    together = run(problem, bits=widths, **ask)
    assert [one.bits for one in together] == list(widths)
    for one, said in zip(together, predict(problem, bits=widths, scheme="midrise", errors="expected"), strict=True):
        assert abs(one.distortion - said.distortion) < 4.5 * np.hypot(one.standard_error or 0.0, said.numerical_error / 2)
    (tied,), (independent,) = run(problem, bits=[2], **ask), run(problem, bits=[2], row_errors="independent", **ask)
    assert together[1].distortion == tied.distortion
    noise = np.hypot(tied.standard_error or 0, independent.standard_error or 0)
    assert abs(tied.distortion - independent.distortion) > 6 * noise


def test_the_errors_of_a_record_are_those_of_its_counts(seed):
    """Four classes: a test set's noise is by the decisions whose correctness changes, not by all flips."""
    problem = random_problem(6, seed + 3, K=4)
    (record,) = run(problem, scheme="symmetric", bits=[3], n=4 * BLOCK * 8, test_size=500, seed=seed)
    What = compress(problem.weights, "symmetric", 3).weights
    tally = count_known(problem, [What], seed=seed, first=0, last=8)
    assert record.n == 4 * tally.samples
    changed = float((tally.made[0] + tally.mended[0]) @ problem.priors) / tally.samples
    assert changed < 0.95 * record.flip_rate
    assert record.interval_sources["test_set"] == pytest.approx(np.sqrt((changed - record.distortion**2) / 500))
    risk = record.risk_before
    assert record.risk_before_error == pytest.approx(1.959964 * np.sqrt(risk * (1 - risk) / tally.samples), rel=1e-5)


def test_flips_that_change_no_correctness_leave_an_interval():
    """Ten classes at 16 bits: few decisions change, between wrong classes; the bound is that of a zero count."""
    problem = synthetic(classes=10, features=10, separation=1.0, seed=3)
    (record,) = run(problem, scheme="symmetric", bits=[16], n=20_000)
    assert record.distortion == 0
    samples = (record.n or 0) / 10
    assert record.interval[1] == pytest.approx(1 - 0.05 ** (1 / samples), rel=1e-3)


def test_run_goes_on_until_the_standard_error_is_met():
    problem = random_problem(5, 2)
    (rough,) = run(problem, scheme="symmetric", bits=[3], n=20_000)
    (fine,) = run(problem, scheme="symmetric", bits=[3], standard_error=5e-5)
    assert fine.standard_error is not None
    assert rough.standard_error is not None
    assert fine.standard_error <= 5.2e-5 < rough.standard_error
    assert fine.n is not None
    assert fine.n > 2_000_000


def test_a_zero_count_is_a_bound_not_a_certainty():
    problem = random_problem(5, 2)
    (record,) = run(problem, scheme="symmetric", bits=[16], n=2000)
    assert record.distortion == 0
    samples = (record.n or 0) / 2
    assert record.interval[1] == pytest.approx(1 - 0.05 ** (1 / samples), rel=1e-3)  # Clopper-Pearson, one-sided, no event
    assert record.warnings


@pytest.mark.parametrize("errors", ["actual", "expected"])
def test_sources_and_remarks_of_integer_layers_are_those_of_others(errors, seed):
    """16 bits of the inputs: as ``affine``; the noise of a test set where one is asked for, the spread of single networks."""
    problem = synthetic(classes=4, features=6, separation=2.5, layer="perturbed", seed=seed)
    ask: dict = dict(bits=[3], errors=errors, n=400_000, seed=seed)
    (plain,) = run(problem, scheme="affine", test_size=500, **ask)
    (record,) = run(problem, scheme="integer", activation_bits=16, test_size=500, **ask)
    (without,) = run(problem, scheme="integer", activation_bits=16, **ask)
    sources = record.interval_sources
    assert without.interval_sources == sources | {"test_set": 0.0}
    assert sources["test_set"] == pytest.approx(plain.interval_sources["test_set"], rel=0.05)
    assert sources["network"] == pytest.approx(plain.interval_sources["network"], rel=0.2)
    alike = replace(problem, weights=problem.weights * [[1], [1], [1], [1e-6]])
    question: dict = dict(bits=[2], n=1000, seed=seed)
    said = run(alike, scheme="affine", **question)[0], run(alike, scheme="integer", activation_bits=16, **question)[0]
    assert said[0].warnings
    assert said[0].warnings == said[1].warnings


def test_the_errors_of_random_integer_layers_are_their_spread():
    """Over networks, of which each decides on many samples: four times those of as many independent samples."""
    problem = random_problem(6, 3, K=3)
    problem = replace(problem, feature_range=np.array([-8.0, 8.0]))
    ask: dict = dict(scheme="integer", bits=[2], activation_bits=8, errors="expected", n=60_000)
    records = [run(problem, seed=seed, **ask)[0] for seed in range(24)]
    for value, error in (("distortion", "standard_error"), ("flip_rate", "flip_rate_standard_error")):
        spread = np.std([getattr(one, value) for one in records], ddof=1)
        assert spread == pytest.approx(np.mean([getattr(one, error) for one in records]), rel=0.45), value
    ask["errors"] = "actual"
    (known,) = run(problem, **ask)
    assert (records[0].standard_error or 0.0) > 2 * (known.standard_error or 0.0)


def test_networks_that_change_nothing_are_the_units_of_the_bound():
    """Integer layers of far classes: nothing changes, and the bound counts networks, which are independent, not their
    samples."""
    far = Problem(
        weights=np.array([[1.0, 0], [-1, 0]]),
        bias=np.zeros(2),
        priors=np.full(2, 0.5),
        means=np.array([[6.0, 0], [-6, 0]]),
        covariances=np.eye(2),
        feature_range=np.array([-10.0, 10]),
    )
    (record,) = run(far, scheme="integer", bits=[8], activation_bits=8, errors="expected", n=65_536)
    assert record.interval[1] == pytest.approx(-np.log(0.05) / (65_536 / EACH), rel=1e-3)
    (record,) = run(far, scheme="symmetric", bits=[8], errors="expected", networks=256)
    assert record.interval[1] >= -np.log(0.05) / 65_536 * 0.999
    assert any("independent draws" in warning for warning in record.warnings)


def test_the_interval_of_integer_networks_is_its_standard_error(seed):
    problem = synthetic(classes=2, features=8, separation=1.5, seed=seed)
    (record,) = run(problem, scheme="integer", bits=[3], activation_bits=6, errors="expected", n=65_536, seed=seed)
    assert record.interval[1] - record.interval[0] == pytest.approx(2 * 1.959964 * (record.standard_error or 0.0))
