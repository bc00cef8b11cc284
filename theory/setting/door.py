"""Command-line manners shared by every ``python -m ROOM``: one-line errors, exit codes, progress, JSON or a table."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from theory.setting.compression import CRITERIA, SCHEMES, UNIFORM
from theory.setting.compression.pruned import DENSE
from theory.setting.errors import InputError


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line on stderr and exits with code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse ``argv``, call the chosen command's ``run`` and turn its outcome into an exit code.

    Bad input (:class:`InputError`) is one line on stderr and code 2; Ctrl-C is one line and code 130; a reader that
    closes the pipe early (``| head``) ends the command quietly.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for name, value in keep_compiled(home / "compressed-network-theory").items():
        os.environ.setdefault(name, value)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except InputError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def keep_compiled(folder: Path | str) -> dict[str, str]:
    """The environment with which JAX keeps everything it compiles in a folder, between commands."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer in ``[low, high)``."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if value < low or (high is not None and value >= high):
            limit = f"at least {low}" if high is None else f"from {low} to {high - 1}"
            raise argparse.ArgumentTypeError(f"expected a whole number {limit}, got {value}")
        return value

    return convert


def fraction(text: str) -> float:
    """An argparse type: a number strictly between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, got {text!r}") from None
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"expected a fraction strictly between 0 and 1, got {text}")
    return value


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}") from None
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text}")
    return value


def add_seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0, help="seed of every draw (default 0)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def add_question(
    parser: argparse.ArgumentParser,
    *,
    scheme: str | None = None,
    bits: Sequence[int] | None = None,
    interval: bool = True,
    several: bool = False,
) -> None:
    """The options by which ``predict``, ``run`` and ``measure`` ask the same question; with a default scheme, which is one of
    equal steps, those of ``check``."""
    schemes = list(SCHEMES) if scheme is None else UNIFORM
    many: dict = {"nargs": "+"} if several else {}
    parser.add_argument(
        "--scheme", required=scheme is None, default=scheme, choices=schemes, help="how the weights are compressed", **many
    )
    parser.add_argument(
        "--bits",
        default=bits,
        nargs="+",
        type=int,
        metavar="B",
        help="bits per weight, one record each (none for the pruning schemes)",
    )
    parser.add_argument("--per-channel", action="store_true", help="one step per row instead of one per tensor")
    if scheme is None:
        add_options(parser)
    parser.add_argument("--classes", nargs="+", type=int, metavar="I", help="the problem among these classes only")
    if interval:
        parser.add_argument("--confidence", type=fraction, default=0.95, help="of the interval (default 0.95)")
    add_json(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the schemes but --per-channel."""
    parser.add_argument(
        "--sparsity", type=float, metavar="S", help="fraction of the weights or units that become 0, where pruned"
    )
    parser.add_argument("--unit", choices=DENSE, help="what prune-structured removes: a column, or --map-size columns")
    parser.add_argument("--map-size", type=whole_number(1), metavar="M", help="neighbouring columns of a map")
    parser.add_argument(
        "--criterion", choices=CRITERIA, help="of optimal: least predicted distortion (default) or least squared error"
    )
    parser.add_argument("--activation-bits", type=int, metavar="A", help="bits of the inputs of the layer, for integer")
    parser.add_argument("--bias", action="store_true", help="compress the bias as one more column of the weights")
    parser.add_argument("--bias-correction", action="store_true", help="add (W - What) zbar to the bias, zbar the mean feature")


def question_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_question` read, by keyword of the public functions."""
    names = ["scheme", "bits", "per_channel", "classes", "sparsity", "unit", "map_size", "criterion", "bias", "bias_correction"]
    names += ["activation_bits", "confidence"]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, allow_nan=False))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print the named columns of the rows, numbers to four significant digits, aligned."""
    cells = [list(columns)] + [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def rows_command(
    prog: str, description: str | None, make: Callable[..., list[dict[str, Any]]], argv: Sequence[str] | None
) -> int:
    """A command of --seed and --json alone that prints the rows ``make(seed=...)`` gives; its exit code."""
    parser = Parser(prog=prog, description=description)
    add_seed(parser)
    add_json(parser)

    def work(a) -> int:
        rows = make(seed=a.seed)
        print_json(rows) if a.json else print_table(rows, list(rows[0]))
        return 0

    parser.set_defaults(run=work)
    return run(parser, argv)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    return str(value)


def progress(items: Iterable[Any], *, total: int | None = None, what: str = "", unit: str = "it") -> Iterable[Any]:
    """The items, with a progress bar on stderr when a terminal watches."""
    if not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    return tqdm(items, total=total, desc=what, unit=unit, leave=False, file=sys.stderr)


def say(message: str) -> None:
    """One line on stderr, for the person who watches; never part of the result."""
    print(message, file=sys.stderr, flush=True)
