"""Folders of images: one folder a class (the layout of ImageNet, ILSVRC), or images in one folder with a file of labels.

Images are read when they are asked for, resized and cropped to one size as networks for ImageNet expect them.
"""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from simulate.networks.images import Images, check_split
from theory.setting.door import say
from theory.setting.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
SPLITS = {"train": ("train",), "test": ("test", "val")}


class Shaping(NamedTuple):
    """How an image becomes (3, H, W): the short side resized to ``resize`` pixels, the middle ``crop`` by ``crop`` kept; None
    leaves a step out. ``interpolation``: one of INTERPOLATIONS."""

    resize: int | None = None
    crop: int | None = None
    interpolation: str = "bilinear"


class Files:
    """Images of files as an array of pixels (n, 3, H, W) uint8 that is read a slice at a time."""

    def __init__(self, paths: Sequence[Path], shaping: Shaping):
        self.paths, self.shaping = list(paths), shaping

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, part: slice) -> np.ndarray:
        images = [(path, shaped(path, self.shaping)) for path in self.paths[part]]
        for path, image in images:
            if image.shape != images[0][1].shape:
                first, other = images[0][1].shape, image.shape
                raise InputError(
                    f"{path}: expected images of one size, got {other[2]} x {other[1]} after {first[2]} x {first[1]}: "
                    "give --crop"
                )
        return np.stack([image for _, image in images])


def shaped(path: Path, shaping: Shaping) -> np.ndarray:
    """(3, H, W) uint8 of one image file."""
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected an image, cannot read it: {error}") from None
    if mode in ("F", "I") or mode.startswith("I;"):
        raise InputError(f"{path}: expected 8-bit pixels, got mode {mode}: convert the image first")
    if shaping.resize is not None:
        width, height = image.size
        short = min(width, height)
        wide, high = (shaping.resize if side == short else int(shaping.resize * side / short) for side in (width, height))
        image = image.resize((wide, high), INTERPOLATIONS[shaping.interpolation])
    if shaping.crop is not None:
        width, height = image.size
        if min(width, height) < shaping.crop:
            raise InputError(f"{path}: expected at least {shaping.crop} pixels a side for the crop, got {width} x {height}")
        left, top = (width - shaping.crop) // 2, (height - shaping.crop) // 2
        image = image.crop((left, top, left + shaping.crop, top + shaping.crop))
    return np.asarray(image).transpose(2, 0, 1)


def read_folder(
    data: Path | str,
    *,
    split: str = "test",
    limit: int | None = None,
    labels: Path | str | None = None,
    class_index: Path | str | None = None,
    shaping: Shaping | None = None,
) -> Images:
    """Labelled images of a folder.

    Args:
        data: a folder of one folder a class, or with ``labels`` a folder of images; or what holds such folders by the name of
            the split (``train``, ``test`` or ``val``).
        split, limit: ``train`` or ``test``; only the first images, in the order of their paths or of the file of labels.
        labels: a text file of lines "image label", separated by tabs, commas or blanks; the label a class number, or a name of
            the class index. A first line of neither an image nor a class is a heading.
        class_index: folder names to classes: a JSON object {"0": ["n01440764", "tench"], ...} or lines "n01440764 tench" in the
            order of the classes. Without it the sorted folder names are the classes.
        shaping: resize and crop.

    Returns:
        The images, read when sliced.

    Raises:
        InputError: no image, an unknown folder, a label that is no class, an image named twice or absent.
    """
    check_split(split, limit)
    data, shaping = Path(data), shaping or Shaping()
    if not data.is_dir():
        raise InputError(f"{data}: expected a folder of images, found none")
    own = next((data / name for name in SPLITS[split] if (data / name).is_dir()), None)
    if own is None and split == "train":
        raise InputError(f"{data}: expected a folder {SPLITS[split][0]} in it for --split train, found none")
    data = own or data
    index = None if class_index is None else read_class_index(class_index)
    if labels is not None:
        paths, classes, names = _labelled(data, Path(labels), index)
    else:
        paths, classes, names = _by_class(data, index)
    paths, classes = paths[:limit], classes[:limit]
    digest = hashlib.sha256()
    for path, label in zip(paths, classes, strict=True):
        digest.update(f"{path.relative_to(data)} {path.stat().st_size} {label}\n".encode())
    source = {"data": data.name, "split": own and split, "images": len(paths), "names_and_sizes_sha256": digest.hexdigest()}
    source |= {key: value for key, value in shaping._asdict().items() if value is not None}
    return Images(Files(paths, shaping), np.array(classes, np.int64), names, source)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def _by_class(data: Path, index: dict[str, tuple[int, str]] | None) -> tuple[list[Path], list[int], tuple[str, ...]]:
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        loose = len(_images(data))
        hint = f"{loose} images in it: give --labels FILE" if loose else "and no image in it"
        raise InputError(f"{data}: expected one folder a class, found no folder, {hint}")
    known = index or {folder.name: (k, folder.name) for k, folder in enumerate(folders)}
    paths, classes = [], []
    for folder in folders:
        if folder.name not in known:
            raise InputError(f"{folder}: expected a folder that the class index names, got {folder.name!r}")
        found = _images(folder)
        paths += found
        classes += [known[folder.name][0]] * len(found)
    if not paths:
        raise InputError(f"{data}: expected images in its {len(folders)} folders, found none")
    return paths, classes, _names(known)


def _names(known: dict[str, tuple[int, str]]) -> tuple[str, ...]:
    by_class = {k: name for k, name in known.values()}
    return tuple(by_class[k] for k in range(len(by_class))) if sorted(by_class) == list(range(len(by_class))) else ()


def read_class_index(path: Path | str) -> dict[str, tuple[int, str]]:
    """Folder name to class number and name."""
    path = Path(path)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a class index, cannot read it: {error}") from None
    if text.lstrip().startswith("{"):
        try:
            content = json.loads(text)
            return {str(value[0]): (int(key), str(value[-1])) for key, value in content.items()}
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise InputError(f'{path}: expected {{"0": ["n01440764", "tench"], ...}}, got something else: {error}') from None
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: expected a line a class, got an empty file")
    index = {line[0]: (k, line[-1]) for k, line in enumerate(lines)}
    if len(index) < len(lines):
        raise InputError(f"{path}: expected every folder name once, got {len(lines) - len(index)} twice")
    return index


def _labelled(
    data: Path, file: Path, index: dict[str, tuple[int, str]] | None
) -> tuple[list[Path], list[int], tuple[str, ...]]:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: expected a file of labels, cannot read it: {error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    mark = next((mark for mark in "\t," if lines and mark in lines[0]), None)
    rows = list(csv.reader(lines, delimiter=mark)) if mark else [line.split() for line in lines]
    places = {path.name: path for path in _images(data)}
    if not places:
        raise InputError(f"{data}: expected images, found none")
    first = [cell.strip() for cell in rows[0][:2]] if rows else []
    if first and Path(first[0]).name not in places and not (first[-1].isdigit() or (index and first[-1] in index)):
        rows = rows[1:]  # a heading
    paths, classes = [], []
    for row in rows:
        if len(row) < 2:
            raise InputError(f"{file}: expected an image and its label on every line, got {row}")
        name, label = row[0].strip(), row[1].strip()
        path = places.get(Path(name).name)
        if path is None:
            raise InputError(f"{file}: {name}: expected an image of {data}, found none")
        if label.isdigit():
            classes.append(int(label))
        elif index and label in index:
            classes.append(index[label][0])
        else:
            raise InputError(f"{file}: {name}: expected a class number or a name of the class index, got {label!r}")
        paths.append(path)
    if not paths:
        raise InputError(f"{file}: expected an image and its label on every line, got none")
    if len(set(paths)) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path in paths[:i])
        raise InputError(f"{file}: {twice.name}: expected every image once, got it twice")
    if len(paths) < len(places):
        say(f"{file}: {len(paths)} of the {len(places)} images of {data} have a label, the others are left out")
    return paths, classes, _names(index) if index else ()
