"""The law of the distortion over single networks: simulated against predicted."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import Cell, row
from figures.distortion import FEATURES, LAYERS, problem_of
from figures.style import size
from simulate.experiments.averaging import distortions
from theory.expectation import network_law
from theory.prediction import predict
from theory.setting.schemes import compress

NAME = "spread"
BITS = (2, 4, 8)
NETWORKS = 20_000
LEVELS = np.linspace(0.005, 0.995, 199)


def compute(
    seed: int = 0, *, features: Sequence[int] = FEATURES, layers: Sequence[str] = LAYERS, networks: int = NETWORKS
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Quantiles of both laws, in units of the simulated mean or spread, and the coverage of the predicted interval."""
    table, comparison = [], []
    for layer in layers:
        for d in features:
            problem = problem_of(d, layer, seed)
            steps = np.stack([compress(problem.weights, "symmetric", width).steps for width in BITS])
            simulated = distortions(problem, steps[..., 0], networks=networks, seed=seed + 2)
            records = predict(problem, scheme="symmetric", bits=BITS, errors="expected", seed=seed)
            for own, record, values in zip(steps, records, simulated, strict=True):
                law = network_law(problem, own, seed=seed)
                inside = float(np.mean((values >= record.interval[0]) & (values <= record.interval[1])))
                for level, predicted, seen in zip(LEVELS, np.quantile(law, LEVELS), np.quantile(values, LEVELS), strict=True):
                    table.append(
                        {
                            "layer": layer,
                            "d": d,
                            "bits": record.bits,
                            "level": level,
                            "predicted": predicted,
                            "simulated": seen,
                            "networks": networks,
                            "inside": inside,
                            "law": record.provenance["interval_law"],
                        }
                    )
                comparison.append(
                    row(
                        Cell(
                            NAME,
                            f"{layer}, d = {d}",
                            "distortion",
                            2,
                            d,
                            "symmetric",
                            record.bits,
                            "expected",
                            record.method,
                            "approximation",
                        ),
                        record.distortion,
                        values.mean(),
                        values.std() / np.sqrt(len(values)),
                    )
                )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Distribution functions at the middle width: simulated as points, predicted as a line, 95 % interval shaded."""
    features, layers = sorted({one["d"] for one in table}), list(dict.fromkeys(one["layer"] for one in table))
    figure, axes = plt.subplots(len(layers), len(features), figsize=size(2, 3), sharey=True, squeeze=False)
    for axis_row, layer in zip(axes, layers, strict=True):
        for axis, d in zip(axis_row, features, strict=True):
            notes = []
            for width in BITS:
                rows = [one for one in table if (one["layer"], one["d"], one["bits"]) == (layer, d, width)]
                notes.append(f"{width} bits: {100 * rows[0]['inside']:.1f} %")
                if width != BITS[1]:
                    continue
                predicted = 100 * np.array([one["predicted"] for one in rows])
                axis.axvspan(*np.interp([0.025, 0.975], LEVELS, predicted), color="0.88", label="predicted 95 % interval")
                axis.plot(predicted, LEVELS, "-", color="#000000", label="predicted law")
                axis.plot(
                    [100 * one["simulated"] for one in rows][::8],
                    LEVELS[::8],
                    "o",
                    color="#D55E00",
                    markersize=3,
                    label=f"{rows[0]['networks']:,} simulated networks",
                )
            axis.text(
                0.97, 0.05, "inside\n" + "\n".join(notes), transform=axis.transAxes, ha="right", va="bottom", fontsize=6.5
            )
            axis.set_title(f"{layer} layer, d = {d}, {BITS[1]} bits")
    for axis in axes[-1]:
        axis.set_xlabel("distortion of one network\n(percentage points)")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of networks below")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
