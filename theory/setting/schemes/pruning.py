"""Pruning: the smallest weights, or the smallest whole units, become zero.

Structured: Anwar, Hwang, Sung, "Structured Pruning of Deep Convolutional Neural Networks", ACM JETC 13 (2017) 32.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes.base import Option, Parts, Scheme, StoredShape, check_float32, whole_between
from theory.setting.schemes.bit_stream import BitReader, floats

DENSE = ("feature", "map")
CONVOLUTION = ("map", "kernel", "strided")
STORED_UNITS = ("", "feature", "map", "kernel", "strided")  # their numbers in stored files, for ever


def kept(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Where the weights stay: all but the round(s n) smallest |w|, equal ones in C order (round half to even)."""
    return _largest(np.abs(weights).reshape(-1), _count(sparsity, weights.size, "weights")).reshape(weights.shape)


def kept_units(weights: np.ndarray, sparsity: float, unit: str, map_size: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Which units stay, all but the round(s units) of smallest L2 norm, equal ones in order; and the unit of each weight.

    Units of a dense layer (rows, d): ``feature``, a column; ``map``, ``map_size`` neighbouring columns, the
    last map what is left. Of a convolution (out,
    in, height, width): ``map``, the weights that make one output map; ``kernel``, those between one input and one output map;
    ``strided``, one position in the kernels of one input map, the same for all output maps.
    """
    owner = units(weights.shape, unit, map_size)
    norms = np.sqrt(np.bincount(owner.reshape(-1), (weights**2).reshape(-1)))
    return _largest(norms, _count(sparsity, len(norms), f"units ({unit})")), owner


def units(shape: tuple[int, ...], unit: str, map_size: int | None) -> np.ndarray:
    """The unit that each weight belongs to."""
    dense = len(shape) == 2
    if unit not in (DENSE if dense else CONVOLUTION):
        what = "a dense layer" if dense else "a convolution"
        raise InputError(f"unit: expected one of {', '.join(DENSE if dense else CONVOLUTION)} for {what}, got {unit!r}")
    if (map_size is not None) != (dense and unit == "map"):
        raise InputError(
            f"map_size: expected {'a size' if dense and unit == 'map' else 'none'} for unit {unit}, got {map_size}"
        )
    if dense and map_size is not None and map_size > shape[1]:
        raise InputError(f"map_size: expected at most the {shape[1]} columns of the layer, got {map_size}")
    if dense:
        size = 1 if map_size is None else map_size
        return np.broadcast_to(np.arange(shape[1]) // size, shape)
    out, into, *kernel = shape
    area = int(np.prod(kernel))
    if unit == "map":
        return np.broadcast_to(np.arange(out).reshape(-1, 1, *[1] * len(kernel)), shape)
    if unit == "kernel":
        return np.broadcast_to(np.arange(out * into).reshape(out, into, *[1] * len(kernel)), shape)
    return np.broadcast_to(np.arange(into * area).reshape(1, into, *kernel), shape)


def _count(sparsity: float, n: int, what: str) -> int:
    count = round(sparsity * n)
    if sparsity > 0 and count == 0:
        raise InputError(f"sparsity: expected one that removes any of the {n} {what}, got {sparsity}, which rounds to none")
    return count


def _largest(sizes: np.ndarray, removed: int) -> np.ndarray:
    stay = np.ones(len(sizes), bool)
    stay[np.argsort(sizes, kind="stable")[:removed]] = False
    return stay


@dataclass(frozen=True, kw_only=True)
class Prune(Scheme):
    """Single weights: the values that stay, in float32, and where they stand."""

    def compress(self, weights, bits, options):
        check_float32(weights)
        stay = kept(weights, options.get("sparsity", 0.0))
        return {"positions": stay, "values": weights[stay].astype(np.float32)}

    def restore(self, parts, shape):
        What = np.zeros(shape)
        What[parts["positions"]] = parts["values"]
        return What

    def bits_of(self, parts, bits):
        return {"codes": 32 * parts["values"].size, "positions": parts["positions"].size}

    def encode(self, parts, bits):
        return {"codes": floats(parts["values"]), "positions": parts["positions"].reshape(-1).astype(np.uint8)}

    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        values = stream.floats(stored.survivors)
        stay = stream.take(stored.count).astype(bool).reshape(stored.shape)
        return {"values": checked_values(values, int(stay.sum())), "positions": stay}

    def stored_numbers(self, options: dict[str, Any]) -> tuple[int, int]:
        return 0, 0


@dataclass(frozen=True, kw_only=True)
class PruneStructured(Scheme):
    """Whole units: the values of those that stay, in float32, and which these are."""

    def compress(self, weights, bits, options):
        check_float32(weights)
        stay, owner = kept_units(weights, options.get("sparsity", 0.0), options["unit"], options.get("map_size"))
        return {"units": stay, "owner": owner, "values": weights[stay[owner]].astype(np.float32)}

    def restore(self, parts, shape):
        What = np.zeros(shape)
        What[parts["units"][parts["owner"]]] = parts["values"]
        return What

    def bits_of(self, parts, bits):
        return {"codes": 32 * parts["values"].size, "positions": parts["units"].size}

    def encode(self, parts, bits):
        return {"codes": floats(parts["values"]), "positions": parts["units"].astype(np.uint8)}

    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        if not 0 < stored.detail < len(STORED_UNITS):
            raise InputError(f"expected one of {len(STORED_UNITS) - 1} kinds of unit, got number {stored.detail}")
        owner = units(stored.shape, STORED_UNITS[stored.detail], stored.size or None)
        values = stream.floats(stored.survivors)
        stay = stream.take(int(owner.max()) + 1).astype(bool)
        return {"values": checked_values(values, int(stay[owner].sum())), "units": stay, "owner": owner}

    def stored_numbers(self, options: dict[str, Any]) -> tuple[int, int]:
        return STORED_UNITS.index(options["unit"]), options.get("map_size") or 0


def checked_values(values: np.ndarray, positions: int) -> np.ndarray:
    """The values, refused unless there is one for every position."""
    if len(values) != positions:
        raise InputError(f"expected a value for each of {positions} positions, got {len(values)}")
    return values


SPARSITY = Option(
    name="sparsity",
    help="fraction of the weights or units that become 0, where pruned",
    expected="a fraction from 0 to 1",
    accepts=lambda value: not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= 1,
    type=float,
    metavar="S",
    required=True,
)
UNIT = Option(
    name="unit",
    help="what prune-structured removes: a column, or --map-size columns",
    expected="one",
    accepts=lambda value: value in STORED_UNITS[1:],
    type=str,
    choices=DENSE,
    required=True,
)
MAP_SIZE = Option(
    name="map_size",
    help="neighbouring columns of a map",
    expected=f"a whole number from 1 to {2**31 - 1}",
    accepts=whole_between(1, 2**31 - 1),
    type=int,
    metavar="M",
)

SCHEMES = (
    Prune(
        name="prune",
        wire_id=5,
        summary="the smallest weights become 0, the others keep 32 bits",
        bits=None,
        options=(SPARSITY,),
    ),
    PruneStructured(
        name="prune-structured",
        wire_id=6,
        summary="whole columns, or maps of them, of smallest norm become 0",
        bits=None,
        options=(SPARSITY, UNIT, MAP_SIZE),
    ),
)
