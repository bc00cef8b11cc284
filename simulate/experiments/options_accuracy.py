"""``python -m simulate.experiments.options_accuracy``: expected distortion of bias-corrected layers and of integer arithmetic
against brute force, and what a wrong account of either would say.

Reference: full feature vectors, inputs quantized where asked, a random layer for every EACH of them, decisions counted. And as
controls: ``independent``, the noise of the inputs drawn for each class apart; ``floor``, weights rounded down.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulate.generator import synthetic
from simulate.sampling.paired_counting import draw
from theory.prediction import predict
from theory.setting import integer
from theory.setting.command_line import progress, rows_command
from theory.setting.problem import Problem, decide
from theory.setting.question import question

SAMPLES = 2**25
CHUNK, EACH = 2**15, 256
BITS = (2, 3, 4)
PROBLEMS = ((2, 16), (2, 64), (10, 64))
LEVEL = 1.0  # mean of every feature: without one there is nothing to correct
SYMMETRIC: dict[str, Any] = {"scheme": "symmetric", "bias_correction": True}
INTEGER: dict[str, Any] = {"scheme": "integer"}
CELLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("honest", SYMMETRIC),
    ("honest", SYMMETRIC | {"per_channel": True}),
    *(
        ("honest", INTEGER | {"activation_bits": width, "bias_correction": corrected})
        for width in (4, 8)
        for corrected in (False, True)
    ),
    ("honest", INTEGER | {"activation_bits": 4, "bias_correction": True, "per_channel": True}),
    ("independent", INTEGER | {"activation_bits": 4, "bias_correction": True, "per_channel": True}),
    ("floor", SYMMETRIC | {"per_channel": True}),
)


def problem_of(K: int, d: int, *, seed: int) -> Problem:
    """A perturbed layer of features that are LEVEL in the mean, as after a rectifier."""
    problem = synthetic(classes=K, features=d, separation=3.5 if K > 2 else 2.0, layer="perturbed", seed=seed)
    assert problem.feature_range is not None  # a synthetic problem has one
    bias = problem.bias - LEVEL * problem.weights.sum(1)
    return replace(problem, means=problem.means + LEVEL, bias=bias, feature_range=problem.feature_range + LEVEL)


def options_accuracy(*, samples: int = SAMPLES, seed: int = 0) -> list[dict[str, Any]]:
    """A row per problem, way of counting, options and width."""
    rows = []
    for K, d in PROBLEMS:
        problem = problem_of(K, d, seed=seed)
        counts = counted(problem, CELLS, samples, seed=seed + 1)
        for (how, options), values in zip(CELLS, counts, strict=True):
            said = predict(problem, bits=BITS, errors="expected", seed=seed, **options)
            for record, (value, error) in zip(said, values, strict=True):
                row = {"K": K, "d": d, "counted_as": how, "scheme": record.scheme, "granularity": record.granularity}
                row |= {"activation_bits": options.get("activation_bits"), "corrected": options["bias_correction"]}
                row |= {"bits": record.bits, "method": record.method, "predicted": record.distortion}
                row |= {"numerical_error": record.numerical_error, "counted": float(value), "standard_error": float(error)}
                rows.append(row | {"ratio": record.distortion / float(value)})
    return rows


def counted(
    problem: Problem, cells: Sequence[tuple[str, dict[str, Any]]], samples: int, *, seed: int, bits: Sequence[int] = BITS
) -> np.ndarray:
    """(cells, widths, 2) distortions and their standard errors over networks; all cells see the same feature vectors.

    Args:
        problem: two rows or more. cells: how to count (``honest``, ``independent``, ``floor``) and the options of
            :func:`theory.predict`. samples: whole chunks of them.
    """
    W, b, zbar, d = problem.weights, problem.bias, problem.mean_feature, problem.features
    plans = [[plan.layer for plan in question(**options).plans(bits)] for _, options in cells]
    steps = [[plan.compress(W).steps[:, 0] for plan in row] for row in plans]
    sums, chunks = np.zeros((2, len(cells), len(bits))), max(1, samples // CHUNK)
    for i in progress(range(chunks), total=chunks, what=f"K = {problem.classes}, d = {d}", unit="chunk"):
        rng = np.random.default_rng([seed, i])
        z, y = draw(problem, CHUNK, rng)
        wrong = decide(z @ W.T + b) != y
        inputs = {width: _quantized(problem, z, width) for width in {o.get("activation_bits") for _, o in cells}}
        for j, (how, options) in enumerate(cells):
            width, apart = options.get("activation_bits"), np.zeros(len(W))
            if how == "independent":
                apart = integer.input_grid(problem, width or 0)[0] / np.sqrt(12) * np.linalg.norm(W, axis=1)
                apart = apart * rng.standard_normal((CHUNK, len(W)))
            u, clean = inputs[width].reshape(-1, EACH, d), (z if how == "independent" else inputs[width]) @ W.T
            for k, step in enumerate(steps[j]):
                E = step[:, None] * (rng.random((len(u), *W.shape)) - (1.0 if how == "floor" else 0.5))
                bias = b - (E @ zbar if options["bias_correction"] else np.zeros((len(u), 1)))
                logits = u @ E.transpose(0, 2, 1) + bias[:, None]
                after = decide(logits.reshape(CHUNK, -1) + clean + apart) != y
                shift = (after.astype(float) - wrong).reshape(-1, EACH).mean(1)
                sums[:, j, k] += shift.sum(), np.sum(shift**2)
    networks = chunks * CHUNK // EACH
    mean, square = sums / networks
    return np.stack([mean, np.sqrt((square - mean**2) / networks)], -1)


def _quantized(problem: Problem, z: np.ndarray, width: int | None) -> np.ndarray:
    return z if width is None else integer.codes(problem, z, width) * integer.input_grid(problem, width)[0]


if __name__ == "__main__":
    sys.exit(rows_command("simulate.experiments.options_accuracy", __doc__, options_accuracy, None))
