"""Integer arithmetic: exact sums against an int32 product in NumPy; theory against simulation; what a dropped term would do."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from simulate import measure, run
from simulate.experiments import options_accuracy
from simulate.experiments.options_accuracy import CELLS
from simulate.feature_models.fit import fit
from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from tests.support.cases import compressed
from tests.support.matrices import adversarial
from tests.support.statistical import rejected
from theory.budget import Budget
from theory.integrals.two_classes import evaluate
from theory.prediction import predict
from theory.setting import integer
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_statistics, write_statistics
from theory.setting.problem import Problem
from theory.setting.question import question
from theory.setting.record import Record


@pytest.mark.parametrize("matrices", [250, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
def test_decisions_are_those_of_an_int32_product(per_channel, corrected, matrices, seed):
    """Inputs of ties and of one outlier; codes, bias and sums made here from the steps alone."""
    rng, compared = np.random.default_rng(seed), 0
    for i, W in enumerate(adversarial(seed, matrices)):
        if len(W) < 2 or not np.abs(W).max() > 1e-30:
            continue
        bits, A = (2, 3, 5, 8)[i % 4], (2, 4, 8)[i % 3]
        z = np.round(rng.standard_normal((60, W.shape[1])) * 4) / 4 if i % 2 else rng.exponential(size=(60, W.shape[1]))
        features = Features(features=z, labels=rng.integers(0, len(W), 60), weights=W, bias=rng.standard_normal(len(W)))
        asked = question("integer", activation_bits=A, per_channel=per_channel, bias_correction=corrected)
        (layer,) = compressed(asked, features, [bits])
        low, high = min(z.min(), 0.0), max(z.max(), 0.0)
        step = float(np.float32((high - low) / (2**A - 1)))
        zero = np.rint(-low / step)
        p = (np.clip(np.rint(z / step) + zero, 0, 2**A - 1) - zero).astype(np.int32)
        q = np.rint(layer.weights / np.where(layer.steps > 0, layer.steps, 1)).astype(np.int32)
        bias = features.bias + ((W - layer.weights) @ z.mean(0) if corrected else 0)
        product = np.where(layer.steps > 0, layer.steps, 1.0)[:, 0] * step
        whole = np.rint(bias / product)
        if np.abs(whole).max() >= 2**31:
            continue
        sums = (p @ q.T).astype(np.int64) + whole.astype(np.int64)
        after = np.argmax(sums * (layer.steps[:, 0] if per_channel and layer.steps.min() > 0 else 1), 1)
        if per_channel and not layer.steps.min() > 0:
            continue
        (record,) = measure(
            features,
            scheme="integer",
            bits=[bits],
            activation_bits=A,
            per_channel=per_channel,
            bias_correction=corrected,
        )
        assert record.risk_after == pytest.approx(np.mean(after != features.labels), abs=1e-12)
        compared += 1
    assert compared > 0.4 * matrices


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["actual", pytest.param("expected", marks=pytest.mark.slow)])
def test_predicted_as_simulated(errors, seed):
    """8 bits of the inputs: one family of z-scores. Refused: inputs as they are, where 3 bits of them matter."""
    z, coarse, ignored = [], [], []
    for K, d in ((2, 24), (5, 32)):
        problem = synthetic(classes=K, features=d, separation=2.5, layer="perturbed", seed=seed + K)
        for corrected in (False, True):
            asked: dict = dict(scheme="integer", bits=[4, 6], errors=errors, bias_correction=corrected)
            seen = run(problem, n=400_000, activation_bits=8, seed=seed, **asked)
            for one, other in zip(predict(problem, activation_bits=8, **asked), seen, strict=True):
                noise = np.hypot(other.standard_error or 0.0, one.numerical_error / 2)
                z.append((other.distortion - one.distortion) / noise)
            few = run(problem, n=400_000, activation_bits=3, seed=seed, **asked)
            plainly: dict = asked | {"scheme": "affine"}
            held = predict(problem, **plainly)
            for one, other, plain in zip(predict(problem, activation_bits=3, **asked), few, held, strict=True):
                noise = np.hypot(other.standard_error or 0.0, one.numerical_error / 2)
                coarse.append((other.distortion - one.distortion) / max(0.15 * other.distortion, noise))
                ignored.append((other.distortion - plain.distortion) / noise)
    assert rejected(np.array(z)) == 0, z
    assert np.abs(coarse).max() < 2
    assert rejected(np.array(ignored)) > 4


@pytest.mark.slow
def test_flips_of_random_layers_whose_rows_are_tied(seed):
    """Three classes, two of them opposite: flips as counted; those of independent errors are not."""
    problem = synthetic(classes=3, features=24, separation=2.5, seed=seed)
    problem = replace(problem, weights=np.stack([problem.weights[0], -problem.weights[0], problem.weights[2]]))
    asked: dict = dict(scheme="integer", bits=[2], activation_bits=8, errors="expected", seed=seed)
    (seen,), (said,) = run(problem, n=400_000, **asked), predict(problem, **asked)
    (independent,) = predict(problem, row_errors="independent", **asked)

    def noise(one: Record) -> float:
        return float(np.hypot(seen.flip_rate_standard_error or 0.0, (one.flip_rate_error or 0.0) / 1.96))

    assert abs(said.flip_rate - seen.flip_rate) < 4.5 * noise(said)
    assert abs(independent.flip_rate - seen.flip_rate) > 4.5 * noise(independent)


def test_the_noise_of_the_inputs_is_correlated_across_classes(seed):
    """Two equal rows: what quantized inputs do to both logits is the same, and their order is kept."""
    problem = synthetic(classes=3, features=20, separation=2.5, seed=seed)
    problem = replace(problem, weights=np.stack([problem.weights[0], problem.weights[0], problem.weights[2]]))
    problem = replace(problem, bias=np.array([1.0, -1.0, 0.0]))
    asked = question("integer", activation_bits=6)
    subject, (layer,) = integer.actual(problem, compressed(asked, problem, [8]), 6, corrected=False)
    noise = layer.weights[0] - layer.weights[1]
    np.testing.assert_allclose(noise[:-1], 0)
    d = problem.features
    law = subject.covariances  # pyright: ignore[reportAttributeAccessIssue]
    step, _ = integer.input_grid(problem, 6)
    np.testing.assert_allclose(law[d : 2 * d, d : 2 * d] - law[:d, :d], step**2 / 12 * np.eye(d), atol=1e-12)
    np.testing.assert_allclose(law[:d, d : 2 * d], law[:d, :d])


def test_the_feature_range_travels(tmp_path, seed):
    problem = synthetic(classes=3, features=6, separation=2.5, seed=seed)
    z, y = draw(problem, 3000, np.random.default_rng(seed))
    fitted = fit(Features(features=z, labels=y, weights=problem.weights, bias=problem.bias), out=tmp_path / "s.npz")
    assert fitted.feature_range is not None
    np.testing.assert_array_equal(fitted.feature_range, [z.min(), z.max()])
    again = read_statistics(tmp_path / "s.npz")
    np.testing.assert_array_equal(again.feature_range, fitted.feature_range)
    write_statistics(tmp_path / "t.npz", replace(problem, feature_range=None))
    with pytest.raises(InputError, match="feature_range: missing"):
        predict(tmp_path / "t.npz", scheme="integer", bits=[4], activation_bits=4)
    narrow = replace(problem, feature_range=np.array([-0.1, 0.1]))
    assert "beyond the feature range" in " ".join(predict(narrow, scheme="integer", bits=[4], activation_bits=4)[0].warnings)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "activation_bits: expected a width"),
        ({"activation_bits": 1}, "activation_bits"),
        ({"activation_bits": 8, "bias": True}, "32-bit"),
        ({"activation_bits": 8, "scheme": "affine"}, "none for scheme affine"),
        ({"activation_bits": 8, "bits": [9]}, "bits: expected 2 to 8"),
    ],
)
def test_options_are_checked(options, named):
    problem = synthetic(classes=2, features=4, separation=2.0, seed=0)
    asked: dict = {"scheme": "integer", "bits": [4]} | options
    with pytest.raises(InputError, match=named):
        predict(problem, **asked)


def test_the_noise_of_both_is_the_derived_one(seed):
    """What the code makes of quantized inputs and of a corrected bias, against the formulas of derivations.arithmetic."""
    problem = synthetic(classes=4, features=7, separation=2.5, seed=seed)
    asked = question("integer", activation_bits=8)
    subject, (layer,) = integer.actual(problem, compressed(asked, problem, [3]), 8, corrected=False)
    assert isinstance(subject, Problem)
    heads = layer.weights
    What, step = heads[:, 7:14], integer.input_grid(problem, 8)[0]
    added = heads @ subject.covariances @ heads.T - What @ problem.covariances @ What.T
    noisy = integer.noisy(problem, 8, corrected=True)
    np.testing.assert_allclose(noisy.covariances - problem.covariances, step**2 / 12 * np.eye(7), atol=1e-12)
    np.testing.assert_allclose(noisy.means, problem.means - problem.mean_feature)
    np.testing.assert_allclose(added, np.asarray(evaluate("input_noise")(step=step, w_w=What @ What.T)), rtol=1e-9, atol=1e-12)
    z, y = draw(problem, 50, np.random.default_rng(seed))
    features = Features(features=z + 1.0, labels=y, weights=problem.weights, bias=problem.bias)
    met = question("symmetric", bias_correction=True).of(features)
    zbar = features.features.mean(0)
    products = {"zz": np.sum(features.features**2, 1), "z_mean": features.features @ zbar, "mean_mean": zbar @ zbar}
    np.testing.assert_allclose(
        np.sum(met.features**2, 1), np.asarray(evaluate("corrected_noise")(v=1.0, **products)), rtol=1e-9
    )


@pytest.mark.slow
def test_wrong_accounts_are_refused(seed):
    """Counted honestly, predicted; with the noise of the inputs apart in each class, or weights rounded down, not."""
    problem = options_accuracy.problem_of(10, 64, seed=seed)
    weights, means, covariances = problem.weights.copy(), problem.means.copy(), problem.covariances.copy()
    weights[0, 0] = 3 * np.abs(weights).max()  # on a feature that is 0: the step of this row is three times the others'
    means[:, 0], covariances[0], covariances[:, 0] = 0.0, 0.0, 0.0
    unequal = replace(problem, weights=weights, means=means, covariances=covariances)
    z = []
    for subject, cells in ((unequal, (CELLS[1], CELLS[8])), (problem, CELLS[6:8])):
        counted = options_accuracy.counted(subject, cells, 2**18, seed=seed, bits=(4,))
        (said,) = predict(subject, bits=[4], errors="expected", **cells[0][1])
        z.append((counted[:, 0, 0] - said.distortion) / np.hypot(counted[:, 0, 1], said.numerical_error / 2))
    assert [how for how, _ in CELLS[6:]] == ["honest", "independent", "floor"]
    honest, wrong = np.array(z).T
    assert rejected(honest) == 0, z
    assert rejected(wrong) == 2, z


@pytest.mark.parametrize("K", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_risk_before_is_that_of_the_clean_layer(K, seed):
    problem = synthetic(classes=K, features=16, separation=2.5, layer="perturbed", seed=seed)
    asked: dict = dict(scheme="integer", bits=[4], activation_bits=8)
    (expected,), (actual,) = (predict(problem, errors=errors, **asked) for errors in ("expected", "actual"))
    assert expected.risk_before == pytest.approx(actual.risk_before, abs=1e-4)  # drawn points know it to 1e-3


def test_a_row_of_zeros_keeps_its_bias_and_sums_stay_in_32_bits(seed):
    rng = np.random.default_rng(seed)
    W, bias = 0.1 * rng.standard_normal((3, 30)), np.array([0.0, 0.0, 0.04])
    W[2] = 0
    z = rng.standard_normal((4000, 30))
    y = np.argmax(z @ W.T + bias, 1)
    features = Features(features=z, labels=y, weights=W, bias=bias)
    losses = [
        measure(features, scheme="integer", bits=[8], activation_bits=8, per_channel=x)[0].distortion for x in (True, False)
    ]
    assert losses[0] < losses[1] + 0.005
    large = Features(features=np.ones((2, 200)), labels=np.array([0, 1]), weights=np.ones((2, 200)), bias=np.zeros(2))
    with pytest.raises(InputError, match="sums 32 bits hold"):
        measure(large, scheme="integer", bits=[8], activation_bits=16)


@pytest.mark.slow
def test_errors_of_random_layers_are_the_spread_over_seeds():
    """Those of the distortion are not too small, nor ten times too large; flips over drawn points have the noise of these."""
    problem = synthetic(classes=3, features=12, separation=2.5, layer="perturbed", seed=1)
    budget = Budget(drawn_points=2**12, pair_work=2e5, average_precision=1.0, line_work=2e5, random_line_work=1e5)
    asked: dict = dict(scheme="integer", bits=[3], activation_bits=4, errors="expected", budget=budget)
    records = [predict(problem, seed=seed, **asked)[0] for seed in range(16)]
    for value, error, least in (("distortion", "numerical_error", 0.1), ("flip_rate", "flip_rate_error", 0.3)):
        spread = 1.96 * np.std([getattr(one, value) for one in records], ddof=1)
        said = np.mean([getattr(one, error) for one in records])
        assert least * said < spread < 1.6 * said, (value, spread, said)


@pytest.mark.parametrize("errors", ["actual", "expected"])
@pytest.mark.parametrize("constant", [0.0, 0.37])
def test_inputs_that_hardly_vary_have_the_error_that_rounding_makes(errors, constant, seed):
    """Sixteen inputs that vary, 32 that are constant (dead units) and 16 that vary by a fifth of a step: as simulated."""
    rng, d = np.random.default_rng(seed), 64
    sd = np.repeat([1.0, 0.0, 0.05], [16, 32, 16])
    means = np.full((2, d), constant)
    means[:, :16] = 4 + rng.normal(0, 0.35, (2, 16))
    weights = 0.3 * rng.standard_normal((2, d))
    weights[0, :16] += means[0, :16] - means[1, :16]
    problem = Problem(
        weights=weights,
        bias=-(weights @ means.T).mean(1),
        priors=np.full(2, 0.5),
        means=means,
        covariances=np.diag(sd**2),
        feature_range=np.array([-0.5, 8.0]),
    )
    question: dict = dict(scheme="integer", bits=[6], activation_bits=5, errors=errors, seed=seed)
    (said,), (seen,) = predict(problem, **question), run(problem, n=2**18, **question)
    for name, error in (("flip_rate", seen.flip_rate_standard_error), ("distortion", seen.standard_error)):
        gap, size = getattr(said, name) - getattr(seen, name), abs(getattr(seen, name))
        assert abs(gap) < 4.5 * np.hypot(error or 0.0, 0.02 * size)


def test_moments_of_rounding_are_those_counted(seed):
    """Mean, slope and rest of rounded Gaussian features of any deviation, the uniform limit included."""
    rng, step = np.random.default_rng(seed), 0.4
    mean, sd = rng.uniform(-2, 2, (1, 60)), step * np.r_[0.0, np.geomspace(0.01, 1.5, 59)]
    law = integer.rounded(mean, np.diag(sd**2), step)
    z = mean + sd * norm.ppf((np.arange(40_000) + 0.5) / 40_000)[:, None]
    u = step * np.rint(z / step)
    np.testing.assert_allclose(law.shift[0], (u - z).mean(0), atol=4e-4 * step)
    cross = np.mean((z - mean) * (u - u.mean(0)), 0)
    np.testing.assert_allclose(law.slope * sd**2, cross, atol=1e-3 * step**2)
    np.testing.assert_allclose(law.rest + law.slope**2 * sd**2, u.var(0), atol=2e-3 * step**2)
