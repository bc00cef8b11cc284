"""A compressed layer as bytes, and back.

A header of 52 bytes (magic, scheme, width, flags, unit, shape, sparsity, survivors, step of integer inputs, check sum), the
parts bit by bit in the order of SECTIONS, filled up to a whole byte, and the bias as one float32 a row, of ``integer`` one
int32 at the product of the steps: ceil(sum of the rate breakdown / 8) + 4 K + 52.
"""

import struct
import zlib

import numpy as np

from theory.setting.compression import SCHEMES, Compressed, codebook, huffman, pruned, restore, uniform
from theory.setting.errors import InputError

HEADER = struct.Struct("<4sBBBB4IIQdfI")
MAGIC, CHECK = b"CNT1", 4  # bytes of the check sum, the header's last
SECTIONS = ("tables", "codebook", "steps", "zero_points", "codes", "positions")
UNITS = ("", *dict.fromkeys((*pruned.DENSE, *pruned.CONVOLUTION)))


def encode(layer: Compressed, bias: np.ndarray, *, bias_column: bool = False, input_step: float = 0.0) -> bytes:
    """The bytes of a compressed layer with its bias (K,); ``bias_column``: the last column of the weights is the bias, before
    any correction; ``input_step``: of the inputs of ``integer``, whose bias is whole numbers of 32 bits.

    Raises:
        InputError: a bias that float32 cannot hold.
    """
    with np.errstate(over="ignore"):
        tail = np.asarray(bias, "<i4" if input_step else "<f4")
    if not np.isfinite(tail).all():
        raise InputError(f"bias: expected values that float32 can hold, got up to {np.abs(bias).max():.3g}")
    sections = _sections(layer)
    body = np.packbits(np.concatenate([sections[name] for name in SECTIONS])).tobytes() + tail.tobytes()
    shape = (*layer.weights.shape, 0, 0)[:4]
    survivors = sum(layer.parts[name].size for name in ("values", "codes") if name in layer.parts)
    flags = (layer.granularity == "channel") + 2 * (layer.weights.ndim == 4) + 4 * bias_column
    head = (MAGIC, list(SCHEMES).index(layer.scheme), layer.bits or 0, flags, UNITS.index(layer.unit or ""), *shape)
    told = HEADER.pack(*head, layer.map_size or 0, survivors, layer.sparsity, input_step, 0)[:-CHECK]
    return told + struct.pack("<I", zlib.crc32(told + body)) + body


def decode(data: bytes, name: str = "the file") -> tuple[np.ndarray, np.ndarray]:
    """What and the bias, both float64, from the bytes of :func:`encode`.

    Raises:
        InputError: not such bytes, or damaged ones.
    """
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise InputError(f"{name}: expected a layer written by compress, got other bytes")
    _, number, bits, flags, unit, *shape, map_size, survivors, _, input_step, check = HEADER.unpack(data[: HEADER.size])
    body = data[HEADER.size :]
    if zlib.crc32(data[: HEADER.size - CHECK] + body) != check or number >= len(SCHEMES) or unit >= len(UNITS):
        raise InputError(f"{name}: expected the bytes that compress wrote, got {len(data)} damaged or cut ones")
    shape = tuple(shape) if flags & 2 else tuple(shape[:2])
    scheme, rows = list(SCHEMES)[number], shape[0]
    stream = _Stream(np.unpackbits(np.frombuffer(body[: len(body) - 4 * rows], np.uint8)))
    parts = _parts(stream, scheme, bits, shape, rows if flags & 1 else 1, UNITS[unit], map_size or None, survivors)
    What, tail = restore(parts, scheme, shape), body[len(body) - 4 * rows :]
    if input_step:
        steps = np.broadcast_to(parts["steps"].reshape(-1).astype(np.float64), rows)
        return What, np.frombuffer(tail, "<i4") * products(steps, input_step)
    bias = np.frombuffer(tail, "<f4")
    if not flags & 4:
        return What, bias.astype(np.float64)
    column = What[:, -1]
    return What[:, :-1], np.where(column.astype(np.float32) == bias, column, bias)


def products(steps: np.ndarray, input_step: float) -> np.ndarray:
    """(rows,) of the steps of the rows and of integer inputs, what their bias counts; a row of zeros has no step of its own and
    counts by the least of the others."""
    least = steps[steps > 0].min() if np.any(steps > 0) else 1.0
    return np.where(steps > 0, steps, least) * input_step


def _sections(layer: Compressed) -> dict[str, np.ndarray]:
    """Bits, as 0 and 1, by kind."""
    parts, bits = layer.parts, layer.bits or 0
    found: dict[str, np.ndarray] = {name: np.zeros(0, np.uint8) for name in SECTIONS}
    if "run_lengths" in parts:
        found["tables"] = _whole(np.concatenate([parts["code_lengths"], parts["run_lengths"]]), 8)
        found["codes"] = huffman.encode(parts["codes"], parts["code_lengths"])
        found["positions"] = huffman.encode(parts["runs"], parts["run_lengths"])
    elif "values" in parts:
        found["codes"] = _floats(parts["values"])
        found["positions"] = parts["units" if "units" in parts else "places"].reshape(-1).astype(np.uint8)
    else:
        found["codes"] = _whole(parts["codes"] + _least(layer.scheme, bits, parts.get("zero_points")), bits)
    for name in ("codebook", "steps"):
        if name in parts:
            found[name] = _floats(parts[name])
    if "zero_points" in parts:
        found["zero_points"] = _whole(parts["zero_points"], bits)
    return found


def _least(scheme: str, bits: int, zero_points: np.ndarray | None) -> np.ndarray | int:
    """What makes codes whole numbers from 0."""
    if zero_points is not None:
        return zero_points
    return 0 if scheme == "codebook" else 2 ** (bits - 1)


class _Stream:
    """Bits read one after the other."""

    def __init__(self, bits: np.ndarray):
        self.bits, self.at = bits, 0

    def take(self, count: int) -> np.ndarray:
        self.at += count
        return self.bits[self.at - count : self.at]

    def whole(self, count: int, width: int) -> np.ndarray:
        return self.take(count * width).reshape(count, width).astype(np.int64) @ (1 << np.arange(width)[::-1])

    def floats(self, count: int) -> np.ndarray:
        return np.frombuffer(np.packbits(self.take(32 * count)).tobytes(), ">f4").astype(np.float32)

    def huffman(self, lengths: np.ndarray, count: int, uncounted: int | None = None) -> np.ndarray:
        symbols, used = huffman.decode(self.bits[self.at :], lengths, count, uncounted=uncounted)
        self.at += used
        return symbols


def _parts(
    stream: _Stream, scheme: str, bits: int, shape: tuple[int, ...], steps: int, unit: str, map_size: int | None, survivors: int
) -> dict[str, np.ndarray]:
    size = int(np.prod(shape))
    if scheme == "prune":
        values = stream.floats(survivors)
        return {"values": values, "places": stream.take(size).astype(bool).reshape(shape)}
    if scheme == "prune-structured":
        owner = pruned.units(shape, unit, map_size)
        values = stream.floats(survivors)
        return {"values": values, "units": stream.take(int(owner.max()) + 1).astype(bool), "owner": owner}
    if scheme == "codebook":
        centroids = stream.floats(2**bits)
        return {"codebook": centroids, "codes": stream.whole(size, bits).reshape(shape)}
    if scheme == "deep-compression":
        code_lengths, run_lengths = stream.whole(2**bits, 8), stream.whole(2**codebook.RUN_BITS, 8)
        centroids = stream.floats(2**bits)
        codes = stream.huffman(code_lengths, survivors)
        runs = stream.huffman(run_lengths, survivors, 2**codebook.RUN_BITS - 1)
        return {"codebook": centroids, "codes": codes, "places": codebook.places(runs, size).reshape(shape)}
    wide = (steps, *[1] * (len(shape) - 1))
    parts = {"steps": stream.floats(steps).reshape(wide)}
    if uniform.SCHEMES[uniform.grid_of(scheme)].zero_point:
        parts["zero_points"] = stream.whole(steps, bits).reshape(wide)
    codes = stream.whole(size, bits).reshape(shape)
    return parts | {"codes": codes - _least(scheme, bits, parts.get("zero_points"))}


def _whole(values: np.ndarray, width: int) -> np.ndarray:
    """The lowest ``width`` bits of whole numbers, highest first."""
    return ((values.reshape(-1, 1) >> np.arange(width)[::-1]) & 1).astype(np.uint8).reshape(-1)


def _floats(values: np.ndarray) -> np.ndarray:
    return np.unpackbits(np.frombuffer(np.asarray(values, ">f4").tobytes(), np.uint8))
