"""The z-test itself, on data of known error."""

import numpy as np
import pytest
from scipy.stats import binom

from tests.support.statistical import design, rejected


def test_false_alarms_at_the_stated_rate(seed):
    families = np.random.default_rng(seed).standard_normal((4000, 50))
    alarms = sum(rejected(z, rate=0.05) > 0 for z in families)
    low, high = binom.interval(1 - 1e-4, 4000, 0.05)
    assert low <= alarms <= high


def test_power_at_the_designed_size(seed):
    n = design(alpha=1e-3, beta=0.01, delta=0.1, sigma=1.0, m=50)
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(500):
        z = rng.standard_normal(50)
        z[7] += 0.1 * np.sqrt(n)
        found += rejected(z) > 0
    assert found >= binom.ppf(1e-4, 500, 0.99)


def test_it_counts_and_orders():
    assert rejected([0.1, -6.0, 5.0, 2.0]) == 2
    assert rejected([0.0, 1.0]) == 0
    assert rejected([9.0, -9.0]) == 2


def test_design_grows_with_the_family_and_the_precision():
    small = design(alpha=1e-3, beta=0.01, delta=0.1, sigma=1.0)
    assert design(alpha=1e-3, beta=0.01, delta=0.1, sigma=1.0, m=200) > small
    assert design(alpha=1e-3, beta=0.01, delta=0.05, sigma=1.0) == pytest.approx(4 * small, rel=0.01)
