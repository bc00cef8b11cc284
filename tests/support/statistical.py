"""The statistical test every Monte Carlo comparison goes through, and the sample size that gives it its power."""

import math

import numpy as np
from scipy.stats import norm

FAMILY_RATE = 1e-3


def rejected(z, rate: float = FAMILY_RATE) -> int:
    """How many of a family of z-scores Holm's step-down test rejects; the chance that it rejects a true one is ``rate``."""
    p = np.sort(2 * norm.sf(np.abs(np.asarray(z, float).reshape(-1))))
    below = p <= rate / (len(p) - np.arange(len(p)))
    return len(p) if below.all() else int(np.argmin(below))


def design(*, alpha: float, beta: float, delta: float, sigma: float, m: int = 1) -> int:
    """Samples that find a discrepancy delta with probability 1 - beta in a two-sided Holm family of m at rate alpha."""
    return math.ceil(((norm.isf(alpha / (2 * m)) + norm.isf(beta)) * sigma / delta) ** 2)
