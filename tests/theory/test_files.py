"""Files that are what they say."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.problems import random_problem
from theory.setting.archive import write_arrays
from theory.setting.errors import LONGEST, InputError, in_short
from theory.setting.files import read_features, read_statistics, write_statistics
from theory.setting.problem import Problem


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
    with pytest.raises(InputError, match="means: expected plain numbers or text, got Python objects"):
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


def test_long_texts_are_cut_to_a_line():
    for length in (1, 299, 300, 301, 10_000):
        short = in_short("ab \n c" + "x" * length)
        assert len(short) <= LONGEST
        assert "\n" not in short
    assert in_short("x" * 300) == "x" * 300
