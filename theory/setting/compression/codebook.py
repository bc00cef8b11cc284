"""Weights that share the values of a codebook, and the code of Deep Compression.

Han, Mao, Dally, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and Huffman Coding",
ICLR 2016, without the retraining.
"""

import numpy as np

RUN_BITS = 5  # of a run of zeros: 2^5 symbols, the last an escape for 31 zeros with no weight after them


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


def runs(stay: np.ndarray) -> np.ndarray:
    """The zeros before each weight that stays, in C order, as symbols: 0 to 2^R - 2 zeros and a weight, or an escape.

    The zeros after the last weight need no symbol: how many weights stay is known.
    """
    escape = 2**RUN_BITS - 1
    places = np.flatnonzero(stay.reshape(-1))
    zeros = np.diff(np.concatenate([[-1], places])) - 1
    symbols = np.full(int(np.sum(zeros // escape)) + len(zeros), escape, np.int64)
    symbols[np.cumsum(zeros // escape + 1) - 1] = zeros % escape
    return symbols


def places(symbols: np.ndarray, size: int) -> np.ndarray:
    """(size,) where weights stay: the inverse of :func:`runs`."""
    escape = 2**RUN_BITS - 1
    stay = np.zeros(size, bool)
    ends = np.cumsum(np.where(symbols == escape, escape, symbols + 1)) - 1
    stay[ends[symbols != escape]] = True
    return stay
