"""Two folders of images of several sizes, as ILSVRC has them."""

from pathlib import Path

import numpy as np


def write_photos(folder: Path, seed: int) -> Path:
    from PIL import Image

    rng = np.random.default_rng(seed)
    for k, name in enumerate(("n002", "n001")):
        (folder / "val" / name).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 255, (40 + 3 * i, 50 + k, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "val" / name / f"{name}_{i}.png")
    return folder
