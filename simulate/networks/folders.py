"""Folders of images: one folder a class (the layout of ImageNet, ILSVRC), or images in one folder with a file of labels.

Images are read when they are asked for, resized and cropped to one size as networks for ImageNet expect them.
"""

import csv
import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from simulate.networks.images import Images, check_split
from theory.setting.archive import check_readable
from theory.setting.command_line import say
from theory.setting.errors import InputError, in_short, listed

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"})
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
MOST_PIXELS = 50 * 10**6  # of an image
MOST_TEXT = 64 * 2**20  # bytes of a file of labels
NAME_HEADINGS = ("image", "images", "file", "filename", "file_name", "path", "name", "id", "image_id", "img")
LABEL_HEADINGS = (
    "label",
    "labels",
    "class",
    "classes",
    "category",
    "target",
    "class_id",
    "class_index",
    "class_name",
    "index",
    "y",
)
SPLITS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation", "testing")}


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
        with warnings.catch_warnings(), Image.open(path) as opened:
            warnings.simplefilter("ignore")  # Pillow's own, of damaged files among others
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise InputError(f"{path}: expected at most {MOST_PIXELS // 10**6} million pixels, got {width} x {height}")
            mode = opened.mode
            image = opened.convert("RGB")
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(f"{path}: expected an image, cannot read it: {in_short(error)}") from None
    if mode in ("F", "I") or mode.startswith("I;"):
        raise InputError(f"{path}: expected 8-bit pixels, got mode {mode}: convert the image first")
    if shaping.resize is not None:
        width, height = image.size
        short = min(width, height)
        wide, high = (shaping.resize if side == short else int(shaping.resize * side / short) for side in (width, height))
        if wide * high > MOST_PIXELS:
            most = MOST_PIXELS // 10**6
            raise InputError(f"{path}: expected at most {most} million pixels after --resize, got {wide} x {high}")
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
            the class index. Images are named by their path in the folder, or by their name alone where it is the only one. A
            first line that names columns ("image,label") is a heading.
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


def _say_left_out(folders: Sequence[Path]) -> None:
    """How many files are no images by their suffix."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if others:
        kinds = listed(sorted({path.suffix.lower() or "no suffix" for path in others}))
        say(f"{len(others)} files that are no images by their suffix ({kinds}) are left out")


def _by_class(data: Path, index: dict[str, tuple[int, str]] | None) -> tuple[list[Path], list[int], tuple[str, ...]]:
    folders = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        loose = len(_images(data))
        hint = f"{loose} images in it: give --labels FILE" if loose else "and no image in it"
        raise InputError(f"{data}: expected one folder a class, found no folder, {hint}")
    splits = {name for names in SPLITS.values() for name in names}
    if {folder.name.lower() for folder in folders} <= splits:
        raise InputError(f"{data}: expected one folder a class, found the splits {listed([folder.name for folder in folders])}")
    if len(folders) == 1 and not any(path.suffix.lower() in SUFFIXES for path in folders[0].iterdir()):
        inside = sorted(path.name for path in folders[0].iterdir() if path.is_dir())
        if len(inside) > 1:
            raise InputError(
                f"{data}: expected one folder a class, found one folder in all: are the classes those of {folders[0]}, "
                f"{listed(inside)}?"
            )
    if index is None:
        order = listed(f"{k} = {folder.name}" for k, folder in enumerate(folders))
        say(f"labels: the folders in sorted order, {order}; --class-index gives them other numbers")
    known = index or {folder.name: (k, folder.name) for k, folder in enumerate(folders)}
    paths, classes = [], []
    for folder in folders:
        if folder.name not in known:
            raise InputError(f"{folder}: expected a folder that the class index names, got {folder.name!r}")
        found = _images(folder)
        paths += found
        classes += [known[folder.name][0]] * len(found)
    _say_left_out(folders)
    if not paths:
        raise InputError(f"{data}: expected images in its {len(folders)} folders, found none")
    return paths, classes, _names(known)


def _names(known: dict[str, tuple[int, str]]) -> tuple[str, ...]:
    by_class = {k: name for k, name in known.values()}
    return tuple(by_class[k] for k in range(len(by_class))) if sorted(by_class) == list(range(len(by_class))) else ()


def read_text(path: Path, expected: str) -> str:
    """A text file of at most MOST_TEXT bytes, without a byte-order mark."""
    check_readable(path, expected)
    size = path.stat().st_size
    if size > MOST_TEXT:
        raise InputError(f"{path}: expected {expected} of at most {MOST_TEXT // 2**20} MiB, got {size // 2**20} MiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected {expected}, cannot read it: {in_short(error)}") from None


def _class_number(text: str) -> int | None:
    """A class number written in ASCII digits, or None."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def read_class_index(path: Path | str) -> dict[str, tuple[int, str]]:
    """Folder name to class number and name."""
    path = Path(path)
    text = read_text(path, "a class index")
    if text.lstrip().startswith("{"):
        expected = '{"0": ["n01440764", "tench"], ...}'
        try:
            content = json.loads(text)
            rows = [(_class_number(str(key)), value) for key, value in content.items()]
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: expected {expected}, got something else: {in_short(error)}") from None
        for number, value in rows:
            if number is None or not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
                raise InputError(f"{path}: expected {expected}, got {in_short(value)} for class {number}")
        lines = [(number, value[0], value[-1]) for number, value in rows if number is not None]
    else:
        split = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        lines = [(k, line[0], line[-1]) for k, line in enumerate(split)]
    if not lines:
        raise InputError(f"{path}: expected a line a class, got none")
    index = {folder: (k, name) for k, folder, name in lines}
    if len(index) < len(lines):
        raise InputError(f"{path}: expected every folder name once, got {len(lines) - len(index)} twice")
    return index


def _rows(file: Path) -> list[list[str]]:
    """Image and label of every line of a file of labels that is not a heading."""
    lines = [line for line in read_text(file, "a file of labels").splitlines() if line.strip()]
    mark = next((mark for mark in "\t," if lines and mark in lines[0]), None)
    try:
        rows = list(csv.reader(lines, delimiter=mark)) if mark else [line.rsplit(maxsplit=1) for line in lines]
    except csv.Error as error:
        raise InputError(f"{file}: expected an image and its label on every line, cannot read it: {in_short(error)}") from None
    rows = [[cell.strip() for cell in row] for row in rows]
    heading = bool(rows) and len(rows[0]) > 1 and rows[0][0].lower() in NAME_HEADINGS and rows[0][1].lower() in LABEL_HEADINGS
    rows = rows[1:] if heading else rows
    for row in rows:
        if len(row) < 2:
            raise InputError(f"{file}: expected an image and its label on every line, got {in_short(row)}")
    if not rows:
        raise InputError(f"{file}: expected an image and its label on every line, got none")
    return rows


def _labelled(
    data: Path, file: Path, index: dict[str, tuple[int, str]] | None
) -> tuple[list[Path], list[int], tuple[str, ...]]:
    rows, images = _rows(file), _images(data)
    if not images:
        raise InputError(f"{data}: expected images, found none")
    by_path = {path.relative_to(data).as_posix(): path for path in images}
    by_name: dict[str, list[Path]] = {}
    for path in images:
        by_name.setdefault(path.name, []).append(path)
    paths, classes = [], []
    for name, label, *_ in rows:
        alike = by_name.get(name, []) if "/" not in name else []
        path = by_path.get(name.removeprefix("./")) or (alike[0] if len(alike) == 1 else None)
        if path is None and len(alike) > 1:
            raise InputError(f"{file}: {name}: expected the path of an image, got a name that {len(alike)} of them have")
        if path is None:
            raise InputError(f"{file}: {in_short(name)}: expected an image of {data}, found none")
        number = _class_number(label)
        if number is None and index and label in index:
            number = index[label][0]
        if number is None:
            raise InputError(
                f"{file}: {name}: expected a class number or a name of the class index, got {in_short(repr(label))}"
            )
        paths.append(path)
        classes.append(number)
    if len(set(paths)) < len(paths):
        seen: set[Path] = set()
        twice = next(path for path in paths if path in seen or seen.add(path))
        raise InputError(f"{file}: {twice.relative_to(data)}: expected every image once, got it twice")
    if len(paths) < len(images):
        say(f"{file}: {len(paths)} of the {len(images)} images of {data} have a label, the others are left out")
    return paths, classes, _names(index) if index else ()
