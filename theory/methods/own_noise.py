"""Random errors averaged over features, or over points drawn from their law: the noise of the logits integrated out."""

from dataclasses import dataclass

import numpy as np

from theory.effect import Draws, Effect
from theory.integrals import logit_noise, mixtures
from theory.methods.base import Case, Method
from theory.setting import integer
from theory.setting.features import Features
from theory.setting.problem import Problem


@dataclass(frozen=True, kw_only=True)
class OwnNoise(Method):
    """The noise of each logit Gaussian given the features; exact for two classes but for that. Of more whose rows are tied
    networks are drawn."""

    def refuses(self, case):
        if isinstance(case.given, Features) and not case.given.labelled:
            return "labels"
        gaussian = isinstance(case.given, Problem) and case.given.components is None
        if gaussian and case.errors == "expected":
            return "features, mixtures, or errors adapted to the layer"
        return None

    def answer(self, case):
        return [averaged_over_points(case.only([i]), self.name) for i in range(len(case.layers))]

    def suffices(self, case, effect):
        return True


def averaged_over_points(case: Case, name: str) -> Effect:
    """Of one layer, over the features themselves or points drawn from their law."""
    subject, model = case.given, case.error_model(case.layer)
    if case.question.activation_bits is not None:
        bits, corrected = case.question.activation_bits, case.question.bias_correction
        subject, constant = integer.expected(subject, bits, corrected)
        model = integer_errors(model, constant)
    problem = subject if isinstance(subject, Problem) else None
    features = subject if isinstance(subject, Features) else mixtures.draw(subject, case.seed, case.budget)
    average, n = logit_noise.expected(features, model, seed=case.seed), len(features.labels)
    variance, error, before_error, flips_error = average.variance, average.error, 0.0, average.flips_error
    if problem is not None:  # the points are drawn: their noise is numerical; what the fit leaves is as if they were counted
        share = np.bincount(features.labels, minlength=features.classes) / n
        rates = [float(np.clip(x @ share, 0, 1)) for x in (average.before, average.flips)]
        sampling = [1.96 * np.sqrt(rate * (1 - rate) / n) for rate in rates]
        error, before_error = error + 1.96 * float(np.sqrt(variance)), float(sampling[0])
        flips_error += float(sampling[1])
        samples = 0 if problem.counts is None else int(problem.counts.sum())
        variance *= n / samples if samples else 0.0
    draws = Draws("networks drawn", average.networks, average.changed, np.full(len(average.changed), variance))
    return Effect(
        method=name,
        before=average.before,
        distortion=average.distortion,
        flips=average.flips,
        before_error=before_error,
        error=error,
        flips_error=flips_error,
        draws=draws,
        notes={"error_model": model.scope},
    )


def integer_errors(model, constant: np.ndarray):
    """An error model of a layer as one of the inputs (z, u, 1) of :func:`theory.setting.integer.expected`."""
    K, d = model.mean.shape
    mean = np.concatenate([np.zeros((K, d)), model.mean, constant[:, None]], 1)
    others = {name: _widened(getattr(model, name)) for name in ("rows", "sign")}
    return model._replace(mean=mean, columns=np.concatenate([np.zeros(d), model.columns, np.zeros(1)]), **others)


def _widened(by_entry: np.ndarray) -> np.ndarray:
    """What each entry of W has, (K, 1) or (K, d), for one of the inputs (z, u, 1): the others have no errors."""
    return by_entry if by_entry.shape[1] == 1 else np.pad(by_entry, [(0, 0), (by_entry.shape[1], 1)])


METHODS = (
    OwnNoise(
        name="own_noise",
        source="own_noise",
        summary="features, mixtures, adapted errors: the noise of the logits integrated out",
        errors=("expected", "adapted"),
        rank=3,
    ),
)
