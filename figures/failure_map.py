"""Where each formula fails: its relative error over dimension and bits, as a map."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap, LogNorm

from figures.compare import Cell, row
from figures.style import METHODS
from simulate.experiments.accuracy import accuracy

NAME = "failure_map"
FEATURES, BITS = (4, 8, 16, 64, 512), (2, 3, 4, 6, 8)
GREYS = ListedColormap(plt.get_cmap("Greys")(np.linspace(0, 0.55, 256)))  # light enough for black text in every cell
PROBLEMS = (("optimal", "unequal", "shared"), ("perturbed", "unequal", "unequal"))


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    table = accuracy(features=FEATURES, bits=BITS, problems=PROBLEMS, draws=2**17, seed=seed)
    comparison = []
    for one in table:
        name = f"{one['layer']}, d = {one['d']}"
        comparison.append(
            row(
                Cell(
                    NAME,
                    name,
                    "distortion",
                    2,
                    one["d"],
                    "symmetric",
                    one["bits"],
                    "expected",
                    one["method"],
                    "approximation",
                ),
                one["predict"],
                one["reference"],
                one["standard_error"],
            )
        )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """One map per formula and layer; a cell tells the error in per cent, or "<" the noise of the reference."""
    layers = [problem[0] for problem in PROBLEMS]
    figure, axes = plt.subplots(len(layers), len(METHODS), figsize=(7, 4.2), sharex=True, sharey=True)
    image = None
    for axis_row, layer in zip(axes, layers, strict=True):
        for axis, method in zip(axis_row, METHODS, strict=True):
            errors, texts = np.zeros((len(FEATURES), len(BITS))), {}
            for one in table:
                if one["layer"] != layer:
                    continue
                i, j = FEATURES.index(one["d"]), BITS.index(one["bits"])
                noise = 2 * one["standard_error"] / abs(one["reference"])
                errors[i, j] = max(abs(one[method] / one["reference"] - 1), noise)
                texts[i, j] = ("<" if errors[i, j] <= noise else "") + _percent(errors[i, j])
            image = axis.imshow(100 * errors, norm=LogNorm(0.1, 100), cmap=GREYS, aspect="auto", origin="lower")
            for (i, j), text in texts.items():
                axis.text(j, i, text, ha="center", va="center", fontsize=6)
            axis.set_xticks(range(len(BITS)), [str(width) for width in BITS])
            axis.set_yticks(range(len(FEATURES)), [str(d) for d in FEATURES])
            axis.grid(False)
            if layer == layers[0]:
                axis.set_title(METHODS[method]["label"])
            else:
                axis.set_xlabel("bits per weight")
        axis_row[0].set_ylabel(f"{layer} layer\nfeatures d")
    assert image is not None  # METHODS is not empty
    figure.colorbar(image, ax=axes, label="|formula / exact - 1| (%); <: below the reference's noise", shrink=0.9)
    return figure


def _percent(error: float) -> str:
    percent = 100 * error
    return f"{percent:.0f}" if percent >= 9.5 else f"{percent:.1f}" if percent >= 0.095 else f"{percent:.2f}".lstrip("0")
