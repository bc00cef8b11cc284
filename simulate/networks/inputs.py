"""The images that a network is run on: read, shaped, normalized, in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simulate.networks.folders import INTERPOLATIONS, SUFFIXES, Shaping, read_folder
from simulate.networks.images import Images, is_cifar, read_cifar
from simulate.networks.network import MEAN, STD
from theory.setting.checks import whole
from theory.setting.command_line import progress
from theory.setting.errors import InputError

BATCH, LARGE_BATCH = 250, 32  # images; of more than LARGE pixels
LARGE = 64 * 64
LARGEST_SIDE = 2**14  # pixels
CALIBRATION = 2000  # images by default, at most half of them
TRIED = 32  # images on which the head is found
OPTIONS = ("labels", "class_index", "mean", "std", "resize", "crop", "interpolation")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How images become what a network takes: ``labels`` and ``class_index`` files, their shape, and the normalization
    (x - mean)/std of pixel values scaled to 0..1, both (1 or 3, 1, 1)."""

    labels: Path | str | None
    class_index: Path | str | None
    shaping: Shaping
    mean: np.ndarray
    std: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """The normalization, for the provenance."""
        return {"mean": self.mean.reshape(-1).tolist(), "std": self.std.reshape(-1).tolist()}

    def normalized(self, pixels: np.ndarray, channels: int) -> np.ndarray:
        """(n, channels, H, W) from pixels (n, 3, H, W); one channel is the luma of ITU-R 601."""
        if channels == 1:
            weights = np.array([0.299, 0.587, 0.114], np.float32)
            pixels = np.rint(np.tensordot(pixels.astype(np.float32), weights, (1, 0)))[:, None]
        elif channels != 3:
            raise InputError(f"network: expected one that takes images of 1 or 3 channels, got {channels}")
        if max(self.mean.size, self.std.size) > channels:
            most = max(self.mean.size, self.std.size)
            raise InputError(f"mean, std: expected one number for a network of one channel, got {most}")
        return ((pixels.astype(np.float32) / np.float32(255) - self.mean) / self.std).astype(np.float32)


def preprocessing_of(options: dict[str, Any], *, known: bool) -> Preprocessing:
    """The options (OPTIONS) of a network, checked; one ``known`` by name has a normalization of its own.

    Raises:
        InputError: another option, or a value that it can't have.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"{name}: expected one of {', '.join(OPTIONS)}, got another option")
    given = options.get
    mean = _channel_numbers("mean", given("mean"), MEAN if known else (0.0,))
    std = _channel_numbers("std", given("std"), STD if known else (1.0,))
    if np.any(std <= 0):
        raise InputError(f"std: expected positive numbers, got {std.reshape(-1).tolist()}")
    resize, crop = (x if x is None else whole(name, x, 1, LARGEST_SIDE) for name in ("resize", "crop") for x in (given(name),))
    shaping = Shaping(resize, crop, given("interpolation") or "bilinear")
    if shaping.interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, got {shaping.interpolation!r}")
    return Preprocessing(labels=given("labels"), class_index=given("class_index"), shaping=shaping, mean=mean, std=std)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Labelled images and what becomes of them before a network sees them."""

    images: Images
    preprocessing: Preprocessing

    @property
    def classes(self) -> int:
        """Of the data."""
        return len(self.images.class_names) or int(self.images.labels.max()) + 1

    @property
    def batch_size(self) -> int:
        """Images that a network runs on together."""
        return BATCH if int(np.prod(self.images.pixels[0:1].shape[2:])) <= LARGE else LARGE_BATCH

    def batch(self, part: slice, channels: int) -> np.ndarray:
        """(n, channels, H, W) float32, normalized."""
        return self.preprocessing.normalized(self.images.pixels[part], channels)

    def batches(self, channels: int) -> Iterator[tuple[int, np.ndarray]]:
        """All images: the number of the first one of each batch, and the batch."""
        n, size = len(self.images.labels), self.batch_size
        for first in progress(range(0, n, size), total=-(-n // size), what="images", unit="batch"):
            yield first, self.batch(slice(first, min(first + size, n)), channels)

    def sample(self, channels: int) -> np.ndarray:
        """Images spread over the data: in the order of folders the first are of one class."""
        pixels, spread = self.images.pixels, np.unique(np.linspace(0, len(self.images.labels) - 1, TRIED).astype(int))
        return self.preprocessing.normalized(np.concatenate([pixels[i : i + 1] for i in spread]), channels)


def labels_of(inputs: Inputs, n: int, classes: int, name: str) -> np.ndarray:
    """(n,) of the first images.

    Raises:
        InputError: one that a network (of this name) with so many classes does not have.
    """
    labels = inputs.images.labels[:n]
    if labels.max() >= classes:
        raise InputError(f"labels: expected 0 to {classes - 1} for the {classes} classes of {name}, got {labels.max()}")
    return labels


def read_inputs(data: Path, split: str, limit: int | None, preprocessing: Preprocessing) -> Inputs:
    """The images of a folder or an archive.

    Raises:
        InputError: no images there, or images that can't be read.
    """
    if not data.exists():
        raise InputError(f"{data}: expected a folder or an archive of images, found nothing")
    if data.is_dir() and not any(data.iterdir()):
        raise InputError(f"{data}: expected CIFAR's files or folders of images, got an empty folder")
    labels, class_index, shaping = preprocessing.labels, preprocessing.class_index, preprocessing.shaping
    plain = labels is None and class_index is None and shaping.resize is None and shaping.crop is None
    photos = data.is_dir() and any(path.is_dir() or path.suffix.lower() in SUFFIXES for path in data.iterdir())
    if plain and (is_cifar(data) or not photos):
        images = read_cifar(data, split=split, limit=limit)
    else:
        images = read_folder(data, split=split, limit=limit, labels=labels, class_index=class_index, shaping=shaping)
    return Inputs(images=images, preprocessing=preprocessing)


def _channel_numbers(name: str, given: Sequence[float] | None, otherwise: Sequence[float]) -> np.ndarray:
    """(1 or 3, 1, 1) in single precision."""
    with np.errstate(over="ignore"):
        values = np.array(otherwise if given is None else given, np.float32).reshape(-1)
    if values.size not in (1, 3) or not np.isfinite(values).all():
        raise InputError(f"{name}: expected one finite number or three, got {list(given or ())}")
    return values[:, None, None]


class Division(NamedTuple):
    """The first images of a split are evaluated, those from ``calibrating`` on calibrate."""

    evaluated: int
    calibrating: int


def division(images: int, calibrate: int | None, limit: int | None) -> Division:
    """How images are divided: the last ones calibrate, and all others or the first of them are evaluated.

    Raises:
        InputError: more to calibrate on than leave one.
    """
    last = min(CALIBRATION, images // 2) if calibrate is None else whole("calibrate", calibrate, 0)
    if last >= images:
        raise InputError(f"calibrate: expected fewer than the {images} images there are, got {last}")
    return Division(images - last if limit is None else min(images - last, whole("limit", limit, 1)), images - last)
