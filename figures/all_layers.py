"""Networks all of whose weights are compressed: the loss predicted from the noise of the logits, first order and with the gain,
beside networks run; and the gain itself against the noise power."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.compare import Cell, row
from simulate.estimates import NORMAL_95
from simulate.experiments.real import shipped_table
from theory.all_layers import FIRST_ORDER, KAPPA

NAME = "all_layers"
K = 10  # classes of CIFAR-10
FEATURES = {"resnet20": 64, "resnet44": 64, "plain": 128, "separable": 192}  # of the last layer
MARKERS = {"tensor": "o", "channel": "s", "tensor, folded": "^"}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.all_layers`; nothing is drawn, whatever the seed."""
    table = shipped_table(NAME)
    return table, comparison_of(table, NAME)


def comparison_of(table: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Predictions with the gain and to first order, each beside the mean by random signs."""
    comparison = []
    for one in table:
        inputs = "" if one["activation_bits"] is None else f", inputs of {one['activation_bits']} bits"
        for method, theory in (("logit_gain", one["predicted"]), ("first_order", one["first_order"])):
            cell = expected_cell(name, f"{one['network']}, all weights, {one['granularity']}{inputs}", one, method)
            comparison.append(row(cell, theory, one["distortion"], one["standard_error"]))
    return comparison


def expected_cell(figure: str, problem: str, one: dict[str, Any], method: str) -> Cell:
    """What a row of the comparison is about, of the mean loss of a network in a table."""
    return Cell(
        figure=figure,
        problem=problem,
        quantity="distortion",
        K=K,
        d=FEATURES[one["network"]],
        scheme="symmetric",
        bits=one["bits"],
        errors="expected",
        method=method,
        claim="approximation",
    )


def draw(table: list[dict[str, Any]]):
    """A column a network, a row a granularity, loss against bits; last the gain: -ln g against v/V, and their ratio."""
    networks = list(dict.fromkeys(one["network"] for one in table))
    widths = [1] * len(networks) + [0.3, 1.5]
    figure, axes = plt.subplots(2, len(widths), figsize=(7, 4.4), gridspec_kw={"width_ratios": widths})
    for line, granularity in zip(axes, ("tensor", "channel"), strict=True):
        for axis, network in zip(line, networks, strict=False):
            losses(axis, [one for one in table if (one["network"], one["granularity"]) == (network, granularity)])
            if axis is not line[0]:
                axis.tick_params(labelleft=False)
        line[0].set_ylabel(f"a step a {granularity}\nloss (percentage points)")
        line[len(networks)].set_axis_off()
    for axis, network in zip(axes[0], networks, strict=False):
        axis.set_title(title(network))
        axis.tick_params(labelbottom=False)
        axis.set_xlabel("")
    _draw_gain(axes[0, -1], axes[1, -1], table, networks)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def losses(axis, rows: list[dict[str, Any]]) -> None:
    """Loss against bits of one network: predicted with the interval of single networks, run, and the actual one."""
    names = ("predicted", "low", "high", "first_order", "distortion", "networks_sd", "actual")
    column = {name: 100 * np.array([one[name] for one in rows], float) for name in names}
    bits = np.array([one["bits"] for one in rows])
    axis.fill_between(
        bits, column["low"], column["high"], color="0.85", linewidth=0, label="95 % of single networks, predicted"
    )
    axis.plot(bits, column["first_order"], color="0.45", linestyle=":", label="first order")
    axis.plot(bits, column["predicted"], color="#000000", label="with the gain of the logits")
    spread = NORMAL_95 * column["networks_sd"]
    label = "expected by random signs, spread of networks drawn"
    axis.errorbar(bits - 0.12, column["distortion"], spread, label=label, **style.SIMULATION)
    axis.plot(bits + 0.12, column["actual"], label="the actual network", **style.POINTS)
    axis.set_yscale("symlog", linthresh=0.1)
    ticks = [0, 0.1, 1, 10, 50]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_ylim(-0.06, 100)
    axis.minorticks_off()
    axis.set_xticks(bits)
    axis.set_xlabel("bits per weight")


def _draw_gain(above, below, table: list[dict[str, Any]], networks: list[str]) -> None:
    """-ln g as sampled against v/V with the law, and below -ln g over v/V with its 95 % interval."""
    for color, network in zip(COLORS, networks, strict=False):
        for granularity, marker in MARKERS.items():
            rows = [one for one in table if (one["network"], one["granularity"]) == (network, granularity)]
            values = [(one["noise_ratio"], one["sampled_gain"], one["gain_error"]) for one in rows]
            x, gain, error = np.array(values, float).reshape(-1, 3).T
            decay, known = -np.log(gain), -np.log(gain) > 2 * NORMAL_95 * error
            label = f"{title(network)}, {granularity}" if len(rows) else None
            look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 3.5, "markerfacecolor": "none"}
            above.plot(x[decay > 0], decay[decay > 0], label=label, linestyle="none", **look)
            half = NORMAL_95 * error / gain / x
            below.errorbar(x[known], (decay / x)[known], half[known], linestyle="none", capsize=1.5, elinewidth=0.7, **look)
    x = np.array([1e-4, 1.0])
    above.plot(x, KAPPA * x, color="#000000", linewidth=0.9, label=f"{KAPPA:g} v/V")
    above.set(xscale="log", yscale="log", ylabel="$-\\ln g$, sampled")
    above.legend(loc="lower right", fontsize=5)
    below.axhline(KAPPA, color="#000000", linewidth=0.9)
    below.set(xscale="log", xlabel="noise power of the logits, v/V", ylabel="$-\\ln g\\,/\\,(v/V)$, 95 %", xlim=(1e-4, 2.0))
    below.set_ylim(0, 3)
    for axis in (above, below):
        axis.axvline(FIRST_ORDER / KAPPA, color="0.5", linestyle="--", linewidth=0.8)


def title(network: str) -> str:
    """ResNet-20 of resnet20."""
    return network.replace("resnet", "ResNet-")
