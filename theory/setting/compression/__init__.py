"""Compressions of a layer: W to What and the bits it takes, one family a file, found here by the scheme's name."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from theory.setting.compression import uniform
from theory.setting.errors import InputError

SCHEMES = {**uniform.SCHEMES}
BREAKDOWN: tuple[str, ...] = ("codes", "steps", "zero_points", "codebook", "positions", "tables")


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed layer.

    Attributes:
        scheme, bits, granularity: what was asked; granularity is "tensor" or "channel".
        weights: What, (rows, d) float64.
        steps: (rows,) float64, the stored step of each row (the same one for "tensor").
        rate_breakdown: stored bits by kind (BREAKDOWN), all side information included; the bias is held as it is.
    """

    scheme: str
    bits: int
    granularity: str
    weights: Float64[np.ndarray, "rows d"]
    steps: Float64[np.ndarray, " rows"]
    rate_breakdown: dict[str, int]

    @property
    def rate(self) -> float:
        """Stored bits per weight."""
        return sum(self.rate_breakdown.values()) / self.weights.size


def check_bits(scheme: str, bits: int) -> None:
    """Refuse an unknown scheme, or a width outside the scheme's range."""
    if scheme not in SCHEMES:
        raise InputError(f"scheme: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    low, high = SCHEMES[scheme].bits
    if not low <= bits <= high:
        raise InputError(f"bits: expected {low} to {high} for scheme {scheme}, got {bits}")


def compress(weights: Float64[np.ndarray, "rows d"], scheme: str, bits: int, *, per_channel: bool = False) -> Compressed:
    """Compress a layer.

    Args:
        weights: (rows, d) float64.
        scheme: a name in SCHEMES.
        bits: width B of a code.
        per_channel: one step per row instead of one per tensor.

    Raises:
        InputError: unknown scheme, width out of range, or a range whose step float32 cannot hold.
    """
    check_bits(scheme, bits)
    quantize = SCHEMES[scheme]
    axis = 1 if per_channel else None
    with np.errstate(over="ignore", invalid="ignore"):
        What, step = quantize.function(weights, bits, axis)
    if not np.isfinite(step).all():
        raise InputError(f"weights: expected a range whose step float32 can hold, got max |W| = {np.abs(weights).max():.3g}")
    breakdown = dict.fromkeys(BREAKDOWN, 0)
    breakdown["codes"] = bits * weights.size
    breakdown["steps"] = 32 * step.size
    breakdown["zero_points"] = bits * step.size if quantize.zero_point else 0
    return Compressed(
        scheme=scheme,
        bits=bits,
        granularity="channel" if per_channel else "tensor",
        weights=What,
        steps=np.broadcast_to(step.reshape(-1), (len(weights),)).copy(),
        rate_breakdown=breakdown,
    )
