"""Error moments of a uniform scalar quantizer, mid-tread or mid-rise, for Gaussian weights.

The quantizer sends w to the nearest point of the grid Delta (j + offset): offset 0 is mid-tread, 1/2 mid-rise; the
error is e = Q(w) - w. Series: Widrow and Kollar, Quantization Noise, Cambridge 2008, chapters 4 to 6; derived here from
the Fourier series of the sawtooth. The finite sums over cells are exact with clipping.
"""

import mpmath
import sympy
from sympy import Rational, Sum, Symbol, cos, exp, integrate, oo, pi, sin

from derivations.jax_code import for_mpmath
from derivations.notation import Phi, phi, s, step
from derivations.result import Identity, Numeric, Result, draw, evaluate

TERMS = 24
offset = Symbol("offset", real=True)
n = Symbol("n", integer=True, positive=True)
x = Symbol("x", real=True)
freq = Symbol("freq", positive=True)
low, high, level = (Symbol(name, real=True) for name in ("low", "high", "level"))
alpha, power, product = Symbol("alpha", real=True), Symbol("power", positive=True), Symbol("product", real=True)
n_0, n_1 = Symbol("n_0", integer=True, positive=True), Symbol("n_1", integer=True, positive=True)
sigma_0, sigma_1 = Symbol("sigma_0", positive=True), Symbol("sigma_1", positive=True)
rho = Symbol("rho", real=True)


def _sawtooth() -> Identity:
    return Identity(
        text="the error of one cell, e/Delta = -y on (-1/2, 1/2), has sine coefficients 2 (-1)^n/(2 pi n)",
        left=2 * integrate(-x * sin(2 * pi * n * x), (x, -Rational(1, 2), Rational(1, 2))),
        right=(-1) ** n / (pi * n),
    )


def _parabola() -> Identity:
    return Identity(
        text="its square y^2 has mean 1/12 and cosine coefficients (-1)^n/(pi n)^2",
        left=2 * integrate(x**2 * cos(2 * pi * n * x), (x, -Rational(1, 2), Rational(1, 2))),
        right=(-1) ** n / (pi * n) ** 2,
    )


def _characteristic() -> Identity:
    return Identity(
        text="E cos(freq w) = exp(-freq^2 s^2/2) for w ~ N(0, s^2); a shift of the grid by offset multiplies it by "
        "cos(2 pi n offset), the sine part vanishing by symmetry",
        left=integrate(cos(freq * x) * exp(-(x**2) / (2 * s**2)) / (s * sympy.sqrt(2 * pi)), (x, -oo, oo)),
        right=exp(-(freq**2) * s**2 / 2),
    )


def _series(term) -> sympy.Expr:
    return sum(
        ((-1) ** j * cos(2 * pi * j * offset) * exp(-2 * (pi * j * s / step) ** 2) * term(j) for j in range(1, TERMS + 1)),
        sympy.Integer(0),
    )


def _cells(values: dict, integrand) -> mpmath.mpf:
    """E of integrand(w, e) by integrating cell after cell of the unclipped quantizer."""
    width, at, sd = values["step"], values["offset"], values["s"]
    reach = int(mpmath.ceil(14 * sd / width)) + 1
    total = mpmath.mpf(0)
    for j in range(-reach, reach + 1):
        middle = width * (j + at)
        total += mpmath.quad(
            lambda w, middle=middle: integrand(w, middle - w) * mpmath.npdf(w, 0, sd),
            [middle - width / 2, middle, middle + width / 2],
        )
    return total


def _against_cells(formula, integrand):
    def sides(rng):
        values = draw(rng, s=(0.3, 1.2), step=(0.8, 1.2), offset=(0, 0.5))
        symbols = {s: values["s"], step: values["step"], offset: values["offset"]}
        return evaluate(formula, symbols), _cells(values, integrand)

    return sides


quantizer_moments = Result(
    name="quantizer_moments",
    statement="E e^2 = (Delta^2/12) (1 + (12/pi^2) sum_n (-1)^n cos(2 pi n offset) exp(-2 pi^2 n^2 s^2/Delta^2)/n^2); "
    f"the sum is cut after {TERMS} terms",
    arguments=(s, step, offset),
    formula=step**2 / 12 * (1 + 12 / pi**2 * _series(lambda j: Rational(1, j**2))),
    assumptions=(
        "weights N(0, s^2)",
        "no clipping",
        "s/Delta >= 0.05 (cut series exact to 1e-12)",
        "offset 0 (mid-tread) or 1/2 (mid-rise), any other grid shift too",
    ),
    kind="exact",
    source="Widrow and Kollar 2008, chapter 5; derived from the Fourier series of the squared sawtooth",
    steps=lambda formula: (
        _parabola(),
        _characteristic(),
        Numeric(
            text="the series equals the sum over cells of Int (Q(w) - w)^2 f(w) dw",
            sides=_against_cells(formula, lambda w, e: e**2),
        ),
    ),
)

quantizer_weight_product = Result(
    name="quantizer_weight_product",
    statement="E[e w] = 2 s^2 sum_n (-1)^n cos(2 pi n offset) exp(-2 pi^2 n^2 s^2/Delta^2); "
    f"the sum is cut after {TERMS} terms",
    arguments=(s, step, offset),
    formula=2 * s**2 * _series(lambda j: 1),
    assumptions=("weights N(0, s^2)", "no clipping", "s/Delta >= 0.05, where the cut series is exact to 1e-12"),
    kind="exact",
    source="Widrow and Kollar 2008, chapter 6; derived from the Fourier series of the sawtooth",
    steps=lambda formula: (
        _sawtooth(),
        Identity(
            text="E[w sin(freq w)] = freq s^2 exp(-freq^2 s^2/2), minus the derivative of the characteristic function",
            left=-sympy.diff(exp(-(freq**2) * s**2 / 2), freq),
            right=freq * s**2 * exp(-(freq**2) * s**2 / 2),
        ),
        Numeric(
            text="the series equals the sum over cells of Int (Q(w) - w) w f(w) dw",
            sides=_against_cells(formula, lambda w, e: e * w),
        ),
    ),
)


def _cell_steps(integrand):
    def steps(formula):
        density = phi(x / s) / s
        return (
            Identity(text="an empty cell contributes nothing", left=formula.subs(low, high), right=sympy.Integer(0)),
            Identity(
                text="d/d high of the cell's contribution is the integrand at its upper end",
                left=sympy.diff(formula, high),
                right=(integrand * density).subs(x, high),
            ),
            Identity(
                text="d/d low is minus the integrand at its lower end",
                left=sympy.diff(formula, low),
                right=-(integrand * density).subs(x, low),
            ),
        )

    return steps


_mass = Phi(high / s) - Phi(low / s)
_first = s * (phi(low / s) - phi(high / s))
_second = s**2 * _mass + s * (low * phi(low / s) - high * phi(high / s))

cell_error_power = Result(
    name="cell_error_power",
    statement="Int_low^high (level - w)^2 f(w) dw in Phi and phi; summed over all cells, the outer ones half-infinite, "
    "it is E e^2 with clipping included",
    arguments=(level, low, high, s),
    formula=level**2 * _mass - 2 * level * _first + _second,
    assumptions=("weights N(0, s^2)", "finite ends; a half-infinite cell is the limit"),
    kind="exact",
    source="partial moments of the normal law",
    steps=_cell_steps((level - x) ** 2),
)

cell_error_product = Result(
    name="cell_error_product",
    statement="Int_low^high (level - w) w f(w) dw in Phi and phi; summed over all cells it is E[e w], clipping included",
    arguments=(level, low, high, s),
    formula=level * _first - _second,
    assumptions=("weights N(0, s^2)", "finite ends; a half-infinite cell is the limit"),
    kind="exact",
    source="partial moments of the normal law",
    steps=_cell_steps((level - x) * x),
)

gain = Result(
    name="gain",
    statement="decisions see the noise v_eff = (E e^2 - alpha^2 s^2)/(1 + alpha)^2, alpha = E[e w]/s^2",
    arguments=(power, alpha, s),
    formula=(power - alpha**2 * s**2) / (1 + alpha) ** 2,
    assumptions=("the gain alpha > -1 is common to all entries", "the bias scales with the gain (or is small)"),
    kind="exact",
    source="regression of the error on the weight; argmax is invariant under a common positive gain",
    steps=lambda formula: (
        Identity(
            text="E eps^2 of eps = e - alpha w is E e^2 - 2 alpha E[e w] + alpha^2 s^2; with alpha = E[e w]/s^2 it is "
            "v_eff (1 + alpha)^2, as w + e = (1 + alpha)(w + eps/(1 + alpha))",
            left=(formula * (1 + alpha) ** 2).subs(alpha, product / s**2),
            right=(power - 2 * alpha * product + alpha**2 * s**2).subs(alpha, product / s**2),
        ),
        Identity(
            text="the power of the quantized weight is kept: E (w + e)^2 = (1 + alpha)^2 (s^2 + v_eff)",
            left=(1 + alpha) ** 2 * (s**2 + formula),
            right=(s**2 + 2 * product + power).subs(product, alpha * s**2),
        ),
    ),
)


def _rows(rng):
    """Parameters of two correlated rows, and corr(e_0, e_1) by integrating over w_0 the mean error of w_1 given w_0."""
    values = draw(rng, sigma_0=(0.25, 0.5), sigma_1=(0.25, 0.5), rho=(-0.95, 0.95))
    sd_0, sd_1, correlation = values["sigma_0"], values["sigma_1"], values["rho"]

    def mean_error(w):  # w_1 given w_0 = w is N(rho sd_1/sd_0 w, sd_1^2 (1 - rho^2)); its smoothed sawtooth
        mean, rest = correlation * sd_1 / sd_0 * w, sd_1**2 * (1 - correlation**2)
        return (
            sum(
                (-1) ** j * mpmath.sin(2 * mpmath.pi * j * mean) * mpmath.exp(-2 * (mpmath.pi * j) ** 2 * rest) / j
                for j in range(1, 25)
            )
            / mpmath.pi
        )

    edges = [j + mpmath.mpf(1) / 2 for j in range(-6, 6)]
    product = mpmath.quad(lambda w: (mpmath.nint(w) - w) * mean_error(w) * mpmath.npdf(w, 0, sd_0), edges)
    return {sigma_0: sd_0, sigma_1: sd_1, rho: correlation}, 12 * product


def _row_steps(formula):
    A, B = Symbol("A", real=True), Symbol("B", real=True)
    i = Symbol("i", integer=True, positive=True)

    def sides(rng):
        values, product = _rows(rng)
        summand = for_mpmath((n_0, n_1), formula.subs({k: sympy.Float(y, 30) for k, y in values.items()}))
        return mpmath.fsum(summand(i, j) for i in range(1, 25) for j in range(1, 25)), product

    diagonal = formula.subs({n_0: i, n_1: i, sigma_1: sigma_0, rho: -1})
    return (
        _sawtooth(),
        Identity(
            text="sin A sin B = (cos(A - B) - cos(A + B))/2: the rows' errors correlate through the laws of "
            "n_0 w_0 - n_1 w_1 and n_0 w_0 + n_1 w_1",
            left=sin(A) * sin(B),
            right=(cos(A - B) - cos(A + B)) / 2,
        ),
        Identity(
            text="tied rows, w_1 = -w_0, wide against the step: the terms n_0 = n_1 add up to -1",
            left=Sum(sympy.limit(diagonal, sigma_0, oo), (i, 1, oo)).doit(),
            right=sympy.Integer(-1),
        ),
        Numeric(
            text="the double series equals E[e_0 e_1]/(Delta_0 Delta_1/12) by quadrature over w_0",
            sides=sides,
            tolerance=1e-9,
            points=2,
        ),
    )


def _frequency(sign_: int) -> sympy.Expr:
    quadratic = (n_0 * sigma_0) ** 2 + (n_1 * sigma_1) ** 2 - sign_ * 2 * n_0 * n_1 * rho * sigma_0 * sigma_1
    return exp(-2 * pi**2 * quadratic)


row_correlation = Result(
    name="row_correlation",
    statement="E[e_0 e_1]/(Delta_0 Delta_1/12) is the sum over n_0, n_1 >= 1 of this summand, a difference of the "
    "characteristic functions of n_0 w_0/Delta_0 -+ n_1 w_1/Delta_1; its terms n_0 = n_1 give "
    "-(6/pi^2) sum_n exp(-2 pi^2 n^2 s_+^2/Delta^2)/n^2, s_+ = sd(w_0 + w_1), hence -1 for tied rows w_1 = -w_0",
    arguments=(n_0, n_1, sigma_0, sigma_1, rho),
    formula=6 / pi**2 * (-1) ** (n_0 + n_1) / (n_0 * n_1) * (_frequency(+1) - _frequency(-1)),
    assumptions=("rows jointly Gaussian with mean zero, correlation rho, sigma_k = s_k/Delta_k", "mid-tread, no clipping"),
    kind="exact",
    source="Fourier series of the two sawtooths",
    steps=_row_steps,
)
