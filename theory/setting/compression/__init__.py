"""Compressions of a layer: W to What and the bits it takes, one family a file, found here by the scheme's name.

What is made of the parts that are stored (codes, steps, centroids, places), so that reading them back gives the very What.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from theory.setting.compression import codebook, huffman, pruned, uniform
from theory.setting.compression.uniform import stored
from theory.setting.errors import InputError

UNIFORM = tuple(uniform.SCHEMES)  # one step a tensor or a row, nothing else to choose
CRITERIA = ("distortion", "mse")  # of optimal
BREAKDOWN: tuple[str, ...] = ("codes", "steps", "zero_points", "codebook", "positions", "tables")


class Scheme(NamedTuple):
    """What may be asked of a scheme: its widths (None: none), a step a row, a sparsity, units."""

    bits: tuple[int, int] | None
    per_channel: bool = False
    sparsity: bool = False
    unit: bool = False


SCHEMES: dict[str, Scheme] = {
    **{name: Scheme(one.bits, per_channel=True) for name, one in uniform.SCHEMES.items()},
    "optimal": Scheme((2, 16), per_channel=True),
    "integer": Scheme((2, 8), per_channel=True),
    "prune": Scheme(None, sparsity=True),
    "prune-structured": Scheme(None, sparsity=True, unit=True),
    "codebook": Scheme((1, 12)),
    "deep-compression": Scheme((1, 12), sparsity=True),
}


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed layer.

    Attributes:
        scheme, bits, granularity, sparsity, unit, map_size: what was asked; bits is None where weights keep their 32;
            granularity is "tensor" or "channel".
        weights: What, (rows, d) float64; of a convolution (out, in, height, width).
        steps: (rows,) float64, the stored step of each row (the same one for "tensor"); where a scheme has none, the one whose
            uniform errors would have the power of this layer's own, sqrt(12 mean (What - W)^2).
        rate_breakdown: stored bits by kind (BREAKDOWN), all side information included; the bias is held as it is.
        parts: what is stored, by name.
    """

    scheme: str
    bits: int | None
    granularity: str
    sparsity: float = 0.0
    unit: str | None = None
    map_size: int | None = None
    weights: Float64[np.ndarray, "rows ..."]
    steps: Float64[np.ndarray, " rows"]
    rate_breakdown: dict[str, int]
    parts: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def stepped(self) -> bool:
        """Whether the weights lie on a grid of equal steps."""
        return "steps" in self.parts

    @property
    def rate(self) -> float:
        """Stored bits per weight."""
        return sum(self.rate_breakdown.values()) / self.weights.size


def check_bits(scheme: str, bits: int | None) -> None:
    """Refuse an unknown scheme, or a width outside the scheme's range."""
    if scheme not in SCHEMES:
        raise InputError(f"scheme: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    limits = SCHEMES[scheme].bits
    if limits is None:
        if bits is not None:
            raise InputError(f"bits: expected none for scheme {scheme}, whose weights keep 32 bits, got {bits}")
    elif bits is None or not limits[0] <= bits <= limits[1]:
        raise InputError(
            f"bits: expected {limits[0]} to {limits[1]} for scheme {scheme}, got {'none' if bits is None else bits}"
        )


def compress(
    weights: Float64[np.ndarray, "rows ..."],
    scheme: str,
    bits: int | None = None,
    *,
    per_channel: bool = False,
    sparsity: float | None = None,
    unit: str | None = None,
    map_size: int | None = None,
    k: int = uniform.PER_STEP,
) -> Compressed:
    """Compress a layer.

    Args:
        weights: (rows, d) float64; for ``prune-structured`` also (out, in, height, width).
        scheme: a name in SCHEMES.
        bits: width B of a code; None for the pruning schemes.
        per_channel: one step per row instead of one per tensor, for schemes with steps.
        sparsity: fraction of the weights or units that become 0, for schemes that prune.
        unit, map_size: of ``prune-structured``, see :func:`theory.setting.compression.pruned.kept_units`.
        k: of ``optimal``: the step is k/256 of the max-abs step, 1 to 256.

    Raises:
        InputError: unknown scheme, options that are not its, width out of range, or values float32 cannot hold.
    """
    check_bits(scheme, bits)
    known = SCHEMES[scheme]
    _check(scheme, known, per_channel, sparsity, unit, map_size)
    if scheme != "optimal" and k != uniform.PER_STEP:
        raise InputError(f"k: expected none for scheme {scheme}, got {k}")
    largest = float(np.abs(weights).max())
    if scheme in uniform.SCHEMES or scheme in ("optimal", "integer"):
        parts = _quantized(weights, scheme, bits, 1 if per_channel else None, k)
    else:
        if not np.isfinite(stored(np.array(largest))):
            raise InputError(f"weights: expected values that float32 can hold, got max |W| = {largest:.3g}")
        parts = _shared(weights, scheme, bits, sparsity or 0.0, unit or "", map_size)
    What = restore(parts, scheme, weights.shape)
    if "steps" in parts:
        steps = parts["steps"].reshape(-1).astype(np.float64)
    else:
        steps = np.sqrt([12 * np.mean((What - weights) ** 2)])
    return Compressed(
        scheme=scheme,
        bits=bits,
        granularity="channel" if per_channel else "tensor",
        sparsity=sparsity or 0.0,
        unit=unit,
        map_size=map_size,
        weights=What,
        steps=np.broadcast_to(steps, (len(weights),)).copy(),
        rate_breakdown=_bits_of(parts, bits),
        parts=parts,
    )


def _check(
    scheme: str, known: Scheme, per_channel: bool, sparsity: float | None, unit: str | None, map_size: int | None
) -> None:
    if per_channel and not known.per_channel:
        raise InputError(f"per_channel: expected none for scheme {scheme}, which has no steps")
    if known.sparsity and (sparsity is None or not 0 <= sparsity <= 1):
        raise InputError(f"sparsity: expected a fraction from 0 to 1 for scheme {scheme}, got {sparsity}")
    if not known.sparsity and sparsity is not None:
        raise InputError(f"sparsity: expected none for scheme {scheme}, got {sparsity}")
    if not known.unit and map_size is not None:
        raise InputError(f"map_size: expected none for scheme {scheme}, got {map_size}")
    if known.unit == (unit is None):
        raise InputError(f"unit: expected {'one' if known.unit else 'none'} for scheme {scheme}, got {unit}")


def _quantized(weights: np.ndarray, scheme: str, bits: int | None, axis: int | None, k: int) -> dict[str, np.ndarray]:
    assert bits is not None  # check_bits has seen to it
    with np.errstate(over="ignore", invalid="ignore"):
        if scheme == "optimal":
            codes, step, zero = uniform.symmetric(weights, bits, axis, k)
        else:
            codes, step, zero = uniform.SCHEMES[uniform.grid_of(scheme)].function(weights, bits, axis)
    if not np.isfinite(step).all():
        raise InputError(f"weights: expected a range whose step float32 can hold, got max |W| = {np.abs(weights).max():.3g}")
    parts = {"codes": codes.astype(np.int64), "steps": step.astype(np.float32)}
    if uniform.SCHEMES[uniform.grid_of(scheme)].zero_point:
        parts["zero_points"] = zero.astype(np.int64)
    return parts


def _shared(
    weights: np.ndarray, scheme: str, bits: int | None, sparsity: float, unit: str, map_size: int | None
) -> dict[str, np.ndarray]:
    """Pruning and codebooks."""
    if scheme == "prune-structured":
        stay, owner = pruned.kept_units(weights, sparsity, unit, map_size)
        return {"units": stay, "owner": owner, "values": weights[stay[owner]].astype(np.float32)}
    if scheme == "codebook":
        assert bits is not None
        codes, centroids = codebook.clustered(weights.reshape(-1), bits)
        return {"codes": codes.reshape(weights.shape), "codebook": centroids.astype(np.float32)}
    stay = pruned.kept(weights, sparsity)
    if scheme == "prune":
        return {"places": stay, "values": weights[stay].astype(np.float32)}
    assert bits is not None
    codes, centroids = codebook.clustered(weights[stay], bits)
    symbols = codebook.runs(stay)
    return {
        "places": stay,
        "codes": codes,
        "codebook": centroids.astype(np.float32),
        "runs": symbols,
        "code_lengths": huffman.lengths(np.bincount(codes, minlength=2**bits)),
        "run_lengths": huffman.lengths(np.bincount(symbols, minlength=2**codebook.RUN_BITS)),
    }


def restore(parts: dict[str, np.ndarray], scheme: str, shape: tuple[int, ...]) -> Float64[np.ndarray, "rows ..."]:
    """What, from what is stored."""
    if "steps" in parts:
        shift = uniform.SCHEMES[uniform.grid_of(scheme)].shift
        return parts["steps"].astype(np.float64) * (parts["codes"] + shift)
    if scheme == "codebook":
        return parts["codebook"].astype(np.float64)[parts["codes"]]
    What = np.zeros(shape)
    if scheme == "prune-structured":
        What[parts["units"][parts["owner"]]] = parts["values"]
    elif scheme == "prune":
        What[parts["places"]] = parts["values"]
    else:
        What[parts["places"]] = parts["codebook"].astype(np.float64)[parts["codes"]]
    return What


def _bits_of(parts: dict[str, np.ndarray], bits: int | None) -> dict[str, int]:
    """Stored bits by kind."""
    found = dict.fromkeys(BREAKDOWN, 0)
    if "run_lengths" in parts:
        found["codes"] = huffman.size(parts["codes"], parts["code_lengths"])
        found["positions"] = huffman.size(parts["runs"], parts["run_lengths"])
        found["tables"] = 8 * (len(parts["code_lengths"]) + len(parts["run_lengths"]))
    elif "codes" in parts:
        found["codes"] = (bits or 0) * parts["codes"].size
    else:
        found["codes"] = 32 * parts["values"].size
        found["positions"] = parts["units"].size if "units" in parts else parts["places"].size
    found["steps"] = 32 * parts["steps"].size if "steps" in parts else 0
    found["zero_points"] = (bits or 0) * parts["zero_points"].size if "zero_points" in parts else 0
    found["codebook"] = 32 * parts["codebook"].size if "codebook" in parts else 0
    return found
