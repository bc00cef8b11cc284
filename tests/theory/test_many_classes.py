"""More than two classes: theory against brute force and counting, in one family; wrong theories refused."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2
from scipy.stats import t as student

from simulate import run
from simulate.experiments.textbook import plain_mean
from simulate.generator import synthetic
from simulate.sampling.blocks import BLOCK
from simulate.sampling.paired_counting import brute_force, count_known
from tests.support import cases
from tests.support.problems import exact_flips, exact_risk, random_problem
from tests.support.statistical import rejected
from theory import small_steps, statistics_variance
from theory.budget import Budget
from theory.integrals.line_averages import SETS
from theory.integrals.orthant import SCRAMBLINGS
from theory.prediction import predict
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.schemes import compress

SCHEMES = [(scheme, bits) for scheme in ("symmetric", "affine", "midrise") for bits in (2, 3, 4)]
PROBLEMS = [(2, 5), *[(3, 12)] * 2, *[(5, 20)] * 2]  # (K, d), few shapes: less to compile
MORE = [*[(3, 12)] * 4, *[(5, 20)] * 4, *[(10, 24)] * 4, (30, 48), (100, 128)]


# cut to what the counts can see; the reported errors, part of every z-score, grow with that
SMALL = Budget(orthant_work=1e7, line_work=4e6, random_line_work=2.5e7, average_precision=1e-2)


def known(problem, layers, **how):
    return cases.known(problem, layers, **{"budget": SMALL, **how})


def expected(problem, steps, **how):
    return cases.expected(problem, steps.reshape(-1), budget=SMALL, **how)


def predicted(problem, **how):
    return predict(problem, **{"budget": SMALL, **how})


@pytest.fixture(scope="module")
def cells(request):
    """5 problems of 2 to 5 classes, 9 schemes and widths each."""
    return _cells(PROBLEMS, request.config.getoption("--seed"))


def _cells(problems, seed):
    """Theory and counts, (cells, 2): distortion and flips."""
    found = []
    for i, (K, d) in enumerate(problems):
        problem = random_problem(d, seed + 100 + i, K=K, shared=K == 100)
        chosen = SCHEMES if K <= 30 else SCHEMES[1:3]
        layers = np.stack([compress(problem.weights, *one).weights for one in chosen])
        tally = count_known(problem, list(layers), seed=seed + i, first=0, last=16 if K <= 10 else 4)
        for j, change in enumerate(known(problem, layers, seed=seed)):
            found.append((problem, layers[j], *_sides(problem, change, tally, j)))
    return found


def _sides(problem, change, tally, j):
    pi, n = problem.priors, tally.samples
    simulated = np.array([(tally.made[j] - tally.mended[j]) @ pi, tally.flips[j] @ pi]) / n
    se = np.sqrt(np.maximum(tally.squares[j] / n - simulated**2, 1e-300) / n)
    errors = np.array([change.error, change.flips_error])
    return np.array([change.distortion @ pi, change.flips @ pi]), simulated, se, errors


def scores(cells, theory=None):
    """z of distortion and flips; ``theory(problem, What, values)`` replaces what the theory says."""
    z = []
    for problem, What, values, simulated, se, errors in cells:
        said = values if theory is None else theory(problem, What, values)
        z.append((simulated - said) / np.sqrt(se**2 + (errors / 2) ** 2))
    return np.array(z)


def test_counts_agree_with_theory_in_one_family(cells):
    z = scores(cells)
    assert z.size == 2 * 45
    assert rejected(z) == 0, np.abs(z).max()


@pytest.mark.slow
def test_counts_agree_with_theory_up_to_a_hundred_classes(cells, seed):
    """The whole family: every problem and layer, distortion and flips of each."""
    z = np.concatenate([scores(cells), scores(_cells(MORE, seed + 50))])
    assert z.size == 2 * (45 + 119)
    assert rejected(z) == 0, np.abs(z).max()


def swapped_classes(problem, What, values):
    """The means of classes 0 and 1 exchanged."""
    order = [1, 0, *range(2, problem.classes)]
    (change,) = known(replace(problem, means=problem.means[order]), What[None])
    return np.array([change.distortion @ problem.priors, change.flips @ problem.priors])


@in_float64
def top_rival(problem, What, values):
    """Each class against its nearest rival alone: no ties between three."""
    total = 0.0
    for k in range(problem.classes):
        risks = []
        for W in (problem.weights, What):
            w, c = W[k] - W, problem.bias[k] - problem.bias
            u = (w @ problem.means[k] + c) / np.sqrt(np.maximum(np.einsum("ji,il,jl->j", w, problem.covariance(k), w), 1e-300))
            u[k] = np.inf
            risks.append(u.min())
        from scipy.special import ndtr

        total += problem.priors[k] * (ndtr(-risks[1]) - ndtr(-risks[0]))
    return np.array([total, values[1]])


@pytest.mark.parametrize("mistake", [pytest.param(swapped_classes, marks=pytest.mark.slow), top_rival])
def test_a_wrong_theory_is_refused(cells, mistake):
    some = [one for one in cells if 3 <= one[0].classes <= 5][::7]
    assert rejected(scores(some, mistake)) > 0


@pytest.mark.slow
def test_ignored_priors_are_refused(cells):
    """The same problem, layer and bias, its classes weighted alike."""

    def alike(problem, What, values):
        equal = replace(problem, priors=np.full(problem.classes, 1 / problem.classes))
        (change,) = known(equal, What[None])
        return np.array([change.distortion @ equal.priors, change.flips @ equal.priors])

    assert rejected(scores([one for one in cells if 3 <= one[0].classes <= 5][::7], alike)) > 0


def test_ten_per_cent_too_much_is_refused(cells):
    some = [one for one in cells if one[0].classes >= 3]
    assert rejected(scores(some, lambda p, W, values: values * 1.1)) > 0


def test_two_classes_equal_the_closed_form(seed):
    problem = random_problem(7, seed)
    What = compress(problem.weights, "symmetric", 3).weights
    (change,) = known(problem, What[None], seed=seed, budget=replace(SMALL, orthant_precision=0.0))
    assert change.method == "orthants"
    assert change.distortion @ problem.priors == pytest.approx(exact_risk(problem, What) - exact_risk(problem), abs=1e-8)
    assert abs(change.flips @ problem.priors - exact_flips(problem, What)) <= 2 * change.flips_error


@pytest.mark.slow
def test_more_classes_than_features_go_along_lines(seed):
    problem = random_problem(4, seed, K=9)
    (record,) = predicted(problem, scheme="symmetric", bits=[3], seed=seed)
    assert record.method == "lines"
    What = compress(problem.weights, "symmetric", 3).weights
    ((before, _, distortion, flips),) = brute_force(problem, [What], n=400_000, seed=seed)
    noise = np.sqrt(flips / 400_000)
    assert abs(record.distortion - distortion) < 4.5 * noise + 2 * record.numerical_error
    assert abs(record.flip_rate - flips) < 4.5 * np.hypot(noise, record.flip_rate_error / 2)
    counted = np.sqrt(before * (1 - before) / 400_000)
    assert abs(record.risk_before - before) < 4.5 * np.hypot(counted, record.risk_before_error / 2)
    (average,) = predicted(problem, scheme="symmetric", bits=[3], errors="expected", seed=seed)
    assert average.method == "line_average"
    (counted,) = run(problem, scheme="symmetric", bits=[3], errors="expected", n=400_000, seed=seed)
    se = counted.standard_error or 0.0
    assert abs(average.distortion - counted.distortion) < 4.5 * np.hypot(se, average.numerical_error / 2)


@pytest.mark.slow
def test_equal_rows_go_to_the_lowest_class(seed):
    """Two rows the same, before or after compression: the later class is never decided."""
    plain = random_problem(6, seed, K=4)
    tied = replace(plain, weights=plain.weights[[0, 1, 1, 3]], bias=plain.bias[[0, 1, 1, 3]])
    (change,) = known(tied, plain.weights[None])
    assert change.before[2] == pytest.approx(1, abs=1e-12)
    tied_after = replace(plain, bias=tied.bias)
    (back,) = known(tied_after, tied.weights[None])
    assert (back.before + back.distortion)[2] == pytest.approx(1, abs=1e-9)
    ((_, after, distortion, flips),) = brute_force(tied_after, [tied.weights], n=200_000, seed=seed)
    noise = np.hypot(np.sqrt(after * (1 - after) / 200_000), np.hypot(back.before_error, back.error) / 2)
    assert abs((back.before + back.distortion) @ plain.priors - after) < 4.5 * noise
    assert abs(back.distortion @ plain.priors - distortion) < 4.5 * np.hypot(np.sqrt(flips / 200_000), back.error / 2)


@pytest.mark.slow
def test_the_distortion_of_known_layers_is_sure_to_a_hundredth_of_a_point(seed):
    budget = replace(SMALL, orthant_work=2e8)
    for K, d, bits in ((10, 30, (2, 3, 5)), (40, 48, (4,))):
        records = predicted(random_problem(d, seed, K=K), scheme="symmetric", bits=list(bits), seed=seed, budget=budget)
        assert all(one.method == "orthants" and one.numerical_error < 1e-4 for one in records)


@pytest.mark.slow
def test_equal_compressed_rows_by_orthants(seed):
    problem = random_problem(12, seed + 5, K=4)
    What = problem.weights[[0, 1, 1, 3]]
    tied = replace(problem, bias=problem.bias[[0, 1, 1, 3]])
    (change,) = known(tied, What[None], method="orthants", seed=seed)
    assert (change.before + change.distortion)[2] == pytest.approx(1, abs=1e-12)
    ((_, after, _, _),) = brute_force(tied, [What], n=200_000, seed=seed)
    noise = np.hypot(np.sqrt(after * (1 - after) / 200_000), np.hypot(change.before_error, change.error) / 2)
    assert abs((change.before + change.distortion) @ tied.priors - after) < 4.5 * noise


@in_float64
def test_fitted_statistics_of_two_classes_have_the_binary_variance():
    from theory.integrals import two_classes
    from theory.integrals.line_averages import known_lines
    from theory.integrals.two_classes import pair_of
    from theory.setting.problem import margin

    counts = np.array([300, 700])
    problem = replace(random_problem(6, 2), counts=counts)
    What = compress(problem.weights, "symmetric", 2).weights
    (change,) = known_lines(problem, What[None], seed=0)
    within = statistics_variance.within_classes(problem, What[None])
    assert within is not None
    pair = pair_of(problem)
    w, _ = margin(What, problem.bias)
    at, by = two_classes.margin(pair), two_classes.change(pair, w - pair.w, np.zeros(()))
    want = two_classes.statistics_variance(pair.priors, counts.astype(float), at, by)
    assert statistics_variance.statistics_variance(
        problem, change.distortion, change.changed, float(within[0])
    ) == pytest.approx(float(want), rel=0.02)


@pytest.mark.parametrize("bits", [pytest.param(12, marks=pytest.mark.slow), 16])
def test_small_distortions_are_not_lost_to_rounding(bits, seed):
    """Averages at many bits against the square law, whatever size they are."""
    problem = random_problem(8, seed + 11, K=3, shared=True)
    (record,) = predicted(problem, scheme="symmetric", bits=[bits], errors="expected", seed=seed)
    law = small_steps.small_steps(
        problem, compress(problem.weights, "symmetric", bits).steps[:, 0], draws=2**18, seed=seed
    ).distortion
    assert record.method == "orthant_average"
    assert abs(record.distortion - law.value) < 3 * np.hypot(record.numerical_error, law.error)
    assert record.numerical_error < 0.02 * law.value


@pytest.mark.slow
def test_permuted_classes_and_shifted_logits(seed):
    problem = random_problem(10, seed, K=5)
    order = np.array([3, 0, 4, 1, 2])
    moved = replace(
        problem,
        weights=problem.weights[order],
        bias=problem.bias[order] + 3.7,
        priors=problem.priors[order],
        means=problem.means[order],
        covariances=problem.covariances[order],
    )
    for errors in ("actual", "expected"):
        question: dict = dict(scheme="symmetric", bits=[3], errors=errors, seed=seed)
        (one,), (other,) = predicted(problem, **question), predicted(moved, **question)
        assert abs(one.distortion - other.distortion) <= 2 * (one.numerical_error + other.numerical_error) + 1e-12
        for i, k in enumerate(order):
            assert other.per_class[i]["recall_after"] == pytest.approx(one.per_class[k]["recall_after"], abs=0.02)


EXPECTED = [(3, 16, 2), (4, 8, 3), (10, 24, 3), (10, 64, 4)]


@pytest.fixture(scope="module")
def averages(request):
    seed, found = request.config.getoption("--seed"), []
    for K, d, bits in EXPECTED:
        problem = random_problem(d, seed + 50, K=K, shared=True)
        question: dict = dict(scheme="symmetric", bits=[bits], errors="expected", per_channel=True, seed=seed)
        found.append((problem, bits, predicted(problem, **question)[0], run(problem, standard_error=6e-4, **question)[0]))
    return found


@pytest.mark.slow
def test_expected_distortion_and_flips(averages):
    for _, _, record, counted in averages:
        se = counted.standard_error
        assert abs(record.distortion - counted.distortion) < 4.5 * np.hypot(se, record.numerical_error / 2)
        assert record.numerical_error < 0.03 * abs(record.distortion)  # with a quarter of the budget
        noise = np.hypot(counted.flip_rate_standard_error, record.flip_rate_error / 2)
        assert abs(record.flip_rate - counted.flip_rate) < 4.5 * noise
        assert noise < 0.02 * counted.flip_rate
        recalls = [(a["recall_after"], b["recall_after"]) for a, b in zip(record.per_class, counted.per_class, strict=True)]
        np.testing.assert_allclose(*np.transpose(recalls), atol=0.02)


@pytest.mark.slow
def test_spread_over_networks(averages, seed):
    """1,024 networks of 4,096 samples a class: known to 5 % (95 %)."""
    for problem, bits, record, _ in averages:
        question: dict = dict(scheme="symmetric", bits=[bits], errors="expected", per_channel=True, seed=seed)
        (counted,) = run(problem, n=1024 * 4096 * problem.classes, networks=1024, **question)
        assert record.interval_sources["network"] == pytest.approx(counted.interval_sources["network"], rel=4 * 0.05 / 2)


@pytest.mark.slow
def test_mistakes_in_the_expected_distortion_are_seen(averages):
    """Plain mean of |z|^2; errors of the rows correlated by a half; all classes of one step: each 4 standard errors off."""
    wrong = {"unconditional": 0, "correlated": 0, "one step": 0}
    for problem, bits, record, counted in averages:
        se = np.hypot(counted.standard_error, record.numerical_error / 2)
        steps = compress(problem.weights, "symmetric", bits, per_channel=True).steps[:, 0]
        wrong["unconditional"] += abs(plain_mean(problem, steps[None])[0] - counted.distortion) > 4 * se
        halved = expected(problem, steps * np.sqrt(0.5)).distortion @ problem.priors
        wrong["correlated"] += abs(halved - counted.distortion) > 4 * se
        common = expected(problem, np.full_like(steps, steps.max())).distortion @ problem.priors
        wrong["one step"] += abs(common - counted.distortion) > 4 * se
    assert all(count >= 3 for count in wrong.values()), wrong


@pytest.mark.slow
def test_statistics_source_is_the_sampling_spread(seed):
    """Refit 40 times on 1,500 samples: chi-square at 0.1 % both sides."""
    from simulate.feature_models import gaussian
    from tests.support.samples import sample

    problem, rng = random_problem(5, seed + 3, K=3), np.random.default_rng(seed)
    fits = [gaussian.problem(sample(problem, 1500, rng)) for _ in range(40)]
    records = [predicted(one, scheme="symmetric", bits=[3], seed=seed)[0] for one in fits]
    spread = np.var([one.distortion for one in records], ddof=1)
    said = np.mean([one.interval_sources["statistics"] ** 2 for one in records])
    low, high = chi2.ppf([5e-4, 1 - 5e-4], 39)
    assert low < 39 * spread / said < high


def test_interval_of_networks_on_a_test_set(seed):
    """400 networks, each on its own 2,000 samples: 95 % inside, at p = 1e-4."""
    from scipy.stats import binom

    problem, rng = random_problem(20, seed + 9, K=5), np.random.default_rng(seed)
    (record,) = predicted(problem, scheme="symmetric", bits=[3], errors="expected", test_size=2000, seed=seed)
    step, inside = compress(problem.weights, "symmetric", 3).steps, 0
    for i in range(400):
        What = problem.weights + (rng.random(problem.weights.shape) - 0.5) * step
        ((_, _, distortion, _),) = brute_force(problem, [What], n=2000, seed=1000 * seed + i)
        inside += record.interval[0] <= distortion <= record.interval[1]
    low, high = binom.interval(1 - 1e-4, 400, 0.95)
    assert low <= inside <= high, inside


@pytest.mark.slow
def test_many_classes_go_along_lines():
    """K = 150, d = 200: lines alone, finite and consistent."""
    rng = np.random.default_rng(0)
    K, d = 150, 200
    means = 0.25 * rng.standard_normal((K, d))
    problem = Problem(
        weights=means, bias=-0.5 * np.sum(means**2, 1), priors=np.full(K, 1 / K), means=means, covariances=np.eye(d)
    )
    (record,) = predicted(problem, scheme="symmetric", bits=[6])
    assert record.method == "lines"
    tally = count_known(problem, [compress(problem.weights, "symmetric", 6).weights], seed=0, first=0, last=2)
    before = float(tally.wrong @ problem.priors) / (2 * BLOCK)
    known = np.hypot(np.sqrt(before * (1 - before) / (2 * BLOCK)), record.risk_before_error / 2)
    assert abs(record.risk_before - before) < 4.5 * known
    counted = float(tally.flips[0] @ problem.priors) / (2 * BLOCK)
    noise = np.hypot(np.sqrt(counted / (2 * BLOCK)), record.flip_rate_error / 2)
    assert abs(record.flip_rate - counted) < 4.5 * noise
    assert noise < 0.1 * counted
    assert jnp.isfinite(record.distortion)


@pytest.mark.slow
@pytest.mark.parametrize("K", [3, 4, 11, 51])
def test_the_error_of_the_risk_before_is_honest(K, seed):
    """Exchangeable classes, known risk 1 - 1/K: outside the 95 % half-width in at most 6 of 30 runs (binomial, 1e-3)."""
    problem = synthetic(means=np.zeros((K, K)), covariance=np.eye(K))
    problem = replace(problem, weights=np.eye(K), bias=np.zeros(K))
    records = [predict(problem, scheme="symmetric", bits=[8], seed=30 * seed + i)[0] for i in range(30)]
    assert sum(abs(one.risk_before - (1 - 1 / K)) > one.risk_before_error for one in records) <= 6
    assert all(one.risk_before_error < 2e-3 for one in records)


@pytest.mark.parametrize(
    ("method", "errors", "sets"),
    [
        pytest.param("orthants", "actual", SCRAMBLINGS, marks=pytest.mark.slow),
        pytest.param("lines", "actual", SETS, marks=pytest.mark.slow),
        pytest.param("orthant_average", "expected", SCRAMBLINGS, marks=pytest.mark.slow),
        pytest.param("line_average", "expected", SCRAMBLINGS, marks=pytest.mark.slow),
    ],
)
def test_reported_errors_are_the_spread_over_seeds(method, errors, sets, seed):
    """64 runs on other points: the variance of a number over that of its reported error is at most what chi-square allows once
    in 10,000 (1.8; an error halved gives 2 to 6). Orthants say twice the variance that they have."""
    problem, runs = random_problem(5, 60, K=3), 64
    small = Budget(
        orthant_work=1e6, line_work=1e6, random_line_work=4e6, random_line_rounds=1, pair_work=2e6, average_precision=0.1
    )
    question: dict = dict(scheme="symmetric", bits=[3], errors=errors, method=method, budget=small)
    records = [predict(problem, seed=runs * seed + i, **question)[0] for i in range(runs)]
    for value, error in (
        ("distortion", "numerical_error"),
        ("risk_before", "risk_before_error"),
        ("flip_rate", "flip_rate_error"),
    ):
        values, said = (np.array([getattr(record, name) for record in records]) for name in (value, error))
        quantile = student.ppf(0.975, (SETS if value == "flip_rate" and method == "orthants" else sets) - 1)  # flips by lines
        ratio = values.var(ddof=1) / np.mean((said / quantile) ** 2)
        assert 0.2 < ratio < chi2.ppf(1 - 1e-4, runs - 1) / (runs - 1), (value, ratio)
