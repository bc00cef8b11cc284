"""Dense networks of several layers, compressed or with random errors in all of them: decisions counted, nothing integrated out.

A block is one network on inputs of its own; all widths share its inputs and its uniform errors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from simulate.sampling.blocks import block_sums
from theory.setting.dense import DenseNetwork
from theory.setting.schemes import Compressed

CHUNK = 16  # blocks a compiled call


class Counts(NamedTuple):
    """Of blocks (N,) and widths (B,): labels by class (N, K), right decisions of the clean network (N, K) and of the others
    (N, B, K); right ones lost, wrong ones mended and decisions changed (N, B)."""

    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    made: np.ndarray
    mended: np.ndarray
    flips: np.ndarray

    def joined(self, other: "Counts | None") -> "Counts":
        return self if other is None else Counts(*(np.concatenate(pair) for pair in zip(other, self, strict=True)))


def count_dense(
    network: DenseNetwork,
    compressed: list[dict[str, Compressed]],
    *,
    random: bool,
    samples: int,
    seed: int,
    first: int,
    last: int,
) -> Counts:
    """Blocks ``first`` .. ``last - 1`` of so many samples, of networks whose tensors are compressed, one dictionary a width, or
    have ``random`` uniform errors in +-step/2."""
    law, layers = network.inputs, []
    for name, (weights, bias) in zip(network.names, network.layers, strict=True):
        changes = []
        for tensors in compressed:
            tensor = tensors.get(name)
            if tensor is None:
                changes.append(np.zeros(weights.shape))
            else:
                changes.append(np.broadcast_to(tensor.steps, weights.shape) if random else tensor.weights - weights)
        layers.append(tuple(np.asarray(x, np.float32) for x in (weights, bias, np.stack(changes))))
    factors = np.stack([np.linalg.cholesky(law.covariance(k)) for k in range(1 if law.shared else law.classes)])
    inputs = tuple(np.asarray(x, np.float32) for x in (np.cumsum(law.priors), law.means, factors))
    found = None
    options: dict = dict(samples=samples, random=random)
    for sums in block_sums(
        _block, (inputs, tuple(layers)), seed=seed, first=first, last=last, chunk=CHUNK, what="networks", **options
    ):
        found = Counts(*sums).joined(found)
    assert found is not None
    return found


def _block(key, inputs, layers, *, samples: int, random: bool):
    edges, means, factors = inputs
    keys = jax.random.split(key, 2 + len(layers))
    picked = jnp.searchsorted(edges, jax.random.uniform(keys[0], (samples,), jnp.float32), side="right")
    labels = jnp.minimum(picked, len(edges) - 1).astype(jnp.int32)
    g = jax.random.normal(keys[1], (samples, means.shape[1]), jnp.float32)
    if len(factors) == 1:
        x = means[labels] + _product(g, factors[0])
    else:
        x = means[labels] + jnp.einsum(
            "kij,nj,nk->ni", factors, g, jax.nn.one_hot(labels, len(edges), dtype=jnp.float32), precision="highest"
        )
    clean = x
    changed = jnp.broadcast_to(x, (layers[0][2].shape[0], *x.shape))
    for number, (weights, bias, change) in enumerate(layers):
        last = number + 1 == len(layers)
        if random:
            change = (jax.random.uniform(keys[2 + number], weights.shape, jnp.float32) - 0.5)[None] * change
        clean = _product(clean, weights) + bias[None]
        changed = jax.vmap(_product)(changed, weights[None] + change) + bias[None, None]
        if not last:
            clean, changed = jnp.maximum(clean, 0), jnp.maximum(changed, 0)
    before, after = clean.argmax(-1).astype(jnp.int32), changed.argmax(-1).astype(jnp.int32)  # (samples,), (B, samples)
    right, right_after = before == labels, after == labels[None]
    of_class = (labels[:, None] == jnp.arange(len(edges), dtype=jnp.int32)[None]).astype(jnp.int32)
    return (
        of_class.sum(0),
        right.astype(jnp.int32) @ of_class,
        right_after.astype(jnp.int32) @ of_class,
        (right[None] & ~right_after).sum(-1),
        (~right[None] & right_after).sum(-1),
        (before[None] != after).sum(-1),
    )


def _product(x, weights):
    """x W' for inputs (n, d)."""
    return jnp.matmul(x, weights.T, precision="highest")
