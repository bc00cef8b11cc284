"""More than two classes, small steps: flips grow like the step, the expected distortion like its square, with constants; and
what the union bound and Bonferroni's inequality certify at any step.

m_j = a_y - a_j is the lead of the true class over rival j. To first order in the variances of the rows only the boundary
counts: its faces m_j = 0 with the other rivals below, and its edges m_j = m_l = 0. On a face of rival j the features move by
Sigma w/s^2 for a unit of m_j, and with them the lead over another rival l, by kappa = Cov(m_j, m_l)/Var(m_j).
"""

import mpmath
import sympy
from sympy import Symbol, exp, pi, sqrt

from derivations.binary import l4
from derivations.jax_code import for_mpmath
from derivations.multiclass import own, rival
from derivations.notation import phi
from derivations.result import Identity, Numeric, Result, draw

density_2, boundary_norm, v = (
    Symbol("density_2", nonnegative=True),
    Symbol("boundary_norm", positive=True),
    Symbol("v", nonnegative=True),
)
density, density_slope = Symbol("density", nonnegative=True), Symbol("density_slope", real=True)
power, power_slope = Symbol("power", positive=True), Symbol("power_slope", real=True)
pair_density, kappa = Symbol("pair_density", nonnegative=True), Symbol("kappa", real=True)
singles, pairs = Symbol("singles", nonnegative=True), Symbol("pairs", nonnegative=True)
_m, _lead, _spread = Symbol("m", positive=True), Symbol("lead", real=True), Symbol("spread", positive=True)
_count = Symbol("count", integer=True, nonnegative=True)

flip_law = Result(
    name="flip_law",
    statement="F ~ sqrt(v/pi) p_2(0+) E[|z| (1 - l4/24) | m_2 = 0] as v -> 0, m_2 the lead of the decided class over the next, "
    "p_2 its density, l4 the excess kurtosis of the noise of the lead given z; two rows of mean variance v: flips grow like "
    "the step",
    arguments=(v, density_2, boundary_norm, l4),
    formula=sqrt(v / pi) * density_2 * boundary_norm * (1 - l4 / 24),
    assumptions=(
        "p_2 continuous at 0+",
        "rows of E independent",
        "higher cumulants of the noise given z than the fourth dropped",
    ),
    kind="asymptotic (order 1 in the step)",
    source="the two leading logits alone matter near the boundary; Gram-Charlier series of the noise",
    steps=lambda formula: (
        Identity(
            text="Gaussian noise: Int_0^inf p_2(0) P(noise of variance 2 v |z|^2 exceeds m) dm",
            left=formula.subs(l4, 0),
            right=density_2
            * sympy.integrate(
                _m * exp(-(_m**2) / (4 * v * boundary_norm**2)) / sqrt(4 * pi * v) / boundary_norm,
                (_m, 0, sympy.oo),
                conds="none",
            ),
        ),
        Identity(
            text="the fourth cumulant: E max(noise, 0) under phi(x) (1 + l4 He_4(x)/24)",
            left=formula,
            right=density_2
            * sqrt(2 * v)
            * boundary_norm
            * sympy.integrate(_m * phi(_m) * (1 + l4 / 24 * (_m**4 - 6 * _m**2 + 3)), (_m, 0, sympy.oo)),
        ),
    ),
)


def _one_face(formula):
    rate = for_mpmath((own, rival, density, density_slope, power, power_slope), formula)

    def sides(rng):
        values = draw(rng, mean=(0.3, 1), sd=(0.7, 1.3), q0=(1, 2), q1=(-0.3, 0.3), own=(0.5, 1), rival=(0.5, 1))
        mean, sd, q0, q1, s0, s1 = (values[name] for name in ("mean", "sd", "q0", "q1", "own", "rival"))

        def p(x):
            return mpmath.npdf((x - mean) / sd) / sd

        def change(h):  # of the risk, over h^2: noise of variance h^2 (s0^2 + s1^2) q(m) where the clean lead is m
            def crossed(x):
                return mpmath.ncdf(-x / (h * mpmath.sqrt((s0**2 + s1**2) * (q0 + q1 * x + x**2))))

            reach = [0, 3 * h, 12 * h, 60 * h]
            gained = mpmath.quad(lambda x: p(x) * crossed(x) - p(-x) * (1 - crossed(-x)), reach)
            return gained / h**2

        h = mpmath.mpf("0.01")
        limit = (4 * change(h / 2) - change(h)) / 3
        return rate(s0, s1, p(0), mean / sd**2 * p(0), q0, q1), limit

    return sides


face_rate = Result(
    name="face_rate",
    statement="of the expected distortion, one face m_j = 0 of one class: (sigma_y^2 + sigma_j^2)/2 d/dm [p(m) E(|z|^2 "
    "1{others below} | m_j = m)] at 0, the indicator held; density p, its slope, the power E(|z|^2 1{..}) and its slope",
    arguments=(own, rival, density, density_slope, power, power_slope),
    formula=(own**2 + rival**2) / 2 * (density_slope * power + density * power_slope),
    assumptions=("rows of E independent", "law of the leads smooth at 0"),
    kind="asymptotic (order 2 in the step)",
    source="the noise turns a decision at lead m with probability Phi(-|m|/noise); first moment of that in m",
    steps=lambda formula: (
        Identity(
            text="power constant: slope of the density times 2 Int_0^inf m Phi(-m/s) dm, s^2 = (sigma_y^2 + sigma_j^2) power",
            left=formula.subs(power_slope, 0),
            right=density_slope
            * sympy.integrate(
                _m * sympy.erfc(_m / (sqrt(2) * sqrt(own**2 + rival**2) * sqrt(power))), (_m, 0, sympy.oo), conds="none"
            ),
        ),
        Numeric(
            text="a Gaussian lead, power a quadratic of it: the limit of the exact change of the risk over the variance",
            sides=_one_face(formula),
            points=2,
            tolerance=1e-5,
        ),
    ),
)


def _three_classes(formula):
    edge = for_mpmath((own, rival, pair_density, kappa, power), formula)
    face = for_mpmath(face_rate.arguments, face_rate.formula)

    def sides(rng):
        values = draw(rng, m1=(0.2, 1), m2=(0.2, 1), s1=(0.8, 1.2), s2=(0.8, 1.2), rho=(-0.4, 0.6))
        m1, m2, s1, s2, rho = (values[name] for name in ("m1", "m2", "s1", "s2", "rho"))
        values = draw(rng, own=(0.5, 1), r1=(0.5, 1), r2=(0.5, 1))
        s0, r1, r2 = values["own"], values["r1"], values["r2"]

        def right(h2):  # P(both leads positive), noise of covariance h2 (own^2 + diag) added
            a, b, c = s1**2 + h2 * (s0**2 + r1**2), s2**2 + h2 * (s0**2 + r2**2), rho * s1 * s2 + h2 * s0**2
            rest = mpmath.sqrt(b - c**2 / a)
            low = -m1 / mpmath.sqrt(a)
            return mpmath.quad(
                lambda w: mpmath.npdf(w) * mpmath.ncdf((m2 + c / mpmath.sqrt(a) * w) / rest), [low, low + 1, low + 3, 12]
            )

        h2 = mpmath.mpf("1e-4")
        limit = -(8 * (right(h2) - right(-h2)) - (right(2 * h2) - right(-2 * h2))) / (12 * h2)
        total, z = mpmath.mpf(0), 1 - rho**2
        joint = mpmath.exp(-((m1 / s1) ** 2 - 2 * rho * m1 * m2 / s1 / s2 + (m2 / s2) ** 2) / (2 * z))
        joint /= 2 * mpmath.pi * s1 * s2 * mpmath.sqrt(z)
        for m, s, r, n, t in ((m1, s1, r1, m2, s2), (m2, s2, r2, m1, s1)):
            p = mpmath.npdf(m / s) / s
            below = mpmath.ncdf((n - rho * t / s * m) / (t * mpmath.sqrt(z)))
            total += face(s0, r, p, p * m / s**2, below, 0) + edge(s0, r, joint, rho * t / s, 1)
        return total, limit

    return sides


edge_rate = Result(
    name="edge_rate",
    statement="of the expected distortion, one edge m_j = m_l = 0 seen from the face of rival j: p_jl(0, 0) E(|z|^2 1{others "
    "below} | edge) ((sigma_y^2 + sigma_j^2) kappa - sigma_y^2)/2",
    arguments=(own, rival, pair_density, kappa, power),
    formula=pair_density * power / 2 * ((own**2 + rival**2) * kappa - own**2),
    assumptions=("rows of E independent", "law of the leads smooth at 0"),
    kind="asymptotic (order 2 in the step)",
    source="second derivatives of prod_j 1{m_j > 0} in the logits; derivative of 1{m_l > 0} along the face",
    steps=lambda formula: (
        Identity(
            text="flat density: the two noises of an edge share the class's own and gain their covariance there, both faces "
            "together",
            left=-(formula + formula).subs(kappa, 0),
            right=pair_density * power * own**2,
        ),
        Identity(
            text="own noise 0: the rival's variance times the derivative of P(m_l > 0 | m_j = m) along the face",
            left=formula.subs({own: 0, pair_density: density * phi(_lead / _spread) / _spread}),
            right=rival**2 / 2 * power * density * sympy.diff(_normal((_lead + kappa * _m) / _spread), _m).subs(_m, 0),
        ),
        Numeric(
            text="three classes, power 1: faces and edges make the derivative of the bivariate normal orthant",
            sides=_three_classes(formula),
            points=2,
            tolerance=1e-7,
        ),
    ),
)


def _normal(x):
    return (1 + sympy.erf(x / sqrt(2))) / 2


union_bound = Result(
    name="union_bound",
    statement="risk of a class <= sum over rivals of the probability that each beats it",
    arguments=(singles,),
    formula=singles,
    assumptions=("none: any law",),
    kind="bound (upper)",
    source="Boole's inequality: 1{count >= 1} <= count, count the number of rivals ahead",
    steps=lambda formula: (
        Identity(text="one rival ahead: equality", left=formula.subs(singles, 1), right=sympy.Integer(1)),
        Identity(
            text="count rivals ahead: above the indicator by count - 1 >= 0",
            left=formula.subs(singles, _count) - 1,
            right=_count - 1,
        ),
    ),
)

bonferroni = Result(
    name="bonferroni",
    statement="risk of a class >= sum over rivals of the probability that each beats it, less the sum over pairs of rivals of "
    "the probability that both do",
    arguments=(singles, pairs),
    formula=singles - pairs,
    assumptions=("none: any law",),
    kind="bound (lower)",
    source="Bonferroni's second inequality: 1{count >= 1} >= count - count (count - 1)/2",
    steps=lambda formula: (
        Identity(text="one rival ahead: equality", left=formula.subs({singles: 1, pairs: 0}), right=sympy.Integer(1)),
        Identity(
            text="count rivals ahead: below the indicator by (count - 1)(count - 2)/2 >= 0",
            left=1 - formula.subs({singles: _count, pairs: _count * (_count - 1) / 2}),
            right=(_count - 1) * (_count - 2) / 2,
        ),
    ),
)
