"""What each layer of a real network loses when it alone is compressed: predicted beside networks run."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.all_layers import expected_cell, title
from figures.compare import row
from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table

NAME = "sensitivities"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.sensitivities`; nothing is drawn, whatever the seed."""
    table, comparison = shipped_table(NAME), []
    for one in table:
        cell = expected_cell(NAME, f"{one['network']}, {one['layer']} alone", one, "logit_gain")
        comparison.append(row(cell, one["predicted"], one["distortion"], one["standard_error"]))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A panel a network, its layers in their order; intervals of single networks behind, 95 % of the mean over errors."""
    networks = list(dict.fromkeys(one["network"] for one in table))
    figure, axes = plt.subplots(len(networks), 1, figsize=(7, 3.1 * len(networks)), squeeze=False)
    for axis, network in zip(axes[:, 0], networks, strict=True):
        rows = [one for one in table if one["network"] == network]
        place = np.arange(len(rows))
        names = ("predicted", "low", "high", "distortion", "standard_error", "actual")
        column = {name: 100 * np.array([one[name] for one in rows], float) for name in names}
        bars = column["high"] - column["low"]
        axis.bar(place, bars, 0.7, column["low"], color="0.85", label="95 % of single networks, predicted")
        axis.plot(place, column["predicted"], "k_", markersize=9, label="predicted")
        error = NORMAL_95 * column["standard_error"]
        axis.errorbar(place - 0.15, column["distortion"], error, label="expected by random signs, 95 %", **style.SIMULATION)
        axis.plot(place + 0.15, column["actual"], label="the actual network", **style.POINTS)
        axis.set_xticks(place, [one["layer"].removesuffix(".weight") for one in rows], rotation=60, ha="right")
        axis.set_ylabel("loss (percentage points)")
        axis.set_title(f"{title(network)}, one layer at {rows[0]['bits']} bits, a step a layer")
        axis.axhline(0, color="0.6", linewidth=0.6)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
