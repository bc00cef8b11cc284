"""Uniform scalar quantizers: one step D a tensor or a row, in float64, then rounded to float32 as it would be stored.

Round to nearest, ties to even; q from W / D in float64; What = D q. Range zero gives D = 0 and What = 0.
Affine: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 2.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Uniform(NamedTuple):
    """A quantizer: its function (weights, bits, axis) -> (What, step), its widths, whether it stores a zero point."""

    function: Callable[[np.ndarray, int, int | None], tuple[np.ndarray, np.ndarray]]
    bits: tuple[int, int]
    zero_point: bool


def _stored(step: np.ndarray) -> np.ndarray:
    return np.asarray(step, np.float32).astype(np.float64)


def _over(weights: np.ndarray, step: np.ndarray) -> np.ndarray:
    """W / D, and 0 where the range is zero."""
    return np.divide(weights, step, out=np.zeros_like(weights), where=np.broadcast_to(step, weights.shape) > 0)


def symmetric(weights: np.ndarray, bits: int, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """D = max |W|/(2^(B-1) - 1), What = D clip(round(W/D), +-(2^(B-1) - 1))."""
    top = 2 ** (bits - 1) - 1
    step = _stored(np.abs(weights).max(axis=axis, keepdims=True) / top)
    return step * np.clip(np.rint(_over(weights, step)), -top, top), step


def affine(weights: np.ndarray, bits: int, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The range [min(W, 0), max(W, 0)] in 2^B - 1 steps with an integer zero point."""
    low = np.minimum(weights.min(axis=axis, keepdims=True), 0)
    high = np.maximum(weights.max(axis=axis, keepdims=True), 0)
    step = _stored((high - low) / (2**bits - 1))
    zero = np.rint(_over(-low, step))
    return step * (np.clip(np.rint(_over(weights, step)) + zero, 0, 2**bits - 1) - zero), step


def midrise(weights: np.ndarray, bits: int, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """D = 2 max |W|/2^B, What = D (clip(floor(W/D), -2^(B-1), 2^(B-1) - 1) + 1/2)."""
    half = 2 ** (bits - 1)
    step = _stored(2 * np.abs(weights).max(axis=axis, keepdims=True) / 2**bits)
    return step * (np.clip(np.floor(_over(weights, step)), -half, half - 1) + 0.5), step


SCHEMES = {
    "symmetric": Uniform(symmetric, (2, 16), False),
    "affine": Uniform(affine, (1, 16), True),
    "midrise": Uniform(midrise, (1, 16), False),
}
