"""Sequential conditional Monte Carlo of random layers: the contrasts a_k - a_j drawn one after the other, each given positive.

The weight of a draw is the product of the probabilities that each contrast is positive given those before it (the simulator
of Geweke, Hajivassiliou and Keane: Econometrica 66 (1998) 863, section 2). A layer W + E, its mirror W - E and the clean one
share every uniform number, so the weights change smoothly with E, their second difference is averaged, and its variance falls
like the square of the distortion: what counting and lines can't give at many bits. Plain random numbers; the pairs are the
independent units. For layers of no more classes than features + 1, whose contrasts are linearly independent. Checked against
counting and lines (tests).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from simulate.sampling.blocks import block_sums
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

PAIRS = 16  # of networks a block
HIGHEST = jax.lax.Precision.HIGHEST


class Sequences(NamedTuple):
    """Sums over ``pairs`` pairs of networks W + E, W - E: right (K,) of the clean layer, shift (B, K) of the risk of each
    class, squares (B,) of a pair's prior-weighted distortion."""

    pairs: int
    right: np.ndarray
    shift: np.ndarray
    squares: np.ndarray

    def distortion(self, priors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected distortion (B,) and its standard error."""
        mean = self.shift @ priors / self.pairs
        return mean, np.sqrt(np.maximum(self.squares / self.pairs - mean**2, 0) / (self.pairs - 1))


@in_float64
def average_sequences(
    problem: Problem, steps: np.ndarray, *, seed: int, first: int, last: int, points: int = 32, onto: Sequences | None = None
) -> Sequences:
    """Blocks ``first`` .. ``last - 1`` of PAIRS pairs, for the steps (B, K), with ``points`` draws a pair and class."""
    K = problem.classes
    covariances = problem.covariances[None] if problem.shared else problem.covariances
    arrays = (problem.weights, problem.bias, problem.means, covariances, _order(problem), problem.priors, np.asarray(steps))
    total = onto or Sequences(0, np.zeros(K), np.zeros((len(steps), K)), np.zeros(len(steps)))
    found = block_sums(_block, arrays, seed=seed, first=first, last=last, chunk=8, what="sequences", points=points)
    for right, shift, squares in found:
        for parts in zip(right, shift, squares, strict=True):  # in the order of the blocks
            sums = (old + new for old, new in zip(total[1:], parts, strict=True))
            total = Sequences(total.pairs + PAIRS, *sums)
    return total


def _order(problem: Problem) -> np.ndarray:
    """(K, K - 1) rivals of each class, the likeliest to beat it in the clean layer first."""
    K, W = problem.classes, problem.weights
    order = np.zeros((K, K - 1), int)
    for k in range(K):
        contrast = W[k] - W
        lead = contrast @ problem.means[k] + problem.bias[k] - problem.bias
        sd = np.sqrt(np.einsum("jd,de,je->j", contrast, problem.covariance(k), contrast))
        ranked = np.argsort(lead / np.maximum(sd, 1e-300))
        order[k] = ranked[ranked != k]
    return order


def _block(key, weights, bias, means, covariances, rivals, priors, steps, *, points: int):
    K, d = weights.shape
    one, two = jax.random.split(key)
    u = jax.random.uniform(one, (PAIRS, K, d), jnp.float64, -0.5, 0.5)

    def one_width(step):
        E = u * jnp.expand_dims(step, (0, 2))
        heads = jnp.concatenate([weights[None], weights[None] + E, weights[None] - E])  # (1 + 2 PAIRS, K, d)
        grams = _grams(heads, covariances[0]) if len(covariances) == 1 else None

        def one_class(total, inputs):
            k, mean, rival, prior = inputs
            gram = grams if grams is not None else _grams(heads, covariances[k])
            logits = jnp.einsum("hjd,d->hj", heads, mean, precision=HIGHEST) + bias[None]
            lead = logits[:, k][:, None] - logits[:, rival]
            cross = gram[:, k][:, rival]
            covariance = (
                gram[:, k, k][:, None, None] - cross[:, :, None] - cross[:, None, :] + gram[:, rival[:, None], rival[None, :]]
            )
            L = jnp.linalg.cholesky(covariance)
            v = jax.random.uniform(jax.random.fold_in(two, k), (K - 1, PAIRS, points), jnp.float64, 1e-12, 1)
            every = [_weights(lead[part], L[part], v) for part in (slice(0, 1), slice(1, 1 + PAIRS), slice(1 + PAIRS, None))]
            clean, plus, minus = (jnp.mean(x, 1) for x in every)
            shift = clean - (plus + minus) / 2
            return total + prior * shift, (jnp.sum(clean), jnp.sum(shift))

        inputs = (jnp.arange(K), means, rivals, priors)
        total, (right, shift) = jax.lax.scan(one_class, jnp.zeros(PAIRS), inputs)
        return right, shift, jnp.sum(total**2)

    right, shift, squares = jax.lax.map(one_width, steps)
    return right[0], shift, squares


def _grams(heads, covariance):
    return jnp.einsum("hid,hjd->hij", jnp.matmul(heads, covariance, precision=HIGHEST), heads, precision=HIGHEST)


def _weights(lead, L, v):
    """Weights (PAIRS, points) of the draws v (K - 1, PAIRS, points) for leads (PAIRS or 1, K - 1) and their factors."""

    def step(i, carry):
        weight, drawn = carry
        centre = jnp.expand_dims(lead[:, i], 1) + jnp.einsum("pj,jpn->pn", jnp.broadcast_to(L[:, i], (PAIRS, len(v))), drawn)
        chance = 0.5 * jax.scipy.special.erfc(-centre / (jnp.sqrt(2.0) * L[:, i, i][:, None]))
        w = -ndtri(jnp.maximum(v[i] * chance, 1e-300))
        return weight * chance, drawn.at[i].set(w)

    return jax.lax.fori_loop(0, len(v), step, (jnp.ones(v.shape[1:]), jnp.zeros_like(v)))[0]
