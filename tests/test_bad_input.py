"""Files, places and surroundings that a command can't use: one line and exit code 2, and nothing is lost."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simulate.__main__
import theory.__main__
from simulate import fit, measure, run
from simulate.generator import synthetic
from simulate.networks.folders import read_class_index, read_folder
from simulate.networks.images import LAYOUTS, read_cifar
from tests.support.commands import code, one_line
from theory.prediction import predict
from theory.setting.command_line import print_json
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_features
from theory.setting.problem import Problem
from theory.setting.schemes import compress

TAIL = ("--scheme", "symmetric", "--bits", "3")


def photo(path: Path, size: tuple[int, int] = (4, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (len(path.parts), 20, 30)).save(path)
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.png,²\n", "expected a class number"),
        ("a.png," + "1" * 5000 + "\n", "expected a class number"),
        ("a.png,-1\n", "expected a class number"),
        ('a.png,"' + "x" * 200_000 + '"\n', "field larger than field limit"),
        ("b.png,1\n", "found none"),
        ("a.png\n", "an image and its label"),
        ("", "got none"),
    ],
)
def test_label_files_that_cannot_serve(text, says, tmp_path):
    photo(tmp_path / "data" / "a.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_folder(tmp_path / "data", labels=tmp_path / "labels.csv")
    assert len(str(caught.value)) < 900


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    photo(tmp_path / "data" / "a.png")
    (tmp_path / "labels.csv").write_text("\ufeffa.png,1\n", encoding="utf-8")
    assert read_folder(tmp_path / "data", labels=tmp_path / "labels.csv").labels.tolist() == [1]


def test_images_of_one_name_are_told_apart_by_their_paths(tmp_path):
    """x/1.png and y/1.png differ; a bare name that both have is refused."""
    Image.new("RGB", (4, 4), (1, 1, 1)).save(photo(tmp_path / "data" / "x" / "1.png"))
    Image.new("RGB", (4, 4), (200, 1, 1)).save(photo(tmp_path / "data" / "y" / "1.png"))
    (tmp_path / "labels.csv").write_text("y/1.png,0\nx/1.png,1\n")
    images = read_folder(tmp_path / "data", labels=tmp_path / "labels.csv")
    assert images.pixels[0:2][:, 0, 0, 0].tolist() == [200, 1]
    (tmp_path / "labels.csv").write_text("1.png,0\n")
    with pytest.raises(InputError, match="a name that 2 of them have"):
        read_folder(tmp_path / "data", labels=tmp_path / "labels.csv")


@pytest.mark.parametrize("text", ["{}", '{"-1": ["a", "b"]}', '{"0": "tench"}', "[" * 3000, '{"0": ' + "[" * 3000, ""])
def test_class_indices_that_cannot_serve(text, tmp_path):
    (tmp_path / "index.json").write_text(text if text != "[" * 3000 else "\n")
    with pytest.raises(InputError):
        read_class_index(tmp_path / "index.json")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(kind, tmp_path):
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(InputError, match="a folder" if kind == "folder" else "a pipe, a device"):
        read_class_index(path)


def test_large_and_damaged_images_are_one_line(tmp_path, recwarn):
    large = photo(tmp_path / "large" / "c" / "a.png")
    Image.new("1", (8000, 6400)).save(large)
    with pytest.raises(InputError, match="at most 50 million pixels, got 8000 x 6400"):
        read_folder(tmp_path / "large").pixels[0:1]
    path = tmp_path / "damaged" / "c" / "a.tif"
    Image.new("RGB", (3, 3)).save(photo(path))
    data = bytearray(path.read_bytes())
    data[8:40] = bytes(32)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="cannot read it"):
        read_folder(tmp_path / "damaged").pixels[0:1]
    assert not recwarn.list


def test_folders_of_splits_are_no_classes(tmp_path):
    photo(tmp_path / "one" / "images" / "cat" / "1.png")
    photo(tmp_path / "one" / "images" / "dog" / "1.png")
    with pytest.raises(InputError, match="are the classes those of"):
        read_folder(tmp_path / "one")
    photo(tmp_path / "two" / "train" / "cat" / "1.png")
    photo(tmp_path / "two" / "training" / "cat" / "1.png")
    with pytest.raises(InputError, match="found the splits"):
        read_folder(tmp_path / "two")
    photo(tmp_path / "three" / "valid" / "cat" / "1.png")
    assert read_folder(tmp_path / "three").class_names == ("cat",)


def test_an_archive_whose_check_sum_is_wrong_is_refused(tmp_path):
    """One bit of the pixels flipped before compressing, the sum that of the right ones."""
    layout = next(layout for layout in LAYOUTS if layout.folder == "cifar-10-batches-bin")
    rng = np.random.default_rng(0)
    source = tmp_path / layout.folder
    source.mkdir()
    for name in (*layout.files["train"], *layout.files["test"]):
        (source / name).write_bytes(np.insert(rng.integers(0, 256, (20, 3072), np.uint8), 0, 1, axis=1).tobytes())
    with tarfile.open(tmp_path / "plain.tar", "w") as tar:
        tar.add(source, layout.folder)
    data = gzip.compress((tmp_path / "plain.tar").read_bytes())
    place = tmp_path / "data"
    place.mkdir()
    (place / layout.archive).write_bytes(data)
    assert len(read_cifar(place).labels) == 20
    (place / layout.archive).write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    with pytest.raises(InputError, match="cannot read it"):
        read_cifar(place)


@pytest.fixture
def features(tmp_path) -> Path:
    """Six samples of two classes, all decided right: the likelihood of the temperature has no maximum."""
    z = np.array([[3.0, 0], [2, 1], [4, 1], [0, 3], [1, 2], [1, 4]])
    np.savez(tmp_path / "f.npz", features=z, labels=np.repeat([0, 1], 3), weights=np.eye(2), bias=np.zeros(2))
    return tmp_path / "f.npz"


def test_json_holds_no_infinity(features, capsys):
    assert code(theory.__main__, "predict", features, *TAIL, "--json") == 0
    (record,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert record["provenance"]["log_temperature_error"] is None
    print_json([{"a": np.inf, "b": [np.nan, 1.5]}])
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == [{"a": None, "b": [None, 1.5]}]


def test_what_is_read_is_not_written_over(features, capsys):
    before = features.read_bytes()
    assert code(simulate.__main__, "fit", features, "--out", features) == 2
    error = capsys.readouterr().err.strip()
    assert error == f"simulate: out: expected another file than the one that is read, got {features}"
    assert features.read_bytes() == before


def test_label_files_are_not_written_over(tmp_path, capsys):
    """Whatever ``extract`` reads besides the network: the labels and the class index."""
    for option in ("--labels", "--class-index"):
        path = tmp_path / "table.npz"
        path.write_text("x.png 0")
        (tmp_path / "weights.pt").write_text("")
        command = ("extract", "--network", "resnet20", "--checkpoint", tmp_path / "weights.pt", "--data", tmp_path)
        assert code(simulate.__main__, *command, option, path, "--out", path) == 2
        assert "expected another file than the one that is read" in capsys.readouterr().err
        assert path.read_text() == "x.png 0"


def test_places_that_cannot_be_written_to(features, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.npz")
    for place, says in (
        (tmp_path / "pipe.npz", "expected a regular file or none, found a pipe, a device or a socket"),
        (tmp_path / ("x" * 300 + ".npz"), "expected a file name"),
        (tmp_path / "no" / "x.npz", f"expected an existing folder, found no {tmp_path / 'no'}"),
        ("x" * 5000 + ".npz", "expected a file name"),
    ):
        assert code(simulate.__main__, "fit", features, "--out", place) == 2
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert error.count("expected") == 1, error
        assert says in error
    assert code(theory.__main__, "predict", "x" * 5000 + ".npz", *TAIL) == 2
    one_line(capsys, "expected")


def test_a_link_is_followed(features, tmp_path):
    (tmp_path / "real.npz").write_bytes(b"old")
    (tmp_path / "link.npz").symlink_to(tmp_path / "real.npz")
    assert code(simulate.__main__, "fit", features, "--out", tmp_path / "link.npz") == 0
    assert (tmp_path / "link.npz").is_symlink()
    assert (tmp_path / "real.npz").read_bytes() != b"old"


def test_labels_that_are_all_wrong_are_said_so(features, capsys):
    with np.load(features) as archive:
        arrays = dict(archive)
    wrong = Features(**{**arrays, "labels": 1 - arrays["labels"]})
    fit(wrong)
    assert "are the labels its own?" in capsys.readouterr().err
    (record,) = measure(wrong, scheme="symmetric", bits=[3])
    assert any("chance" in sentence for sentence in record.warnings)


def test_counting_on_the_samples_that_were_fitted_is_said(features):
    """Where the layer depends on samples, the same ones make it look better than it is."""
    asked: dict = dict(scheme="symmetric", bits=[3])
    for source in (fit(features), features):
        for classes in (None, [0, 1]):
            for depends in (True, False):
                (record,) = measure(features, compressed_by=source, classes=classes, bias_correction=depends, **asked)
                assert any("the very samples" in sentence for sentence in record.warnings) == depends


def test_vocabulary_heads_are_refused_with_their_size():
    W = np.random.default_rng(0).standard_normal((4096, 2))
    problem = Problem(weights=W, bias=np.zeros(4096), priors=np.full(4096, 1 / 4096), means=W, covariances=np.eye(2))
    with pytest.raises(InputError, match="at most 2048 classes"):
        predict(problem, scheme="symmetric", bits=[4])


@pytest.mark.parametrize("surroundings", ["full", "ascii", "homeless", "no place for compiled code"])
def test_surroundings(surroundings, features):
    """Standard output that is full, of ASCII only; a user without a home; a cache that can't be."""
    environment = dict(os.environ)
    if surroundings == "ascii":
        environment |= {"PYTHONIOENCODING": "ascii"}
    if surroundings == "homeless":
        environment = {key: value for key, value in environment.items() if key not in ("HOME", "XDG_CACHE_HOME")}
    if surroundings == "no place for compiled code":
        environment |= {"JAX_COMPILATION_CACHE_DIR": f"{features}/below-a-file"}
    words = [sys.executable, "-m", "simulate", "measure", str(features), *TAIL]
    with Path("/dev/full" if surroundings == "full" else os.devnull).open("w") as out:
        done = subprocess.run(
            words, stdout=out, stderr=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parent.parent
        )
    assert done.returncode == (2 if surroundings == "full" else 0), done.stderr
    assert len(done.stderr.strip().splitlines()) == (surroundings in ("full", "no place for compiled code"))


def test_numbers_too_small_to_count_are_refused():
    """Logits of 1e-40 underflow where they are counted; the theory takes them as they are."""
    problem = synthetic(classes=3, features=4, separation=2.0, seed=1)
    tiny = replace(problem, weights=problem.weights * 1e-20, bias=problem.bias * 1e-40, means=problem.means * 1e-20)
    tiny = replace(tiny, covariances=problem.covariances * 1e-40)
    with pytest.raises(InputError, match="too small to be counted"):
        run(tiny, scheme="symmetric", bits=[3], n=1000)


@pytest.mark.parametrize("scale", [1e-170, 1e-40])
def test_numbers_that_vanish_when_they_are_squared_are_refused(features, scale):
    problem, seen = synthetic(classes=3, features=4, separation=2.0, seed=1), read_features(features)
    for make, match in (
        (lambda: replace(problem, weights=problem.weights * scale), "weights: expected numbers of which the largest"),
        (
            lambda: replace(seen, features=seen.features.astype(float) * scale),
            "features: expected numbers of which the largest",
        ),
        (lambda: replace(problem, means=scale * problem.means, covariances=scale**2 * problem.covariances), "means, covarian"),
    ):
        with pytest.raises(InputError, match=match):
            make()
    assert replace(problem, means=scale * problem.means).classes == 3  # small beside the deviations


def test_a_lossless_layer_loses_nothing():
    """What = W: no distortion, and no error of it, whichever method answers."""
    for classes in (2, 3):
        problem = synthetic(classes=classes, features=4, separation=2.0, seed=1)
        lossless = replace(problem, weights=compress(problem.weights, "symmetric", 4).weights)
        (record,) = predict(lossless, scheme="symmetric", bits=[4])
        assert (record.distortion, record.flip_rate, record.numerical_error, record.interval) == (0.0, 0.0, 0.0, (0.0, 0.0))


def test_the_order_of_folders_is_said(tmp_path, capsys):
    for name in ("0", "10", "2"):
        photo(tmp_path / name / "a.png")
    assert read_folder(tmp_path).labels.tolist() == [0, 1, 2]
    assert "0 = 0, 1 = 10, 2 = 2" in capsys.readouterr().err
