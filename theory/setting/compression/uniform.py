"""Uniform scalar quantizers: one step D a tensor or a row, in float64, then rounded to float32 as it would be stored.

Round to nearest, ties to even; q from W / D in float64; What = D q. Range zero gives D = 0 and What = 0.
Affine: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 2.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

PER_STEP = 256  # the max-abs step is divided into so many for ``optimal``


class Uniform(NamedTuple):
    """A quantizer: its function (weights, bits, axis) -> (codes, step, zero point), its widths, and the weight (codes + shift)
    step of a code."""

    function: Callable[[np.ndarray, int, int | None], tuple[np.ndarray, np.ndarray, np.ndarray]]
    bits: tuple[int, int]
    shift: float = 0.0
    zero_point: bool = False


def stored(values: np.ndarray) -> np.ndarray:
    """Rounded to float32, as stored."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float64)


def grid_of(scheme: str) -> str:
    """The quantizer whose codes a scheme stores."""
    return {"optimal": "symmetric", "integer": "affine"}.get(scheme, scheme)


def _over(weights: np.ndarray, step: np.ndarray) -> np.ndarray:
    """W / D, and 0 where the range is zero."""
    return np.divide(weights, step, out=np.zeros_like(weights), where=np.broadcast_to(step, weights.shape) > 0)


def symmetric(weights: np.ndarray, bits: int, axis: int | None, k: int = PER_STEP):
    """D = max |W|/(2^(B-1) - 1), q = clip(round(W/D), +-(2^(B-1) - 1)); ``k`` 256ths of that D, clipping more."""
    top = 2 ** (bits - 1) - 1
    step = stored(np.abs(weights).max(axis=axis, keepdims=True) / top * (k / PER_STEP))
    return np.clip(np.rint(_over(weights, step)), -top, top), step, np.zeros_like(step)


def affine(weights: np.ndarray, bits: int, axis: int | None):
    """The range [min(W, 0), max(W, 0)] in 2^B - 1 steps with an integer zero point."""
    low = np.minimum(weights.min(axis=axis, keepdims=True), 0)
    high = np.maximum(weights.max(axis=axis, keepdims=True), 0)
    return (*affine_codes(weights, *affine_grid(low, high, bits), bits),)


def affine_grid(low: np.ndarray, high: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Step and zero point of the range [low, high], which holds 0. (A subnormal step, stored coarsely, could put it past B
    bits.)"""
    step = stored((high - low) / (2**bits - 1))
    return step, np.minimum(np.rint(_over(-low, step)), 2**bits - 1)


def affine_codes(values: np.ndarray, step: np.ndarray, zero: np.ndarray, bits: int):
    """q - zero with q = clip(round(x/D) + zero, 0, 2^B - 1), the step and the zero point."""
    return np.clip(np.rint(_over(values, step)) + zero, 0, 2**bits - 1) - zero, step, zero


def midrise(weights: np.ndarray, bits: int, axis: int | None):
    """D = 2 max |W|/2^B, q = clip(floor(W/D), -2^(B-1), 2^(B-1) - 1), What = D (q + 1/2)."""
    half = 2 ** (bits - 1)
    step = stored(2 * np.abs(weights).max(axis=axis, keepdims=True) / 2**bits)
    return np.clip(np.floor(_over(weights, step)), -half, half - 1), step, np.zeros_like(step)


SCHEMES = {
    "symmetric": Uniform(symmetric, (2, 16)),
    "affine": Uniform(affine, (1, 16), zero_point=True),
    "midrise": Uniform(midrise, (1, 16), shift=0.5),
}
