"""The adapted error model: right where errors are uniform, and for quantizers of few bits, where that hypothesis is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, norm

import theory.__main__
from simulate.estimates import NORMAL_95
from simulate.experiments.quantizers import scores
from simulate.generator import synthetic
from tests.support.commands import code
from theory.error_model import adapted, uniform
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.files import write_statistics
from theory.setting.problem import Problem, decide
from theory.setting.schemes import Compressed, compress


def layer_of(weights: np.ndarray, E: np.ndarray, granularity: str = "tensor") -> Compressed:
    plain = compress(weights, "symmetric", 4, per_channel=granularity == "channel")
    return replace(plain, weights=weights + E)


RARE = 1e-5  # chance that a right model fails one assertion


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_moments_put_in_are_found(seed, granularity):
    """Gain and variance of the whole layer, of rows, of columns, over eight layers each. The gain costs a degree of freedom:
    a variance over n in the place of n - 1 is seen where groups are small."""
    rng = np.random.default_rng(seed)
    K, d, layers = 40, 300, 8
    W = rng.standard_normal((K, d))
    cases = {"layer": (np.full((1, 1), -0.2), 0.3 * np.ones((K, d)))}
    cases["column"] = (rng.uniform(-0.8, 0.5, d), rng.uniform(0.1, 1, d) * np.ones((K, 1)))
    if granularity == "channel":
        cases["row"] = (rng.uniform(-0.8, 0.5, (K, 1)), rng.uniform(0.1, 1, (K, 1)) * np.ones(d))
    for scope, (alpha, sd) in cases.items():
        gaps, variances, groups = [], [], alpha.size
        for _ in range(layers):
            E = alpha * W + sd * (rng.random((K, d)) - 0.5) * np.sqrt(12)
            model = adapted(W, layer_of(W, E, granularity))
            assert model.scope == scope
            gaps.append(np.sum(((model.mean - (1 + alpha) * W) / sd) ** 2))
            variances.append(np.mean((model.rows * model.columns / sd) ** 2))
        # sums of squares of standard normal numbers, as many as gains
        assert chi2.ppf(RARE / 2, layers * groups) < np.sum(gaps) < chi2.isf(RARE / 2, layers * groups)
        n = K * d // groups
        error = norm.isf(RARE / 2) * np.sqrt(0.8 / (K * d * layers))  # of uniform numbers the fourth moment is 1.8
        assert np.mean(variances) == pytest.approx(1, abs=error)
        if scope == "column":
            assert np.mean(variances) * (n - 1) / n != pytest.approx(1, abs=error)


def test_errors_that_are_uniform_are_taken_as_such(seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((10, 64))
    layer = compress(W, "symmetric", 8)
    model, plain = adapted(W, layer), uniform(W, independent_errors(layer.steps))
    assert model.scope == "layer"
    np.testing.assert_allclose(model.rows, plain.rows, rtol=norm.isf(RARE / 2) * np.sqrt(0.8 / W.size) / 2)
    error = norm.isf(RARE / 2) * np.std(layer.weights - W) / np.linalg.norm(W)  # of the gain
    np.testing.assert_allclose(model.mean, W, rtol=0, atol=error * np.abs(W).max())
    nothing = adapted(W, replace(layer, weights=W))
    assert not nothing.rows.any()


@pytest.mark.slow
def test_actual_quantizers_of_few_bits(seed):
    """z-scores of the actual distortion: with input columns of unequal scales the uniform model is far off, the adapted one
    within one deviation of its own spread."""
    rows = scores(problems=12, features=64, kinds=("columns",), schemes=("symmetric",), bits=(3, 4), seed=seed)
    for width in (3, 4):
        cell = {one["model"]: one for one in rows if one["bits"] == width and one["granularity"] == "tensor"}
        assert abs(cell["uniform"]["mean_z"]) > 3
        assert abs(cell["adapted"]["mean_z"]) < 1
        assert cell["adapted"]["ratio"] == pytest.approx(1, abs=0.06)


def test_the_smallest_layers(seed):
    """One output of three features, where a criterion for finite samples has nothing left."""
    W = np.random.default_rng(seed).standard_normal((1, 3))
    assert adapted(W, compress(W, "symmetric", 3)).scope == "layer"


def test_predicting_with_adapted_errors(seed, tmp_path, capsys):
    """Features of unequal scales. At eight bits errors are uniform; at two the average is that of layers drawn from the
    adapted model, and the uniform one gives another."""
    problem = synthetic(classes=4, features=16, separation=2.5, priors="unequal", layer="perturbed", seed=0)
    scale = np.exp(np.random.default_rng(0).standard_normal(16))
    problem = replace(
        problem,
        weights=problem.weights * scale,
        means=problem.means / scale,
        covariances=problem.covariances / np.outer(scale, scale),
    )
    question: dict = dict(scheme="affine", bits=[2, 8], seed=seed)
    plain, own = (predict(problem, errors=errors, **question) for errors in ("expected", "adapted"))
    assert own[0].errors == "adapted"
    assert own[0].provenance["error_model"] == "column"
    error = own[1].numerical_error + 0.25 * plain[1].flip_rate
    assert own[1].distortion == pytest.approx(plain[1].distortion, abs=error)
    rng = np.random.default_rng(seed)
    model = adapted(problem.weights, compress(problem.weights, "affine", 2))
    labels = rng.choice(4, 40_000, p=problem.priors)
    z = problem.means[labels] + rng.standard_normal((len(labels), 16)) @ np.linalg.cholesky(problem.covariances).T
    right = decide(z @ problem.weights.T + problem.bias) == labels
    drawn = []
    for _ in range(300):
        E = model.rows * model.columns * np.sqrt(12) * (rng.random(model.mean.shape) - 0.5)
        drawn.append(right.mean() - (decide(z @ (model.mean + E).T + problem.bias) == labels).mean())
    sampling = np.sqrt(own[0].flip_rate / len(labels))  # of samples that all networks share
    error = np.hypot(np.hypot(np.std(drawn) / np.sqrt(len(drawn)), sampling), own[0].numerical_error / NORMAL_95)
    assert abs(own[0].distortion - np.mean(drawn)) < 4.5 * error < abs(plain[0].distortion - np.mean(drawn))
    write_statistics(tmp_path / "s.npz", problem)
    assert code(theory.__main__, "predict", tmp_path / "s.npz", "--scheme", "affine", "--bits", 2, "--errors", "adapted") == 0
    assert "own_noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    "question", [dict(scheme="prune", sparsity=0.5), dict(scheme="codebook", bits=[3]), dict(scheme="midrise", bits=[3])]
)
def test_adapted_errors_of_opposite_rows_are_tied(question, seed):
    """A head about its mean row, whose two rows have opposite errors: the average over adapted errors, held against networks
    drawn here. Priors, biases, classes are unequal, features correlated; of independent rows at most 0.7 of it."""
    rng = np.random.default_rng(seed)
    mean, other = 0.22 * rng.standard_normal(64), 0.05 * rng.standard_normal(64)
    root = np.eye(64) + 0.05 * rng.standard_normal((64, 64))
    problem = Problem(
        weights=np.stack([mean, -mean]),
        bias=np.array([0.3, -0.1]),
        priors=np.array([0.35, 0.65]),
        means=np.stack([mean, other - mean]),
        covariances=root @ root.T,
    )
    (tied,), (alone,) = (
        predict(problem, errors="adapted", row_errors=which, seed=seed, **question) for which in ("tied", "independent")
    )
    layer = compress(problem.weights, question["scheme"], *question.get("bits", []), **_options(question))
    model = adapted(problem.weights, layer)
    assert (list(model.group), list(model.sign[:, 0])) == ([0, 0], [1, -1])
    deviation = model.rows[0, 0] * np.sqrt(12)

    def risk(w: np.ndarray) -> float:
        margins = 2 * problem.means @ w + problem.bias[0] - problem.bias[1]
        return float(problem.priors @ norm.sf(margins * [1, -1] / np.linalg.norm(2 * w @ root)))

    drawn = []
    for _ in range(4000):
        e = deviation * model.columns * (rng.random(64) - 0.5)
        drawn.append(risk(model.mean[0] + e) - risk(mean))
    error = np.hypot(np.std(drawn) / np.sqrt(len(drawn)), tied.numerical_error / NORMAL_95)
    assert abs(tied.distortion - np.mean(drawn)) < 4.5 * error
    assert tied.distortion - alone.distortion > 0.3 * tied.distortion


def _options(question: dict) -> dict:
    return {name: value for name, value in question.items() if name not in ("scheme", "bits")}
