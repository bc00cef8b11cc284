"""Small images in CIFAR-10's layout."""

from pathlib import Path

import numpy as np


def coarse_pixels(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 3, 32, 32) uint8, squares of 8 x 8."""
    return np.clip(255 * np.kron(rng.random((n, 3, 4, 4)), np.ones((1, 1, 8, 8))), 0, 255).astype(np.uint8)


def normalized(pixels: np.ndarray) -> np.ndarray:
    """Of mean .5 and deviation .25, in single precision."""
    return (pixels.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)


def write_cifar(folder: Path, pixels: np.ndarray, labels: np.ndarray) -> None:
    """The test split in ``folder``."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir(parents=True)
    rows = np.concatenate([labels.astype(np.uint8)[:, None], pixels.reshape(len(pixels), -1)], 1)
    rows.tofile(place / "test_batch.bin")
