"""Importance sampling of random layers: features near the decision boundary, labels averaged, decisions counted.

Given z a changed decision from class i to class j costs P(label i | z) - P(label j | z), known for Gaussian classes; so labels
need not be drawn, and of Bayes rules every change costs something. Features come on lines as in
:mod:`simulate.sampling.conditional_lines`, in pairs about a crossing of the clean decision, their distance from it a few
deviations of the logit noise; each weighs its own density over the one it was drawn from. The boundary between i and j is met
by lines of all directions of a class: the weights of these directions add up to 1, and are in proportion to the squared
cosine between line and normal of the boundary. Layers are pairs W + E, W - E with E uniform, each seen by GROUP lines, which
are one independent unit. Where classes are more than features + 1 nothing else here knows eight bits to a per cent. Checked
against counted networks at two to six bits (tests).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simulate.sampling.blocks import block_sums
from simulate.sampling.conditional_lines import line_directions
from simulate.sampling.paired_counting import factor
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

GROUPS, GROUP = 8, 32  # independent pairs of networks a block, lines of each
CROSSINGS, REACH = 12, 6.5  # of the clean decision on a line, and up to how many deviations from its middle they are looked for
EVERYWHERE = 0.1  # share of the features drawn from the whole line
HIGHEST = jax.lax.Precision.HIGHEST


class Boundary(NamedTuple):
    """Sums over ``groups`` groups of the mean risk change and flip rate of each, for B widths: ``distortion`` and ``flips``
    (B,), ``squares`` (B, 2) of both."""

    groups: int
    distortion: np.ndarray
    flips: np.ndarray
    squares: np.ndarray

    def estimates(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected distortion and flip rate (B, 2) and their standard errors (B, 2)."""
        mean = np.stack([self.distortion, self.flips], 1) / self.groups
        return mean, np.sqrt(np.maximum(self.squares / self.groups - mean**2, 0) / (self.groups - 1))


@in_float64
def average_boundary(
    problem: Problem, steps: np.ndarray, *, seed: int, first: int, last: int, onto: Boundary | None = None
) -> Boundary:
    """Blocks ``first`` .. ``last - 1`` of GROUPS pairs of networks with GROUP lines each, for the steps (B, K).

    For more than two classes, all with regular covariances.
    """
    factors = np.stack([factor(one) for one in (problem.covariances[None] if problem.shared else problem.covariances)])
    directions, shares = line_directions(problem, problem.weights, problem.bias, list(factors))
    weights = problem.weights - problem.weights.mean(0)
    # of each row along each direction of each class (K, K, K)
    along = np.stack([weights @ factors[min(k, len(factors) - 1)] @ one.T for k, one in enumerate(directions)])
    arrays = (
        weights,
        problem.bias,
        problem.means,
        problem.priors,
        factors,
        np.linalg.inv(factors),
        directions,
        np.diff(shares, axis=1, prepend=0.0),
        along,
        np.asarray(steps),
    )
    B = len(steps)
    total = onto or Boundary(0, np.zeros(B), np.zeros(B), np.zeros((B, 2)))
    for chunk in block_sums(_block, arrays, seed=seed, first=first, last=last, what="boundary"):
        for one in zip(*chunk, strict=True):  # in the order of the blocks
            total = Boundary(total.groups + GROUPS, *(a + b for a, b in zip(total[1:], one, strict=True)))
    return total


def _block(key, weights, bias, means, priors, factors, inverses, directions, shares, along, steps):
    (K, d), n = weights.shape, GROUPS * GROUP
    keys = jax.random.split(key, 6)
    rows, classes = jnp.arange(n), jnp.arange(K)
    k = jax.random.choice(keys[0], K, (n,), p=priors)
    rival = jax.random.categorical(keys[1], jnp.log(shares[k]))
    of = jnp.minimum(k, len(factors) - 1)
    v = directions[k, rival]
    g = jax.random.normal(keys[2], (n, d), jnp.float64)
    g = g - jnp.sum(g * v, 1)[:, None] * v
    z = means[k] + jnp.einsum("nde,ne->nd", factors[of], g)
    s = jnp.einsum("nde,ne->nd", factors[of], v)
    start, slope = jnp.matmul(z, weights.T, precision=HIGHEST) + bias[None], jnp.matmul(s, weights.T, precision=HIGHEST)
    u = jax.random.uniform(keys[3], (GROUPS, K, d), jnp.float32, -0.5, 0.5)
    off, tilt = (
        jnp.einsum("gkd,gnd->gnk", u, x.reshape(GROUPS, GROUP, d).astype(jnp.float32), precision=HIGHEST).reshape(n, K)
        for x in (z, s)
    )
    off, tilt = off.astype(jnp.float64), tilt.astype(jnp.float64)

    def log_posterior(x):
        if len(factors) == 1:
            squares = jnp.sum((jnp.matmul(x, inverses[0].T)[:, None] - jnp.matmul(means, inverses[0].T)[None]) ** 2, -1)
            return jax.nn.log_softmax(jnp.log(priors)[None] - squares / 2, 1)
        squares = jnp.sum(jnp.einsum("kde,nke->nkd", inverses, x[:, None] - means[None]) ** 2, -1)
        return jax.nn.log_softmax((jnp.log(priors) + jnp.linalg.slogdet(inverses)[1])[None] - squares / 2, 1)

    def weight_of_direction(i, j):
        cosines2 = (along[k, i] - along[k, j]) ** 2  # up to the length of the normal
        return cosines2[rows, rival] / jnp.sum(shares[k] * cosines2, 1)

    def crossing(carry, _):
        t, top = carry
        gain = slope - slope[rows, top][:, None]
        where = (start[rows, top][:, None] - start) / jnp.where(gain > 1e-12, gain, 1.0)
        where = jnp.where((gain > 1e-12) & (classes[None] != top[:, None]), jnp.maximum(where, t[:, None]), jnp.inf)
        then = jnp.argmin(where, 1)
        at = where[rows, then]
        there = at < REACH
        row = jnp.where(there, at, 0.0), jnp.where(there, gain[rows, then], 0.0), top, then
        return (jnp.where(there, at, t), jnp.where(there, then, top)), row

    begin = jnp.full(n, -REACH), jnp.argmax(start - REACH * slope, 1)
    _, (at, gain, i, j) = jax.lax.scan(crossing, begin, None, length=CROSSINGS)  # (CROSSINGS, n)
    live = gain > 0
    directed = jax.vmap(weight_of_direction)(i, j)
    norm = jnp.linalg.norm(z[None] + at[..., None] * s[None], axis=-1)
    normal, choice = jax.random.normal(keys[4], (n,), jnp.float64), jax.random.uniform(keys[5], (n,), jnp.float64)

    def one_width(step):
        scale = norm * jnp.sqrt((step[i] ** 2 + step[j] ** 2) / 12) / jnp.where(live, gain, 1.0)
        sd = jnp.where(live, jnp.minimum(1.2 * scale, 1.0), 1.0)
        odds = jnp.where(live, jnp.exp(-0.5 * at**2) * directed * scale * jnp.sqrt(1 + (gain * scale / 0.1) ** 2), 0.0)
        total = jnp.sum(odds, 0, keepdims=True)
        odds = (1 - EVERYWHERE) * odds / jnp.where(total > 0, total, 1.0)
        odds = jnp.concatenate([1 - jnp.sum(odds, 0)[None], odds])
        middles = jnp.concatenate([jnp.zeros((1, n)), at])
        sds = jnp.concatenate([jnp.ones((1, n)), sd])
        chosen = jnp.minimum(jnp.sum(jnp.cumsum(odds, 0) < choice[None], 0), CROSSINGS)

        def point(sign):
            t = middles[chosen, rows] + sign * sds[chosen, rows] * normal
            density = jnp.sum(odds * jnp.exp(-0.5 * ((t[None] - middles) / sds) ** 2) / sds, 0)
            logits = start + t[:, None] * slope
            top = jnp.argmax(logits, 1)
            second = jnp.argmax(jnp.where(classes[None] == top[:, None], -jnp.inf, logits), 1)
            weight = jnp.exp(-0.5 * t**2) / density * weight_of_direction(top, second)
            posterior = jnp.exp(log_posterior(z + t[:, None] * s))
            noise = (off + t[:, None] * tilt) * step[None]
            after = [jnp.argmax(logits + side * noise, 1) for side in (1, -1)]
            lost = sum(posterior[rows, top] - posterior[rows, one] for one in after) / 2
            changed = sum((one != top).astype(jnp.float64) for one in after) / 2
            return weight * lost, weight * changed

        lost, changed = (sum(x) / 2 for x in zip(point(1), point(-1), strict=True))
        groups = jnp.stack([lost, changed]).reshape(2, GROUPS, GROUP).mean(2)
        return jnp.sum(groups, 1), jnp.sum(groups**2, 1)

    sums, squares = jax.lax.map(one_width, steps)
    return sums[:, 0], sums[:, 1], squares
