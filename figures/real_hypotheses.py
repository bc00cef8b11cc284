"""Real networks: what each hypothesis of the theory costs, all classes at once."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table

NAME = "real_hypotheses"
BITS = (2, 3)
MARKS = ("o", "s", "D", "v", "^")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of ``simulate check``; nothing is drawn, whatever the seed."""
    return shipped_table(NAME), []


def draw(table: list[dict[str, Any]]):
    """Effects over the distortion predicted without, ranked; filled where the hypothesis is rejected."""
    networks = list(dict.fromkeys(one["network"] for one in table))
    rows = [one for one in table if one["effect"] is not None and one["bits"] in BITS]

    def size(name: str) -> float:
        return float(np.median([abs(one["effect"]) for one in rows if one["hypothesis"] == name]))

    order = sorted({one["hypothesis"] for one in rows}, key=size)
    figure, axes = plt.subplots(1, len(BITS), figsize=(7, 4.2), sharey=True)
    for axis, width in zip(axes, BITS, strict=True):
        for i, network in enumerate(networks):
            own = [one for one in rows if one["network"] == network and one["bits"] == width]
            height = np.array([order.index(one["hypothesis"]) for one in own]) + 0.17 * ((len(networks) - 1) / 2 - i)
            effect = 100 * np.array([one["effect"] for one in own])
            error = 100 * NORMAL_95 * np.array([one["effect_standard_error"] for one in own])
            axis.barh(height, effect, 0.15, color=COLORS[i], alpha=0.45, linewidth=0)
            axis.errorbar(effect, height, xerr=error, fmt="none", ecolor=COLORS[i], elinewidth=0.8, capsize=1.5)
            for rejected in (True, False):
                some = [j for j, one in enumerate(own) if (one["holds"] is False) == rejected]
                axis.plot(
                    effect[some],
                    height[some],
                    MARKS[i],
                    color=COLORS[i],
                    markersize=3.5,
                    markerfacecolor=COLORS[i] if rejected else "white",
                    linestyle="none",
                    label=network if rejected and axis is axes[0] else None,
                )
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_xscale("symlog", linthresh=0.1)
        ticks = [-10, -1, -0.1, 0, 0.1, 1, 10]
        axis.set_xlim(-40, 100)
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.set_yticks(range(len(order)), [name.replace("^2", "²") for name in order])
        axis.set(title=f"{width} bits", xlabel="change of the expected distortion\n(percentage points, bars: 95 %)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title="filled: rejected (Holm, 5 %)", title_fontsize=7)
    return figure
