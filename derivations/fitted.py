"""What fitted statistics do not know: sampling variance of a predicted distortion.

Means, covariances and priors are estimated from n_k labelled samples a class. For a fixed layer only the margins matter,
and their sample means and covariances have known sampling laws.
"""

import sympy
from sympy import Symbol

from derivations.notation import phi, prior
from derivations.result import Identity, Result

u, u_hat = Symbol("u", real=True), Symbol("u_hat", real=True)
rho_gap = Symbol("rho_gap", nonnegative=True)  # 1 - rho, kept apart so that nothing cancels
count = Symbol("count", positive=True)
_rho = 1 - rho_gap
A, B = phi(u_hat), phi(u)

# Sampling laws: estimates m + x, s^2 (1 + y): Var x = s^2/n, Var y = 2/n, independent; margins of correlation rho.
_x, _y, _xh, _yh = sympy.symbols("x y x_hat y_hat", real=True)
_one = (u + _x) / sympy.sqrt(1 + _y)  # u estimated, in units of s = 1
_COV = {
    (_x, _x): 1 / count,
    (_xh, _xh): 1 / count,
    (_x, _xh): _rho / count,
    (_y, _y): 2 / count,
    (_yh, _yh): 2 / count,
    (_y, _yh): 2 * _rho**2 / count,
}


def _covariance(left: sympy.Expr, right: sympy.Expr) -> sympy.Expr:
    """Delta method: covariance of two functions of the estimates to order 1/n."""
    zero = {symbol: 0 for symbol in (_x, _y, _xh, _yh)}
    total = sympy.Integer(0)
    for i in (_x, _y, _xh, _yh):
        for j in (_x, _y, _xh, _yh):
            both = _COV.get((i, j), _COV.get((j, i), sympy.Integer(0)))
            total += sympy.diff(left, i).subs(zero) * sympy.diff(right, j).subs(zero) * both
    return sympy.simplify(total)


_two = (u_hat + _xh) / sympy.sqrt(1 + _yh)

class_variance = Result(
    name="class_variance",
    statement="Var of pi [Phi(sign u_hat) - Phi(sign u)] with mean and covariance estimated from n samples: "
    "(pi^2/n) [(A - B)^2 + 2 A B (1 - rho) + (A u_hat - B u)^2/2 + A B u u_hat (1 - rho^2)], A = phi(u_hat), B = phi(u), "
    "rho the correlation of the two margins",
    arguments=(prior, u, u_hat, rho_gap, count),
    formula=prior**2
    / count
    * ((A - B) ** 2 + 2 * A * B * rho_gap + (A * u_hat - B * u) ** 2 / 2 + A * B * u * u_hat * rho_gap * (2 - rho_gap)),
    assumptions=("features Gaussian given the class", "n samples of the class, independent of the layer"),
    kind="asymptotic (order 1/n)",
    source="delta method on the sample mean and covariance of the two margins",
    steps=lambda formula: (
        Identity(text="Var(m/s) = (1 + u^2/2)/n", left=_covariance(_one, _one), right=(1 + u**2 / 2) / count),
        Identity(
            text="Cov(m/s, m'/s') = (rho + u u' rho^2/2)/n",
            left=_covariance(_one, _two),
            right=(_rho + u * u_hat * _rho**2 / 2) / count,
        ),
        Identity(
            text="A^2 Var + B^2 Var' - 2 A B Cov, rearranged so that nothing cancels as rho -> 1",
            left=formula * count / prior**2,
            right=A**2 * (1 + u_hat**2 / 2) + B**2 * (1 + u**2 / 2) - 2 * A * B * (_rho + u * u_hat * _rho**2 / 2),
        ),
    ),
)

change_0, change_1, prior_0 = Symbol("change_0", real=True), Symbol("change_1", real=True), Symbol("prior_0", positive=True)
total_count = Symbol("total_count", positive=True)


def _enumerated(n: int) -> sympy.Expr:
    """Variance of (j/n) g_0 + (1 - j/n) g_1 for j binomial(n, pi_0)."""
    law = {j: sympy.binomial(n, j) * prior_0**j * (1 - prior_0) ** (n - j) for j in range(n + 1)}
    value = {j: sympy.Rational(j, n) * change_0 + (1 - sympy.Rational(j, n)) * change_1 for j in law}
    mean = sum((law[j] * value[j] for j in law), sympy.Integer(0))
    return sum((law[j] * (value[j] - mean) ** 2 for j in law), sympy.Integer(0))


prior_variance = Result(
    name="prior_variance",
    statement="Var of sum_k pi_k g_k with the priors estimated from n labels: pi_0 pi_1 (g_1 - g_0)^2/n",
    arguments=(prior_0, change_0, change_1, total_count),
    formula=prior_0 * (1 - prior_0) * (change_1 - change_0) ** 2 / total_count,
    assumptions=("labels drawn independently",),
    kind="exact",
    source="variance of a binomial proportion",
    steps=lambda formula: (
        Identity(
            text="three labels: the variance of the weighted change over the binomial law, enumerated",
            left=formula.subs(total_count, 3),
            right=_enumerated(3),
        ),
        Identity(
            text="labels are independent, so the variance falls as 1/n",
            left=formula * total_count,
            right=(formula * total_count).subs(total_count, 3),
        ),
    ),
)
