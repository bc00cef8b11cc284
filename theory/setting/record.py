"""What every door returns: one record a width, the same fields for a prediction and for an estimate."""

import functools
import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from theory.setting.errors import InputError
from theory.setting.plan import Plan
from theory.setting.schemes import Compressed
from theory.setting.schemes.base import BREAKDOWN

SOURCES = ("network", "statistics", "test_set", "model")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Risk, distortion and flip rate of one compressed layer. Fractions throughout.

    A prediction (``theory.predict``) carries ``numerical_error`` (of the distortion), ``risk_before_error`` and
    ``flip_rate_error``, all 95 % half-widths; an estimate (``simulate.run``, ``simulate.measure``) carries ``standard_error``,
    ``flip_rate_standard_error`` and ``n``. ``distortion`` is risk after minus risk before. ``interval`` is for the distortion
    one network shows on a test set of the size asked for; ``interval_sources`` are standard deviations by name. Of a whole
    network ``plan`` has the width of each weight.

    Raises:
        InputError: a number came out that is not finite.
    """

    scheme: str
    bits: int | None
    granularity: str
    rate: float
    rate_breakdown: dict[str, int]
    compression_ratio: float
    ratio_to_source: float
    errors: str
    method: str
    risk_before: float
    risk_after: float
    distortion: float
    interval: tuple[float, float]
    confidence: float
    interval_sources: dict[str, float]
    flip_rate: float
    per_class: list[dict[str, float]]
    numerical_error: float
    risk_before_error: float
    flip_rate_error: float
    standard_error: float | None = None
    flip_rate_standard_error: float | None = None
    n: int | None = None
    sparsity: float = 0.0
    group_size: int | None = None
    plan: dict[str, int | None] | None = None
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        numbers |= {f"interval_sources of {name}": value for name, value in self.interval_sources.items()}
        numbers |= dict(zip(("lower end of the interval", "upper end of the interval"), self.interval, strict=True))
        for name, value in numbers.items():
            if not np.isfinite(value):
                raise InputError(
                    f"{name}: expected a finite number, got {value} from these weights and statistics: are they extreme or "
                    "degenerate?"
                )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what does not apply is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "bits"}


def compression_fields(compressed: Compressed, source_bits: int) -> dict[str, Any]:
    """The fields of a record that the compression alone determines."""
    rate = compressed.rate
    return {
        "scheme": compressed.scheme,
        "bits": compressed.bits,
        "granularity": compressed.granularity,
        "sparsity": compressed.sparsity,
        "group_size": compressed.options.get("group_size"),
        "rate": rate,
        "rate_breakdown": compressed.rate_breakdown,
        "compression_ratio": 32 / rate,
        "ratio_to_source": source_bits / rate,
    }


def network_fields(plan: Plan, breakdown: dict[str, int], weights: int) -> dict[str, Any]:
    """Those of a network compressed by a plan: stored bits by kind of so many weights of 32 bits."""
    tensors = list(plan.tensors.values())
    widths, first = {tensor.bits for tensor in tensors}, tensors[0]
    rate = sum(breakdown.values()) / weights
    group_size = first.options.get("group_size")
    return {
        "scheme": first.scheme,
        "bits": first.bits if len(widths) == 1 else None,
        "granularity": "group" if group_size else "channel" if first.options.get("per_channel") else "tensor",
        "sparsity": float(first.options.get("sparsity") or 0.0),
        "group_size": group_size,
        "rate": rate,
        "rate_breakdown": breakdown,
        "compression_ratio": 32 / rate,
        "ratio_to_source": 32 / rate,
        "plan": {name: tensor.bits for name, tensor in plan.tensors.items()},
    }


def tensor_fields(plan: Plan, tensors: Mapping[str, Compressed]) -> dict[str, Any]:
    """Those of a network whose tensors were compressed by a plan."""
    breakdown = {kind: sum(tensor.rate_breakdown[kind] for tensor in tensors.values()) for kind in BREAKDOWN}
    return network_fields(plan, breakdown, sum(tensor.weights.size for tensor in tensors.values()))


def class_fields(priors, before, after) -> list[dict[str, float]]:
    """``per_class`` from priors and recalls, class 0 first."""
    return [
        {"prior": float(p), "recall_before": float(np.clip(b, 0, 1)), "recall_after": float(np.clip(a, 0, 1))}
        for p, b, a in zip(np.asarray(priors), np.asarray(before), np.asarray(after), strict=True)
    ]


@functools.cache
def version() -> str:
    try:
        return importlib.metadata.version("compressed-network-theory")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
