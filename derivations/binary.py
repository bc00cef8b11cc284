"""Risk of a binary linear classifier with Gaussian features, and its expectation under errors of the weights.

Setting (theory of D. Resmerita, R. Cabral Farias, B. Dupont de Dinechin, L. Fillatre, IEEE SSP 2021, doi
10.1109/SSP49050.2021.9513733, and EUSIPCO 2021, doi 10.23919/EUSIPCO54536.2021.9616015; derived here from the
definitions): class k has features N(mu, Sigma), the margin t = w'z + c is N(m, s^2), and the class errs with
probability Phi(sign m/s). Compression changes w to w + e, e independent of the features, entries independent with
variance v. Every formula is the contribution of one class; the binary value is the sum over both.
"""

import mpmath
import sympy
from sympy import Rational, Symbol, exp, sqrt

from derivations.jax_code import for_mpmath
from derivations.notation import Phi, a, h_h, m, mu_h, mu_mu, phi, prior, q, s, sign, trace, v
from derivations.result import Identity, Numeric, Result, draw, evaluate

t, x = Symbol("t", real=True), Symbol("x", positive=True)
xi, l4, l6 = Symbol("xi", real=True), Symbol("l4", real=True), Symbol("l6", real=True)
risk_plain = prior * Phi(sign * m / s)

# An explicit two-dimensional class: w, mu and a general symmetric Sigma; the invariants in its symbols.
_w = sympy.Matrix(sympy.symbols("w1 w2", real=True))
_mu = sympy.Matrix(sympy.symbols("mu1 mu2", real=True))
_c, _s11, _s12, _s22 = sympy.symbols("c s11 s12 s22", real=True)
_Sigma = sympy.Matrix([[_s11, _s12], [_s12, _s22]])
_margin, _power = (_w.T * _mu)[0] + _c, (_w.T * _Sigma * _w)[0]
_h = _Sigma * _w
_EXPLICIT = {
    m: _margin,
    s: sqrt(_power),
    mu_mu: (_mu.T * _mu)[0],
    mu_h: (_mu.T * _h)[0],
    h_h: (_h.T * _h)[0],
    trace: _Sigma.trace(),
}


def _explicit(expression: sympy.Expr) -> sympy.Expr:
    return expression.subs(_EXPLICIT, simultaneous=True)


def _risk_by_integral(formula: sympy.Expr):
    def sides(rng):
        values = draw(rng, prior=(0.1, 0.9), m=(-2, 2), s=(0.5, 2))
        side = rng.choice((1, -1))
        ends = [0, values["m"] + 12 * values["s"]] if side == 1 else [values["m"] - 12 * values["s"], 0]
        integral = mpmath.quad(
            lambda y: mpmath.npdf(y, values["m"], values["s"]),
            sorted([*ends, values["m"]]) if ends[0] < values["m"] < ends[1] else ends,
        )
        known = {prior: values["prior"], sign: side, m: values["m"], s: values["s"]}
        return evaluate(formula, known), values["prior"] * integral

    return sides


binary_risk = Result(
    name="binary_risk",
    statement="R(w) = sum_k pi_k Phi(sign_k m_k/s_k), sign_0 = +1, sign_1 = -1",
    arguments=(prior, sign, m, s),
    formula=risk_plain,
    assumptions=("features Gaussian given the class (only the margin matters)", "s > 0"),
    kind="exact",
    source="definition of the risk; the margin of a Gaussian vector is Gaussian",
    steps=lambda formula: (
        Identity(
            text="the density of t is the derivative of Phi((t - m)/s)",
            left=sympy.diff(Phi((t - m) / s), t),
            right=phi((t - m) / s) / s,
        ),
        Numeric(
            text="class 0 errs when t > 0 and class 1 when t <= 0: the density integrated over the wrong side",
            sides=_risk_by_integral(formula),
            points=6,
        ),
    ),
)

_u = m / s
_T = -2 * mu_h / s**3 - m * trace / s**3 + 3 * m * h_h / s**5
_G = mu_mu / s**2 - 2 * m * mu_h / s**4 + m**2 * h_h / s**6


_U = sympy.Function("U")(*_w)  # any smooth function of w


def _four_points(formula: sympy.Expr):
    def sides(rng):
        values = draw(
            rng,
            prior=(0.2, 0.8),
            w1=(0.5, 1.5),
            w2=(-1.5, -0.5),
            mu1=(-1, 1),
            mu2=(-1, 1),
            c=(-1, 1),
            s11=(1, 2),
            s12=(-0.5, 0.5),
            s22=(1, 2),
        )
        side, variance = rng.choice((1, -1)), mpmath.mpf("1e-10")

        def risk(e1, e2):
            a1, a2 = values["w1"] + e1, values["w2"] + e2
            power = a1**2 * values["s11"] + 2 * a1 * a2 * values["s12"] + a2**2 * values["s22"]
            return mpmath.ncdf(side * (a1 * values["mu1"] + a2 * values["mu2"] + values["c"]) / mpmath.sqrt(power))

        e = mpmath.sqrt(variance)
        average = (risk(e, e) + risk(e, -e) + risk(-e, e) + risk(-e, -e)) / 4 - risk(0, 0)
        explicit = {symbol: values[str(symbol)] for symbol in (*_w, *_mu, _c, _s11, _s12, _s22)}
        known = {symbol: evaluate(expression, explicit) for symbol, expression in _EXPLICIT.items()}
        known |= {prior: values["prior"], sign: side, v: variance}
        return evaluate(formula, known), values["prior"] * average

    return sides


delta_2 = Result(
    name="delta_2",
    statement="Dbar ~ (v/2) pi phi(u) sign (T - u G), u = m/s, T = Laplacian of u and G = |gradient of u|^2 in w",
    arguments=(prior, sign, v, m, s, mu_mu, mu_h, h_h, trace),
    formula=v / 2 * prior * phi(_u) * sign * (_T - _u * _G),
    assumptions=("features Gaussian given the class", "entries of e uncorrelated, mean 0, variance v"),
    kind="asymptotic (exact to order v)",
    source="delta method of order 2: E R(w + e) - R(w) = tr(v Hess R)/2 + O(v^2)",
    steps=lambda formula: (
        Identity(
            text="u = m/s on an explicit class: |grad u|^2 = G",
            left=sum((sympy.diff(_margin / sqrt(_power), one) ** 2 for one in _w), sympy.Integer(0)),
            right=_explicit(_G),
        ),
        Identity(
            text="Laplacian u = T",
            left=sum((sympy.diff(_margin / sqrt(_power), one, 2) for one in _w), sympy.Integer(0)),
            right=_explicit(_T),
        ),
        Identity(
            text="Laplacian Phi(U) = phi(U) (Laplacian U - U |grad U|^2) for any U(w)",
            left=sum((sympy.diff(Phi(_U), one, 2) for one in _w), sympy.Integer(0)),
            right=sum((phi(_U) * (sympy.diff(_U, one, 2) - _U * sympy.diff(_U, one) ** 2) for one in _w), sympy.Integer(0)),
        ),
        Identity(
            text="Dbar = (v/2) Laplacian of pi Phi(u), sign = +1",
            left=formula.subs(sign, 1),
            right=v / 2 * prior * phi(_u) * (_T - _u * _G),
        ),
        Numeric(
            text="errors of +-sqrt(v) in either coordinate, uncorrelated with variance v: their four exact risks averaged, at "
            "v = 1e-10, for both classes",
            sides=_four_points(formula),
            points=4,
            tolerance=1e-7,
        ),
    ),
)

_z1, _z2 = sympy.symbols("z1 z2", real=True)


def _gaussian_mean(polynomial: sympy.Expr) -> sympy.Expr:
    """E of a quadratic polynomial in (z1, z2) ~ N(mu, Sigma) of the explicit class."""
    terms = {
        (0, 0): 1,
        (1, 0): _mu[0],
        (0, 1): _mu[1],
        (2, 0): _mu[0] ** 2 + _s11,
        (1, 1): _mu[0] * _mu[1] + _s12,
        (0, 2): _mu[1] ** 2 + _s22,
    }
    return sum((c * terms[powers] for powers, c in sympy.Poly(polynomial, _z1, _z2).terms()), sympy.Integer(0))


marginal = Result(
    name="marginal",
    statement="Rbar ~ pi Phi(sign m/sqrt(s^2 + v (tr Sigma + |mu|^2))): the textbook answer",
    arguments=(prior, sign, v, m, s, mu_mu, trace),
    formula=prior * Phi(sign * m / sqrt(s**2 + v * (trace + mu_mu))),
    assumptions=(
        "the noisy margin t + e'z taken as Gaussian",
        "|z| taken as independent of the margin t: wrong already to order v",
    ),
    kind="approximation (not exact to any order)",
    source="variance of the noisy margin put into the exact risk",
    steps=lambda formula: (
        Identity(
            text="E (e'z)^2 = v E |z|^2 = v (tr Sigma + |mu|^2) on the explicit class",
            left=_gaussian_mean(_z1**2 + _z2**2),
            right=_explicit(trace + mu_mu),
        ),
        Identity(text="at v = 0 it is the risk", left=formula.subs(v, 0), right=risk_plain),
        Identity(
            text="its slope in v is that of Phi(sign m/S) along S^2 = s^2 + v E |z|^2",
            left=sympy.diff(formula, v).subs(v, 0),
            right=prior * phi(sign * m / s) * sign * m * -Rational(1, 2) * (trace + mu_mu) / s**3,
        ),
    ),
)

_s1 = sqrt(s**2 + v * trace)
_mean = m / _s1 - v * mu_h / _s1**3 + Rational(3, 2) * m * v * h_h / _s1**5
_variance = v * (mu_mu / _s1**2 - 2 * m * mu_h / _s1**4 + m**2 * h_h / _s1**6)
_S = Symbol("S", positive=True)


def _second_order() -> tuple[sympy.Expr, sympy.Expr]:
    """Mean to order v and variance to order v of U = (m + a)/sqrt(S^2 + 2 q), a = e'mu, q = e'Sigma w."""
    U = (m + a) / sqrt(_S**2 + 2 * q)
    at = {a: 0, q: 0}
    moments = {(a, a): v * mu_mu, (a, q): v * mu_h, (q, q): v * h_h}
    mean = U.subs(at) + sum(
        (sympy.diff(U, i, j).subs(at) * moments[i, j] * (1 if i is not j else Rational(1, 2)) for i, j in moments),
        sympy.Integer(0),
    )
    slope = {i: sympy.diff(U, i).subs(at) for i in (a, q)}
    variance = sum((slope[i] * slope[j] * moments[i, j] * (2 if i is not j else 1) for i, j in moments), sympy.Integer(0))
    return mean, variance


def _gaussian_average(formula: sympy.Expr):
    mean, variance = (side.subs(_S, sqrt(s**2 + v * trace)) for side in _second_order())

    def sides(rng):
        values = draw(
            rng,
            prior=(0.2, 0.8),
            v=(0.01, 0.1),
            m=(-1.5, 1.5),
            s=(0.8, 1.5),
            mu_mu=(2, 3),
            mu_h=(-1, 1),
            h_h=(0.5, 2),
            trace=(2, 4),
        )
        side = rng.choice((1, -1))
        known = {symbol: values[str(symbol)] for symbol in (prior, v, m, s, mu_mu, mu_h, h_h, trace)}
        M, sd = evaluate(mean, known), mpmath.sqrt(evaluate(variance, known))
        average = mpmath.quad(lambda y: mpmath.ncdf(side * (M + sd * y)) * mpmath.npdf(y), [-14, -4, 0, 4, 14])
        return evaluate(formula, known | {sign: side}), values["prior"] * average

    return sides


corrected_marginal = Result(
    name="corrected_marginal",
    statement="Rbar ~ pi Phi(sign M/sqrt(1 + V)), M and V the mean and variance to order v of U = "
    "(m + e'mu)/sqrt(s1^2 + 2 e'Sigma w), s1^2 = s^2 + v tr Sigma",
    arguments=(prior, sign, v, m, s, mu_mu, mu_h, h_h, trace),
    formula=prior * Phi(sign * _mean / sqrt(1 + _variance)),
    assumptions=(
        "features Gaussian given the class",
        "entries of e uncorrelated, mean 0, variance v",
        "e'Sigma e replaced by its mean, U taken as Gaussian (both exact to order v)",
    ),
    kind="asymptotic (exact to order v)",
    source="conditioning on e: R(w + e) = Phi(sign U); second-order expansion of U, then a Gaussian average",
    steps=lambda formula: (
        Identity(text="mean of U to order v", left=_second_order()[0], right=_mean.subs(s, sqrt(_S**2 - v * trace))),
        Identity(text="variance of U to order v", left=_second_order()[1], right=_variance.subs(s, sqrt(_S**2 - v * trace))),
        Numeric(
            text="the formula is pi E Phi(sign U) for U ~ N(M, V), by quadrature, both classes",
            sides=_gaussian_average(formula),
            points=6,
        ),
        Identity(
            text="its slope in v at 0 is the delta method's",
            left=(sympy.diff(formula, v).subs(v, 0) * exp(_u**2 / 2)).subs(sign, 1),
            right=(delta_2.formula / v * exp(_u**2 / 2)).subs(sign, 1),
        ),
    ),
)


def _hermite(order: int) -> sympy.Expr:
    """Probabilists' Hermite polynomial from its definition, (-1)^n phi^(n)/phi."""
    y = Symbol("y", real=True)
    return sympy.expand((-1) ** order * sympy.diff(phi(y), y, order) / phi(y)).subs(y, xi)


edgeworth_tail = Result(
    name="edgeworth_tail",
    statement="P(x > xi sd) ~ Phi(-xi) + phi(xi) [l4 He3/24 + l6 He5/720 + l4^2 He7/1152](xi)",
    arguments=(xi, l4, l6),
    formula=Phi(-xi) + phi(xi) * (l4 * _hermite(3) / 24 + l6 * _hermite(5) / 720 + l4**2 * _hermite(7) / 1152),
    assumptions=("x symmetric, l4 and l6 its standardized fourth and sixth cumulants, l6 of the order of l4^2",),
    kind="asymptotic (next term of order l4^3, l4 l6 and the eighth cumulant)",
    source="Edgeworth expansion",
    steps=lambda formula: _tail_steps(formula),
)


def _tail_steps(formula: sympy.Expr):
    eps, D = sympy.symbols("eps D")
    series = sympy.series(sympy.exp(eps * l4 * D**4 / 24 + eps**2 * l6 * D**6 / 720), eps, 0, 3).removeO().subs(eps, 1)
    density = sum((c * (-1) ** n * sympy.diff(phi(xi), xi, n) for (n,), c in sympy.Poly(series, D).terms()), sympy.Integer(0))
    return (
        Identity(
            text="the operator exp(l4 D^4/24 + l6 D^6/720) to second order, l6 counted as l4^2",
            left=series,
            right=1 + l4 * D**4 / 24 + l6 * D**6 / 720 + l4**2 * D**8 / 1152,
        ),
        Identity(
            text="minus the derivative of the tail is that operator applied to phi",
            left=-sympy.diff(formula, xi) * exp(xi**2 / 2),
            right=sympy.expand(density * exp(xi**2 / 2)),
        ),
        Identity(text="the tail at 0 is 1/2: x is symmetric", left=formula.subs(xi, 0), right=Rational(1, 2)),
    )


g_minus, g_plus = Symbol("g_minus", positive=True), Symbol("g_plus", positive=True)
l4_minus, l4_plus, l6_minus, l6_plus = (Symbol(name, real=True) for name in ("l4_minus", "l4_plus", "l6_minus", "l6_plus"))


def _tail(g: sympy.Expr, fourth: sympy.Expr, sixth: sympy.Expr) -> sympy.Expr:
    return edgeworth_tail.formula.subs({xi: x / sqrt(v * g), l4: fourth, l6: sixth}, simultaneous=True)


_below = phi((-x - m) / s) / s * _tail(g_minus, l4_minus, l6_minus)
_above = phi((x - m) / s) / s * _tail(g_plus, l4_plus, l6_plus)


def _one_dimensional(integrand: sympy.Expr, flips: bool):
    """One feature, a normal error: given t the feature is known, z = (t - c)/w, so that T is exact with g = z^2.

    Dbar by averaging the exact risk over the error, F by integrating the flip probability over t: neither uses the
    integrand's decomposition.
    """

    def sides(rng):
        values = draw(rng, prior=(0.2, 0.8), mu=(-1, 1), spread=(0.5, 1.5), w=(0.8, 1.6), c=(-1, 1), noise=(0.1, 0.5))
        mu, spread, w, c, sd = (values[name] for name in ("mu", "spread", "w", "c", "noise"))
        side = rng.choice((1, -1))
        mean, width = w * mu + c, spread * w
        known = {prior: values["prior"], m: mean, s: width, v: sd**2, sign: side}
        expression = integrand.subs({l4_minus: 0, l4_plus: 0, l6_minus: 0, l6_plus: 0})
        expression = expression.subs({k: sympy.Float(y, 30) for k, y in known.items()})
        function = for_mpmath((x, g_minus, g_plus), expression)
        ends = sorted({mpmath.mpf(y) for y in (0, abs(c), 0.5, 1, 2, 4, 8, 16)})
        got = mpmath.quad(lambda y: function(y, ((-y - c) / w) ** 2, ((y - c) / w) ** 2), ends)
        if flips:
            ends = sorted({mpmath.mpf(y) for y in (-16, -4, -1, 0, c, 1, 4, 16)})
            want = mpmath.quad(lambda y: mpmath.npdf(y, mean, width) * mpmath.ncdf(-abs(y) / (sd * abs((y - c) / w))), ends)
        else:
            ends = sorted({mpmath.mpf(y) for y in (-16 * sd, -4 * sd, -w, 0, 4 * sd, 16 * sd)})
            want = mpmath.quad(
                lambda e: mpmath.npdf(e, 0, sd) * mpmath.ncdf(side * (mean + e * mu) / (spread * abs(w + e))), ends
            )
            want -= mpmath.ncdf(side * mean / width)
        return got, values["prior"] * want

    return sides


def _written_out(g: sympy.Expr, fourth: sympy.Expr, sixth: sympy.Expr) -> sympy.Expr:
    """The tail of edgeworth_tail typed a second time, to check the first."""
    y = x / sqrt(v * g)
    series = fourth * (y**3 - 3 * y) / 24 + sixth * (y**5 - 10 * y**3 + 15 * y) / 720
    series += fourth**2 * (y**7 - 21 * y**5 + 105 * y**3 - 105 * y) / 1152
    return Phi(-y) + phi(y) * series


margin_quadrature = Result(
    name="margin_quadrature",
    statement="Dbar = sum_k pi_k sign_k Int_0^inf [f_k(-x) T_k(x, -x) - f_k(x) T_k(x, x)] dx: f_k the density of the clean "
    "margin, T_k(x, t) = P(e'z > x | t) by edgeworth_tail with variance v g_k(t); this is the integrand",
    arguments=(x, prior, sign, v, m, s, g_minus, g_plus, l4_minus, l4_plus, l6_minus, l6_plus),
    formula=prior * sign * (_below - _above),
    assumptions=(
        "features Gaussian given the class",
        "entries of e independent, symmetric, variance v",
        "the law of e'z given t by its cumulants up to the sixth",
    ),
    kind="asymptotic (exact in v; next Edgeworth term of order 1/(effective dimension)^3)",
    source="conditioning on the clean margin",
    steps=lambda formula: (
        Numeric(
            text="class 0 at t = -x was right and errs when e'z > x; at t = x it was wrong and is right when e'z <= "
            "-x, as probable as e'z > x. One feature, normal error: the integral is E R(w + e) - R(w)",
            sides=_one_dimensional(formula, flips=False),
            points=4,
        ),
        Identity(
            text="the tails are those of edgeworth_tail, each with the variance and the cumulants of its own side of 0",
            left=formula,
            right=prior
            * sign
            / s
            * (
                phi((x + m) / s) * _written_out(g_minus, l4_minus, l6_minus)
                - phi((x - m) / s) * _written_out(g_plus, l4_plus, l6_plus)
            ),
        ),
    ),
)

margin_quadrature_flips = Result(
    name="margin_quadrature_flips",
    statement="Fbar = sum_k pi_k Int_0^inf [f_k(x) T_k(x, x) + f_k(-x) T_k(x, -x)] dx; this is the integrand",
    arguments=(x, prior, v, m, s, g_minus, g_plus, l4_minus, l4_plus, l6_minus, l6_plus),
    formula=prior * (_below + _above),
    assumptions=margin_quadrature.assumptions,
    kind=margin_quadrature.kind,
    source="conditioning on the clean margin; a flip is an error made or an error mended",
    steps=lambda formula: (
        Numeric(
            text="one feature, normal error: the integral over t of the probability of the other sign",
            sides=_one_dimensional(formula, flips=True),
            points=4,
        ),
        Identity(
            text="for sign = 1, flips minus distortion are twice the errors mended",
            left=formula - margin_quadrature.formula.subs(sign, 1),
            right=2 * prior * _above,
        ),
    ),
)
