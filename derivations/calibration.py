"""Calibrated posteriors in the place of labels: what a known layer loses, and how well a temperature is known.

The label given the features has the posterior eta_k = exp(a_k/T)/sum_j exp(a_j/T), a the clean logits, T > 0 their temperature.
"""

import sympy
from sympy import Symbol, exp, log

from derivations.result import Identity, Result

eta_before, eta_after = (Symbol(name, nonnegative=True) for name in ("eta_before", "eta_after"))
posterior, logit, mean_logit, temperature, square = (
    Symbol("posterior", nonnegative=True),
    Symbol("logit", real=True),
    Symbol("mean_logit", real=True),
    Symbol("temperature", positive=True),
    Symbol("square_logit", real=True),
)
_a = sympy.symbols("a0:3", real=True)
_s = Symbol("s", real=True)  # log T
_score = [a * exp(-_s) for a in _a]
_total = sum((exp(x) for x in _score), sympy.Integer(0))
_eta = [exp(x) / _total for x in _score]
_mean = sum((e * a for e, a in zip(_eta, _a, strict=True)), sympy.Integer(0))
_square = sum((e * a**2 for e, a in zip(_eta, _a, strict=True)), sympy.Integer(0))
_hits = sympy.symbols("q0:3", nonnegative=True)


def _at(formula, k: int):
    """The formula for class k of three."""
    values = {posterior: _eta[k], logit: _a[k], mean_logit: _mean, square: _square, temperature: exp(_s)}
    return formula.subs(values, simultaneous=True)


posterior_distortion = Result(
    name="posterior_distortion",
    statement="P(error of What | z) - P(error of W | z) = eta_before - eta_after, the posteriors of the two decisions",
    arguments=(eta_before, eta_after),
    formula=eta_before - eta_after,
    assumptions=("eta is the law of the label given z",),
    kind="exact",
    source="condition on the features: the case of posterior_loss in which the second decision is known",
    steps=lambda formula: (
        Identity(
            text="decision 0 before and 1 after, of three classes: P(error after) - P(error before)",
            left=formula.subs({eta_before: _hits[0], eta_after: _hits[1]}, simultaneous=True),
            right=(_hits[0] + _hits[2]) - (_hits[1] + _hits[2]),
        ),
        Identity(
            text="averaged over the label: sum_k eta_k (1{k = before} - 1{k = after})",
            left=formula.subs({eta_before: _eta[2], eta_after: _eta[0]}, simultaneous=True),
            right=sum((_eta[k] * ((k == 2) - (k == 0)) for k in range(3)), sympy.Integer(0)),
        ),
    ),
)

posterior_slope = Result(
    name="posterior_slope",
    statement="d eta_k/d log T = eta_k (abar - a_k)/T, abar = sum_j eta_j a_j",
    arguments=(posterior, logit, mean_logit, temperature),
    formula=posterior * (mean_logit - logit) / temperature,
    assumptions=("eta_k = exp(a_k/T)/sum_j exp(a_j/T)",),
    kind="exact",
    source="differentiate the softmax",
    steps=lambda formula: tuple(
        Identity(text=f"class {k} of three", left=_at(formula, k), right=sympy.diff(_eta[k], _s)) for k in range(3)
    ),
)

temperature_information = Result(
    name="temperature_information",
    statement="Fisher's information of one sample on log T: Var(a_y)/T^2 = (sum_k eta_k a_k^2 - abar^2)/T^2",
    arguments=(square, mean_logit, temperature),
    formula=(square - mean_logit**2) / temperature**2,
    assumptions=("labels follow the posterior",),
    kind="exact",
    source="E of the squared score of the multinomial likelihood",
    steps=lambda formula: (
        Identity(
            text="three classes: E (d log eta_y/d log T)^2",
            left=_at(formula, 0),
            right=sum((e * sympy.diff(log(e), _s) ** 2 for e in _eta), sympy.Integer(0)),
        ),
        Identity(
            text="the mean of the score is 0, so that its square is its variance",
            left=sum((e * sympy.diff(log(e), _s) for e in _eta), sympy.Integer(0)),
            right=sympy.Integer(0),
        ),
    ),
)
