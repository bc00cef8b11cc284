"""A compressed layer as bytes, and back.

A header of 52 bytes (magic, wire id of the scheme, width, flags, the scheme's own numbers, shape, sparsity, survivors, step of
integer inputs, check sum), the parts bit by bit in the order of SECTIONS, filled up to a whole byte, and the bias as one
float32 a row, of ``integer`` one int32 at the product of the steps: ceil(sum of the rate breakdown / 8) + 4 K + 52.
"""

import struct
import zlib

import numpy as np

from theory.setting.errors import InputError
from theory.setting.schemes import SCHEMES
from theory.setting.schemes.base import Compressed, Scheme, StoredShape
from theory.setting.schemes.bit_stream import BitReader

HEADER = struct.Struct("<4sBBBB4IIQdfI")
MAGIC, CHECK = b"CNT1", 4  # bytes of the check sum, the header's last
SECTIONS = ("tables", "codebook", "steps", "zero_points", "codes", "positions")
PER_CHANNEL, CONVOLUTION, BIAS_COLUMN, GROUPED = 1, 2, 4, 8  # flags
MOST_WEIGHTS = 2**26  # of a layer of fewer bits than weights: half a gigabyte of float64
EMPTY = np.zeros(0, np.uint8)


def encode(layer: Compressed, bias: np.ndarray, *, bias_column: bool = False, input_step: float = 0.0) -> bytes:
    """The bytes of a compressed layer with its bias (K,); ``bias_column``: the last column of the weights is the bias, before
    any correction; ``input_step``: of the inputs of ``integer``, whose bias is whole numbers of 32 bits.

    Raises:
        InputError: a bias that float32 cannot hold.
    """
    if layer.weights.size > max(MOST_WEIGHTS, sum(layer.rate_breakdown.values())):
        raise InputError(f"weights: expected at most {MOST_WEIGHTS} where they take fewer bits, got {layer.weights.size}")
    with np.errstate(over="ignore"):
        tail = np.asarray(bias, "<i4" if input_step else "<f4")
    if not np.isfinite(tail).all():
        raise InputError(f"bias: expected values that float32 can hold, got up to {np.abs(bias).max():.3g}")
    scheme = SCHEMES[layer.scheme]
    sections = scheme.encode(layer.parts, layer.bits)
    bits = np.concatenate([sections.get(name, EMPTY) for name in SECTIONS])
    body = np.packbits(bits).tobytes() + tail.tobytes()
    shape = (*layer.weights.shape, 0, 0)[:4]
    survivors = sum(layer.parts[name].size for name in ("values", "codes") if name in layer.parts)
    flags = PER_CHANNEL * (layer.granularity == "channel") + GROUPED * (layer.granularity == "group")
    flags += CONVOLUTION * (layer.weights.ndim == 4) + BIAS_COLUMN * bias_column
    detail, size = scheme.stored_numbers(layer.options)
    head = (MAGIC, scheme.wire_id, layer.bits or 0, flags, detail, *shape, size, survivors, layer.sparsity, input_step, 0)
    header = HEADER.pack(*head)[:-CHECK]
    return header + struct.pack("<I", zlib.crc32(header + body)) + body


def decode(data: bytes, name: str = "the file") -> tuple[np.ndarray, np.ndarray]:
    """What and the bias, both float64, from the bytes of :func:`encode`.

    Raises:
        InputError: not such bytes, damaged ones, or a header that asks for more than they hold.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise InputError(f"{name}: expected a layer written by compress, got other bytes")
    header, body = data[: HEADER.size], data[HEADER.size :]
    if zlib.crc32(header[:-CHECK] + body) != struct.unpack("<I", header[-CHECK:])[0]:
        raise InputError(f"{name}: expected the bytes that compress wrote, got {len(data)} damaged or cut ones")
    try:
        return _decoded(header, body)
    except InputError as error:
        raise InputError(f"{name}: a stored layer whose header or parts are wrong: {error}") from None


def _decoded(header: bytes, body: bytes) -> tuple[np.ndarray, np.ndarray]:
    _, wire_id, bits, flags, detail, *shape, size, survivors, sparsity, input_step, _ = HEADER.unpack(header)
    scheme = next((scheme for scheme in SCHEMES.values() if scheme.wire_id == wire_id), None)
    if scheme is None:
        known = ", ".join(str(scheme.wire_id) for scheme in SCHEMES.values())
        raise InputError(f"expected the number of a scheme, one of {known}, got {wire_id}")
    scheme.check_bits(bits or None)
    _check_flags(scheme, flags, input_step)
    shape = tuple(shape if flags & CONVOLUTION else shape[:2])
    _check_sizes(shape, survivors, sparsity, len(body))
    granularity = "group" if flags & GROUPED else "channel" if flags & PER_CHANNEL else "tensor"
    stored = StoredShape(bits=bits, shape=shape, granularity=granularity, detail=detail, size=size, survivors=survivors)
    rows = shape[0]
    stream = BitReader(np.unpackbits(np.frombuffer(body[: len(body) - 4 * rows], np.uint8)))
    parts = scheme.decode(stream, stored)
    if stream.left >= 8:
        raise InputError(f"expected the bits of the layer, got {stream.left} more")
    What, tail = scheme.restore(parts, shape), body[len(body) - 4 * rows :]
    if input_step:
        steps = np.broadcast_to(parts["steps"].reshape(-1).astype(np.float64), rows)
        return What, np.frombuffer(tail, "<i4") * products(steps, input_step)
    bias = np.frombuffer(tail, "<f4")
    if not np.isfinite(bias).all():
        raise InputError("bias: expected finite numbers, got others")
    if not flags & BIAS_COLUMN:
        return What, bias.astype(np.float64)
    if len(shape) != 2 or shape[1] < 2:
        raise InputError(f"expected a column of weights beside that of the bias, got shape {shape}")
    column = What[:, -1]
    return What[:, :-1], np.where(column.astype(np.float32) == bias, column, bias)


def _check_flags(scheme: Scheme, flags: int, input_step: float) -> None:
    """Refuse flags and a step of the inputs that the scheme cannot have."""
    if flags >= 2 * GROUPED or flags & (PER_CHANNEL | GROUPED) == PER_CHANNEL | GROUPED:
        raise InputError(f"expected flags that go together, got {flags}")
    for flag, option in ((PER_CHANNEL, "per_channel"), (GROUPED, "group_size")):
        if flags & flag and scheme.option(option) is None:
            raise InputError(f"{option}: expected none for scheme {scheme.name}, got one")
    integers = scheme.option("activation_bits") is not None
    if not 0 <= input_step < np.inf or bool(input_step) != integers or (flags & BIAS_COLUMN and not scheme.bias_column):
        raise InputError(f"expected the bias as scheme {scheme.name} has it, got input step {input_step}, flags {flags}")


def _check_sizes(shape: tuple[int, ...], survivors: int, sparsity: float, size: int) -> None:
    """Refuse a shape that ``size`` bytes of parts and bias can't hold, before anything is allocated."""
    weights, most = _product(shape), max(MOST_WEIGHTS, 8 * size)
    if not 0 < weights <= most or 4 * shape[0] > size:
        raise InputError(f"expected a shape of 1 to {most} weights and a bias of 4 bytes a row, got {shape}")
    if survivors > weights or not 0 <= sparsity <= 1:
        raise InputError(f"expected at most {weights} codes and a sparsity, got {survivors} and {sparsity}")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size  # Python's integers: four of 32 bits do not overflow
    return total


def products(steps: np.ndarray, input_step: float) -> np.ndarray:
    """(rows,) of the steps of the rows and of integer inputs, what their bias counts; a row of zeros has no step of its own and
    counts by the least of the others."""
    least = steps[steps > 0].min() if np.any(steps > 0) else 1.0
    return np.where(steps > 0, steps, least) * input_step
