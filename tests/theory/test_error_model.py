"""The adapted error model: right where errors are uniform, and for quantizers of few bits, where that hypothesis is not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import theory.__main__
from simulate.experiments.quantizers import scores
from simulate.generator import synthetic
from tests.support.commands import code
from theory.error_model import adapted, uniform
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.files import write_statistics
from theory.setting.problem import Problem
from theory.setting.schemes import Compressed, compress


def layer_of(weights: np.ndarray, E: np.ndarray, granularity: str = "tensor") -> Compressed:
    plain = compress(weights, "symmetric", 4, per_channel=granularity == "channel")
    return replace(plain, weights=weights + E)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_moments_put_in_are_found(seed, granularity):
    """Gain and variance of the whole layer, of rows, of columns."""
    rng = np.random.default_rng(seed)
    K, d = 40, 300
    W = rng.standard_normal((K, d))
    cases = {"layer": (np.full((1, 1), -0.2), 0.3 * np.ones((K, d)))}
    cases["column"] = (rng.uniform(-0.8, 0.5, d), rng.uniform(0.1, 1, d) * np.ones((K, 1)))
    if granularity == "channel":
        cases["row"] = (rng.uniform(-0.8, 0.5, (K, 1)), rng.uniform(0.1, 1, (K, 1)) * np.ones(d))
    for scope, (alpha, sd) in cases.items():
        E = alpha * W + sd * (rng.random((K, d)) - 0.5) * np.sqrt(12)
        model = adapted(W, layer_of(W, E, granularity))
        assert model.scope == scope
        assert np.std(model.mean - (1 + alpha) * W) < 0.2 * sd.mean()
        np.testing.assert_allclose(model.rows * model.columns, sd, rtol=0.45)
        assert np.mean(model.rows * model.columns / sd) == pytest.approx(1, abs=0.03)


def test_errors_that_are_uniform_are_taken_as_such(seed):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((10, 64))
    layer = compress(W, "symmetric", 8)
    model, plain = adapted(W, layer), uniform(W, independent_errors(layer.steps))
    assert model.scope == "layer"
    np.testing.assert_allclose(model.rows, plain.rows, rtol=0.1)
    np.testing.assert_allclose(model.mean, W, atol=1e-3 * np.abs(W).max())
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
    problem = synthetic(classes=3, features=16, separation=2.5, layer="optimal", seed=seed)
    question: dict = dict(scheme="symmetric", bits=[6], seed=seed)
    (plain,), (own,) = (predict(problem, errors=errors, **question) for errors in ("expected", "adapted"))
    assert own.errors == "adapted"
    assert own.provenance["error_model"] in ("layer", "row", "column")
    assert own.distortion == pytest.approx(plain.distortion, abs=own.numerical_error + 0.25 * plain.distortion)
    assert own.interval[0] < own.interval[1]
    write_statistics(tmp_path / "s.npz", problem)
    assert code(theory.__main__, "predict", tmp_path / "s.npz", "--scheme", "affine", "--bits", 2, "--errors", "adapted") == 0
    assert "own_noise" in capsys.readouterr().out


@pytest.mark.parametrize(
    "question", [dict(scheme="prune", sparsity=0.5), dict(scheme="codebook", bits=[3]), dict(scheme="midrise", bits=[3])]
)
def test_adapted_errors_of_opposite_rows_are_tied(question, seed):
    """A head about its mean row, whose two rows have opposite errors: the average over adapted errors, held against networks
    drawn here, is twice that of independent rows."""
    rng = np.random.default_rng(seed)
    mean = 0.22 * rng.standard_normal(64)
    problem = Problem(
        weights=np.stack([mean, -mean]),
        bias=np.zeros(2),
        priors=np.full(2, 0.5),
        means=np.stack([mean, -mean]),
        covariances=np.eye(64),
    )
    (tied,), (alone,) = (predict(problem, errors="adapted", row_errors=which, **question) for which in ("tied", "independent"))
    layer = compress(problem.weights, question["scheme"], *question.get("bits", []), **_options(question))
    model = adapted(problem.weights, layer)
    assert (list(model.group), list(model.sign[:, 0])) == ([0, 0], [1, -1])
    deviation = model.rows[0, 0] * np.sqrt(12)
    drawn = []
    for _ in range(4000):
        e = deviation * model.columns * (rng.random(64) - 0.5)
        w = model.mean[0] + e
        drawn.append(norm.sf(w @ mean / np.linalg.norm(w)) - norm.sf(np.linalg.norm(mean)))
    error = np.hypot(np.std(drawn) / np.sqrt(len(drawn)), tied.numerical_error / 2)
    assert abs(tied.distortion - np.mean(drawn)) < 4.5 * error
    assert tied.distortion - alone.distortion > 0.3 * tied.distortion


def _options(question: dict) -> dict:
    return {name: value for name, value in question.items() if name not in ("scheme", "bits")}
