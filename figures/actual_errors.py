"""Actual quantizers against the uniform hypothesis at few bits: independent rows and tied rows."""

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from simulate.generator import synthetic
from theory.expectation import expected_distortion
from theory.gaussian_quantizer import gaussian_gain
from theory.integrals.network_draws import margin_errors
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.schemes import compress

NAME = "actual_errors"
BITS = (2, 3, 4, 5, 6)
PROBLEMS, FEATURES = 40, 256


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Actual distortion over the one expected under uniform independent errors, for many layers."""
    table, comparison = [], []
    for index in range(PROBLEMS):
        plain = synthetic(
            classes=2, features=FEATURES, separation=2.5, priors="equal", layer="optimal", seed=seed + 1000 + index
        )
        w = plain.weights[1] - plain.weights[0]
        c = plain.bias[1] - plain.bias[0]
        tied = replace(plain, weights=np.stack([-w, w]) / 2, bias=np.array([-c, c]) / 2)
        for kind, problem in (("independent rows", plain), ("tied rows", tied)):
            actual = predict(problem, scheme="symmetric", bits=BITS)
            for one in actual:
                steps = compress(problem.weights, "symmetric", one.bits).steps
                v, k4, k6 = margin_errors(independent_errors(steps)).moments()
                factor = gaussian_gain(float(problem.weights.std() / steps[0, 0])) * (2 if kind == "tied rows" else 1)
                mean = expected_distortion(problem, v=v, k4=k4, k6=k6)
                corrected = expected_distortion(problem, v=v * factor, k4=k4, k6=k6)
                table.append(
                    {
                        "rows": kind,
                        "problem": index,
                        "bits": one.bits,
                        "actual": one.distortion,
                        "expected": mean,
                        "ratio": one.distortion / mean,
                        "factor": factor,
                        "corrected": corrected / mean,
                    }
                )
    for kind in ("independent rows", "tied rows"):
        for width in BITS:
            cell = [one for one in table if one["rows"] == kind and one["bits"] == width]
            values = np.array([one["actual"] for one in cell])
            comparison.append(
                row(
                    Cell(
                        NAME,
                        kind,
                        "distortion",
                        2,
                        FEATURES,
                        "symmetric",
                        width,
                        "expected",
                        "margin_quadrature",
                        "approximation",
                    ),
                    float(np.mean([one["expected"] for one in cell])),
                    values.mean(),
                    values.std(ddof=1) / np.sqrt(len(values)),
                )
            )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Ratios of single layers, their mean with its 95 % interval, and the factor that theory puts on the error variance."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True)
    rng = np.random.default_rng(0)
    for axis, kind in zip(axes, ("independent rows", "tied rows"), strict=True):
        for width in BITS:
            ratio = np.array([one["ratio"] for one in table if one["rows"] == kind and one["bits"] == width])
            first = width == BITS[0]
            axis.plot(
                width + rng.uniform(-0.16, 0.16, len(ratio)),
                ratio,
                ".",
                color="0.6",
                markersize=3,
                label="one layer" if first else None,
            )
            axis.errorbar(
                width,
                ratio.mean(),
                1.96 * ratio.std(ddof=1) / np.sqrt(len(ratio)),
                color="#D55E00",
                marker="o",
                markersize=4,
                capsize=3,
                linestyle="none",
                label=f"mean of {len(ratio)} layers, 95 %" if first else None,
            )
        theory = [
            np.mean([one["corrected"] for one in table if one["rows"] == kind and one["bits"] == width]) for width in BITS
        ]
        axis.plot(
            BITS,
            theory,
            "--s",
            color="#0072B2",
            markersize=4,
            markerfacecolor="none",
            label="theory with the error variance corrected:\ngain of coarse steps, 2 for tied rows",
        )
        axis.axhline(1, color="black", linewidth=0.8, label="uniform, independent errors")
        axis.set_title(f"{kind}, d = {FEATURES}")
        axis.set_xlabel("bits per weight")
        axis.set_xticks(BITS)
    axes[0].set_ylabel("actual / expected distortion")
    axes[0].set_ylim(0, None)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
