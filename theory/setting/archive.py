"""Reading and writing ``.npz`` archives of plain arrays: only the members asked for, nothing unpickled, never half a file.

Whatever is wrong with a file is one :class:`InputError`: every exception of opening and parsing becomes one, and the header of
an array is looked at, and held against the member's size, before the array is made.
"""

import csv
import io
import os
import stat
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from theory.setting.errors import InputError, in_short
from theory.setting.interrupt import PARTIAL_FILES

SUFFIX = ".npy"


def member_names(path: Path | str) -> list[str]:
    """The names of the arrays of an ``.npz`` file."""
    with _reading(path), zipfile.ZipFile(_existing(path)) as archive:
        return [name.removesuffix(SUFFIX) for name in archive.namelist() if name.endswith(SUFFIX)]


def read_arrays(path: Path | str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The named arrays that an ``.npz`` file has (all of them by default).

    Raises:
        InputError: no such file, not an archive, or an array that is not plain numbers or text.
    """
    there = member_names(path)
    wanted = there if names is None else [name for name in there if name in set(names)]
    arrays = {}
    for name in wanted:
        with _reading(path, name), zipfile.ZipFile(path) as archive:
            arrays[name] = _read_member(archive, name)
    return arrays


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    info = archive.getinfo(name + SUFFIX)
    with archive.open(info) as file:
        version = npy.read_magic(file)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise InputError(f"expected an array of format 1.0 or 2.0, got {version}")
        shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise InputError("expected plain numbers or text, got Python objects, which are never unpickled")
    size = dtype.itemsize
    for extent in shape:
        size *= extent  # Python's integers do not overflow
    if size > info.file_size or min(shape, default=0) < 0:
        raise InputError(f"expected the {size} bytes of shape {shape}, got {info.file_size}")
    if size > memory_left():
        raise InputError(
            f"expected an array that memory holds ({memory_left() / 2**30:.1f} GiB free), got {size / 2**30:.1f} GiB"
        )
    with archive.open(info) as file:
        return npy.read_array(file, allow_pickle=False)


def memory_left() -> float:
    """Bytes of memory that can be had, what only caches files included, where the system says; else a terabyte."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return 2.0**40


class _reading:
    """Turns every exception of opening and parsing a file into one line that names the file, and the array."""

    def __init__(self, path: Path | str, name: str = ""):
        self.where = f"{path}: {name}: " if name else f"{path}: "
        self.warnings = warnings.catch_warnings()

    def __enter__(self) -> None:
        self.warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, kind, error, traceback) -> None:
        self.warnings.__exit__(kind, error, traceback)
        if isinstance(error, InputError):
            raise InputError(self.where + str(error)) from None
        if isinstance(error, Exception):
            why = in_short(error) or type(error).__name__
            raise InputError(f"{self.where}expected an .npz archive of plain arrays, cannot read it: {why}") from None


def _existing(path: Path | str) -> Path:
    check_readable(path, "an .npz file", named=False)
    if not zipfile.is_zipfile(path):
        with Path(path).open("rb") as file:
            start = file.read(6)
        what = {b"": "an empty file", npy.MAGIC_PREFIX: "a single array (.npy)"}.get(start, "another kind of file")
        if start.startswith(b"PK"):
            what = "one without its end: cut short?"
        raise InputError(f"expected an .npz archive of named arrays, got {what}")
    return Path(path)


def check_readable(path: Path | str, expected: str, *, named: bool = True) -> Path:
    """The path, refused unless it is a regular file: nothing is read from folders, pipes and devices."""
    where = f"{path}: " if named else ""
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        found = "nothing" if isinstance(error, FileNotFoundError | NotADirectoryError) else in_short(error)
        raise InputError(f"{where}expected {expected}, found {found}") from None
    except ValueError as error:  # a null byte
        raise InputError(f"{where}expected {expected}, got a name that cannot be one: {error}") from None
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
        raise InputError(f"{where}expected {expected}, found {found}")
    return Path(path)


def check_place(path: Path | str, suffix: str = "", *, reads: Iterable[object] = ()) -> Path:
    """Where a file is to be written: refused if it can't be, before the work that fills it, and where it is one of the files
    that are read."""
    path = Path(path)
    if suffix and path.suffix != suffix:
        raise InputError(f"{path}: expected a file name that ends in {suffix}")
    try:
        if path.is_dir():
            raise InputError(f"{path}: expected a file name, got a folder")
        if not path.parent.is_dir():
            raise InputError(f"{path}: expected an existing folder, found no {path.parent}")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: expected a regular file or none, found a pipe, a device or a socket")
        for source in reads:
            if isinstance(source, str | os.PathLike) and path.exists() and Path(source).exists() and path.samefile(source):
                raise InputError(f"out: expected another file than the one that is read, got {path}")
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            why = in_short(error.strerror or error)
            raise InputError(f"{path}: expected a folder that can be written to, got {path.parent}: {why}") from None
        longest = os.pathconf(path.parent, "PC_NAME_MAX")
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{in_short(path)}: expected a file name, got one that cannot be: {in_short(error)}") from None
    if len(os.fsencode(path.name)) > longest:
        raise InputError(f"{in_short(path)}: expected a file name of at most {longest} bytes, got a longer one")
    return path


def write_whole(path: Path | str, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file beside its place and rename it there; a link is followed."""
    path = Path(os.path.realpath(check_place(path)))
    partial = None
    try:
        handle, partial = tempfile.mkstemp(suffix=".partial", prefix=".", dir=path.parent)
        PARTIAL_FILES.add(partial)
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: could not be written: {in_short(error)}") from None
        raise
    finally:
        PARTIAL_FILES.discard(partial or "")


def write_arrays(path: Path | str, arrays: Mapping[str, Any], *, compressed: bool = False) -> None:
    """Write an ``.npz``: never half a file."""
    check_place(path, ".npz")
    save = np.savez_compressed if compressed else np.savez
    write_whole(path, lambda file: save(file, **arrays))


def write_csv(path: Path | str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table as CSV: never half a file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
