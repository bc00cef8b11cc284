"""A plan: which tensor gets which scheme, width, granularity and, where there is a choice, which step. Plain data.

Whoever chooses (the step of least distortion, the fewest bits) returns a plan; whoever compresses takes one. The last layer on
its own is the tensor "weights", as its array is called.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from theory.setting.checks import widths
from theory.setting.errors import InputError, listed
from theory.setting.schemes import Compressed, compress, scheme_of


@dataclass(frozen=True, kw_only=True)
class TensorPlan:
    """How one tensor is compressed: the scheme, the width of a code (None for schemes without) and the scheme's options."""

    scheme: str
    bits: int | None
    options: dict[str, Any] = field(default_factory=dict)

    def compress(self, weights: np.ndarray) -> Compressed:
        """The compressed tensor (rows, ...)."""
        return compress(weights, self.scheme, self.bits, **self.options)

    def with_option(self, name: str, value: Any) -> "TensorPlan":
        return replace(self, options={**self.options, name: value})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What becomes of each tensor, by its name."""

    tensors: dict[str, TensorPlan]

    @property
    def layer(self) -> TensorPlan:
        """The plan of the last layer on its own."""
        return self.tensors["weights"]


def layers_of(plans: list[Plan], weights: np.ndarray) -> list[Compressed]:
    """The last layer compressed by each of the plans; the weights hold the bias where it is compressed with them."""
    return [plan.layer.compress(weights) for plan in plans]


def network_plans(
    names: Iterable[str],
    scheme: str,
    bits: Sequence[int] | None,
    *,
    layers: Sequence[str] | None = None,
    layer_bits: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Plan]:
    """One scheme for the weights of a network: a plan for each width, or one where each weight has a width of its own.

    Args:
        names: of the weights there are. scheme, bits: as of one layer.
        layers: only these weights (default: all, or those of ``layer_bits`` where there are no ``bits``).
        layer_bits: widths of single weights, before those of ``bits``.
        options: of the scheme.

    Raises:
        InputError: a name there is none of, a width that the scheme does not have, or none for a weight.
    """
    known, own, names = scheme_of(scheme), dict(layer_bits or {}), list(names)
    for option, given in (("layers", layers or ()), ("layer_bits", own)):
        for name in given:
            if name not in names:
                raise InputError(f"{option}: expected weights among {listed(names, 30)}, got {name!r}")
    chosen = list(layers) if layers else (list(own) if own and bits is None else names)
    plans = []
    for width in [None] if bits is None else widths(bits):
        tensors = {}
        for name in chosen:
            known.check_bits(own.get(name, width))
            tensors[name] = TensorPlan(scheme=scheme, bits=own.get(name, width), options=dict(options or {}))
        plans.append(Plan(tensors=tensors))
    return plans
