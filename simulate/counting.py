"""``simulate measure``: the distortion of a compressed layer on labelled features themselves."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from simulate.estimate import counted
from theory.setting import integer
from theory.setting.arguments import share
from theory.setting.compression import Compressed
from theory.setting.errors import InputError
from theory.setting.files import Features, features_of, read_either
from theory.setting.problem import Problem, decide
from theory.setting.question import Options, Question, question
from theory.setting.record import Record, version

ROWS = 65_536


def measure(
    features: Features | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    compressed_by: Problem | Features | Path | str | None = None,
    **options: Unpack[Options],
) -> list[Record]:
    """Count what compressing the layer does to labelled samples: no hypothesis at all, any number of classes.

    Args:
        features: labelled features or a features file.
        scheme, bits, confidence, options: as :func:`theory.predict`.
        classes: the samples and rows of these classes only.
        compressed_by: features or statistics of the same layer, or their file, whose mean feature corrects the bias, whose
            range the inputs of ``integer`` have, by which the step of ``optimal`` is chosen (default: these features).

    Returns:
        One record per width: risks, distortion with its paired standard error, flip rate, recalls. Decisions are taken in
        float64, ties go to the lowest class.

    Raises:
        InputError: a bad file or bad options, or features of another layer than the one that is compressed.
    """
    asked, confidence = question(scheme, **options), share("confidence", confidence)
    features = features_of(features).restrict(classes)
    subject = features if compressed_by is None else read_either(compressed_by).restrict(classes)
    for name in ("weights", "bias"):
        own, other = getattr(features, name), getattr(subject, name)
        if own.shape != other.shape or not np.array_equal(own, other):
            raise InputError(f"compressed_by: expected statistics or features of the same layer, got other {name}")
    before = decisions(features, features.weights)
    provenance = {"by": f"simulate.measure {version()}", "features": features.provenance}
    if compressed_by is not None:
        provenance["compressed_by"] = subject.provenance
    records = []
    for layer in asked.layers(asked.of(subject), bits):
        after = _after(features, subject, asked, layer)
        records.append(
            counted(features.labels, before, after, features.classes, layer, features.source_bits, confidence, provenance)
        )
    return records


def _after(features: Features, subject: Problem | Features, asked: Question, layer: Compressed) -> np.ndarray:
    """(n,) decisions of a layer as compressed with what the subject knows."""
    if asked.activation_bits is not None:
        codes = integer.codes(subject, features.features.astype(np.float64), asked.activation_bits)
        return decide(integer.sums(subject, layer, codes, asked.activation_bits, asked.bias_correction))
    full, What, bias = subject.weights, layer.weights, subject.bias
    if asked.bias:
        full, bias = np.concatenate([full, bias[:, None]], 1), What[:, -1]
    bias = bias + (full - What) @ asked.origin(subject)
    return decisions(replace(features, bias=bias), What[:, : features.features.shape[1]])


def decisions(features: Features, weights: np.ndarray) -> np.ndarray:
    """(n,) decisions of the head with these weights and the bias as held, computed in float64 by blocks of rows."""
    parts = [
        decide(features.features[i : i + ROWS].astype(np.float64) @ weights.T + features.bias)
        for i in range(0, len(features.features), ROWS)
    ]
    return np.concatenate(parts)
