"""``simulate check``: tests of the right size and with power, effects that are those of the theory."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr, shapiro, uniform

import simulate.__main__
from simulate.experiments import hypotheses, power
from simulate.experiments import hypothesis_tests as tests
from simulate.experiments.hypotheses import check
from simulate.feature_models.fit import fit
from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from tests.support.commands import code, one_line
from tests.support.problems import random_problem
from tests.support.samples import sample
from theory.error_model import uniform as uniform_model
from theory.expectation import mean_distortion
from theory.integrals import logit_noise
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.precision import in_float64
from theory.setting.schemes import compress

CHEAP = [
    hypotheses.MARGINS,
    hypotheses.UNIFORM,
    hypotheses.VARIANCE,
    hypotheses.WEIGHTS,
    hypotheses.ROWS,
    hypotheses.ENTRIES,
    hypotheses.NOISE,
]


def test_holm():
    np.testing.assert_allclose(tests.holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(tests.holm(np.array([0.5, 0.9])), [1.0, 1.0])


@pytest.mark.parametrize("name", CHEAP)
def test_false_alarms_are_no_more_than_said(seed, name):
    sets = 40
    assert power.rejections(name, 0.0, sets=sets, seed=seed) <= power.most_false_alarms(sets)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(power.CASES) - set(CHEAP)))
def test_false_alarms_of_exchanged_labels(seed, name):
    assert power.rejections(name, 0.0, sets=20, seed=seed) <= power.most_false_alarms(20)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(power.CASES))
def test_false_alarms_over_a_thousand_data_sets(seed, name):
    assert power.rejections(name, 0.0, sets=1000, seed=seed) <= power.most_false_alarms(1000)


@pytest.mark.parametrize("name", sorted(power.CASES))
def test_what_is_far_from_true_is_rejected(seed, name):
    farthest = power.CASES[name][2][-1]
    assert power.rejections(name, farthest, sets=5, seed=seed) >= 4


def test_kurtosis_has_the_moments_it_is_held_against(seed):
    """Mardia's exact mean and variance, by 4,000 sets of samples; the uncorrected mean d (d + 2) is seen to be wrong."""
    rng, n, d = np.random.default_rng(seed), 40, 5
    values = tests.kurtosis(rng.standard_normal((4000, n, d)))
    scores = tests._standard(values, n, d)
    assert abs(scores.mean()) < 4 / np.sqrt(4000)
    assert scores.std() == pytest.approx(1, rel=0.1)
    assert abs(values.mean() - d * (d + 2)) > 20 * values.std() / np.sqrt(4000)
    assert np.isnan(tests.kurtosis(np.ones((1, 9, 2)))).all()
    z = rng.standard_normal((7, 2))  # by the definition, one pair of samples at a time
    covariance = np.cov(z.T, bias=True)
    direct = np.mean([(x @ np.linalg.solve(covariance, x)) ** 2 for x in z - z.mean(0)])
    assert tests.kurtosis(z[None])[0] == pytest.approx(direct)


SHAPES = [(3, 20, 1), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in [(3, 25, 2), (2, 60, 8), (3, 30, 40)])]


@pytest.mark.parametrize(("classes", "each", "features"), SHAPES)
def test_false_alarms_of_other_shapes(seed, classes, each, features):
    """One feature, few samples, more features than samples a class: Gaussian, equal covariances."""
    alarms = np.zeros(2)
    for i in range(30):
        rng = np.random.default_rng([seed, i])
        y = np.repeat(np.arange(classes), each)
        z = rng.standard_normal((len(y), features)) + y[:, None]
        for which, test in enumerate((tests.gaussian_features(z, y), tests.equal_covariances(z, y, rng))):
            alarms[which] += test is not None and test.p_value < power.LEVEL
    assert alarms.max() <= power.most_false_alarms(30), alarms


def test_constant_features_change_nothing(seed):
    """A dead feature and one that another repeats, as after a ReLU."""
    features = sample(random_problem(6, seed, K=3), 600, np.random.default_rng(seed))
    z = np.exp(0.3 * features.features)
    more = np.concatenate([z, np.zeros((600, 1)), z[:, :1]], 1)
    plain, dead = (tests.gaussian_features(x, features.labels) for x in (z, more))
    assert plain is not None
    assert dead is not None
    assert dead.statistic == pytest.approx(plain.statistic)


def p_of(test: tests.Test | None) -> float:
    assert test is not None
    return test.p_value


def test_p_values_are_those_of_scipy(seed):
    problem = random_problem(30, seed)
    features = sample(problem, 800, np.random.default_rng(seed))
    t = features.features @ (problem.weights[1] - problem.weights[0])
    parts = [t[features.labels == k] for k in (0, 1)]
    margins = min(1.0, 2 * min(float(shapiro((x - x.mean()) / x.std()).pvalue) for x in parts))
    assert p_of(tests.gaussian_margins(features.features, features.labels, problem.weights, problem.bias)) == pytest.approx(
        margins
    )
    layer = compress(problem.weights, "symmetric", 3)
    E, W = (layer.weights - problem.weights) / layer.steps[0], problem.weights
    found = hypotheses.error_tests(layer, features, np.random.default_rng(0))
    assert p_of(found[hypotheses.UNIFORM]) == pytest.approx(float(kstest(E.ravel(), uniform(-0.5, 1).cdf).pvalue))
    assert p_of(found[hypotheses.WEIGHTS]) == pytest.approx(float(np.asarray(pearsonr(E.ravel(), W.ravel()))[1]))


@pytest.mark.slow
def test_company_changes_no_number(seed):
    """The same layer, asked alone or beside another width, has the same statistics."""
    features = sample(random_problem(6, seed, K=4), 200, np.random.default_rng(seed))
    alone, beside = (
        {r["hypothesis"]: r["statistic"] for r in check(features, bits=bits, seed=seed) if r["bits"] == 4}
        for bits in ([4], [3, 4])
    )
    assert alone == beside


def test_features_of_zero_have_no_noise(seed):
    """A third of the features are 0: the noise of the others is tested."""
    rng = np.random.default_rng(seed)
    z = np.abs(rng.standard_normal((300, 6))) * (np.arange(300) % 3 > 0)[:, None]
    assert tests.gaussian_noise(rng.uniform(-0.5, 0.5, (12, 6)), z, rng) is not None
    assert tests.gaussian_noise(rng.uniform(-0.5, 0.5, (12, 6)), 0 * z, rng) is None


@pytest.mark.slow
def test_p_values_are_corrected_in_two_families(seed):
    """The four tests of the features, whatever the widths; and six of the errors at each of two widths."""
    features = sample(random_problem(12, seed, K=5), 800, np.random.default_rng(seed))
    records = {(r["hypothesis"], r["bits"]): r["p_value"] for r in check(features, bits=[3, 8], seed=seed)}
    z, y, stream = features.features, features.labels, hypotheses.stream
    of_features: dict = {
        hypotheses.GAUSSIAN: tests.gaussian_features(z, y),
        hypotheses.MARGINS: tests.gaussian_margins(z, y, features.weights, features.bias),
        hypotheses.COVARIANCES: tests.equal_covariances(z, y, stream(seed, hypotheses.COVARIANCES)),
        hypotheses.BAYES: tests.bayes_layer(z, y, z @ features.weights.T + features.bias, stream(seed, hypotheses.BAYES)),
    }
    of_errors: dict = {}
    for width in (3, 8):
        layer, rng = compress(features.weights, "symmetric", width), stream(seed, hypotheses.NOISE, width)
        found = hypotheses.error_tests(layer, features, rng)
        of_errors |= {(name, width): test for name, test in found.items()}
    assert (len(of_features), len(of_errors)) == (4, 12)
    corrected: dict = {}
    for family in (of_features, of_errors):
        corrected |= dict(zip(family, tests.holm(np.array([p_of(test) for test in family.values()])), strict=True))
    for (name, width), p in records.items():
        assert p == pytest.approx(corrected[name if name in corrected else (name, width)])


@in_float64
def test_the_effects_are_those_of_the_corrected_noise(seed):
    """Tied rows double the error variance of the margin; a coarse step's errors with their gain and what is left."""
    problem = random_problem(60, seed)
    features = sample(problem, 400, np.random.default_rng(seed))
    w = problem.weights[1] - problem.weights[0]
    tied = replace(features, weights=np.stack([-w, w]) / 2)
    found = {r["hypothesis"]: r for r in check(tied, bits=[4])}
    model = uniform_model(tied.weights, independent_errors(compress(tied.weights, "symmetric", 4).steps))
    labels = np.bincount(tied.labels) / 400
    single, double = (
        float(logit_noise.expected(tied, model._replace(rows=model.rows * x)).distortion @ labels) for x in (1, np.sqrt(2))
    )
    record = found["errors independent between rows"]
    assert not record["holds"]
    assert record["statistic"] == pytest.approx(59)  # squared correlation 1, of 1/59 expected
    assert record["distortion"] == pytest.approx(single)
    assert record["effect"] == pytest.approx(double - single, rel=1e-6)

    found = {r["hypothesis"]: r for r in check(features, bits=[2])}
    layer = compress(problem.weights, "symmetric", 2)
    E, W = layer.weights - problem.weights, problem.weights
    alpha = np.sum(E * W) / np.sum(W**2)
    plain = uniform_model(W, independent_errors(layer.steps))
    left = np.sqrt(1 - alpha**2 * np.sum(W**2) / np.sum(E**2))
    gained = plain._replace(mean=(1 + alpha) * W, rows=plain.rows * left)
    with_gain, without = (float(logit_noise.expected(features, x).distortion @ labels_of(features)) for x in (gained, plain))
    assert found["errors uncorrelated with the weights"]["effect"] == pytest.approx(with_gain - without, rel=1e-6)
    assert not found["errors uncorrelated with the weights"]["holds"]


@pytest.mark.slow
@in_float64
def test_effects_lead_from_what_is_assumed_to_what_was_measured(seed):
    """Clearly unequal covariances, a perturbed layer: signs and values of the effects, not only their size."""
    problem = random_problem(10, seed, K=3)
    problem = replace(problem, covariances=problem.covariances * np.array([0.5, 1.0, 2.0])[:, None, None])
    features = sample(problem, 4000, np.random.default_rng(seed))
    found = {r["hypothesis"]: r for r in check(features, bits=[2], training=features.take(np.arange(500)))}
    fitted, steps = fit(features), compress(features.weights, "symmetric", 2).steps
    measured, _ = mean_distortion(fitted, steps)
    one = np.tensordot(fitted.priors, fitted.covariances, 1)
    covariances = found[hypotheses.COVARIANCES]
    assert covariances["distortion"] == pytest.approx(mean_distortion(replace(fitted, covariances=one), steps)[0])
    assert covariances["distortion"] + covariances["effect"] == pytest.approx(measured)
    there = found[hypotheses.TRAINING]
    assert there["distortion"] == pytest.approx(mean_distortion(fit(features.take(np.arange(500))), steps)[0])
    assert there["distortion"] + there["effect"] == pytest.approx(measured)
    layer, labels = compress(features.weights, "symmetric", 2), labels_of(features)
    E, plain = layer.weights - features.weights, uniform_model(features.weights, independent_errors(layer.steps))
    free, loud = (
        float(logit_noise.expected(features, model).distortion @ labels)
        for model in (plain, plain._replace(rows=np.full((3, 1), np.sqrt(np.mean(E**2)))))
    )
    assert found[hypotheses.GAUSSIAN]["distortion"] + found[hypotheses.GAUSSIAN]["effect"] == pytest.approx(free)
    assert found[hypotheses.VARIANCE]["effect"] == pytest.approx(loud - free, rel=1e-6)


@pytest.mark.slow
def test_the_effect_of_the_bayes_rule_is_that_of_other_labels(seed):
    """Labels that follow the layer's posteriors: no effect beyond noise. Labels that are always right: the effect is positive,
    errors cost more than the posteriors say."""
    problem = synthetic(classes=4, features=16, separation=2.0, layer="optimal", seed=seed)
    z, y = draw(problem, 6000, np.random.default_rng(seed))
    features = Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)
    record = next(r for r in check(features, bits=[2]) if r["hypothesis"] == hypotheses.BAYES)
    assert abs(record["effect"]) < 4.5 * record["effect_standard_error"]
    decided = np.argmax(z @ problem.weights.T + problem.bias, 1)
    swapped = np.where(np.arange(6000) % 25 == 0, (decided + 1) % 4, decided)
    record = next(r for r in check(replace(features, labels=swapped), bits=[2]) if r["hypothesis"] == hypotheses.BAYES)
    assert not record["holds"]
    assert record["effect"] > 3 * record["effect_standard_error"]


def test_the_error_of_an_effect_is_that_of_other_errors(seed):
    """Layers whose errors are uniform: effects over what is said of their noise stay of order 1, positive features included."""
    scores = []
    for i in range(8):
        rng = np.random.default_rng([seed, i])
        z = np.abs(rng.standard_normal((400, 30))) + 0.3 * np.eye(30)[rng.integers(30, size=400)]
        W = rng.standard_normal((6, 30))
        features = Features(features=z, labels=np.argmax(z @ W.T, 1), weights=W, bias=np.zeros(6))
        effects = hypotheses._error_effects(hypotheses._Base(features, compress(W, "symmetric", 5), i))
        for name in (hypotheses.VARIANCE, hypotheses.WEIGHTS, hypotheses.ENTRIES, hypotheses.ROWS):
            effect = effects[name][1]
            assert effect is not None
            scores.append(effect.change / effect.error)
    assert np.mean(np.square(scores)) < 3
    assert np.max(np.abs(scores)) < 5


def labels_of(features: Features) -> np.ndarray:
    return np.bincount(features.labels, minlength=features.classes) / len(features.labels)


@pytest.mark.slow
def test_gaussian_features_have_no_effect_but_noise(seed):
    """Enough samples of a Gaussian problem with equal covariances and its Bayes rule: nothing of the features is rejected, and
    every effect is within its noise; the distortion is that of ``predict``."""
    problem = synthetic(classes=4, features=16, separation=2.5, layer="optimal", seed=seed)
    z, y = draw(problem, 20_000, np.random.default_rng(seed))
    features = Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)
    found = {r["hypothesis"]: r for r in check(features, bits=[3], training=features.take(np.arange(0, 20_000, 2)))}
    for name in (hypotheses.GAUSSIAN, hypotheses.MARGINS, hypotheses.COVARIANCES, hypotheses.BAYES):
        record = found[name]
        assert record["p_value"] > 1e-3, name
        assert abs(record["effect"]) < 4 * record["effect_standard_error"] + 0.1 * abs(record["distortion"]), name
    (said,) = predict(fit(features), scheme="symmetric", bits=[3], errors="expected")
    assert found[hypotheses.GAUSSIAN]["distortion"] == pytest.approx(said.distortion)
    assert found[hypotheses.TRAINING]["p_value"] > 1e-3


def test_norms_given_logits_are_those_of_the_gaussian_law(seed):
    """E of the squared norm given all logits: exact where the logits determine the features, and on average."""
    problem = random_problem(6, seed, K=4)
    features = sample(problem, 40_000, np.random.default_rng(seed))
    squares = hypotheses.norms_given_logits(features, problem) ** 2
    own = np.sum(features.features**2, 1)
    residual = own - squares
    assert abs(residual.mean()) < 4 * residual.std() / 200
    for regressor in (squares, features.features @ (problem.weights[0] - problem.weights[1])):
        x = regressor - regressor.mean()
        assert abs(np.mean(x * residual)) < 4 * np.std(x * residual) / 200
    pair = random_problem(1, seed)
    line = sample(pair, 200, np.random.default_rng(seed))
    np.testing.assert_allclose(hypotheses.norms_given_logits(line, pair) ** 2, np.sum(line.features**2, 1), rtol=1e-9)


def test_check_is_sorted_speaks_and_says_what_it_cannot_tell(seed, tmp_path, capsys):
    features = sample(random_problem(4, seed, K=3), 200, np.random.default_rng(seed))
    records = check(features, bits=[3, 4])
    effects = [abs(r["effect"]) for r in records]
    assert effects == sorted(effects, reverse=True)
    assert sorted(r["bits"] for r in records) == [3] * 10 + [4] * 10
    assert all("points" in r["sentence"] for r in records)
    few = features.take(np.concatenate([np.flatnonzero(features.labels == k)[:1] for k in range(3)]))
    bare = {r["hypothesis"]: r for r in check(few)}
    assert bare[hypotheses.GAUSSIAN]["p_value"] is None
    assert bare[hypotheses.GAUSSIAN]["effect"] is None
    assert "too few" in bare[hypotheses.GAUSSIAN]["sentence"]
    assert bare[hypotheses.UNIFORM]["p_value"] is not None
    with pytest.raises(InputError, match="same layer"):
        check(features, training=replace(features, weights=2 * features.weights))
    with pytest.raises(InputError, match="all 0"):
        check(replace(features, weights=0 * features.weights))
    path = tmp_path / "f.npz"
    np.savez(path, features=features.features, labels=features.labels, weights=features.weights, bias=features.bias)
    assert code(simulate.__main__, "check", path, "--training", path) == 0
    assert "features as in training" in capsys.readouterr().out
    assert code(simulate.__main__, "check", path, "--training", tmp_path / "none.npz") == 2
    one_line(capsys, "none.npz")


def test_one_output(seed):
    problem = random_problem(12, seed, rows=1)
    features = sample(problem, 300, np.random.default_rng(seed))
    found = {r["hypothesis"]: r for r in check(features, bits=[3])}
    assert found[hypotheses.ROWS]["p_value"] is None
    assert found[hypotheses.GAUSSIAN]["effect"] is not None


def test_many_classes_of_heavy_tails_are_seen(seed):
    """A p-value by rank among few sets of samples, times 200 classes, could never be small."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(200), 24)
    assert p_of(tests.gaussian_features(rng.standard_t(2, (4800, 3)), labels)) < 1e-6
    assert p_of(tests.gaussian_features(rng.standard_normal((4800, 3)), labels)) > 1e-3


def test_the_closest_rival_is_found_with_the_biases():
    """Two rivals alike but for their biases."""
    weights, z = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), np.random.default_rng(0).normal(1, 0.1, (50, 2))
    for bias, rival in ((np.array([0.0, 0.0, 1.5]), 1), (np.array([0.0, 0.0, 2.5]), 2)):
        np.testing.assert_array_equal(tests.closest_contrast(z, weights, bias, 0), weights[0] - weights[rival])
