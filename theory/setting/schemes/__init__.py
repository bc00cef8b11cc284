"""Compressions of a layer: W to What and the bits it takes. One family a file, found here by its ``SCHEMES``.

What is made of the parts that are stored (codes, steps, centroids, positions), so that reading them back gives the very What.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float64

from theory.setting.errors import InputError
from theory.setting.schemes.base import BREAKDOWN, Compressed, Option, Scheme


def _families() -> Iterable[Scheme]:
    for module in pkgutil.iter_modules(__path__):
        yield from getattr(importlib.import_module(f"{__name__}.{module.name}"), "SCHEMES", ())


def registry(schemes: Iterable[Scheme]) -> dict[str, Scheme]:
    """Schemes by name, in the order of their wire ids.

    Raises:
        ValueError: two of one name or of one wire id.
    """
    found: dict[str, Scheme] = {}
    for scheme in sorted(schemes, key=lambda scheme: scheme.wire_id):
        if scheme.name in found or any(scheme.wire_id == other.wire_id for other in found.values()):
            raise ValueError(f"scheme {scheme.name} of wire id {scheme.wire_id}: the name or the number is taken")
        found[scheme.name] = scheme
    return found


SCHEMES: dict[str, Scheme] = registry(_families())
OPTIONS: dict[str, Option] = {option.name: option for scheme in SCHEMES.values() for option in scheme.options}
# one step a tensor, a row or a group, and nothing else to choose
UNIFORM = tuple(
    name
    for name, scheme in SCHEMES.items()
    if scheme.stepped and {option.name for option in scheme.options} == {"per_channel", "group_size"}
)


def scheme_of(name: str) -> Scheme:
    """The scheme of that name.

    Raises:
        InputError: there is none.
    """
    if name not in SCHEMES:
        raise InputError(f"scheme: expected one of {', '.join(SCHEMES)}, got {name!r}")
    return SCHEMES[name]


def compress(weights: Float64[np.ndarray, "rows ..."], scheme: str, bits: int | None = None, **options: Any) -> Compressed:
    """Compress a layer.

    Args:
        weights: (rows, d) float64; for some schemes also (out, in, height, width).
        scheme: a name in SCHEMES.
        bits: width B of a code; None for schemes without.
        options: those of the scheme, see OPTIONS.

    Raises:
        InputError: unknown scheme, options that are not its, width out of range, or values float32 cannot hold.
    """
    known = scheme_of(scheme)
    known.check_bits(bits)
    given = known.check_options(OPTIONS, options)
    parts = known.compress(weights, bits, given)
    What = known.restore(parts, weights.shape)
    if "steps" in parts:
        steps = parts["steps"].astype(np.float64)
        if given.get("group_size"):
            steps = steps[:, np.arange(weights[0].size) // given["group_size"]]
        steps = np.broadcast_to(steps, (len(weights), steps.shape[1])).copy()
    else:
        steps = np.full((len(weights), 1), np.sqrt(12 * np.mean((What - weights) ** 2)))
    return Compressed(
        scheme=scheme,
        bits=bits,
        options=given,
        weights=What,
        steps=steps,
        rate_breakdown=dict.fromkeys(BREAKDOWN, 0) | known.bits_of(parts, bits),
        parts=parts,
    )
