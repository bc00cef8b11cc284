"""Two Gaussian classes, random errors: the formulas of a textbook, asked for by name, to be held against the quadrature."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Effect
from theory.integrals import two_classes
from theory.integrals.network_draws import Average
from theory.methods.base import Case, Method, refuses_kind
from theory.methods.margin_quadrature import margin_effect, quadrature


@dataclass(frozen=True, kw_only=True)
class OlderFormula(Method):
    """One closed form. Its error is its distance from the quadrature, whose flips it gives."""

    def refuses(self, case):
        if case.question.options.get("group_size"):
            return "one step a row: its formula has one variance for all errors"
        return refuses_kind(case, many=False, integers=False)

    def answer(self, case):
        return [self._one(one) for one in case.each()]

    def suffices(self, case, effect):
        return False

    def _one(self, case: Case) -> Effect:
        return margin_effect(case, self.name, average_by(self.name, case))


def average_by(name: str, case: Case) -> Average:
    """The expected change of one layer by the closed form of that name."""
    _, at, errors = case.random_margin()
    v, _, _ = errors.moments()
    change = np.asarray(two_classes.older_formula(name, at, np.asarray(v)))
    reference = case.once(quadrature)
    gap = float(np.abs(change - reference.distortion) @ case.problem.priors)
    return Average(change, reference.flips, gap, reference.flips_error)


METHODS = tuple(
    OlderFormula(name=name, source=name, summary=f"two classes: {summary}", errors=("expected",), rank=None)
    for name, summary in (
        ("delta_2", "the delta method to second order"),
        ("marginal", "the variance of the noise added to that of the margin"),
        ("corrected_marginal", "the same with the correlation of noise and margin"),
    )
)
