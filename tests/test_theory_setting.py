"""Quantizers against torch, edges of the schemes, honest rates, and files that are what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.problems import random_problem
from theory.setting.compression import SCHEMES, compress
from theory.setting.errors import InputError
from theory.setting.files import read_features, read_statistics, write_arrays, write_statistics
from theory.setting.problem import Problem

torch = pytest.importorskip("torch")


def _matrices(seed, count):
    rng = np.random.default_rng(seed)
    for i in range(count):
        W = rng.standard_normal((rng.integers(1, 6), rng.integers(1, 40))) * 10.0 ** rng.uniform(-3, 3)
        if i % 5 == 1:
            W[rng.integers(len(W))] = 0
        if i % 5 == 2:
            W = np.abs(W)
        if i % 5 == 3:
            W[0, 0] *= 1000
        if i % 5 == 4:
            W = np.round(W / W.max() * 8) / 8
        yield W


def _torch(W, layer, scheme, bits, per_channel):
    """fake_quantize in float64 with our stored step: the rounding, clipping and zero point are torch's."""
    steps = layer.steps if per_channel else layer.steps[:1]
    if scheme == "symmetric":
        low, high = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
        zero = np.zeros(len(steps))
    else:
        low, high = 0, 2**bits - 1
        floor = np.minimum(W.min(1), 0) if per_channel else np.minimum(W.min(), 0)[None]
        zero = np.rint(-floor / steps)
    x = torch.from_numpy(W)
    if per_channel:
        return torch.fake_quantize_per_channel_affine(
            x, torch.from_numpy(steps.astype(np.float32)), torch.from_numpy(zero.astype(np.int32)), 0, low, high
        ).numpy()
    return torch.fake_quantize_per_tensor_affine(x, float(steps[0]), int(zero[0]), low, high).numpy()


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_same_weights_as_torch(scheme, per_channel, seed):
    compared = 0
    for W in _matrices(seed, 200):
        for bits in (2, 3, 4, 8):
            layer = compress(W, scheme, bits, per_channel=per_channel)
            if not (layer.steps > 0).all():
                continue
            want = _torch(W, layer, scheme, bits, per_channel)
            # torch multiplies by a float32 inverse of the step: leave out what is within 1e-6 2^B of a tie
            ratio = W / layer.steps[:, None]
            tie = np.abs(np.abs(ratio - np.floor(ratio)) - 0.5) < 1e-6 * 2**bits
            np.testing.assert_allclose(layer.weights[~tie], want[~tie], rtol=1e-6, atol=1e-6 * layer.steps.max())
            compared += np.sum(~tie)
    assert compared > 10_000


def test_a_step_half_as_large_is_seen(seed):
    """The comparison with torch has power: a step that forgets the sign bit differs."""
    W = np.random.default_rng(seed).standard_normal((3, 30))
    layer = compress(W, "symmetric", 4)
    wrong = np.abs(W).max() / (2**4 - 1)
    assert not np.allclose(layer.weights, wrong * np.rint(W / wrong), rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(
        np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, allow_subnormal=True)
    ),
    st.sampled_from(sorted(SCHEMES)),
    st.integers(2, 16),
)
def test_errors_are_within_half_a_step(W, scheme, bits):
    for per_channel in (False, True):
        layer = compress(W, scheme, bits, per_channel=per_channel)
        assert np.isfinite(layer.weights).all()
        # the affine range may be cut by the rounding of the zero point, every end by that of the stored step
        slack = 1.0 if scheme == "affine" else 0.5
        allowed = (slack + 2.0**-22 * 2**bits) * layer.steps[:, None] + 1e-40
        assert (np.abs(layer.weights - W) <= allowed + (layer.steps[:, None] == 0) * np.abs(W)).all()
        assert len(np.unique(layer.weights[0])) <= 2**bits


def test_zero_rows_and_zero_ranges():
    W = np.array([[0.0, 0.0], [0.8, -0.2]])
    for scheme in SCHEMES:
        layer = compress(W, scheme, 4, per_channel=True)
        np.testing.assert_array_equal(layer.weights[0], 0)
        assert layer.steps[0] == 0
        assert layer.rate_breakdown["steps"] == 64
        np.testing.assert_array_equal(compress(0 * W, scheme, 4).weights, 0)


def test_steps_are_as_stored_and_ties_go_to_even():
    layer = compress(np.array([[0.1, 0.7]]), "symmetric", 2)
    assert layer.steps[0] == float(np.float32(0.7))
    np.testing.assert_array_equal(compress(np.array([[4.0, 2.0, -2.0]]), "symmetric", 2).weights, [[4, 0, 0]])
    np.testing.assert_array_equal(compress(np.array([[3.0, 1.5, -1.5, 0.5]]), "symmetric", 3).weights, [[3, 2, -2, 0]])


def test_midrise_has_no_zero_and_one_bit_keeps_the_sign():
    layer = compress(np.array([[1.0, -0.2, 0.1]]), "midrise", 1)
    np.testing.assert_array_equal(layer.weights, [[0.5, -0.5, 0.5]])


def test_rates_count_every_stored_bit():
    W = np.ones((10, 64)) * np.linspace(-1, 1, 64)
    assert compress(W, "symmetric", 4).rate == pytest.approx(4 + 32 / 640)
    assert compress(W, "symmetric", 4, per_channel=True).rate == pytest.approx(4 + 320 / 640)
    assert compress(W, "affine", 3, per_channel=True).rate == pytest.approx(3 + 10 * 35 / 640)
    layer = compress(W, "affine", 3)
    assert sum(layer.rate_breakdown.values()) == pytest.approx(layer.rate * W.size)


@pytest.mark.parametrize(("scheme", "bits"), [("symmetric", 1), ("symmetric", 17), ("affine", 0), ("midrise", 17), ("none", 4)])
def test_widths_out_of_range_are_refused(scheme, bits):
    with pytest.raises(InputError, match=r"bits|scheme"):
        compress(np.ones((1, 2)), scheme, bits)


def test_a_range_beyond_float32_is_refused():
    with pytest.raises(InputError, match="float32"):
        compress(np.array([[1e300, 1.0]]), "symmetric", 4)


def test_statistics_survive_the_round_trip(tmp_path):
    problem = random_problem(5, 3)
    write_statistics(tmp_path / "s.npz", problem)
    again = read_statistics(tmp_path / "s.npz")
    for name in ("weights", "bias", "priors", "means", "covariances"):
        np.testing.assert_allclose(getattr(again, name), getattr(problem, name), rtol=1e-15)
    assert again.counts is None
    assert list(tmp_path.iterdir()) == [tmp_path / "s.npz"]


def test_half_precision_weights_are_taken_exactly(tmp_path):
    problem = random_problem(5, 3)
    arrays = {name: getattr(problem, name) for name in ("bias", "priors", "means", "covariances")}
    half = problem.weights.astype(np.float16)
    np.savez(tmp_path / "h.npz", weights=half, **arrays)
    again = read_statistics(tmp_path / "h.npz")
    np.testing.assert_array_equal(again.weights, half.astype(np.float64))
    assert again.source_bits == 16


def test_small_negative_eigenvalues_are_clipped(tmp_path):
    problem = random_problem(4, 1, shared=True)
    values, vectors = np.linalg.eigh(problem.covariances)
    values[0] = -1e-8 * values[-1]
    arrays = {name: getattr(problem, name) for name in ("weights", "bias", "priors", "means")}
    np.savez(tmp_path / "e.npz", covariances=(vectors * values) @ vectors.T, **arrays)
    assert np.linalg.eigvalsh(read_statistics(tmp_path / "e.npz").covariances)[0] >= -1e-15 * values[-1]


def test_nothing_is_left_when_writing_fails(tmp_path):
    class Bad:
        def __array__(self, *_, **__):
            raise RuntimeError("no array")

    with pytest.raises(RuntimeError):
        write_arrays(tmp_path / "x.npz", {"a": Bad()})
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="existing folder"):
        write_arrays(tmp_path / "no" / "x.npz", {})


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "p.npz", means=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="plain arrays"):
        read_statistics(tmp_path / "p.npz")


def _features(tmp_path, **change):
    rng = np.random.default_rng(0)
    W = rng.standard_normal((3, 4))
    arrays = {"features": rng.standard_normal((30, 4)), "labels": rng.integers(0, 3, 30), "weights": W, "bias": np.zeros(3)}
    arrays |= change
    np.savez(tmp_path / "f.npz", **{key: value for key, value in arrays.items() if value is not None})
    return tmp_path / "f.npz", arrays


def test_restricting_features_relabels_and_keeps_rows(tmp_path):
    path, arrays = _features(tmp_path, class_names=np.array(["a", "b", "c"]))
    part = read_features(path).restrict((2, 0))
    keep = np.isin(arrays["labels"], (0, 2))
    np.testing.assert_array_equal(part.features, arrays["features"][keep])
    np.testing.assert_array_equal(part.labels, (arrays["labels"][keep] == 0).astype(int))
    np.testing.assert_array_equal(part.weights, arrays["weights"][[2, 0]])
    assert part.class_names == ("c", "a")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"labels": np.full(30, 0.5)}, "labels"),
        ({"labels": np.full(30, 3)}, "labels"),
        ({"labels": np.full(30, -1)}, "labels"),
        ({"labels": np.zeros(29, int)}, "labels"),
        ({"features": np.zeros((30, 5))}, "features"),
        ({"features": np.zeros((0, 4)), "labels": np.zeros(0, int)}, "features"),
        ({"bias": np.zeros(4)}, "bias"),
        ({"weights": np.zeros(4)}, "weights"),
        ({"weights": np.zeros((3, 4), int)}, "weights"),
        ({"logits": np.random.default_rng(1).standard_normal((30, 3))}, "logits"),
        ({"labels": None}, "labels"),
        ({"class_names": np.array(["a"])}, "class_names"),
        ({"provenance": np.array("no json")}, "provenance"),
    ],
)
def test_bad_features_name_the_array(tmp_path, change, named):
    path, _ = _features(tmp_path, **change)
    with pytest.raises(InputError, match=named) as caught:
        read_features(path)
    assert str(path) in str(caught.value)


def test_classes_are_checked():
    problem = random_problem(3, 0, K=4)
    for classes in ((0, 0), (1,), (0, 4), (-1, 2)):
        with pytest.raises(InputError, match="classes"):
            problem.restrict(classes)
    part = problem.restrict((3, 1))
    np.testing.assert_allclose(part.priors, problem.priors[[3, 1]] / problem.priors[[3, 1]].sum())
    with pytest.raises(InputError, match="positive prior"):
        Problem(
            weights=np.ones((3, 2)),
            bias=np.zeros(3),
            priors=np.array([1.0, 0, 0]),
            means=np.zeros((3, 2)),
            covariances=np.eye(2),
        ).restrict((1, 2))


def test_restricting_keeps_every_field_in_the_order_asked_for():
    problem = random_problem(3, 0, K=4)
    problem = replace(problem, counts=np.array([10, 20, 30, 40]))
    part = problem.restrict((3, 1))
    for name in ("weights", "bias", "means", "covariances", "counts"):
        np.testing.assert_array_equal(getattr(part, name), getattr(problem, name)[[3, 1]])


def test_provenance_is_one_json_text(tmp_path):
    write_statistics(tmp_path / "s.npz", random_problem(2, 0))
    with np.load(tmp_path / "s.npz") as archive:
        assert isinstance(json.loads(str(archive["provenance"])), dict)
