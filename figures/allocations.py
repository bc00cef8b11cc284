"""A real network with a width for each layer: the loss of plans by this theory and by the rankings that others use, predicted
and run on other images."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.compare import Cell, row
from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table

NAME = "allocations"
K, FEATURES = 10, 64  # of CIFAR-10 and of the last layer


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.allocations`; nothing is drawn, whatever the seed."""
    table, comparison = shipped_table(NAME), []
    for one in table:
        problem = f"{one['network']}, {one['budget']} bits a weight, {one['ranking']}"
        cell = Cell(NAME, problem, "distortion", K, FEATURES, "symmetric", None, "expected", "logit_gain", "approximation")
        comparison.append(row(cell, one["predicted"], one["distortion"], one["standard_error"]))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A panel a network and budget, a row a ranking: predicted with its interval, by random signs, and the actual network."""
    panels = list(dict.fromkeys((one["network"], one["budget"]) for one in table))
    figure, axes = plt.subplots(1, len(panels), figsize=style.size(1, 3), sharey=True, squeeze=False)
    for axis, (network, budget) in zip(axes[0], panels, strict=True):
        rows = [one for one in table if (one["network"], one["budget"]) == (network, budget)]
        place = np.arange(len(rows))[::-1]
        points = {
            name: 100 * np.array([one[name] for one in rows]) for name in ("predicted", "low", "high", "distortion", "actual")
        }
        axis.hlines(
            place + 0.15,
            points["low"],
            points["high"],
            color="0.75",
            linewidth=4,
            label="95 % of single networks, predicted",
        )
        axis.plot(points["predicted"], place + 0.15, "k|", markersize=7, label="predicted")
        noise = 100 * NORMAL_95 * np.array([one["standard_error"] for one in rows])
        axis.errorbar(
            points["distortion"], place, xerr=noise, label="expected, by random signs on other images", **style.SIMULATION
        )
        marks = {name: value for name, value in style.REFERENCE.items() if name not in ("capsize", "elinewidth")}
        axis.plot(points["actual"], place - 0.15, label="the actual network", **marks)
        axis.set_yticks(place, [one["ranking"] for one in rows])
        axis.set_title(f"{network.replace('resnet', 'ResNet-')}, {budget} bits a weight")
        axis.set_xlabel("loss (percentage points)")
        axis.set_xlim(0)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
