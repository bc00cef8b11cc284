"""Uniform scalar quantizers: one step D a tensor, a row or a group, in float64, then rounded to float32 as it would be stored.

Round to nearest, ties to even; q from W / D in float64; What = D q. Range zero gives D = 0 and What = 0.
Affine: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes.base import Option, Parts, Scheme, StoredShape, float32, whole_between
from theory.setting.schemes.bit_stream import BitReader, floats, whole

MAX_ABS_PARTS = 256  # the max-abs step is divided into so many for ``optimal``
LARGEST_GROUP = 2**31 - 1  # weights of a group; a stored file has 32 bits for it


def symmetric_grid(low: np.ndarray, high: np.ndarray, bits: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """D = max |W|/(2^(B-1) - 1), or ``part`` 256ths of that; no zero point."""
    step = float32(np.maximum(-low, high) / (2 ** (bits - 1) - 1) * (part / MAX_ABS_PARTS))
    return step, np.zeros_like(step)


def symmetric_codes(weights: np.ndarray, step: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    """q = clip(round(W/D), +-(2^(B-1) - 1))."""
    top = 2 ** (bits - 1) - 1
    return np.clip(np.rint(_over(weights, step)), -top, top)


def affine_grid(low: np.ndarray, high: np.ndarray, bits: int, part: int = MAX_ABS_PARTS) -> tuple[np.ndarray, np.ndarray]:
    """Step and zero point of [min(low, 0), max(high, 0)] in 2^B - 1 steps. (A subnormal step, stored coarsely, could put the
    zero point past B bits.)"""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    step = float32((high - low) / (2**bits - 1))
    return step, np.minimum(np.rint(_over(-low, step)), 2**bits - 1)


def affine_codes(values: np.ndarray, step: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    """q - zero with q = clip(round(x/D) + zero, 0, 2^B - 1)."""
    return np.clip(np.rint(_over(values, step)) + zero, 0, 2**bits - 1) - zero


def midrise_grid(low: np.ndarray, high: np.ndarray, bits: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """D = 2 max |W|/2^B; no zero point."""
    step = float32(2 * np.maximum(-low, high) / 2**bits)
    return step, np.zeros_like(step)


def midrise_codes(weights: np.ndarray, step: np.ndarray, zero: np.ndarray, bits: int) -> np.ndarray:
    """q = clip(floor(W/D), -2^(B-1), 2^(B-1) - 1)."""
    half = 2 ** (bits - 1)
    return np.clip(np.floor(_over(weights, step)), -half, half - 1)


def _over(weights: np.ndarray, step: np.ndarray) -> np.ndarray:
    """W / D, and 0 where the range is zero."""
    return np.divide(weights, step, out=np.zeros_like(weights), where=np.broadcast_to(step, weights.shape) > 0)


def _extent(weights: np.ndarray, options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest weight (scopes of a row: one for all rows (1, 1), each row (rows, 1) or each group (rows, groups))."""
    size = options.get("group_size")
    if size:
        starts = np.arange(0, weights.shape[1], size)
        return np.minimum.reduceat(weights, starts, 1), np.maximum.reduceat(weights, starts, 1)
    axis = 1 if options.get("per_channel") else None
    return weights.min(axis=axis, keepdims=True), weights.max(axis=axis, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Uniform(Scheme):
    """A quantizer: the grid of a range, (low, high, bits, part) -> (step, zero point), the codes (less the zero point) of
    weights on it, and the weight (codes + shift) D of a code."""

    grid: Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]
    codes: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
    shift: float = 0.0
    zero_point: bool = False

    def compress(self, weights, bits, options):
        assert bits is not None  # its widths have been checked
        if options.get("group_size") and options.get("per_channel"):
            raise InputError("group_size: expected none beside per_channel, a group lies in a row, got both")
        rows = weights.reshape(len(weights), -1)
        with np.errstate(over="ignore", invalid="ignore"):
            step, zero = self.grid(*_extent(rows, options), bits, options.get("step", MAX_ABS_PARTS))
            if not np.isfinite(step).all():
                largest = np.abs(weights).max()
                raise InputError(f"weights: expected a range whose step float32 can hold, got max |W| = {largest:.3g}")
            step_of, zero_of = (_each_weight(x, options.get("group_size"), rows.shape[1]) for x in (step, zero))
            codes = self.codes(rows, step_of, zero_of, bits).astype(np.int64).reshape(weights.shape)
        parts = {"codes": codes, "steps": step.astype(np.float32)}
        if options.get("group_size"):
            parts["group_size"] = np.array(options["group_size"])
        return parts | ({"zero_points": zero.astype(np.int64)} if self.zero_point else {})

    def restore(self, parts, shape):
        codes = parts["codes"].reshape(shape[0], -1)
        steps = _each_weight(parts["steps"].astype(np.float64), _group_size(parts), codes.shape[1])
        return (steps * (codes + self.shift)).reshape(shape)

    def bits_of(self, parts, bits):
        found = {"codes": (bits or 0) * parts["codes"].size, "steps": 32 * parts["steps"].size}
        return found | ({"zero_points": (bits or 0) * parts["zero_points"].size} if self.zero_point else {})

    def encode(self, parts, bits):
        assert bits is not None  # its widths have been checked
        sections = {"steps": floats(parts["steps"]), "codes": whole(parts["codes"] + self._offset(parts, bits), bits)}
        return sections | ({"zero_points": whole(parts["zero_points"], bits)} if self.zero_point else {})

    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        rows = stored.shape[0]
        columns = stored.count // rows
        scopes = {"tensor": (1, 1), "channel": (rows, 1), "group": (rows, -(-columns // max(stored.size, 1)))}
        shape = scopes[stored.granularity]
        if stored.granularity == "group" and stored.size < 1:
            raise InputError(f"expected groups of at least 1 weight, got {stored.size}")
        parts = {"steps": stream.floats(shape[0] * shape[1]).reshape(shape)}
        if stored.granularity == "group":
            parts["group_size"] = np.array(stored.size)
        if self.zero_point:
            parts["zero_points"] = stream.whole(shape[0] * shape[1], stored.bits).reshape(shape)
        codes = stream.whole(stored.count, stored.bits).reshape(stored.shape)
        return parts | {"codes": codes - self._offset(parts | {"codes": codes}, stored.bits)}

    def stored_numbers(self, options):
        return 0, options.get("group_size") or 0

    def _offset(self, parts: Parts, bits: int) -> np.ndarray | int:
        """What makes codes whole numbers from 0."""
        if not self.zero_point:
            return 2 ** (bits - 1)
        codes = parts["codes"]
        zero = _each_weight(parts["zero_points"], _group_size(parts), codes[0].size)
        return np.broadcast_to(zero, (len(codes), codes[0].size)).reshape(codes.shape)


def _group_size(parts: Parts) -> int | None:
    return int(parts["group_size"]) if "group_size" in parts else None


def _each_weight(scopes: np.ndarray, group_size: int | None, columns: int) -> np.ndarray:
    """What each scope has, as an array that broadcasts against (rows, columns)."""
    return scopes if group_size is None else scopes[:, np.arange(columns) // group_size]


PER_CHANNEL = Option(
    name="per_channel",
    help="one step per row instead of one per tensor",
    expected="True or False",
    accepts=lambda value: isinstance(value, bool | np.bool_) and bool(value),
)
GROUP_SIZE = Option(
    name="group_size",
    help="one step for every G consecutive weights of a row",
    expected=f"a whole number from 1 to {LARGEST_GROUP}",
    accepts=whole_between(1, LARGEST_GROUP),
    type=int,
    metavar="G",
)
CRITERION = Option(
    name="criterion",
    help="of optimal: least predicted distortion (default) or least squared error",
    expected="one of distortion, mse",
    accepts=lambda value: value in ("distortion", "mse"),
    type=str,
    choices=("distortion", "mse"),
)
STEP = Option(
    name="step",
    help="of optimal: the step in 256ths of the max-abs step",
    expected=f"a whole number from 1 to {MAX_ABS_PARTS}",
    accepts=whole_between(1, MAX_ABS_PARTS),
    type=int,
    listed=False,
)
ACTIVATION_BITS = Option(
    name="activation_bits",
    help="bits of the inputs of the layer, for integer; of a network those of every layer",
    expected="a width from 2 to 16",
    accepts=whole_between(2, 16),
    type=int,
    metavar="A",
    required=True,
)
GRANULARITY = (PER_CHANNEL, GROUP_SIZE)

SCHEMES = (
    Uniform(
        name="symmetric",
        wire_id=0,
        summary="round to nearest, 2^B - 1 levels about 0 (the uniform quantizer of the papers)",
        bits=(2, 16),
        options=GRANULARITY,
        stepped=True,
        grid=symmetric_grid,
        codes=symmetric_codes,
    ),
    Uniform(
        name="affine",
        wire_id=1,
        summary="2^B levels over the range of the weights, with a zero point",
        bits=(1, 16),
        options=GRANULARITY,
        stepped=True,
        grid=affine_grid,
        codes=affine_codes,
        zero_point=True,
    ),
    Uniform(
        name="midrise",
        wire_id=2,
        summary="2^B levels, none at 0",
        bits=(1, 16),
        options=GRANULARITY,
        stepped=True,
        grid=midrise_grid,
        codes=midrise_codes,
        shift=0.5,
    ),
    Uniform(
        name="optimal",
        wire_id=3,
        summary="symmetric with the step, of 256, of least predicted distortion or squared error",
        bits=(2, 16),
        options=(*GRANULARITY, CRITERION, STEP),
        stepped=True,
        grid=symmetric_grid,
        codes=symmetric_codes,
    ),
    Uniform(
        name="integer",
        wire_id=4,
        summary="affine, in integer arithmetic on quantized inputs",
        bits=(2, 8),
        options=(PER_CHANNEL, ACTIVATION_BITS),  # 32-bit sums need one step a row
        stepped=True,
        bias_column=False,
        grid=affine_grid,
        codes=affine_codes,
        zero_point=True,
    ),
)
