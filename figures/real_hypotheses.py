"""The shipped ResNet-20: what each hypothesis of the theory costs, for every pair of classes."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from simulate.experiments.halves import shipped

NAME = "real_hypotheses"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of ``simulate check`` over the 45 pairs; nothing is drawn, whatever the seed."""
    return shipped()[2], []


def draw(table: list[dict[str, Any]]):
    """Effects in percentage points, one point a pair, by hypothesis; the share of pairs where it is rejected."""
    widths = sorted({one["bits"] for one in table})
    figure, axes = plt.subplots(1, len(widths), figsize=(7, 2.4), sharex=True, sharey=True, squeeze=False)
    order = sorted(
        {one["hypothesis"] for one in table},
        key=lambda name: np.median([abs(one["effect"]) for one in table if one["hypothesis"] == name]),
    )
    rng = np.random.default_rng(0)
    for axis, width in zip(axes[0], widths, strict=True):
        for position, name in enumerate(order):
            rows = [one for one in table if one["hypothesis"] == name and one["bits"] == width]
            effects = np.array([100 * one["effect"] for one in rows])
            axis.plot(
                effects,
                position + rng.uniform(-0.18, 0.18, len(rows)),
                ".",
                color="#0072B2",
                markersize=3,
                label="one pair of classes" if position == 0 else None,
            )
            axis.plot(
                [np.median(effects)],
                [position],
                "|",
                color="black",
                markersize=14,
                markeredgewidth=1.6,
                label="median" if position == 0 else None,
            )
            rejected = np.mean([not one["holds"] for one in rows])
            axis.text(
                1.01, position, f"{100 * rejected:.0f} %", transform=axis.get_yaxis_transform(), va="center", fontsize=6.5
            )
        axis.text(1.01, len(order) - 0.4, "rejected", transform=axis.get_yaxis_transform(), fontsize=6.5)
        axis.axvline(0, color="black", linewidth=0.6)
        axis.set_yticks(range(len(order)), order)
        axis.set_title(f"{width} bits")
        axis.set_xlabel("change of the expected distortion\n(percentage points)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
