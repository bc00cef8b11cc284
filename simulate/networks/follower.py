"""What :func:`simulate.linearize` asks of a framework: how errors of weights and inputs move the logits of images."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulate.networks.runner import Runner

MOST_JACOBIAN = 2**26  # entries of the Jacobians of a chunk of images that are held at once: a quarter of a GiB


class Followed(NamedTuple):
    """Of n images and their C candidates Grams (S, weights, n, C, C) and shifts (S, M, weights, n, C) of weights, S the scales
    of their rows; and Grams (inputs, n, C, C) of what enters layers."""

    grams: np.ndarray
    shifts: np.ndarray
    entering: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Follower(ABC):
    """``runner``: the network, its weights found. ``entering``: entries of what enters its layers, of one image, by the weight
    that first takes it. ``largest``: entries of the largest Jacobian of one image by one logit."""

    runner: Runner
    entering: dict[str, int]
    largest: int

    @abstractmethod
    def follow(self, images: np.ndarray, candidates: np.ndarray, errors: dict[str, np.ndarray]) -> Followed:
        """Normalized images (n, channels, H, W), the classes (n, C) whose logits are followed, and errors (rows, columns, M) of
        every weight."""
