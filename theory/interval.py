"""The interval of the distortion that one network shows on a test set, and the standard deviation of each of its sources."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from theory.effect import Draws
from theory.setting.errors import InputError

FEW_NETWORKS = 400  # below which their law is taken as normal
SAMPLES = 2**14  # drawn of a law that is none of single networks
FEWEST_BEYOND = 5  # draws beyond an end of the interval, to read its quantile


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Confidence of the interval, samples of the test set (None: infinitely many), seed of what is drawn."""

    confidence: float
    test_size: int | None
    seed: int


def interval(draws: Draws, distortion: float, model: float, asked: Asked) -> tuple[tuple[float, float], dict[str, float]]:
    """The interval and its sources.

    Args:
        draws: single networks. distortion: their mean. model: standard deviation of what the model of the features gets wrong.

    Raises:
        InputError: a confidence that so many networks can't give.
    """
    network = float(draws.distortion.std())
    statistics = float(np.sqrt(draws.statistics_variance.mean()))
    noise = 0.0
    if asked.test_size is not None:
        noise = float(np.sqrt(np.mean(np.maximum(draws.flips - draws.distortion**2, 0)) / asked.test_size))
    sources = {"network": network, "statistics": statistics, "test_set": noise, "model": model}
    tail = (1 - asked.confidence) / 2
    if asked.test_size is None and network == 0:
        half = float(-ndtri(tail)) * float(np.hypot(statistics, model))
        return (max(distortion - half, -1.0), min(distortion + half, 1.0)), sources
    values = _sampled(draws, distortion, model, tail, asked)
    low = np.quantile(values, tail, method="lower" if asked.test_size else "linear")
    high = np.quantile(values, 1 - tail, method="higher" if asked.test_size else "linear")
    return (max(float(low), -1.0), min(float(high), 1.0)), sources


def _sampled(draws: Draws, distortion: float, model: float, tail: float, asked: Asked) -> np.ndarray:
    """Distortions that networks show on test sets."""
    rng = np.random.default_rng([asked.seed, 2])
    values, flips, variance = draws.distortion, draws.flips, draws.statistics_variance
    if len(values) == 1:
        values, flips = np.repeat(values, SAMPLES), np.repeat(flips, SAMPLES)
    if len(values) < FEW_NETWORKS:  # too few for quantiles of their own: those of a normal law of their spread
        values, variance = distortion + float(values.std()) * rng.standard_normal(SAMPLES), variance.mean()
        flips = np.maximum(flips.mean(), np.abs(values))
    if tail * len(values) < FEWEST_BEYOND:
        raise InputError(
            f"confidence: expected at most {1 - 2 * FEWEST_BEYOND / len(values):.4f} for an interval from {len(values)} draws, "
            f"got {asked.confidence}"
        )
    values = values + np.sqrt(variance + model**2) * rng.standard_normal(len(values))
    if asked.test_size is None:
        return values
    # errors made and mended are counts: their difference in whole samples
    made = np.clip((np.maximum(flips, np.abs(values)) + values) / 2, 0, 1)
    mended = np.clip(made - values, 0, 1 - made)
    first = rng.binomial(asked.test_size, made)
    second = rng.binomial(asked.test_size - first, np.clip(mended / np.maximum(1 - made, 1e-300), 0, 1))
    return (first - second) / asked.test_size
