"""More than two classes: what a known and a random layer do to the decision argmax_j a_j.

Orthants: class y is decided when the K - 1 contrasts a_y - a_j are positive. Given the features z, the noise E z of the
logits has independent rows of variance sigma_j^2 |z|^2, sigma_j = step_j/sqrt(12), nearly Gaussian: the decision is then a
one-dimensional integral over the class's own noise. No hypothesis on the features is needed for that.
"""

import mpmath
import numpy as np
import sympy
from sympy import Symbol, exp, pi, sqrt

from derivations.jax_code import for_mpmath
from derivations.notation import Phi, phi
from derivations.result import Identity, Numeric, Result, draw

gap = Symbol("gap", real=True)  # a_y - a_j, the lead over a rival
own, rival = Symbol("own", nonnegative=True), Symbol("rival", positive=True)  # sigma_y, sigma_j
norm = Symbol("norm", positive=True)  # |z|
t = Symbol("t", real=True)

centre, spread, uniform = Symbol("centre", real=True), Symbol("spread", positive=True), Symbol("uniform", positive=True)
_b = centre / spread


def _trivariate(rng):
    """A random law of two contrasts: means, and the lower factor of their covariance."""
    values = draw(rng, m1=(-1, 1), m2=(-1, 1), s1=(0.5, 2), s2=(0.5, 2), cross=(-1, 1))
    return values["m1"], values["m2"], values["s1"], values["s2"], values["cross"]


def _separated_sides(formula):
    factor = for_mpmath((centre, spread), formula)

    def sides(rng):
        m1, m2, s1, s2, cross = _trivariate(rng)
        first = factor(m1, s1)

        def inner(u):  # w drawn from its law given the first contrast positive, then the factor of the second
            return factor(m2 - cross * mpmath.sqrt(2) * mpmath.erfinv(2 * u * first - 1), s2)

        separated = first * mpmath.quad(inner, [0, 0.01, 0.5, 0.99, 1])
        low = -m1 / s1
        direct = mpmath.quad(lambda w: mpmath.ncdf((m2 + cross * w) / s2) * mpmath.npdf(w), [low, low + 1, low + 3, 12])
        return separated, direct

    return sides


separation_factor = Result(
    name="separation_factor",
    statement="P(m + L w > 0) = Int over the unit cube of prod_i Phi(b_i), b_i = (m_i + sum_{j<i} L_ij w_j)/L_ii, "
    "w_i = -Phi^-1(u_i Phi(b_i)); one factor, its centre m_i + sum and spread L_ii",
    arguments=(centre, spread),
    formula=Phi(_b),
    assumptions=("contrasts Gaussian", "L_ii > 0 (else the factor is 1{centre > 0})"),
    kind="exact",
    source="A. Genz, J. Comput. Graph. Statist. 1 (1992) 141, section 2",
    steps=lambda formula: (
        Identity(
            text="P(centre + spread w > 0), w standard normal: its derivative in the centre is the density",
            left=sympy.diff(formula, centre),
            right=phi(_b) / spread,
        ),
        Numeric(
            text="two contrasts: the separated integral equals the direct one", sides=_separated_sides(formula), tolerance=1e-9
        ),
    ),
)

_v0, _v1 = Symbol("v0", positive=True), Symbol("v1", positive=True)


def _three_sides(formula):
    factor = for_mpmath((gap, own, rival, norm, t), formula)
    nodes, weights = (mpmath.matrix(list(map(float, x))) for x in np.polynomial.hermite_e.hermegauss(60))

    def mean(function):
        """E function(x), x standard normal, by 60-point Gauss-Hermite: smooth integrands, 1e-9."""
        return sum(w * function(x) for x, w in zip(nodes, weights, strict=True)) / mpmath.sqrt(2 * mpmath.pi)

    def sides(rng):
        values = draw(rng, g1=(-0.5, 2), g2=(-0.5, 2), s0=(0.3, 0.6), s1=(0.6, 1), s2=(0.6, 1), n=(0.5, 2))
        g1, g2, s0, s1, s2, n = (values[name] for name in ("g1", "g2", "s0", "s1", "s2", "n"))
        line = mean(lambda x: factor(g1, s0, s1, n, x) * factor(g2, s0, s2, n, x))
        # the two contrasts are bivariate normal with covariance s0^2 n^2: separate them by their own density
        sd1, sd2 = n * mpmath.sqrt(s0**2 + s1**2), n * mpmath.sqrt(s0**2 + s2**2)
        rho = (n * s0) ** 2 / (sd1 * sd2)
        rest = mpmath.sqrt(1 - rho**2)
        low = -g1 / sd1
        direct = mpmath.quad(
            lambda w: mpmath.npdf(w) * mpmath.ncdf((g2 / sd2 + rho * w) / rest), [low, low + 1, low + 3, max(low + 5, 12)]
        )
        return line, direct

    return sides


own_noise = Result(
    name="own_noise",
    statement="P(class y decided | z) = Int phi(t) prod_{j != y} Phi((a_y - a_j + sigma_y |z| t)/(sigma_j |z|)) dt; one "
    "factor, "
    "gap = a_y - a_j",
    arguments=(gap, own, rival, norm, t),
    formula=Phi((gap + own * norm * t) / (rival * norm)),
    assumptions=("rows of E independent", "logit noise Gaussian given z (its fourth cumulant falls like 1/d)"),
    kind="approximation",
    source="condition on the noise of the class's own logit",
    steps=lambda formula: (
        Identity(
            text="given t the rival's noise has density phi(x/(sigma_j |z|))/(sigma_j |z|): derivative in the gap",
            left=sympy.diff(formula, gap),
            right=exp(-(((gap + own * norm * t) / (rival * norm)) ** 2) / 2) / sqrt(2 * pi) / (rival * norm),
        ),
        Numeric(
            text="two classes: Phi(gap/(|z| sqrt(sigma_0^2 + sigma_1^2)))",
            sides=lambda rng: _two_sides(formula, rng),
            tolerance=1e-10,
        ),
        Numeric(
            text="three classes: the bivariate normal law of the two noisy contrasts",
            sides=_three_sides(formula),
            points=2,
            tolerance=1e-7,
        ),
    ),
)


def _two_sides(formula, rng):
    values = draw(rng, g=(-1, 2), s0=(0.3, 1), s1=(0.3, 1), n=(0.5, 2))
    factor = for_mpmath((gap, own, rival, norm, t), formula)
    g, s0, s1, n = (values[name] for name in ("g", "s0", "s1", "n"))
    line = mpmath.quad(lambda x: mpmath.npdf(x) * factor(g, s0, s1, n, x), [-12, -4, 0, 4, 12])
    return line, mpmath.ncdf(g / n / mpmath.sqrt(s0**2 + s1**2))


x, half, cf, order = (
    Symbol("x", real=True),
    Symbol("half", positive=True),
    Symbol("cf", real=True),
    Symbol("order", integer=True, positive=True),
)
_term = (cf * sympy.sin(pi * order * x / half) / (pi * order), cf * sympy.cos(pi * order * x / half) / half)


def _two_uniforms(formula, part: int):
    """The series for e_1 z_1 + e_2 z_2, e uniform in +-1/2, against its distribution function or density, a trapezium's."""
    term = for_mpmath((x, half, cf, order), formula[part])

    def sides(rng):
        values = draw(rng, z1=(0.5, 1), z2=(1.2, 2), x=(-1.2, 1.2), extra=(0.1, 1))
        z1, z2, at = values["z1"], values["z2"], values["x"]
        long = (z1 + z2) / 2 + values["extra"]

        def sinc(m, z):
            return mpmath.sin(mpmath.pi * m * z / long / 2) / (mpmath.pi * m * z / long / 2)

        series = sum(term(at, long, sinc(m, z1) * sinc(m, z2), m) for m in range(1, 4000))
        constant = mpmath.mpf(1) / 2 + at / (2 * long) if part == 0 else 1 / (2 * long)

        def ramp(y, power):
            return max(y, mpmath.mpf(0)) ** power

        signs = ((1, z1 + z2), (-1, z1 - z2), (-1, z2 - z1), (1, -z1 - z2))
        power = 2 if part == 0 else 1
        direct = sum(sign * ramp(at + corner / 2, power) for sign, corner in signs) / (power * z1 * z2)
        return constant + series, direct

    return sides


noisy_logit = Result(
    name="noisy_logit",
    statement="P(e'z < x) = 1/2 + x/(2 half) + sum over m of the first of these, its density 1/(2 half) + that of the second, "
    "for |x| <= half and |e'z| <= half; cf = prod_i sin(u z_i)/(u z_i), u = pi m step/(2 half), for e uniform in +-step/2",
    arguments=(x, half, cf, order),
    formula=_term,
    assumptions=("entries of e independent and uniform", "a noise beyond half, if any, is folded back"),
    kind="exact",
    source="Fourier series of a density of bounded support, its coefficients values of the characteristic function",
    steps=lambda formula: (
        Identity(text="the density is the derivative", left=sympy.diff(formula[0], x), right=formula[1]),
        Identity(
            text="orthogonal on the period: the coefficient is the mean of the cosine, the characteristic function there",
            left=sympy.integrate(sympy.expand(formula[1] * sympy.cos(pi * order * x / half)), (x, -half, half)),
            right=cf,
        ),
        Identity(text="symmetric", left=formula[0].subs(x, 0), right=sympy.Integer(0)),
        Numeric(text="two entries: the distribution function", sides=_two_uniforms(formula, 0), points=2, tolerance=1e-8),
        Numeric(text="two entries: the density", sides=_two_uniforms(formula, 1), points=2, tolerance=1e-4),
    ),
)

eta_top, eta_k, decided = (Symbol(name, nonnegative=True) for name in ("eta_top", "eta_k", "decided"))
_eta, _decided = sympy.symbols("eta_0:3", nonnegative=True), sympy.symbols("decided_1:3", nonnegative=True)

posterior_loss = Result(
    name="posterior_loss",
    statement="E[P(error of W + E) - P(error of W) | z] = sum_k (eta_top - eta_k) P_k, eta_k = P(label k | z), "
    "P_k = P(W + E decides k | z), top the decision of W; one class k",
    arguments=(eta_top, eta_k, decided),
    formula=(eta_top - eta_k) * decided,
    assumptions=("labels and errors independent given z",),
    kind="exact",
    source="condition on the features",
    steps=lambda formula: (
        Identity(
            text="three classes, class 0 decided by W: eta_0 - sum_k eta_k P_k, the P_k adding up to 1",
            left=sum(
                (formula.subs({eta_top: _eta[0], eta_k: _eta[k], decided: _decided[k - 1]}, simultaneous=True) for k in (1, 2)),
                sympy.Integer(0),
            ),
            right=_eta[0] - (_eta[0] * (1 - sum(_decided)) + _eta[1] * _decided[0] + _eta[2] * _decided[1]),
        ),
        Identity(
            text="the class decided by W adds nothing: only where its decision changes is anything lost",
            left=formula.subs(eta_k, eta_top),
            right=sympy.Integer(0),
        ),
    ),
)

start_y, start_j, slope_y, slope_j = (Symbol(name, real=True) for name in ("start_y", "start_j", "slope_y", "slope_j"))

line_crossing = Result(
    name="line_crossing",
    statement="along z_0 + tau u the logits are start + slope tau; those of y and j cross at tau = "
    "(start_j - start_y)/(slope_y - slope_j): y leads after it where slope_y > slope_j, before it else",
    arguments=(start_y, start_j, slope_y, slope_j),
    formula=(start_j - start_y) / (slope_y - slope_j),
    assumptions=("slopes differ",),
    kind="exact",
    source="linear algebra; tau ~ N(0, 1) independent of z_0 for a unit direction in whitened features",
    steps=lambda formula: (
        Identity(
            text="the logits agree there",
            left=start_y + slope_y * formula,
            right=start_j + slope_j * formula,
        ),
        Identity(
            text="the lead of y grows along the line at the rate slope_y - slope_j, from 0 there",
            left=(start_y + slope_y * (formula + t)) - (start_j + slope_j * (formula + t)),
            right=(slope_y - slope_j) * t,
        ),
    ),
)
