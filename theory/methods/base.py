"""What a method of prediction is: what it can't answer, said in words, and what it answers.

One method a file of this folder, which ends with a tuple ``METHODS``; the registry (:mod:`theory.methods`) finds it there, and
``predict``, ``--help`` and ``--method`` read the registry. Selecting is apart from answering: ``predict`` asks the methods that
do not refuse, in the order of their ``rank``, and takes the first whose answer suffices, else the one of least error.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from theory import statistics_variance
from theory.budget import DEFAULT, Budget
from theory.effect import Draws, Effect
from theory.error_model import ErrorModel, adapted, uniform
from theory.integrals import two_classes
from theory.integrals.line_averages import LineAverage
from theory.integrals.network_draws import MarginErrors, margin_errors
from theory.integrals.two_classes import Margin, Pair
from theory.setting import integer
from theory.setting.error_law import UniformErrors, uniform_errors
from theory.setting.features import Features
from theory.setting.problem import MOST_CLASSES, Problem
from theory.setting.question import Question
from theory.setting.schemes import Compressed

T = TypeVar("T")
MOST_COVARIANCES = 400  # classes with covariances of their own, of random layers: a gram of all logits for every class


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a method is asked.

    Attributes:
        question: the scheme and its options. errors: "actual", "expected" or "adapted".
        given: the problem or features whose layer is compressed: the bias a weight, the origin moved where it is asked.
        layers: its compressed layers, one a width; a method answers for all of them.
        ask: what the best methods say of another case, for methods that build on others.
        tied: whether rows whose weights tie their errors are taken so. temperature: of posteriors, None to fit it.
        seed: of quasi-random points. budget: how much work.
        memory: what several methods share, computed once.
    """

    question: Question
    errors: str
    given: Problem | Features
    layers: tuple[Compressed, ...]
    ask: "Callable[[Case], list[Effect]]" = field(repr=False, compare=False)
    tied: bool = True
    temperature: float | None = None
    seed: int = 0
    budget: Budget = DEFAULT
    memory: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, function: Callable[["Case"], T]) -> T:
        """``function(self)``, computed the first time only."""
        key = (function, *map(id, self.layers))
        if key not in self.memory:
            self.memory[key] = function(self)
        return self.memory[key]

    def only(self, indices: Sequence[int]) -> "Case":
        """The same of some layers."""
        return replace(self, layers=tuple(self.layers[i] for i in indices))

    def each(self) -> "list[Case]":
        """A case for every layer."""
        return [self.only([i]) for i in range(len(self.layers))]

    @property
    def layer(self) -> Compressed:
        """The layer of a case of one."""
        (layer,) = self.layers
        return layer

    @property
    def problem(self) -> Problem:
        """The subject as a problem, as known layers meet it: of ``integer`` the layer of the inputs (z, u, 1)."""
        subject = self.known[0]
        assert isinstance(subject, Problem)
        return subject

    @property
    def known(self) -> tuple[Problem | Features, list[Compressed]]:
        """The subject and the layers as they meet it when weights are known (:func:`theory.setting.integer.actual`)."""
        return self.once(_known)

    @property
    def weights(self) -> np.ndarray:
        """(B, rows, d) of the known layers."""
        return np.stack([layer.weights for layer in self.known[1]])

    def uniform_errors(self, layer: Compressed) -> UniformErrors:
        """Of a layer with a step."""
        return uniform_errors(self.given.weights, layer, tied=self.tied)

    def error_model(self, layer: Compressed) -> ErrorModel:
        """Of a layer, for random errors: uniform ones, or adapted to its own."""
        if self.errors == "adapted":
            return adapted(self.given.weights, layer, tied=self.tied)
        return uniform(self.given.weights, self.uniform_errors(layer))

    def pair(self) -> tuple[Pair, Margin]:
        """Of two Gaussian classes."""
        return self.once(_pair)

    def random_margin(self) -> tuple[Pair, Margin, MarginErrors]:
        """Of two Gaussian classes and one layer, the margin in the features in which all errors have one variance."""
        return self.once(_random_margin)


def random_effect(case: Case, errors: UniformErrors, *, method: str, average: LineAverage, networks: np.ndarray) -> Effect:
    """Of random layers of more than two classes: the average, and the distortions (n,) of single networks.

    Each network is given the average share of samples whose correctness changes, or |D| where that is more, and the variance
    that the statistics leave to the average.
    """
    problem = case.problem
    variance = statistics_variance.expected_statistics_variance(
        problem, errors, average.distortion, average.changed, seed=case.seed
    )
    changed = np.maximum(average.changed @ problem.priors, np.abs(networks))
    draws = Draws("networks drawn", networks, changed, np.full(len(networks), variance))
    return Effect(method=method, **average.numbers(), draws=draws)


def _known(case: Case) -> tuple[Problem | Features, list[Compressed]]:
    bits = case.question.activation_bits
    if bits is None or case.errors != "actual":
        return case.given, list(case.layers)
    return integer.actual(case.given, case.layers, bits, case.question.bias_correction)


def _pair(case: Case) -> tuple[Pair, Margin]:
    pair = two_classes.pair_of(case.problem)
    return pair, two_classes.margin(pair)


def _random_margin(case: Case) -> tuple[Pair, Margin, MarginErrors]:
    pair, at = case.pair()
    errors = margin_errors(case.uniform_errors(case.layer))
    if errors.columns is None:
        return pair, at, errors
    pair = pair.scaled(errors.columns)
    return pair, two_classes.margin(pair), errors


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to answer.

    Attributes:
        name: what users call it. source: the derivation that it evaluates. summary: one line for help.
        errors: those it speaks of. rank: its place among the methods asked, the least first; None where it is only asked by
            name.
    """

    name: str
    source: str
    summary: str
    errors: tuple[str, ...]
    rank: int | None = 0

    @abstractmethod
    def refuses(self, case: Case) -> str | None:
        """The assumption that does not hold, in words a user reads; None where it can answer."""

    @abstractmethod
    def answer(self, case: Case) -> list[Effect]:
        """What each of the layers does."""

    @abstractmethod
    def suffices(self, case: Case, effect: Effect) -> bool:
        """Whether no other method need be asked."""


def refuses_kind(
    case: Case, *, features: bool = False, mixture: bool = False, many: bool | None = None, integers: bool = True
) -> str | None:
    """What is refused of a subject: features or a problem, mixtures or Gaussian classes, two classes or more, random layers of
    quantized inputs."""
    if isinstance(case.given, Features) != features:
        return "features themselves" if features else "the statistics of a problem, not features"
    if isinstance(case.given, Problem) and (case.given.components is not None) != mixture:
        return "classes that are mixtures" if mixture else "Gaussian classes, not mixtures"
    if many is not None and (case.given.classes > 2) != many:
        return "more than two classes" if many else "two classes"
    if many and case.given.classes > MOST_CLASSES:
        return f"at most {MOST_CLASSES} classes, whose pairs take K x K arrays; features themselves serve for any number"
    own = isinstance(case.given, Problem) and not case.given.shared
    if many and own and case.errors != "actual" and case.given.classes > MOST_COVARIANCES:
        return f"at most {MOST_COVARIANCES} classes with covariances of their own; features themselves serve for any number"
    if not integers and case.question.activation_bits is not None:
        return "inputs that are not quantized"
    return None
