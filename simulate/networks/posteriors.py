"""The temperature of a network's posteriors, by the labels of the images that calibrate."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from theory.setting.errors import InputError

WIDEST = 7.0  # |log T - log of the logits' deviation| that is looked at


class Scale(NamedTuple):
    """The temperature of the clean network's posteriors, and the standard deviation of its logarithm."""

    temperature: float
    log_error: float


def fitted_scale(logits: np.ndarray, labels: np.ndarray) -> Scale:
    """The temperature of least cross entropy, its error by the curvature in log T."""
    logits = logits - logits.mean(1, keepdims=True)
    rows, centre = np.arange(len(labels)), np.log(max(float(np.std(logits)), 1e-300))

    def cost(log_temperature: float) -> float:
        return -float(log_softmax(logits * np.exp(-log_temperature), 1)[rows, labels].sum())

    found = float(np.asarray(minimize_scalar(cost, bounds=(centre - WIDEST, centre + WIDEST), method="bounded").x))
    p = softmax(logits * np.exp(-found), 1)
    variance = np.sum(p * logits**2, 1) - np.sum(p * logits, 1) ** 2  # Fisher's information of log T, times T^2
    information = float(variance.sum()) * np.exp(-2 * found)
    if abs(found - centre) > WIDEST - 0.01 or information <= 0:
        raise InputError(
            "calibrate: expected images whose labels fit a temperature, got too few or all right: give --temperature"
        )
    return Scale(float(np.exp(found)), 1 / np.sqrt(information))
