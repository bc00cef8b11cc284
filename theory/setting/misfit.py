"""How far a model of the features is off: what it says of many compressed layers, held against labels counted."""

import contextlib

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes import UNIFORM, Compressed, compress

BITS = (2, 3, 4, 5, 6)
FLOOR = 0.02  # of the flip rate: no model is taken to be better


def grid(weights: np.ndarray) -> list[Compressed]:
    """The layers (rows, d) on which models are held against labels: every scheme, one step a layer and a row, BITS; those that
    the scheme refuses for these weights left out."""
    layers = []
    for scheme in UNIFORM:
        for channel in (False, True):
            for bits in BITS:
                with contextlib.suppress(InputError):
                    layers.append(compress(weights, scheme, bits, per_channel=channel))
    return layers


def changed_ratio(counted: float, modelled: float) -> float:
    """Decisions changed, counted over modelled, both numbers of samples of which some may be few: the mean of the ratio's
    posterior where counts follow Poisson's law and the ratio is 1 before, known as well as by one count."""
    return (1 + counted) / (1 + modelled)


def misfit(differences: np.ndarray, flips: np.ndarray, variances: np.ndarray) -> float:
    """The likeliest tau, the differences (cells,) of predicted and counted distortions being normal with variances
    tau^2 flips^2 + variances, those of counting the same samples.

    Cells share samples, so tau is known less well than their number says. It is at most 1: no distortion is larger than the
    flips.
    """
    some = (flips > 0) & (variances > 0)
    if not some.any():
        return 0.0
    delta, F, s2 = differences[some], flips[some], variances[some]

    def cost(tau: float) -> float:
        variance = tau**2 * F**2 + s2
        return float(np.sum(np.log(variance) + delta**2 / variance))

    from scipy.optimize import minimize_scalar  # takes longer than many answers that need none

    best = minimize_scalar(cost, bounds=(0, 1), method="bounded", options={"xatol": 1e-4})
    tau = float(np.asarray(best.x))
    return tau if cost(tau) < cost(0.0) else 0.0
