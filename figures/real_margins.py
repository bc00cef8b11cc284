"""Real networks: the margin of each class against the Gaussian that the theory takes it for."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import ndtr

from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table

NAME = "real_margins"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table; nothing is drawn, whatever the seed."""
    return shipped_table(NAME), []


def draw(table: list[dict[str, Any]]):
    """Share of samples below a number of standard deviations, on a log axis: the tail where errors are made."""
    networks = list(dict.fromkeys(one["network"] for one in table))
    figure, axes = plt.subplots(1, len(networks), figsize=(7, 2.5), sharey=True, squeeze=False)
    for axis, network in zip(axes[0], networks, strict=True):
        own = [one for one in table if one["network"] == network]
        for k in sorted({one["class"] for one in own}):
            rows = [one for one in own if one["class"] == k]
            x, share = (np.array([one[key] for one in rows]) for key in ("deviations", "share"))
            seen = share > 0
            axis.plot(x[seen], share[seen], color="#56B4E9", linewidth=0.6, label="one class" if k == 0 else None)
        places = sorted({one["deviations"] for one in own})
        middle = [np.mean([one["share"] for one in own if one["deviations"] == place]) for place in places]
        axis.plot(places, middle, color="#0072B2", linewidth=1.6, label="mean of the classes")
        x = np.linspace(-4.2, 4, 200)
        n = float(np.mean([one["n"] for one in own]))
        below, noise = ndtr(x), np.sqrt(ndtr(x) * ndtr(-x) / n)
        axis.fill_between(
            x, np.maximum(below - NORMAL_95 * noise, 1e-9), below + NORMAL_95 * noise, color="0.8", label="its 95 % a class"
        )
        axis.plot(x, below, "--", color="black", linewidth=1.4, label="Gaussian")
        axis.set_yscale("log")
        axis.set(ylim=(5e-4, 1.5), xlim=(-5, 3), title=network, xlabel="margin over the rival\n(standard deviations)")
    axes[0, 0].set_ylabel("share of the class below")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
