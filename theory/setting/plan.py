"""A plan: which tensor gets which scheme, width, granularity and, where there is a choice, which step. Plain data.

Whoever chooses (the step of least distortion, the fewest bits) returns a plan; whoever compresses takes one. The last layer on
its own is the tensor "weights", as its array is called.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from theory.setting.checks import whole, widths
from theory.setting.errors import InputError, listed
from theory.setting.schemes import SCHEMES, Compressed, compress, scheme_of
from theory.setting.schemes.uniform import MAX_ABS_PARTS

ROUNDING = 1e-13  # squared error over the squared weights, or distortion, within which two steps are as good


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
    """What becomes of each tensor, by its name; ``fold``: of the weights that batch norm was folded into."""

    tensors: dict[str, TensorPlan]
    fold: bool = False

    def as_dict(self, scheme: str, *, rate: float, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The plan of a network as the JSON document that a file holds."""
        channel = any(tensor.options.get("per_channel") for tensor in self.tensors.values())
        return {
            "scheme": scheme,
            "granularity": "channel" if channel else "tensor",
            "fold": self.fold,
            "tensors": {name: {"bits": tensor.bits} for name, tensor in self.tensors.items()},
            "rate": rate,
            "provenance": dict(provenance or {}),
        }

    def check_stepped(self) -> None:
        """Refuse a tensor whose scheme has no step, and so no errors but its own."""
        for tensor in self.tensors.values():
            if not SCHEMES[tensor.scheme].stepped:
                raise InputError(
                    f"errors: expected 'actual' for scheme {tensor.scheme}, whose errors are known, got 'expected'"
                )

    @property
    def layer(self) -> TensorPlan:
        """The plan of the last layer on its own."""
        return self.tensors["weights"]


def least_squares_step(plan: TensorPlan, weights: np.ndarray) -> int:
    """The step in 256ths of the max-abs step that leaves the least squared error, the largest one on a tie."""
    parts = range(1, MAX_ABS_PARTS + 1)
    costs = np.array([np.sum((plan.with_option("step", part).compress(weights).weights - weights) ** 2) for part in parts])
    alike = costs <= costs.min() + ROUNDING * float(np.sum(weights**2))
    return parts[int(np.flatnonzero(alike)[-1])]


def with_least_squares(plans: Sequence[Plan], weights: Mapping[str, np.ndarray]) -> list[Plan]:
    """The plans of a network of these weights (rows, columns), the step of least squared error where it is open.

    Raises:
        InputError: a step of least distortion, which is known of one layer alone.
    """
    chosen = []
    for plan in plans:
        tensors = {}
        for name, tensor in plan.tensors.items():
            open_step = SCHEMES[tensor.scheme].option("step") is not None and "step" not in tensor.options
            if open_step and tensor.options.get("criterion") != "mse":
                raise InputError("criterion: expected mse for several layers, the least distortion is known of one alone")
            tensors[name] = tensor.with_option("step", least_squares_step(tensor, weights[name])) if open_step else tensor
        chosen.append(replace(plan, tensors=tensors))
    return chosen


def layers_of(plans: list[Plan], weights: np.ndarray) -> list[Compressed]:
    """The last layer compressed by each of the plans; the weights hold the bias where it is compressed with them."""
    return [plan.layer.compress(weights) for plan in plans]


def network_plans(
    names: Iterable[str],
    scheme: str,
    bits: Sequence[int] | int | None,
    *,
    layers: Sequence[str] | None = None,
    layer_bits: Mapping[str, int] | None = None,
    options: Mapping[str, Any] | None = None,
    fold: bool = False,
) -> list[Plan]:
    """One scheme for the weights of a network: a plan for each width, or one where each weight has a width of its own.

    Args:
        names: of the weights there are. scheme, bits: as of one layer.
        layers: only these weights (default: all, or those of ``layer_bits`` where there are no ``bits``).
        layer_bits: widths of single weights, before those of ``bits``.
        options: of the scheme. fold: whether batch norm is folded into the weights.

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
        plans.append(Plan(tensors=tensors, fold=fold))
    return plans


def plan_of(document: Any, names: Iterable[str]) -> Plan:
    """The plan that a JSON document holds, for a network of these weights.

    Raises:
        InputError: another document, a weight that the network has not, or one that it leaves out.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("tensors"), Mapping) or not document["tensors"]:
        raise InputError("plan: expected an object with `scheme`, `granularity` and `tensors`, got another document")
    names, given = list(names), document["tensors"]
    for name in given:
        if name not in names:
            raise InputError(f"plan: got {name!r}: a plan of another network? expected weights among {listed(names, 30)}")
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"plan: expected all weights of the network, got none for {listed(missing)}")
    tensors = {}
    for name in names:
        own = given[name]
        if not isinstance(own, Mapping):
            raise InputError(f"plan: {name}: expected an object with `bits`, got {own!r}")
        scheme, granularity = (own.get(key, document.get(key)) for key in ("scheme", "granularity"))
        if granularity not in ("tensor", "channel"):
            raise InputError(f"plan: {name}: granularity: expected tensor or channel, got {granularity!r}")
        options = {"per_channel": True} if granularity == "channel" else {}
        options |= {"step": own["step"]} if "step" in own else {}
        known = scheme_of(str(scheme))
        width = None if own.get("bits") is None else whole(f"plan: {name}: bits", own["bits"], 1)
        known.check_bits(width)
        tensors[name] = TensorPlan(scheme=known.name, bits=width, options=options)
    return Plan(tensors=tensors, fold=_folded(document))


def _folded(document: Mapping[str, Any]) -> bool:
    given = document.get("fold", False)
    if not isinstance(given, bool):
        raise InputError(f"plan: fold: expected true or false, got {given!r}")
    return given
