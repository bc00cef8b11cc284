"""``simulate fit``: a model of the features of each class from labelled samples."""

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from simulate.feature_models import gaussian, mixture, resampled
from simulate.sampling.paired_counting import draw
from theory.setting.archive import check_place
from theory.setting.command_line import say
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import features_of, write_statistics
from theory.setting.misfit import BITS, changed_ratio, grid, misfit
from theory.setting.problem import MOST_CLASSES, Components, Problem, decide
from theory.setting.record import version
from theory.setting.remarks import near_chance

MODELS: dict[str, Callable[[Features, Problem], Components | None]] = {
    "gaussian": lambda features, problem: None,
    "mixture": mixture.components,
    "resampled": resampled.components,
}
DRAWN = 2**17  # samples of the model that are held against the features, fewer where decisions on them are dear
WORK = 2e11  # multiplications spent on those decisions
ROWS = 2**13


def fit(
    features: Features | Path | str,
    *,
    out: Path | str | None = None,
    classes: Sequence[int] | None = None,
    model: str = "gaussian",
    covariance_entries: int = gaussian.COVARIANCES,
) -> Problem:
    """Fit a model of the features of each class, and say how far it is off.

    * ``gaussian``: means and unbiased covariances, shrunk where a class has no more samples than features
      (:func:`simulate.feature_models.gaussian.problem`).
    * ``mixture``: four Gaussian components a class (:mod:`simulate.feature_models.mixture`).
    * ``resampled``: the samples themselves, smoothed (:mod:`simulate.feature_models.resampled`).

    The misfit: the distortions of a grid of compressed layers under the model, by Monte Carlo, held against those counted on
    the samples (:mod:`theory.setting.misfit`); predictions add it to their interval as ``model``. The decisions that change are
    held against each other likewise: their ratio corrects the noise of a test set, of which the model's own are the measure.

    Args:
        features: labelled features or a features file.
        out: where to write the statistics file, if anywhere.
        classes: only the samples and rows of these classes.
        model: ``gaussian``, ``mixture`` or ``resampled``.
        covariance_entries: of all classes together, beyond which these have one covariance in common.

    Returns:
        The problem with ``counts``, ``misfit`` and ``changed_ratio``, float64.

    Raises:
        InputError: a bad file, an unknown model, or no class with two samples.
    """
    if model not in MODELS:
        raise InputError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")
    if out is not None:
        check_place(out, ".npz", reads=[features])
    features = features_of(features).restrict(classes)
    if features.classes > MOST_CLASSES:
        raise InputError(
            f"features: expected at most {MOST_CLASSES} classes for statistics, got {features.classes}: `theory predict` takes "
            "the features themselves, of any number"
        )
    problem = replace(
        gaussian.problem(features, covariance_entries),
        provenance={
            "source": features.provenance,
            "model": model,
            "n": len(features.labels),
            "risk": float(np.mean(decide(features.head_logits()) != features.labels)),
            "features_sha256": sha256(features.features),
            "date": datetime.date.today().isoformat(),
            "by": f"simulate.fit {version()}",
        },
    )
    for sentence in near_chance(1 - problem.provenance["risk"], features.classes):
        say(f"warning: {sentence}")
    problem = replace(problem, components=MODELS[model](features, problem))
    tau, ratio = _misfit(features, problem)
    problem = replace(problem, misfit=tau, changed_ratio=ratio)
    if out is not None:
        write_statistics(out, problem)
    return problem


def sha256(features: np.ndarray) -> str:
    """By which samples (n, d) are known again."""
    return hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()


def _misfit(features: Features, problem: Problem) -> tuple[float, float]:
    """tau of :func:`theory.setting.misfit.misfit`, the noise of the samples drawn allowed for, and the ratio of the decisions
    that the grid's layers change, one of each width, as if those of several widths were apart."""
    layers = grid(problem.weights)
    n = int(np.clip(WORK / problem.weights.size / (1 + len(layers)), 2**12, DRAWN))
    z, y = draw(problem, n, np.random.default_rng(0))
    heads = [problem.weights, *(layer.weights for layer in layers)]
    D, flips, changed = _shifts(z, y, heads, problem.bias)
    seen, _, seen_changed = _shifts(features.features, features.labels, heads, problem.bias)
    samples, alike = len(features.labels), max(1.0, len(layers) / len(BITS))
    ratio = changed_ratio(seen_changed.sum() * samples / alike, changed.sum() * samples / alike)
    # the model's variance of both counts, corrected: that seen of few samples is 0 where nothing happens to change
    counting = np.maximum(ratio * changed - D**2, 0) / samples + (changed - D**2) / n
    return misfit(D - seen, ratio * flips, counting), ratio


def _shifts(z: np.ndarray, y: np.ndarray, heads: list[np.ndarray], bias: np.ndarray) -> np.ndarray:
    """(3, B): distortion, flips and changed correctness of each head but the first on samples (n, d), counted."""
    total = np.zeros((3, len(heads) - 1))
    for first in range(0, len(z), ROWS):
        rows, labels = z[first : first + ROWS].astype(np.float64), y[first : first + ROWS]
        before = decide(rows @ heads[0].T + bias)
        for i, head in enumerate(heads[1:]):
            after = decide(rows @ head.T + bias)
            right, still = before == labels, after == labels
            total[:, i] += np.sum(right) - np.sum(still), np.sum(before != after), np.sum(right != still)
    return total / len(z)
