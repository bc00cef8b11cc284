"""Classes that are mixtures of Gaussians, weights known: along lines within components."""

from dataclasses import dataclass

from theory.effect import Effect, known_network
from theory.integrals import mixtures
from theory.methods.base import Method, refuses_kind
from theory.setting.problem import MOST_CLASSES


@dataclass(frozen=True, kw_only=True)
class ComponentLines(Method):
    """Exact up to the reported error."""

    def refuses(self, case):
        why = refuses_kind(case, mixture=True)
        return why or (None if case.given.classes <= MOST_CLASSES else f"at most {MOST_CLASSES} classes")

    def answer(self, case):
        problem = case.problem
        averages, variances = mixtures.known(problem, case.weights, seed=case.seed, budget=case.budget)
        return [
            Effect(
                method=self.name,
                before=one.before,
                distortion=one.distortion,
                flips=one.flips,
                before_error=one.before_error,
                error=one.error,
                flips_error=one.flips_error,
                draws=known_network(float(one.distortion @ problem.priors), float(one.changed @ problem.priors), variance),
            )
            for one, variance in zip(averages, variances, strict=True)
        ]

    def suffices(self, case, effect):
        return True


METHODS = (
    ComponentLines(
        name="component_lines",
        source="line_crossing",
        summary="mixtures: along lines within components",
        errors=("actual",),
    ),
)
