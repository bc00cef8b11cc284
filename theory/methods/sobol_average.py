"""Two Gaussian classes, random errors: the exact risk averaged over quasi-random errors."""

from dataclasses import dataclass

from theory.integrals.network_draws import sobol_average
from theory.methods.base import Method, refuses_kind
from theory.methods.margin_quadrature import margin_effect


@dataclass(frozen=True, kw_only=True)
class SobolAverage(Method):
    """Exact up to the reported error; the cost grows with the square of the features."""

    def refuses(self, case):
        return refuses_kind(case, many=False, integers=False)

    def answer(self, case):
        return [margin_effect(one, self.name, sobol_average(*one.random_margin(), one.seed)) for one in case.each()]

    def suffices(self, case, effect):
        return True


METHODS = (
    SobolAverage(
        name="sobol_average",
        source="binary_risk",
        summary="two classes: exact risks averaged over quasi-random errors",
        errors=("expected",),
        rank=1,
    ),
)
