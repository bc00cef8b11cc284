"""``simulate compress`` and ``decompress``: the compressed layer as stored bytes, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from theory.setting import integer
from theory.setting.compression import codec
from theory.setting.errors import InputError
from theory.setting.files import Features, read_either, write_arrays, write_whole
from theory.setting.problem import Problem
from theory.setting.question import Options, question


def compress(
    source: Problem | Features | Path | str,
    *,
    scheme: str,
    out: Path | str,
    bits: int | Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """Write the compressed layer of a features or statistics file.

    The file holds ceil(sum of the rate breakdown / 8) bytes of the layer, the bias (corrected where asked for) as 4 bytes a
    row, and a header of 52 bytes.

    Args:
        source: features, a problem, or their file. scheme, classes, options: as :func:`theory.predict`. bits: one width.
        out: the file to write.

    Returns:
        ``out``, ``bytes`` and what they are: ``layer_bytes``, ``bias_bytes``, ``header_bytes``; ``rate``, ``rate_breakdown``.

    Raises:
        InputError: a bad file, bad options, or values float32 cannot hold.
    """
    _apart(source, out)
    asked = question(scheme, **options)
    given = read_either(source).restrict(classes)
    subject = asked.of(given)
    layers = asked.layers(subject, [bits] if isinstance(bits, int) else bits)
    if len(layers) > 1:
        raise InputError(f"bits: expected one width for one file, got {len(layers)}")
    layer = layers[0]
    bias, step = layer.weights[:, -1] if asked.bias else given.bias, 0.0
    bias = bias + (subject.weights - layer.weights) @ asked.origin(given)
    if asked.activation_bits is not None:
        bias = integer.whole_bias(given, layer, asked.activation_bits, asked.bias_correction)
        step, _ = integer.input_grid(given, asked.activation_bits)
    data = codec.encode(layer, bias, bias_column=asked.bias, input_step=step)
    write_whole(out, lambda file: file.write(data))
    parts = {"bias_bytes": 4 * len(bias), "header_bytes": codec.HEADER.size}
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
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: expected a file written by compress, found none")
    _apart(source, out)
    weights, bias = codec.decode(path.read_bytes(), str(path))
    arrays = {"weights": weights, "bias": bias}
    if out is not None:
        write_arrays(out, arrays)
    return arrays


def _apart(source: object, out: Path | str | None) -> None:
    """Refuse to write over what is read."""
    if out is not None and isinstance(source, Path | str) and Path(out).exists() and Path(out).samefile(source):
        raise InputError(f"out: expected another file than the one that is read, got {out}")
