"""Real networks all of whose weights are compressed: the loss predicted from the noise of the logits, first order and with the
gain, beside networks run; and the gain itself against the noise power."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.compare import Cell, row
from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table
from theory.all_layers import FIRST_ORDER, KAPPA

NAME = "all_layers"
K = 10  # classes of CIFAR-10; features are those of the last layer
MARKERS = {"tensor": "o", "channel": "s"}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.all_layers`; nothing is drawn, whatever the seed."""
    table, comparison = shipped_table(NAME), []
    for one in table:
        problem = f"{one['network']}, all weights, {one['granularity']}"
        for method, theory in (("logit_gain", one["predicted"]), ("first_order", one["first_order"])):
            cell = Cell(NAME, problem, "distortion", K, 64, "symmetric", one["bits"], "expected", method, "approximation")
            comparison.append(row(cell, theory, one["distortion"], one["standard_error"]))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A panel a network and granularity, loss against bits; last the gain against v/V."""
    panels = list(dict.fromkeys((one["network"], one["granularity"]) for one in table))
    figure, axes = plt.subplots(1, len(panels) + 1, figsize=(7, 2.9), gridspec_kw={"width_ratios": [1] * len(panels) + [1.25]})
    for axis, (network, granularity) in zip(axes, panels, strict=False):
        rows = [one for one in table if (one["network"], one["granularity"]) == (network, granularity)]
        column = {
            name: 100 * np.array([one[name] for one in rows], float) for name in rows[0] if isinstance(rows[0][name], float)
        }
        bits = np.array([one["bits"] for one in rows])
        axis.fill_between(
            bits, column["low"], column["high"], color="0.85", linewidth=0, label="95 % of single networks, predicted"
        )
        axis.plot(bits, column["first_order"], color="0.45", linestyle=":", label="first order")
        axis.plot(bits, column["predicted"], color="#000000", label="with the gain of the logits")
        spread = NORMAL_95 * column["networks_sd"]
        axis.errorbar(
            bits - 0.12,
            column["distortion"],
            spread,
            label="expected by random signs, spread of networks drawn",
            **style.SIMULATION,
        )
        axis.plot(bits + 0.12, column["actual"], label="the actual network", **{**_plain(style.REFERENCE)})
        axis.set_yscale("symlog", linthresh=0.1)
        ticks = [0, 0.1, 1, 10, 50]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ylim(-0.06, 100)
        axis.minorticks_off()
        axis.set_xticks(bits)
        axis.set_xlabel("bits per weight")
        axis.set_title(f"{_title(network)}\na step a {granularity}")
    axes[0].set_ylabel("loss (percentage points)")
    for axis in axes[1:-1]:
        axis.sharey(axes[0])
        axis.tick_params(labelleft=False)
    _draw_gain(axes[-1], table)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_gain(axis, table: list[dict[str, Any]]) -> None:
    """-ln g as sampled against v/V, and the law."""
    for color, network in zip(COLORS, dict.fromkeys(one["network"] for one in table), strict=False):
        for granularity, marker in MARKERS.items():
            rows = [one for one in table if (one["network"], one["granularity"]) == (network, granularity)]
            x, y = np.array([(one["noise_ratio"], -np.log(one["sampled_gain"])) for one in rows]).reshape(-1, 2).T
            some = y > 0
            axis.plot(
                *(x[some], y[some], marker),
                color=color,
                markersize=4,
                markerfacecolor="none",
                label=f"{_title(network)}, {granularity}",
            )
    x = np.array([1e-4, 1.0])
    axis.plot(x, KAPPA * x, color="#000000", linewidth=0.9, label=f"{KAPPA:g} v/V")
    axis.axvline(FIRST_ORDER / KAPPA, color="0.5", linestyle="--", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlabel="noise power of the logits, v/V", ylabel="$-\\ln g$, sampled")
    axis.legend(loc="upper left", fontsize=6)


def _title(network: str) -> str:
    """ResNet-20 of resnet20."""
    return network.replace("resnet", "ResNet-")


def _plain(marks: dict[str, Any]) -> dict[str, Any]:
    """A style for points without error bars."""
    return {name: value for name, value in marks.items() if name not in ("capsize", "elinewidth")}
