"""``python -m simulate.experiments.quantizers``: actual quantizers of few bits under the uniform and the adapted error model.

The distortion of the layer as quantized, counted on points of synthetic problems, less the mean of random layers on the same
points, over the standard deviation of one of them. Columns: the same problems with input features of unequal scales (standard
deviations exp N(0, 1)), which change nothing of the clean layer and much of the quantized one.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from theory.error_model import ErrorModel, adapted, uniform
from theory.integrals import logit_noise
from theory.setting.command_line import progress, rows_command
from theory.setting.error_law import independent_errors
from theory.setting.features import Features
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, decide
from theory.setting.schemes import UNIFORM, compress

CLASSES, POINTS = 10, 2**13
KINDS = ("plain", "columns")


@in_float64
def scores(
    *,
    problems: int = 24,
    features: int = 64,
    kinds: Sequence[str] = KINDS,
    schemes: Sequence[str] = UNIFORM,
    bits: Sequence[int] = (2, 3),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row per kind, scheme, granularity, width and error model: mean and deviation of z, mean predicted distortion over the
    mean actual one."""
    rows = []
    cells = list(itertools.product(kinds, schemes, (False, True), bits))
    for kind, scheme, channel, width in progress(cells, what="quantizing", unit="cell"):
        found: dict[str, list[tuple[float, float, float]]] = {"uniform": [], "adapted": []}
        for i in range(problems):
            problem = _problem(kind, features, seed + i)
            z, y = draw(problem, POINTS, np.random.default_rng([seed, i]))
            points = Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)
            layer = compress(problem.weights, scheme, width, per_channel=channel)
            right = [np.mean(decide(z @ W.T + problem.bias) == y) for W in (problem.weights, layer.weights)]
            models = {
                "uniform": uniform(problem.weights, independent_errors(layer.steps)),
                "adapted": adapted(problem.weights, layer),
            }
            for name, model in models.items():
                found[name].append((right[0] - right[1], *_law(points, model, seed)))
        for name, values in found.items():
            actual, mean, deviation = np.array(values).T
            z_scores = (actual - mean) / deviation
            row = {"kind": kind, "scheme": scheme, "granularity": "channel" if channel else "tensor", "bits": width}
            row |= {"model": name, "mean_z": float(z_scores.mean()), "deviation_z": float(z_scores.std(ddof=1))}
            rows.append(row | {"actual": float(actual.mean()), "ratio": float(mean.mean() / actual.mean())})
    return rows


def _problem(kind: str, d: int, seed: int) -> Problem:
    problem = synthetic(classes=CLASSES, features=d, separation=3.5, layer="optimal", seed=seed)
    if kind == "plain":
        return problem
    scale = np.exp(np.random.default_rng([seed, 1]).standard_normal(d))
    covariances = problem.covariances / np.outer(scale, scale)
    return replace(problem, weights=problem.weights * scale, means=problem.means / scale, covariances=covariances)


def _law(points: Features, model: ErrorModel, seed: int) -> tuple[float, float]:
    """Mean distortion of random layers on these points, and the standard deviation of one of them, counted on the points."""
    average = logit_noise.expected(points, model, seed=seed)
    networks = average.networks
    priors = np.bincount(points.labels, minlength=points.classes) / len(points.labels)
    counting = max(float(np.mean(average.changed - networks**2)) / len(points.labels) - average.variance, 0.0)
    return float(average.distortion @ priors), float(np.sqrt(networks.var() + counting))


if __name__ == "__main__":
    sys.exit(rows_command("simulate.experiments.quantizers", __doc__, scores, None))
