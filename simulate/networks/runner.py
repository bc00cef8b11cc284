"""What a bench asks of a network, whatever framework runs it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np

from simulate.networks.inputs import Division, Inputs
from simulate.networks.weights import Weight
from theory.setting.errors import InputError
from theory.setting.schemes.uniform import affine_grid


class Grid(NamedTuple):
    """How the inputs of a layer are rounded: step, zero point, bits."""

    step: float
    zero: float
    bits: int


class Disturbance(NamedTuple):
    """What is done while a network runs: inputs of layers rounded to grids, errors (rows, columns) of weights shown with random
    signs; both by the name of the weight. ``seed``: of the signs."""

    grids: Mapping[str, Grid] = {}
    errors: Mapping[str, np.ndarray] = {}
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Runner(ABC):
    """A network that was opened: its name, the SHA-256 of its files, the channels of its images; once they were found its
    weights by name."""

    framework: ClassVar[str]
    name: str
    files: dict[str, str]
    channels: int
    weights: dict[str, Weight] = field(default_factory=dict)

    @abstractmethod
    def find_weights(self, inputs: Inputs) -> dict[str, Weight]:
        """The weights of convolutions and linear layers, in the order in which the network uses them.

        Raises:
            InputError: there is none, or one that cannot be replaced.
        """

    @abstractmethod
    def run(self, inputs: Inputs, part: slice, disturbance: Disturbance | None = None) -> np.ndarray:
        """(n, K) logits of the images of a part.

        Raises:
            InputError: logits that are not finite, or a disturbance that the framework lacks.
        """

    @abstractmethod
    def replaced(self, values: Mapping[str, np.ndarray]) -> AbstractContextManager[Any]:
        """The network with other values (rows, columns) of some weights, inside a ``with`` block."""

    def ranges(self, inputs: Inputs, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest entry of what enters each weight's layer, over the images of a part."""
        raise self.lacking("activation_bits", "a PyTorch or Keras")

    def folded(self, inputs: Inputs) -> AbstractContextManager[Any]:
        """The network with batch norms folded into the weights before them, inside a ``with`` block."""
        raise self.lacking("fold")

    def recalibrated(self, inputs: Inputs, part: slice, disturbance: Disturbance) -> AbstractContextManager[Any]:
        """The network with batch norms that have the statistics of the images of a part, inside a ``with`` block."""
        raise self.lacking("recalibrate")

    def lacking(self, option: str, having: str = "a PyTorch") -> InputError:
        """The refusal of what a framework lacks."""
        return InputError(f"{option}: expected {having} network, got {self.name}")


def input_grids(runner: Runner, inputs: Inputs, images: Division, bits: int) -> dict[str, Grid]:
    """Of what enters each weight's layer, affine on its range over the images that calibrate; over all where none do."""
    total = len(inputs.images.labels)
    low, high = runner.ranges(inputs, slice(images.calibrating if images.calibrating < total else 0, total))
    steps, zeros = affine_grid(low, high, bits)
    return {name: Grid(float(s), float(z), bits) for name, s, z in zip(runner.weights, steps, zeros, strict=True) if s > 0}


def finite_logits(logits: Sequence[np.ndarray], name: str) -> np.ndarray:
    """(n, K) of batches.

    Raises:
        InputError: one that is not finite.
    """
    found = np.concatenate([np.asarray(part, np.float64) for part in logits])
    bad = ~np.isfinite(found).all(1)
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{name}: expected finite logits, got NaN or infinity at image {first}: check the checkpoint and --mean, --std"
        )
    return found
