"""Noise of layers: what errors of a weight used at several positions do to a logit, and what rectifiers make of noise.

To first order a logit moves by sum_p delta_p e'x_p, delta_p its slope in the output at position p and x_p what the weight meets
there. The error e is the same at all positions, so their effects add before they are squared.

A pre-activation u over inputs meets noise n, independent of it: rounding the weights of the layer before, or of an earlier one.
The rectifier passes E[max(u + n, 0) | u], which follows max(u, 0) with a slope, its gain, that is below 1 by the first order of
the noise power. Gains of several layers do not multiply: only the even half of a rectifier is shrunk.
"""

import mpmath
import sympy
from sympy import Symbol, acos, atan, pi, sqrt

from derivations.notation import Phi, m, phi, s, trace, v
from derivations.result import Identity, Numeric, Result, draw, evaluate

rho = Symbol("rho", real=True)
other = Symbol("other", positive=True)
noise = Symbol("noise", positive=True)
t, t_other = sympy.symbols("t t_other", real=True)
w_c_w = Symbol("w_c_w", nonnegative=True)
mean_square = Symbol("mean_square", nonnegative=True)
_mark = Symbol("mark")
TERMS = 12  # of the series of a rectified covariance
delta_1, delta_2 = sympy.symbols("delta_1 delta_2", real=True)
x_11, x_12, x_22 = sympy.symbols("x_11 x_12 x_22", real=True)


def _by_hand(mean, deviation):
    """E max(u, 0), in numbers."""
    return mean * mpmath.ncdf(mean / deviation) + deviation * mpmath.npdf(mean / deviation)


def _rectified(power: int, formula):
    """The formula beside the integral of max(u, 0)^power."""

    def sides(rng):
        values = draw(rng, m=(-1.5, 1.5), s=(0.3, 1.5))
        mean, deviation = values["m"], values["s"]
        points = sorted({mpmath.mpf(0), *(max(mpmath.mpf(0), mean + k * deviation) for k in (-4, 0, 4, 14))})
        want = mpmath.quad(lambda u: u**power * mpmath.npdf(u, mean, deviation), points)
        return evaluate(formula, {m: mean, s: deviation}), want

    return sides


_mean = m * Phi(m / s) + s * phi(m / s)

rectified_mean = Result(
    name="rectified_mean",
    statement="E max(u, 0) = m Phi(m/s) + s phi(m/s), u ~ N(m, s^2)",
    arguments=(m, s),
    formula=_mean,
    assumptions=("pre-activation Gaussian", "s > 0"),
    kind="exact",
    source="rectified Gaussian law",
    steps=lambda formula: (
        Identity(text="its slope in m is P(u > 0)", left=sympy.diff(formula, m), right=Phi(m / s)),
        Numeric(text="it equals the integral", sides=_rectified(1, formula)),
    ),
)

rectified_square = Result(
    name="rectified_square",
    statement="E max(u, 0)^2 = (m^2 + s^2) Phi(m/s) + m s phi(m/s), u ~ N(m, s^2)",
    arguments=(m, s),
    formula=(m**2 + s**2) * Phi(m / s) + m * s * phi(m / s),
    assumptions=("pre-activation Gaussian", "s > 0"),
    kind="exact",
    source="rectified Gaussian law",
    steps=lambda formula: (
        Identity(text="its slope in m is twice the mean", left=sympy.diff(formula, m), right=2 * _mean),
        Numeric(text="it equals the integral", sides=_rectified(2, formula)),
    ),
)


def _product_sides(formula):
    def sides(rng):
        values = draw(rng, s=(0.3, 1.5), other=(0.3, 1.5), rho=(-0.9, 0.9))
        first, second, correlation = (values[name] for name in ("s", "other", "rho"))
        rest = second * mpmath.sqrt(1 - correlation**2)

        def given(x):  # E[max(y, 0) | u = x s], weighted
            return first * x * _by_hand(correlation * second * x, rest) * mpmath.npdf(x)

        return evaluate(formula, {s: first, other: second, rho: correlation}), mpmath.quad(given, [0, 1, 3, 6, 14])

    return sides


_product = s * other * (sqrt(1 - rho**2) + rho * (pi - acos(rho))) / (2 * pi)

rectified_product = Result(
    name="rectified_product",
    statement="E max(u, 0) max(u', 0) = s s' (sqrt(1 - rho^2) + rho (pi - arccos rho))/(2 pi), u and u' of mean 0, deviations "
    "s and s' (other), correlation rho",
    arguments=(s, other, rho),
    formula=_product,
    assumptions=("pre-activations jointly Gaussian of mean 0",),
    kind="exact",
    source="arc-cosine kernel of order 1: Cho and Saul, NeurIPS 2009",
    steps=lambda formula: (
        Identity(
            text="Price: its second derivative in the covariance is the density of u = u' = 0",
            left=sympy.diff(formula, rho, 2) / (s * other) ** 2,
            right=1 / (2 * pi * s * other * sqrt(1 - rho**2)),
        ),
        Identity(text="uncorrelated, it is the product of the means", left=formula.subs(rho, 0), right=s * other / (2 * pi)),
        Identity(text="of one pre-activation, half of its power", left=formula.subs(rho, 1), right=s * other / 2),
        Numeric(text="it equals the integral over u", sides=_product_sides(formula), points=2),
    ),
)


def _covariance_sides(formula):
    """Near no correlation, where what the series leaves out is below the tolerance: rho^13 of it."""

    def sides(rng):
        values = draw(rng, t=(-1.5, 2.5), t_other=(-1.5, 2.5), rho=(-0.1, 0.1))
        first, second, correlation = (values[name] for name in ("t", "t_other", "rho"))
        rest = mpmath.sqrt(1 - correlation**2)
        means = _by_hand(first, mpmath.mpf(1)) * _by_hand(second, mpmath.mpf(1))

        def given(x):  # E[max(y, 0) | x] max(t + x, 0), weighted
            return (first + x) * _by_hand(second + correlation * x, rest) * mpmath.npdf(x)

        product = mpmath.quad(given, [-first, *(p for p in (-1, 1, 3, 6, 14) if p > -first)])
        return evaluate(formula, {t: first, t_other: second, rho: correlation}), product - means

    return sides


def _unit_mean(x):
    """E max(x + z, 0), z ~ N(0, 1)."""
    return x * Phi(x) + phi(x)


def _hermite_product(k: int):
    return sympy.hermite_prob_poly(k - 2, -t) * sympy.hermite_prob_poly(k - 2, -t_other)


_series = rho * Phi(t) * Phi(t_other) + phi(t) * phi(t_other) * sum(
    (rho**k / sympy.factorial(k) * _hermite_product(k) for k in range(2, TERMS + 1)), sympy.Integer(0)
)

rectified_covariance = Result(
    name="rectified_covariance",
    statement="Cov(max(u, 0), max(u', 0))/(s s') = rho Phi(t) Phi(t') + phi(t) phi(t') sum_{k=2}^{12} rho^k He_{k-2}(-t) "
    "He_{k-2}(-t')/k!, u and u' of means t s and t' s' (t_other), deviations s and s', correlation rho",
    arguments=(t, t_other, rho),
    formula=_series,
    assumptions=("pre-activations jointly Gaussian", "|rho| well below 1: the series is cut after rho^12"),
    kind="asymptotic (rho -> 0, order rho^12)",
    source="Mehler's series of the bivariate normal density; E f(t + z) He_k(z) is the k-th derivative of E f(t + z)",
    steps=lambda formula: (
        Identity(
            text="Mehler: its k-th derivative in rho at 0 is the product of the k-th derivatives of the two means",
            left=sum(_mark**k * sympy.diff(formula, rho, k).subs(rho, 0) for k in range(TERMS + 1)),
            right=sum(
                _mark**k * sympy.diff(_unit_mean(t), t, k) * sympy.diff(_unit_mean(t_other), t_other, k)
                for k in range(1, TERMS + 1)
            ),
        ),
        Numeric(text="it equals the integral", sides=_covariance_sides(formula), points=2),
    ),
)


def _noisy_steps(formula):
    """Two inputs: all moments written out."""
    w, means = sympy.symbols("w1:3", real=True), sympy.symbols("m1:3", real=True)
    c = sympy.Matrix([[Symbol("c11"), Symbol("c12")], [Symbol("c12"), Symbol("c22")]])
    second = sum(
        ((w[i] * w[j] + v * int(i == j)) * (c[i, j] + means[i] * means[j]) for i in range(2) for j in range(2)),
        sympy.Integer(0),
    )
    mean = w[0] * means[0] + w[1] * means[1]
    passed = sum((w[i] * c[i, j] * w[j] for i in range(2) for j in range(2)), sympy.Integer(0))
    inputs = {w_c_w: passed, mean_square: means[0] ** 2 + means[1] ** 2, trace: c[0, 0] + c[1, 1]}
    return (
        Identity(text="two inputs", left=formula.subs(inputs), right=second - mean**2),
        Identity(text="no errors: what the weights pass on", left=formula.subs(v, 0), right=w_c_w),
    )


noisy_layer = Result(
    name="noisy_layer",
    statement="Var (w + e)'h = w'C w + v (|m|^2 + tr C), h of mean m (mean_square = |m|^2) and covariance C (w_c_w = w'C w), "
    "errors e independent of h and each other, of variance v; two rows share w'C w_other alone",
    arguments=(v, w_c_w, mean_square, trace),
    formula=w_c_w + v * (mean_square + trace),
    assumptions=("errors independent from entry to entry and of the inputs",),
    kind="exact",
    source="second moments of products of independent variables",
    steps=_noisy_steps,
)


def _gain_sides(formula):
    def sides(rng):
        power = draw(rng, noise=(0.01, 2.0))["noise"]
        deviation, mean = mpmath.sqrt(power), 1 / mpmath.sqrt(2 * mpmath.pi)

        def product(u):  # of E[max(u + n, 0) | u] and the centred max(u, 0), weighted
            return _by_hand(u, deviation) * (max(u, 0) - mean) * mpmath.npdf(u)

        covariance = mpmath.quad(product, [-14, -4, -1, 0, 1, 4, 14])
        variance = mpmath.mpf(1) / 2 - mean**2
        return evaluate(formula, {noise: power}), covariance / variance

    return sides


rectifier_gain = Result(
    name="rectifier_gain",
    statement="slope of E[max(u + n, 0) | u] in max(u, 0), u ~ N(0, s^2), n ~ N(0, noise s^2): g = (pi + sqrt(noise) - "
    "arctan sqrt(noise) - sqrt(1 + noise))/(pi - 1) = 1 - noise/(2 (pi - 1)) + O(noise^(3/2))",
    arguments=(noise,),
    formula=(pi + sqrt(noise) - atan(sqrt(noise)) - sqrt(1 + noise)) / (pi - 1),
    assumptions=("pre-activation Gaussian of mean 0", "noise Gaussian, independent of it"),
    kind="exact",
    source="least-squares slope: Cov of the two rectified pre-activations (rectified_product) over Var max(u, 0)",
    steps=lambda formula: (
        Identity(
            text="the covariance of max(u + n, 0) and max(u, 0), correlation 1/sqrt(1 + noise), over the variance",
            left=formula * (pi - 1) / (2 * pi),
            right=(_product.subs({s: 1, other: sqrt(1 + noise)}) - sqrt(1 + noise) / (2 * pi))
            .subs(rho, 1 / sqrt(1 + noise))
            .subs(acos(1 / sqrt(1 + noise)), atan(sqrt(noise)))
            .subs(sqrt(1 - 1 / (1 + noise)), sqrt(noise) / sqrt(1 + noise)),
        ),
        Identity(text="no noise, no shrinking", left=sympy.limit(formula, noise, 0, "+"), right=sympy.Integer(1)),
        Identity(
            text="its slope without noise is -1/(2 (pi - 1))",
            left=sympy.limit(sympy.diff(formula, noise), noise, 0, "+"),
            right=-1 / (2 * (pi - 1)),
        ),
        Numeric(text="it equals the least-squares slope by integration", sides=_gain_sides(formula)),
    ),
)


def _shared_steps(formula):
    """Two positions and two entries of the weight: a sum of squares of the slopes in the entries, which are independent."""
    e = sympy.symbols("e0:2", real=True)
    x = [sympy.symbols(f"x{p}_0:2", real=True) for p in (1, 2)]
    logit = sum(
        (
            d * sum(error * value for error, value in zip(e, row, strict=True))
            for d, row in zip((delta_1, delta_2), x, strict=True)
        ),
        sympy.Integer(0),
    )
    variance = v * sum((sympy.diff(logit, error) ** 2 for error in e), sympy.Integer(0))

    def inner(i: int, j: int):
        return sum((a * b for a, b in zip(x[i], x[j], strict=True)), sympy.Integer(0))

    inputs = {x_11: inner(0, 0), x_12: inner(0, 1), x_22: inner(1, 1)}
    return (
        Identity(text="two positions, two entries", left=formula.subs(inputs), right=variance),
        Identity(
            text="a position that meets the same twice counts four times, not twice",
            left=formula.subs({delta_2: delta_1, x_12: x_11, x_22: x_11}),
            right=4 * v * delta_1**2 * x_11,
        ),
    )


shared_weight_noise = Result(
    name="shared_weight_noise",
    statement="variance of a logit under independent errors of variance v of a weight used at two positions: "
    "v (delta_1^2 x_1'x_1 + 2 delta_1 delta_2 x_1'x_2 + delta_2^2 x_2'x_2) = v |J|^2, J = delta_1 x_1 + delta_2 x_2",
    arguments=(v, delta_1, delta_2, x_11, x_12, x_22),
    formula=v * (delta_1**2 * x_11 + 2 * delta_1 * delta_2 * x_12 + delta_2**2 * x_22),
    assumptions=("errors independent from entry to entry, of one variance", "first order in the errors"),
    kind="asymptotic (v -> 0, order v)",
    source="a convolution's errors are common to all positions",
    steps=_shared_steps,
)
