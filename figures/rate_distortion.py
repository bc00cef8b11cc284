"""Stored bits against distortion, every scheme: a real network and a synthetic problem, the Pareto front marked."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, join, row
from figures.style import size
from simulate import run
from simulate.experiments.rates import HIGHEST, POSTERIOR, PRUNED, UNITS, counting_error
from simulate.experiments.rates import NAME as TABLE
from simulate.experiments.real import shipped_table
from simulate.generator import synthetic
from theory.prediction import predict

NAME = "rate_distortion"
NETWORK, CLASSES, FEATURES = "ResNet-20", 5, 64
SAMPLES = {"integer": 400_000}  # feature vectors counted; the others a million pairs
STYLES: dict[str, tuple[str, str, str]] = {  # colour, marker, line
    "symmetric": ("#000000", "o", "-"),
    "optimal step": ("#D55E00", "*", "-"),
    "affine": ("#0072B2", "s", "--"),
    "midrise": ("#56B4E9", "D", "-."),
    "integer, 8-bit inputs": ("#0072B2", "x", ":"),
    "codebook": ("#009E73", "^", "-"),
    "deep compression, half pruned": ("#009E73", "v", "--"),
    "prune": ("#E69F00", "P", "-."),
    "prune features": ("#CC79A7", "X", ":"),
}
LEAST = 0.05  # points below which the axis is linear


def questions() -> list[tuple[str, dict[str, Any], Sequence[int] | None]]:
    """Label, options and widths of every curve, seven of each, so that they share compiled programs; pruned layers have a
    question each."""
    widths, fewer = range(2, 9), range(1, 8)
    return [
        ("symmetric", {"scheme": "symmetric"}, widths),
        ("optimal step", {"scheme": "optimal", "criterion": "distortion"}, widths),
        ("affine", {"scheme": "affine"}, fewer),
        ("midrise", {"scheme": "midrise"}, fewer),
        ("integer, 8-bit inputs", {"scheme": "integer", "activation_bits": 8}, widths),
        ("codebook", {"scheme": "codebook"}, fewer),
        ("deep compression, half pruned", {"scheme": "deep-compression", "sparsity": 0.5}, fewer),
        *(("prune", {"scheme": "prune", "sparsity": s}, None) for s in PRUNED),
        *(("prune features", {"scheme": "prune-structured", "sparsity": s, "unit": "feature"}, None) for s in UNITS),
    ]


def compute(
    seed: int = 0,
    *,
    problem: tuple[int, int] = (CLASSES, FEATURES),
    curves: Sequence[str] = tuple(STYLES),
    n: int | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Known weights, one step a layer. The network from the shipped table: predicted from one half of the images by posteriors,
    measured on the other. The synthetic problem of so many classes and features: a perturbed layer, predicted and counted on
    ``n`` samples."""
    table, comparison = [], []
    rows = [one for one in shipped_table(TABLE) if one["network"] == NETWORK and one["model"] == POSTERIOR]
    plain = [one for one in rows if one["granularity"] == "tensor" and not one["bias"] and not one["bias_correction"]]
    asked = [question for question in questions() if question[0] in curves]
    for label, options, _ in asked:
        wanted = {key: options.get(key) for key in ("scheme", "sparsity", "unit", "criterion", "activation_bits")}
        for one in plain:
            if all(one[key] == value for key, value in wanted.items()):
                error = counting_error(one)
                keys = ("bits", "rate", "predicted", "low", "high")
                seen = {"seen": one["distortion"], "standard_error": error}
                table.append({"problem": NETWORK, "curve": label} | {key: one[key] for key in keys} | seen)
                details = (10, 64, one["scheme"], one["bits"], "actual", "posterior_count", "measured")
                said = (one["predicted"], one["distortion"], error)
                comparison.append(
                    row(
                        Cell(
                            NAME,
                            f"{NETWORK}, {label}",
                            "distortion",
                            *details,
                        ),
                        *said,
                    )
                )
    classes, features = problem
    layer = synthetic(classes=classes, features=features, separation=3.5, layer="perturbed", seed=seed)
    name = f"synthetic, {classes} classes"
    for label, options, widths in asked:
        question: dict[str, Any] = dict(bits=None if widths is None else list(widths), seed=seed, **options)
        counts = run(layer, n=n or SAMPLES.get(options["scheme"]), **question)
        for said, seen in zip(predict(layer, **question), counts, strict=True):
            if said.rate > HIGHEST:
                continue
            values = {"predicted": said.distortion, "low": said.interval[0], "high": said.interval[1]}
            values |= {"seen": seen.distortion, "standard_error": seen.standard_error}
            table.append({"problem": name, "curve": label, "bits": said.bits, "rate": said.rate} | values)
            claim = f"{name}, {label}"
            comparison += join(NAME, claim, classes, features, "approximation", said, seen)
    return table, comparison


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows predicted to lose less than every one of no more stored bits, by rate, down to no loss."""
    kept: list[dict[str, Any]] = []
    for one in sorted(rows, key=lambda one: (one["rate"], one["predicted"])):
        if not kept or one["predicted"] < kept[-1]["predicted"]:
            kept.append(one)
        if one["predicted"] <= 0:
            break
    return kept


def draw(table: list[dict[str, Any]]):
    """Lines are predicted, points measured or counted with 95 % bars; the front of the predicted ones is ringed."""
    problems = list(dict.fromkeys(one["problem"] for one in table))
    figure, axes = plt.subplots(1, len(problems), figsize=(7.0, size(1, 2)[1] + 1.2), sharey=True)
    for axis, problem in zip(axes, problems, strict=True):
        rows = [one for one in table if one["problem"] == problem]
        for label, (color, marker, line) in STYLES.items():
            own = sorted((one for one in rows if one["curve"] == label), key=lambda one: one["rate"])
            rate = [one["rate"] for one in own]
            axis.plot(rate, [100 * one["predicted"] for one in own], line, color=color, linewidth=1.0)
            seen, error = (100 * np.array([one[key] for one in own]) for key in ("seen", "standard_error"))
            bars = {"elinewidth": 0.5, "markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.8}
            axis.errorbar(rate, seen, 1.96 * error, fmt=marker, color=color, **bars)
        best = front(rows)
        ringed = ([one["rate"] for one in best], [100 * one["predicted"] for one in best])
        axis.plot(*ringed, "o", color="0.35", markersize=10, markerfacecolor="none", markeredgewidth=0.9, zorder=0)
        axis.step(*ringed, where="post", color="0.75", linewidth=3, zorder=-1)
        axis.set_yscale("symlog", linthresh=LEAST)
        axis.set(xlabel="stored bits per weight", title=problem, xlim=(0.5, 8.6), ylim=(-1, 120))
        ticks = [-1, -0.1, 0, 0.1, 1, 10, 100]
        axis.set_yticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
        axis.axhline(0, color="black", linewidth=0.5)
    axes[0].set_ylabel("distortion (percentage points; linear within 0.05)")
    for label, (color, marker, line) in STYLES.items():
        axes[0].plot([], [], line, marker=marker, color=color, markerfacecolor="none", markersize=4, linewidth=1, label=label)
    axes[0].plot([], [], "o-", color="0.5", markersize=9, markerfacecolor="none", label="Pareto front, predicted")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle("last layer, one step a layer: lines predicted, points measured on other images or counted, 95 %")
    return figure
