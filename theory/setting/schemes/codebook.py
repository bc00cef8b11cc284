"""Weights that share the values of a codebook.

Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding",
ICLR 2016, without the retraining.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.setting.schemes.base import Parts, Scheme, StoredShape, check_float32
from theory.setting.schemes.bit_stream import BitReader, floats, whole


def clustered(values: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """K-means of one dimension: codes of the values (n,) and 2^bits centroids, ascending.

    From linspace(min, max) Lloyd's iteration to its fixed point; a value midway between two centroids goes to the lower one, a
    centroid without values stays where it is.
    """
    if values.size == 0:
        return np.zeros(0, np.int64), np.zeros(2**bits)
    order = np.argsort(values, kind="stable")
    x = values[order]
    centroids = np.linspace(x[0], x[-1], 2**bits)
    ends = np.zeros(0, np.int64)
    while True:
        middles = centroids[:-1] + (centroids[1:] - centroids[:-1]) / 2
        new = np.concatenate([[0], np.searchsorted(x, middles, side="right"), [len(x)]])
        if np.array_equal(new, ends):
            break
        ends, counts = new, np.diff(new)
        some = counts > 0
        centroids[some] = np.add.reduceat(x, ends[:-1][some]) / counts[some]
    codes = np.empty(len(x), np.int64)
    codes[order] = np.repeat(np.arange(len(centroids)), np.diff(ends))
    return codes, centroids


@dataclass(frozen=True, kw_only=True)
class Codebook(Scheme):
    """Every weight the number of a centroid; the centroids in float32."""

    def compress(self, weights, bits, options):
        assert bits is not None  # its widths have been checked
        check_float32(weights)
        codes, centroids = clustered(weights.reshape(-1), bits)
        return {"codes": codes.reshape(weights.shape), "codebook": centroids.astype(np.float32)}

    def restore(self, parts, shape):
        return parts["codebook"].astype(np.float64)[parts["codes"]].reshape(shape)

    def bits_of(self, parts, bits):
        return {"codes": (bits or 0) * parts["codes"].size, "codebook": 32 * parts["codebook"].size}

    def encode(self, parts, bits):
        return {"codes": whole(parts["codes"], bits or 0), "codebook": floats(parts["codebook"])}

    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        centroids = stream.floats(2**stored.bits)
        return {"codebook": centroids, "codes": stream.whole(stored.count, stored.bits).reshape(stored.shape)}

    def stored_numbers(self, options: dict[str, Any]) -> tuple[int, int]:
        return 0, 0


SCHEMES = (
    Codebook(
        name="codebook", wire_id=7, summary="2^B values that the weights share, by k-means (Han et al. 2016)", bits=(1, 12)
    ),
)
