"""Deep Compression: prune, share values, and code both indices and runs of zeros by Huffman's algorithm.

Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding",
ICLR 2016, without the retraining.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes import huffman
from theory.setting.schemes.base import Parts, Scheme, StoredShape, check_float32
from theory.setting.schemes.bit_stream import BitReader, floats, whole
from theory.setting.schemes.codebook import clustered
from theory.setting.schemes.pruning import SPARSITY, kept

RUN_BITS = 5  # of a run of zeros: 2^5 symbols, the last an escape for 31 zeros with no weight after them
ESCAPE = 2**RUN_BITS - 1


def runs(stay: np.ndarray) -> np.ndarray:
    """The zeros before each weight that stays, in C order, as symbols: 0 to 2^R - 2 zeros and a weight, or an escape.

    The zeros after the last weight need no symbol: how many weights stay is known.
    """
    positions = np.flatnonzero(stay.reshape(-1))
    zeros = np.diff(np.concatenate([[-1], positions])) - 1
    symbols = np.full(int(np.sum(zeros // ESCAPE)) + len(zeros), ESCAPE, np.int64)
    symbols[np.cumsum(zeros // ESCAPE + 1) - 1] = zeros % ESCAPE
    return symbols


def positions_of(symbols: np.ndarray, size: int) -> np.ndarray:
    """(size,) where weights stay: the inverse of :func:`runs`."""
    stay = np.zeros(size, bool)
    ends = np.cumsum(np.where(symbols == ESCAPE, ESCAPE, symbols + 1)) - 1
    if len(ends) and ends[-1] >= size:
        raise InputError(f"expected runs of zeros within {size} weights, got some up to {ends[-1] + 1}")
    stay[ends[symbols != ESCAPE]] = True
    return stay


@dataclass(frozen=True, kw_only=True)
class DeepCompression(Scheme):
    """Codes of the weights that stay, their centroids, the runs of zeros between them, and the code lengths of both."""

    def compress(self, weights, bits, options):
        assert bits is not None  # its widths have been checked
        check_float32(weights)
        stay = kept(weights, options.get("sparsity", 0.0))
        codes, centroids = clustered(weights[stay], bits)
        symbols = runs(stay)
        return {
            "positions": stay,
            "codes": codes,
            "codebook": centroids.astype(np.float32),
            "runs": symbols,
            "code_lengths": huffman.code_lengths(np.bincount(codes, minlength=2**bits)),
            "run_lengths": huffman.code_lengths(np.bincount(symbols, minlength=2**RUN_BITS)),
        }

    def restore(self, parts, shape):
        What = np.zeros(shape)
        What[parts["positions"]] = parts["codebook"].astype(np.float64)[parts["codes"]]
        return What

    def bits_of(self, parts, bits):
        return {
            "codes": huffman.size(parts["codes"], parts["code_lengths"]),
            "positions": huffman.size(parts["runs"], parts["run_lengths"]),
            "tables": 8 * (len(parts["code_lengths"]) + len(parts["run_lengths"])),
            "codebook": 32 * parts["codebook"].size,
        }

    def encode(self, parts, bits):
        return {
            "tables": whole(np.concatenate([parts["code_lengths"], parts["run_lengths"]]), 8),
            "codebook": floats(parts["codebook"]),
            "codes": huffman.encode(parts["codes"], parts["code_lengths"]),
            "positions": huffman.encode(parts["runs"], parts["run_lengths"]),
        }

    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        code_lengths, run_lengths = stream.whole(2**stored.bits, 8), stream.whole(2**RUN_BITS, 8)
        centroids = stream.floats(2**stored.bits)
        codes = huffman.decode(stream, code_lengths, stored.survivors)
        symbols = huffman.decode(stream, run_lengths, stored.survivors, uncounted=ESCAPE)
        stay = positions_of(symbols, stored.count).reshape(stored.shape)
        return {"codebook": centroids, "codes": codes, "positions": stay}

    def stored_numbers(self, options: dict[str, Any]) -> tuple[int, int]:
        return 0, 0


SCHEMES = (
    DeepCompression(
        name="deep-compression",
        wire_id=8,
        summary="prune, codebook, and Huffman code of both (Han et al. 2016, no retraining)",
        bits=(1, 12),
        options=(SPARSITY,),
    ),
)
