"""``theory predict``: risk, distortion and flip rate of a compressed layer, with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Unpack

import numpy as np
from scipy.stats import norm

from theory import binary, calibrated, components, fitted, laws, logit_noise, multiclass, validity
from theory.binary import Margin, Pair, pair_of
from theory.error_model import ErrorModel, adapted, uniform
from theory.setting import integer
from theory.setting.arguments import seed_of, share, whole
from theory.setting.compression import Compressed, compress
from theory.setting.errors import InputError
from theory.setting.files import Features, read_either
from theory.setting.misfit import FLOOR
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, margin
from theory.setting.question import Options, question
from theory.setting.record import Record, class_fields, compression_fields, version
from theory.spread import Average, Draws, Errors, draw_networks, sobol_average

METHODS = {
    ("actual", False): ("binary_risk",),
    ("expected", False): ("margin_quadrature", "sobol_average", *binary.OLDER),
    ("actual", True): ("orthants", "lines"),
    ("expected", True): ("orthant_average", "posterior_average", "line_average"),
}
ERRORS = ("actual", "expected", "adapted")
TOLERANCE = 3e-3  # of the distortion, or a tenth of a per cent of the flip rate: else the quadrature gives way to sampling
UNSEEN = 0.05  # error of a distortion over the standard deviation that fitted statistics leave it, with which it will do
FEW_NETWORKS = 400  # below which the interval takes their law as normal
SMALLEST = 4  # features below which the Edgeworth series, and its error estimate, are not trusted


@in_float64
def predict(
    problem: Problem | Features | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | None = None,
    errors: str = "actual",
    method: str | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    test_size: int | None = None,
    temperature: float | None = None,
    seed: int = 0,
    **options: Unpack[Options],
) -> list[Record]:
    """Predict the distortion of a compressed last layer from the statistics of its inputs alone, or from features.

    ``errors="actual"``: the compressed weights are computed and the exact risk of both layers taken (two classes:
    ``binary_risk``; more: ``orthants`` or ``lines``, whichever reports the smaller error; mixtures: ``component_lines``). Of
    features: ``posterior_count``, calibrated posteriors in the place of labels.
    ``errors="adapted"``: random errors with the gain and variance of this layer's own, averaged over the features or over
    points drawn from their law (``own_noise``).
    ``errors="expected"``: only the step is used (schemes without one: as adapted); the mean over independent uniform errors in
    +-step/2, by the margin quadrature, or by averaging over quasi-random errors (``sobol_average``) where the quadrature's own
    error estimate is above 0.3 % of the distortion (0.1 % of the flip rate where that is more), or d < 4. More classes:
    ``orthant_average``; where contrasts are dependent or too many ``posterior_average`` or ``line_average``, whichever reports
    the smaller error.

    Args:
        problem: a problem or a statistics file; or features or their file, averaged over themselves, no hypothesis on their
            law. They need labels, for actual errors to calibrate on only, or else a ``temperature``.
        scheme: see :data:`theory.setting.compression.SCHEMES`.
        bits: widths; one record each. None for schemes without.
        errors: ``actual``, ``expected`` or ``adapted``.
        method: ask for one method by name instead of the best.
        classes: the problem among these classes only.
        confidence: of the interval.
        test_size: samples of the test set the interval is for; None for infinitely many.
        temperature: of the posteriors softmax(logits/T) of features, for actual errors; None to fit it to the labels.
        seed: of the quasi-random points behind the interval.
        options: of the scheme, see :class:`theory.setting.question.Options`.

    Returns:
        One record per width. The interval covers the distortion that one network shows.

    Raises:
        InputError: bad options or a bad file.

    Assumes of statistics features Gaussian (or the file's mixture) given the class, of features that softmax(logits/T) is the
    posterior. Kind: exact for actual errors; see the derivation of each method else.
    """
    if errors not in ERRORS:
        raise InputError(f"errors: expected one of {', '.join(ERRORS)}, got {errors!r}")
    asked, seed, confidence = question(scheme, **options), seed_of(seed), share("confidence", confidence)
    if test_size is not None:
        test_size = whole("test_size", test_size, 1)
    where = "" if isinstance(problem, Problem | Features) else f"{problem}: "
    given = read_either(problem)
    if isinstance(given, Features) and not given.labelled and (errors != "actual" or temperature is None):
        raise InputError(
            f"{where}labels: missing, expected in a features file (or, for actual errors, a --temperature in their place)"
        )
    if temperature is not None:
        temperature = _temperature(given, errors, temperature)
    subject: Problem | Features = asked.of(given.restrict(classes))
    plain, layers = subject, asked.layers(subject, bits, temperature)
    compressed = layers
    law = "adapted" if errors == "expected" and not layers[0].stepped else errors  # without a step: the layer's own errors
    methods = _methods(subject, law)
    if method is not None and method not in methods:
        raise InputError(f"method: expected one of {', '.join(methods)} for {errors} errors here, got {method!r}")
    laws: list[ErrorModel] = []
    if asked.activation_bits is not None and law == "actual":
        subject, layers = integer.actual(subject, layers, asked.activation_bits, asked.bias_correction)
    elif law != "actual":
        laws = [_errors(subject, layer, law) for layer in layers]
    if asked.activation_bits is not None and law != "actual":
        subject, constant = integer.expected(subject, asked.activation_bits, asked.bias_correction)
        laws = [_of_inputs(one, constant) for one in laws]
    if isinstance(subject, Features) and law == "actual":
        priors, outcomes = _posterior_counts(subject, layers, temperature)
    elif isinstance(subject, Features):
        priors = np.bincount(subject.labels, minlength=subject.classes) / len(subject.labels)
        outcomes = [_distribution_free(subject, one, seed) for one in laws]
    else:
        priors = subject.priors
        if law == "adapted" or (law == "expected" and (subject.components is not None or asked.activation_bits is not None)):
            outcomes = _drawn(subject, laws, seed)
            if law == "expected" and isinstance(plain, Problem) and plain.components is None:
                outcomes = [
                    _of_integers(plain, layer, one, asked.activation_bits or 0, asked.bias_correction, method, seed)
                    for layer, one in zip(compressed, outcomes, strict=True)
                ]
        elif subject.components is not None:
            outcomes = _mixtures(subject, layers, seed)
        elif subject.classes > 2:
            outcomes = _many(subject, layers, law, method, seed)
        else:
            outcomes = [_pair(subject, layer, law, method, seed) for layer in layers]
    return [
        _record(plain, priors, layer, outcome, errors, confidence, test_size, seed, asked.activation_bits)
        for layer, outcome in zip(compressed, outcomes, strict=True)
    ]


def _methods(subject: Problem | Features, errors: str) -> tuple[str, ...]:
    if isinstance(subject, Features):
        return ("posterior_count",) if errors == "actual" else ("own_noise",)
    if errors == "adapted":
        return ("own_noise",)
    if subject.components is not None:
        return ("component_lines",) if errors == "actual" else ("own_noise",)
    return METHODS[errors, subject.classes > 2]


def _temperature(subject: Problem | Features, errors: str, temperature: float) -> float:
    if not isinstance(subject, Features) or errors != "actual":
        raise InputError(f"temperature: expected only with a features file and actual errors, got {temperature} with others")
    if not isinstance(temperature, Real) or isinstance(temperature, bool) or not 0 < float(temperature) < np.inf:
        raise InputError(f"temperature: expected a number above 0, got {temperature!r}")
    return float(temperature)


@in_float64
def expected_distortion(problem: Problem, *, v: float, k4: float, k6: float) -> float:
    """Expected distortion of two classes by the margin quadrature, for errors of the margin's weights with independent
    symmetric entries of variance ``v`` and fourth and sixth cumulants ``k4 v^2`` and ``k6 v^3``."""
    pair = pair_of(problem)
    value = binary.quadrature(binary.margin(pair), binary.moments(pair), np.asarray(v), np.asarray(k4), np.asarray(k6))
    return float(np.asarray(value.distortion) @ pair.priors)


@in_float64
def mean_distortion(problem: Problem, steps: np.ndarray, *, seed: int = 0) -> float:
    """Expected distortion of Gaussian classes under independent uniform errors of these steps (rows,), by the best method."""
    if problem.classes > 2:
        return float(multiclass.expected(problem, steps, seed=seed).distortion @ problem.priors)
    pair = pair_of(problem)
    return float(expected_average(pair, binary.margin(pair), Errors(steps), None, seed)[1].distortion @ pair.priors)


@in_float64
def network_law(problem: Problem, *, scheme: str, bits: int, per_channel: bool = False, seed: int = 0) -> np.ndarray:
    """(16384,) draws of the predicted law of the distortion over single networks W + E, the statistics taken as exact."""
    pair = pair_of(problem)
    steps = Errors(compress(problem.weights, scheme, bits, per_channel=per_channel).steps)
    return draw_networks(pair, binary.margin(pair), steps, None, seed).distortion


class Outcome(NamedTuple):
    """What one layer does, by class (K,): risk before, change of risk and flips; single networks behind the interval; the
    misfit of the model of the features, over the flips; warnings of the method's own."""

    method: str
    before: np.ndarray
    average: Average
    draws: Draws
    notes: Mapping[str, Any] = MappingProxyType({})
    misfit: float = 0.0
    warnings: tuple[str, ...] | None = None


def _pair(problem: Problem, layer: Compressed, errors: str, method: str | None, seed: int) -> Outcome:
    """Two classes."""
    pair = pair_of(problem)
    at = binary.margin(pair)
    return (_actual if errors == "actual" else _expected)(problem, pair, at, layer, method, seed)


def _record(
    subject: Problem | Features,
    priors: np.ndarray,
    layer: Compressed,
    outcome: Outcome,
    errors: str,
    confidence: float,
    test_size: int | None,
    seed: int,
    activation_bits: int | None,
) -> Record:
    average = outcome.average
    distortion, flips = float(average.distortion @ priors), float(average.flips @ priors)
    misfit = outcome.misfit
    if isinstance(subject, Problem) and subject.misfit is not None:
        misfit = max(FLOOR, subject.misfit)
    interval, sources = _interval(outcome.draws, distortion, misfit * flips, confidence, test_size, seed)
    risk = float(outcome.before @ priors)
    record = Record(
        **compression_fields(layer, subject.source_bits),
        errors=errors,
        method=outcome.method,
        risk_before=risk,
        risk_after=risk + distortion,
        distortion=distortion,
        interval=interval,
        confidence=confidence,
        interval_sources=sources,
        flip_rate=max(flips, abs(distortion)),
        per_class=class_fields(priors, 1 - outcome.before, 1 - outcome.before - average.distortion),
        numerical_error=average.error,
        provenance={
            "by": f"theory.predict {version()}",
            "features" if isinstance(subject, Features) else "statistics": subject.provenance,
            "interval_law": outcome.draws.law,
            **outcome.notes,
            "test_size": test_size,
            "seed": seed,
        },
    )
    if outcome.warnings is not None:
        return replace(record, warnings=list(outcome.warnings))
    if isinstance(subject, Features):
        return replace(record, warnings=validity.of_features(subject, layer, record))
    return replace(record, warnings=validity.warnings(subject, layer, record, activation_bits))


def _of_inputs(model: ErrorModel, constant: np.ndarray) -> ErrorModel:
    """An error model of a layer as one of the inputs (z, u, 1) of :func:`theory.setting.integer.expected`."""
    K, d = model.mean.shape
    mean = np.concatenate([np.zeros((K, d)), model.mean, constant[:, None]], 1)
    return model._replace(mean=mean, columns=np.concatenate([np.zeros(d), model.columns, np.zeros(1)]))


def _errors(subject: Problem | Features, layer: Compressed, errors: str) -> ErrorModel:
    return adapted(subject.weights, layer) if errors == "adapted" else uniform(subject.weights, layer.steps)


def _distribution_free(features: Features, model: ErrorModel, seed: int) -> Outcome:
    """Random layers averaged over the features themselves."""
    change, changed, variance = logit_noise.expected(features, model, seed=seed)
    draws = Draws("networks drawn", change.draws, changed, np.full(len(changed), variance))
    average = Average(change.distortion, change.flips, change.error)
    return Outcome(change.method, change.before, average, draws, {"error_model": model.scope})


def _posterior_counts(
    features: Features, layers: list[Compressed], temperature: float | None
) -> tuple[np.ndarray, list[Outcome]]:
    """Known layers on features whose labels follow calibrated posteriors; these also give the priors."""
    calibration = calibrated.calibration_of(features, temperature)
    given = calibrated.posteriors(features, calibration)
    misfit, priors, before = calibrated.misfit_of(features, given), given.priors, given.before()
    notes = {"temperature": calibration.temperature, "log_temperature_error": calibration.log_error, "misfit": misfit}
    outcomes = []
    for layer in layers:
        one = given.count(layer.weights)
        D = float(one.distortion @ priors)
        draws = Draws("known", *(np.array([x]) for x in (D, one.changed, one.variance)))
        sd = float(np.sqrt(one.variance))
        warnings = tuple(calibrated.warnings(features, calibration, given, float(one.flips @ priors), D, sd))
        average = Average(one.distortion, one.flips, 0.0)
        outcomes.append(Outcome("posterior_count", before, average, draws, notes, misfit, warnings))
    return priors, outcomes


def _drawn(problem: Problem, models: list[ErrorModel], seed: int) -> list[Outcome]:
    """Random layers averaged over points drawn from the law of the features."""
    features, outcomes = components.draw(problem, seed), []
    for model in models:
        one = _distribution_free(features, model, seed)
        average, variance = components.of_the_fit(problem, one.average, one.draws.statistics_variance, len(features.labels))
        outcomes.append(one._replace(average=average, draws=one.draws._replace(statistics_variance=variance)))
    return outcomes


def _of_integers(
    problem: Problem, layer: Compressed, drawn: Outcome, bits: int, corrected: bool, method: str | None, seed: int
) -> Outcome:
    """Random integer layers of Gaussian classes: their mean distortion in two steps, without the noise of drawn points. What
    quantized inputs do to the clean layer, known; then what errors do to the layer of inputs that have the law of the quantized
    ones (``input_noise`` in :mod:`derivations.arithmetic`). Flips and spread are those of the drawn points."""
    lifted, W = integer.unrounded(problem, bits)
    noisy = integer.noisy(problem, bits, corrected)
    if problem.classes == 2:
        both, pair = pair_of(lifted), pair_of(noisy)
        at = binary.margin(both)
        _, inputs, _, error = binary.known(both, at, margin(W, lifted.bias)[0])
        before = np.asarray(binary.class_risk(at))
        used, weights = expected_average(pair, binary.margin(pair), Errors(layer.steps), method, seed)
        how = "binary_risk"
    else:
        (first,) = multiclass.known(lifted, W[None], seed=seed)
        weights = multiclass.expected(noisy, layer.steps, method=method, seed=seed)
        used, inputs, error, how = weights.method, first.distortion, first.error, first.method
        before = first.before
    average = Average(inputs + weights.distortion, drawn.average.flips, error + weights.error)
    shift = (average.distortion - drawn.average.distortion) @ problem.priors
    draws = drawn.draws._replace(distortion=drawn.draws.distortion + shift)
    return drawn._replace(method=used, before=before, average=average, draws=draws, notes={"quantized_inputs": how})


def _mixtures(problem: Problem, layers: list[Compressed], seed: int) -> list[Outcome]:
    """Known layers of classes that are mixtures of Gaussians."""
    changes, variances = components.known(problem, np.stack([layer.weights for layer in layers]), seed=seed)
    outcomes = []
    for change, variance in zip(changes, variances, strict=True):
        D, changed = change.distortion @ problem.priors, change.changed @ problem.priors
        draws = Draws("known", *(np.array([x]) for x in (D, changed, variance)))
        average = Average(change.distortion, change.flips, change.error)
        outcomes.append(Outcome(change.method, change.before, average, draws, {"flip_rate_error": change.flips_error}))
    return outcomes


def _actual(problem: Problem, pair: Pair, at: Margin, layer: Compressed, method: str | None, seed: int) -> Outcome:
    by, distortion, flips, error = binary.known(pair, at, margin(layer.weights, problem.bias)[0])
    average = Average(distortion, flips, error)
    variance = 0.0
    if problem.counts is not None:
        variance = float(binary.statistics_variance(pair.priors, problem.counts.astype(float), at, by))
    one = (average.distortion @ pair.priors, average.flips @ pair.priors, variance)
    return Outcome("binary_risk", np.asarray(binary.class_risk(at)), average, Draws("known", *(np.array([x]) for x in one)))


def _expected(problem: Problem, pair: Pair, at: Margin, layer: Compressed, method: str | None, seed: int) -> Outcome:
    steps = Errors(layer.steps)
    used, average = expected_average(pair, at, steps, method, seed)
    draws = draw_networks(pair, at, steps, problem.counts, seed)
    return Outcome(used, np.asarray(binary.class_risk(at)), average, draws)


def _many(problem: Problem, layers: list[Compressed], errors: str, method: str | None, seed: int) -> list[Outcome]:
    """More than two classes; known layers share their points."""
    within = None
    if errors == "actual":
        weights = np.stack([layer.weights for layer in layers])
        within = fitted.within_classes(problem, weights, seed=seed)
        enough = 0.0 if within is None else UNSEEN * np.sqrt(within)
        changes = multiclass.known(problem, weights, method=method, seed=seed, enough=enough)
    else:
        changes = [multiclass.expected(problem, layer.steps, method=method, seed=seed) for layer in layers]
    outcomes = []
    for i, (layer, change) in enumerate(zip(layers, changes, strict=True)):
        notes: dict[str, Any] = {"flip_rate_error": change.flips_error}
        if errors == "actual":
            variance = fitted.statistics_variance(problem, change, None if within is None else float(within[i]))
            draws, law = np.array([change.distortion @ problem.priors]), "known"
            notes["risk_after_between"] = list(laws.risk_bracket(problem, layer.weights))
        else:
            variance = fitted.expected_statistics_variance(problem, layer.steps, change, seed=seed)
            draws, law = change.draws, "networks drawn"
        changed = np.maximum(change.changed @ problem.priors, np.abs(draws))
        average = Average(change.distortion, change.flips, change.error)
        outcomes.append(
            Outcome(change.method, change.before, average, Draws(law, draws, changed, np.full(len(draws), variance)), notes)
        )
    return outcomes


def expected_average(pair: Pair, at: Margin, steps: Errors, method: str | None, seed: int) -> tuple[str, Average]:
    """The expected change per class and the name of the method: the one asked for, or the best by its error estimate."""
    v, k4, k6 = steps.moments()
    if method in binary.OLDER:
        change = np.asarray(binary.older_formula(method, at, np.asarray(v)))
        quadrature = binary.quadrature(at, binary.moments(pair), np.asarray(v), np.asarray(k4), np.asarray(k6))
        gap = float(np.abs(change - quadrature.distortion) @ pair.priors)
        if not np.isfinite(gap):
            raise _constant(method)
        return method, Average(change, np.asarray(quadrature.flips), gap)
    if method != "sobol_average":
        value = binary.quadrature(at, binary.moments(pair), np.asarray(v), np.asarray(k4), np.asarray(k6))
        average = Average(np.asarray(value.distortion), np.asarray(value.flips), float(value.error @ pair.priors))
        size = max(TOLERANCE * abs(average.distortion @ pair.priors), 1e-3 * float(average.flips @ pair.priors))
        trusted = len(pair.w) >= SMALLEST and average.error <= size
        if np.isfinite(average.error) and (method is not None or trusted):
            return "margin_quadrature", average
        if method is not None:
            raise _constant(method)
    return "sobol_average", sobol_average(pair, at, steps, seed)


def _constant(method: str) -> InputError:
    return InputError(f"method: {method} needs a margin that varies in both classes, got weights that give a constant one")


def _interval(draws: Draws, distortion: float, model: float, confidence: float, test_size: int | None, seed: int):
    """The interval of one network's distortion on a test set, and the standard deviation of each of its sources."""
    network = float(draws.distortion.std())
    statistics = float(np.sqrt(draws.statistics_variance.mean()))
    noise = 0.0
    if test_size is not None:
        noise = float(np.sqrt(np.mean(np.maximum(draws.flips - draws.distortion**2, 0)) / test_size))
    sources = {"network": network, "statistics": statistics, "test_set": noise, "model": model}
    tail = (1 - confidence) / 2
    if test_size is None and network == 0:
        half = float(norm.isf(tail)) * float(np.hypot(statistics, model))
        return (max(distortion - half, -1.0), min(distortion + half, 1.0)), sources
    rng = np.random.default_rng([seed, 2])
    values, flips = draws.distortion, draws.flips
    if len(values) == 1:
        values, flips = np.repeat(values, 2**14), np.repeat(flips, 2**14)
    variance = draws.statistics_variance
    if len(values) < FEW_NETWORKS:  # too few for quantiles of their own: those of a normal law of their spread
        values, variance = distortion + network * rng.standard_normal(2**14), variance.mean()
        flips = np.maximum(flips.mean(), np.abs(values))
    if tail * len(values) < 5:
        raise InputError(
            f"confidence: expected at most {1 - 10 / len(values):.4f} for an interval from {len(values)} draws, "
            f"got {confidence}"
        )
    values = values + np.sqrt(variance + model**2) * rng.standard_normal(len(values))
    if test_size is not None:  # errors made and mended are counts: their difference in whole samples
        made = np.clip((np.maximum(flips, np.abs(values)) + values) / 2, 0, 1)
        mended = np.clip(made - values, 0, 1 - made)
        first = rng.binomial(test_size, made)
        second = rng.binomial(test_size - first, np.clip(mended / np.maximum(1 - made, 1e-300), 0, 1))
        values = (first - second) / test_size
    low = np.quantile(values, tail, method="lower" if test_size else "linear")
    high = np.quantile(values, 1 - tail, method="higher" if test_size else "linear")
    return (max(float(low), -1.0), min(float(high), 1.0)), sources
