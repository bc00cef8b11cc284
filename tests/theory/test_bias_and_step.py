"""The bias as a weight, its correction, the best step: against what they say, computed here; and theory against simulation."""

from dataclasses import replace

import numpy as np
import pytest

import simulate.__main__
import simulate.stored_files
from simulate import compress as compress_file
from simulate import measure, run
from simulate.feature_models.fit import fit
from simulate.sampling.paired_counting import draw
from tests.support.cases import compressed
from tests.support.problems import exact_risk, random_problem
from tests.support.statistical import rejected
from theory.budget import DEFAULT
from theory.choose.step import LayerCost, distortions
from theory.prediction import predict
from theory.setting.archive import read_arrays, write_arrays
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import Problem
from theory.setting.question import question
from theory.setting.schemes import compress


def sample(problem: Problem, n: int, seed: int) -> Features:
    z, y = draw(problem, n, np.random.default_rng(seed))
    return Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)


def moved(problem: Problem, by: float) -> Problem:
    """The same decisions from features whose mean is far from 0, as after a rectifier."""
    shift = by * np.ones(problem.features)
    return replace(problem, means=problem.means + shift, bias=problem.bias - problem.weights @ shift)


@pytest.mark.parametrize("scheme", ["symmetric", "affine", "codebook"])
@pytest.mark.parametrize("rows", [1, 4])
def test_the_bias_as_one_more_column_and_its_correction(scheme, rows, seed):
    """Decisions counted from What, the bias and the mean feature, put together here."""
    problem = random_problem(6, seed, K=max(2, rows), rows=rows)
    problem = replace(problem, bias=problem.bias + 0.7)
    features = sample(problem, 3000, seed)
    z, W, b = features.features, problem.weights, problem.bias
    zbar = z.mean(0)
    for column in (False, True):
        for correction in (False, True):
            layer = compress(np.concatenate([W, b[:, None]], 1) if column else W, scheme, 2)
            What, bias = (layer.weights[:, :-1], layer.weights[:, -1]) if column else (layer.weights, b)
            if correction:
                bias = bias + (W - What) @ zbar
            logits = z @ What.T + bias
            after = logits[:, 0] > 0 if rows == 1 else np.argmax(logits, 1)
            options: dict = {"bias": column, "bias_correction": correction}
            (record,) = measure(features, scheme=scheme, bits=[2], **options)
            assert record.risk_after == pytest.approx(np.mean(after != features.labels), abs=1e-12)
            assert record.rate == pytest.approx(layer.rate)
            assert sum(record.rate_breakdown.values()) == pytest.approx(record.rate * layer.weights.size)
            (said,) = predict(features, scheme=scheme, bits=[2], **options)
            assert said.flip_rate == pytest.approx(record.flip_rate, abs=1e-12)


FAMILY: list[dict] = [
    {"scheme": "prune", "sparsity": 0.5},
    {"scheme": "prune", "sparsity": 0.7, "bias_correction": True},
    {"scheme": "prune-structured", "sparsity": 0.25, "unit": "feature"},
    {"scheme": "prune-structured", "sparsity": 0.5, "unit": "map", "map_size": 2, "bias": True},
    {"scheme": "codebook", "bits": [1, 2]},
    {"scheme": "deep-compression", "bits": [2], "sparsity": 0.4},
    {"scheme": "optimal", "bits": [2, 3], "criterion": "mse"},
    {"scheme": "symmetric", "bits": [2, 4], "bias": True},
    {"scheme": "affine", "bits": [2], "bias": True, "bias_correction": True},
]


@pytest.mark.parametrize("K", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_every_scheme_is_predicted_as_it_is_simulated(K, seed):
    """One family of z-scores; refused when the correction is left out or the bias held."""
    z, held, without = [], [], []
    for i, options in enumerate(FAMILY):
        problem = moved(random_problem(8, seed + i, K=K), 0.5)
        counted = run(problem, n=2_000_000, seed=seed + i, **options)
        for name, changes in ((z, {}), (held, {"bias": False}), (without, {"bias_correction": False})):
            asked: dict = options | changes
            for one, seen in zip(predict(problem, **asked), counted, strict=True):
                se = seen.standard_error or 0.0
                name.append((seen.distortion - one.distortion) / np.hypot(se, one.numerical_error / 2) if se else 0.0)
    assert rejected(np.array(z)) == 0, z
    assert rejected(np.array(held)) > 0
    assert rejected(np.array(without)) > 0


@pytest.mark.slow
def test_random_layers_with_the_bias_corrected(seed):
    """The mean over errors: |z - zbar|^2 in the place of |z|^2. Without the correction refused."""
    z, without = [], []
    for K in (2, 4):
        problem = moved(random_problem(8, seed + K, K=K), 1.0)
        question: dict = dict(scheme="symmetric", bits=[2, 3, 4], errors="expected", seed=seed)
        counted = run(problem, n=4_000_000, bias_correction=True, **question)
        for scores, corrected in ((z, True), (without, False)):
            for one, seen in zip(predict(problem, bias_correction=corrected, **question), counted, strict=True):
                se = np.hypot(seen.standard_error or 0.0, one.numerical_error / 2)
                scores.append((seen.distortion - one.distortion) / se)
    assert rejected(np.array(z)) == 0, z
    assert rejected(np.array(without)) >= 3


@pytest.mark.parametrize("K", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_best_step_is_the_best_of_all(K, seed):
    """Two classes: by exact risks of all 256; more: its distortion is the least within a hundredth of the flips."""
    problem = random_problem(6, seed, K=K)
    layers = np.stack([compress(problem.weights, "optimal", 3, step=k).weights for k in range(1, 257)])
    (chosen,) = compressed(question("optimal"), problem, [3])
    (squares,) = compressed(question("optimal", criterion="mse"), problem, [3])
    cost = np.sum((layers - problem.weights) ** 2, (1, 2))
    np.testing.assert_array_equal(squares.weights, layers[255 - np.argmin(cost[::-1])])
    if K == 2:
        risks = np.array([exact_risk(problem, What) for What in layers])
        assert exact_risk(problem, chosen.weights) <= risks.min() + 1e-12
    else:
        found = distortions(problem, layers)
        own = predict(problem, scheme="optimal", bits=[3])[0]
        assert own.distortion <= found.min() + 0.01 * own.flip_rate
    features = sample(problem, 4000, seed)
    best, symmetric = (predict(features, scheme=s, bits=[3])[0].distortion for s in ("optimal", "symmetric"))
    assert best <= symmetric


def test_a_tie_goes_to_the_largest_step():
    """Weights on the grid: every k that keeps it costs nothing, and 256 is taken."""
    problem = replace(random_problem(3, 0), weights=np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]]))
    (layer,) = compressed(question("optimal", criterion="mse"), problem, [2])
    assert layer.steps[0] == 1.0


@pytest.mark.parametrize("K", [2, 3])
def test_a_tie_of_the_distortion_goes_to_the_largest_step(K):
    """Weights of -1, 0 and 1 without a bias: every step makes the same decisions."""
    weights = np.array([[1.0, 0.0, -1.0, 1.0], [0.0, 1.0, 1.0, -1.0], [1.0, -1.0, 0.0, 1.0]])[:K]
    problem = replace(random_problem(4, 1, K=K), weights=weights, bias=np.zeros(K))
    (layer,) = compressed(question("optimal"), problem, [2])
    assert layer.steps[0] == 1.0


def test_the_best_step_by_a_given_temperature(seed):
    """Of features with labels and without: least of the distortions predicted at that temperature."""
    features = sample(random_problem(6, seed, K=4), 1500, seed)
    for labels in (features.labels, np.full(1500, -1)):
        subject = replace(features, labels=labels)
        (best,) = predict(subject, scheme="optimal", bits=[2], temperature=5.0)
        layers = np.stack([compress(features.weights, "optimal", 2, step=k).weights for k in range(1, 257)])
        assert best.distortion == pytest.approx(LayerCost(subject, 5.0, DEFAULT).distortions(layers).min(), abs=1e-12)


def test_schemes_without_a_step_have_their_own_errors(seed):
    """Expected errors of pruning: gain and variance of this layer's; simulation has no law for them and says so."""
    problem = random_problem(8, seed, K=4)
    features = sample(problem, 3000, seed)
    for subject in (problem, features):
        (expected,) = predict(subject, scheme="prune", sparsity=0.5, errors="expected")
        (adapted,) = predict(subject, scheme="prune", sparsity=0.5, errors="adapted")
        assert expected.distortion == adapted.distortion
        assert expected.errors == "adapted"
        assert expected.bits is None
        assert expected.as_dict()["bits"] is None
        assert expected.sparsity == 0.5
    with pytest.raises(InputError, match="errors: expected 'actual' for scheme prune"):
        run(problem, scheme="prune", sparsity=0.5, errors="expected")


@pytest.mark.slow
def test_statistics_of_a_corrected_layer(seed):
    """From fitted statistics too, of Gaussians and of mixtures, the corrected layer is predicted as on the features."""
    problem = moved(random_problem(8, seed, K=3), 1.0)
    features = sample(problem, 20_000, seed)
    for model in ("gaussian", "mixture"):
        (said,) = predict(fit(features, model=model), scheme="symmetric", bits=[2], bias=True, bias_correction=True)
        (seen,) = measure(features, scheme="symmetric", bits=[2], bias=True, bias_correction=True)
        assert abs(said.flip_rate - seen.flip_rate) < 0.1 * seen.flip_rate


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scheme": "optimal", "bits": [3], "criterion": "least"}, "criterion: expected one of distortion, mse"),
        ({"scheme": "symmetric", "bits": [3], "criterion": "mse"}, "criterion: expected none"),
        ({"scheme": "symmetric"}, "bits: expected 2 to 16"),
        ({"scheme": "prune", "bits": [3], "sparsity": 0.5}, "bits: expected none"),
        ({"scheme": "prune-structured", "sparsity": 0.5, "unit": "map", "map_size": 0}, "map_size"),
        ({"scheme": "symmetric", "bits": [3], "sharpness": 3}, "sharpness"),
        ({"scheme": "symmetric", "bits": [3], "map_size": 2}, "map_size: expected none"),
    ],
)
def test_options_are_checked(options, named):
    with pytest.raises(InputError, match=named):
        predict(random_problem(4, 0), **options)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("asked", [{"scheme": "affine", "bits": 3}, {"scheme": "deep-compression", "bits": 3, "sparsity": 0.5}])
def test_what_is_decompressed_is_what_was_measured(asked, bias, correction, seed, tmp_path, capsys):
    """Through files: the weights and the bias that come back make the very decisions that were counted."""
    features = sample(moved(random_problem(9, seed, K=4), 1.0), 3000, seed)
    write_arrays(tmp_path / "f.npz", {name: getattr(features, name) for name in ("features", "labels", "weights", "bias")})
    options: dict = {"bias": bias, "bias_correction": correction}
    done = compress_file(tmp_path / "f.npz", out=tmp_path / "layer.bin", **asked, **options)
    (record,) = measure(features, **(asked | {"bits": [asked["bits"]]}), **options)
    assert (
        (tmp_path / "layer.bin").stat().st_size == done["bytes"] == sum(done[f"{x}_bytes"] for x in ("layer", "bias", "header"))
    )
    assert done["layer_bytes"] == -(-sum(record.rate_breakdown.values()) // 8)
    assert done["rate_breakdown"] == record.rate_breakdown
    assert done["header_bytes"] <= 64
    assert done["bias_bytes"] == 16
    assert simulate.__main__.main(["decompress", str(tmp_path / "layer.bin"), "--out", str(tmp_path / "w.npz")]) == 0
    back = read_arrays(tmp_path / "w.npz")
    after = np.argmax(features.features @ back["weights"].T + back["bias"], 1)
    assert np.mean(after != features.labels) == pytest.approx(record.risk_after, abs=2 / 3000)  # the bias is float32
    columns = np.concatenate([features.weights, features.bias[:, None]], 1) if bias else features.weights
    np.testing.assert_array_equal(back["weights"], compress(columns, **asked).weights[:, :9])
    assert simulate.__main__.main(["decompress", str(tmp_path / "f.npz"), "--out", str(tmp_path / "x.npz")]) == 2
    assert "written by compress" in capsys.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_no_byte_of_a_file_changes_unseen(seed, tmp_path):
    """Header and body alike; and nothing is written over what is read."""
    features = sample(random_problem(5, seed, K=3), 50, seed)
    compress_file(features, out=tmp_path / "a.bin", scheme="affine", bits=3)
    data = (tmp_path / "a.bin").read_bytes()
    for i in range(len(data)):
        (tmp_path / "b.bin").write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(InputError, match=r"written by compress|damaged"):
            simulate.stored_files.decompress(tmp_path / "b.bin")
    for end in (10, 52, len(data) - 1):
        (tmp_path / "b.bin").write_bytes(data[:end])
        with pytest.raises(InputError, match=r"written by compress|damaged"):
            simulate.stored_files.decompress(tmp_path / "b.bin")
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(InputError, match="out: expected another file"):
        simulate.stored_files.decompress(tmp_path / "a.npz", out=tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == data
    write_arrays(tmp_path / "f.npz", {name: getattr(features, name) for name in ("features", "labels", "weights", "bias")})
    with pytest.raises(InputError, match="out: expected another file"):
        compress_file(tmp_path / "f.npz", out=tmp_path / "f.npz", scheme="affine", bits=3)
    before = (tmp_path / "f.npz").read_bytes()
    with pytest.raises(InputError, match="out: expected another file"):
        fit(tmp_path / "f.npz", out=tmp_path / "f.npz")
    assert (tmp_path / "f.npz").read_bytes() == before


@pytest.mark.parametrize(
    "asked",
    [
        {"scheme": "integer", "bits": 3, "activation_bits": 8},
        {"scheme": "symmetric", "bits": 3},
        {"scheme": "symmetric", "bits": 3, "bias": True},
        {"scheme": "prune", "sparsity": 0.5},
    ],
)
def test_the_stored_bias_is_corrected(asked, seed, tmp_path):
    """By its definition: the bias, compressed where it is a column, plus (W - What) zbar."""
    features = sample(moved(random_problem(9, seed, K=4), 1.0), 500, seed)
    column = asked.get("bias", False)
    for correction in (False, True):
        compress_file(features, out=tmp_path / "layer.bin", bias_correction=correction, **asked)
        back = simulate.stored_files.decompress(tmp_path / "layer.bin")
        held = features.bias
        if column:
            held = compress(np.concatenate([features.weights, held[:, None]], 1), "symmetric", 3).weights[:, -1]
        shift = (features.weights - back["weights"]) @ features.features.mean(0) if correction else 0.0
        unit = 0.0
        if "activation_bits" in asked:  # whole multiples of the product of the steps
            low, high = np.minimum(features.features.min(), 0.0), np.maximum(features.features.max(), 0.0)
            step = compress(features.weights, "integer", 3, activation_bits=8).steps[0, 0]
            unit = step * float(np.float32((high - low) / 255))
            np.testing.assert_allclose(back["bias"] / unit, np.rint(back["bias"] / unit), atol=1e-6)
        np.testing.assert_allclose(back["bias"], held + shift, rtol=1e-6, atol=max(1e-6, 0.51 * unit))
        assert not correction or np.abs(shift).max() > 1e-3
