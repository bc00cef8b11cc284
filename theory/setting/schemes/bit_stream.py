"""Bits of stored layers: whole numbers and floats as 0s and 1s, most significant first, and back."""

import numpy as np

from theory.setting.errors import InputError


def whole(values: np.ndarray, width: int) -> np.ndarray:
    """The lowest ``width`` bits of whole numbers, highest first."""
    return ((values.reshape(-1, 1) >> np.arange(width)[::-1]) & 1).astype(np.uint8).reshape(-1)


def floats(values: np.ndarray) -> np.ndarray:
    """The 32 bits of each value as float32."""
    return np.unpackbits(np.frombuffer(np.asarray(values, ">f4").tobytes(), np.uint8))


class BitReader:
    """Bits (n,) of 0 and 1 read one after the other; asked for more than there are, it says so."""

    def __init__(self, bits: np.ndarray):
        self.bits, self.position = bits, 0

    @property
    def left(self) -> int:
        """Bits not read yet."""
        return len(self.bits) - self.position

    def take(self, count: int) -> np.ndarray:
        """The next bits."""
        if not 0 <= count <= self.left:
            raise InputError(f"expected {count} more bits of the layer, got {self.left}")
        self.position += count
        return self.bits[self.position - count : self.position]

    def whole(self, count: int, width: int) -> np.ndarray:
        """(count,) whole numbers of ``width`` bits."""
        bits = self.take(count * width).reshape(count, width)
        return bits.astype(np.int64) @ (1 << np.arange(width)[::-1]) if width else np.zeros(count, np.int64)

    def floats(self, count: int) -> np.ndarray:
        """(count,) float32."""
        values = np.frombuffer(np.packbits(self.take(32 * count)).tobytes(), ">f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError("expected finite numbers in the layer, got others")
        return values
