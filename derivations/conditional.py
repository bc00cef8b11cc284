"""Moments of the margin noise x = e'z given the clean margin t, for the margin quadrature.

Given t, the features are Gaussian with mean b = mu + h tau and covariance C = Sigma - h h'/s^2, where h = Sigma w and
tau = (t - m)/s^2. The cumulants of x given t are sums over the coordinates i of polynomials in tau; each result below is
the tuple of that polynomial's coefficients, constant first, for one coordinate:

    b_i = mu_i + h_i tau,   (C b)_i = Cmu_i + Ch_i tau,   (C^2 b)_i = CCmu_i + CCh_i tau.
"""

import sympy
from sympy import Rational, Symbol, eye

from derivations.notation import k4, k6, v
from derivations.result import Identity, Result

tau = Symbol("tau", real=True)
mu_i, h_i, Cmu_i, Ch_i, CCmu_i, CCh_i = (
    Symbol(name, real=True) for name in ("mu_i", "h_i", "Cmu_i", "Ch_i", "CCmu_i", "CCh_i")
)
C_ii, CC_ii, CCC_ii = (Symbol(name, nonnegative=True) for name in ("C_ii", "CC_ii", "CCC_ii"))
b, Cb, CCb = mu_i + h_i * tau, Cmu_i + Ch_i * tau, CCmu_i + CCh_i * tau

# An explicit two-dimensional Gaussian, on which every summand is checked.
b1, b2, c11, c12, c22, theta1, theta2, theta = (
    Symbol(name, real=True) for name in ("b1", "b2", "c11", "c12", "c22", "theta1", "theta2", "theta")
)
_b = sympy.Matrix([b1, b2])
_C = sympy.Matrix([[c11, c12], [c12, c22]])
_mu, _slope = (sympy.Matrix(sympy.symbols(f"{name}1 {name}2", real=True)) for name in ("mu", "h"))
_generating = sympy.exp(
    (sympy.Matrix([[theta1, theta2]]) * _b)[0] + (sympy.Matrix([[theta1, theta2]]) * _C * sympy.Matrix([theta1, theta2]))[0] / 2
)


def _moment(i: int, j: int) -> sympy.Expr:
    """E z_1^i z_2^j of the explicit Gaussian, from its moment generating function."""
    return sympy.expand(sympy.diff(_generating, theta1, i, theta2, j).subs({theta1: 0, theta2: 0}))


def _norm_cumulant(order: int) -> sympy.Expr:
    """Cumulant of |z|^2 from log E exp(theta |z|^2) = -log det(I - 2 theta C)/2 + theta b'(I - 2 theta C)^-1 b."""
    inside = eye(2) - 2 * theta * _C
    log_generating = -sympy.log(inside.det()) / 2 + theta * (_b.T * inside.inv() * _b)[0]
    return sympy.simplify(sympy.diff(log_generating, theta, order).subs(theta, 0))


def _summed(coefficients: tuple) -> sympy.Expr:
    """The result summed over both coordinates of the explicit Gaussian, its mean moving with tau along a slope of its own."""
    polynomial = sum((c * tau**power for power, c in enumerate(coefficients)), sympy.Integer(0))
    vectors = {mu_i: _mu, h_i: _slope}
    vectors |= {Cmu_i: _C * _mu, Ch_i: _C * _slope, CCmu_i: _C * _C * _mu, CCh_i: _C * _C * _slope}
    total = sympy.Integer(0)
    for i in range(2):
        values = {symbol: vector[i] for symbol, vector in vectors.items()}
        values |= {C_ii: _C[i, i], CC_ii: (_C * _C)[i, i], CCC_ii: (_C * _C * _C)[i, i]}
        total += polynomial.subs(values, simultaneous=True)
    return sympy.expand(total)


def _coefficients(summand: sympy.Expr) -> tuple[sympy.Expr, ...]:
    polynomial = sympy.Poly(summand, tau)
    return tuple(sympy.factor(polynomial.coeff_monomial(tau**power)) for power in range(int(polynomial.degree()) + 1))


def _result(name: str, statement: str, summand: sympy.Expr, source: str, reference, *extra) -> Result:
    """A coefficient tuple whose sum over coordinates equals ``reference()`` on the explicit Gaussian, whatever tau."""
    formula = _coefficients(summand)
    symbols = set().union(*(part.free_symbols for part in formula))
    order = (mu_i, h_i, Cmu_i, Ch_i, CCmu_i, CCh_i, C_ii, CC_ii, CCC_ii)

    def steps(formula):
        polynomial = sum((c * tau**power for power, c in enumerate(formula)), sympy.Integer(0))
        moving = {b1: _mu[0] + _slope[0] * tau, b2: _mu[1] + _slope[1] * tau}
        return (
            *extra,
            Identity(
                text="summed over the coordinates of an explicit correlated Gaussian of mean mu + h tau it equals the value "
                "from the generating function, for every tau",
                left=_summed(formula),
                right=sympy.expand(reference().subs(moving, simultaneous=True)),
            ),
            Identity(text="the coefficients are those of the statement's summand", left=polynomial, right=summand),
        )

    return Result(
        name=name,
        statement=statement,
        arguments=tuple(symbol for symbol in order if symbol in symbols),
        formula=formula,
        assumptions=("features Gaussian given t",),
        kind="exact",
        source=source,
        steps=steps,
    )


_w = sympy.Matrix(sympy.symbols("w1 w2", real=True))
_h = _C * _w  # here C plays Sigma
_power = (_w.T * _C * _w)[0]
_conditional = _C - _h * _h.T / _power
_rest = eye(2) - _h * _w.T / _power  # what is left of z - mu once t is known
_conditioning = (
    Identity(
        text="z - h (t - m)/s^2 is uncorrelated with t: Cov(z, w'z) - h Var(t)/s^2 = 0, first coordinate of an explicit class",
        left=(_C * _w)[0] - (_h / _power * (_w.T * _C * _w)[0])[0],
        right=sympy.Integer(0),
    ),
    *(
        Identity(
            text=f"its covariance R Sigma R', R = I - h w'/s^2, is C = Sigma - h h'/s^2, entry {i + 1}, {j + 1}",
            left=(_rest * _C * _rest.T)[i, j],
            right=_conditional[i, j],
        )
        for i, j in ((0, 0), (0, 1), (1, 1))
    ),
)

noise_second = _result(
    "noise_second",
    "g(t) = E[|z|^2 | t] = sum_i b_i^2 + C_ii, so that Var(x | t) = v g(t)",
    b**2 + C_ii,
    "second moment of a Gaussian vector",
    lambda: _moment(2, 0) + _moment(0, 2),
    *_conditioning,
)

norm_variance = _result(
    "norm_variance",
    "H(t) = Var(|z|^2 | t) = 2 tr C^2 + 4 b'C b",
    2 * CC_ii + 4 * b * Cb,
    "second cumulant of a Gaussian quadratic form",
    lambda: _norm_cumulant(2),
)

norm_third = _result(
    "norm_third",
    "M3(t) = third cumulant of |z|^2 given t = 8 tr C^3 + 24 b'C^2 b",
    8 * CCC_ii + 24 * b * CCb,
    "third cumulant of a Gaussian quadratic form",
    lambda: _norm_cumulant(3),
)

fourth_power = _result(
    "fourth_power",
    "Z4(t) = E[sum z_i^4 | t] = sum_i b_i^4 + 6 b_i^2 C_ii + 3 C_ii^2",
    b**4 + 6 * b**2 * C_ii + 3 * C_ii**2,
    "fourth moment of a normal variable",
    lambda: _moment(4, 0) + _moment(0, 4),
)

sixth_power = _result(
    "sixth_power",
    "Z6(t) = E[sum z_i^6 | t] = sum_i b_i^6 + 15 b_i^4 C_ii + 45 b_i^2 C_ii^2 + 15 C_ii^3",
    b**6 + 15 * b**4 * C_ii + 45 * b**2 * C_ii**2 + 15 * C_ii**3,
    "sixth moment of a normal variable",
    lambda: _moment(6, 0) + _moment(0, 6),
)

fourth_norm_covariance = _result(
    "fourth_norm_covariance",
    "Cov(sum z_i^4, |z|^2 | t) = sum_i 8 (b_i^3 + 3 b_i C_ii) (C b)_i + 12 (b_i^2 + C_ii) (C^2)_ii",
    8 * (b**3 + 3 * b * C_ii) * Cb + 12 * (b**2 + C_ii) * CC_ii,
    "Cov(f(z_i), g(z_j)) = sum_k C_ij^k E f^(k) E g^(k)/k!",
    lambda: (
        _moment(6, 0)
        + _moment(0, 6)
        + _moment(4, 2)
        + _moment(2, 4)
        - (_moment(4, 0) + _moment(0, 4)) * (_moment(2, 0) + _moment(0, 2))
    ),
)

# Cumulants of x given t, from those of x given z (k-th: v^(k/2) k_k sum z_i^k) by the law of total cumulance.
g = Symbol("g", positive=True)
H, M3, Z4, Z6, cov46 = (Symbol(name, real=True) for name in ("H", "M3", "Z4", "Z6", "cov46"))


def _moment_given_z(order: int, S2: sympy.Expr, S4: sympy.Expr, S6: sympy.Expr) -> sympy.Expr:
    """E[x^order | z] from the cumulants v S2, k4 v^2 S4, k6 v^3 S6 (Taylor coefficients of exp(cumulants))."""
    y = Symbol("y")
    series = sympy.exp(v * S2 * y**2 / 2 + k4 * v**2 * S4 * y**4 / 24 + k6 * v**3 * S6 * y**6 / 720)
    return sympy.expand(sympy.diff(series, y, order).subs(y, 0))


def _averaged(order: int) -> sympy.Expr:
    """E[x^order | t]: the moments of S2 = |z|^2, S4 and S6 put in the place of their products."""
    S2, S4, S6 = sympy.symbols("S2 S4 S6")
    expression = sympy.Poly(_moment_given_z(order, S2, S4, S6), S2, S4, S6)
    means = {
        (1, 0, 0): g,
        (2, 0, 0): g**2 + H,
        (3, 0, 0): g**3 + 3 * g * H + M3,
        (0, 1, 0): Z4,
        (1, 1, 0): g * Z4 + cov46,
        (0, 0, 1): Z6,
    }
    return sum((coefficient * means[powers] for powers, coefficient in expression.terms()), sympy.Integer(0))


noise_fourth_cumulant = Result(
    name="noise_fourth_cumulant",
    statement="l4 = kappa_4(x | t)/Var(x | t)^2 = (3 H + k4 Z4)/g^2",
    arguments=(g, H, Z4, k4),
    formula=(3 * H + k4 * Z4) / g**2,
    assumptions=("entries of e independent, symmetric, with variance v and fourth cumulant k4 v^2", "e independent of z"),
    kind="exact",
    source="law of total cumulance",
    steps=lambda formula: (
        Identity(
            text="E[x^4 | z] = 3 v^2 |z|^4 + k4 v^2 sum z_i^4",
            left=_moment_given_z(4, *sympy.symbols("S2 S4 S6")),
            right=sympy.expand(v**2 * (3 * Symbol("S2") ** 2 + k4 * Symbol("S4"))),
        ),
        Identity(
            text="kappa_4 = E x^4 - 3 (E x^2)^2, averaged over z given t",
            left=formula * (v * g) ** 2,
            right=_averaged(4) - 3 * _averaged(2) ** 2,
        ),
    ),
)

noise_sixth_cumulant = Result(
    name="noise_sixth_cumulant",
    statement="l6 = kappa_6(x | t)/Var(x | t)^3 = (15 M3 + 15 k4 Cov(sum z_i^4, |z|^2) + k6 Z6)/g^3",
    arguments=(g, M3, cov46, Z6, k4, k6),
    formula=(15 * M3 + 15 * k4 * cov46 + k6 * Z6) / g**3,
    assumptions=("entries of e independent, symmetric, with cumulants v, k4 v^2, k6 v^3", "e independent of z"),
    kind="exact",
    source="law of total cumulance",
    steps=lambda formula: (
        Identity(
            text="E[x^6 | z] = v^3 (15 |z|^6 + 15 k4 |z|^2 sum z_i^4 + k6 sum z_i^6)",
            left=_moment_given_z(6, *sympy.symbols("S2 S4 S6")),
            right=sympy.expand(v**3 * (15 * Symbol("S2") ** 3 + 15 * k4 * Symbol("S2") * Symbol("S4") + k6 * Symbol("S6"))),
        ),
        Identity(
            text="kappa_6 = E x^6 - 15 E x^4 E x^2 + 30 (E x^2)^3, averaged over z given t",
            left=formula * (v * g) ** 3,
            right=_averaged(6) - 15 * _averaged(4) * _averaged(2) + 30 * _averaged(2) ** 3,
        ),
    ),
)

step_0, step_1 = Symbol("step_0", nonnegative=True), Symbol("step_1", nonnegative=True)
_y = Symbol("y", real=True)


def _uniform_cumulant(order: int) -> sympy.Expr:
    """Cumulant of the uniform law on +-1/2, from its moments 1/((k + 1) 2^k)."""
    moment = {k: Rational(1, (k + 1) * 2**k) for k in (2, 4, 6)}
    return {2: moment[2], 4: moment[4] - 3 * moment[2] ** 2, 6: moment[6] - 15 * moment[4] * moment[2] + 30 * moment[2] ** 3}[
        order
    ]


def _error_cumulant(name: str, order: int, statement: str) -> Result:
    constant = _uniform_cumulant(order) / _uniform_cumulant(2) ** (order // 2)
    variance = (step_0**2 + step_1**2) / 12
    formula = variance if order == 2 else constant * (step_0**order + step_1**order) / (step_0**2 + step_1**2) ** (order // 2)
    return Result(
        name=name,
        statement=statement,
        arguments=(step_0, step_1),
        formula=formula,
        assumptions=(
            "errors of the two rows independent and uniform in +-Delta_0/2 and +-Delta_1/2",
            "not both steps 0",
        ),
        kind="exact",
        source="cumulants of independent variables add",
        steps=lambda formula: (
            Identity(
                text="moments of the uniform law on +-1/2",
                left=sympy.integrate(_y**order, (_y, -Rational(1, 2), Rational(1, 2))),
                right=Rational(1, (order + 1) * 2**order),
            ),
            Identity(
                text="e = e_1 - e_0: even cumulants of the two rows add",
                left=formula * (1 if order == 2 else variance ** (order // 2)),
                right=_uniform_cumulant(order) * (step_0**order + step_1**order),
            ),
        ),
    )


error_variance = _error_cumulant("error_variance", 2, "v = (Delta_0^2 + Delta_1^2)/12")
error_k4 = _error_cumulant("error_k4", 4, "k4 = -(6/5) (Delta_0^4 + Delta_1^4)/(Delta_0^2 + Delta_1^2)^2")
error_k6 = _error_cumulant("error_k6", 6, "k6 = (48/7) (Delta_0^6 + Delta_1^6)/(Delta_0^2 + Delta_1^2)^3")
