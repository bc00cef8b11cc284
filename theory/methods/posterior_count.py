"""Features, weights known: calibrated posteriors in the place of labels, counted over the features."""

from dataclasses import dataclass

import numpy as np

from theory import calibration
from theory.effect import Effect, known_network
from theory.methods.base import Method, refuses_kind
from theory.setting.features import Features


@dataclass(frozen=True, kw_only=True)
class PosteriorCount(Method):
    """No hypothesis on the law of the features; that softmax(logits/T) is the posterior."""

    def refuses(self, case):
        return refuses_kind(case, features=True)

    def answer(self, case):
        features, layers = case.known
        assert isinstance(features, Features)  # else it refuses
        fitted = calibration.calibration_of(features, case.temperature)
        posteriors = calibration.posteriors(features, fitted)
        misfit, priors, before = calibration.misfit_of(features, posteriors), posteriors.priors, posteriors.before()
        notes = {"temperature": fitted.temperature, "log_temperature_error": fitted.log_error, "misfit": misfit}
        effects = []
        for layer in layers:
            count = posteriors.count(layer.weights)
            distortion, flips = float(count.distortion @ priors), float(count.flips @ priors)
            deviation = float(np.sqrt(count.variance))
            sentences = calibration.warnings(features, fitted, posteriors, flips, distortion, deviation)
            effects.append(
                Effect(
                    method=self.name,
                    before=before,
                    distortion=count.distortion,
                    flips=count.flips,
                    before_error=0.0,  # a sum over the features, which rounding alone limits
                    error=0.0,
                    flips_error=0.0,
                    draws=known_network(distortion, count.changed, count.variance),
                    notes=notes,
                    misfit=misfit,
                    priors=priors,
                    warnings=tuple(sentences),
                )
            )
        return effects

    def suffices(self, case, effect):
        return True


METHODS = (
    PosteriorCount(
        name="posterior_count",
        source="posterior_loss",
        summary="features: calibrated posteriors in the place of labels",
        errors=("actual",),
    ),
)
