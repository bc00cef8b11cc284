"""More than two classes, known weights: distortion and flips against bits, theory over counts."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import join
from figures.style import SIMULATION, size
from simulate import run
from simulate.generator import synthetic
from theory.prediction import predict

NAME = "many_classes"
PROBLEMS, BITS = ((3, 16), (10, 64), (100, 128)), (2, 3, 4, 5, 6)
SAMPLES = {3: 10_000_000, 10: 10_000_000, 100: 2_000_000}  # feature vectors counted


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Perturbed layers, unequal priors; the simulation counts decisions."""
    table, comparison = [], []
    for K, d in PROBLEMS:
        problem = synthetic(classes=K, features=d, separation=3.5, priors="unequal", layer="perturbed", seed=seed)
        question: dict[str, Any] = dict(scheme="symmetric", bits=BITS, seed=seed)
        predictions, counts = predict(problem, **question), run(problem, n=SAMPLES[K], **question)
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
    """Absolute distortion and flip rate on a log axis; an open marker where the distortion is negative."""
    figure, axes = plt.subplots(1, len(PROBLEMS), figsize=size(1, 3), sharey=True)
    for axis, (K, d) in zip(axes, PROBLEMS, strict=True):
        rows = [one for one in table if one["K"] == K]
        bits = np.array([one["bits"] for one in rows])
        axis.plot(bits, [100 * one["flip_rate"] for one in rows], "--", color="#0072B2", label="flips, theory")
        axis.plot(bits, [100 * abs(one["distortion"]) for one in rows], "-", color="#000000", label="|distortion|, theory")
        for key, marker, label in (("counted_flips", "s", "flips, counted"), ("counted", "o", "|distortion|, counted")):
            value = 100 * np.array([one[key] for one in rows])
            error = 196 * np.array([one[f"{key}_standard_error"] for one in rows])
            known = np.abs(value) > error  # its interval does not reach 0
            style = {**SIMULATION, "marker": marker}
            bars = np.abs(value[known])
            axis.errorbar(bits[known], bars, np.minimum(error[known], 0.999 * bars), label=label, **style)
            negative = known & (value < 0)
            axis.plot(bits[negative], np.abs(value[negative]), marker, color="white", markersize=1.8, zorder=7)
        axis.set_yscale("log")
        axis.set_xticks(BITS)
        axis.set_xlabel("bits per weight")
        axis.set_title(f"K = {K}, d = {d}")
    axes[0].set_ylabel("percentage points")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure
