"""Paired Monte Carlo over random layers W + E, E independent and uniform in +-step/2: networks drawn, decisions counted."""

import jax
import jax.numpy as jnp
import numpy as np

from simulate.blocks import BLOCK, CHUNK, block_sums
from simulate.mixtures import Mixtures, drawn, mixtures_of
from simulate.sampler import HIGHEST, Tally, decisions, factor, nothing, tally_classes
from theory.setting.problem import Problem


def count_networks(
    problem: Problem,
    steps: np.ndarray,
    *,
    each: int,
    seed: int,
    first: int,
    last: int,
    chunk: int = CHUNK,
    onto: Tally | None = None,
) -> Tally:
    """Count blocks of samples through random layers W + E, E independent and uniform in +-step/2.

    A block is max(1, BLOCK // each) networks with ``each`` samples; the networks are the independent units. With two Gaussian
    classes the clean and the noisy margin are bivariate normal given E, so a sample needs two normals whatever d.

    Args:
        problem: K classes. steps: (B, rows) steps of B widths; the widths share the uniforms.
        seed, first, last, chunk, onto: as :func:`simulate.sampler.count_known`.
    """
    if problem.components is not None:
        law = mixtures_of(problem, np.eye(problem.features))
        block, arrays = _mixture_block, (law, problem.weights, problem.bias, steps, problem.priors)
    elif problem.classes > 2:
        factors = [factor(one) for one in (problem.covariances[None] if problem.shared else problem.covariances)]
        block, arrays = _many_block, (problem.weights, problem.bias, problem.means, np.stack(factors), steps, problem.priors)
    else:
        w = problem.weights[-1] - (problem.weights[0] if len(problem.weights) == 2 else 0)
        c = problem.bias[-1] - (problem.bias[0] if len(problem.bias) == 2 else 0)
        covariances = np.broadcast_to(problem.covariances, (2, *problem.covariances.shape[-2:]))
        s = np.sqrt(np.maximum(np.einsum("i,kij,j->k", w, covariances, w), 0))
        block, arrays = _binary_block, (w, problem.means, covariances, problem.means @ w + c, s, steps, problem.priors)
    arrays = jax.tree.map(lambda x: x if x.dtype == np.int32 else np.asarray(x, np.float32), arrays)
    tally = nothing(len(steps), problem.classes) if onto is None else onto
    networks = max(1, BLOCK // each)
    found = block_sums(block, arrays, seed=seed, first=first, last=last, chunk=chunk, what="sampling", each=each)
    for counts, squares in found:
        units = networks * len(squares)
        tally = tally.more(units * each, units, counts, squares)
    return tally


def _squares(y: jax.Array, f: jax.Array, networks: int):
    """(layers, 3): sums over networks of the squared means of y and f, over samples of the squares of y."""
    means = [jnp.mean(x.reshape(len(x), networks, -1), -1) for x in (y, f)]
    return jnp.stack([*(jnp.sum(mean**2, -1) for mean in means), jnp.sum(y * y, -1)], -1)


def _binary_block(key, w, means, covariances, m, s, steps, priors, *, each: int):
    networks, (layers, rows), d = max(1, BLOCK // each), steps.shape, len(w)
    one, two = jax.random.split(key)
    u = jax.random.uniform(one, (rows, networks, d), jnp.float32, -0.5, 0.5)
    g = jax.random.normal(two, (2, networks, each), jnp.float32)
    sign = jnp.asarray([-1.0, 1.0] if rows == 2 else [1.0], jnp.float32)
    c = steps * jnp.expand_dims(sign, 0)  # (layers, rows): e = sum over rows of c u

    def decide_class(own):
        mean, S, m, s = own
        image = jnp.matmul(u, S, precision=HIGHEST)
        gram = jnp.einsum("anj,bnj->abn", image, u, precision=HIGHEST)
        a = jnp.einsum("la,anj,j->ln", c, u, mean, precision=HIGHEST)
        q = jnp.einsum("la,anj,j->ln", c, image, w, precision=HIGHEST)
        r = jnp.einsum("la,lb,abn->ln", c, c, gram, precision=HIGHEST)
        slope = q / jnp.where(s > 0, s, 1.0)  # a constant margin stays what it is
        rest = jnp.sqrt(jnp.maximum(r - slope**2, 0))
        t = m + s * g[:1]  # (1, networks, each)
        x = jnp.expand_dims(a, -1) + jnp.expand_dims(slope, -1) * g[:1] + jnp.expand_dims(rest, -1) * g[1:]
        return decisions(t.reshape(1, -1)), decisions((t + x).reshape(1, layers, -1))

    counts, y, f = tally_classes(decide_class, (means, covariances, m, s), priors, (layers, networks * each))
    return counts, _squares(y, f, networks)


def _many_block(key, weights, bias, means, factors, steps, priors, *, each: int):
    """More than two classes, in the full feature space: z = mu + L g, E z by the drawn E itself."""
    (K, d), networks, layers = weights.shape, max(1, BLOCK // each), len(steps)
    one, two = jax.random.split(key)
    u = jax.random.uniform(one, (networks, K, d), jnp.float32, -0.5, 0.5)
    g = jax.random.normal(two, (d, networks * each), jnp.float32)
    common = jnp.matmul(factors[0], g, precision=HIGHEST) if len(factors) == 1 else None

    def decide_class(own):
        mean, L = own
        z = jnp.expand_dims(mean, 1) + (jnp.matmul(L, g, precision=HIGHEST) if common is None else common)
        return _decided(z, weights, bias, steps, u)

    each_class = factors if common is None else jnp.zeros((len(means), 0))
    counts, y, f = tally_classes(decide_class, (means, each_class), priors, (layers, networks * each))
    return counts, _squares(y, f, networks)


def _mixture_block(key, law: Mixtures, weights, bias, steps, priors, *, each: int):
    """Classes that are mixtures, in the full feature space."""
    (rows, d), networks = weights.shape, max(1, BLOCK // each)
    one, two, three = jax.random.split(key, 3)
    u = jax.random.uniform(one, (networks, rows, d), jnp.float32, -0.5, 0.5)
    g = jax.random.normal(two, (law.factors.shape[-1], networks * each), jnp.float32)
    pick = jax.random.uniform(three, (networks * each,), jnp.float32)

    def decide_class(own: Mixtures):
        return _decided(drawn(own, pick, g), weights, bias, steps, u)

    counts, y, f = tally_classes(decide_class, law, priors, (len(steps), networks * each))
    return counts, _squares(y, f, networks)


def _decided(z, weights, bias, steps, u):
    """Decisions of the clean layer (n,) and of layers with errors steps u (layers, n) on features z (d, n), n networks by
    samples; u (networks, rows, d)."""
    clean = jnp.matmul(weights, z, precision=HIGHEST) + jnp.expand_dims(bias, 1)
    noise = jnp.einsum("njd,dns->jns", u, z.reshape(len(z), len(u), -1), precision=HIGHEST).reshape(len(weights), -1)
    shift = jnp.expand_dims(steps.T, 2) * jnp.expand_dims(noise, 1)  # (rows, layers, n)
    return decisions(clean), decisions(jnp.expand_dims(clean, 1) + shift)
