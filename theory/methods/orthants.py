"""More than two Gaussian classes, weights known: recalls as orthants of the contrasts, flips along lines."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from theory.integrals.contrasts import DOUBLE, MOST_RIVALS, has_orthants, laws_of, orthants
from theory.integrals.orthant import SCRAMBLINGS, estimate
from theory.methods.base import Case, Method, refuses_kind
from theory.methods.lines import enough, known_effect, line_averages

FEWEST, MOST_POINTS = 2**7, 2**15  # points a scrambling

NEEDS = f"at most {MOST_RIVALS + 1} classes, no more than features + 1, and linearly independent contrasts"


@dataclass(frozen=True, kw_only=True)
class Orthants(Method):
    """Exact up to the reported error; the same points for the clean and all compressed layers."""

    def refuses(self, case):
        return refuses_kind(case, many=True) or (None if has_orthants(case.problem) else NEEDS)

    def answer(self, case):
        priors, averages, recalls = case.problem.priors, case.once(line_averages), _recalls(case)
        effects = []
        for i, average in enumerate(averages):
            before, shift = 1 - recalls[:, 0], recalls[:, 0] - recalls[:, 1 + i]
            average = average._replace(
                before=before.mean(0),
                distortion=shift.mean(0),
                before_error=float(estimate(before @ priors).error),
                error=float(estimate(shift @ priors).error),
            )
            effects.append(known_effect(case, i, self.name, average))
        return effects

    def suffices(self, case, effect):
        return False  # of dependent or nearly tied contrasts of a compressed layer lines know more


def _recalls(case: Case) -> np.ndarray:
    """(SCRAMBLINGS, 1 + B, K) of the clean and the compressed layers, at more points until their difference is known."""
    problem, budget, K = case.problem, case.budget, case.problem.classes
    laws, flips = laws_of(problem, case.weights), [average.flips @ problem.priors for average in case.once(line_averages)]
    most = int(2 ** np.clip(np.floor(np.log2(budget.orthant_work / SCRAMBLINGS / (2 * K * (K - 1)))), 7, np.log2(MOST_POINTS)))
    n, dtype = min(most, FEWEST), jnp.float64 if K <= DOUBLE else jnp.float32
    while True:
        recalls = orthants(laws, n=n, seed=case.seed, dtype=dtype)
        average = estimate((recalls[:, :1] - recalls[:, 1:]) @ problem.priors)
        scale = [max(abs(D), 0.1 * float(share)) for D, share in zip(average.value, flips, strict=True)]
        good = np.minimum(budget.orthant_precision * np.array(scale), budget.orthant_accuracy)
        if n == most or np.all(average.error <= np.maximum(good, case.once(enough))):
            return recalls
        n = min(most, 4 * n)


METHODS = (
    Orthants(
        name="orthants",
        source="separation_factor",
        summary="more classes: orthants of the contrasts",
        errors=("actual",),
        rank=0,
    ),
)
