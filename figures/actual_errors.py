"""Actual quantizers against the uniform hypothesis at few bits: independent rows and tied rows."""

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from simulate.estimates import NORMAL_95
from simulate.generator import synthetic
from theory.expectation import expected_distortion
from theory.gaussian_quantizer import gaussian_gain
from theory.integrals.network_draws import margin_errors
from theory.prediction import predict
from theory.setting.error_law import independent_errors, uniform_errors
from theory.setting.schemes import compress

NAME = "actual_errors"
BITS = (2, 3, 4, 5, 6)
PROBLEMS, FEATURES = 24, 256


def compute(
    seed: int = 0, *, problems: int = PROBLEMS, features: int = FEATURES
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Actual distortion over the one expected under uniform independent errors, for many layers."""
    table, comparison = [], []
    for index in range(problems):
        plain = synthetic(
            classes=2, features=features, separation=2.5, priors="equal", layer="optimal", seed=1000 * (seed + 1) + index
        )
        w = plain.weights[1] - plain.weights[0]
        c = plain.bias[1] - plain.bias[0]
        tied = replace(plain, weights=np.stack([-w, w]) / 2, bias=np.array([-c, c]) / 2)
        for kind, problem in (("independent rows", plain), ("tied rows", tied)):
            actual = predict(problem, scheme="symmetric", bits=BITS)
            for record in actual:
                layer = compress(problem.weights, "symmetric", record.bits)
                v, k4, k6 = margin_errors(independent_errors(layer.steps)).moments()
                own_v, own_k4, own_k6 = margin_errors(uniform_errors(problem.weights, layer)).moments()  # tied rows tied
                own_v *= gaussian_gain(float(problem.weights.std() / layer.steps[0, 0]))
                mean = expected_distortion(problem, v=v, k4=k4, k6=k6)
                table.append(
                    {
                        "rows": kind,
                        "problem": index,
                        "features": features,
                        "bits": record.bits,
                        "actual": record.distortion,
                        "expected": mean,
                        "ratio": record.distortion / mean,
                        "factor": own_v / v,
                        "corrected": expected_distortion(problem, v=own_v, k4=own_k4, k6=own_k6) / mean,
                    }
                )
    for kind in ("independent rows", "tied rows"):
        for width in BITS:
            cell = [line for line in table if line["rows"] == kind and line["bits"] == width]
            actual, expected, corrected = (
                np.array([line[key] for line in cell]) for key in ("actual", "expected", "corrected")
            )
            for law, theory in (("uniform, independent", expected), ("corrected", corrected * expected)):
                gaps = actual - theory  # of the same layers
                details = (2, features, "symmetric", width, "expected", "margin_quadrature", "approximation")
                claim = Cell(NAME, f"{kind}, {law}", "distortion", *details)
                error = gaps.std(ddof=1) / np.sqrt(len(gaps))
                comparison.append(row(claim, theory.mean(), actual.mean(), error))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Ratios of single layers, their mean with its 95 % interval, and the factor that theory puts on the error variance."""
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True)
    rng = np.random.default_rng(0)
    for axis, kind in zip(axes, ("independent rows", "tied rows"), strict=True):
        for width in BITS:
            ratio = np.array([line["ratio"] for line in table if line["rows"] == kind and line["bits"] == width])
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
                NORMAL_95 * ratio.std(ddof=1) / np.sqrt(len(ratio)),
                color="#D55E00",
                marker="o",
                markersize=4,
                capsize=3,
                linestyle="none",
                label=f"mean of {len(ratio)} layers, 95 %" if first else None,
            )
        theory = [
            np.mean([line["corrected"] for line in table if line["rows"] == kind and line["bits"] == width]) for width in BITS
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
        axis.set_title(f"{kind}, d = {table[0]['features']}")
        axis.set_xlabel("bits per weight")
        axis.set_xticks(BITS)
    axes[0].set_ylabel("actual / expected distortion")
    axes[0].set_ylim(0, None)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
