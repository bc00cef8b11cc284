"""Real networks: distortion predicted from one half of the images against that measured on the other, by model."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from simulate.experiments.halves import overall
from simulate.experiments.models import COUNTED, NOTHING
from simulate.experiments.real import shipped_table

NAME = "real_models"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table; nothing is drawn, whatever the seed. Halves used both ways; all schemes, tensor and channel."""
    table = [one for one in shipped_table(NAME) if one["model"] not in (NOTHING, COUNTED)]
    comparison = []
    for one in table:
        for quantity, theory, seen in (
            ("distortion", one["predicted"], one["distortion"]),
            ("flip_rate", one["predicted_flips"], one["flip_rate"]),
        ):
            error = float(np.sqrt(max(one["flip_rate"] - seen**2, 0.0) / one["n"]))
            problem = f"{one['network']}, {one['model']}, {one['granularity']}"
            details = (10, 64, one["scheme"], one["bits"], "actual", one["model"], "measured")
            comparison.append(
                row(
                    Cell(
                        NAME,
                        problem,
                        quantity,
                        *details,
                    ),
                    theory,
                    seen,
                    error,
                )
            )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A panel a model; networks by marker, widths by shade; the interval drawn, its coverage and width in the title."""
    models = list(dict.fromkeys(one["model"] for one in table))
    networks = list(dict.fromkeys(one["network"] for one in table))
    figure, axes = plt.subplots(1, len(models), figsize=(7, 2.8), sharex=True, sharey=True)
    for axis, model in zip(axes, models, strict=True):
        rows = [one for one in table if one["model"] == model]
        for i, network in enumerate(networks):
            for bits, color in ((2, "#D55E00"), (3, "#E69F00"), (4, "#009E73"), (5, "#0072B2"), (6, "#000000")):
                own = [one for one in rows if one["network"] == network and one["bits"] == bits]
                x = 100 * np.array([one["predicted"] for one in own])
                y = 100 * np.array([one["distortion"] for one in own])
                low, high = (100 * np.array([one[key] for one in own]) for key in ("low", "high"))
                axis.errorbar(
                    x,
                    y,
                    xerr=[np.maximum(x - low, 0), np.maximum(high - x, 0)],
                    fmt="osD^"[i],
                    color=color,
                    markersize=2.6,
                    elinewidth=0.35,
                    alpha=0.8,
                    markerfacecolor="none",
                    markeredgewidth=0.7,
                )
        ends = np.array([-1.0, 30.0])
        axis.plot(ends, ends, color="0.4", linewidth=0.8)
        total = overall(rows)
        axis.set_title(f"{model}\n{total['inside']:.0%} inside 95 %, width {total['width']:.2f}", fontsize=7)
        axis.set_xscale("symlog", linthresh=0.5)
        axis.set_yscale("symlog", linthresh=0.5)
        ticks = [-0.5, 0, 0.5, 2, 10, 30]
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.set_yticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
        axis.set_xlabel("predicted (points)")
    axes[0].set_ylabel("measured (percentage points)")
    for i, network in enumerate(networks):
        axes[0].plot([], [], "osD^"[i], color="0.3", markerfacecolor="none", linestyle="none", label=network)
    for bits, color in ((2, "#D55E00"), (3, "#E69F00"), (4, "#009E73"), (5, "#0072B2"), (6, "#000000")):
        axes[0].plot([], [], "_", color=color, markeredgewidth=2, linestyle="none", label=f"{bits} bits")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.suptitle(
        "distortion on images not fitted; bars: predicted 95 % interval, its width over the sampling noise of the flips"
    )
    return figure
