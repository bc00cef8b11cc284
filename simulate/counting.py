"""``simulate measure``: the distortion of a compressed layer on labelled features themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np

from simulate.estimate import counted
from theory.setting import integer
from theory.setting.arguments import share
from theory.setting.files import Features, features_of
from theory.setting.problem import decide
from theory.setting.question import Options, question
from theory.setting.record import Record, version

ROWS = 65_536


def measure(
    features: Features | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    **options: Unpack[Options],
) -> list[Record]:
    """Count what compressing the layer does to labelled samples: no hypothesis at all, any number of classes.

    Args:
        features: labelled features or a features file.
        scheme, bits, confidence, options: as :func:`theory.predict`.
        classes: the samples and rows of these classes only.

    Returns:
        One record per width: risks, distortion with its paired standard error, flip rate, recalls. Decisions are taken in
        float64, ties go to the lowest class.

    Raises:
        InputError: a bad file or bad options.
    """
    asked, confidence = question(scheme, **options), share("confidence", confidence)
    features = asked.of(features_of(features).restrict(classes))
    before = decisions(features, features.weights)
    provenance = {"by": f"simulate.measure {version()}", "features": features.provenance}
    records = []
    codes = None
    if asked.activation_bits is not None:
        codes = integer.codes(features, features.features.astype(np.float64), asked.activation_bits)
    for layer in asked.layers(features, bits):
        if codes is None or asked.activation_bits is None:
            after = decisions(features, layer.weights)
        else:
            after = decide(integer.sums(features, layer, codes, asked.activation_bits, asked.bias_correction))
        records.append(
            counted(features.labels, before, after, features.classes, layer, features.source_bits, confidence, provenance)
        )
    return records


def decisions(features: Features, weights: np.ndarray) -> np.ndarray:
    """(n,) decisions of the head with these weights and the bias as held, computed in float64 by blocks of rows."""
    parts = [
        decide(features.features[i : i + ROWS].astype(np.float64) @ weights.T + features.bias)
        for i in range(0, len(features.features), ROWS)
    ]
    return np.concatenate(parts)
