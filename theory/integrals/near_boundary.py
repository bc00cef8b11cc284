"""Random layers of more classes than features: labels and errors integrated out given the features.

Of Gaussian classes the posterior eta_k(z) = P(label k | z) is known, and the noise E z of the logits has independent rows:
what compression loses at z is ``posterior_loss`` in :mod:`derivations.multiclass`, a one-dimensional integral over the largest
noisy logit, whose law is a Fourier series. Nothing is lost but near the decision boundary, within a few
deviations of the noise, so points are drawn there: on lines as those of :mod:`theory.integrals.lines`, in pairs about the
crossings of the clean decision, with the weight phi over the density they were drawn from. A boundary may be met by lines of
all directions; each counts in proportion to the square of the cosine between line and boundary normal, which keeps grazing
lines from dominating.
"""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from scipy.linalg import solve_triangular

from theory.budget import DEFAULT, Budget
from theory.integrals.lines import PARALLEL, Heads, choose, directions, heads_of
from theory.integrals.orthant import SCRAMBLINGS, Phi, estimate, moved
from theory.integrals.points import sobol
from theory.setting.error_law import UniformErrors
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

MOST = 128  # classes
LEAST = 6  # features below which the series converges slowly
CROSSINGS = 5  # of the clean decision looked for on each side of the middle of a line
REACH = 7.0  # standard deviations along a line beyond which none is
ANYWHERE = 0.05  # share of the points drawn from the whole line, which is what makes the others' weights bounded
WIDE = 1.3  # standard deviation of the points about a crossing, in those of the noise of the lead
BELOW, ABOVE = 4.5, 5.5  # standard deviations of the noise of a logit, to where the largest is integrated
HALF = 6.5  # deviations of the noise, half the period of its series
ORDERS, FEW_FEATURES = 14, 8  # of the series; of fewer features twice as many, and nodes
SPACING, WIDER = 0.5, 1.6  # of the nodes, in the least of them; where that is less than half of the largest, so much more
MOST_NODES = 385
UNEQUAL = 16.0  # the loudest row's noise over the quietest's beyond which nodes for both are too many
NEAR, FAR = 4.5, (8, 16, 32, 64)  # deviations within which a class may be decided; classes kept at a point
LINES, BLOCKS = 32, 32  # lines a block, blocks a compiled call
FEW = 2**9  # lines a scrambling at first
PAIRS = 64  # networks behind the spread
NEEDS = (
    f"at most {MOST} classes, all with positive priors and regular covariances, {LEAST} features, rows that differ, and steps "
    f"that differ by less than {UNEQUAL:g} times"
)


class Setting(NamedTuple):
    """Heads and classes, the priors (K,), and of each class direction shares and lengths (K, K) as :func:`directions` gives
    them; of one common covariance or one a class the inverse factor (1 or K, d, d) and the log-determinant (1 or K,)."""

    heads: Heads
    priors: jax.Array
    shares: jax.Array
    lengths: jax.Array
    whiteners: jax.Array
    determinants: jax.Array


class Points(NamedTuple):
    """Features (n, d), clean logits and posteriors (n, K), the class decided (n,) and weights (n,)."""

    z: jax.Array
    logits: jax.Array
    posterior: jax.Array
    top: jax.Array
    weights: jax.Array


class Averages(NamedTuple):
    """By scrambling: loss, flips and changed correctness of each class, weighted by its prior, (R, K); and at most what was
    neglected of loss and flips (R, 2)."""

    loss: np.ndarray
    flips: np.ndarray
    changed: np.ndarray
    neglected: np.ndarray


def serves(problem: Problem, errors: UniformErrors) -> bool:
    """Whether labels and errors can be integrated out: every class with a positive prior and a regular covariance, rows that
    all differ and have independent errors, their steps by less than UNEQUAL times and one a row, at most MOST classes and LEAST
    features or more."""
    (K, d), steps = problem.weights.shape, errors.steps
    if errors.wide.shape[1] > 1 or errors.tied or not errors.sign.all():
        return False
    if not 0 < steps.max() <= UNEQUAL * steps.min():
        return False
    if not (2 < K <= MOST and d >= LEAST and problem.priors.min() > 0 and len(np.unique(problem.weights + 0.0, axis=0)) == K):
        return False
    values = np.linalg.eigvalsh(problem.covariances)
    return bool(np.all(values[..., 0] > 1e-12 * values[..., -1]))


def setting_of(problem: Problem) -> Setting:
    """What the points of a problem that has posteriors need."""
    weights = problem.weights - problem.weights.mean(0)
    roots = np.linalg.cholesky(problem.covariances[None] if problem.shared else problem.covariances)
    heads = heads_of(weights, problem.bias, problem.means, list(roots))
    means = problem.means @ weights.T + problem.bias
    shares, lengths = jax.vmap(lambda k: directions(k, jnp.asarray(means)[k], heads.grams[jnp.minimum(k, len(roots) - 1)]))(
        jnp.arange(problem.classes)
    )
    whiteners = np.stack([solve_triangular(root, np.eye(len(root)), lower=True) for root in roots])
    determinants = np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(1)
    return Setting(heads, *map(jnp.asarray, (problem.priors, shares, lengths, whiteners, determinants)))


def posterior(z: jax.Array, s: Setting) -> jax.Array:
    """(n, K) probabilities of each label given features (n, d)."""
    if len(s.whiteners) == 1:
        middle = (s.priors @ s.heads.means)[None]  # a large common part would cancel
        centres = (s.heads.means - middle) @ s.whiteners[0].T
        score = ((z - middle) @ s.whiteners[0].T) @ centres.T - 0.5 * jnp.sum(centres**2, 1)[None]
    else:
        white = jnp.einsum("kde,nke->nkd", s.whiteners, z[:, None] - s.heads.means[None])
        score = -0.5 * jnp.sum(white**2, -1) - s.determinants[None]
    return jax.nn.softmax(score + jnp.log(s.priors)[None], -1)


def _of_class(array: jax.Array, k: jax.Array) -> jax.Array:
    """Of an array of one common or one a class, those of classes k."""
    return array[jnp.minimum(k, len(array) - 1)]


def points(u: jax.Array, s: Setting, sigma: jax.Array) -> Points:
    """Points about the boundary, 2 n of them from n lines, for the noise of rows (K,).

    Args:
        u: (n, d + 4) in the open unit cube: class, features, rival, component, offset.
    """
    n, K, rows = len(u), len(sigma), jnp.arange(len(u))
    W, bias = s.heads.weights, s.heads.bias
    own = jnp.minimum(jnp.searchsorted(jnp.cumsum(s.priors), u[:, 0] * jnp.sum(s.priors)), K - 1)
    rival = jax.vmap(choose)(s.shares[own], u[:, -3][:, None])[:, 0]
    length = s.lengths[own, rival]
    gram = functools.partial(_gram_rows, s.heads.grams, own)
    plain = s.heads.means[own] + jnp.einsum("nde,ne->nd", _of_class(s.heads.factors, own), ndtri(u[:, 1:-3]))
    at_plain = plain @ W.T + bias[None]
    tilts = _of_class(s.heads.tilts, own)
    along = (tilts[rows, own] - tilts[rows, rival]) / length[:, None]
    slope = (gram(own) - gram(rival)) / length[:, None]
    position = jnp.sum((W[own] - W[rival]) * (plain - s.heads.means[own]), 1) / length
    z, start = plain - along * position[:, None], at_plain - slope * position[:, None]
    power = [jnp.sum(a * b, 1) for a, b in ((z, z), (z, along), (along, along))]

    def share(first, second):
        """Of this line among those of all directions that meet the boundary of the two classes, over its probability (n,)."""
        normal = gram(first) - gram(second)
        cosine = (normal[rows, own][:, None] - normal) / jnp.where(s.lengths[own] > 0, s.lengths[own], jnp.inf)
        total = jnp.sum(s.shares[own] * cosine**2, 1)
        return jnp.where(total > 0, cosine[rows, rival] ** 2 / jnp.where(total > 0, total, 1.0), 1.0)

    found = _walk(start.T, slope.T) + [(-at, *rest) for at, *rest in _walk(start.T, -slope.T)]
    at, rate, first, second, live = (jnp.stack(x, 1) for x in zip(*found, strict=True))
    norm2 = power[0][:, None] + 2 * at * power[1][:, None] + at**2 * power[2][:, None]
    deviation2 = norm2 * (sigma[first] ** 2 + sigma[second] ** 2)
    met = jnp.stack([share(first[:, i], second[:, i]) for i in range(at.shape[1])], 1)
    flips = jnp.where(live, jnp.exp(-0.5 * at**2) * jnp.sqrt(deviation2) / rate * met, 0.0)  # to first order
    losses = flips * jnp.sqrt(deviation2)  # of Bayes rules; of others as the flips, before most of it cancels
    parts = (1 - ANYWHERE) * (_shares(losses) + _shares(flips)) / 2
    parts = jnp.concatenate([1 - jnp.sum(parts, 1, keepdims=True), parts], 1)
    centres = jnp.concatenate([jnp.zeros((n, 1)), at], 1)
    widths = jnp.concatenate([jnp.ones((n, 1)), jnp.minimum(WIDE * jnp.sqrt(deviation2) / rate, 1.0)], 1)
    chosen = jnp.minimum(jnp.sum(jnp.cumsum(parts, 1) < u[:, -2:-1], 1), parts.shape[1] - 1)
    offset = widths[rows, chosen] * ndtri(u[:, -1])

    def about(tau) -> Points:
        density = jnp.sum(parts * jnp.exp(-0.5 * ((tau[:, None] - centres) / widths) ** 2) / widths, 1)
        features, logits = z + tau[:, None] * along, start + tau[:, None] * slope
        top = jnp.argmax(logits, 1)
        second = jnp.argmax(jnp.where(jnp.arange(K)[None] == top[:, None], -jnp.inf, logits), 1)
        weights = jnp.exp(-0.5 * tau**2) / density * share(top, second)
        return Points(features, logits, posterior(features, s), top, weights)

    pair = about(centres[rows, chosen] + offset), about(centres[rows, chosen] - offset)
    return Points(*(jnp.concatenate(x) for x in zip(*pair, strict=True)))


def _shares(x: jax.Array) -> jax.Array:
    """Rows x over their sums, or 0."""
    total = jnp.sum(x, 1, keepdims=True)
    return jnp.where(total > 0, x / jnp.where(total > 0, total, 1.0), 0.0)


def _gram_rows(grams: jax.Array, own: jax.Array, k: jax.Array) -> jax.Array:
    return grams[0][k] if len(grams) == 1 else grams[own, k]


def _walk(start: jax.Array, slope: jax.Array) -> list[tuple[jax.Array, ...]]:
    """Of lines of logits start + slope tau (K, n), the first CROSSINGS of the clean decision from tau = 0 up: position,
    difference of the slopes, the classes before and after, and whether there is one, each (n,)."""
    classes = jnp.arange(len(start))[:, None]

    def of(array, k):
        return jnp.take_along_axis(array, k[None], 0)

    def first(chosen):
        """The first class chosen; plain reductions, where argmin is several times as slow."""
        return jnp.min(jnp.where(chosen, classes, len(classes) - 1), 0)

    top, at, found = first(start == jnp.max(start, 0, keepdims=True)), jnp.zeros(start.shape[1]), []
    for _ in range(CROSSINGS):
        rate = slope - of(slope, top)
        crosses = (rate > PARALLEL * jnp.abs(slope)) & (classes != top[None])
        after = jnp.where(crosses, (of(start, top) - start) / jnp.where(crosses, rate, 1.0), jnp.inf)
        after = jnp.maximum(after, at[None])
        there = jnp.min(after, 0)
        following = first(after == there[None])
        live = there < REACH
        found.append((jnp.where(live, there, REACH), jnp.where(live, of(rate, following)[0], 1.0), top, following, live))
        top, at = jnp.where(live, following, top), jnp.where(live, there, at)
    return found


def characteristic(z: jax.Array, orders: int) -> jax.Array:
    """(orders, n) coefficients of ``noisy_logit`` in :mod:`derivations.multiclass` for the noise of one logit at features
    (n, d), in deviations of that noise, half the period HALF: products of sin(m a_i)/(m a_i)."""
    a = jnp.maximum(jnp.pi / HALF * np.sqrt(3) * jnp.abs(z) / jnp.linalg.norm(z, axis=1, keepdims=True), 1e-9)
    return jnp.stack([jnp.prod(jnp.sin(m * a) / (m * a), 1) for m in range(1, orders + 1)])


def support(z: jax.Array) -> jax.Array:
    """(n,) deviations beyond which the noise of a logit at features (n, d) never is, or is not looked at."""
    return jnp.minimum(np.sqrt(3) * jnp.sum(jnp.abs(z), 1) / jnp.linalg.norm(z, axis=1), HALF)


def noise_law(xi: jax.Array, coefficients: jax.Array, reach: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distribution function and density at xi (..., n), in deviations of the noise, single precision, for coefficients
    (orders, n): within the reach (n,) the series of ``noisy_logit``, summed by Clenshaw's recurrence."""
    angle = jnp.clip(xi, -HALF, HALF) * np.float32(np.pi / HALF)
    square = (angle / 4) ** 2  # sine and cosine of the fourth part, doubled twice: a tenth of the time of XLA's
    sine = angle / 4 * (1 - square / 6 * (1 - square / 20 * (1 - square / 42 * (1 - square / 72))))
    cosine = 1 - square / 2 * (1 - square / 12 * (1 - square / 30 * (1 - square / 56 * (1 - square / 90))))
    for _ in range(2):
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine**2
    sines, cosines = ((jnp.zeros_like(angle),) * 2 for _ in range(2))
    for m in range(len(coefficients), 0, -1):
        coefficient = jnp.expand_dims(coefficients[m - 1], range(xi.ndim - 1))
        sines = coefficient / np.float32(m * np.pi) + 2 * cosine * sines[0] - sines[1], sines[0]
        cosines = coefficient / np.float32(HALF) + 2 * cosine * cosines[0] - cosines[1], cosines[0]
    below, density = 0.5 + angle / np.float32(2 * np.pi) + sine * sines[0], 0.5 / HALF + cosine * cosines[0] - cosines[1]
    reach = jnp.expand_dims(reach, range(xi.ndim - 1))
    inside = jnp.abs(xi) < reach  # the finite series is not constant beyond
    return jnp.where(inside, below, (xi > 0).astype(below.dtype)), jnp.where(inside, density, 0.0)


def decided(logits, norms, sigma, coefficients, reach, *, nodes: int) -> tuple[jax.Array, jax.Array]:
    """(n, K) probabilities that each noisy logit is the largest, and how much (n,) their sum missed 1 before it was made 1.

    Args:
        logits: (n, K). norms: (n,) |z|. sigma: (n, K) deviations of an entry of each row's error.
        coefficients: (orders, n) as :func:`characteristic` gives them. reach: (n,) as :func:`support` does.
        nodes: of the trapezoid rule.

    The largest logit is integrated over; that of class k has the density f_k prod_{j != k} F_j. In single precision from
    differences of the logits: an error of P of 1e-6. Points lie along the minor axis.
    """
    deviation, gap = (sigma * norms[:, None]).T, (logits - jnp.max(logits, 1, keepdims=True)).T
    low, high = jnp.max(gap - BELOW * deviation, 0), jnp.max(gap + ABOVE * deviation, 0)
    single = (gap, deviation, low, high, coefficients, reach)
    gap, deviation, low, high, coefficients, reach = (x.astype(jnp.float32) for x in single)
    spacing = (high - low) / (nodes - 1)
    x = low[None] + spacing[None] * jnp.arange(nodes, dtype=jnp.float32)[:, None]
    law = noise_law((x[:, None] - gap[None]) / deviation[None], coefficients, reach)
    below, density = jax.lax.optimization_barrier(law)  # else XLA computes it once for each use
    below = jnp.maximum(below, 1e-12)
    each = jnp.sum(jnp.prod(below, 1)[:, None] * (density / below), 0) / deviation * spacing[None]
    each = each.T.astype(logits.dtype)
    total = jnp.sum(each, 1)
    return each / total[:, None], jnp.abs(total - 1)


@functools.partial(jax.jit, static_argnames=("near", "nodes", "orders"))
def _averages(u, s: Setting, sigma, *, near: int, nodes: int, orders: int):
    """Sums over the blocks of lines u (blocks, n, d + 4) of what :class:`Averages` holds, at each point ``near`` classes taken
    as ones that may be decided."""
    sums = jax.lax.map(lambda some: _sums(some, s, sigma, near=near, nodes=nodes, orders=orders), u)
    return jax.tree.map(lambda x: jnp.sum(x, 0), sums)


def _sums(u, s: Setting, sigma, *, near: int, nodes: int, orders: int):
    """Over the lines u (n, d + 4)."""
    at = points(u, s, sigma)
    K, rows = len(sigma), jnp.arange(len(at.z))
    norms, coefficients = jnp.linalg.norm(at.z, axis=1), characteristic(at.z, orders)
    top_logit = at.logits[rows, at.top]
    lag = (top_logit[:, None] - at.logits) / (jnp.sqrt(sigma[None] ** 2 + sigma[at.top][:, None] ** 2) * norms[:, None])
    worth = jnp.abs(at.posterior[rows, at.top][:, None] - at.posterior)
    left = jnp.zeros_like(lag)
    if near < K:
        classes = jax.lax.top_k(-lag.astype(jnp.float32), near)[1].astype(at.top.dtype)
        kept = jnp.zeros(lag.shape, bool).at[rows[:, None], classes].set(True)
        left = jnp.where(kept, 0.0, Phi(-lag.astype(jnp.float32)).astype(lag.dtype))
    else:
        classes = jnp.broadcast_to(jnp.arange(K), lag.shape)
    some = functools.partial(jnp.take_along_axis, indices=classes, axis=1)
    P, missed = decided(some(at.logits), norms, sigma[classes], coefficients, support(at.z), nodes=nodes)
    eta, chosen, weights = some(at.posterior), classes == at.top[:, None], at.weights[:, None] / 2
    stays = jnp.sum(jnp.where(chosen, P, 0.0), 1, keepdims=True)
    # the terms that follow are about as large as the last two, one of which may be 0; of a decision that the noise can't change
    # nothing is missed
    rest = 4 * jnp.max(jnp.abs(coefficients[-2:]), 0) / (np.pi * orders)
    missed = jnp.where(stays[:, 0] < 1, 2 * missed + rest, 0.0)
    dearest = jnp.max(jnp.where(P > 0, some(worth), 0.0), 1)
    neglected = jnp.sum(left * worth, 1) + missed * dearest, jnp.sum(left, 1) + missed

    def by_class(values):
        return jnp.zeros(K).at[classes].add(weights * values)

    flips = jnp.einsum("nk,n->k", at.posterior, weights[:, 0] * (1 - stays[:, 0]))
    sums = by_class(eta * jnp.where(chosen, 1 - P, -P)), flips, by_class(eta * jnp.where(chosen, 1 - P, P))
    return *sums, jnp.stack([jnp.sum(weights[:, 0] * x) for x in neglected])


@jax.jit
def _networks(u, s: Setting, sigma, E):
    """(2, pairs): sums over the blocks of lines u (blocks, n, d + 4) of the loss by the layers W + E and W - E, E (pairs, K, d)
    in single precision."""

    def block(some):
        at = points(some, s, sigma)
        rows = jnp.arange(len(at.z))
        noise = jnp.einsum("mkd,nd->mnk", E, at.z.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
        gap = (at.logits - at.logits[rows, at.top][:, None]).astype(jnp.float32)

        def loss(noisy):
            after = jnp.argmax(noisy, -1)
            kept = jnp.take_along_axis(at.posterior[None], after[..., None], 2)[..., 0]
            return jnp.sum((at.weights / 2)[None] * (at.posterior[rows, at.top][None] - kept), 1)

        return jnp.stack([loss(gap[None] + noise), loss(gap[None] - noise)])

    return jnp.sum(jax.lax.map(block, u), 0)


def averages(problem: Problem, steps: np.ndarray, *, enough: float = 0.0, seed: int, budget: Budget = DEFAULT) -> Averages:
    """Of random layers W + E, E independent and uniform in +-steps/2 (K,), over points drawn until the distortion is known to
    the budget's precision or to the error that is ``enough``, or the work done.

    Kind: exact up to the reported error. Assumes features Gaussian given the class.
    """
    (K, d), s, sigma = problem.weights.shape, setting_of(problem), steps / np.sqrt(12)
    finer = 1 if d >= FEW_FEATURES else 2
    ratio = sigma.max() / sigma.min()
    spacing = SPACING / finer * (WIDER if ratio > 2 else 1.0)
    nodes = int(min(MOST_NODES, np.ceil((BELOW + ABOVE) * ratio / spacing) + 1))
    near = _near(problem, sigma, seed)
    given, static = (s, jnp.asarray(sigma)), dict(near=near, nodes=nodes, orders=ORDERS * finer)
    own = 0.0 if problem.shared else 0.3 * K * d**2
    cost = 8e3 + 60 * K + K * d / 2 + 1.2 * nodes * near * ORDERS * finer + own  # operations a line
    most = int(2 ** np.clip(np.floor(np.log2(budget.boundary_work / cost / SCRAMBLINGS)), np.log2(FEW), 20))
    sources = [sobol(d + 4, rng=np.random.default_rng([seed, 11, r])) for r in range(SCRAMBLINGS)]

    @in_float64  # a switch of each thread
    def more(source: Any, n: int) -> list[np.ndarray]:
        blocks, parts = min(BLOCKS, n // LINES), []
        for _ in range(n // LINES // blocks):
            parts.append([np.asarray(x) for x in _averages(_drawn(source, blocks), *given, **static)])
        return [np.asarray(np.sum(x, 0)) for x in zip(*parts, strict=True)]

    total, n = None, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while True:
            new = max(FEW, n)
            found = [np.array(x) for x in zip(*pool.map(more, sources, [new] * SCRAMBLINGS), strict=True)]
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
            n += new
            loss = estimate(total[0].sum(1) / n)
            if n >= most or loss.error <= max(enough, budget.average_precision * abs(float(loss.value))):
                return Averages(*(x / n for x in total))


def _drawn(source: Any, blocks: int) -> jax.Array:
    """(blocks, LINES, dimensions) further points."""
    u = moved(jnp.asarray(source.random(blocks * LINES)), jnp.zeros((1, source.d)))
    return u.reshape(blocks, LINES, source.d)


def _near(problem: Problem, sigma: np.ndarray, seed: int) -> int:
    """Classes to keep at a point: as many as the noise may decide at nearly all of 512 features, or all."""
    rng, K = np.random.default_rng([seed, 12]), problem.classes
    labels = rng.choice(K, 512, p=problem.priors)
    roots = np.linalg.cholesky(problem.covariances[None] if problem.shared else problem.covariances)
    normals = rng.standard_normal((len(labels), problem.features))
    z = problem.means[labels] + np.einsum("nde,ne->nd", roots[np.minimum(labels, len(roots) - 1)], normals)
    logits = z @ problem.weights.T + problem.bias
    top = logits.argmax(1)
    lag = logits.max(1, keepdims=True) - logits
    within = lag < NEAR * np.linalg.norm(z, axis=1)[:, None] * np.sqrt(sigma**2 + sigma[top][:, None] ** 2)
    wanted = np.quantile(within.sum(1), 0.99)
    return next((some for some in FAR if wanted <= some < K), K)


def networks(problem: Problem, steps: np.ndarray, *, seed: int, budget: Budget = DEFAULT) -> np.ndarray:
    """(2, 2 PAIRS) distortions of networks W + E, W - E, each seen on two independent sets of lines."""
    (K, d), s, sigma = problem.weights.shape, setting_of(problem), steps / np.sqrt(12)
    E = (np.random.default_rng([seed, 13]).random((PAIRS, K, d), np.float32) - 0.5) * steps.astype(np.float32)[:, None]

    @in_float64
    def one_set(r: int) -> np.ndarray:
        source = sobol(d + 4, rng=np.random.default_rng([seed, 14, r]))
        total = _networks(_drawn(source, budget.spread_lines // LINES), s, jnp.asarray(sigma), jnp.asarray(E))
        return np.asarray(total).reshape(-1) / budget.spread_lines

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.array(list(pool.map(one_set, range(2))))
