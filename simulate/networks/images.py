"""CIFAR-10 in its official binary layout: https://www.cs.toronto.edu/~kriz/cifar.html.

A record is one label byte, then 3,072 pixel bytes: 1,024 red, 1,024 green, 1,024 blue, row by row.
"""

import hashlib
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from theory.setting.errors import InputError

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
RECORD = 1 + 3 * 32 * 32
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}


class Images(NamedTuple):
    """Labelled images: ``pixels`` (n, 3, 32, 32) uint8, ``labels`` (n,) int64, ``source`` for the provenance."""

    pixels: np.ndarray
    labels: np.ndarray
    source: dict


def read_cifar10(data: Path | str, *, split: str = "test", limit: int | None = None) -> Images:
    """Read one split of CIFAR-10.

    Args:
        data: a folder holding ``cifar-10-batches-bin`` or the official ``cifar-10-binary.tar.gz``, or either itself.
        split: ``"train"`` (50,000 images in five files) or ``"test"`` (10,000 in one).
        limit: only the first ``limit`` images.

    Returns:
        The images in file order.

    Raises:
        InputError: no such data, a file that is not whole records (truncated), a label above 9.
    """
    if split not in FILES:
        raise InputError(f"split: expected 'train' or 'test', got {split!r}")
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected at least 1 image, got {limit}")
    blobs = _blobs(Path(data), FILES[split])
    parts = []
    for name, blob in blobs:
        if not blob or len(blob) % RECORD:
            raise InputError(
                f"{name}: expected whole records of {RECORD} bytes, got {len(blob)} bytes: the file is empty or truncated"
            )
        parts.append(np.frombuffer(blob, np.uint8).reshape(-1, RECORD))
    records = np.concatenate(parts)
    digest = hashlib.sha256(records.tobytes()).hexdigest()
    records = records[:limit]
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        row = int(np.argmax(labels > 9))
        raise InputError(f"{data}: labels: expected 0 to 9, got {labels[row]} in record {row}: not CIFAR-10's layout")
    pixels = records[:, 1:].reshape(-1, 3, 32, 32)
    return Images(pixels, labels, {"data": "CIFAR-10", "split": split, "images": len(labels), "sha256": digest})


def _blobs(data: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    for folder in (data / FOLDER, data):
        if (folder / names[0]).is_file():
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise InputError(f"{folder}: expected {', '.join(names)}, missing {', '.join(missing)}")
            return [(str(folder / name), (folder / name).read_bytes()) for name in names]
    for archive in (data / ARCHIVE, data):
        if archive.is_file():
            return _from_archive(archive, names)
    raise InputError(f"{data}: expected a folder with {FOLDER}/{names[0]} or {ARCHIVE}, found neither")


def _from_archive(archive: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as tar:
            found = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}
            missing = [name for name in names if name not in found]
            if missing:
                raise InputError(f"{archive}: expected {', '.join(names)} inside, missing {', '.join(missing)}")
            blobs = []
            for name in names:
                member = tar.extractfile(found[name])
                assert member is not None  # getmembers() kept regular files only
                blobs.append((f"{archive}:{name}", member.read()))
            return blobs
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive}: expected the official archive of CIFAR-10, cannot read it: {error}") from None
