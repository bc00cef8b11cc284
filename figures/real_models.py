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


BITS = ((2, "#D55E00"), (3, "#E69F00"), (4, "#009E73"), (5, "#0072B2"), (6, "#000000"))
MARKERS = "osD^"


def draw(table: list[dict[str, Any]]):
    """A column a model; networks by marker. Above measured against predicted, widths by colour; below, by width, the share
    inside the predicted interval. Its coverage and width in the title."""
    models = list(dict.fromkeys(one["model"] for one in table))
    networks = list(dict.fromkeys(one["network"] for one in table))
    ratios = {"height_ratios": [1.7, 1]}
    figure, axes = plt.subplots(2, len(models), figsize=(7, 4.4), sharex="row", sharey="row", gridspec_kw=ratios)
    for (above, below), model in zip(axes.T, models, strict=True):
        rows = [one for one in table if one["model"] == model]
        ends = np.array([-1.0, 30.0])
        above.plot(ends, ends, color="0.4", linewidth=0.8)
        for marker, network in zip(MARKERS, networks, strict=False):
            shares = []
            for bits, color in BITS:
                own = [one for one in rows if one["network"] == network and one["bits"] == bits]
                x, y = (100 * np.array([one[key] for one in own]) for key in ("predicted", "distortion"))
                above.plot(x, y, marker, color=color, markersize=3, markerfacecolor="none", markeredgewidth=0.5, alpha=0.7)
                shares.append(100 * np.mean([one["low"] <= one["distortion"] <= one["high"] for one in own]))
            below.plot([bits for bits, _ in BITS], shares, marker, color="0.3", markersize=4, markerfacecolor="none")
        below.axhline(95, color="black", linestyle="--", linewidth=0.8)
        total = overall(rows)
        above.set_title(f"{model}\n{total['inside']:.0%} inside 95 %, width {total['width']:.2f}", fontsize=7)
        for scale in (above.set_xscale, above.set_yscale):
            scale("symlog", linthresh=0.5)
        ticks = [-0.5, 0, 0.5, 2, 10, 30]
        for place in (above.set_xticks, above.set_yticks):
            place(ticks, [f"{x:g}" for x in ticks])
        above.minorticks_off()
        above.set_xlabel("predicted (points)")
        below.set(xlabel="bits per weight", xticks=[bits for bits, _ in BITS])
    axes[0, 0].set_ylabel("measured (percentage points)")
    axes[1, 0].set_ylabel("inside the\ninterval (%)")
    for marker, network in zip(MARKERS, networks, strict=False):
        axes[0, 0].plot([], [], marker, color="0.3", markerfacecolor="none", linestyle="none", label=network)
    for bits, color in BITS:
        axes[0, 0].plot([], [], "_", color=color, markeredgewidth=2, linestyle="none", label=f"{bits} bits")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.suptitle("distortion on images not fitted; width: of the 95 % interval over the sampling noise of the flips")
    return figure
