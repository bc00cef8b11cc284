"""Command-line manners shared by every ``python -m ROOM``: one-line errors, exit codes, progress, JSON or a table."""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from theory.setting.checks import MOST_WHOLE
from theory.setting.errors import InputError, in_short
from theory.setting.question import BIAS_OPTIONS
from theory.setting.record import Record
from theory.setting.schemes import OPTIONS, SCHEMES, UNIFORM


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line on stderr and exits with code 2.

    ``more_help`` gives what stands below the help and takes time to find: it is called when help is asked for.
    """

    more_help: Callable[[], str] | None = None

    def format_help(self) -> str:
        own = argparse.ArgumentParser.format_help(self)
        return own if self.more_help is None else f"{own}\n{self.more_help()}"

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {in_short(message)}\n")


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse ``argv``, call the chosen command's ``run`` and turn its outcome into an exit code.

    Bad input (:class:`InputError`) and output that can't be written are one line on stderr and code 2; Ctrl-C is one line and
    code 130; a reader that closes the pipe early (``| head``) ends the command quietly.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal of ASCII shows what it can
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen and "://" not in chosen and not _can_hold(Path(chosen)):
        say(f"JAX_COMPILATION_CACHE_DIR: expected a folder that can be written to, got {in_short(chosen)}: another is used")
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
    for name, value in keep_compiled(_cache()).items():
        os.environ.setdefault(name, value)
    arguments = parser.parse_args(argv)
    try:
        code = int(arguments.run(arguments) or 0)
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        print(f"{parser.prog}: not enough memory: {in_short(error) or 'arrays too large for this machine'}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"{parser.prog}: {in_short(error)}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer has no place to go
        return 2


def _can_hold(folder: Path) -> bool:
    """Whether a folder is there, or was made, and takes files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _cache() -> Path:
    """Where compiled code is kept: the user's cache, or a temporary folder where there is none that can be written to."""
    with contextlib.suppress(RuntimeError):  # a user without a home
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "compressed-network-theory"
        if _can_hold(folder):
            return folder
    return Path(tempfile.gettempdir()) / f"compressed-network-theory-{os.getuid()}"


def keep_compiled(folder: Path | str) -> dict[str, str]:
    """The environment with which JAX keeps everything it compiles in a folder, between commands."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def whole_number(low: int, high: int = MOST_WHOLE) -> Callable[[str], int]:
    """An argparse type: an integer in ``[low, high)``."""

    def convert(text: str) -> int:
        try:
            value = int(text)  # refuses itself what has more digits than a number can have
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {in_short(repr(text))}") from None
        if not low <= value < high:
            limit = f"at least {low}" if high == MOST_WHOLE and value < low else f"from {low} to {high - 1}"
            raise argparse.ArgumentTypeError(f"expected a whole number {limit}, got {in_short(text)}")
        return value

    return convert


def fraction(text: str) -> float:
    """An argparse type: a number strictly between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, got {in_short(repr(text))}") from None
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


def add_row_errors(command: argparse.ArgumentParser) -> None:
    """The option that says whether rows of the same or opposite weights share their errors."""
    command.add_argument(
        "--row-errors",
        choices=("tied", "independent"),
        default="tied",
        help="rows whose weights make their errors the same or opposite have such errors (default), or all are independent",
    )


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
    schemes = list(SCHEMES) if scheme is None else list(UNIFORM)
    many: dict = {"nargs": "+"} if several else {}
    what = "; ".join(f"{name}: {SCHEMES[name].summary}" for name in schemes)
    parser.add_argument(
        "--scheme", required=scheme is None, default=scheme, type=_scheme(schemes), metavar="S", help=f"one of {what}", **many
    )
    parser.add_argument(
        "--bits",
        default=bits,
        nargs="+",
        type=whole_number(-(2**31), 2**31),
        metavar="B",
        help="bits per weight, one record each (none for the pruning schemes)",
    )
    add_options(parser, list(OPTIONS) if scheme is None else ["per_channel"])
    if scheme is None:
        parser.add_argument("--bias", action="store_true", help="compress the bias as one more column of the weights")
        parser.add_argument(
            "--bias-correction", action="store_true", help="add (W - What) zbar to the bias, zbar the mean feature"
        )
    classes = whole_number(-(2**31), 2**31)
    parser.add_argument("--classes", nargs="+", type=classes, metavar="I", help="the problem among these classes only")
    if interval:
        parser.add_argument("--confidence", type=fraction, default=0.95, help="of the interval (default 0.95)")
    add_json(parser)


def _scheme(schemes: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: the name of a scheme."""

    def convert(text: str) -> str:
        if text not in schemes:
            hint = f" (the uniform quantizer of the papers is {UNIFORM[0]})" if text == "uniform" else ""
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(schemes)}, got {in_short(repr(text))}{hint}")
        return text

    return convert


def add_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Options of the schemes, by name."""
    for name in names:
        option = OPTIONS[name]
        flag = f"--{name.replace('_', '-')}"
        if not option.listed:
            continue
        if option.type is None:
            parser.add_argument(flag, action="store_true", help=option.help)
        else:
            kind = whole_number(-(2**31), 2**31) if option.type is int else option.type
            parser.add_argument(flag, type=kind, choices=option.choices, metavar=option.metavar, help=option.help)


def question_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_question` read, by keyword of the public functions."""
    names = ["scheme", "bits", "classes", "confidence", *OPTIONS, *BIAS_OPTIONS]
    return {name: value for name, value in vars(arguments).items() if name in names}


def add_network(parser: argparse.ArgumentParser) -> None:
    """What part of a network is compressed, and how wide."""
    parser.add_argument("--layers", nargs="+", metavar="NAME", help="of a network: only these weights")
    parser.add_argument(
        "--layer-bits", nargs="+", type=_layer_width, metavar="NAME=B", help="of a network: widths of single weights"
    )
    parser.add_argument("--plan", metavar="FILE.json", help="of a network: the width of every weight, from `theory allocate`")


def _layer_width(text: str) -> tuple[str, int]:
    """An argparse type: NAME=B."""
    name, sign, width = text.rpartition("=")
    if not sign or not name:
        raise argparse.ArgumentTypeError(f"expected NAME=BITS, got {in_short(repr(text))}")
    return name, whole_number(0, 2**31)(width)


def network_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_network` read, where it was given."""
    given = {"layers": arguments.layers, "layer_bits": dict(arguments.layer_bits or []), "plan": arguments.plan}
    return {name: value for name, value in given.items() if value}


def print_json(document: Any) -> None:
    """One JSON document; a number that is not finite is null."""
    print(json.dumps(_plain(document), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print the named columns of the rows, numbers to four significant digits, aligned."""
    cells = [list(columns)] + [[_cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def show(records: Sequence[Record], *, as_json: bool) -> None:
    """Print records as JSON or as a table with one line per warning below it."""
    rows = [record.as_dict() for record in records]
    if as_json:
        print_json(rows)
        return
    estimated = bool(records) and records[0].standard_error is not None
    interval = "interval of the estimate" if estimated else "interval of one network"
    rows = [{interval if name == "interval" else name: value for name, value in row.items()} for row in rows]
    some = [name for name in ("sparsity", "group_size") if any(row.get(name) for row in rows)]
    columns = ["scheme", "granularity", "bits", *some, "rate", "risk_before", "risk_after", "distortion", interval, "flip_rate"]
    print_table(rows, [*columns, "standard_error" if estimated else "numerical_error", "method"])
    several = len({record.scheme for record in records}) > 1
    about: dict[str, list[str]] = {}  # by warning, the records that have it
    for record in records:
        which = [record.scheme] * several + ([] if record.bits is None else [f"{record.bits} bits"])
        for warning in record.warnings:
            about.setdefault(warning, []).append(", ".join(which))
    for warning, which in about.items():
        print(f"{'; '.join(which)}{': ' if any(which) else ''}{warning}")


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
