"""More than two classes, known weights: distortion and flips against bits, theory over counts."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import QUICK, join
from figures.style import SIMULATION, points_or_bounds, size
from simulate import run
from simulate.estimates import NORMAL_95
from simulate.generator import synthetic
from theory.prediction import predict

NAME = "many_classes"
PROBLEMS = ((3, 16, 4_000_000), (10, 64, 4_000_000), (100, 128, 1_000_000))  # classes, features, samples counted
BITS = (2, 3, 4, 5, 6)


def compute(
    seed: int = 0, *, problems: Sequence[tuple[int, int, int]] = PROBLEMS, bits: Sequence[int] = BITS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Perturbed layers, unequal priors; the simulation counts decisions. ``problems``: classes, features, samples counted."""
    table, comparison = [], []
    for K, d, samples in problems:
        problem = synthetic(classes=K, features=d, separation=3.5, priors="unequal", layer="perturbed", seed=seed)
        question: dict[str, Any] = dict(scheme="symmetric", bits=bits, seed=seed)
        predictions, counts = predict(problem, budget=QUICK, **question), run(problem, n=samples, **question)
        for one, seen in zip(predictions, counts, strict=True):
            comparison += join(NAME, f"perturbed, K = {K}, d = {d}", K, d, "approximation", one, seen)
            table.append(
                {
                    "K": K,
                    "d": d,
                    "bits": one.bits,
                    "method": one.method,
                    "distortion": one.distortion,
                    "numerical_error": one.numerical_error,
                    "flip_rate": one.flip_rate,
                    "counted": seen.distortion,
                    "counted_standard_error": seen.standard_error,
                    "counted_flips": seen.flip_rate,
                    "counted_flips_standard_error": seen.flip_rate_standard_error,
                }
            )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Absolute distortion and flip rate on a log axis; a cross where the distortion is negative, an upper bound where it is
    not known to two standard errors."""
    problems = sorted({(one["K"], one["d"]) for one in table})
    figure, axes = plt.subplots(1, len(problems), figsize=size(1, 3), sharey=True, squeeze=False)
    axes = axes[0]
    for axis, (K, d) in zip(axes, problems, strict=True):
        rows = [one for one in table if one["K"] == K]
        bits = np.array([one["bits"] for one in rows])
        axis.plot(bits, [100 * one["flip_rate"] for one in rows], "--", color="#0072B2", label="flips, theory")
        axis.plot(bits, [100 * abs(one["distortion"]) for one in rows], "-", color="#000000", label="|distortion|, theory")
        for key, marker, label in (("counted_flips", "s", "flips, counted"), ("counted", "o", "|distortion|, counted")):
            value = np.array([one[key] for one in rows])
            error = np.array([one[f"{key}_standard_error"] for one in rows])
            style = {**SIMULATION, "marker": marker}
            points_or_bounds(axis, bits, 100 * np.abs(value), 100 * error, label=label, **style)
            negative = value < -NORMAL_95 * error
            name = "negative distortion" if key == "counted" else None
            axis.plot(bits[negative], 100 * np.abs(value[negative]), "x", color="black", markersize=6, zorder=7, label=name)
        axis.set_yscale("log")
        axis.set_xticks(bits)
        axis.set_xlabel("bits per weight")
        axis.set_title(f"K = {K}, d = {d}")
    axes[0].set_ylabel("percentage points")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure
