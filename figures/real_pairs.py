"""The shipped ResNet-20: predicted interval against measured distortion for every pair of classes."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from figures.style import size
from simulate.experiments.halves import predicted, shipped, summary
from theory.budget import Budget

NAME = "real_pairs"
BITS = (2, 3, 4)
FEWER = Budget(networks=2**12)  # than by default behind each of 135 intervals


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Statistics of one half of the test images, counts of the other half."""
    problem, counts = shipped()
    chosen = [one for one in counts if one["scheme"] == "symmetric" and one["granularity"] == "tensor" and one["bits"] in BITS]
    table = [
        one for errors in ("actual", "expected") for one in predicted(problem, chosen, errors=errors, seed=seed, budget=FEWER)
    ]
    comparison = []
    for one in table:
        name, method = f"ResNet-20, classes {one['first']} {one['second']}", "binary_risk"
        if one["errors"] == "expected":
            method = "margin_quadrature"
        for quantity, theory in (("distortion", one["predicted"]), ("flip_rate", one["predicted_flips"])):
            n = one["n"]
            se = one["standard_error"] if quantity == "distortion" else np.sqrt(one["flip_rate"] * (1 - one["flip_rate"]) / n)
            comparison.append(
                row(
                    Cell(
                        NAME,
                        name,
                        quantity,
                        2,
                        problem.features,
                        "symmetric",
                        one["bits"],
                        one["errors"],
                        method,
                        "measured",
                    ),
                    theory,
                    one[quantity],
                    float(se),
                )
            )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Pairs in the order of their predicted distortion; the interval is for the measured number of images."""
    figure, axes = plt.subplots(2, len(BITS), figsize=size(2, 3), sharex=True)
    for axis_row, errors in zip(axes, ("actual", "expected"), strict=True):
        for axis, width in zip(axis_row, BITS, strict=True):
            rows = sorted(
                (one for one in table if one["bits"] == width and one["errors"] == errors), key=lambda one: one["predicted"]
            )
            x = np.arange(len(rows))
            axis.vlines(
                x,
                [100 * one["low"] for one in rows],
                [100 * one["high"] for one in rows],
                color="0.7",
                linewidth=2.2,
                label="predicted 95 % interval",
            )
            axis.plot(x, [100 * one["predicted"] for one in rows], "_", color="black", markersize=4, label="predicted")
            axis.plot(x, [100 * one["distortion"] for one in rows], "o", color="#D55E00", markersize=2.6, label="measured")
            line = summary(rows)[0]
            axis.set_title(f"{width} bits, {errors}: {100 * line['inside']:.0f} % inside")
            axis.axhline(0, color="black", linewidth=0.5)
    images = np.mean([one["n"] for one in table])
    figure.suptitle(
        f"ResNet-20 on CIFAR-10, last layer, symmetric per tensor; {images:.0f} test images a pair, not those fitted"
    )
    for axis in axes[-1]:
        axis.set_xlabel("pair of classes, by prediction")
    for axis in axes[:, 0]:
        axis.set_ylabel("distortion\n(percentage points)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
