"""Compressed networks judged without labels: the loss by the clean network's posteriors, and corrected by a few labels, against
the count by all labels."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.all_layers import expected_cell, title
from figures.compare import row
from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table
from simulate.experiments.unlabelled import LABELLED

NAME = "unlabelled"
LOOKS = {
    "symmetric": ("#000000", "o"),
    "affine": ("#0072B2", "s"),
    "optimal": ("#D55E00", "D"),
    "codebook": ("#009E73", "^"),
    "prune": ("#CC79A7", "v"),
}
KINDS = (("unlabelled", "low", "high", "no label"), ("corrected", "corrected_low", "corrected_high", f"{LABELLED} labels"))


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.unlabelled`; nothing is drawn, whatever the seed."""
    table, comparison = shipped_table(NAME), []
    for one in table:
        cell = expected_cell(NAME, f"{one['network']}, all weights, {one['granularity']}", one, "posteriors")
        cell = cell._replace(scheme=one["scheme"], errors="actual", claim="measured")
        error = (one["high"] - one["low"]) / 2 / NORMAL_95
        comparison.append(row(cell, one["unlabelled"], one["distortion"], one["standard_error"], error))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A row a network; without labels and with a few: what that says less the count by all labels, against the count."""
    networks = list(dict.fromkeys(one["network"] for one in table))
    figure, axes = plt.subplots(
        len(networks), 2, figsize=(7, 2.2 * len(networks) + 0.4), sharex=True, sharey=True, squeeze=False
    )
    for line, network in zip(axes, networks, strict=True):
        for axis, (kind, low, high, what) in zip(line, KINDS, strict=True):
            rows = [one for one in table if one["network"] == network]
            for scheme, (color, marker) in LOOKS.items():
                own = [one for one in rows if one["scheme"] == scheme]
                names = ("distortion", kind, low, high)
                seen, value, start, end = (100 * np.array([one[name] for one in own], float) for name in names)
                bars = np.abs(np.stack([value - start, end - value]))
                look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 3.5, "markerfacecolor": "none"}
                axis.errorbar(seen, value - seen, bars, label=scheme, linestyle="none", elinewidth=0.7, **look)
            images = rows[0]["images"]
            axis.axhline(0, color="0.5", linewidth=0.7)
            axis.set_title(f"{title(network)}, {what} of {images} images")
            axis.set_xscale("symlog", linthresh=1.0)
            ticks = [0, 1, 10, 80]
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        line[0].set_ylabel("estimate less count\n(percentage points)")
    for axis in axes[-1]:
        axis.set_xlabel("loss counted by all labels (percentage points)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
