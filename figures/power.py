"""The tests behind ``simulate check``: false alarms where a hypothesis is true, and how often it is rejected elsewhere."""

import textwrap
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from simulate.experiments import power

NAME = "power"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of ``python -m simulate.experiments.power``; nothing is drawn, whatever the seed."""
    return power.shipped(), []


def draw(table: list[dict[str, Any]]):
    """A panel a hypothesis: share rejected at the level 0.05 with its 95 % interval."""
    names = list(dict.fromkeys(one["hypothesis"] for one in table))
    figure, axes = plt.subplots(3, 4, figsize=(7, 5.6), sharey=True)
    for axis, name in zip(axes.flat, names, strict=False):
        rows = [one for one in table if one["hypothesis"] == name]
        x, share, low, high = (np.array([one[key] for one in rows]) for key in ("distance", "rejected", "low", "high"))
        axis.errorbar(x, share, [share - low, high - share], fmt="o-", color="#0072B2", markersize=3, capsize=2, elinewidth=0.9)
        axis.axhline(power.LEVEL, color="black", linestyle="--", linewidth=0.8)
        axis.set(ylim=(-0.03, 1.05), xlabel=rows[0]["unit"])
        axis.set_title(f"{textwrap.fill(name.replace('step^2', 'step²'), 24)}\nfalse alarms {share[0]:.1%}", fontsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
        axis.plot([], [], "o-", color="#0072B2", markersize=3, label="rejected, 95 %")
        axis.plot([], [], "--", color="black", linewidth=0.8, label="level of the test")
        axis.legend(loc="center")
    for line in axes:
        line[0].set_ylabel("share of data sets")
    return figure
