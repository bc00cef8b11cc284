"""Canonical Huffman codes: D. A. Huffman, Proc. IRE 40 (1952) 1098; the lengths alone tell the code."""

import heapq

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes.bit_stream import BitReader

LONGEST = 62  # bits of a code word, which 64-bit integers hold


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """Code length in bits of each symbol, (n,) int64, from how often it comes, (n,) int64; 0 where it does not. One that comes
    alone has the length 1 as a mark, and takes no bit."""
    heap = [(int(counts[i]), int(i), [int(i)]) for i in np.flatnonzero(counts)]
    out = np.zeros(len(counts), np.int64)
    if len(heap) == 1:
        out[heap[0][2]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, these), (b, _, those) = heapq.heappop(heap), heapq.heappop(heap)
        out[these + those] += 1
        heapq.heappush(heap, (a + b, i, these + those))
    return out


def _words(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols that come, shorter codes first and of one length in order, and their code words."""
    symbols = np.flatnonzero(lengths)
    symbols = symbols[np.argsort(lengths[symbols], kind="stable")]
    words = np.zeros(len(symbols), np.int64)
    for i in range(1, len(symbols)):
        words[i] = (words[i - 1] + 1) << (lengths[symbols[i]] - lengths[symbols[i - 1]])
    return symbols, words


def size(symbols: np.ndarray, lengths: np.ndarray) -> int:
    """How many bits :func:`encode` makes."""
    return int(lengths[symbols].sum()) if np.count_nonzero(lengths) > 1 else 0


def encode(symbols: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The bits (m,) uint8 of a sequence of symbols (n,) int64, as 0 and 1.

    Raises:
        InputError: a symbol without a code word, or code words longer than LONGEST.
    """
    known, words = _words(_checked(lengths))
    if not np.all(lengths[symbols]):
        raise InputError(f"symbols: expected only those with a code word, got {symbols[lengths[symbols] == 0][0]}")
    if len(known) < 2:
        return np.zeros(0, np.uint8)
    word = np.zeros(len(lengths), np.int64)
    word[known] = words
    each = lengths[symbols]
    starts = np.cumsum(each) - each
    out = np.zeros(int(each.sum()), np.uint8)
    for j in range(int(lengths.max())):
        longer = each > j
        out[starts[longer] + j] = (word[symbols[longer]] >> (each[longer] - 1 - j)) & 1
    return out


def decode(stream: BitReader, lengths: np.ndarray, count: int, *, uncounted: int | None = None) -> np.ndarray:
    """The next symbols of a stream, int64, until ``count`` of them are other than ``uncounted``, which are returned too; the
    stream moves on behind them.

    Raises:
        InputError: lengths that are no Huffman code's, or a stream that ends before the last symbol.
    """
    known, words = _words(_checked(lengths))
    if count == 0:
        return np.zeros(0, np.int64)
    if len(known) < 2:
        if not len(known) or known[0] == uncounted:
            raise InputError(f"expected a code for {count} symbols, got none")
        return np.repeat(known, count)
    bits, longest = stream.bits[stream.position :], int(lengths.max())
    padded = np.concatenate([bits, np.zeros(longest, bits.dtype)]).astype(np.int64)
    window = np.zeros(len(bits), np.int64)  # the next bits at each position, as an integer
    for j in range(longest):
        window = 2 * window + padded[j : j + len(bits)]
    symbol_at = known[np.searchsorted(words << (longest - lengths[known]), window, side="right") - 1]
    ahead, symbols = lengths[symbol_at].tolist(), symbol_at.tolist()
    found, position = [], 0
    while count:
        if position >= len(symbols):
            raise InputError(f"expected {count} more symbols, got the end of the bits")
        symbol = symbols[position]
        found.append(symbol)
        position += ahead[position]
        count -= symbol != uncounted
    stream.take(position)
    return np.array(found, np.int64)


def _checked(lengths: np.ndarray) -> np.ndarray:
    """The lengths, refused unless they are those of a complete prefix code (Kraft's equality), or of one symbol or none."""
    present = lengths[lengths > 0]
    if len(present) > 1 and (present.max() > LONGEST or sum(2 ** (LONGEST - int(x)) for x in present) != 2**LONGEST):
        raise InputError("expected the lengths of a Huffman code, got others")
    return lengths
