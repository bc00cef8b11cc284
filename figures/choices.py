"""Choices that cost no stored bit, on real networks: the step of least distortion, the bias corrected, integer arithmetic."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from figures.style import size
from simulate.estimates import NORMAL_95
from simulate.experiments.rates import IMAGENET, POSTERIOR, counting_error
from simulate.experiments.rates import NAME as TABLE
from simulate.experiments.real import shipped_table

NAME = "choices"
BITS = (2, 3, 4, 5)
CURVES: dict[str, list[tuple[str, dict[str, Any], str, str, str]]] = {  # panel: label, options, colour, marker, line
    "which step": [
        ("largest weight", {"scheme": "symmetric"}, "#000000", "o", "-"),
        ("least squared error", {"scheme": "optimal", "criterion": "mse"}, "#0072B2", "s", "--"),
        ("least distortion", {"scheme": "optimal", "criterion": "distortion"}, "#D55E00", "D", "-."),
    ],
    "the bias": [
        ("symmetric", {"scheme": "symmetric"}, "#000000", "o", "-"),
        ("symmetric, corrected", {"scheme": "symmetric", "bias_correction": True}, "#D55E00", "s", ":"),
        ("affine", {"scheme": "affine"}, "#0072B2", "^", "--"),
        ("affine, corrected", {"scheme": "affine", "bias_correction": True}, "#009E73", "v", "-."),
    ],
    "the arithmetic": [
        ("weights only (affine)", {"scheme": "affine"}, "#0072B2", "^", "--"),
        ("8-bit inputs", {"scheme": "integer", "activation_bits": 8}, "#009E73", "x", "-"),
        ("4-bit inputs", {"scheme": "integer", "activation_bits": 4}, "#E69F00", "P", "-."),
    ],
}
KEYS = ("scheme", "criterion", "activation_bits", "bias_correction")


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table, one step a layer, ten classes; nothing is drawn, whatever the seed."""
    table, comparison = [], []
    rows = [one for one in shipped_table(TABLE) if one["model"] == POSTERIOR and one["granularity"] == "tensor"]
    rows = [one for one in rows if not one["bias"] and one["sparsity"] is None and one["bits"] in BITS]
    rows = [one for one in rows if one["network"] != IMAGENET]
    for panel, curves in CURVES.items():
        for label, options, *_ in curves:
            wanted = {"criterion": None, "activation_bits": None, "bias_correction": False} | options
            for one in rows:
                if any(one[key] != wanted[key] for key in KEYS):
                    continue
                error = counting_error(one)
                table.append(
                    {"panel": panel, "curve": label, "network": one["network"], "bits": one["bits"]}
                    | {key: one[key] for key in ("predicted", "low", "high", "distortion")}
                    | {"standard_error": error}
                )
                details = (10, 64, one["scheme"], one["bits"], "actual", "posterior_count", "measured")
                said = (one["predicted"], one["distortion"], error)
                comparison.append(
                    row(
                        Cell(
                            NAME,
                            f"{one['network']}, {label}",
                            "distortion",
                            *details,
                        ),
                        *said,
                    )
                )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Means over the networks: lines predicted, points measured, 95 % bars of the mean; the networks' own values behind."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(7.0, size(1, 3)[1] + 0.7), sharey=True)
    networks = len({one["network"] for one in table})
    for axis, (panel, curves) in zip(axes, CURVES.items(), strict=True):
        for i, (label, _, color, marker, line) in enumerate(curves):
            own = [one for one in table if one["panel"] == panel and one["curve"] == label]
            cells = [[one for one in own if one["bits"] == bits] for bits in BITS]
            x = np.array(BITS) + 0.12 * (i - (len(curves) - 1) / 2)
            axis.plot(x, [100 * np.mean([one["predicted"] for one in cell]) for cell in cells], line, color=color, linewidth=1)
            mean = np.array([100 * np.mean([one["distortion"] for one in cell]) for cell in cells])
            error = [
                100 * NORMAL_95 * np.sqrt(np.sum([one["standard_error"] ** 2 for one in cell])) / len(cell) for cell in cells
            ]
            axis.errorbar(
                x, mean, error, fmt=marker, color=color, markersize=4, elinewidth=0.5, capsize=1.2, markerfacecolor="none"
            )
            for at, cell in zip(x, cells, strict=True):
                axis.plot(
                    [at] * len(cell), [100 * one["distortion"] for one in cell], ".", color=color, markersize=2.5, alpha=0.6
                )
            axis.plot([], [], line, marker=marker, color=color, markersize=4, markerfacecolor="none", label=label)
        axis.set_yscale("symlog", linthresh=0.1)
        ticks = [-1, -0.1, 0, 0.1, 1, 10]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set(xlabel="bits per weight", xticks=BITS, title=panel, ylim=(-1, 40))
        axis.legend(loc="upper right")
    axes[0].set_ylabel("distortion (points; linear within 0.1)")
    figure.suptitle(
        f"means of {networks} CIFAR-10 networks, one step a layer: lines predicted from half of the images,\n"
        "points measured on the other half, 95 %; dots: each network"
    )
    return figure
