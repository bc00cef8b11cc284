"""Random integer layers of Gaussian classes: their mean distortion in two steps, without the noise of drawn points.

What quantized inputs do to the clean layer, known; then what errors do to the layer of inputs that have the law of the
quantized ones (``input_noise`` in :mod:`derivations.arithmetic`). Flips and spread are those of drawn points.
"""

from dataclasses import dataclass, replace

from theory.effect import Effect
from theory.methods.base import Case, Method, refuses_kind
from theory.methods.own_noise import averaged_over_points
from theory.setting import integer
from theory.setting.problem import Problem
from theory.setting.schemes import SCHEMES


@dataclass(frozen=True, kw_only=True)
class InputNoise(Method):
    """The sum of two parts, each exact up to its error."""

    def refuses(self, case):
        return refuses_kind(case) or (None if case.question.activation_bits is not None else "quantized inputs")

    def answer(self, case):
        return [self._one(one) for one in case.each()]

    def suffices(self, case, effect):
        return True

    def _one(self, case: Case) -> Effect:
        problem, bits = case.given, case.question.activation_bits
        assert isinstance(problem, Problem)  # else it refuses
        assert bits is not None
        drawn = averaged_over_points(case, self.name)
        plain = replace(case.question, scheme=SCHEMES["affine"], options={}, bias_correction=False)
        lifted, W = integer.unrounded(problem, bits)
        layers = (replace(case.layer, weights=W),)
        (inputs,) = case.ask(replace(case, question=plain, errors="actual", given=lifted, layers=layers, memory={}))
        noisy = integer.noisy(problem, bits, case.question.bias_correction)
        (weights,) = case.ask(replace(case, question=plain, given=noisy, memory={}))
        distortion = inputs.distortion + weights.distortion
        shift = (distortion - drawn.distortion) @ problem.priors
        return drawn._replace(
            before=inputs.before,
            before_error=inputs.before_error,
            distortion=distortion,
            error=inputs.error + weights.error,
            draws=drawn.draws._replace(distortion=drawn.draws.distortion + shift),
            notes={"inputs_by": inputs.method, "weights_by": weights.method},
        )


METHODS = (
    InputNoise(
        name="input_noise",
        source="input_noise",
        summary="quantized inputs: their effect on the clean layer, then that of random weights",
        errors=("expected",),
    ),
)
