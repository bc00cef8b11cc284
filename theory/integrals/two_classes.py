"""Two classes: every formula of :mod:`derivations.binary` and :mod:`derivations.flips`, vectorized in JAX.

Notation as in :mod:`derivations.notation`. Arrays carry any leading batch axes and a last axis of the two classes; what
depends on the compressed layer carries its axes before that one. Everything is float64: call inside
:func:`theory.setting.precision.in_float64`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from scipy.special import owens_t as owens_t_of_numpy

from derivations import compiled
from theory.setting.problem import Problem
from theory.setting.problem import margin as margin_of
from theory.tails import owens_t

SIGN = np.array([1.0, -1.0])
NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)
COARSE_NODES, COARSE_WEIGHTS = np.polynomial.legendre.leggauss(64)
REACH = 10.0  # standard deviations of the margin beyond which its density is dropped: 2e-23
OLDER = ("delta_2", "marginal", "corrected_marginal")


@functools.cache
def formula(name: str):
    """The derived result of that name as a JAX function of keyword arguments, for use inside a compiled function."""
    return compiled.function(name, functions={"OwensT": owens_t})


@functools.cache
def evaluate(name: str):
    """The same in NumPy, for single numbers: nothing to compile."""
    return compiled.function(name, backend="numpy", functions={"OwensT": owens_t_of_numpy})


class Pair(NamedTuple):
    """A binary problem seen through its margin t = w'z + c. Leading axes are batch axes.

    priors (..., 2), w (..., d), c (...), means (..., 2, d), covariances (..., 2, d, d).
    """

    priors: np.ndarray
    w: np.ndarray
    c: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def scaled(self, columns: np.ndarray | None) -> "Pair":
        """The same margin of the features z_j columns_j (d,): errors of w_j are divided by columns_j."""
        if columns is None:
            return self
        covariances = self.covariances * columns[:, None] * columns
        return self._replace(w=self.w / columns, means=self.means * columns, covariances=covariances)


class Margin(NamedTuple):
    """Invariants of the clean margin, each (..., 2): mean m, standard deviation s, and what the formulas of order v need."""

    m: jax.Array
    s: jax.Array
    mu_mu: jax.Array
    mu_h: jax.Array
    h_h: jax.Array
    trace: jax.Array


class Moments(NamedTuple):
    """Coefficients, constant first, of the polynomials in tau of :mod:`derivations.conditional`; each (degree + 1, ..., 2)."""

    noise_second: jax.Array
    norm_variance: jax.Array
    norm_third: jax.Array
    fourth_power: jax.Array
    sixth_power: jax.Array
    fourth_norm_covariance: jax.Array


class MarginChange(NamedTuple):
    """A known error e of w (and its change of c) seen by the margin, each (..., 2): a = e'mu + change of c,
    q = e'Sigma w, r = e'Sigma e."""

    a: jax.Array
    q: jax.Array
    r: jax.Array


def pair_of(problem: Problem) -> Pair:
    """The margin problem of a two-class problem."""
    w, c = margin_of(problem.weights, problem.bias)
    covariances = np.broadcast_to(problem.covariances, (2, problem.features, problem.features))
    return Pair(problem.priors, w, np.asarray(c), problem.means, covariances)


@jax.jit
def margin(pair: Pair) -> Margin:
    """The invariants of the clean margin."""
    w = jnp.expand_dims(pair.w, -2)
    h = jnp.einsum("...kij,...j->...ki", pair.covariances, pair.w)
    return Margin(
        m=jnp.sum(w * pair.means, -1) + jnp.expand_dims(pair.c, -1),
        s=jnp.sqrt(jnp.maximum(jnp.sum(w * h, -1), 0.0)),
        mu_mu=jnp.sum(pair.means**2, -1),
        mu_h=jnp.sum(pair.means * h, -1),
        h_h=jnp.sum(h**2, -1),
        trace=jnp.trace(pair.covariances, axis1=-2, axis2=-1),
    )


def moments(pair: Pair, fourth: np.ndarray | float = 1.0, sixth: np.ndarray | float = 1.0) -> Moments:
    """The conditional moments given the margin, summed over the coordinates. One d x d product per class.

    Args:
        pair: the problem. fourth, sixth: (d,) weights of the coordinates in what goes with the fourth and the sixth cumulant of
            the errors, where these differ.
    """
    d = pair.w.shape[-1]
    return _moments(pair, np.broadcast_to(fourth, d), np.broadcast_to(sixth, d))


@jax.jit
def _moments(pair: Pair, fourth: jax.Array, sixth: jax.Array) -> Moments:
    weights = {"fourth_power": fourth, "fourth_norm_covariance": fourth, "sixth_power": sixth}
    h = jnp.einsum("...kij,...j->...ki", pair.covariances, pair.w)
    power = jnp.sum(jnp.expand_dims(pair.w, -2) * h, -1)
    C = pair.covariances - h[..., :, None] * h[..., None, :] / power[..., None, None]
    CC = C @ C
    arrays = {
        "mu_i": pair.means,
        "h_i": h,
        "Cmu_i": jnp.einsum("...ij,...j->...i", C, pair.means),
        "Ch_i": jnp.einsum("...ij,...j->...i", C, h),
        "CCmu_i": jnp.einsum("...ij,...j->...i", CC, pair.means),
        "CCh_i": jnp.einsum("...ij,...j->...i", CC, h),
        "C_ii": jnp.diagonal(C, axis1=-2, axis2=-1),
        "CC_ii": jnp.diagonal(CC, axis1=-2, axis2=-1),
        "CCC_ii": jnp.sum(CC * C, -1),
    }
    return Moments(
        *(
            jnp.stack(
                [
                    _weighted_sum(part, weights.get(name))
                    for part in formula(name)(**{one: arrays[one] for one in compiled.argument_names(name)})
                ]
            )
            for name in Moments._fields
        )
    )


def _weighted_sum(part: jax.Array, weights: jax.Array | None) -> jax.Array:
    return jnp.sum(part if weights is None else part * jnp.broadcast_to(weights, part.shape), -1)


@jax.jit
def change(pair: Pair, e: jax.Array, shift: jax.Array) -> MarginChange:
    """The invariants of known errors.

    Args:
        pair: one problem (no batch axes).
        e: (..., d) errors of w. shift: (...) changes of c.
    """
    q = jnp.einsum("...i,kij,j->...k", e, pair.covariances, pair.w)
    r = jnp.stack([jnp.sum((e @ pair.covariances[k]) * e, -1) for k in range(2)], -1)
    return MarginChange(a=e @ pair.means.T + jnp.expand_dims(shift, -1), q=q, r=jnp.maximum(r, 0.0))


@jax.jit
def class_risk(at: Margin) -> jax.Array:
    """P(error | class), (..., 2). A constant margin (s = 0) decides by its sign, 0 for class 0."""
    s, m = _regular(at.s, at.m)
    return formula("binary_risk")(prior=1.0, sign=_like(SIGN, m), m=m, s=s)


@jax.jit
def class_distortion(at: Margin, by: MarginChange, after: Margin | None = None) -> jax.Array:
    """P(error | class) after minus before for a known error, (..., 2); ``after``: the compressed margin, if at hand."""
    at = _spread_out(at, by)
    after = _after(at, by) if after is None else after
    return jnp.where(by.r + jnp.abs(by.a) == 0, 0.0, class_risk(after) - class_risk(at))


def _spread_out(at: Margin, by: MarginChange) -> Margin:
    """The clean margin repeated along the axes of the errors."""
    return Margin(*(jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, by.a.shape)) for x in at))


def _after(at: Margin, by: MarginChange) -> Margin:
    """The compressed margin; one whose variance is only rounding error is constant."""
    s = jnp.sqrt(jnp.maximum(at.s**2 + 2 * by.q + by.r, 0.0))
    return Margin(at.m + by.a, jnp.where(s <= 1e-7 * at.s, 0.0, s), *at[2:])


class Known(NamedTuple):
    """What known margin weights do: their change, distortion and flips by class (2,), the rounding error of the first."""

    change: MarginChange
    distortion: np.ndarray
    flips: np.ndarray
    error: float


def known(pair: Pair, at: Margin, w: np.ndarray) -> Known:
    """What the known margin weights w (d,) do. ``at`` is the margin of the pair."""
    by, after = change(pair, jnp.asarray(w - pair.w), jnp.zeros(())), margin(pair._replace(w=jnp.asarray(w)))
    error = float(rounding(pair, at) + rounding(pair._replace(w=jnp.asarray(w)), after))
    return Known(by, np.asarray(class_distortion(at, by, after)), np.asarray(class_flips(at, by, after)), error)


@jax.jit
def class_flips(at: Margin, by: MarginChange, after: Margin | None = None) -> jax.Array:
    """P(the decision changes | class) for a known error, (..., 2)."""
    at = _spread_out(at, by)
    known = _after(at, by) if after is None else after
    constant = (at.s == 0) | (known.s == 0)
    none = by.r == 0  # no error in z: only the shift of the bias moves decisions
    m, s = jnp.where(constant, 1.0, at.m), jnp.where(constant, 1.0, at.s)
    m = jnp.where(m == 0, 1e-30 * s, m)
    r = jnp.where(constant | none, 1.0, by.r)
    q = jnp.where(constant | none, 0.0, by.q)
    a = jnp.where(m + by.a == 0, -m * (1 - 1e-15), by.a)  # the limit at u' = 0
    # s^2 r >= q^2 by Cauchy-Schwarz; at equality e is parallel to w and the decisions differ between two thresholds
    bound = s * jnp.sqrt(r)
    parallel = (bound - jnp.abs(q)) <= 1e-14 * bound
    slope = 1 + q / s**2
    threshold = -(by.a - q * m / s**2) / jnp.where(slope == 0, 1.0, slope)
    between = jnp.abs(ndtr((threshold - m) / s) - ndtr(-m / s))
    q = jnp.sign(q) * jnp.minimum(jnp.abs(q), bound * (1 - 1e-14))
    flips = formula("binary_flip_rate")(prior=1.0, m=m, s=s, a=a, q=q, r=r)
    flips = jnp.where(parallel, jnp.where(slope > 0, between, 1 - between), flips)
    before, then = _one(at), _one(known)
    flips = jnp.where(constant, before * (1 - then) + then * (1 - before), jnp.where(none, jnp.abs(then - before), flips))
    return jnp.clip(flips, jnp.abs(class_distortion(at, by, after)), 1.0)


def _one(at: Margin) -> jax.Array:
    """P(decision 1 | class)."""
    risk = class_risk(at)
    return jnp.where(_like(SIGN, risk) > 0, risk, 1 - risk)


def _regular(s, m):
    """s and m with a constant margin replaced by one that decides the same way with certainty."""
    return jnp.where(s > 0, s, 1.0), jnp.where(s > 0, m, jnp.where(m > 0, 1e3, -1e3))


def _like(values: np.ndarray | jax.Array, array: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.asarray(values), array.shape)


class Expected(NamedTuple):
    """Expected change per class (..., 2) of P(error | class) and P(flip | class), with the estimated error of each."""

    distortion: jax.Array
    flips: jax.Array
    error: jax.Array
    flips_error: jax.Array


@jax.jit
def quadrature(at: Margin, given: Moments, v: jax.Array, k4: jax.Array, k6: jax.Array) -> Expected:
    """Expected distortion and flips per class by the margin quadrature.

    The error estimate adds what the sixth-order Edgeworth terms contribute and what a coarser rule would change; it is
    infinite where the margin is constant.

    Args:
        at, given: (..., 2) invariants of the problem; v, k4, k6: (...) error moments, broadcast against its batch axes.
    """
    v, k4, k6 = (jnp.expand_dims(x, -1) for x in jnp.broadcast_arrays(v, k4, k6))
    shape = jnp.broadcast_shapes(v.shape, at.m.shape)
    at = Margin(*(jnp.broadcast_to(x, shape) for x in at))
    v, k4, k6 = (jnp.broadcast_to(x, shape) for x in (v, k4, k6))
    given = Moments(*(jnp.broadcast_to(x, (x.shape[0], *shape)) for x in given))
    safe = at._replace(s=jnp.where(at.s > 0, at.s, 1.0))
    zero, values, errors = v == 0, [], []
    for (full, fourth), coarse in _integrate(safe, given, v, k4, k6):
        error = jnp.abs(full - fourth) + jnp.abs(full - coarse)
        values.append(jnp.where(zero, 0.0, full))
        errors.append(jnp.where(zero, 0.0, jnp.where((at.s > 0) & jnp.isfinite(error), error, jnp.inf)))
    return Expected(*values, *errors)


def _polynomial(coefficients: jax.Array, tau: jax.Array) -> jax.Array:
    total = jnp.zeros_like(tau)
    for c in coefficients[::-1]:
        total = total * tau + c[..., None]
    return total


def _integrate(at: Margin, given: Moments, v, k4, k6):
    """Distortion and flips, each with (axis 0) and without the sixth cumulant, and by the coarser rule."""
    m, s = at.m, at.s

    def second(y):
        return _polynomial(given.noise_second, ((y - m) / s**2)[..., None])[..., 0]

    # The noise reaches 9.5 of its conditional deviations; g is convex, so its maximum on [-reach, reach] is at an end.
    reach = jnp.abs(m) + REACH * s
    for _ in range(6):
        reach = jnp.minimum(reach, 9.5 * jnp.sqrt(v * jnp.maximum(second(reach), second(-reach))))
    split = jnp.clip(jnp.abs(m) - REACH * s, 0.0, reach)[..., None]
    rest = reach[..., None] - split
    nodes, fine, coarse = (
        jnp.reshape(jnp.asarray(rule), (*(1,) * m.ndim, -1))
        for rule in (
            0.5 + 0.5 * np.concatenate([NODES, COARSE_NODES]),
            np.concatenate([WEIGHTS / 2, 0 * COARSE_WEIGHTS]),
            np.concatenate([0 * WEIGHTS, COARSE_WEIGHTS / 2]),
        )
    )
    x = jnp.concatenate([split * nodes, split + rest * nodes], -1)
    fine, coarse = (jnp.concatenate([split * rule, rest * rule], -1) for rule in (fine, coarse))
    arguments = {"x": x, "prior": 1.0, "v": v[..., None], "m": m[..., None], "s": s[..., None]}
    used = jnp.reshape(jnp.asarray([1.0, 0.0]), (2, *(1,) * x.ndim))
    for side, name in ((-1.0, "minus"), (1.0, "plus")):
        tau = (side * x - m[..., None]) / (s**2)[..., None]
        value = {key: _polynomial(c, tau) for key, c in given._asdict().items()}
        g = value["noise_second"]
        arguments[f"g_{name}"] = g
        arguments[f"l4_{name}"] = formula("noise_fourth_cumulant")(
            g=g, H=value["norm_variance"], Z4=value["fourth_power"], k4=k4[..., None]
        )
        arguments[f"l6_{name}"] = used * jnp.expand_dims(
            formula("noise_sixth_cumulant")(
                g=g,
                M3=value["norm_third"],
                cov46=value["fourth_norm_covariance"],
                Z6=value["sixth_power"],
                k4=k4[..., None],
                k6=k6[..., None],
            ),
            0,
        )
    sign = _like(SIGN, m)[..., None]
    distortion = formula("margin_quadrature")(**arguments, sign=sign)
    flips = formula("margin_quadrature_flips")(**arguments)
    fine = jnp.expand_dims(fine, 0)
    return [(jnp.sum(x * fine, -1), jnp.sum(x[0] * coarse, -1)) for x in (distortion, flips)]


@functools.partial(jax.jit, static_argnames="name")
def older_formula(name: str, at: Margin, v: jax.Array) -> jax.Array:
    """Expected distortion per class (..., 2) by ``delta_2``, ``marginal`` or ``corrected_marginal``."""
    v = jnp.expand_dims(v, -1)
    shape = jnp.broadcast_shapes(v.shape, at.m.shape)
    values = {"v": jnp.broadcast_to(v, shape), "prior": 1.0, "sign": _like(SIGN, at.m)}
    values |= {key: jnp.broadcast_to(x, shape) for key, x in at._asdict().items()}
    value = formula(name)(**{one: values[one] for one in compiled.argument_names(name)})
    return value if name == "delta_2" else value - class_risk(at)


@jax.jit
def rounding(pair: Pair, at: Margin) -> jax.Array:
    """Bound (...) of the rounding error of a risk: that of the sum w'mu + c, through the slope of the risk in m."""
    s, m = _regular(at.s, at.m)
    terms = jnp.sum(jnp.abs(jnp.expand_dims(pair.w, -2) * pair.means), -1) + jnp.expand_dims(jnp.abs(pair.c), -1)
    density = jnp.exp(-0.5 * (m / s) ** 2) / np.sqrt(2 * np.pi)
    return jnp.finfo(s.dtype).eps * jnp.sum(pair.priors * (1 + density * terms / s), -1)


@jax.jit
def statistics_variance(priors, counts, at: Margin, by: MarginChange) -> jax.Array:
    """Sampling variance (...) of D = sum_k pi_k (change of class k) when mean, covariance and priors were estimated.

    A constant margin contributes nothing of its own: its decision is known.

    Args:
        priors, counts: (2,). at: (2,) invariants. by: (..., 2) known errors.
    """
    at = _spread_out(at, by)
    after = _after(at, by)
    (s, m), (s_hat, m_hat) = _regular(at.s, at.m), _regular(after.s, after.m)
    u, u_hat = m / s, m_hat / s_hat
    constant = (at.s == 0) | (after.s == 0)
    rho = jnp.where(constant, 0.0, jnp.clip((at.s**2 + by.q) / (s * s_hat), -1.0, 1.0))
    square = jnp.clip((at.s**2 * by.r - by.q**2) / (s * s_hat) ** 2, 0.0, 1.0)  # 1 - rho^2, without cancellation
    gap = jnp.where(rho > 0, square / (1 + jnp.abs(rho)), 1 - rho)
    n = jnp.maximum(counts, 1.0)
    within = jnp.sum(formula("class_variance")(prior=priors, u=_like(u, u_hat), u_hat=u_hat, rho_gap=gap, count=n), -1)
    shift = class_distortion(at, by)
    between = formula("prior_variance")(
        prior_0=priors[0], change_0=shift[..., 0], change_1=shift[..., 1], total_count=jnp.maximum(jnp.sum(counts), 1.0)
    )
    return within + between
