"""``simulate measure``: the distortion of a compressed layer on labelled features themselves."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulate.estimates import Decisions, counted
from theory.setting import integer
from theory.setting.features import Features
from theory.setting.plan import Plan, layers_of
from theory.setting.problem import Problem, decide
from theory.setting.question import Question
from theory.setting.record import Record, compression_fields
from theory.setting.remarks import remarks
from theory.setting.schemes import Compressed

ROWS = 65_536


def measure_layers(
    features: Features,
    subject: Problem | Features,
    asked: Question,
    plans: Sequence[Plan],
    *,
    confidence: float,
    provenance: dict[str, Any],
) -> list[Record]:
    """Count what layers compressed by these plans do to labelled features.

    Args:
        features: of the samples. subject: those, or others of the same layer, by which it is compressed (mean feature, range of
            the inputs). asked: the question.
    """
    before = decisions(features, features.weights, features.bias)
    records, weights = [], asked.of(subject).weights
    for layer in layers_of(list(plans), weights):
        seen = Decisions(features.labels, before, _after(features, subject, asked, layer), features.class_numbers)
        record = counted(seen, compression_fields(layer, features.source_bits), confidence, provenance)
        names = features.class_numbers
        said = remarks(weights, layer, features.source_bits, bias_column=asked.bias, class_numbers=names)
        records.append(replace(record, warnings=[*record.warnings, *said]))
    return records


def _after(features: Features, subject: Problem | Features, asked: Question, layer: Compressed) -> np.ndarray:
    """(n,) decisions of a layer as compressed with what the subject knows."""
    if asked.activation_bits is not None:
        codes = integer.codes(subject, features.features.astype(np.float64), asked.activation_bits)
        return decide(integer.sums(subject, layer, codes, asked.activation_bits, asked.bias_correction))
    What, bias = layer.weights, layer.weights[:, -1] if asked.bias else subject.bias
    bias = bias + asked.correction(subject, What)
    return decisions(features, What[:, : features.features.shape[1]], bias)


def decisions(features: Features, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(n,) decisions of the head with these weights and this bias, computed in float64 by blocks of rows."""
    parts = [
        decide(features.features[i : i + ROWS].astype(np.float64) @ weights.T + bias)
        for i in range(0, len(features.features), ROWS)
    ]
    return np.concatenate(parts)
