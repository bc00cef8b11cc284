"""Expected distortion against bits: every formula, Monte Carlo over random networks, and averaged exact risks."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, join, row
from figures.style import METHODS, REFERENCE, SIMULATION, points_or_bounds, ratios
from simulate import run
from simulate.estimates import NORMAL_95
from simulate.experiments.averaging import distortions
from simulate.generator import synthetic
from theory.expectation import average_of_two
from theory.prediction import predict
from theory.setting.schemes import compress

NAME = "distortion"
FEATURES, BITS, LAYERS = (8, 64, 512), (2, 3, 4, 5, 6, 7, 8), ("optimal", "perturbed")
SAMPLES = 1_000_000  # feature vectors counted


def problem_of(d: int, layer: str, seed: int):
    """Unequal priors; the perturbed layer also gets unequal covariances, so that nothing is symmetric."""
    covariance = "shared" if layer == "optimal" else "unequal"
    return synthetic(classes=2, features=d, separation=2.5, covariance=covariance, priors="unequal", layer=layer, seed=seed)


def compute(
    seed: int = 0,
    *,
    features: Sequence[int] = FEATURES,
    bits: Sequence[int] = BITS,
    layers: Sequence[str] = LAYERS,
    n: int = SAMPLES,
    averaged_work: int = 2**22,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The numbers behind the figure, and the rows of the comparison; ``n`` samples counted, ``averaged_work`` over the features
    networks whose exact risks are averaged."""
    table, comparison = [], []
    for layer in layers:
        for d in features:
            problem, name = problem_of(d, layer, seed), f"{layer}, d = {d}"
            question: dict[str, Any] = dict(scheme="symmetric", bits=bits, seed=seed)
            best = predict(problem, errors="expected", **question)
            counted = run(problem, errors="expected", n=n, **question)
            steps = np.stack([compress(problem.weights, "symmetric", width).steps for width in bits])
            methods = {method: [average_of_two(problem, step, method, seed=seed)[1:] for step in steps] for method in METHODS}
            averaged = distortions(problem, steps[..., 0], networks=averaged_work // max(d, 64), seed=seed + 1, antithetic=True)
            for i, width in enumerate(bits):
                reference, se = averaged[i].mean(), averaged[i].std(ddof=1) / np.sqrt(averaged.shape[1])
                table.append(
                    {
                        "layer": layer,
                        "d": d,
                        "bits": width,
                        "best_method": best[i].method,
                        "best": best[i].distortion,
                        "low": best[i].interval[0],
                        "high": best[i].interval[1],
                        **{method: answers[i][0] for method, answers in methods.items()},
                        "counted": counted[i].distortion,
                        "counted_standard_error": counted[i].standard_error,
                        "averaged": reference,
                        "averaged_standard_error": se,
                    }
                )
                comparison += join(NAME, name, 2, d, "approximation", best[i], counted[i])
                for method in ("delta_2", "marginal", "corrected_marginal"):
                    value, error = methods[method][i]
                    cell = _cell(name, d, "distortion", width, "expected", method, "approximation")
                    comparison.append(row(cell, value, reference, se, error / NORMAL_95))
            predictions, estimates = predict(problem, **question), run(problem, n=n, **question)
            for prediction, estimate in zip(predictions, estimates, strict=True):
                comparison += join(NAME, name, 2, d, "exact", prediction, estimate)
            errors = (record.risk_before_error / NORMAL_95 for record in (estimates[0], predictions[0]))
            cell = _cell(name, d, "risk", bits[0], "actual", "binary_risk", "exact")
            comparison.append(row(cell, predictions[0].risk_before, estimates[0].risk_before, *errors))
    return table, comparison


def _cell(problem: str, d: int, quantity: str, bits: int, errors: str, method: str, claim: str) -> Cell:
    return Cell(
        figure=NAME,
        problem=problem,
        quantity=quantity,
        K=2,
        d=d,
        scheme="symmetric",
        bits=bits,
        errors=errors,
        method=method,
        claim=claim,
    )


def draw(table: list[dict[str, Any]]):
    """For each layer and dimension the distortion on a log axis, and below it every formula over the averaged exact risks.

    A triangle at an edge of a lower panel marks a ratio that lies beyond it."""
    features, layers = sorted({one["d"] for one in table}), list(dict.fromkeys(one["layer"] for one in table))
    figure, axes = plt.subplots(
        2 * len(layers),
        len(features),
        figsize=(7, 3.5 * len(layers)),
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [2, 1] * len(layers)},
    )
    for i, layer in enumerate(layers):
        for axis, below, d in zip(axes[2 * i], axes[2 * i + 1], features, strict=True):
            rows = [one for one in table if one["layer"] == layer and one["d"] == d]
            _levels(axis, rows)
            _ratios(below, rows)
            axis.set_title(f"{layer} layer, d = {d}")
    for axis in axes[-1]:
        axis.set_xlabel("bits per weight")
    for axis, below in zip(axes[::2, 0], axes[1::2, 0], strict=True):
        axis.set_ylabel("expected distortion\n(percentage points)")
        below.set_ylabel("formula /\nexact")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _levels(axis, rows: list[dict[str, Any]]) -> None:
    bits = [one["bits"] for one in rows]
    axis.fill_between(
        bits,
        [max(100 * one["low"], 1e-9) for one in rows],
        [100 * one["high"] for one in rows],
        color="0.85",
        label="95 % of networks, predicted",
    )
    for method, style in METHODS.items():
        axis.plot(bits, [100 * one[method] for one in rows], **style)
    for key, style, label in (
        ("counted", SIMULATION, "counted (arrows: upper bounds)"),
        ("averaged", REFERENCE, "exact risks averaged"),
    ):
        value, error = (100 * np.array([one[name] for one in rows]) for name in (key, f"{key}_standard_error"))
        points_or_bounds(axis, np.array(bits) + (0.18 if key == "counted" else 0.0), value, error, label=label, **style)
    axis.set_yscale("log")
    axis.set_ylim(100 * min((one["averaged"] for one in rows if one["averaged"] > 0), default=1e-9) / 4, 100)
    axis.set_xticks(bits)


def _ratios(axis, rows: list[dict[str, Any]]) -> None:
    bits = np.array([one["bits"] for one in rows])
    reference = np.array([one["averaged"] for one in rows])
    for method, style in METHODS.items():
        ratios(axis, bits, np.array([one[method] for one in rows]) / reference, 0.88, 1.22, **style, markersize=3)
    error = NORMAL_95 * np.array([one["averaged_standard_error"] for one in rows]) / reference
    axis.errorbar(bits, np.ones(len(bits)), error, **REFERENCE)
