"""Paired Monte Carlo over random layers W + E, E uniform: networks drawn, decisions counted."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from simulate.sampling.blocks import BLOCK, CHUNK, block_sums
from simulate.sampling.mixtures import Mixtures, drawn, mixtures_of
from simulate.sampling.paired_counting import HIGHEST, Tally, decisions, factor, nothing, tally_classes
from theory.setting.error_law import UniformErrors
from theory.setting.problem import Problem


def count_networks(
    problem: Problem,
    errors: Sequence[UniformErrors],
    *,
    each: int,
    seed: int,
    first: int,
    last: int,
    chunk: int = CHUNK,
    onto: Tally | None = None,
) -> Tally:
    """Count blocks of samples through random layers W + E, E uniform.

    A block is max(1, BLOCK // each) networks with ``each`` samples; the networks are the independent units. With two Gaussian
    classes the clean and the noisy margin are bivariate normal given E, so a sample needs two normals whatever d.

    Args:
        problem: K classes. errors: of B widths, which share the uniforms and the rows that are tied.
        seed, first, last, chunk, onto: as :func:`simulate.sampling.paired_counting.count_known`.
    """
    wide, group = np.stack([one.wide for one in errors]), common_group(errors).astype(np.int32)
    if problem.components is not None:
        law = mixtures_of(problem, np.eye(problem.features))
        block, arrays = _mixture_block, (law, problem.weights, problem.bias, wide, group, problem.priors)
    elif problem.classes > 2:
        factors = [factor(one) for one in (problem.covariances[None] if problem.shared else problem.covariances)]
        block, arrays = (
            _many_block,
            (problem.weights, problem.bias, problem.means, np.stack(factors), wide, group, problem.priors),
        )
    else:
        w = problem.weights[-1] - (problem.weights[0] if len(problem.weights) == 2 else 0)
        c = problem.bias[-1] - (problem.bias[0] if len(problem.bias) == 2 else 0)
        covariances = np.broadcast_to(problem.covariances, (2, *problem.covariances.shape[-2:]))
        s = np.sqrt(np.maximum(np.einsum("i,kij,j->k", w, covariances, w), 0))
        block, arrays = _binary_block, (w, problem.means, covariances, problem.means @ w + c, s, wide, group, problem.priors)
    arrays = jax.tree.map(lambda x: x if x.dtype == np.int32 else np.asarray(x, np.float32), arrays)
    tally = nothing(len(errors), problem.classes) if onto is None else onto
    networks = max(1, BLOCK // each)
    found = block_sums(block, arrays, seed=seed, first=first, last=last, chunk=chunk, what="sampling", each=each)
    for counts, squares in found:
        units = networks * len(squares)
        tally = tally.more(units * each, units, counts, squares)
    return tally


def common_group(errors: Sequence[UniformErrors]) -> np.ndarray:
    """(rows,) the rows that are tied, the same for all widths."""
    assert all(np.array_equal(one.group, errors[0].group) for one in errors)  # the caller has put alike ones together
    return errors[0].group


def _squares(y: jax.Array, f: jax.Array, networks: int):
    """(layers, 3): sums over networks of the squared means of y and f, over samples of the squares of y."""
    means = [jnp.mean(x.reshape(len(x), networks, -1), -1) for x in (y, f)]
    return jnp.stack([*(jnp.sum(mean**2, -1) for mean in means), jnp.sum(y * y, -1)], -1)


def _binary_block(key, w, means, covariances, m, s, wide, group, priors, *, each: int):
    networks, (layers, rows, columns), d = max(1, BLOCK // each), wide.shape, len(w)
    one, two = jax.random.split(key)
    u = jax.random.uniform(one, (rows, networks, d), jnp.float32, -0.5, 0.5)[group]
    g = jax.random.normal(two, (2, networks, each), jnp.float32)
    sign = jnp.asarray([-1.0, 1.0] if rows == 2 else [1.0], jnp.float32)
    c = wide * sign[None, :, None]  # (layers, rows, columns): e = sum over rows of c u

    def decide_class(own):
        mean, S, m, s = own
        if columns == 1:
            image = jnp.matmul(u, S, precision=HIGHEST)
            gram = jnp.einsum("anj,bnj->abn", image, u, precision=HIGHEST)
            a = jnp.einsum("la,anj,j->ln", c[..., 0], u, mean, precision=HIGHEST)
            q = jnp.einsum("la,anj,j->ln", c[..., 0], image, w, precision=HIGHEST)
            r = jnp.einsum("la,lb,abn->ln", c[..., 0], c[..., 0], gram, precision=HIGHEST)
        else:
            e = jnp.einsum("laj,anj->lnj", c, u, precision=HIGHEST)
            image = jnp.matmul(e, S, precision=HIGHEST)
            a = jnp.matmul(e, mean, precision=HIGHEST)
            q = jnp.matmul(image, w, precision=HIGHEST)
            r = jnp.sum(image * e, -1)
        slope = q / jnp.where(s > 0, s, 1.0)  # a constant margin stays what it is
        rest = jnp.sqrt(jnp.maximum(r - slope**2, 0))
        t = m + s * g[:1]  # (1, networks, each)
        x = jnp.expand_dims(a, -1) + jnp.expand_dims(slope, -1) * g[:1] + jnp.expand_dims(rest, -1) * g[1:]
        return decisions(t.reshape(1, -1)), decisions((t + x).reshape(1, layers, -1))

    counts, y, f = tally_classes(decide_class, (means, covariances, m, s), priors, (layers, networks * each))
    return counts, _squares(y, f, networks)


def _many_block(key, weights, bias, means, factors, wide, group, priors, *, each: int):
    """More than two classes, in the full feature space: z = mu + L g, E z by the drawn E itself."""
    (K, d), networks, layers = weights.shape, max(1, BLOCK // each), len(wide)
    one, two = jax.random.split(key)
    u = jax.random.uniform(one, (networks, K, d), jnp.float32, -0.5, 0.5)[:, group]
    g = jax.random.normal(two, (d, networks * each), jnp.float32)
    common = jnp.matmul(factors[0], g, precision=HIGHEST) if len(factors) == 1 else None

    def decide_class(own):
        mean, L = own
        z = jnp.expand_dims(mean, 1) + (jnp.matmul(L, g, precision=HIGHEST) if common is None else common)
        return _decided(z, weights, bias, wide, u)

    each_class = factors if common is None else jnp.zeros((len(means), 0))
    counts, y, f = tally_classes(decide_class, (means, each_class), priors, (layers, networks * each))
    return counts, _squares(y, f, networks)


def _mixture_block(key, law: Mixtures, weights, bias, wide, group, priors, *, each: int):
    """Classes that are mixtures, in the full feature space."""
    (rows, d), networks = weights.shape, max(1, BLOCK // each)
    one, two, three = jax.random.split(key, 3)
    u = jax.random.uniform(one, (networks, rows, d), jnp.float32, -0.5, 0.5)[:, group]
    g = jax.random.normal(two, (law.factors.shape[-1], networks * each), jnp.float32)
    pick = jax.random.uniform(three, (networks * each,), jnp.float32)

    def decide_class(own: Mixtures):
        return _decided(drawn(own, pick, g), weights, bias, wide, u)

    counts, y, f = tally_classes(decide_class, law, priors, (len(wide), networks * each))
    return counts, _squares(y, f, networks)


def _decided(z, weights, bias, wide, u):
    """Decisions of the clean layer (n,) and of layers with errors wide u (layers, n) on features z (d, n), n networks by
    samples; wide (layers, rows, 1 or d), u (networks, rows, d)."""
    clean, by_network = jnp.matmul(weights, z, precision=HIGHEST) + jnp.expand_dims(bias, 1), z.reshape(len(z), len(u), -1)
    if wide.shape[-1] == 1:
        noise = jnp.einsum("njd,dns->jns", u, by_network, precision=HIGHEST).reshape(len(weights), -1)
        shift = jnp.expand_dims(wide[..., 0].T, 2) * jnp.expand_dims(noise, 1)  # (rows, layers, n)
    else:
        noise = jnp.einsum("ljd,njd,dns->jlns", wide, u, by_network, precision=HIGHEST)
        shift = noise.reshape(len(weights), len(wide), -1)
    return decisions(clean), decisions(jnp.expand_dims(clean, 1) + shift)
