"""A plan: which tensor gets which scheme, width, granularity and, where there is a choice, which step. Plain data.

Whoever chooses (the step of least distortion, the fewest bits) returns a plan; whoever compresses takes one. The last layer on
its own is the tensor "weights", as its array is called.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from theory.setting.schemes import Compressed, compress


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
