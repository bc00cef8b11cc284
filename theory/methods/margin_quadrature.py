"""Two Gaussian classes, random errors: one integral over the clean margin, whatever the number of features."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Draws, Effect
from theory.integrals import two_classes
from theory.integrals.network_draws import Average, draw_networks
from theory.methods.base import Case, Method, refuses_kind

TOLERANCE = 3e-3  # error over the distortion with which it suffices
TOLERANCE_OF_FLIPS = 1e-3  # or over the flips, where the distortion nearly cancels
FEWEST_FEATURES = 4  # below which the Edgeworth series, and its error estimate, are not trusted


@dataclass(frozen=True, kw_only=True)
class MarginQuadrature(Method):
    """The noise of the margin given the margin by its first six cumulants; the error estimate is what the sixth adds and a
    coarser rule would change."""

    def refuses(self, case):
        return refuses_kind(case, many=False, integers=False)

    def answer(self, case):
        return [margin_effect(one, self.name, one.once(quadrature)) for one in case.each()]

    def suffices(self, case, effect):
        return precise(case, effect)


def precise(case: Case, average: Average | Effect) -> bool:
    """Whether an average by the quadrature is good enough."""
    priors = case.problem.priors
    size = max(TOLERANCE * abs(average.distortion @ priors), TOLERANCE_OF_FLIPS * float(average.flips @ priors))
    return case.given.weights.shape[1] >= FEWEST_FEATURES and bool(average.error <= size)


def quadrature(case: Case) -> Average:
    """The expected change by the quadrature, of one layer; errors are infinite where the margin is constant."""
    pair, at, errors = case.random_margin()
    moments = two_classes.moments(pair, *errors.weights())
    value = two_classes.quadrature(at, moments, *map(np.asarray, errors.moments()))
    sums = (float(np.asarray(error) @ pair.priors) for error in (value.error, value.flips_error))
    return Average(np.asarray(value.distortion), np.asarray(value.flips), *sums)


def margin_effect(case: Case, name: str, average: Average) -> Effect:
    """An average over random errors of one layer with the law of single networks behind its interval."""
    pair, at, _ = case.random_margin()
    return Effect(
        method=name,
        before=np.asarray(two_classes.class_risk(at)),
        distortion=average.distortion,
        flips=average.flips,
        before_error=float(two_classes.rounding(pair, at)),
        error=average.error,
        flips_error=average.flips_error,
        draws=case.once(_networks),
    )


def _networks(case: Case) -> Draws:
    return draw_networks(*case.random_margin(), case.problem.counts, case.seed, case.budget)


METHODS = (
    MarginQuadrature(
        name="margin_quadrature",
        source="margin_quadrature",
        summary="two classes: one integral over the margin",
        errors=("expected",),
        rank=0,
    ),
)
