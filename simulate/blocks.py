"""Blocks of random numbers: one key a block, all local devices, sums that neither the chunk nor the devices change.

Block i has the key ``fold_in(key, i)``. A chunk of blocks is one compiled call, its blocks shared out over the local devices.
What a block gives comes back by block, and the caller adds it in the order of the blocks.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from theory.setting.door import progress

BLOCK = 8192  # samples a block
CHUNK = 32  # blocks a compiled call


def key_of(seed: int) -> jax.Array:
    """A key from all 63 bits of the seed, whatever JAX's 64-bit switch says."""
    return jax.random.wrap_key_data(jnp.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)))


def block_sums(
    block: Callable[..., Any], arrays: tuple, *, seed: int, first: int, last: int, chunk: int = CHUNK, what: str, **static
) -> Iterator[Any]:
    """What ``block(key, *arrays, **static)`` gives for the blocks ``first`` .. ``last - 1``, a chunk at a time.

    Args:
        block: a module-level function that JAX compiles. arrays: its array arguments. static: its hashable ones.
        chunk: blocks a compiled call, rounded up to a multiple of the local devices. what: for the progress bar.

    Yields:
        The same tree of NumPy arrays, with the blocks along the first axis.
    """
    devices = jax.local_devices()
    chunk = -(-min(chunk, max(1, last - first)) // len(devices)) * len(devices)
    mesh = Mesh(np.array(devices), ("blocks",))
    key, options = key_of(seed), tuple(sorted(static.items()))
    starts = range(first, last, chunk)
    for start in progress(starts, total=len(starts), what=what, unit="chunk"):
        indices = start + np.arange(chunk, dtype=np.uint32)
        sums = _chunk(indices, key, arrays, block=block, mesh=mesh, options=options)
        live = slice(0, last - start)
        yield jax.tree.map(lambda x, live=live: np.asarray(x)[live], sums)


def temporaries(block: Callable[..., Any], arrays: tuple, *, chunk: int = CHUNK, **static) -> int:
    """Bytes that the compiled call of :func:`block_sums` needs beside its arguments and results."""
    mesh, options = Mesh(np.array(jax.local_devices()[:1]), ("blocks",)), tuple(sorted(static.items()))
    lowered = _chunk.lower(np.arange(chunk, dtype=np.uint32), key_of(0), arrays, block=block, mesh=mesh, options=options)
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None  # every backend of today has one
    return analysis.temp_size_in_bytes


@functools.partial(jax.jit, static_argnames=("block", "mesh", "options"))
def _chunk(indices, key, arrays, *, block, mesh: Mesh, options: tuple):
    def part(indices, key, arrays):
        return jax.lax.map(lambda index: block(jax.random.fold_in(key, index), *arrays, **dict(options)), indices)

    spread, whole = PartitionSpec("blocks"), PartitionSpec()
    return jax.shard_map(part, mesh=mesh, in_specs=(spread, whole, whole), out_specs=spread, check_vma=False)(
        indices, key, arrays
    )
