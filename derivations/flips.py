"""Flip rate of a known compressed layer: two jointly Gaussian margins of opposite sign.

The margins t = w'z + c and t + x, x = e'z + (change of c), are bivariate normal; with a = E x, q = Cov(t, x) = e'Sigma w
and r = Var x = e'Sigma e, written so that nothing cancels when e is small: 1 - corr^2 comes from s^2 r - q^2.
"""

import mpmath
import sympy
from sympy import Piecewise, sqrt

from derivations.notation import OwensT, Phi, a, m, prior, q, r, s, sign
from derivations.result import Identity, Numeric, Result, draw, evaluate

_s_hat = sqrt(s**2 + 2 * q + r)
_det = sqrt(s**2 * r - q**2)
_slope = (a * s**2 / m - q) / _det
_slope_hat = (q + r - a * _s_hat**2 / (m + a)) / _det
_formula = prior * (
    2 * OwensT(m / s, _slope) + 2 * OwensT((m + a) / _s_hat, _slope_hat) + Piecewise((1, m * (m + a) < 0), (0, True))
)


def _flip_sides(formula):
    def sides(rng):
        values = draw(rng, prior=(0.2, 0.8), m=(-1.5, 1.5), s=(0.5, 1.5), a=(-0.5, 0.5), q=(-0.4, 0.4), rest=(0.05, 0.5))
        mean, sd, shift, cross = (values[name] for name in ("m", "s", "a", "q"))
        if rng.random() < 0.5:  # the mean margin itself changes sign
            shift = -mean * mpmath.mpf(rng.uniform(1.2, 2.0))
        power = values["rest"] + cross**2 / sd**2  # Var(x | t) = rest

        def crossed(y):  # P(the noisy margin has the other sign | t = y)
            centre = y + shift + cross * (y - mean) / sd**2
            return mpmath.ncdf(-mpmath.sign(y) * centre / mpmath.sqrt(values["rest"])) * mpmath.npdf(y, mean, sd)

        known = {prior: values["prior"], m: mean, s: sd, a: shift, q: cross, r: power}
        want = values["prior"] * mpmath.quad(crossed, [-16, -6, -2, -0.5, 0, 0.5, 2, 6, 16])
        return evaluate(formula, known), want

    return sides


binary_flip_rate = Result(
    name="binary_flip_rate",
    statement="F = sum_k pi_k [2 T(u, alpha) + 2 T(u', alpha') + 1{u u' < 0}], T Owen's function, u = m/s, u' = "
    "(m + a)/s', s'^2 = s^2 + 2 q + r, alpha = (a s^2/m - q)/det, alpha' = (q + r - a s'^2/(m + a))/det, "
    "det^2 = s^2 r - q^2",
    arguments=(prior, m, s, a, q, r),
    formula=_formula,
    assumptions=("features Gaussian given the class", "det > 0, s' > 0, m and m + a not 0 (their limits otherwise)"),
    kind="exact",
    source="bivariate normal distribution by Owen's T: D. B. Owen, Ann. Math. Statist. 27 (1956) 1075",
    steps=lambda formula: (
        Identity(
            text="1 - corr^2 = (s^2 r - q^2)/(s^2 s'^2)",
            left=1 - ((s**2 + q) / (s * _s_hat)) ** 2,
            right=_det**2 / (s**2 * _s_hat**2),
        ),
        Identity(
            text="the slope alpha is Owen's (u'/u - corr)/sqrt(1 - corr^2)",
            left=_slope,
            right=((m + a) / m * s / _s_hat - (s**2 + q) / (s * _s_hat)) * s * _s_hat / _det,
        ),
        Identity(
            text="the slope alpha' is Owen's (u/u' - corr)/sqrt(1 - corr^2)",
            left=_slope_hat,
            right=(m / (m + a) * _s_hat / s - (s**2 + q) / (s * _s_hat)) * s * _s_hat / _det,
        ),
        Numeric(
            text="it equals the integral over t of the probability that the noisy margin has the other sign",
            sides=_flip_sides(formula),
            points=8,
        ),
    ),
)

_w, _e, _mu = (sympy.Matrix(sympy.symbols(f"{name}1 {name}2", real=True)) for name in ("w", "e", "mu"))
_Sigma = sympy.Matrix(2, 2, sympy.symbols("s11 s12 s12 s22", real=True))
_c = sympy.Symbol("c", real=True)


def _two(vector: sympy.Matrix) -> tuple[sympy.Expr, sympy.Expr]:
    """Mean and variance of the margin vector'z + c of an explicit class."""
    return sympy.expand((vector.T * _mu)[0] + _c), sympy.expand((vector.T * _Sigma * vector)[0])


def _explicit() -> dict:
    """The invariants of the explicit class; the bias is held, so a = e'mu."""
    mean, variance = _two(_w)
    return {m: mean, s: sqrt(variance), a: (_e.T * _mu)[0], q: (_e.T * _Sigma * _w)[0], r: (_e.T * _Sigma * _e)[0]}


binary_distortion = Result(
    name="binary_distortion",
    statement="D = sum_k pi_k [Phi(sign u') - Phi(sign u)], u = m/s, u' = (m + a)/sqrt(s^2 + 2 q + r)",
    arguments=(prior, sign, m, s, a, q, r),
    formula=prior * (Phi(sign * (m + a) / _s_hat) - Phi(sign * m / s)),
    assumptions=("features Gaussian given the class",),
    kind="exact",
    source="difference of two exact risks",
    steps=lambda formula: (
        Identity(text="no error, no distortion", left=formula.subs({a: 0, q: 0, r: 0}), right=sympy.Integer(0)),
        Identity(
            text="on an explicit class it is the difference of the exact risks of w + e and w",
            left=formula.subs(_explicit(), simultaneous=True),
            right=prior * (Phi(sign * _two(_w + _e)[0] / sqrt(_two(_w + _e)[1])) - Phi(sign * _two(_w)[0] / sqrt(_two(_w)[1]))),
        ),
    ),
)
