"""The bias corrected and the inputs quantized: what either does to the noise of the logits.

Correction: b + (W - What) zbar in the place of b, zbar the mean feature. Integer arithmetic: the layer reads u = z + n, n the
rounding of the inputs, beside the errors E of its weights.
"""

import sympy
from sympy import Symbol, integrate

from derivations.notation import step, v
from derivations.result import Identity, Result

zz, z_mean, mean_mean = Symbol("zz", nonnegative=True), Symbol("z_mean", real=True), Symbol("mean_mean", nonnegative=True)
w_w = Symbol("w_w", real=True)  # w_j'w_k

_d = 3
_e, _z, _zbar, _n = (sympy.symbols(f"{name}0:{_d}", real=True) for name in ("e", "z", "zbar", "n"))
_w, _x = sympy.symbols(f"w0:{_d}", real=True), sympy.symbols(f"x0:{_d}", real=True)
_b = Symbol("b", real=True)


def _dot(left, right) -> sympy.Expr:
    return sum((i * j for i, j in zip(left, right, strict=True)), sympy.Integer(0))


def _mean(expression: sympy.Expr, noise, density: sympy.Expr, low: sympy.Expr, high: sympy.Expr) -> sympy.Expr:
    """The mean over independent entries of the noise, by one integral each."""
    for one in noise:
        expression = integrate(sympy.expand(expression * density), (one, low, high))
    return sympy.expand(expression)


def _over_errors(expression: sympy.Expr, low=-step / 2, high=step / 2) -> sympy.Expr:
    return _mean(expression, _e, 1 / step, low, high)


_noise = _dot(_e, _z) - _dot(_e, _zbar)  # of one logit, corrected

corrected_noise = Result(
    name="corrected_noise",
    statement="with the bias corrected the noise of a logit given z has variance v |z - zbar|^2 = v (|z|^2 - 2 z'zbar + "
    "|zbar|^2), v = step^2/12, in the place of v |z|^2",
    arguments=(v, zz, z_mean, mean_mean),
    formula=v * (zz - 2 * z_mean + mean_mean),
    assumptions=("entries of E independent, of mean 0 and variance v",),
    kind="exact",
    source="b + (W - What) zbar is a change of origin",
    steps=lambda formula: (
        Identity(
            text="What z + b + (W - What) zbar = W z + b + e'(z - zbar), a row of three weights",
            left=_dot([i + j for i, j in zip(_w, _e, strict=True)], _z) + _b - _dot(_e, _zbar),
            right=_dot(_w, _z) + _b + _noise,
        ),
        Identity(
            text="uniform errors in +-step/2: the mean of the squared noise",
            left=_over_errors(_noise**2),
            right=sympy.expand(
                formula.subs({v: step**2 / 12, zz: _dot(_z, _z), z_mean: _dot(_z, _zbar), mean_mean: _dot(_zbar, _zbar)})
            ),
        ),
        Identity(text="its mean is 0", left=_over_errors(_noise), right=sympy.Integer(0)),
        Identity(
            text="weights rounded down, e in (-step, 0): the mean is -step/2 sum (z - zbar), 0 only on average over z",
            left=_over_errors(_noise, -step, sympy.Integer(0)),
            right=sympy.expand(-step / 2 * (sum(_z) - sum(_zbar))),
        ),
    ),
)


def _over_inputs(expression: sympy.Expr) -> sympy.Expr:
    return _mean(expression, _n, 1 / step, -step / 2, step / 2)


input_noise = Result(
    name="input_noise",
    statement="inputs rounded to a grid of this step add (step^2/12) w_j'w_k to the covariance of logits j and k: correlated "
    "across classes, unlike the noise of the weights, and nothing to the contrast of equal rows",
    arguments=(step, w_w),
    formula=step**2 * w_w / 12,
    assumptions=("rounding errors of the inputs uniform in +-step/2, independent of each other and of z; none clipped",),
    kind="exact",
    source="B. Jacob et al., CVPR 2018, for the arithmetic; second moments of a linear map of independent noise",
    steps=lambda formula: (
        Identity(
            text="two rows of three weights: E (w_j'n)(w_k'n)",
            left=_over_inputs(_dot(_w, _n) * _dot(_x, _n)),
            right=sympy.expand(formula.subs(w_w, _dot(_w, _x))),
        ),
        Identity(
            text="the contrast of two rows: |w_j - w_k|^2, not |w_j|^2 + |w_k|^2",
            left=sympy.expand(
                formula.subs(w_w, _dot(_w, _w)) - 2 * formula.subs(w_w, _dot(_w, _x)) + formula.subs(w_w, _dot(_x, _x))
            ),
            right=_over_inputs((_dot(_w, _n) - _dot(_x, _n)) ** 2),
        ),
    ),
)
