"""Rules of the house: who imports whom, what pyproject names, what a fresh notebook sees."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("derivations", "theory", "simulate", "figures")
ALLOWED = {
    "derivations": {"derivations"},
    "theory": {"theory", "derivations"},
    "simulate": {"simulate", "theory"},
    "figures": {"figures", "simulate", "theory"},
}


def imports(path: Path, text: str | None = None) -> set[str]:
    """Every module a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text() if text is None else text)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def against_the_rule(path: Path, modules: set[str]) -> set[str]:
    """Imports of a file that the import rule forbids."""
    room = path.relative_to(ROOT).parts[0]
    wrong = {name for name in modules if name.split(".")[0] in ROOMS and name.split(".")[0] not in ALLOWED[room]}
    inside = path.relative_to(ROOT).as_posix()
    if room == "simulate" and not inside.startswith("simulate/experiments/") and inside != "simulate/__main__.py":
        wrong |= {
            name
            for name in modules
            if name.split(".")[0] == "theory" and name != "theory" and not name.startswith("theory.setting")
        }
        wrong |= {"theory"} if "theory" in modules else set()
        wrong |= {name for name in modules if name.startswith("simulate.experiments")}
    if inside.startswith("theory/setting/"):
        wrong |= {name for name in modules if name.split(".")[0] in ("derivations", "sympy")}
        wrong |= {name for name in modules if name.startswith("theory.") and not name.startswith("theory.setting")}
    if inside == "theory/setting/question.py":  # the step of least predicted distortion is what the theory says it is
        wrong -= {"theory.choose", "theory.choose.distortions"}
    return wrong


def sources():
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_rule(path):
    assert not against_the_rule(path, imports(path))


@pytest.mark.parametrize(
    ("inside", "line"),
    [
        ("simulate/sampler.py", "from theory import binary"),
        ("simulate/sampler.py", "from theory.prediction import predict"),
        ("simulate/estimate.py", "from simulate.experiments.averaging import distortions"),
        ("theory/binary.py", "import simulate.sampler"),
        ("derivations/binary.py", "import theory"),
        ("theory/setting/problem.py", "from theory.binary import Pair"),
    ],
)
def test_a_wrong_import_is_seen(inside, line):
    assert against_the_rule(ROOT / inside, imports(ROOT / inside, line))


def test_lambdify_is_called_in_one_place_only():
    callers = {path.relative_to(ROOT).as_posix() for path in sources() if "lambdify(" in path.read_text()}
    assert callers == {"derivations/jax_code.py"}


def test_files_are_short():
    long = {path.name: n for path in sources() if (n := len(path.read_text().splitlines())) > 450}
    assert not long


def test_every_path_in_pyproject_exists():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tool = config["tool"]
    paths = [
        config["project"]["readme"],
        *config["project"]["license-files"],
        *tool["pyright"]["include"],
        *tool["hatch"]["build"]["targets"]["wheel"]["packages"],
        *tool["pytest"]["ini_options"]["testpaths"],
    ]
    assert not [path for path in paths if not (ROOT / path).exists()]
    assert set(tool["pyright"]["include"]) == {*ROOMS, "tests"}


def test_importing_the_setting_loads_neither_sympy_nor_jax():
    code = (
        "import sys, theory.setting.files, theory.setting.record, theory.setting.door, simulate; "
        "print([m for m in ('sympy', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_functions_stay_functions():
    """No submodule takes the place of the function of its name, however often it is used."""
    import simulate
    import theory

    for room in (theory, simulate):
        for name in room.__all__:
            if name in ("extract", "train"):
                continue  # need the extra torch
            assert callable(getattr(room, name))
            assert callable(getattr(room, name)), f"{room.__name__}.{name} became a module"


QUESTION = """
import json
from simulate.generator import synthetic
from simulate.monte_carlo import run
from theory.prediction import predict
p = synthetic(classes=2, features=10, separation=2.0, priors="unequal", covariance="unequal", layer="perturbed", seed=4)
found = []
for errors in ("actual", "expected"):
    sampled = run(p, scheme="symmetric", bits=[3], errors=errors, n=20000)
    for r in predict(p, scheme="symmetric", bits=[2, 4], errors=errors) + sampled:
        found.append([r.risk_before, r.distortion, r.flip_rate, *r.interval])
"""


def test_a_fresh_process_with_jaxs_defaults_gives_the_same_numbers():
    code = QUESTION + "import jax; assert not jax.config.jax_enable_x64; print(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    here: dict = {}
    exec(QUESTION, here)
    assert json.loads(done.stdout) == here["found"]
