"""Small cases worked out by hand: what a slip of one term, sign or factor would change."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from simulate.experiments import hypotheses
from simulate.experiments import hypothesis_tests as tests
from simulate.experiments.halves import overall, summary
from simulate.experiments.hypotheses import check
from simulate.feature_models.fit import fit
from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from tests.support.problems import random_problem
from theory import calibration
from theory.error_model import adapted, uniform
from theory.integrals import logit_noise
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.features import Features
from theory.setting.misfit import FLOOR, grid, misfit
from theory.setting.precision import in_float64
from theory.setting.schemes import compress


def features_of(problem, n: int, seed) -> Features:
    z, y = draw(problem, n, np.random.default_rng(seed))
    return Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)


def test_the_summary_of_two_cells():
    """Widths .02 and .04 at 100 samples and flips of .25; one inside, one .01 above: score width + 40 times .005."""
    row = {"bits": 2, "n": 100, "flip_rate": 0.25, "predicted_flips": 0.2}
    rows = [
        row | {"predicted": 0.1, "low": 0.09, "high": 0.11, "distortion": 0.105},
        row | {"predicted": 0.1, "low": 0.08, "high": 0.12, "distortion": 0.13},
    ]
    noise = 3.92 * 0.5 / 10
    (line,) = summary(rows)
    assert line["inside"] == 0.5
    assert line["width"] == pytest.approx(0.03 / noise)
    assert line["score"] == pytest.approx((0.03 + 40 * 0.005) / noise)
    assert line["error"] == pytest.approx(100 * 0.0175)
    assert line["bias"] == pytest.approx(-100 * 0.0175)
    assert line["flips"] == pytest.approx(0.8)
    below = [one | {"distortion": 0.2 - one["distortion"]} for one in rows]
    assert summary(below)[0]["score"] == pytest.approx(line["score"])
    assert overall(rows) == line | {"bits": None}


@in_float64
def test_posteriors_of_three_samples():
    """Two classes, posteriors .8 .2, .6 .4, .3 .7, and a layer that turns the second: distortion and flips by class."""
    z = np.log([[4.0], [1.5], [3 / 7]])  # w = (1, 0): logit of class 0
    features = Features(features=z, labels=np.array([0, 1, 1]), weights=np.array([[1.0], [0.0]]), bias=np.zeros(2))
    given = calibration.posteriors(features, calibration.Calibration(1.0, 0.0))
    found = given._replace(bias=np.array([-0.5, 0.0])).count(features.weights)
    priors = np.array([1.7, 1.3]) / 3
    np.testing.assert_allclose(given.priors, priors)
    np.testing.assert_allclose(found.distortion, np.array([0.6, -0.4]) / 3 / priors)
    np.testing.assert_allclose(found.flips, np.array([0.6, 0.4]) / 3 / priors)
    assert found.changed == pytest.approx(1 / 3)
    squares, D = 0.2**2, 0.2 / 3
    assert found.variance == pytest.approx((squares - 3 * D**2 + (1 + squares) / 2) / 9)
    none = given.count(features.weights)
    assert none.variance == pytest.approx(1 / 9)
    assert none.changed == pytest.approx(1 / 3)


def test_the_noise_of_a_test_set_and_what_is_said(seed):
    problem = synthetic(classes=4, features=8, separation=2.5, seed=seed)
    features = features_of(problem, 500, seed)
    (record,) = predict(features, scheme="symmetric", bits=[3], test_size=1000)
    given = calibration.posteriors(features, calibration.calibrate(features.head_logits(), features.labels))
    one = given.count(compress(features.weights, "symmetric", 3).weights)
    D = float(one.distortion @ given.priors)
    assert record.interval_sources["test_set"] ** 2 * 1000 == pytest.approx(one.changed - D**2)
    (still,) = predict(features, scheme="symmetric", bits=[16])
    assert "below 0.006 " in still.warnings[0]
    assert still.interval[1] == pytest.approx(1.96 / 500, rel=1e-3)


@in_float64
def test_the_unit_of_the_logits_changes_nothing(seed):
    problem = synthetic(classes=4, features=8, separation=2.5, seed=seed)
    features = features_of(problem, 800, seed)
    base = calibration.calibrate(features.head_logits(), features.labels)
    for unit in (1e-6, 1e6):
        other = calibration.calibrate(unit * features.head_logits(), features.labels)
        assert other.temperature == pytest.approx(unit * base.temperature, rel=1e-4)
        assert other.log_error == pytest.approx(base.log_error, rel=1e-4)


def test_the_misfit_and_its_floor(seed):
    """A tau of .6 among cells known well; 30 layers; the floor."""
    rng = np.random.default_rng(seed)
    flips = np.full(4000, 0.1)
    assert misfit(0.06 * rng.standard_normal(4000), flips, np.full(4000, 1e-4)) == pytest.approx(0.59, abs=0.03)
    assert FLOOR == 0.02
    layers = grid(rng.standard_normal((3, 9)))
    assert len(layers) == 30
    assert sum(layer.granularity == "channel" for layer in layers) == 15


def test_a_right_model_of_few_samples_has_little_misfit(seed):
    """Gaussian features fitted by Gaussians: by counts alone, where nothing changes, tau would be .18."""
    problem = synthetic(classes=5, features=12, separation=4.5, seed=seed + 1)
    found = [fit(features_of(problem, 200, [seed, i])).misfit or 0.0 for i in range(12)]
    assert np.mean(found) < 0.03


def test_the_scope_of_pure_noise_is_the_layer(seed):
    """Akaike's criterion: errors of one law are said to be so; of five columns, one without errors keeps a thousandth."""
    rng, scopes = np.random.default_rng(seed), []
    for _ in range(60):
        W = rng.standard_normal((12, 12))
        layer = compress(W, "symmetric", 4, per_channel=True)
        noisy = replace(layer, weights=W + 0.1 * rng.uniform(-1, 1, W.shape))
        scopes.append(adapted(W, noisy).scope)
    assert scopes.count("layer") > 40
    W = rng.standard_normal((200, 5))
    E = rng.uniform(-1, 1, W.shape) * np.array([1.0, 0.1, 3.0, 0.0, 1.0])
    columns = adapted(W, replace(compress(W, "symmetric", 4), weights=W + E))
    assert columns.scope == "column"
    assert columns.columns[3] == pytest.approx(1e-3 * columns.columns.max())
    few = adapted(W[:3], replace(compress(W[:3], "symmetric", 4), weights=W[:3] + E[:3]))
    assert few.scope == "layer"


@pytest.mark.slow
@pytest.mark.parametrize("law", ["exponential", pytest.param("t", marks=pytest.mark.slow)])
def test_equal_covariances_whatever_the_law(law, seed):
    """Ten classes of ten samples of one law but for their means: 5 % rejected, not more."""
    rng, y, rejected, sets = np.random.default_rng(seed), np.repeat(np.arange(10), 10), 0, 100
    for _ in range(sets):
        z = rng.exponential(size=(100, 20)) if law == "exponential" else rng.standard_t(3, (100, 20))
        test = tests.equal_covariances(z + y[:, None], y, rng)
        assert test is not None
        rejected += test.p_value <= 0.05
    assert rejected <= binom.ppf(1 - 1e-3, sets, 0.06)


def test_independent_entries_are_not_the_variance_nor_the_gain(seed):
    """Errors of nine tenths of the step, or with a gain, are independent still; a copied column is not."""
    rng, d = np.random.default_rng(seed), 64
    z = rng.exponential(size=(4000, d))
    W = rng.standard_normal((10, d))
    layer = compress(W, "symmetric", 3)
    features = Features(features=z, labels=rng.integers(0, 10, 4000), weights=W, bias=np.zeros(10))
    E = layer.steps[0] * rng.uniform(-0.45, 0.45, W.shape)
    copied = E.copy()
    copied[:, 1:20] = E[:, :1]
    small = {}
    for name, errors in (("variance", E), ("gain", 0.3 * W + E), ("copied", copied)):
        found = hypotheses.error_tests(replace(layer, weights=W + errors), features, rng)[hypotheses.ENTRIES]
        assert found is not None
        small[name] = found.p_value
    assert small["variance"] > 1e-3
    assert small["gain"] > 1e-3
    assert small["copied"] < 1e-3


@pytest.mark.slow
@in_float64
def test_effects_by_their_own_values(seed):
    """A step a row: the variance measured, the mean of the errors, the power of entries that go together."""
    problem = synthetic(classes=4, features=10, separation=2.5, seed=seed)
    features = features_of(problem, 600, seed)
    found = {r["hypothesis"]: r for r in check(features, scheme="affine", bits=[3], per_channel=True)}
    layer = compress(features.weights, "affine", 3, per_channel=True)
    W, E, z = features.weights, layer.weights - features.weights, features.features
    priors = np.bincount(features.labels) / 600

    def under(mean, rows) -> float:
        model = uniform(W, independent_errors(layer.steps))._replace(mean=mean, rows=rows)
        return float(logit_noise.expected(features, model).distortion @ priors)

    base = under(W, layer.steps / np.sqrt(12))
    power, offset = np.mean(E**2, 1), np.mean(E, 1)
    alpha = np.sum(E * W, 1) / np.sum(W**2, 1)
    rest = E - alpha[:, None] * W
    second = z.T @ z / 600
    together = np.einsum("kd,de,ke->", rest, second, rest) / np.sum(rest**2 @ np.diagonal(second))
    for name, value in (
        (hypotheses.VARIANCE, under(W, np.sqrt(power)[:, None])),
        (hypotheses.UNIFORM, under(W + offset[:, None], np.sqrt(power - offset**2)[:, None])),
        (hypotheses.ENTRIES, under(W, layer.steps / np.sqrt(12) * np.sqrt(together))),
    ):
        assert found[name]["distortion"] == pytest.approx(base, abs=1e-4)
        assert found[name]["effect"] == pytest.approx(value - base, abs=2e-4)


def test_a_model_of_another_risk_is_said(seed):
    """Features far from Gaussian, a rare cloud beyond the boundary: the counted risk is .03, the model's much less."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], 2000)
    z = 0.3 * rng.standard_normal((4000, 2)) + np.where(y == 1, 2.0, -2.0)[:, None]
    z[rng.random(4000) < 0.03] *= -1
    features = Features(features=z, labels=y, weights=np.array([[0.0, 0.0], [1.0, 1.0]]), bias=np.zeros(2))
    for model, said in (("gaussian", True), ("resampled", False)):
        (record,) = predict(fit(features, model=model), scheme="symmetric", bits=[4])
        assert any("samples fitted" in sentence for sentence in record.warnings) == said


@pytest.mark.parametrize(
    "kind",
    ["one sample", pytest.param("constant", marks=pytest.mark.slow), pytest.param("the label itself", marks=pytest.mark.slow)],
)
def test_check_of_features_that_say_nothing(kind):
    y = np.repeat(np.arange(4), 20)
    z = {"one sample": np.ones((1, 4)), "constant": np.ones((80, 4)), "the label itself": np.eye(4)[y]}[kind]
    W = np.random.default_rng(0).standard_normal((4, 4))
    records = check(Features(features=z, labels=y[: len(z)], weights=W, bias=np.zeros(4)), bits=[3])
    assert {r["hypothesis"] for r in records} >= {hypotheses.GAUSSIAN, hypotheses.COVARIANCES, hypotheses.BAYES}
    assert all(np.isfinite(r["distortion"]) for r in records)


def test_the_misfit_grows_with_the_ratio_of_changed_decisions():
    """Deviation of the model: misfit times ratio times flips; of a test set by the decisions changed."""
    plain = replace(random_problem(6, 2), counts=np.array([500, 500]), misfit=0.3, changed_ratio=1.0)
    ask: dict = dict(scheme="symmetric", bits=[3], test_size=1000)
    ((one,), (more,)) = (predict(x, **ask) for x in (plain, replace(plain, changed_ratio=2.5)))
    assert one.interval_sources["model"] == pytest.approx(0.3 * one.flip_rate)
    assert more.interval_sources["model"] == pytest.approx(0.75 * one.flip_rate)
    noise = [(x.interval_sources["test_set"] ** 2 * 1000 + x.distortion**2) / x.flip_rate for x in (one, more)]
    assert noise == pytest.approx([1.0, 2.5], rel=0.02)
