"""More than two Gaussian classes, weights known: integrated exactly along lines, which asks nothing of the layer."""

from dataclasses import dataclass

import numpy as np

from theory import small_steps, statistics_variance
from theory.effect import Effect, known_network
from theory.integrals.line_averages import LineAverage, known_lines
from theory.methods.base import Case, Method, refuses_kind

SHARE_OF_FITTED = 0.25  # of the lines, where fitted statistics leave more open than these
UNSEEN = 0.05  # error of a distortion over the standard deviation that fitted statistics leave it, with which it will do


@dataclass(frozen=True, kw_only=True)
class Lines(Method):
    """Exact up to the reported error."""

    def refuses(self, case):
        return refuses_kind(case, many=True)

    def answer(self, case):
        averages = case.once(line_averages)
        return [known_effect(case, i, self.name, average) for i, average in enumerate(averages)]

    def suffices(self, case, effect):
        return False


def within(case: Case) -> np.ndarray | None:
    """(B,) sampling variance of the distortions within classes, None where there is none or it is not known."""
    return statistics_variance.within_classes(case.problem, case.weights, seed=case.seed)


def enough(case: Case) -> np.ndarray | float:
    """Error of the distortions beyond which the fitted statistics drown it."""
    variance = case.once(within)
    return 0.0 if variance is None else UNSEEN * np.sqrt(variance)


def line_averages(case: Case) -> list[LineAverage]:
    """Of all layers, along common lines."""
    share = SHARE_OF_FITTED if np.any(case.once(enough)) else 1.0
    return known_lines(case.problem, case.weights, seed=case.seed, budget=case.budget, share=share)


def known_effect(case: Case, index: int, name: str, average: LineAverage) -> Effect:
    """Of the layer of that index, with what the statistics leave open and a certified bracket of its risk."""
    problem, variance = case.problem, case.once(within)
    own = statistics_variance.statistics_variance(
        problem, average.distortion, average.changed, None if variance is None else float(variance[index])
    )
    distortion = float(average.distortion @ problem.priors)
    return Effect(
        method=name,
        **average.numbers(),
        draws=known_network(distortion, max(float(average.changed @ problem.priors), abs(distortion)), own),
        notes={"risk_after_between": list(case.once(_brackets)[index])},
    )


def _brackets(case: Case) -> list[tuple[float, float]]:
    """Of the risk of every layer."""
    return [small_steps.risk_bracket(case.problem, layer.weights) for layer in case.known[1]]


METHODS = (
    Lines(
        name="lines",
        source="line_crossing",
        summary="more classes: integrated along lines",
        errors=("actual",),
        rank=1,
    ),
)
