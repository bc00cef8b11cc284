"""Stored bits against distortion, every scheme: a real network and a synthetic problem, the Pareto front marked."""

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import QUICK, Cell, join, row
from simulate import run
from simulate.estimates import NORMAL_95
from simulate.experiments.rates import HIGHEST, POSTERIOR, PRUNED, UNITS, counting_error
from simulate.experiments.rates import NAME as TABLE
from simulate.experiments.real import shipped_table
from simulate.generator import synthetic
from theory.prediction import predict

NAME = "rate_distortion"
NETWORK, CLASSES, FEATURES = "ResNet-20", 5, 64
SAMPLES, FULL_VECTORS = 2_000_000, 400_000  # feature vectors counted; of integer layers, which nothing shortens
FAMILIES: dict[str, dict[str, tuple[str, str, str]]] = {  # colour, marker, line of each curve of a panel
    "rounding": {
        "symmetric": ("#000000", "o", "-"),
        "optimal step": ("#D55E00", "*", "-"),
        "affine": ("#0072B2", "s", "--"),
        "midrise": ("#009E73", "D", "-."),
        "integer, 8-bit inputs": ("#CC79A7", "x", ":"),
    },
    "pruning and sharing": {
        "prune": ("#E69F00", "P", "-."),
        "prune features": ("#0072B2", "X", ":"),
        "codebook": ("#000000", "^", "-"),
        "deep compression, half pruned": ("#D55E00", "v", "--"),
    },
}
CURVES = tuple(curve for family in FAMILIES.values() for curve in family)
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
    curves: Sequence[str] = CURVES,
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
        counts = run(layer, n=n or (FULL_VECTORS if options["scheme"] == "integer" else SAMPLES), **question)
        for said, seen in zip(predict(layer, budget=QUICK, **question), counts, strict=True):
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
    """A row a problem, a column a family of schemes. Lines are predicted, points measured or counted with 95 % bars; the front
    of all predicted ones is ringed in both columns."""
    problems = list(dict.fromkeys(one["problem"] for one in table))
    figure, axes = plt.subplots(len(problems), 2, figsize=(7.0, 2.3 * len(problems) + 1.0), sharex=True, sharey=True)
    axes = axes.reshape(len(problems), 2)
    for (problem, family), axis in zip(itertools.product(problems, FAMILIES), axes.flat, strict=True):
        rows = [one for one in table if one["problem"] == problem]
        for label, (color, marker, line) in FAMILIES[family].items():
            own = sorted((one for one in rows if one["curve"] == label), key=lambda one: one["rate"])
            rate = [one["rate"] for one in own]
            axis.plot(rate, [100 * one["predicted"] for one in own], line, color=color, linewidth=1.0)
            seen, error = (100 * np.array([one[key] for one in own]) for key in ("seen", "standard_error"))
            bars = {"elinewidth": 0.5, "markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.8}
            axis.errorbar(rate, seen, NORMAL_95 * error, fmt=marker, color=color, **bars)
        best = front(rows)
        ringed = ([one["rate"] for one in best], [100 * one["predicted"] for one in best])
        axis.plot(*ringed, "o", color="0.35", markersize=10, markerfacecolor="none", markeredgewidth=0.9, zorder=0)
        axis.step(*ringed, where="post", color="0.75", linewidth=3, zorder=-1)
        axis.set_yscale("symlog", linthresh=LEAST)
        axis.set(title=f"{problem}: {family}", xlim=(0.5, 8.6), ylim=(-1, 120))
        ticks = [-1, -0.1, 0, 0.1, 1, 10, 100]
        axis.set_yticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
        axis.axhline(0, color="black", linewidth=0.5)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"distortion (percentage\npoints; linear within {LEAST:g})")
    for axis, styles in zip(axes[-1], FAMILIES.values(), strict=True):
        axis.set_xlabel("stored bits per weight")
        for label, (color, marker, line) in styles.items():
            axis.plot([], [], line, marker=marker, color=color, markerfacecolor="none", markersize=4, linewidth=1, label=label)
        axis.plot([], [], "o-", color="0.5", markersize=9, markerfacecolor="none", label="Pareto front of all, predicted")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    figure.suptitle("last layer, one step a layer: lines predicted, points measured on other images or counted, 95 %")
    return figure
