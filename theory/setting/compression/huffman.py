"""Canonical Huffman codes: D. A. Huffman, Proc. IRE 40 (1952) 1098; the lengths alone tell the code."""

import heapq

import numpy as np


def lengths(counts: np.ndarray) -> np.ndarray:
    """Code length of each symbol (n,), from how often it comes; 0 where it does not. One that comes alone has the length 1 as
    a mark, and takes no bit."""
    heap = [(int(counts[i]), int(i), [int(i)]) for i in np.flatnonzero(counts)]
    out = np.zeros(len(counts), np.int64)
    if len(heap) == 1:
        out[heap[0][2]] = 1
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, i, one), (b, _, other) = heapq.heappop(heap), heapq.heappop(heap)
        out[one + other] += 1
        heapq.heappush(heap, (a + b, i, one + other))
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
    """The bits (m,) of a sequence of symbols, as 0 and 1."""
    known, words = _words(lengths)
    if len(known) < 2:
        return np.zeros(0, np.uint8)
    word = np.zeros(len(lengths), np.int64)
    word[known] = words
    each = lengths[symbols]
    starts = np.cumsum(each) - each
    out = np.zeros(int(each.sum()), np.uint8)
    for j in range(int(lengths.max())):
        some = each > j
        out[starts[some] + j] = (word[symbols[some]] >> (each[some] - 1 - j)) & 1
    return out


def decode(bits: np.ndarray, lengths: np.ndarray, count: int, *, uncounted: int | None = None) -> tuple[np.ndarray, int]:
    """The first symbols, up to ``count`` of them other than ``uncounted``, and how many bits they took."""
    known, words = _words(lengths)
    if count == 0 or len(known) < 2:
        return np.repeat(known, count) if count else np.zeros(0, np.int64), 0
    longest = int(lengths.max())
    padded = np.concatenate([bits, np.zeros(longest, bits.dtype)]).astype(np.int64)
    window = np.zeros(len(bits), np.int64)  # the next bits at each place, as an integer
    for j in range(longest):
        window = 2 * window + padded[j : j + len(bits)]
    found = known[np.searchsorted(words << (longest - lengths[known]), window, side="right") - 1]
    ahead, symbols = lengths[found].tolist(), found.tolist()
    out, at = [], 0
    while count:
        symbol = symbols[at]
        out.append(symbol)
        at += ahead[at]
        count -= symbol != uncounted
    return np.array(out, np.int64), at
