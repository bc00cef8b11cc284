"""More than two Gaussian classes, random errors: orthants of pairs of random layers, flips along lines."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Effect
from theory.integrals.contrasts import has_orthants, orthant_pairs
from theory.integrals.line_averages import average_of, random_lines
from theory.integrals.orthant import estimate
from theory.methods.base import Case, Method, random_effect, refuses_kind
from theory.methods.orthants import NEEDS


@dataclass(frozen=True, kw_only=True)
class OrthantAverage(Method):
    """Exact up to the reported error: pairs W + E, W - E and the clean layer at points of their own."""

    def refuses(self, case):
        return refuses_kind(case, many=True, integers=False) or (None if has_orthants(case.problem) else NEEDS)

    def answer(self, case):
        return [self._one(one) for one in case.each()]

    def suffices(self, case, effect):
        return True

    def _one(self, case: Case) -> Effect:
        priors, errors = case.problem.priors, case.uniform_errors(case.layer)
        precision = case.budget.flips_alone_precision
        sets = random_lines(case.problem, errors, seed=case.seed, budget=case.budget, precision=precision)
        average = average_of(sets[:, :, None], priors)
        recalls, error, noise = orthant_pairs(case.problem, errors, seed=case.seed, budget=case.budget)
        shifts = recalls[:, :, :1] - recalls[:, :, 1:]
        draws = (shifts @ priors).reshape(-1)
        spread = np.sqrt(max(0.0, 1 - noise / max(draws.var(), 1e-300)))  # of networks, without the noise of the points
        average = average._replace(
            before=1 - recalls[:, :, 0].mean((0, 1)),
            before_error=float(estimate(recalls[:, :, 0].mean(1) @ priors).error),
            distortion=shifts.mean((0, 1, 2)),
            error=error,
        )
        networks = draws.mean() + spread * (draws - draws.mean())
        return random_effect(case, errors, method=self.name, average=average, networks=networks)


METHODS = (
    OrthantAverage(
        name="orthant_average",
        source="separation_factor",
        summary="more classes: orthants of pairs of random layers",
        errors=("expected",),
        rank=0,
    ),
)
