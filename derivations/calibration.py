"""Calibrated posteriors in the place of labels: how they move with their temperature, and how well that is known. (What a layer
loses by them: ``posterior_loss`` in :mod:`derivations.multiclass`.)

The label given the features has the posterior eta_k = exp(a_k/T)/sum_j exp(a_j/T), a the clean logits, T > 0 their temperature.
"""

import sympy
from sympy import Symbol, exp, log

from derivations.result import Identity, Result

posterior, logit, mean_logit, temperature, mean_square = (
    Symbol("posterior", nonnegative=True),
    Symbol("logit", real=True),
    Symbol("mean_logit", real=True),
    Symbol("temperature", positive=True),
    Symbol("mean_square_logit", real=True),
)
_a = sympy.symbols("a0:3", real=True)
_s = Symbol("s", real=True)  # log T
_scaled = [a * exp(-_s) for a in _a]
_total = sum((exp(x) for x in _scaled), sympy.Integer(0))
_eta = [exp(x) / _total for x in _scaled]
_mean = sum((e * a for e, a in zip(_eta, _a, strict=True)), sympy.Integer(0))
_square = sum((e * a**2 for e, a in zip(_eta, _a, strict=True)), sympy.Integer(0))


def _at(formula, k: int):
    """The formula for class k of three."""
    values = {posterior: _eta[k], logit: _a[k], mean_logit: _mean, mean_square: _square, temperature: exp(_s)}
    return formula.subs(values, simultaneous=True)


def _difference(left, right):
    """left - right with a symbol in the place of each exponential: a rational function, 0 after cancelling."""
    inverse, *weights = sympy.symbols("inverse w0:3", positive=True)
    plain = (left - right).subs(dict(zip(map(exp, _scaled), weights, strict=True)))
    return sympy.factor(sympy.cancel(plain.subs({exp(-k * _s): inverse**k for k in (2, 1)}).subs(exp(_s), 1 / inverse)))


posterior_slope = Result(
    name="posterior_slope",
    statement="d eta_k/d log T = eta_k (abar - a_k)/T, abar = sum_j eta_j a_j",
    arguments=(posterior, logit, mean_logit, temperature),
    formula=posterior * (mean_logit - logit) / temperature,
    assumptions=("eta_k = exp(a_k/T)/sum_j exp(a_j/T)",),
    kind="exact",
    source="differentiate the softmax; steps: three classes",
    steps=lambda formula: tuple(
        Identity(text=f"class {k} of three", left=_difference(_at(formula, k), sympy.diff(_eta[k], _s)), right=sympy.Integer(0))
        for k in range(3)
    ),
)

temperature_information = Result(
    name="temperature_information",
    statement="Fisher's information of one sample on log T: Var(a_y)/T^2 = (sum_k eta_k a_k^2 - abar^2)/T^2",
    arguments=(mean_square, mean_logit, temperature),
    formula=(mean_square - mean_logit**2) / temperature**2,
    assumptions=("labels follow the posterior",),
    kind="exact",
    source="E of the squared score of the multinomial likelihood; steps: three classes",
    steps=lambda formula: (
        Identity(
            text="three classes: E (d log eta_y/d log T)^2",
            left=_difference(_at(formula, 0), sum((e * sympy.diff(log(e), _s) ** 2 for e in _eta), sympy.Integer(0))),
            right=sympy.Integer(0),
        ),
        Identity(
            text="the mean of the score is 0, so that its square is its variance",
            left=_difference(sum((e * sympy.diff(log(e), _s) for e in _eta), sympy.Integer(0)), 0),
            right=sympy.Integer(0),
        ),
    ),
)
