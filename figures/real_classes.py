"""The shipped ResNet-20, all ten classes at once: predicted interval against measured, and the recall of every class."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from simulate.estimates import NORMAL_95, paired_error
from simulate.experiments.all_classes import shipped_classes
from simulate.experiments.halves import shipped
from theory.prediction import predict

NAME = "real_classes"
BITS = (2, 3, 4, 5, 6)
SCHEMES = ("symmetric", "affine", "midrise")


def compute(
    seed: int = 0, *, schemes: Sequence[str] = SCHEMES, bits: Sequence[int] = BITS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Statistics of one half of the test images, counts of the other half; known weights, one step a layer."""
    problem, table, comparison = shipped()[0], [], []
    counts = {(one["scheme"], one["bits"]): one for one in shipped_classes() if one["granularity"] == "tensor"}
    for scheme in schemes:
        n = counts[scheme, bits[0]]["n"]
        for one in predict(problem, scheme=scheme, bits=bits, test_size=n, seed=seed):
            seen = counts[scheme, one.bits]
            measured, flips = (seen["made"] - seen["mended"]) / n, seen["flips"] / n
            se = paired_error(seen["made"], seen["mended"], n)
            table.append(
                {
                    "scheme": scheme,
                    "bits": one.bits,
                    "n": n,
                    "predicted": one.distortion,
                    "low": one.interval[0],
                    "high": one.interval[1],
                    "predicted_flips": one.flip_rate,
                    "measured": measured,
                    "measured_flips": flips,
                    **{
                        f"predicted_{key}_{k}": x[key]
                        for k, x in enumerate(one.per_class)
                        for key in ("recall_before", "recall_after")
                    },
                    **{
                        f"{key}_{k}": seen[f"{key}_{k}"]
                        for k in range(10)
                        for key in ("share", "recall_before", "recall_after")
                    },
                }
            )
            for quantity, theory, value, error in (
                ("distortion", one.distortion, measured, se),
                ("flip_rate", one.flip_rate, flips, float(np.sqrt(flips * (1 - flips) / n))),
            ):
                comparison.append(
                    row(
                        Cell(
                            NAME,
                            "ResNet-20, ten classes",
                            quantity,
                            10,
                            problem.features,
                            scheme,
                            one.bits,
                            "actual",
                            one.method,
                            "measured",
                        ),
                        theory,
                        value,
                        error,
                    )
                )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Left: by scheme and width. Right: recall of each class before and after the coarsest symmetric step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.0), gridspec_kw={"width_ratios": [1.1, 1]})
    widths = sorted({one["bits"] for one in table})
    for i, (scheme, marker) in enumerate(zip(SCHEMES, "osD", strict=True)):
        rows = [one for one in table if one["scheme"] == scheme]
        x = np.array([one["bits"] for one in rows]) + 0.2 * (i - 1)
        low, high = (100 * np.array([one[key] for one in rows]) for key in ("low", "high"))
        left.vlines(x, low, high, color="0.7", linewidth=4, label="predicted, 95 %" if i == 0 else None)
        left.plot(x, [100 * one["predicted"] for one in rows], "_", color="black", label="predicted" if i == 0 else None)
        measured = [100 * one["measured"] for one in rows]
        left.plot(x, measured, marker, color="#D55E00", markersize=3.5, label=f"measured, {scheme}")
    left.set(xlabel="bits per weight", ylabel="distortion (percentage points)", xticks=widths, title="all classes at once")
    left.set_yscale("symlog", linthresh=0.5)
    left.set_ylim(-1, 20)
    left.set_yticks([-1, -0.5, 0, 0.5, 1, 2, 5, 10], ["-1", "-0.5", "0", "0.5", "1", "2", "5", "10"])
    left.minorticks_off()
    left.axhline(0, color="black", linewidth=0.5)
    one = min((one for one in table if one["scheme"] == SCHEMES[0]), key=lambda one: one["bits"])
    k = np.arange(10)
    for key, shift, color, label in (("recall_before", -0.12, "#0072B2", "before"), ("recall_after", 0.12, "#D55E00", "after")):
        measured = np.array([one[f"{key}_{c}"] for c in k])
        images = one["n"] * np.array([one[f"share_{c}"] for c in k])
        predicted = [100 * one[f"predicted_{key}_{c}"] for c in k]
        right.plot(k + shift, predicted, "_", color=color, markersize=9, label=f"predicted {label}")
        right.errorbar(
            k + shift,
            100 * measured,
            100 * NORMAL_95 * np.sqrt(measured * (1 - measured) / images),
            fmt="o",
            color=color,
            markersize=3.5,
            capsize=2,
            elinewidth=0.9,
            markerfacecolor=color if shift < 0 else "none",
            label=f"measured {label}, 95 %",
        )
    right.set(xlabel="class", ylabel="recall (%)", xticks=k, title=f"symmetric, {one['bits']} bits")
    right.set_ylim(None, 101)
    for axis, columns in ((left, 2), (right, 2)):
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns)
    figure.suptitle(f"ResNet-20 on CIFAR-10, last layer, one step a layer; {table[0]['n']} test images, not those fitted")
    return figure
