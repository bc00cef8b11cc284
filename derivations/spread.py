"""The reduced law: all of R(w + e) depends on e through a_k = e'mu_k, q_k = e'Sigma_k w and r_k = e'Sigma_k e.

x = (a_0, a_1, q_0, q_1) is linear in e; given x, r_k is a quadratic form in the part of e orthogonal to their
directions. With P the projector on those directions, Q = 1 - P and e_x = E[e | x], for normal e

    E[r_k | x] = e_x'Sigma_k e_x + v tr(Q Sigma_k),
    Cov(r_k, r_l | x) = 4 v e_x'Sigma_k Q Sigma_l e_x + 2 v^2 tr(Q Sigma_k Q Sigma_l) + k4 v^2 sum_i (Q Sigma_k Q)_ii
    (Q Sigma_l Q)_ii,

the last term being the leading correction for entries with fourth cumulant k4 v^2.
"""

import sympy
from sympy import Symbol

from derivations.notation import k4, v
from derivations.result import Identity, Result

from_mean = Symbol("from_mean", real=True)
trace_Q = Symbol("trace_Q", nonnegative=True)
cross = Symbol("cross", real=True)
trace_QQ = Symbol("trace_QQ", real=True)
diagonal = Symbol("diagonal", real=True)

# An explicit case: e = e_x + Q (n1, n2), n independent with variance v and fourth cumulant k4 v^2.
_e1, _e2, _s11, _s12, _s22, _t11, _t12, _t22 = sympy.symbols("e1 e2 s11 s12 s22 t11 t12 t22", real=True)
_n1, _n2 = sympy.symbols("n1 n2", real=True)
_e = sympy.Matrix([_e1, _e2])
_S, _U = sympy.Matrix([[_s11, _s12], [_s12, _s22]]), sympy.Matrix([[_t11, _t12], [_t12, _t22]])
_MOMENT = {0: sympy.Integer(1), 1: sympy.Integer(0), 2: v, 3: sympy.Integer(0), 4: (3 + k4) * v**2}


def _mean(polynomial: sympy.Expr) -> sympy.Expr:
    """E over the independent n1, n2."""
    return sum(
        (c * _MOMENT[i] * _MOMENT[j] for (i, j), c in sympy.Poly(sympy.expand(polynomial), _n1, _n2).terms()), sympy.Integer(0)
    )


# A projector that is not diagonal, so that its place in the products matters.
_Q = sympy.Matrix([[sympy.Rational(16, 25), -sympy.Rational(12, 25)], [-sympy.Rational(12, 25), sympy.Rational(9, 25)]])


def _form(matrix: sympy.Matrix) -> sympy.Expr:
    vector = _e + _Q * sympy.Matrix([_n1, _n2])
    return (vector.T * matrix * vector)[0]


def _measured() -> dict:
    """The invariants of the covariance formula on the explicit case."""
    one, two = _Q * _S * _Q, _Q * _U * _Q
    return {
        cross: (_e.T * _S * _Q * _U * _e)[0],
        trace_QQ: (_Q * _S * _Q * _U).trace(),
        diagonal: sum((one[i, i] * two[i, i] for i in range(2)), sympy.Integer(0)),
    }


reduced_mean = Result(
    name="reduced_mean",
    statement="E[r_k | x] = e_x'Sigma_k e_x + v tr(Q Sigma_k)",
    arguments=(v, from_mean, trace_Q),
    formula=from_mean + v * trace_Q,
    assumptions=("the part of e orthogonal to the directions of x has mean 0 and covariance v Q given x (exact for normal e)",),
    kind="exact",
    source="mean of a quadratic form",
    steps=lambda formula: (
        Identity(
            text="on an explicit case",
            left=_mean(_form(_S)),
            right=sympy.expand(formula.subs({from_mean: (_e.T * _S * _e)[0], trace_Q: (_Q * _S).trace()})),
        ),
        Identity(text="cross terms vanish: E n = 0", left=_mean(_n1 * _s11 * _e1), right=sympy.Integer(0)),
    ),
)

reduced_covariance = Result(
    name="reduced_covariance",
    statement="Cov(r_k, r_l | x) = 4 v e_x'Sigma_k Q Sigma_l e_x + 2 v^2 tr(Q Sigma_k Q Sigma_l) + k4 v^2 sum_i (Q Sigma_k "
    "Q)_ii (Q Sigma_l Q)_ii",
    arguments=(v, k4, cross, trace_QQ, diagonal),
    formula=4 * v * cross + 2 * v**2 * trace_QQ + k4 * v**2 * diagonal,
    assumptions=("normal e given x, with the leading correction for its fourth cumulant (terms smaller by 1/d dropped)",),
    kind="asymptotic (k4 terms of relative order 1/d dropped)",
    source="covariance of two quadratic forms",
    steps=lambda formula: (
        Identity(
            text="on an explicit case with independent entries of kurtosis k4",
            left=sympy.expand(_mean(_form(_S) * _form(_U)) - _mean(_form(_S)) * _mean(_form(_U))),
            right=sympy.expand(formula.subs(_measured())),
        ),
        Identity(
            text="for one form and k4 = 0 it is the textbook 4 v e'Sigma^2 e + 2 v^2 tr Sigma^2",
            left=formula.subs(k4, 0),
            right=4 * v * cross + 2 * v**2 * trace_QQ,
        ),
    ),
)
