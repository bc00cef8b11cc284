"""The recipes of CONTRIBUTING.md: a scheme and a method, one new file each, are everywhere; old stored files are still read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from theory.setting import stored_layer
from theory.setting.schemes import SCHEMES, compress, registry
from theory.setting.schemes.base import Scheme

ROOT = Path(__file__).parent.parent

TOY_SCHEME = """
from dataclasses import dataclass
import numpy as np
from theory.setting.schemes.base import Scheme
from theory.setting.schemes.bit_stream import whole

@dataclass(frozen=True, kw_only=True)
class Signs(Scheme):
    def compress(self, weights, bits, options):
        return {"codes": (weights > 0).astype(np.int64)}
    def restore(self, parts, shape):
        return (2.0 * parts["codes"] - 1).reshape(shape)
    def bits_of(self, parts, bits):
        return {"codes": parts["codes"].size}
    def encode(self, parts, bits):
        return {"codes": whole(parts["codes"], 1)}
    def decode(self, stream, stored):
        return {"codes": stream.whole(stored.count, 1).reshape(stored.shape)}
    def stored_numbers(self, options):
        return 0, 0

SCHEMES = (Signs(name="signs", wire_id=200, summary="the sign of every weight", bits=None),)
"""

TOY_METHOD = """
from dataclasses import dataclass
import numpy as np
from theory.effect import Effect, known_network
from theory.methods.base import Method, refuses_kind

@dataclass(frozen=True, kw_only=True)
class Nothing(Method):
    def refuses(self, case):
        return refuses_kind(case)
    def answer(self, case):
        none = np.zeros(case.problem.classes)
        return [Effect(self.name, none, none, none, 0.0, 0.0, 0.0, known_network(0.0, 0.0, 0.0)) for _ in case.layers]
    def suffices(self, case, effect):
        return False

METHODS = (Nothing(name="no_loss", source="none", summary="says that nothing is lost", errors=("actual",), rank=None),)
"""


COMMANDS = """
import contextlib, importlib, io, json, sys
results = []
for room, *words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = importlib.import_module(room + ".__main__").main(words)
        except SystemExit as stop:
            code = stop.code or 0
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


def commands(folder: Path, *lines: str) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each ``python -m LINE`` in that copy of the house, all in one process."""
    words = json.dumps([line.split() for line in lines])
    done = subprocess.run([sys.executable, "-c", COMMANDS], input=words, capture_output=True, text=True, cwd=folder, check=True)
    return [tuple(one) for one in json.loads(done.stdout)]


@pytest.fixture
def house(tmp_path):
    """A copy of the rooms, with a problem."""
    for room in ("derivations", "theory", "simulate"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__", "data"))
    rng = np.random.default_rng(0)
    means = rng.standard_normal((2, 6))
    arrays = {"weights": means, "bias": np.zeros(2), "priors": np.full(2, 0.5), "means": means, "covariances": np.eye(6)}
    np.savez(tmp_path / "p.npz", **arrays)
    return tmp_path


def test_a_scheme_is_one_file(house):
    ((code, _, _),) = commands(house, "simulate compress p.npz --scheme affine --bits 3 --out before.bin")
    assert code == 0
    (house / "theory/setting/schemes/aaa_signs.py").write_text(TOY_SCHEME)  # the first by name: no number depends on the order
    helps = commands(house, "theory predict --help", "simulate run --help")
    assert all("signs: the sign of every weight" in " ".join(out.split()) for _, out, _ in helps)
    done = commands(
        house,
        "theory predict p.npz --scheme signs",
        "simulate run p.npz --scheme signs --n 20000",
        "simulate compress p.npz --scheme signs --out s.bin",
        "simulate decompress s.bin --out s.npz",
        "simulate decompress before.bin --out b.npz",
    )
    assert all(code == 0 for code, _, _ in done), done
    assert all("signs" in out for _, out, _ in done[:2])
    with np.load(house / "s.npz") as back, np.load(house / "p.npz") as problem, np.load(house / "b.npz") as old:
        np.testing.assert_array_equal(back["weights"], np.where(problem["weights"] > 0, 1.0, -1.0))
        np.testing.assert_array_equal(old["weights"], compress(problem["weights"], "affine", 3).weights)


def test_a_method_is_one_file(house):
    (house / "theory/methods/no_loss.py").write_text(TOY_METHOD)
    question = "theory predict p.npz --scheme symmetric --bits 2"
    lines = ("theory predict --help", f"{question} --method no_loss", question)
    shown, asked, plain, refused = commands(house, *lines, f"{question} --method no_loss --errors expected")
    assert "says that nothing is lost" in shown[1]
    assert "no_loss" in asked[1]
    assert "binary_risk" in plain[1]  # it is only asked by name
    assert refused[0] == 2
    assert "no_loss needs actual errors" in refused[2]


# as they were written before schemes had a registry, and with groups since: later schemes must not change how they are read
STORED = json.loads((Path(__file__).parent / "support" / "stored_layers.json").read_text())
WEIGHTS = np.array([[0.5, -1.25, 2.0, 0.0], [-0.75, 0.125, 1.0, -3.0]])


@pytest.mark.parametrize("stored", STORED, ids=lambda one: one["scheme"])
def test_stored_layers_of_every_scheme_are_still_read(stored):
    scheme, options, written = (stored[key] for key in ("scheme", "options", "bytes"))
    layer, whole = compress(WEIGHTS, scheme, **options), scheme == "integer"
    bias, step = (np.array([3, -7]), 0.5) if whole else (np.array([0.25, -1.5]), 0.0)
    What, read = stored_layer.decode(bytes.fromhex(written))
    np.testing.assert_array_equal(What, layer.weights)
    np.testing.assert_array_equal(read, bias * stored_layer.products(layer.steps[:, 0], step) if whole else bias)
    assert stored_layer.encode(layer, bias, input_step=step).hex() == written


def test_wire_ids_are_for_ever():
    numbers = {"symmetric": 0, "affine": 1, "midrise": 2, "optimal": 3, "integer": 4, "prune": 5, "prune-structured": 6}
    numbers |= {"codebook": 7, "deep-compression": 8}
    assert {name: scheme.wire_id for name, scheme in SCHEMES.items()} == numbers
    with pytest.raises(ValueError, match="taken"):
        registry([*SCHEMES.values(), SCHEMES["affine"]])


def test_every_scheme_is_final_and_frozen():
    for scheme in SCHEMES.values():
        assert isinstance(scheme, Scheme)
        assert not type(scheme).__subclasses__()
        with pytest.raises(AttributeError):
            scheme.wire_id = 3  # pyright: ignore[reportAttributeAccessIssue]
    assert stored_layer.HEADER.size == 52
