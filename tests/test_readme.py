"""What the READMEs show runs: their Python blocks, and the commands of the first one, with the output it prints."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(path: Path) -> list[str]:
    """Indented blocks, in their order, without their indent."""
    found = re.findall(r"(?:^    .*\n)+", path.read_text(), flags=re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in found]


def call(folder: Path, command: str) -> str:
    words = shlex.split(command, comments=True)
    assert words[:2] == ["python", "-m"]
    done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, cwd=folder, env=environment())
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


def near(seen: str, shown: str) -> bool:
    """The same words, and numbers to a thousandth (they are rounded differently on other processors)."""
    pattern = r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?"
    numbers = [[float(x) for x in re.findall(pattern, text)] for text in (seen, shown)]
    same_words = re.sub(pattern, "#", seen).split() == re.sub(pattern, "#", shown).split()
    small = [abs(a - b) <= 2e-3 * abs(b) + 1e-5 for a, b in zip(*numbers, strict=False)]
    return same_words and len(numbers[0]) == len(numbers[1]) and all(small)


def test_the_first_readme_runs(tmp_path):
    """Every `$` line, its output compared; the Python block before them."""
    compared = 0
    for block in blocks(ROOT / "README.md"):
        if block.startswith("import"):
            exec(compile(f"import os; os.chdir({str(tmp_path)!r})\n{block}", "README.md", "exec"), {})
        if not block.startswith("$"):
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            printed = call(tmp_path, command).splitlines()
            for line in filter(None, shown):
                assert any(near(seen, line) for seen in printed), (line, printed)
                compared += 1
    assert compared >= 4
    assert (tmp_path / "out" / "mine.png").is_file()


@pytest.mark.parametrize("arguments", ["rectifier_gain", "gain --json"])
def test_the_commands_of_the_derivations_run(arguments, tmp_path):
    """Those of one result; all of them are verified by other tests, and what --write writes is compared."""
    command = f"python -m derivations {arguments}"
    assert command in (ROOT / "derivations" / "README.md").read_text()
    assert arguments.split()[0] in call(tmp_path, command)


def test_the_statistics_file_of_the_theory_readme_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks(ROOT / "theory" / "README.md") if block.startswith("import")]
    exec(compile(block, "theory/README.md", "exec"), {})
    from theory.setting.files import read_statistics

    assert read_statistics(tmp_path / "mine.npz").classes == 3


@pytest.mark.parametrize("readme", sorted(ROOT.rglob("README.md")), ids=lambda path: path.parent.name)
def test_paths_and_commands_that_readmes_name_exist(readme):
    """Files in links and backquotes, and modules of commands."""
    text = readme.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (readme.parent / target).exists(), target
    for path in re.findall(r"`((?:theory|simulate|figures|derivations|tests)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"python -m ((?:simulate|theory|figures|derivations)(?:\.\w+)*)", text):
        place = ROOT / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name


def test_the_first_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
