"""``simulate compress`` and ``decompress``: the compressed layer as stored bytes, and back."""

from pathlib import Path
from typing import Any

import numpy as np

from theory.setting import integer, stored_layer
from theory.setting.archive import check_place, check_readable, write_arrays, write_whole
from theory.setting.features import Features
from theory.setting.plan import Plan
from theory.setting.problem import Problem
from theory.setting.question import Question


def write_layer(given: Problem | Features, asked: Question, plan: Plan, out: Path | str) -> dict[str, Any]:
    """Write the layer compressed by a plan: ceil(sum of the rate breakdown / 8) bytes of the layer, the bias (corrected where
    asked for) as 4 bytes a row, and a header of 52 bytes.

    Returns:
        ``out``, ``bytes`` and what they are: ``layer_bytes``, ``bias_bytes``, ``header_bytes``; ``rate``, ``rate_breakdown``.
    """
    layer = plan.layer.compress(asked.of(given).weights)
    bias, step = layer.weights[:, -1] if asked.bias else given.bias, 0.0
    if asked.activation_bits is None:
        bias = bias + asked.correction(given, layer.weights)
    else:
        bias = integer.whole_bias(given, layer, asked.activation_bits, asked.bias_correction)
        step, _ = integer.input_grid(given, asked.activation_bits)
    data = stored_layer.encode(layer, bias, bias_column=asked.bias, input_step=step)
    write_whole(out, lambda file: file.write(data))
    parts = {"bias_bytes": 4 * len(bias), "header_bytes": stored_layer.HEADER.size}
    return {
        "out": str(out),
        "bytes": len(data),
        "layer_bytes": len(data) - sum(parts.values()),
        **parts,
        "rate": layer.rate,
        "rate_breakdown": layer.rate_breakdown,
    }


def decompress(source: Path | str, *, out: Path | str | None = None) -> dict[str, np.ndarray]:
    """Read such a file.

    Returns:
        ``weights`` (K, d) float64, the very What, and ``bias`` (K,) float64; written to ``out``, an .npz, where one is given.

    Raises:
        InputError: no such file, or damaged.
    """
    path = check_readable(source, "a file written by compress")
    if out is not None:
        check_place(out, ".npz", reads=[source])
    weights, bias = stored_layer.decode(path.read_bytes(), str(path))
    arrays = {"weights": weights, "bias": bias}
    if out is not None:
        write_arrays(out, arrays)
    return arrays
