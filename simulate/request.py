"""What is to be sampled: a problem, its compressed layers, and how much of it."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from theory.setting.error_law import UniformErrors, uniform_errors
from theory.setting.errors import InputError
from theory.setting.problem import Problem
from theory.setting.question import Question
from theory.setting.schemes import Compressed

PAIRS = 10**6  # samples by default: at least as good as a million independent pairs


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be sampled.

    Attributes:
        question: the scheme and its options. problem: as the compressed layer meets it. layers: one a width.
        errors: "actual" or "expected". tied: whether rows whose weights tie their errors are taken so.
        confidence: of the interval. test_size: of a test set, whose noise is said. n, standard_error, networks: as
            :func:`simulate.run`. seed: of the draws. provenance: of the records.
    """

    question: Question
    problem: Problem
    layers: list[Compressed]
    errors: str
    tied: bool = True
    confidence: float = 0.95
    test_size: int | None = None
    n: int | None = None
    standard_error: float | None = None
    networks: int | None = None
    seed: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def weights(self) -> list[np.ndarray]:
        """Of the compressed layers."""
        return [layer.weights for layer in self.layers]

    @property
    def uniform_errors(self) -> list[UniformErrors]:
        """Of each layer."""
        return [uniform_errors(self.problem.weights, layer, tied=self.tied) for layer in self.layers]

    def by_ties(self) -> list[list[int]]:
        """Indices of the layers whose rows are tied in the same way, which can share their uniforms: which rows are tied, and
        whether entry by entry, can depend on the width."""
        alike: dict[tuple, list[int]] = {}
        for i, errors in enumerate(self.uniform_errors):
            alike.setdefault((errors.wide.shape, *map(int, errors.group)), []).append(i)
        return list(alike.values())

    def only(self, indices: list[int]) -> "Request":
        """The same of some layers."""
        return replace(self, layers=[self.layers[i] for i in indices])


MOST_VECTORS = 10**12  # feature vectors: hours of a fast machine
MOST_NETWORKS = 10**9  # likewise
LEAST_LOGITS = 1e-30  # they are computed in float32
LEAST_ERROR = 1e-10  # standard error: beyond what single precision tells apart


def check_work(request: Request) -> None:
    """Refuse what would take hours, with its size."""
    if (request.networks or 0) > MOST_NETWORKS:
        raise InputError(f"networks: expected at most {MOST_NETWORKS:.0e}, got {request.networks:.3g}")
    if (request.n or 0) > MOST_VECTORS:
        raise InputError(f"n: expected at most {MOST_VECTORS:.0e} feature vectors, got {request.n:.3g}")
    problem, sd = request.problem, np.sqrt(np.diagonal(request.problem.covariances, axis1=-2, axis2=-1).max())
    size = np.abs(problem.weights).max() * (np.abs(problem.means).max() + sd)
    if 0 < size < LEAST_LOGITS:
        raise InputError(
            f"weights, means: logits of size {size:.1g} are too small to be counted, expected at least {LEAST_LOGITS:g}: give "
            "weights and bias in a larger unit"
        )
    if request.standard_error is not None and request.standard_error < LEAST_ERROR:
        raise InputError(f"standard_error: expected at least {LEAST_ERROR:g}, got {request.standard_error:g}")


def check_wanted(vectors: float, request: Request) -> None:
    """Refuse a standard error that needs as many feature vectors, where that would take hours."""
    if request.standard_error is not None and vectors > MOST_VECTORS:
        raise InputError(
            f"standard_error: {request.standard_error:g} needs some {vectors:.0e} feature vectors, expected at most "
            f"{MOST_VECTORS:.0e}"
        )
