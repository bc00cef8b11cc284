"""Blocks of random numbers: one key a block, all local devices, sums that neither the chunk nor the devices change.

Block i has the key ``fold_in(key, i)``. A chunk of blocks is one compiled call, its blocks shared out over the local devices:
one after the other on a CPU, whose cache holds one; side by side on a GPU, which one leaves idle (ten times as fast on an
H200). What a block gives comes back by block, and the caller adds it in the order of the blocks.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from theory.setting.command_line import progress

BLOCK = 8192  # samples a block
CHUNK = 32  # blocks a compiled call
AT_ONCE = 2**26  # floats of the logits worked on at once on a GPU: a gigabyte with what is made of them


def key_of(seed: int) -> jax.Array:
    """A key from all 63 bits of the seed, whatever JAX's 64-bit switch says."""
    return jax.random.wrap_key_data(jnp.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)))


def at_once(floats: int) -> int:
    """How many pieces of so many floats to work on side by side: one on a CPU."""
    return max(1, AT_ONCE // floats) if jax.default_backend() == "gpu" else 1


def block_sums(
    block: Callable[..., Any],
    arrays: tuple,
    *,
    seed: int,
    first: int,
    last: int,
    chunk: int = CHUNK,
    blocks_at_once: int = 1,
    what: str,
    **static,
) -> Iterator[Any]:
    """What ``block(key, *arrays, **static)`` gives for the blocks ``first`` .. ``last - 1``, a chunk at a time.

    Args:
        block: a module-level function that JAX compiles. arrays: its array arguments. static: its hashable ones.
        chunk: blocks a compiled call, at least ``blocks_at_once`` a device, rounded up to a multiple of the local devices.
        blocks_at_once: blocks a device works on side by side. what: for the progress bar.

    Yields:
        The same tree of NumPy arrays, with the blocks along the first axis.
    """
    devices = jax.local_devices()
    most = -(-max(1, last - first) // len(devices))  # of one device
    blocks_at_once = min(blocks_at_once, most)
    calls = -(-min(most, -(-chunk // len(devices))) // blocks_at_once)
    chunk = len(devices) * calls * blocks_at_once
    mesh = Mesh(np.array(devices), ("blocks",))
    key, options = key_of(seed), tuple(sorted(static.items()))
    starts = range(first, last, chunk)
    for start in progress(starts, total=len(starts), what=what, unit="chunk"):
        indices = start + np.arange(chunk, dtype=np.uint32)
        sums = _chunk(indices, key, arrays, block=block, mesh=mesh, blocks_at_once=blocks_at_once, options=options)
        live = slice(0, last - start)
        yield jax.tree.map(lambda x, live=live: np.asarray(x)[live], sums)


def temporaries(block: Callable[..., Any], arrays: tuple, *, chunk: int = CHUNK, **static) -> int:
    """Bytes that the compiled call of :func:`block_sums` needs beside its arguments and results."""
    mesh, options = Mesh(np.array(jax.local_devices()[:1]), ("blocks",)), tuple(sorted(static.items()))
    indices = np.arange(chunk, dtype=np.uint32)
    lowered = _chunk.lower(indices, key_of(0), arrays, block=block, mesh=mesh, blocks_at_once=1, options=options)
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None  # every backend of today has one
    return analysis.temp_size_in_bytes


def in_batches(function: Callable, inputs: Any, size: int) -> Any:
    """``jax.lax.map``, ``size`` at once."""
    return jax.lax.map(function, inputs, batch_size=size if size > 1 else None)


@functools.partial(jax.jit, static_argnames=("block", "mesh", "blocks_at_once", "options"))
def _chunk(indices, key, arrays, *, block, mesh: Mesh, blocks_at_once: int, options: tuple):
    def part(indices, key, arrays):
        one = lambda index: block(jax.random.fold_in(key, index), *arrays, **dict(options))  # noqa: E731
        return in_batches(one, indices, blocks_at_once)

    spread, whole = PartitionSpec("blocks"), PartitionSpec()
    return jax.shard_map(part, mesh=mesh, in_specs=(spread, whole, whole), out_specs=spread, check_vma=False)(
        indices, key, arrays
    )
