"""Where each formula fails: its relative error over dimension and bits, as a map."""

from collections.abc import Sequence
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


def compute(
    seed: int = 0, *, features: Sequence[int] = FEATURES, bits: Sequence[int] = BITS, draws: int = 2**17
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every formula for the expected distortion of two classes, and the mean of exact risks over ``draws`` layers."""
    table = accuracy(features=features, bits=bits, problems=PROBLEMS, draws=draws, seed=seed)
    comparison = []
    for line in table:
        details = (2, line["d"], "symmetric", line["bits"], "expected", line["method"], "approximation")
        claim = Cell(NAME, f"{line['layer']}, d = {line['d']}", "distortion", *details)
        comparison.append(row(claim, line["predict"], line["reference"], line["standard_error"]))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """One map per formula and layer; a cell tells the error in per cent, or "<" two standard errors of the reference where it
    is below them."""
    features, bits = (sorted({line[key] for line in table}) for key in ("d", "bits"))
    layers = [problem[0] for problem in PROBLEMS]
    figure, axes = plt.subplots(len(layers), len(METHODS), figsize=(7, 4.2), sharex=True, sharey=True)
    covariance = {layer: kind for layer, _, kind in PROBLEMS}
    image = None
    for axis_row, layer in zip(axes, layers, strict=True):
        for axis, method in zip(axis_row, METHODS, strict=True):
            errors, texts = np.zeros((len(features), len(bits))), {}
            for line in table:
                if line["layer"] != layer:
                    continue
                i, j = features.index(line["d"]), bits.index(line["bits"])
                noise = 2 * line["standard_error"] / abs(line["reference"])
                errors[i, j] = max(abs(line[method] / line["reference"] - 1), noise)
                texts[i, j] = ("<" if errors[i, j] <= noise else "") + _percent(errors[i, j])
            image = axis.imshow(100 * errors, norm=LogNorm(0.1, 100), cmap=GREYS, aspect="auto", origin="lower")
            for (i, j), text in texts.items():
                axis.text(j, i, text, ha="center", va="center", fontsize=6)
            axis.set_xticks(range(len(bits)), [str(width) for width in bits])
            axis.set_yticks(range(len(features)), [str(d) for d in features])
            axis.grid(False)
            if layer == layers[0]:
                axis.set_title(METHODS[method]["label"])
            else:
                axis.set_xlabel("bits per weight")
        axis_row[0].set_ylabel(f"{layer} layer,\n{covariance[layer]} covariance\nfeatures d")
    assert image is not None  # METHODS is not empty
    bar = figure.colorbar(image, ax=axes, label="|formula / Monte Carlo - 1| (%); <: below its noise", shrink=0.9)
    bar.set_ticks([0.1, 1, 10, 100], labels=[".1", "1", "10", "100"])
    return figure


def _percent(error: float) -> str:
    """Of an error, with one digit below 10 per cent and two below .1."""
    percent = 100 * error
    digits = 0 if percent >= 9.5 else 1 if percent >= 0.095 else 2
    return f"{percent:.{digits}f}".removeprefix("0")
