"""Symbols and special functions shared by the derivations.

One class k of a binary problem: features z ~ N(mu, Sigma) in R^d, margin t = w'z + c with w = w_1 - w_0 and
c = b_1 - b_0, decision 1 when t > 0. ``sign`` is +1 for class 0 and -1 for class 1, so that a class errs with
probability Phi(sign m / s). The compressed layer is w + e. All quantities are in the units of the logits and the
features; risks are fractions.

=============  ====================================  ===============================================
symbol         written                               meaning
=============  ====================================  ===============================================
pi_k           ``prior``                             prior of the class
m, s           ``m``, ``s``                          mean and standard deviation of the clean margin
v              ``v``                                 variance of one entry of e
Delta          ``step``                              quantization step
k4, k6         ``k4``, ``k6``                        fourth and sixth cumulant of an entry of e over v^2, v^3
|mu|^2         ``mu_mu``                             squared norm of the mean
mu'Sigma w     ``mu_h``                              with h = Sigma w
|Sigma w|^2    ``h_h``
tr Sigma       ``trace``
a, q, r        ``a``, ``q``, ``r``                   e'mu + (change of c), e'Sigma w, e'Sigma e
=============  ====================================  ===============================================
"""

import mpmath
import sympy
from sympy import Symbol, exp, pi, sqrt

m = Symbol("m", real=True)
s = Symbol("s", positive=True)
v = Symbol("v", nonnegative=True)
prior = Symbol("prior", nonnegative=True)
sign = Symbol("sign", real=True)
step = Symbol("step", positive=True)
k4 = Symbol("k4", real=True)
k6 = Symbol("k6", real=True)
mu_mu = Symbol("mu_mu", nonnegative=True)
mu_h = Symbol("mu_h", real=True)
h_h = Symbol("h_h", nonnegative=True)
trace = Symbol("trace", nonnegative=True)
a = Symbol("a", real=True)
q = Symbol("q", real=True)
r = Symbol("r", nonnegative=True)


def phi(x: sympy.Expr) -> sympy.Expr:
    """Density of the standard normal law."""
    return exp(-(x**2) / 2) / sqrt(2 * pi)


class Phi(sympy.Function):
    """Distribution function of the standard normal law; knows its derivative and its numerical value."""

    nargs = 1

    def fdiff(self, argindex=1):
        return phi(self.args[0])

    def _eval_evalf(self, prec):
        x = self.args[0]._eval_evalf(prec)
        if not x.is_number:
            return None
        with mpmath.workprec(prec + 10):
            return sympy.Expr._from_mpmath(mpmath.ncdf(x._to_mpmath(prec + 10)), prec)

    @classmethod
    def eval(cls, *args):
        (x,) = args
        if x.is_zero:
            return sympy.Rational(1, 2)
        if x is sympy.oo:
            return sympy.Integer(1)
        if x is -sympy.oo:
            return sympy.Integer(0)
        return None


class OwensT(sympy.Function):
    """Owen's T(h, a) = (1/2 pi) Int_0^a exp(-h^2 (1 + x^2)/2)/(1 + x^2) dx (Owen 1956), by its derivatives."""

    nargs = 2

    def fdiff(self, argindex=1):
        h, x = self.args
        if argindex == 1:
            return -phi(h) * (Phi(h * x) - sympy.Rational(1, 2))
        return exp(-(h**2) * (1 + x**2) / 2) / (2 * pi * (1 + x**2))

    def _eval_evalf(self, prec):
        h, x = (argument._eval_evalf(prec) for argument in self.args)
        if not (h.is_number and x.is_number):
            return None
        with mpmath.workprec(prec + 10):
            return sympy.Expr._from_mpmath(owens_t(h._to_mpmath(prec + 10), x._to_mpmath(prec + 10)), prec)


def owens_t(h: mpmath.mpf, x: mpmath.mpf) -> mpmath.mpf:
    """Owen's T by its defining integral, at mpmath's working precision."""
    integral = mpmath.quad(lambda y: mpmath.exp(-(h**2) * (1 + y**2) / 2) / (1 + y**2), [0, x])
    return integral / (2 * mpmath.pi)
