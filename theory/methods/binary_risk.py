"""Two Gaussian classes, weights known: risk and flips in closed form (``binary_risk``, ``binary_flip_rate``)."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Effect, known_network
from theory.integrals import two_classes
from theory.methods.base import Case, Method, refuses_kind
from theory.setting.problem import margin


@dataclass(frozen=True, kw_only=True)
class BinaryRisk(Method):
    """Exact but for rounding."""

    def refuses(self, case):
        return refuses_kind(case, many=False)

    def answer(self, case):
        return [self._one(case, layer.weights) for layer in case.known[1]]

    def suffices(self, case, effect):
        return True

    def _one(self, case: Case, weights: np.ndarray) -> Effect:
        problem, (pair, at) = case.problem, case.pair()
        known = two_classes.known(pair, at, margin(weights, problem.bias)[0])
        variance = 0.0
        if problem.counts is not None:
            variance = float(two_classes.statistics_variance(pair.priors, problem.counts.astype(float), at, known.change))
        return Effect(
            method=self.name,
            before=np.asarray(two_classes.class_risk(at)),
            distortion=known.distortion,
            flips=known.flips,
            before_error=float(two_classes.rounding(pair, at)),
            error=known.error,
            flips_error=known.error,
            draws=known_network(float(known.distortion @ pair.priors), float(known.flips @ pair.priors), variance),
        )


METHODS = (
    BinaryRisk(
        name="binary_risk",
        source="binary_risk",
        summary="two classes: exact",
        errors=("actual",),
    ),
)
