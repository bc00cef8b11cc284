"""The doors: exit codes, one-line errors, JSON, Ctrl-C, nothing half-written."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import simulate.__main__
import theory.__main__
from tests.support.commands import code, one_line
from tests.support.problems import random_problem
from theory.setting.files import write_statistics


@pytest.fixture
def statistics(tmp_path):
    path = tmp_path / "s.npz"
    write_statistics(path, random_problem(4, 2))
    return path


TAIL = ("--scheme", "symmetric", "--bits", "4")


def test_predict_run_and_json(statistics, capsys):
    for door, verb in ((theory.__main__, "predict"), (simulate.__main__, "run")):
        for errors in ("actual", "expected"):
            extra = () if verb == "predict" else ("--n", "20000")
            assert code(door, verb, statistics, *TAIL, "--errors", errors, "--json", *extra) == 0
            (record,) = json.loads(capsys.readouterr().out)
            assert record["errors"] == errors
            assert record["bits"] == 4
            assert sum(record["rate_breakdown"].values()) == pytest.approx(record["rate"] * 8)
    assert code(theory.__main__, "predict", statistics, *TAIL) == 0
    assert "distortion" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--scheme", "symmetric", "--bits", "1"), ["bits", "2 to 16", "1"]),
        (("--scheme", "symmetric", "--bits", "four"), ["bits", "four"]),
        (("--scheme", "nonsense", "--bits", "4"), ["symmetric", "affine", "midrise", "nonsense"]),
        ((*TAIL, "--confidence", "1.5"), ["confidence"]),
        ((*TAIL, "--test-size", "0"), ["test-size", "0"]),
        ((*TAIL, "--seed", str(2**63)), ["seed"]),
        ((*TAIL, "--seed", "-1"), ["seed"]),
        ((*TAIL, "--classes", "0", "5"), ["classes", "5"]),
        ((*TAIL, "--method", "magic"), ["method", "binary_risk"]),
        ((*TAIL, "--errors", "kernel"), ["errors"]),
        ((), ["scheme"]),
        (("--scheme", "symmetric"), ["bits", "2 to 16", "none"]),
        (("--scheme", "prune", "--bits", "4", "--sparsity", "0.5"), ["bits", "none", "4"]),
        (("--scheme", "prune"), ["sparsity", "0 to 1"]),
        (("--scheme", "prune", "--sparsity", "1.5"), ["sparsity", "1.5"]),
        (("--scheme", "prune", "--sparsity", "0.001"), ["sparsity", "rounds to none"]),
        (("--scheme", "prune-structured", "--sparsity", "0.5"), ["unit"]),
        (("--scheme", "codebook", "--bits", "3", "--per-channel"), ["per_channel", "codebook"]),
    ],
)
def test_bad_options_are_one_line(statistics, capsys, arguments, named):
    assert code(theory.__main__, "predict", statistics, *arguments) == 2
    one_line(capsys, *named)


def _bad_files():
    p = random_problem(4, 2)
    good = {name: getattr(p, name) for name in ("weights", "bias", "priors", "means", "covariances")}
    hole, skew = p.weights.copy(), p.covariances.copy()
    hole[1, 2] = np.nan
    skew[1, 0, 1] += 1
    return {
        "nan": ({**good, "weights": hole}, ["weights", "row 1", "column 2", "nan"]),
        "shape": ({**good, "bias": np.zeros(7)}, ["bias", "(2,)", "(7,)"]),
        "priors": ({**good, "priors": np.array([0.5, 0.6])}, ["priors", "1.1"]),
        "negative": ({**good, "priors": np.array([-0.5, 1.5])}, ["priors", "-0.5"]),
        "psd": ({**good, "covariances": np.diag([1.0, 1, 1, -0.2])}, ["covariances", "-0.2"]),
        "skew": ({**good, "covariances": skew}, ["covariances[1]", "symmetric"]),
        "missing": ({k: v for k, v in good.items() if k != "means"}, ["means", "missing"]),
        "integers": ({**good, "weights": np.ones((2, 4), int)}, ["weights", "int64"]),
        "means": ({**good, "means": np.zeros((2, 5))}, ["means", "(2, 4)", "(2, 5)"]),
        "counts": ({**good, "counts": np.array([1.5, 2])}, ["counts"]),
        "transposed": ({**good, "weights": p.weights.T}, ["weights", "(2, 4)", "(4, 2)", "transposed"]),
        "features": ({"features": np.zeros((3, 4)), "weights": p.weights, "bias": p.bias}, ["labels", "--temperature"]),
    }


@pytest.mark.parametrize("name", _bad_files())
def test_bad_files_are_one_line(tmp_path, capsys, name):
    arrays, named = _bad_files()[name]
    path = tmp_path / f"{name}.npz"
    np.savez(path, **arrays)
    assert code(theory.__main__, "predict", path, *TAIL) == 2
    one_line(capsys, f"{name}.npz", *named)


def test_files_that_are_none(tmp_path, capsys):
    junk = tmp_path / "junk.npz"
    junk.write_bytes(b"not a zip file")
    single = tmp_path / "single.npz"
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(single)
    cut = tmp_path / "cut.npz"
    write_statistics(cut, random_problem(4, 2))
    cut.write_bytes(cut.read_bytes()[:-200])
    text = tmp_path / "text.npz"
    text.write_text("1, 2, 3\n")
    objects = tmp_path / "objects.npz"
    np.savez(objects, weights=np.array([{}], dtype=object), bias=np.zeros(1), allow_pickle=True)
    for path in (junk, single, cut, text, objects, tmp_path, tmp_path / "absent.npz"):
        assert code(theory.__main__, "predict", path, *TAIL) == 2
        said = capsys.readouterr().err.strip()
        assert path.name in said
        assert len(said.splitlines()) == 1
        assert "allow_pickle" not in said  # nobody should be told to switch that on


def test_nothing_is_left_behind(tmp_path, capsys):
    rng = np.random.default_rng(0)
    bad = tmp_path / "bad.npz"
    z = rng.standard_normal((20, 3))
    z[7, 1] = np.inf
    np.savez(bad, features=z, labels=rng.integers(0, 2, 20), weights=np.ones((2, 3)), bias=np.zeros(2))
    assert code(simulate.__main__, "fit", bad, "--out", tmp_path / "never.npz") == 2
    one_line(capsys, "features", "row 7", "column 1", "inf")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]
    assert (
        code(
            simulate.__main__,
            "synthetic",
            "--classes",
            2,
            "--features",
            3,
            "--separation",
            1,
            "--out",
            tmp_path / "no" / "x.npz",
        )
        == 2
    )
    one_line(capsys, "existing folder")


def test_the_other_doors_refuse_in_one_line(tmp_path, statistics, capsys):
    for arguments, named in (
        (("synthetic", "--classes", 1, "--features", 3, "--separation", 1, "--out", "x.npz"), ["classes"]),
        (("synthetic", "--classes", 2, "--features", 3, "--separation", "nan", "--out", "x.npz"), ["separation"]),
        (("run", statistics, *TAIL, "--n", 0), ["n"]),
        (("run", statistics, *TAIL, "--standard-error", -1), ["standard-error"]),
        (("run", statistics, *TAIL, "--networks", 5), ["networks"]),
        (("run", statistics, *TAIL, "--method", "magic"), ["method", "reduced_pairs"]),
        (("synthetic", "--classes", 2, "--features", 3, "--separation", 1, "--out", tmp_path / "x.txt"), ["x.txt", ".npz"]),
        (("measure", statistics, *TAIL), ["features", "statistics file"]),
        (("check", statistics), ["features"]),
        (("fit", statistics, "--out", tmp_path / "y.npz"), ["features"]),
        (
            ("extract", "--network", "resnet20", "--checkpoint", tmp_path / "no.th", "--data", tmp_path, "--out", "z.npz"),
            ["no.th"],
        ),
        (("extract", "--network", "resnet18", "--checkpoint", "a", "--data", "b", "--out", "c"), ["resnet18", "resnet110"]),
        (
            ("train", "--network", "resnet20", "--data", tmp_path, "--epochs", 1, "--out", tmp_path / "t.pt"),
            ["cifar-10-batches-bin"],
        ),
        (("unbuilt",), ["unbuilt"]),
    ):
        assert code(simulate.__main__, *arguments) == 2
        one_line(capsys, *named)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.npz"]


PYTHON = """
import importlib.abc, sys
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, NoTorch())
import numpy as np
import simulate, theory
from theory.setting.errors import InputError
p = simulate.synthetic(classes=2, features=4, separation=2.0)
q = dict(scheme="symmetric")
calls = {
    "bits: expected a list": lambda: theory.predict(p, bits=2.5, **q),
    "bits: expected a whole number": lambda: theory.predict(p, bits=[3.5], **q),
    "seed": lambda: simulate.run(p, bits=[3], seed=-1, **q),
    "test_size": lambda: theory.predict(p, bits=[3], test_size=1e3, **q),
    "confidence": lambda: theory.predict(p, bits=[3], confidence="x", **q),
    "n: expected": lambda: simulate.run(p, bits=[3], n=2.5, **q),
    "got a dict": lambda: simulate.fit({}),
    "got a list": lambda: theory.predict([1], bits=[3], **q),
    "features: expected a whole number": lambda: simulate.synthetic(classes=2, features=1.5, separation=2.0),
    "PyTorch": lambda: simulate.train,
    "needs PyTorch": lambda: simulate.extract(network="resnet20", checkpoint="c.th", data="d"),
}
for named, call in calls.items():
    try:
        call()
    except InputError as error:
        assert named in str(error) and len(str(error).splitlines()) == 1, (named, str(error))
    else:
        raise SystemExit(named + " was not refused")
assert theory.predict(p, bits=3, **q)[0].bits == 3
assert theory.predict(p, bits=np.array([3]), classes=np.array([0, 1]), **q)[0].bits == 3
assert "predict" in dir(theory) and {"run", "fit", "measure"} <= set(dir(simulate))
print("fine")
"""


def test_python_arguments_are_refused_as_on_the_command_line():
    """In a fresh process: no type checker, no PyTorch."""
    done = subprocess.run([sys.executable, "-c", PYTHON], capture_output=True, text=True)
    assert done.stdout.strip() == "fine", done.stderr


def test_ctrl_c_is_one_line_and_130(statistics, capsys, monkeypatch):
    import theory.prediction

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(theory.prediction, "predict", stop)
    assert code(theory.__main__, "predict", statistics, *TAIL) == 130
    one_line(capsys, "interrupted")


LONG = ("simulate", "run", "STATISTICS", *TAIL, "--standard-error", "3e-7")


@pytest.mark.parametrize(
    ("seconds", "command"),
    [(0.4, LONG), (1.0, LONG), (3.0, LONG), (0.7, ("derivations",)), (0.7, ("simulate.experiments.coverage",))],
)
def test_ctrl_c_of_a_process_at_any_time(seconds, command, statistics):
    """While it imports and while it works: one line, 130, at once."""
    words = [sys.executable, "-m", *(str(statistics) if word == "STATISTICS" else str(word) for word in command)]
    pipes: dict = dict(stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen(words, cwd=Path(__file__).parent.parent, **pipes)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130, error
    assert error.strip() == f"{command[0].removesuffix('.coverage')}: interrupted"


@pytest.mark.parametrize("words", [["-m", "theory"], ["-mtheory"], ["-I", "-m", "theory"]])
def test_a_command_runs_however_python_is_asked(words):
    done = subprocess.run([sys.executable, *words, "predict", "none.npz", *TAIL], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("theory: none.npz")


def test_check_and_measure_print(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    z = rng.standard_normal((200, 8)) + y[:, None]
    np.savez(
        tmp_path / "f.npz", features=z, labels=y, weights=rng.standard_normal((2, 8)) + np.array([[-1], [1]]), bias=np.zeros(2)
    )
    assert code(simulate.__main__, "check", tmp_path / "f.npz") == 0
    assert "Gaussian margins" in capsys.readouterr().out
    assert code(simulate.__main__, "check", tmp_path / "f.npz", "--json") == 0
    assert {record["hypothesis"] for record in json.loads(capsys.readouterr().out)} >= {"Gaussian margins"}
    assert code(simulate.__main__, "measure", tmp_path / "f.npz", *TAIL, "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["method"] == "counting"
    assert code(simulate.__main__, "fit", tmp_path / "f.npz", "--out", tmp_path / "s.npz") == 0
    assert code(theory.__main__, "predict", tmp_path / "s.npz", *TAIL, "--test-size", 100) == 0


def test_help_shows_only_what_is_built():
    done = subprocess.run([sys.executable, "-m", "simulate", "--help"], capture_output=True, text=True, check=True)
    assert "{synthetic,train,extract,linearize,fit,run,measure,check,compress,decompress,benchmark}" in done.stdout


def test_an_unknown_benchmark_is_one_line(capsys):
    assert code(simulate.__main__, "benchmark", "nonsense") == 2
    one_line(capsys, "counting, known, thousand")
