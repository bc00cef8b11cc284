"""More than two Gaussian classes, random errors: each pair of random layers W + E, W - E seen along one random line a class."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Effect
from theory.integrals.line_averages import average_of, networks_on_lines, random_lines
from theory.methods.base import Case, Method, random_effect, refuses_kind


@dataclass(frozen=True, kw_only=True)
class LineAverageMethod(Method):
    """Exact up to the reported error; rows may be tied or equal, covariances singular. It suffices where that error is small
    beside the distortion, or beside the spread of single networks."""

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
        deviations = networks_on_lines(case.problem, errors, seed=case.seed, budget=case.budget)
        networks = average.distortion @ case.problem.priors + deviations
        return random_effect(case, errors, method=self.name, average=average, networks=networks)


METHODS = (
    LineAverageMethod(
        name="line_average",
        source="line_crossing",
        summary="more classes: random layers along lines",
        errors=("expected",),
        rank=1,
    ),
)
