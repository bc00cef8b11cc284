"""Where a prediction stops being valid, each as a sentence with the size of its effect."""

from collections.abc import Callable

import numpy as np

from theory.effect import ROUNDING, Effect, negative
from theory.error_model import gain_and_residual
from theory.gaussian_quantizer import gaussian_gain
from theory.integrals import two_classes
from theory.methods.base import Case
from theory.setting import integer
from theory.setting.error_law import SQUARE_VARIANCE, uniform_errors
from theory.setting.errors import listed
from theory.setting.features import Features
from theory.setting.problem import Problem
from theory.setting.record import Record
from theory.setting.remarks import near_chance, remarks
from theory.setting.schemes import Compressed, compress

NOISE = 1e-12  # an error estimate below this is rounding
CORRELATED = 0.2  # correlation of the rows' errors that is worth a sentence
COARSE = 0.5  # root mean square of the weights over the step below which the uniform hypothesis is worth a sentence
COARSEST = 0.2  # below it nearly every weight becomes 0 and the gain nears -1: the effect is given as at this ratio
LEAST_GAIN = 0.2  # of 1 + gain: below it the noise relative to what is left of the weights is not followed
FEWEST_FEATURES = 3.0  # (sum z^2)^2 over sum z^4, their effective number, below which their noise is worth a sentence
RISK_DEVIATIONS = 3.0  # standard deviations of the counted risk that are worth a sentence
VARIANCE_GAP = 0.25  # by how much the errors' variance may differ from step^2 / 12
LARGEST_OVER_NEXT = 2.0  # |W| that sets the step


def sentences(case: Case, layer: Compressed, effect: Effect, record: Record) -> list[str]:
    """The sentences for one record; empty when every hypothesis of the method holds."""
    found = [] if effect.warnings is None else list(effect.warnings)
    if isinstance(case.given, Problem):
        found += _of_problem(case, layer, record)
    elif effect.warnings is None:
        found += of_features(case.given, layer, record, tied=case.tied)
    given, names = case.given, case.given.class_numbers
    return found + remarks(given.weights, layer, given.source_bits, bias_column=case.question.bias, class_numbers=names)


def _of_problem(case: Case, layer: Compressed, record: Record) -> list[str]:
    """The sentences for a prediction from statistics."""
    problem, found = case.given, []
    assert isinstance(problem, Problem)  # the caller has looked
    unsure = float(np.hypot(record.interval_sources["statistics"], record.interval_sources["model"]))
    if record.distortion < -max(record.numerical_error, ROUNDING):
        found.append(
            f"negative distortion ({record.distortion:.3g}): within what the fitted statistics leave open, {unsure:.2g}"
            if record.distortion > -2 * unsure
            else f"negative distortion ({record.distortion:.3g}): the layer is not Bayes-optimal for these statistics, "
            "and this compression happens to move it towards the optimum"
        )
    if record.numerical_error > max(0.01 * abs(record.distortion), 1e-3 * record.flip_rate, NOISE):
        found.append(f"the method's own error estimate {record.numerical_error:.2g} is more than 1 % of the distortion")
    found += _few_samples(problem)
    found += _other_risk(problem, record)
    bits = case.question.activation_bits
    if bits is not None and (beyond := integer.beyond_range(problem, bits)):
        found.append(f"{beyond}: the prediction clips none of it, `run` all of it; predict from the features themselves")
    if record.errors == "expected" and layer.stepped and layer.steps.max() > 0:
        found += _error_model(problem, layer, record, tied=case.tied)
    return found


def of_features(features: Features, layer: Compressed, record: Record, *, tied: bool = True) -> list[str]:
    """The sentences for a prediction averaged over features."""
    d, K = features.features.shape[1], features.classes
    found = []
    if record.distortion < -max(record.numerical_error, ROUNDING):
        found.append(negative(record.distortion, record.interval_sources["statistics"]))
    found += near_chance(1 - record.risk_before, K)
    absent = np.flatnonzero(np.bincount(features.labels, minlength=K) == 0)
    if len(absent):
        which = listed(features.class_numbers[k] for k in absent)
        found.append(f"no sample of class {which}: what compression does to it is not in the distortion")
    square = features.features.astype(np.float64) ** 2
    squares, fourth = float(np.mean(square.sum(1)) ** 2), float(np.mean(np.sum(square**2, 1)))
    if layer.steps.max() > 0 and squares < FEWEST_FEATURES * fourth:
        found.append(
            f"only {squares / max(fourth, 1e-300):.1f} features count: the noise that uniform errors make of so few is not "
            "Gaussian, as this method takes it; what that costs is not in numerical_error"
        )
    if layer.stepped and layer.steps.max() > 0 and record.errors == "expected":
        # enough of a problem for the sentences on the errors: its law of the features is not used with a scale of its own
        shape = Problem(
            weights=features.weights,
            bias=features.bias,
            priors=np.full(K, 1 / K),
            means=np.zeros((K, d)),
            covariances=np.eye(d),
            provenance=features.provenance,
        )
        found += _error_model(shape, layer, record, proportional=True, tied=tied)
    return found


def _few_samples(problem: Problem) -> list[str]:
    counts, names = problem.counts, problem.class_numbers
    absent = [k for k in range(problem.classes) if problem.priors[k] == 0]
    which = listed(names[k] for k in absent)
    found = [f"prior 0 of class {which}: what compression does to it is not in the distortion"] if absent else []
    few = [] if counts is None else [k for k, n in enumerate(counts) if n <= problem.features and k not in absent]
    if counts is not None and few:
        named = listed(f"{names[k]} ({counts[k]})" for k in few)
        found.append(
            f"no more samples than the {problem.features} features in class {named}: "
            "the covariance there is mostly an assumption"
        )
    return found


def _other_risk(problem: Problem, record: Record) -> list[str]:
    """The risk of the clean layer on the samples fitted, where the model of the features says another one."""
    counted, n = problem.provenance.get("risk"), problem.provenance.get("n")
    if not isinstance(counted, float) or not isinstance(n, int):
        return []
    deviation = float(np.sqrt(max(counted * (1 - counted), 1 / n) / n))
    if abs(record.risk_before - counted) < RISK_DEVIATIONS * deviation:
        return []
    return [
        f"the model of the features says a risk before of {record.risk_before:.4f}, the samples fitted {counted:.4f} +- "
        f"{deviation:.4f}: the features are not of this law"
    ]


def _scaled(problem: Problem, layer: Compressed, scale: float) -> float:
    """The expected distortion of two classes with the error variance scaled, over that without, by the corrected marginal:
    enough for the size of an effect. (More classes: proportional, the law at small steps.)"""
    at = two_classes.margin(two_classes.pair_of(problem))
    v = float(np.sum(np.mean(layer.steps**2, 1)) / 12)
    values = [
        float(np.asarray(two_classes.older_formula("corrected_marginal", at, np.asarray(x))) @ problem.priors)
        for x in (v, v * scale)
    ]
    return values[1] / values[0] if values[0] else 1.0


def _error_model(
    problem: Problem, layer: Compressed, record: Record, *, proportional: bool = False, tied: bool = True
) -> list[str]:
    found = []

    def instead(scale: float) -> str:
        """The corrected distortion when the error variance is scaled, beside the one given."""
        linear = proportional or problem.classes > 2
        changed = min(record.distortion * (scale if linear else _scaled(problem, layer, scale)), 1 - record.risk_before)
        about = "about " if linear else ""
        return f"the expected distortion would be {about}{changed:.3g} instead of {record.distortion:.3g}"

    E = layer.weights - problem.weights
    known = tied and uniform_errors(problem.weights, layer).tied  # then the prediction has it
    if len(E) == 2 and not known:
        power = np.sqrt(np.sum(E[0] ** 2) * np.sum(E[1] ** 2))
        correlation = float(E[0] @ E[1] / power) if power > 0 else 0.0
        if _opposite(problem.weights) or abs(correlation) > max(CORRELATED, 4 / np.sqrt(problem.features)):
            scale = 1 - correlation * 2 * float(np.mean(layer.steps[0] * layer.steps[1]) / np.mean(np.sum(layer.steps**2, 0)))
            found.append(
                f"the errors of the two rows are correlated ({correlation:+.2f} in this layer), not independent: with "
                f"that correlation {instead(scale)}"
            )
    ratios = _weights_over_steps(problem.weights, layer)
    if min(ratios) < COARSE:
        scale = gaussian_gain(max(min(ratios), COARSEST))
        found.append(
            f"the step is {1 / min(ratios):.1f} times the root mean square of the weights: errors are neither uniform nor "
            f"independent of the weights; for Gaussian weights, gain removed, {instead(scale)} (from features, --errors "
            "adapted takes this layer's own errors)"
        )
    elif abs((scale := _variance_ratio(problem.weights, layer)) - 1) > VARIANCE_GAP + 4 * np.sqrt(
        SQUARE_VARIANCE / _with_errors(layer)
    ):
        found.append(
            f"the errors of this layer have {scale:.2g} times the variance of uniform ones, gain removed (zeros, equal weights "
            f"or clipped ones): with that variance {instead(scale)} (from features, --errors adapted takes the layer's own)"
        )
    found += _lonely(problem, layer, instead)
    return found


def _with_errors(layer: Compressed) -> int:
    """Weights that have a step."""
    return int(np.count_nonzero(np.broadcast_to(layer.steps > 0, layer.weights.shape)))


def _variance_ratio(weights: np.ndarray, layer: Compressed) -> float:
    """The mean square of the errors, gain removed as decisions see it, over that of uniform ones, each in its steps."""
    steps = np.broadcast_to(layer.steps, weights.shape)
    w, e = (x[steps > 0] / steps[steps > 0] for x in (weights, layer.weights - weights))
    gain, residual = (x.item() for x in gain_and_residual(w, e, None))
    return 12 * residual**2 / max(1 + gain, LEAST_GAIN) ** 2


def _weights_over_steps(weights: np.ndarray, layer: Compressed) -> list[float]:
    """The root mean square of the weights of each scope over its step."""
    if layer.granularity == "tensor":
        return [float(np.sqrt(np.mean(weights**2)) / layer.steps[0, 0])]
    steps, live = np.broadcast_to(layer.steps, weights.shape), layer.steps[:, 0] > 0
    if layer.granularity == "channel":
        return [float(np.sqrt(np.mean(row**2)) / step[0]) for row, step in zip(weights[live], steps[live], strict=True)]
    some = steps > 0
    return [float(np.sqrt(np.mean((weights[some] / steps[some]) ** 2)))]  # groups are short: over all of them


def _lonely(problem: Problem, layer: Compressed, instead: Callable[[float], str]) -> list[str]:
    """One entry that alone sets the step."""
    if layer.granularity == "group" or "step" in layer.options:
        return []  # the step of a short group, or one that was chosen, is not that of the largest weight
    size = np.abs(problem.weights)
    rows = [size.reshape(1, -1)] if layer.granularity == "tensor" else [row[None] for row in size]
    for k, row in enumerate(rows):
        if row.size < 2:
            continue
        second, first = np.partition(row.reshape(-1), row.size - 2)[-2:]
        if second > 0 and first > LARGEST_OVER_NEXT * second:
            index = int(np.argmax(row)) if layer.granularity == "tensor" else k * problem.features + int(np.argmax(row))
            where = np.unravel_index(index, size.shape)
            name = problem.class_numbers[where[0]] if len(size) > 1 else 0
            without = problem.weights.copy()
            without[where] = 0
            smaller = compress(without, layer.scheme, layer.bits, **layer.options)
            scale = float(np.sum(smaller.steps**2) / np.sum(layer.steps**2))
            return [
                f"weights[{name}, {where[1]}] alone sets the step ({first / second:.1f} times the next largest): without "
                f"it {instead(scale)}"
            ]
    return []


def _opposite(weights: np.ndarray) -> bool:
    """Whether the two rows are opposite up to rounding."""
    return bool(np.linalg.norm(weights.sum(0)) <= 1e-6 * np.linalg.norm(weights[1] - weights[0]))
