"""Checks of the arguments that several public functions share: one line naming the argument, what was expected, what came."""

import operator
from collections.abc import Sequence

from theory.setting.errors import InputError

SEEDS = 2**63


def whole(name: str, value, low: int, high: int | None = None) -> int:
    """``value`` as an int, refused unless it is a whole number in [low, high)."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < low or (high is not None and number >= high):
        limit = f"at least {low}" if high is None else f"from {low} to {high - 1}"
        raise InputError(f"{name}: expected a whole number {limit}, got {value!r}")
    return number


def seed_of(value) -> int:
    """A seed: a whole number, 0 <= seed < 2^63."""
    return whole("seed", value, 0, SEEDS)


def widths(bits: Sequence[int]) -> list[int]:
    """Bits per weight as a list of whole numbers, at least one."""
    try:
        values = list(bits)
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
