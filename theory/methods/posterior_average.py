"""More than two Gaussian classes, random errors: labels and errors integrated out near the decision boundary."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Effect
from theory.integrals import near_boundary
from theory.integrals.line_averages import LineAverage, along_lines, average_of, in_common
from theory.integrals.orthant import estimate
from theory.methods.base import Case, Method, random_effect, refuses_kind


@dataclass(frozen=True, kw_only=True)
class PosteriorAverage(Method):
    """Exact up to the reported error, what is neglected included."""

    def refuses(self, case):
        why = refuses_kind(case, many=True, integers=False)
        if why is not None:
            return why
        serves = all(near_boundary.serves(case.problem, case.uniform_errors(layer)) for layer in case.layers)
        return None if serves else near_boundary.NEEDS

    def answer(self, case):
        return [self._one(one) for one in case.each()]

    def suffices(self, case, effect):
        return False

    def _one(self, case: Case) -> Effect:
        problem, steps, how = case.problem, case.layer.steps[:, 0], {"seed": case.seed, "budget": case.budget}
        deviations = in_common(near_boundary.networks(problem, steps, **how)[None])
        enough = case.budget.spread_precision * float(np.std(deviations))
        sums, pi = near_boundary.averages(problem, steps, enough=enough, **how), problem.priors
        clean = average_of(along_lines(problem, problem.weights[None], seed=case.seed, work=case.budget.line_work), pi)
        neglected, distortion, flips = sums.neglected.mean(0), estimate(sums.loss.sum(1)), estimate(sums.flips.sum(1))
        average = LineAverage(
            before=clean.before,
            distortion=sums.loss.mean(0) / pi,
            flips=sums.flips.mean(0) / pi,
            changed=sums.changed.mean(0) / pi,
            before_error=clean.before_error,
            error=float(distortion.error + neglected[0]),
            flips_error=float(flips.error + neglected[1]),
        )
        errors, networks = case.uniform_errors(case.layer), float(distortion.value) + deviations
        return random_effect(case, errors, method=self.name, average=average, networks=networks)


METHODS = (
    PosteriorAverage(
        name="posterior_average",
        source="posterior_loss",
        summary="more classes: labels and errors integrated out near the boundary",
        errors=("expected",),
        rank=2,
    ),
)
