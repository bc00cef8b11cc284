"""Weights of a network as rows of output channels, whatever the framework holds them as."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """How a weight's entries lie as (rows, columns), a row an output channel: its axis, and the groups that a transposed
    convolution has. Of NumPy arrays and of PyTorch tensors."""

    axis: int
    groups: int = 1

    def of(self, weight: Any) -> Any:
        """(rows, columns) of a weight."""
        if self.groups > 1:  # (groups * inputs, outputs, ...) -> (groups * outputs, inputs * ...)
            parts = weight.reshape(self.groups, -1, *weight.shape[1:]).swapaxes(1, 2)
            return parts.reshape(self.groups * weight.shape[1], -1)
        return _moved(weight, self.axis, 0).reshape(weight.shape[self.axis], -1)

    def back(self, rows: Any, like: Any) -> Any:
        """A weight shaped like another from its (rows, columns)."""
        if self.groups > 1:
            parts = rows.reshape(self.groups, like.shape[1], -1, *like.shape[2:]).swapaxes(1, 2)
            return parts.reshape(like.shape)
        shape = [like.shape[self.axis], *(size for axis, size in enumerate(like.shape) if axis != self.axis)]
        return _moved(rows.reshape(shape), 0, self.axis)


def _moved(array: Any, axis: int, to: int) -> Any:
    """An axis moved, the order of the others kept."""
    step = 1 if to > axis else -1
    for place in range(axis, to, step):
        array = array.swapaxes(place, place + step)
    return array


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A weight of a network: its name, its values as rows of output channels (rows, columns), how they lie in the parameter."""

    name: str
    values: np.ndarray
    rows: Rows

    @property
    def ranges(self) -> np.ndarray:
        """(3, rows) what the entries of a row are scaled with: 1, max |W| of the row, and the extent of its values and 0."""
        low, high = np.minimum(self.values.min(1), 0), np.maximum(self.values.max(1), 0)
        return np.stack([np.ones(len(self.values)), np.maximum(-low, high), high - low])
