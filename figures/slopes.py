"""Random layers of ten classes: the two laws of small steps, and every formula for the expected distortion over
conditional Monte Carlo."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import QUICK, Cell, row
from figures.style import REFERENCE, SIMULATION, ratios
from simulate import run
from simulate.estimates import NORMAL_95
from simulate.experiments.textbook import textbook
from simulate.generator import synthetic
from simulate.sampling.ghk import average_sequences
from theory.prediction import predict
from theory.setting.schemes import compress
from theory.small_steps import small_steps

NAME = "slopes"
BITS = (2, 3, 4, 6, 8)
BLOCKS = 30  # of pairs of networks
NEAR = ("predict", "square_law", "plain_mean")  # those also drawn enlarged
FORMULAS: dict[str, dict[str, Any]] = {
    "predict": {"color": "#000000", "linestyle": "-", "marker": "o", "label": "predicted"},
    "square_law": {"color": "#0072B2", "linestyle": "--", "marker": "^", "label": "square law"},
    "plain_mean": {"color": "#009E73", "linestyle": "-.", "marker": "v", "label": "plain mean of $|z|^2$"},
    "pairwise_q": {"color": "#E69F00", "linestyle": ":", "marker": "s", "label": "sum of pairwise Q (union bound)"},
    "top_rival": {"color": "#CC79A7", "linestyle": "--", "marker": "x", "label": "top rival alone"},
    "sakr_1": {"color": "#D55E00", "linestyle": "-.", "marker": "P", "label": "Sakr et al., Chebyshev (bound)"},
    "sakr_2": {"color": "#56B4E9", "linestyle": ":", "marker": "*", "label": "Sakr et al., Chernoff (bound)"},
}


def compute(
    seed: int = 0,
    *,
    problem: tuple[int, int] = (10, 64),
    bits: Sequence[int] = BITS,
    blocks: int = BLOCKS,
    n: int = 1_000_000,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Perturbed layers, unequal priors, one step a layer. ``problem``: classes and features; ``blocks`` of pairs of networks
    for the distortion, ``n`` samples counted for the flips."""
    table, comparison = [], []
    K, d = problem
    layer = synthetic(classes=K, features=d, separation=3.5, priors="unequal", layer="perturbed", seed=seed)
    question: dict[str, Any] = dict(scheme="symmetric", bits=bits, errors="expected", seed=seed)
    steps = np.stack([compress(layer.weights, "symmetric", width).steps[:, 0] for width in bits])
    sums = average_sequences(layer, steps, seed=seed, first=0, last=blocks, points=16)
    values, errors = sums.distortion(layer.priors)
    laws = small_steps(layer, steps[-1], seed=seed)
    predictions, counted = predict(layer, budget=QUICK, **question), run(layer, n=n, **question)
    books = textbook(layer, steps, seed=seed)
    for i, (one, seen) in enumerate(zip(predictions, counted, strict=True)):
        ratio = float(steps[i, 0] / steps[-1, 0])
        table.append(
            {
                "K": K,
                "d": d,
                "bits": one.bits,
                "step": float(steps[i, 0]),
                "reference": values[i],
                "standard_error": errors[i],
                "predict": one.distortion,
                "square_law": laws.distortion.value * ratio**2,
                **books[i],
                "flips": one.flip_rate,
                "flip_law": laws.flips.value * ratio,
                "counted_flips": seen.flip_rate,
                "counted_flips_standard_error": seen.flip_rate_standard_error,
            }
        )
        known = {"predict": one.numerical_error / NORMAL_95, "square_law": laws.distortion.error / NORMAL_95 * ratio**2}
        for name in NEAR:
            cell = Cell(
                figure=NAME,
                problem=f"perturbed, K = {K}, d = {d}",
                quantity="distortion",
                K=K,
                d=d,
                scheme="symmetric",
                bits=one.bits,
                errors="expected",
                method=one.method if name == "predict" else name,
                claim="approximation",
            )
            comparison.append(row(cell, table[-1][name], values[i], errors[i], known.get(name)))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Left: distortion and flips against the step, with lines of slope 2 and 1. Middle: each formula over the simulation.
    Right: those near it; a triangle at an edge marks a ratio that lies beyond it."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(7.0, 3.7))
    bits = [one["bits"] for one in table]

    def of(name: str) -> np.ndarray:
        return np.array([one[name] for one in table], float)

    step, band = of("step"), NORMAL_95 * of("standard_error") / of("reference")
    left.plot(step, 100 * of("flip_law"), "--", color="#0072B2", label="flip law, slope 1")
    left.plot(step, 100 * of("square_law"), "-", color="#000000", label="square law, slope 2")
    flips = 100 * NORMAL_95 * of("counted_flips_standard_error")
    left.errorbar(step, 100 * of("counted_flips"), flips, label="flips, counted", **{**SIMULATION, "marker": "s"})
    left.errorbar(step, 100 * of("reference"), 100 * band * of("reference"), label="distortion, Monte Carlo", **REFERENCE)
    for name, style in FORMULAS.items():
        middle.plot(bits, of(name) / of("reference"), markersize=3.5, **style)
        if name in NEAR:
            ratios(right, np.array(bits), of(name) / of("reference"), 0.9, 1.1, markersize=3.5, **style)
    right.fill_between(bits, 1 - band, 1 + band, color="0.75", label="Monte Carlo, 95 %")
    left.set(xscale="log", yscale="log", xlabel="step (unit of the weights)", ylabel="percentage points")
    left.set_title(f"perturbed layer, K = {table[0]['K']}, d = {table[0]['d']}")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    middle.set(
        yscale="log", xlabel="bits per weight", xticks=bits, ylabel="formula / Monte Carlo", title="distortion, all formulas"
    )
    right.set(xlabel="bits per weight", xticks=bits, title="the nearest, enlarged")
    middle.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))
    return figure
