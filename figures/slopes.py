"""Random layers of ten classes: the two laws of small steps, and every formula for the expected distortion over
conditional Monte Carlo."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures.compare import row
from figures.style import REFERENCE, SIMULATION
from simulate.experiments.textbook import textbook
from simulate.generator import synthetic
from simulate.monte_carlo import run
from simulate.sequential import average_sequences
from theory.laws import small_steps
from theory.prediction import predict
from theory.setting.compression import compress

NAME = "slopes"
PROBLEMS, BITS = ((10, 64),), (2, 4, 8)
BLOCKS = {10: 30}  # of pairs of networks
FORMULAS: dict[str, dict[str, Any]] = {
    "predict": {"color": "#000000", "linestyle": "-", "marker": "o", "label": "predicted"},
    "square_law": {"color": "#0072B2", "linestyle": "--", "marker": "^", "label": "square law"},
    "plain_mean": {"color": "#009E73", "linestyle": "-.", "marker": "v", "label": "plain mean of $|z|^2$"},
    "pairwise_q": {"color": "#E69F00", "linestyle": ":", "marker": "s", "label": "sum of pairwise Q (union bound)"},
    "top_rival": {"color": "#CC79A7", "linestyle": "--", "marker": "x", "label": "top rival alone"},
    "sakr_1": {"color": "#D55E00", "linestyle": "-.", "marker": "P", "label": "Sakr et al., Chebyshev (bound)"},
    "sakr_2": {"color": "#56B4E9", "linestyle": ":", "marker": "*", "label": "Sakr et al., Chernoff (bound)"},
}


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Perturbed layers, unequal priors, one step a layer."""
    table, comparison = [], []
    for K, d in PROBLEMS:
        problem = synthetic(classes=K, features=d, separation=3.5, priors="unequal", layer="perturbed", seed=seed)
        question: dict[str, Any] = dict(scheme="symmetric", bits=BITS, errors="expected", seed=seed)
        steps = np.stack([compress(problem.weights, "symmetric", width).steps for width in BITS])
        sums = average_sequences(problem, steps, seed=seed, first=0, last=BLOCKS[K], points=16)
        values, errors = sums.distortion(problem.priors)
        laws = small_steps(problem, steps[-1], seed=seed)
        predictions, counted = predict(problem, **question), run(problem, n=1_000_000, **question)
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
                    **textbook(problem, steps[i], seed=seed),
                    "flips": one.flip_rate,
                    "flip_law": laws.flips.value * ratio,
                    "counted_flips": seen.flip_rate,
                    "counted_flips_standard_error": seen.flip_rate_standard_error,
                }
            )
            for name, method in (("predict", one.method), ("square_law", "square_law"), ("plain_mean", "plain_mean")):
                comparison.append(
                    row(
                        NAME,
                        f"perturbed, K = {K}, d = {d}",
                        "distortion",
                        K,
                        d,
                        "symmetric",
                        one.bits,
                        "expected",
                        method,
                        "approximation",
                        table[-1][name],
                        values[i],
                        errors[i],
                    )
                )
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """Above: distortion and flips against the step with lines of slope 2 and 1. Below: each formula over the simulation."""
    figure, axes = plt.subplots(2, len(PROBLEMS), figsize=(4.6, 5.6), sharey="row", squeeze=False)
    for above, below, (K, d) in zip(*axes, PROBLEMS, strict=True):
        rows = [one for one in table if one["K"] == K]
        step, bits = np.array([one["step"] for one in rows]), [one["bits"] for one in rows]

        def of(name: str, rows=rows) -> np.ndarray:
            return np.array([one[name] for one in rows], float)

        above.plot(step, 100 * of("flip_law"), "--", color="#0072B2", label="flip law, slope 1")
        above.plot(step, 100 * of("square_law"), "-", color="#000000", label="square law, slope 2")
        above.errorbar(
            step,
            100 * of("counted_flips"),
            196 * of("counted_flips_standard_error"),
            label="flips, counted",
            **{**SIMULATION, "marker": "s"},
        )
        above.errorbar(
            step, 100 * of("reference"), 196 * of("standard_error"), label="distortion, conditional Monte Carlo", **REFERENCE
        )
        for name, style in FORMULAS.items():
            below.plot(bits, of(name) / of("reference"), markersize=3.5, **style)
        below.fill_between(
            bits,
            1 - 1.96 * of("standard_error") / of("reference"),
            1 + 1.96 * of("standard_error") / of("reference"),
            color="0.8",
            label="Monte Carlo, 95 %",
        )
        above.set(xscale="log", yscale="log", xlabel="step (units of the weights)", title=f"K = {K}, d = {d}")
        below.set(yscale="log", xlabel="bits per weight", xticks=bits, ylim=(0.25, 400))
    axes[0, 0].set_ylabel("percentage points")
    axes[1, 0].set_ylabel("formula / Monte Carlo")
    axes[0, 0].legend(loc="lower right")
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
