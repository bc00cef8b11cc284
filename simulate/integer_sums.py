"""Counting by integer arithmetic: full feature vectors, their codes, sums of products of codes; one network or many."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulate.counting import decisions
from simulate.estimate import counted
from simulate.sampler import draw
from theory.setting import integer
from theory.setting.compression import Compressed
from theory.setting.door import progress
from theory.setting.files import Features
from theory.setting.problem import Problem, decide
from theory.setting.record import Record

CHUNK = 2**15  # samples drawn at once
EACH = 256  # samples a network


def integer_pairs(
    problem: Problem,
    layers: Sequence[Compressed],
    *,
    activation_bits: int,
    corrected: bool,
    errors: str,
    n: int,
    confidence: float,
    seed: int,
    provenance: dict[str, Any],
) -> list[Record]:
    """The records of n samples (whole chunks) of a Gaussian problem through the clean layer and the integer ones; all layers
    see the same samples. ``errors="expected"``: a random layer W + E of the step for every EACH samples, in floating point on
    the quantized inputs; the standard error is then that over networks."""
    labels, before = [], []
    after: list[list[np.ndarray]] = [[] for _ in layers]
    for i in progress(range(math.ceil(n / CHUNK)), what="sampling", unit="chunk"):
        rng = np.random.default_rng([seed, i])
        z, y = draw(problem, CHUNK, rng)
        features = Features(features=z, labels=y, weights=problem.weights, bias=problem.bias)
        labels.append(y.astype(np.int32))
        before.append(decisions(features, problem.weights).astype(np.int32))
        codes = integer.codes(problem, z, activation_bits)
        for found, layer in zip(after, layers, strict=True):
            if errors == "actual":
                found.append(decide(integer.sums(problem, layer, codes, activation_bits, corrected)).astype(np.int32))
            else:
                found.append(_networks(problem, layer, codes, activation_bits, corrected, rng).astype(np.int32))
    y, clean = np.concatenate(labels), np.concatenate(before)
    records = []
    for found, layer in zip(after, layers, strict=True):
        record = counted(y, clean, np.concatenate(found), problem.classes, layer, problem.source_bits, confidence, provenance)
        records.append(replace(record, errors=errors, method="integer_sums"))
    if errors == "actual":
        return records
    return [_over_networks(record, y, clean, np.concatenate(found)) for record, found in zip(records, after, strict=True)]


def _networks(problem, layer, codes, activation_bits, corrected, rng) -> np.ndarray:
    """Decisions of random layers, one for every EACH samples."""
    u, zbar = codes * integer.input_grid(problem, activation_bits)[0], problem.mean_feature
    out = np.empty(len(u), np.int64)
    for first in range(0, len(u), EACH):
        some = slice(first, first + EACH)
        What = problem.weights + layer.steps[:, None] * (rng.random(problem.weights.shape) - 0.5)
        bias = problem.bias + ((problem.weights - What) @ zbar if corrected else 0.0)
        out[some] = decide(u[some] @ What.T + bias)
    return out


def _over_networks(record: Record, labels: np.ndarray, before: np.ndarray, after: np.ndarray) -> Record:
    shift = ((after != labels).astype(float) - (before != labels)).reshape(-1, EACH).mean(1)
    flips = (after != before).reshape(-1, EACH).mean(1)
    errors = [float(x.std(ddof=1) / np.sqrt(len(x))) for x in (shift, flips)]
    half = (record.interval[1] - record.interval[0]) / 2 * errors[0] / max(record.standard_error or 0.0, 1e-300)
    return replace(
        record,
        standard_error=errors[0],
        flip_rate_standard_error=errors[1],
        interval=(record.distortion - half, record.distortion + half),
    )
