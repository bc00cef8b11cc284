"""What a compression does to a problem, with the error of every number; and what it does to single networks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

ROUNDING = 1e-14  # a distortion that small is none


class Draws(NamedTuple):
    """Single networks behind an interval: distortion (n,), flip rate or share whose correctness changes (n,), and the sampling
    variance (n,) of the distortion that the statistics leave. n = 1 where the network is known."""

    law: str
    distortion: np.ndarray
    flips: np.ndarray
    statistics_variance: np.ndarray


def known_network(distortion: float, flips: float, variance: float) -> Draws:
    """The one network that there is."""
    return Draws("known", *(np.array([x], float) for x in (distortion, flips, variance)))


class Effect(NamedTuple):
    """What one compressed layer does, or random ones on average, by class (K,).

    before: risk of the clean layer. distortion: change of risk. flips: share of changed decisions. before_error, error and
    flips_error: 95 % half-widths of the numerical errors of the three, weighted by the priors. draws: single networks.
    notes: for the provenance. misfit: of the model of the features, over the flips. priors: where they are not those of the
    problem or of the labels. warnings: sentences of the method's own,
    in the place of those of :mod:`theory.validity`.
    """

    method: str
    before: np.ndarray
    distortion: np.ndarray
    flips: np.ndarray
    before_error: float
    error: float
    flips_error: float
    draws: Draws
    notes: Mapping[str, Any] = MappingProxyType({})
    misfit: float = 0.0
    priors: np.ndarray | None = None
    warnings: tuple[str, ...] | None = None


def lossless(effect: Effect) -> Effect:
    """The effect of a layer that compression leaves as it is: none, without an error."""
    nothing = np.zeros_like(effect.distortion)
    draws = known_network(0.0, 0.0, 0.0)
    return effect._replace(distortion=nothing, flips=nothing, error=0.0, flips_error=0.0, draws=draws)


def negative(distortion: float, deviation: float) -> str:
    """What a negative distortion averaged over samples means, beside its standard deviation by these."""
    if distortion > -2 * deviation:
        return f"negative distortion ({distortion:.3g}): within the noise of these samples, {deviation:.2g}"
    return f"negative distortion ({distortion:.3g}): errors move this layer towards a better one"
