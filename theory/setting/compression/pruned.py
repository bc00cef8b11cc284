"""Pruning: the smallest weights, or the smallest whole units, become zero.

Structured: Anwar, Hwang, Sung, "Structured Pruning of Deep Convolutional Neural Networks", ACM JETC 13 (2017) 32.
"""

import numpy as np

from theory.setting.errors import InputError

DENSE = ("feature", "map")
CONVOLUTION = ("map", "kernel", "strided")


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
