"""CIFAR-10 and CIFAR-100 in their official layouts, binary and Python: https://www.cs.toronto.edu/~kriz/cifar.html.

A binary record is one label byte (CIFAR-100: the coarse one, then the fine one), then 3,072 pixel bytes: 1,024 red, 1,024
green, 1,024 blue, row by row. The Python version pickles the same bytes; nothing but arrays is allowed in its pickles.
"""

import hashlib
import io
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from theory.setting.errors import InputError, in_short

PIXELS = 3 * 32 * 32
MOST_FILE = 2**29  # bytes of a file in an archive, twice those of the largest official one
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Images(NamedTuple):
    """Labelled images: ``pixels`` (n, 3, H, W) uint8, an array or what gives one when sliced; ``labels`` (n,) int64; the names
    of the classes, or none; ``source`` for the provenance."""

    pixels: Any
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: dict


class Layout(NamedTuple):
    """One official distribution of a data set: folder, archive, the files of each split, the file of class names, if any; of a
    binary one the label bytes a record, the last of which counts."""

    data: str
    folder: str
    archive: str
    files: dict[str, tuple[str, ...]]
    names: str | None
    label_bytes: int | None
    classes: int


LAYOUTS = (
    Layout(
        "CIFAR-10",
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        None,
        1,
        10,
    ),
    Layout(
        "CIFAR-10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        None,
        None,
        10,
    ),
    Layout(
        "CIFAR-100",
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        {"train": ("train.bin",), "test": ("test.bin",)},
        "fine_label_names.txt",
        2,
        100,
    ),
    Layout(
        "CIFAR-100",
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        {"train": ("train",), "test": ("test",)},
        "meta",
        None,
        100,
    ),
)


def read_cifar(data: Path | str, *, split: str = "test", limit: int | None = None) -> Images:
    """Read one split of CIFAR-10 or CIFAR-100.

    Args:
        data: a folder holding an official folder (such as ``cifar-10-batches-bin``) or archive (``cifar-10-binary.tar.gz``), or
            either itself.
        split: ``"train"`` or ``"test"``.
        limit: only the first ``limit`` images.

    Returns:
        The images in file order.

    Raises:
        InputError: no such data, a file that is not whole records (truncated), a label out of range, a pickle with more in it
            than arrays.
    """
    check_split(split, limit)
    layout, blobs, names = _find(Path(data), split)
    parse = _binary if layout.label_bytes else _pickled
    parts = [parse(name, blob, layout) for name, blob in blobs]
    labels, pixels = (np.concatenate(x) for x in zip(*parts, strict=True))
    digest = hashlib.sha256(pixels.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
    labels, pixels = labels[:limit], pixels[:limit]
    wrong = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if len(wrong):
        raise InputError(
            f"{data}: labels: expected 0 to {layout.classes - 1}, got {labels[wrong[0]]} in record {wrong[0]}: not "
            f"{layout.data}'s layout"
        )
    source = {"data": layout.data, "split": split, "images": len(labels), "sha256": digest}
    return Images(pixels.reshape(-1, 3, 32, 32), labels, names, source)


def check_split(split: str, limit: int | None) -> None:
    if split not in ("train", "test"):
        raise InputError(f"split: expected 'train' or 'test', got {split!r}")
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least 1 image, got {limit}")


def is_cifar(data: Path) -> bool:
    """Whether a folder or archive is one of the official ones, or holds one."""
    return any(_place(data, layout) is not None for layout in LAYOUTS)


def _place(data: Path, layout: Layout) -> Path | None:
    """The folder or archive of that layout."""
    first = {files[0] for files in layout.files.values()}
    for folder in (data / layout.folder, data):
        if any((folder / name).is_file() for name in first) and (folder.name == layout.folder or folder == data):
            return folder
    for archive in (data / layout.archive, data):
        if archive.is_file() and archive.name == layout.archive:
            return archive
    return None


def _find(data: Path, split: str) -> tuple[Layout, list[tuple[str, bytes]], tuple[str, ...]]:
    for layout in LAYOUTS:
        place = _place(data, layout)
        if place is None:
            continue
        wanted = layout.files[split]
        found = _from_folder(place, wanted, layout.names) if place.is_dir() else _from_archive(place, wanted, layout.names)
        return layout, [(f"{place / name}", found[name]) for name in wanted], _class_names(place, layout, found)
    known = ", ".join(f"{layout.folder} or {layout.archive}" for layout in LAYOUTS)
    raise InputError(f"{data}: expected a folder with one of {known}, found none")


def _from_folder(folder: Path, wanted: Sequence[str], names: str | None) -> dict[str, bytes]:
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: expected {', '.join(wanted)}, missing {', '.join(missing)}")
    more = [names] if names and (folder / names).is_file() else []
    return {name: (folder / name).read_bytes() for name in (*wanted, *more)}


def _from_archive(archive: Path, wanted: Sequence[str], names: str | None) -> dict[str, bytes]:
    try:
        with tarfile.open(archive) as tar:
            members = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}
            missing = [name for name in wanted if name not in members]
            if missing:
                raise InputError(f"{archive}: expected {', '.join(wanted)} inside, missing {', '.join(missing)}")
            found = {}
            for name in (*wanted, *([names] if names in members else [])):
                member = tar.extractfile(members[name])
                assert member is not None  # getmembers() kept regular files only
                if members[name].size > MOST_FILE:
                    raise InputError(f"{archive}: {name}: expected at most {MOST_FILE} bytes, got {members[name].size}")
                found[name] = member.read()
            while tar.fileobj is not None and tar.fileobj.read(2**20):  # to the end, where the check sum is
                pass
            return found
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{archive}: expected an official CIFAR archive, cannot read it: {error}") from None


def _binary(name: str, blob: bytes, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    assert layout.label_bytes is not None
    record = layout.label_bytes + PIXELS
    if not blob or len(blob) % record:
        raise InputError(
            f"{name}: expected whole records of {record} bytes, got {len(blob)} bytes: the file is empty or truncated"
        )
    records = np.frombuffer(blob, np.uint8).reshape(-1, record)
    return records[:, layout.label_bytes - 1].astype(np.int64), records[:, layout.label_bytes :]


class _Arrays(pickle.Unpickler):
    """Arrays, and the plain objects that hold them: nothing else is looked up, so nothing runs."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),
        }
    )

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it would run {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def _unpickle(name: str, blob: bytes) -> dict:
    try:
        content = _Arrays(io.BytesIO(blob), encoding="bytes").load()
    except Exception as error:  # pickle raises many kinds; whichever it is, the file is not used
        raise InputError(f"{name}: expected a pickle of arrays, got something else: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: expected a dictionary, got {type(content).__name__}")
    return {_text(key): value for key, value in content.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pickled(name: str, blob: bytes, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    content, key = _unpickle(name, blob), "labels" if layout.classes == 10 else "fine_labels"
    missing = [one for one in ("data", key) if one not in content]
    if missing:
        raise InputError(f"{name}: expected data and {key}, missing {', '.join(missing)}")
    try:
        pixels, labels = np.asarray(content["data"]), np.asarray(content[key])
    except Exception as error:  # of lists that are no arrays
        raise InputError(f"{name}: expected arrays of pixels and {key}, got something else: {in_short(error)}") from None
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{name}: {key}: expected whole numbers (n,), got {labels.dtype} {labels.shape}")
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), PIXELS):
        raise InputError(
            f"{name}: data: expected uint8 ({labels.size}, {PIXELS}) beside whole {key}, got {pixels.dtype} {pixels.shape}"
        )
    return labels.astype(np.int64), pixels


def _class_names(place: Path, layout: Layout, found: dict[str, bytes]) -> tuple[str, ...]:
    if layout.names is None:
        return CIFAR10_NAMES
    if layout.names not in found:
        return ()
    if layout.label_bytes:
        names = _text(found[layout.names]).split()
    else:
        listed = _unpickle(f"{place / layout.names}", found[layout.names]).get("fine_label_names", [])
        names = [_text(name) for name in listed] if isinstance(listed, list | tuple) else []
    return tuple(names) if len(names) == layout.classes else ()
