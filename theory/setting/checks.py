"""Checks of arrays and arguments that several public objects share: one line naming it, what was expected, what came."""

import operator
from collections.abc import Sequence

import numpy as np

from theory.setting.errors import InputError, in_short, listed

SEEDS = 2**63
MOST_WHOLE = 2**63 - 1  # of a count that arrays are made for
LARGEST = 1e15  # size of a number of a problem: squares and their sums stay finite in float32, which counts samples
SMALLEST = 1e-30  # likewise of the largest number of an array: squares and their products do not vanish in float64
FLOATS = (np.float16, np.float32, np.float64)


def whole(name: str, value, low: int, high: int = MOST_WHOLE) -> int:
    """``value`` as an int, refused unless it is a whole number in [low, high)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number < high:
        limit = f"at least {low}" if high == MOST_WHOLE and (number is None or number < low) else f"from {low} to {high - 1}"
        raise InputError(f"{name}: expected a whole number {limit}, got {in_short(repr(value))}")
    return number


def seed_of(value) -> int:
    """A seed: a whole number, 0 <= seed < 2^63."""
    return whole("seed", value, 0, SEEDS)


def widths(bits: Sequence[int] | int) -> list[int]:
    """Bits per weight, one width or several, as a list of whole numbers, at least one."""
    try:
        values = [bits] if isinstance(bits, int | np.integer | str) else list(bits)
    except TypeError:
        raise InputError(f"bits: expected a list of widths such as [2, 3, 4], got {bits!r}") from None
    if not values:
        raise InputError("bits: expected at least one width, got none")
    return [whole("bits", value, 0) for value in values]


def share(name: str, value: float) -> float:
    """A fraction strictly between 0 and 1."""
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"{name}: expected a fraction strictly between 0 and 1, got {value!r}")
    return value


def finite(name: str, array: np.ndarray) -> None:
    """Refuse an array that is not of floats, finite and below LARGEST in size."""
    if array.dtype.type not in FLOATS:
        raise InputError(f"{name}: expected float16, float32 or float64, got {array.dtype}")
    bad = ~np.isfinite(array)
    if not bad.any() and largest_of(array) < LARGEST:
        return
    first = np.argwhere(bad if bad.any() else np.abs(array) >= LARGEST)[0]
    where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column", "index"), first, strict=False))
    expected = "finite values" if bad.any() else f"values below {LARGEST:g} in size"
    raise InputError(f"{name}: expected {expected}, got {array[tuple(first)]}" + (f" at {where}" if where else ""))


def largest_of(array: np.ndarray) -> float:
    """The largest absolute value, without a copy; 0 of no number."""
    return max(float(array.max()), -float(array.min())) if array.size else 0.0


def large_enough(name: str, largest: float) -> None:
    """Refuse arrays whose largest number is not 0 but below SMALLEST."""
    if 0 < largest < SMALLEST:
        raise InputError(
            f"{name}: expected numbers of which the largest is 0 or at least {SMALLEST:g}, got {largest:g}: rescale"
        )


def shaped(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array in float64, refused unless it has this shape and finite values."""
    if array.shape != shape:
        raise InputError(f"{name}: expected shape {shape}, got {array.shape}")
    finite(name, array)
    return array.astype(np.float64)


def semi_definite(name: str, covariances: np.ndarray) -> np.ndarray:
    """Covariances (d, d) or (K, d, d), symmetric and with no negative eigenvalue; what is only rounding is mended, the rest
    refused."""
    stack = covariances if covariances.ndim == 3 else covariances[None]
    fixed = []
    for k, matrix in enumerate(stack):
        of = f"{name}[{k}]" if covariances.ndim == 3 else name
        skew = np.abs(matrix - matrix.T).max()
        if skew > 1e-6 * np.abs(matrix).max():
            raise InputError(f"{of}: expected a symmetric matrix, got entries that differ by {skew:.3g}")
        matrix = (matrix + matrix.T) / 2
        try:
            np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            matrix = _clipped(of, matrix)
        fixed.append(matrix)
    return np.stack(fixed) if covariances.ndim == 3 else fixed[0]


def _clipped(name: str, matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    if values[0] < -1e-6 * max(values[-1], 0) - 1e-300:
        raise InputError(f"{name}: expected no negative eigenvalue, got {values[0]:.6g} beside the largest {values[-1]:.6g}")
    return (vectors * np.maximum(values, 0)) @ vectors.T if values[0] < 0 else matrix


def head(weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (rows, d) and bias (rows,) in float64, refused where they do not go together."""
    if weights.ndim != 2 or 0 in weights.shape:
        raise InputError(f"weights: expected shape (classes, features), got {weights.shape}")
    finite("weights", weights)
    large_enough("weights", largest_of(weights))
    rows, columns = weights.shape
    if bias.shape == (columns,) and rows != columns:
        raise InputError(
            f"weights: expected shape (classes, features) = ({columns}, {rows}) to go with bias ({columns},), "
            f"got {weights.shape}: transposed?"
        )
    return weights.astype(np.float64), shaped("bias", bias, (rows,))


def check_priors(priors: np.ndarray) -> np.ndarray:
    """The priors, refused where they are negative or do not sum to 1 but for rounding, which is mended."""
    if priors.min() < 0 or abs(priors.sum() - 1) > 1e-6:
        raise InputError(
            f"priors: expected non-negative numbers that sum to 1, got sum {priors.sum():.6g}, least {priors.min():.6g}"
        )
    return priors / priors.sum()


def check_classes(classes: Sequence[int], K: int, rows: int) -> np.ndarray:
    """The classes as an index array, refused unless they are at least two different ones of 0..K-1 (0 1 for one output)."""
    text = listed(classes, 20)
    chosen = [value for value in classes if isinstance(value, int | np.integer) and 0 <= value < K]
    if len(chosen) < max(2, len(classes)) or len(set(chosen)) < len(chosen):
        raise InputError(f"classes: expected at least two different ones of 0 to {K - 1}, got {text}")
    if rows == 1 and list(chosen) != [0, 1]:
        raise InputError(f"classes: a head with one output has the classes 0 1, got {text}")
    return np.asarray(chosen, np.int64)
