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
    doors = ("simulate/__init__.py", "simulate/__main__.py")
    if room == "simulate" and not inside.startswith("simulate/experiments/") and inside not in doors:
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
    return wrong


def sources():
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_follow_the_rule(path):
    assert not against_the_rule(path, imports(path))


@pytest.mark.parametrize(
    ("inside", "line"),
    [
        ("simulate/samplers/conditional.py", "from theory import small_steps"),
        ("simulate/sampling/ghk.py", "from theory.prediction import predict"),
        ("simulate/estimates.py", "from simulate.experiments.averaging import distortions"),
        ("theory/methods/lines.py", "import simulate.sampling.paired_counting"),
        ("theory/setting/question.py", "from theory.choose.step import distortions"),
        ("derivations/binary.py", "import theory"),
        ("theory/setting/problem.py", "from theory.integrals.two_classes import Pair"),
    ],
)
def test_a_wrong_import_is_seen(inside, line):
    assert against_the_rule(ROOT / inside, imports(ROOT / inside, line))


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Files that import each other in a ring, one ring of them; empty where there is none."""
    done: set[str] = set()
    for start in graph:
        path, stack = [], [(start, iter(graph[start]))]
        path.append(start)
        while stack and start not in done:
            name, rest = stack[-1]
            following = next((other for other in rest if other not in done), None)
            if following is None:
                done.add(name)
                stack.pop()
                path.pop()
            elif following in path:
                return path[path.index(following) :]
            else:
                stack.append((following, iter(graph[following])))
                path.append(following)
    return []


def import_graph() -> dict[str, set[str]]:
    """Which file of the house imports which, wherever in the file."""
    names = {}
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in names.items():
        graph[name] = {module for module in imports(path) if module in names} - {name}
        # "from package import module" names the package too: it counts where nothing of it is a module
        for module in list(graph[name]):
            inside = [other for other in graph[name] if other.startswith(f"{module}.")]
            if names[module].name == "__init__.py" and inside and not _names_of(path, module):
                graph[name].discard(module)
    return graph


def _names_of(path: Path, package: str) -> bool:
    """Whether a file takes something from a package that is not one of its modules."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            folder = ROOT / package.replace(".", "/")
            if any(not (folder / f"{name.name}.py").exists() and not (folder / name.name).is_dir() for name in node.names):
                return True
        if isinstance(node, ast.Import) and any(name.name == package for name in node.names):
            return True
    return False


def test_no_circle_among_files():
    assert not circle(import_graph())


def test_a_circle_is_seen():
    graph = import_graph()
    graph["theory.setting.question"] |= {"theory.prediction"}
    assert "theory.prediction" in circle(graph)
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert not circle({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_no_test_imports_another_and_none_patches_a_constant():
    """Helpers live in tests/support; budgets are arguments."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        wrong = {name for name in imports(path) if name.startswith("tests.") and not name.startswith("tests.support")}
        assert not wrong, (path, wrong)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
                patched = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
                assert not any(name.isupper() for name in patched), (path, patched)


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
        "import sys, theory.setting.files, theory.setting.record, theory.setting.command_line, simulate; "
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
import os
from simulate.generator import synthetic
from simulate import run
from theory.prediction import predict
p = synthetic(classes=2, features=10, separation=2.0, priors="unequal", covariance="unequal", layer="perturbed", seed=4)
found = []
for errors in ("actual", "expected"):
    sampled = run(p, scheme="symmetric", bits=[3], errors=errors, n=20000)
    for r in predict(p, scheme="symmetric", bits=[4], errors=errors) + sampled:
        found.append([r.risk_before, r.distortion, r.flip_rate, *r.interval])
"""


def test_a_fresh_process_with_jaxs_defaults_gives_the_same_numbers():
    """As with double precision switched on."""
    plain = QUESTION + "import jax; assert not jax.config.jax_enable_x64; print(json.dumps(found))"
    strict = "import jax; jax.config.update('jax_enable_x64', True); jax.config.update('jax_numpy_rank_promotion', 'raise')\n"
    found = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
        for code in (plain, strict + QUESTION + "print(json.dumps(found))")
    ]
    assert json.loads(found[0]) == json.loads(found[1])
