"""More than two Gaussian classes, random errors: pairs of random layers, each along a line of its own a class."""

from dataclasses import dataclass

import numpy as np

from theory import statistics_variance
from theory.effect import Draws, Effect
from theory.integrals.line_averages import LineAverage, average_of, networks_on_lines, random_lines
from theory.methods.base import Case, Method, refuses_kind


@dataclass(frozen=True, kw_only=True)
class LineAverageMethod(Method):
    """Exact up to the reported error; it asks nothing of the layer. It suffices where that error is small beside the
    distortion, or beside the spread of single networks."""

    def refuses(self, case):
        return refuses_kind(case, many=True, integers=False)

    def answer(self, case):
        return [self._one(one) for one in case.each()]

    def suffices(self, case, effect):
        D, spread = float(effect.distortion @ case.problem.priors), float(np.std(effect.draws.distortion))
        return effect.error <= max(case.budget.average_precision * abs(D), case.budget.spread_precision * spread)

    def _one(self, case: Case) -> Effect:
        errors = case.uniform_errors(case.layer)
        sets = random_lines(case.problem, errors, seed=case.seed, budget=case.budget)
        average = average_of(sets[:, :, None], case.problem.priors)
        around = networks_on_lines(case.problem, errors, seed=case.seed, budget=case.budget)
        return random_effect(case, self.name, average, average.distortion @ case.problem.priors + around)


def random_effect(case: Case, name: str, average: LineAverage, networks: np.ndarray) -> Effect:
    """Of one layer, with the distortions of single networks (n,) and what the statistics leave open."""
    problem, errors = case.problem, case.uniform_errors(case.layer)
    variance = statistics_variance.expected_statistics_variance(
        problem, errors, average.distortion, average.changed, seed=case.seed
    )
    changed = np.maximum(average.changed @ problem.priors, np.abs(networks))
    return Effect(
        method=name,
        **average.numbers(),
        draws=Draws("networks drawn", networks, changed, np.full(len(networks), variance)),
    )


METHODS = (
    LineAverageMethod(
        name="line_average",
        source="line_crossing",
        summary="more classes: random layers along lines",
        errors=("expected",),
        rank=1,
    ),
)
