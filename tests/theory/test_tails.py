"""Owen's T against mpmath (the defining integral, 30 digits) and SciPy."""

import mpmath
import numpy as np
import pytest
import scipy.special

from derivations.notation import owens_t as by_integral
from theory.tails import owens_t


def test_against_mpmath(seed):
    rng = np.random.default_rng(seed)
    h = rng.normal(0, 3, 40)
    a = np.exp(rng.normal(0, 2, 40)) * rng.choice([-1, 1], 40)
    got = np.asarray(owens_t(h, a))
    with mpmath.workdps(30):
        want = np.array([float(by_integral(mpmath.mpf(x), mpmath.mpf(y))) for x, y in zip(h, a, strict=True)])
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-16)
    near = np.abs(h) < 8
    np.testing.assert_allclose(got[near], want[near], rtol=1e-11)


def test_against_scipy_on_a_wide_range(seed):
    rng = np.random.default_rng(seed)
    h, a = rng.normal(0, 4, 20_000), np.tan(rng.uniform(-1.57, 1.57, 20_000))
    np.testing.assert_allclose(owens_t(h, a), scipy.special.owens_t(h, a), rtol=0, atol=3e-16)


@pytest.mark.parametrize(
    ("h", "a", "value"),
    [
        (0.0, np.inf, 0.25),
        (0.0, -np.inf, -0.25),
        (0.0, 1.0, 0.125),
        (np.inf, 1.0, 0.0),
        (3.0, 0.0, 0.0),
        (1.0, np.inf, scipy.special.ndtr(-1.0) / 2),
        (-1.0, np.inf, scipy.special.ndtr(-1.0) / 2),
    ],
)
def test_limits(h, a, value):
    assert float(owens_t(np.array(h), np.array(a))) == pytest.approx(value, abs=1e-16)
