"""Monte Carlo against the exact theory in one Holm family; six wrong theories refused; counts that nothing changes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.special import ndtr

from simulate import run
from simulate.experiments.averaging import distortions
from simulate.sampling import paired_counting
from simulate.sampling.blocks import BLOCK, key_of
from simulate.sampling.paired_counting import brute_force, count_grid, count_known, nothing
from simulate.sampling.random_networks import count_networks
from tests.support.problems import exact_flips, random_problem
from tests.support.statistical import design, rejected
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.problem import Problem, margin
from theory.setting.schemes import compress

SCHEMES = (
    ("symmetric", 2),
    ("symmetric", 3),
    ("symmetric", 4),
    ("affine", 2),
    ("affine", 3),
    ("affine", 4),
    ("midrise", 2),
    ("midrise", 3),
    ("midrise", 4),
)
PROBLEMS = [(d, layer, shared) for d in (3, 12, 40) for layer in ("optimal", "perturbed") for shared in (True, False)] * 2
BLOCKS = 32


def right(problem, What, k):
    """Mean and variance of the compressed margin of class k: the pieces a wrong theory gets wrong."""
    v, c = margin(What, problem.bias)
    return v @ problem.means[k] + c, v @ problem.covariance(k) @ v


def _error(problem, What):
    w, _ = margin(problem.weights, problem.bias)
    return margin(What, problem.bias)[0] - w


def factor_two(problem, What, k):
    mean, variance = right(problem, What, k)
    e = _error(problem, What)
    return mean, variance + e @ problem.covariance(k) @ e


def no_cross_term(problem, What, k):
    mean, variance = right(problem, What, k)
    w, _ = margin(problem.weights, problem.bias)
    return mean, variance - 2 * _error(problem, What) @ problem.covariance(k) @ w


def swapped_classes(problem, What, k):
    return right(problem, What, k)[0], right(problem, What, 1 - k)[1]


def half_step(problem, What, k):
    return right(problem, (problem.weights + What) / 2, k)


def other_covariance(problem, What, k):
    other = problem if problem.shared else replace(problem, covariances=problem.covariances[::-1])
    return right(other, What, k)


def distortion(problem, What, law=right, priors=None):
    priors = problem.priors if priors is None else priors
    total = 0.0
    for k, sign in ((0, 1), (1, -1)):
        mean, variance = law(problem, What, k)
        clean, power = right(problem, problem.weights, k) if law is not other_covariance else law(problem, problem.weights, k)
        total += priors[k] * (ndtr(sign * mean / np.sqrt(max(variance, 1e-12))) - ndtr(sign * clean / np.sqrt(power)))
    return total


@pytest.fixture(scope="module")
def cells(request):
    """216 cells: 24 problems, nine compressed layers each, all counted on the same samples."""
    seed = request.config.getoption("--seed")
    found = []
    for i, (d, layer, shared) in enumerate(PROBLEMS):
        problem = random_problem(d, 100 * seed + i, layer=layer, shared=shared)
        layers = [compress(problem.weights, scheme, bits, per_channel=i % 2 == 1).weights for scheme, bits in SCHEMES]
        tally = count_known(problem, layers, seed=seed + i, first=0, last=BLOCKS)
        for j, What in enumerate(layers):
            means = [(x[j] / tally.samples) @ problem.priors for x in (tally.made - tally.mended, tally.flips)]
            ses = np.sqrt(np.maximum(tally.squares[j] / tally.units - np.square(means), 1e-12) / tally.units)
            found.append((problem, What, means, ses, (SCHEMES[j], i % 2 == 1)))
    return found


def test_counts_agree_with_theory_in_one_family(cells):
    """alpha = 0.1 % for the family; 262,144 shared normals find a D off by 0.5 points (F = 0.1) with 99 %."""
    assert len(cells) >= 200
    assert design(alpha=1e-3, beta=0.01, delta=0.005, sigma=np.sqrt(0.1), m=2 * len(cells)) <= BLOCKS * BLOCK
    z = []
    for problem, What, (D, F), (D_se, F_se), (scheme, channel) in cells:
        (record,) = predict(problem, scheme=scheme[0], bits=[scheme[1]], per_channel=channel)
        assert record.distortion == pytest.approx(distortion(problem, What), abs=1e-12)
        z += [(D - record.distortion) / D_se, (F - record.flip_rate) / F_se]
    assert rejected(z) == 0


@pytest.mark.parametrize("law", [factor_two, no_cross_term, swapped_classes, half_step, other_covariance])
def test_a_wrong_theory_is_refused(cells, law):
    assert rejected([(D - distortion(problem, What, law)) / D_se for problem, What, (D, _), (D_se, _), _ in cells]) > 0


def test_ignored_priors_are_refused(cells):
    z = [(D - distortion(problem, What, priors=(0.5, 0.5))) / D_se for problem, What, (D, _), (D_se, _), _ in cells]
    assert rejected(z) > 0


def test_the_reduction_equals_the_full_space(seed):
    """Four classes, one-row heads too: counts in r dimensions against full feature vectors and argmax in NumPy."""
    z = []
    for K, rows in ((4, 4), (2, 1), (2, 2)):
        problem = random_problem(9, seed, K=K, rows=min(rows, 2))
        layers = [compress(problem.weights, "symmetric", bits).weights for bits in (2, 3)]
        tally = count_known(problem, layers, seed=seed, first=0, last=BLOCKS)
        n = 400_000
        full = brute_force(problem, layers, n=n, seed=seed + 1)
        for j in range(2):
            D, F = ((x[j] / tally.samples) @ problem.priors for x in (tally.made - tally.mended, tally.flips))
            se = np.sqrt(tally.squares[j] / tally.units / tally.units + full[j, 3] / n)
            z += [(D - full[j, 2]) / se[0], (F - full[j, 3]) / se[1]]
        risk = (tally.wrong / tally.samples) @ problem.priors
        z.append((risk - full[0, 0]) / np.sqrt(risk * (1 / n + 1 / tally.samples)))
    assert rejected(z) == 0


def test_standard_errors_are_honest(seed):
    """z-scores of 60 independent runs have the variance a standard error promises (chi-square, 0.1 % both sides)."""
    problem = random_problem(6, seed + 3)
    What = compress(problem.weights, "symmetric", 3).weights
    D, F = distortion(problem, What), exact_flips(problem, What)
    z = []
    for i in range(60):
        tally = count_known(problem, [What], seed=1000 + seed + i, first=0, last=4)
        means = [(x[0] / tally.samples) @ problem.priors for x in (tally.made - tally.mended, tally.flips)]
        se = np.sqrt((tally.squares[0] / tally.units - np.square(means)) / tally.units)
        z.append((np.array(means) - [D, F]) / se)
    total = np.sum(np.square(z), 0)
    assert ((total > 30.3) & (total < 102.7)).all(), total  # chi2.ppf([5e-4, 0.9995], 60)


@pytest.mark.slow
def test_blocks_and_problems_side_by_side_count_the_same(monkeypatch):
    """What a GPU does; here by asking for it."""
    problems = [random_problem(7, i, K=3) for i in range(5)]
    layers = [[compress(p.weights, "symmetric", bits).weights for bits in (2, 4)] for p in problems]
    assert paired_counting.at_once(1) == 1 or jax.default_backend() == "gpu"
    alone = [count_known(p, x, seed=5, first=0, last=7) for p, x in zip(problems, layers, strict=True)]
    for pieces in (2, 3, 8, 100):
        monkeypatch.setattr(paired_counting, "at_once", lambda floats, pieces=pieces: pieces)
        together = count_grid(problems, layers, seed=5, first=0, last=7, chunk=3)
        apart = [count_known(p, x, seed=5, first=0, last=7, chunk=3) for p, x in zip(problems, layers, strict=True)]
        for one, two, three in zip(alone, together, apart, strict=True):
            for other in (two, three):
                assert (one.samples, one.units) == (other.samples, other.units)
                for a, b in zip(one[2:6], other[2:6], strict=True):
                    np.testing.assert_array_equal(a, b)
                np.testing.assert_allclose(one.squares, other.squares, rtol=1e-6)  # float32 sums in another order


def test_chunks_and_interruptions_change_nothing():
    problem = random_problem(7, 1)
    layers = [compress(problem.weights, "symmetric", bits).weights for bits in (2, 4)]
    once = count_known(problem, layers, seed=5, first=0, last=13, chunk=32)
    for other in (
        count_known(problem, layers, seed=5, first=0, last=13, chunk=3),
        count_known(problem, layers, seed=5, first=6, last=13, onto=count_known(problem, layers, seed=5, first=0, last=6)),
    ):
        for one, two in zip(other, once, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-7 if jax.default_backend() == "gpu" else 0)
    errors = [independent_errors(np.array([[0.2], [0.3]]))]
    nets = count_networks(problem, errors, each=64, seed=5, first=0, last=5, chunk=2)
    again = count_networks(problem, errors, each=64, seed=5, first=0, last=5, chunk=8)
    np.testing.assert_array_equal(nets.made, again.made)
    np.testing.assert_array_equal(nets.squares, again.squares)


def test_seeds_past_32_bits_differ():
    keys = {tuple(np.asarray(jax.random.key_data(key_of(seed)))) for seed in (0, 1, 7, 2**32, 7 + 2**32, 2**63 - 1)}
    assert len(keys) == 6
    np.testing.assert_array_equal(jax.random.key_data(key_of(7)), jax.random.key_data(jax.random.key(7)))


def test_counts_go_past_32_bits():
    big = np.full((2, 1, 2), 2**31 - 5, np.int32)
    total = nothing(1, 2).more(2**32, 2**32, [big[:, 0], big, big, big], np.zeros((2, 1, 3), np.float32))
    assert total.made[0, 0] == 2**32 - 10
    assert total.samples == 2**32


def test_ties_and_constant_rows_are_decided_exactly():
    """Compressed rows that coincide, and a head compressed to nothing, decide as predict and the exact rule say."""
    plain = {"means": np.array([[1.0, 0], [0, 1.0]]), "covariances": np.eye(2), "priors": np.array([0.9, 0.1])}
    cases = [
        (np.array([[0.9, 0.1], [0.8, 0.2]]), np.zeros(2)),
        (np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0.0, 0.3])),
        (np.array([[0.5, 0.5], [0.5, 0.5]]), np.zeros(2)),
        (np.zeros((2, 2)), np.array([0.1, 0.1])),
        (np.zeros((1, 2)), np.zeros(1)),
    ]
    for weights, bias in cases:
        problem = Problem(weights=weights, bias=bias, **plain)
        for errors in ("actual", "expected"):
            (estimate,) = run(problem, scheme="symmetric", bits=[2], errors=errors, n=200_000)
            (prediction,) = predict(problem, scheme="symmetric", bits=[2], errors=errors)
            # networks, not samples, limit the expected errors: 3,328 of them, a standard error of .005 here
            se, flip_se = estimate.standard_error or 0.0, estimate.flip_rate_standard_error or 0.0
            assert estimate.risk_before == pytest.approx(prediction.risk_before, abs=5e-3)
            assert abs(estimate.distortion - prediction.distortion) <= 4.5 * se + 1e-9, (weights, errors)
            assert abs(estimate.flip_rate - prediction.flip_rate) <= 4.5 * flip_se + 1e-9, (weights, errors)


def test_the_records_standard_errors_are_the_spread_of_repeated_runs(seed):
    """Both kinds of errors, both standard errors; 60 runs, chi-square at 0.1 % both sides, so 40 % off is seen."""
    problem = random_problem(8, seed + 5)
    for errors in ("actual", "expected"):
        records = [run(problem, scheme="symmetric", bits=[3], errors=errors, n=16_384, seed=seed + i)[0] for i in range(60)]
        for value, error in (("distortion", "standard_error"), ("flip_rate", "flip_rate_standard_error")):
            spread = np.var([getattr(one, value) for one in records], ddof=1)
            said = np.mean([getattr(one, error) ** 2 for one in records])
            assert 29.6 < 59 * spread / said < 101.4, (errors, value)  # chi2.ppf([5e-4, 0.9995], 59)


def test_the_standard_error_knows_that_classes_share_their_draws(seed):
    """Near-equal class means: what one class loses by a draw, the other gains by the same draw, and D hardly varies.

    60 runs, chi-square at 0.1 % both sides; the classes taken as independent would say several times as much."""
    problem = random_problem(8, seed, shared=True)
    problem = replace(problem, means=problem.means[0] + 0.02 * (problem.means - problem.means[0]), priors=np.array([0.5, 0.5]))
    problem = replace(problem, bias=-problem.weights @ problem.means.mean(0))
    records = [run(problem, scheme="symmetric", bits=[3], n=8192, seed=seed + i)[0] for i in range(60)]
    spread = np.var([one.distortion for one in records], ddof=1)
    said = np.mean([(one.standard_error or 0.0) ** 2 for one in records])
    assert 29.6 < 59 * spread / said < 101.4
    independent = records[0].flip_rate / 8192
    assert said < independent / 4


def test_the_test_size_is_a_source_and_leaves_the_interval(seed):
    problem = random_problem(8, seed + 5)
    question: dict = dict(scheme="symmetric", bits=[3], n=50_000, seed=seed)
    plain, asked = run(problem, **question)[0], run(problem, test_size=400, method="reduced_pairs", **question)[0]
    assert asked.interval == plain.interval
    (prediction,) = predict(problem, scheme="symmetric", bits=[3], test_size=400)
    assert asked.interval_sources["test_set"] == pytest.approx(prediction.interval_sources["test_set"], rel=0.1)
    assert plain.interval_sources["test_set"] == 0


def test_the_default_is_as_good_as_a_million_pairs():
    problem = random_problem(8, 3)
    for errors in ("actual", "expected"):
        for one in run(problem, scheme="symmetric", bits=[2, 4], errors=errors):
            assert one.standard_error is not None
            assert one.standard_error <= 1.02 * np.sqrt((one.flip_rate - one.distortion**2) / 1e6)


def test_random_networks_against_averaged_risks(seed):
    """Mean and spread of the counted random networks, unequal steps, against exact risks averaged by other code."""
    for rows in (2, 1):
        problem = random_problem(10, seed + 4, rows=rows)
        steps = np.array([[0.35, 0.2], [0.1, 0.15]])[:, -rows:] * np.abs(problem.weights).max()
        errors = [independent_errors(step[:, None]) for step in steps]
        tally = count_networks(problem, errors, each=256, seed=seed, first=0, last=256)
        want = distortions(problem, steps, networks=2**16, seed=seed)
        z = []
        for j in range(2):
            D = ((tally.made - tally.mended)[j] / tally.samples) @ problem.priors
            se = np.sqrt((tally.squares[j, 0] / tally.units - D**2) / tally.units)
            z.append((D - want[j].mean()) / np.hypot(se, want[j].std() / 2**8))
        assert rejected(z) == 0
    problem = random_problem(10, seed + 4)
    record = run(problem, scheme="symmetric", bits=[3], errors="expected", networks=4096, n=2**22, seed=seed)[0]
    steps = compress(problem.weights, "symmetric", 3).steps[:, 0]
    assert record.interval_sources["network"] == pytest.approx(
        distortions(problem, steps[None], networks=2**16, seed=seed)[0].std(), rel=0.06
    )


def test_widths_counted_together_keep_the_ties_each_has_alone():
    """Opposite rows: their errors are so too, though two bits clip one side and not the other."""
    problem = random_problem(16, 5)
    w = problem.weights[1] - problem.weights[0]
    opposite = replace(problem, weights=np.stack([-w, w]) / 2)
    options: dict = {"scheme": "affine", "errors": "expected", "networks": 512, "n": 2**18}
    together = run(opposite, bits=[2, 5], **options)
    for bits, record in zip((2, 5), together, strict=True):
        assert run(opposite, bits=[bits], **options)[0].distortion == record.distortion
    for record, predicted in zip(together, predict(opposite, scheme="affine", bits=[2, 5], errors="expected"), strict=True):
        assert record.standard_error is not None
        assert abs(record.distortion - predicted.distortion) < 4 * record.standard_error


def test_the_networks_asked_for_are_drawn():
    problem = random_problem(5, 2)
    for networks, n in ((600, None), (4096, None), (3000, 100_000)):
        (record,) = run(problem, scheme="symmetric", bits=[3], errors="expected", networks=networks, n=n)
        assert networks <= record.provenance["networks"] <= networks + 256


def test_same_fields_as_a_prediction():
    problem = random_problem(5, 2)
    (estimate,) = run(problem, scheme="affine", bits=[3], n=100_000)
    (prediction,) = predict(problem, scheme="affine", bits=[3])
    assert set(prediction.as_dict()) <= set(estimate.as_dict())
    assert estimate.rate == prediction.rate
    assert estimate.n is not None
    assert estimate.n >= 100_000


def test_more_classes_random_networks_against_brute_force(seed):
    """Full-space random layers of four classes: the mean over 300 drawn networks, each on its own samples."""
    problem, rng = random_problem(7, seed + 8, K=4), np.random.default_rng(seed)
    (record,) = run(problem, scheme="symmetric", bits=[3], errors="expected", per_channel=True, n=1_000_000, seed=seed)
    step = compress(problem.weights, "symmetric", 3, per_channel=True).steps
    found = []
    for i in range(300):
        What = problem.weights + (rng.random(problem.weights.shape) - 0.5) * step
        found.append(brute_force(problem, [What], n=3000, seed=1000 * seed + i)[0])
    found = np.array(found)
    se = found.std(0, ddof=1) / np.sqrt(300)
    assert abs(record.distortion - found[:, 2].mean()) < 4.5 * np.hypot(se[2], record.standard_error or 0.0)
    assert abs(record.flip_rate - found[:, 3].mean()) < 4.5 * np.hypot(se[3], record.flip_rate_standard_error or 0.0)
    assert record.interval_sources["network"] == pytest.approx(
        np.sqrt(max(0, found[:, 2].var() - found[:, 3].mean() / 3000)), rel=0.3
    )


def test_a_grid_counts_what_each_problem_counts_alone():
    """One compiled program for problems of one shape; shared and tied rows among them."""
    problems = [random_problem(7, i, K=3, shared=True) for i in range(3)]
    layers = [[compress(p.weights, "symmetric", bits).weights for bits in (2, 4)] for p in problems]
    layers[1][0] = np.repeat(layers[1][0][:1], 3, 0)  # equal rows
    grid = count_grid(problems, layers, seed=3, first=0, last=3)
    for problem, known, tally in zip(problems, layers, grid, strict=True):
        for one, two in zip(count_known(problem, known, seed=3, first=0, last=3), tally, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-12)
    assert len({int(tally.made.sum()) for tally in grid}) == 3


DEVICES = """
import jax, json, sys
import numpy as np
from simulate.sampling.random_networks import count_networks
from simulate.sampling.paired_counting import count_known
from tests.support.problems import random_problem
from theory.setting.error_law import independent_errors, uniform_errors
problem = random_problem(7, 1, K=4)
layers = [problem.weights + 0.1 * np.random.default_rng(i).standard_normal(problem.weights.shape) for i in range(2)]
found = [
    count_known(problem, layers, seed=5, first=0, last=5),
    count_networks(problem, [independent_errors(np.full((4, 1), 0.2))] * 2, each=64, seed=5, first=0, last=3),
]
print(json.dumps([len(jax.local_devices()), [[np.asarray(x).tolist() for x in one] for one in found]]))
"""


@pytest.mark.slow
def test_one_and_two_devices_count_the_same():
    """Counts equal, sums to 1e-12; in fresh processes, since the number of devices is fixed when JAX starts."""
    found = []
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", DEVICES],
            env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=True,
        )
        seen, tallies = json.loads(done.stdout)
        assert seen == devices
        found.append(tallies)
    for one, two in zip(*found, strict=True):
        for a, b in zip(one[:6], two[:6], strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(one[6:], two[6:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
