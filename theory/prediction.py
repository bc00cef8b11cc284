"""``theory predict``: risk, distortion and flip rate of a compressed layer, with an interval."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from theory import validity
from theory.all_layers import predict_all_layers
from theory.budget import DEFAULT, Budget
from theory.choose.step import with_chosen_steps
from theory.dense_layers import predict_dense
from theory.effect import Effect, lossless
from theory.interval import Asked, interval
from theory.methods import answers
from theory.methods.base import Case
from theory.setting.checks import seed_of, share, whole
from theory.setting.dense import DenseNetwork
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_any
from theory.setting.misfit import FLOOR
from theory.setting.noise import Noise
from theory.setting.plan import layers_of
from theory.setting.precision import in_float64
from theory.setting.problem import Problem
from theory.setting.question import question
from theory.setting.record import Record, class_fields, compression_fields, version
from theory.setting.schemes import Compressed

ERRORS = ("actual", "expected", "adapted")
ROW_ERRORS = ("tied", "independent")
MOST_TEST = 2**53  # samples of a test set, which float64 counts


@in_float64
def predict(
    problem: Problem | Features | Noise | DenseNetwork | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | int | None = None,
    errors: str | None = None,
    method: str | None = None,
    classes: Sequence[int] | None = None,
    confidence: float = 0.95,
    test_size: int | None = None,
    temperature: float | None = None,
    row_errors: str = "tied",
    seed: int = 0,
    budget: Budget = DEFAULT,
    **options: Any,
) -> list[Record]:
    """Predict the distortion of a compressed last layer from the statistics of its inputs alone, or from features; or that of
    a whole network from the noise of its logits.

    ``errors="actual"`` (the default of a layer): the compressed weights are computed, there is no error model.
    ``errors="expected"``: only the step is used, the mean is over uniform errors in +-step/2, and the interval covers single
    networks (of noise the default, and all there is: :mod:`theory.all_layers`). ``errors="adapted"``: random errors with the
    gain and variance of this layer's own. Of the methods (:mod:`theory.methods`) that do not refuse the case the first whose
    error is small enough answers, else the one of least error.

    Args:
        problem: a problem or a statistics file; or features or their file, averaged over themselves, no hypothesis on their
            law; or the noise of a network's logits or its file. Features and noise need labels, for actual errors and noise to
            calibrate on only, or else a ``temperature``.
        scheme: a name in :data:`theory.setting.schemes.SCHEMES`.
        bits: widths; one record each. None for schemes without.
        errors: ``actual``, ``expected`` or ``adapted``.
        method: ask for one method by name instead of the best.
        classes: the problem among these classes only.
        confidence: of the interval.
        test_size: samples of the test set the interval is for; None for infinitely many.
        temperature: of the posteriors softmax(logits/T) of features, for actual errors; None to fit it to the labels.
        row_errors: ``tied``: rows whose weights make their errors the same or opposite have such errors; ``independent``: the
            hypothesis of the papers.
        seed: of the quasi-random points behind the interval. budget: how much work.
        options: of the scheme, ``bias`` and ``bias_correction``, see :func:`theory.setting.question.question`; of noise
            ``layers`` and ``layer_bits``, see :func:`theory.setting.plan.network_plans`, or a ``plan`` or its file.

    Returns:
        One record per width. The interval covers the distortion that one network shows.

    Raises:
        InputError: bad options or a bad file.

    Assumes of statistics features Gaussian (or the file's mixture) given the class, of features that softmax(logits/T) is the
    posterior. Kind: exact for actual errors; see the derivation of each method else.
    """
    subject = read_any(problem)
    errors = errors or ("expected" if isinstance(subject, Noise | DenseNetwork) else "actual")
    for name, value, known in (("errors", errors, ERRORS), ("row_errors", row_errors, ROW_ERRORS)):
        if value not in known:
            raise InputError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    how = Asked(
        confidence=share("confidence", confidence),
        test_size=None if test_size is None else whole("test_size", test_size, 1, MOST_TEST),
        seed=seed_of(seed),
    )
    _check_temperature(temperature)
    if isinstance(subject, Noise | DenseNetwork):
        dense = isinstance(subject, DenseNetwork)
        for name, unmet in (
            ("errors", errors != "expected"),
            ("classes", classes),
            ("row_errors", row_errors != "tied"),
            ("temperature", dense and temperature is not None),
        ):
            if unmet:
                what = "a network of several layers" if dense else "a noise file"
                raise InputError(f"{name}: expected none with {what}, which answers for expected errors of all classes")
        own: dict[str, Any] = dict(scheme=scheme, bits=bits, asked=how, method=method)
        if isinstance(subject, DenseNetwork):
            return predict_dense(subject, budget=budget, **own, **options)
        return predict_all_layers(subject, temperature=temperature, **own, **options)
    asked = question(scheme, **options)
    _check_subject(problem, subject, errors, temperature)
    given = asked.of(subject.restrict(classes))
    layers = layers_of(with_chosen_steps(asked.plans(bits), given, temperature, budget=budget), given.weights)
    case = Case(
        question=asked,
        errors="adapted" if errors == "expected" and not asked.scheme.stepped else errors,
        given=given,
        layers=tuple(layers),
        ask=answers,
        tied=row_errors == "tied",
        temperature=temperature,
        seed=how.seed,
        budget=budget,
    )
    effects = [
        lossless(effect) if errors == "actual" and asked.activation_bits is None and same(layer, given) else effect
        for layer, effect in zip(layers, answers(case, method), strict=True)
    ]
    return [_record(case, layer, effect, how) for layer, effect in zip(layers, effects, strict=True)]


def same(layer: Compressed, given: Problem | Features) -> bool:
    """Whether a compressed layer is the one it was made from."""
    return np.array_equal(layer.weights, given.weights)


def _check_temperature(temperature: float | None) -> None:
    if temperature is not None and (
        not isinstance(temperature, Real) or isinstance(temperature, bool) or not 1e-100 < float(temperature) < 1e100
    ):
        raise InputError(f"temperature: expected a number above 0, got {temperature!r}")


def _check_subject(source: object, subject: Problem | Features, errors: str, temperature: float | None) -> None:
    """Refuse a problem or features with which errors and temperature do not go."""
    if isinstance(subject, Features) and not subject.labelled and (errors != "actual" or temperature is None):
        where = "" if isinstance(source, Features) else f"{source}: "
        raise InputError(
            f"{where}labels: missing, expected in a features file (or, for actual errors, a --temperature in their place)"
        )
    if temperature is not None and (not isinstance(subject, Features) or errors != "actual"):
        raise InputError(f"temperature: expected only with a features file and actual errors, got {temperature} with others")


def _record(case: Case, layer: Compressed, effect: Effect, asked: Asked) -> Record:
    subject = case.given
    priors = _priors(subject) if effect.priors is None else effect.priors
    distortion, flips = float(effect.distortion @ priors), float(effect.flips @ priors)
    misfit, draws = effect.misfit, effect.draws
    if isinstance(subject, Problem) and subject.misfit is not None:
        ratio = 1.0 if subject.changed_ratio is None else subject.changed_ratio
        misfit = ratio * max(FLOOR, subject.misfit)
        draws = draws._replace(flips=np.clip(ratio * draws.flips, np.abs(draws.distortion), 1))
    ends, sources = interval(draws, distortion, misfit * flips, asked)
    risk = float(effect.before @ priors)
    record = Record(
        **compression_fields(layer, subject.source_bits),
        errors=case.errors,
        method=effect.method,
        risk_before=risk,
        risk_after=risk + distortion,
        distortion=distortion,
        interval=ends,
        confidence=asked.confidence,
        interval_sources=sources,
        flip_rate=max(flips, abs(distortion)),
        per_class=class_fields(priors, 1 - effect.before, 1 - effect.before - effect.distortion),
        numerical_error=effect.error,
        risk_before_error=effect.before_error,
        flip_rate_error=effect.flips_error,
        provenance={
            "by": f"theory.predict {version()}",
            "features" if isinstance(subject, Features) else "statistics": subject.provenance,
            "interval_law": draws.law,
            **effect.notes,
            "test_size": asked.test_size,
            "seed": asked.seed,
        },
    )
    return replace(record, warnings=list(validity.sentences(case, layer, effect, record)))


def _priors(subject: Problem | Features) -> np.ndarray:
    """Of a problem its own, of features those of their labels."""
    if isinstance(subject, Problem):
        return subject.priors
    return np.bincount(subject.labels, minlength=subject.classes) / len(subject.labels)
