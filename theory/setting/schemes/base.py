"""What a compression scheme is: its name, its options, and how a layer becomes stored parts and these become What again.

A family of schemes is one file of this folder that ends with a tuple ``SCHEMES`` of final classes' instances. The registry
(:mod:`theory.setting.schemes`) finds it there; every command, the stored files and ``bits`` read the registry.
"""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from theory.setting.errors import InputError
from theory.setting.schemes.bit_stream import BitReader

BREAKDOWN: tuple[str, ...] = ("codes", "steps", "zero_points", "codebook", "positions", "tables")
Parts = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of one or more schemes: a keyword of the public functions and, spelt with dashes, of the commands.

    Attributes:
        name: the keyword. help: one line.
        expected: in words, what its values are.
        accepts: whether a value is one of these.
        type: how a command reads it from a word; None for a switch.
        choices: what it can be, where these are few. metavar: of a command's help.
        required: whether the schemes that have it need it. listed: whether commands show it; else plans alone hold it.
    """

    name: str
    help: str
    expected: str
    accepts: Callable[[Any], bool]
    type: Callable[[str], Any] | None = None
    choices: tuple[str, ...] | None = None
    metavar: str | None = None
    required: bool = False
    listed: bool = True

    def given(self, value: Any) -> bool:
        """Whether a value asks for anything: neither None nor a switch that is off."""
        return value is not None and value is not False


def whole_between(low: int, high: int) -> Callable[[Any], bool]:
    """Whether a value is a whole number of low..high."""

    def accepts(value: Any) -> bool:
        try:
            return not isinstance(value, bool) and low <= operator.index(value) <= high
        except TypeError:
            return False

    return accepts


@dataclass(frozen=True, kw_only=True)
class StoredShape:
    """What the header of a stored layer says before its parts: width of a code, shape of the layer, granularity ("tensor",
    "channel" or "group"), the scheme's own two numbers, and how many values or codes are stored."""

    bits: int
    shape: tuple[int, ...]
    granularity: str
    detail: int
    size: int
    survivors: int

    @property
    def count(self) -> int:
        """Weights of the layer."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class Scheme(ABC):
    """A way to compress a layer.

    Attributes:
        name: what users call it. wire_id: its number in stored files, for ever. summary: one line for help.
        bits: the least and the largest width of a code; None where weights keep their 32 bits.
        options: those it has, beside the bias options of every scheme.
        stepped: whether its weights lie on a grid of equal steps, so that the uniform hypothesis speaks of it.
        bias_column: whether the bias can be one more column.
    """

    name: str
    wire_id: int
    summary: str
    bits: tuple[int, int] | None
    options: tuple[Option, ...] = ()
    stepped: bool = False
    bias_column: bool = True

    @abstractmethod
    def compress(self, weights: Float64[np.ndarray, "rows ..."], bits: int | None, options: dict[str, Any]) -> Parts:
        """The parts that are stored, by name."""

    @abstractmethod
    def restore(self, parts: Parts, shape: tuple[int, ...]) -> Float64[np.ndarray, "rows ..."]:
        """What, from the parts."""

    @abstractmethod
    def bits_of(self, parts: Parts, bits: int | None) -> dict[str, int]:
        """Stored bits of the kinds (BREAKDOWN) that there are."""

    @abstractmethod
    def encode(self, parts: Parts, bits: int | None) -> dict[str, np.ndarray]:
        """The stored bits themselves, as 0 and 1, by kind: as many as :meth:`bits_of` says."""

    @abstractmethod
    def decode(self, stream: BitReader, stored: StoredShape) -> Parts:
        """The parts from the stored bits, which come in the order of :data:`theory.setting.stored_layer.SECTIONS`."""

    @abstractmethod
    def stored_numbers(self, options: dict[str, Any]) -> tuple[int, int]:
        """What the header keeps of the options: ``detail`` and ``size`` of :class:`StoredShape`."""

    def option(self, name: str) -> Option | None:
        """Its option of that name."""
        return next((option for option in self.options if option.name == name), None)

    def check_bits(self, bits: int | None) -> None:
        """Refuse a width outside the scheme's range."""
        if self.bits is None:
            if bits is not None:
                raise InputError(f"bits: expected none for scheme {self.name}, whose weights keep 32 bits, got {bits}")
        elif bits is None or not self.bits[0] <= bits <= self.bits[1]:
            got = "none" if bits is None else bits
            raise InputError(f"bits: expected {self.bits[0]} to {self.bits[1]} for scheme {self.name}, got {got}")

    def check_options(self, known: dict[str, Option], options: dict[str, Any]) -> dict[str, Any]:
        """Those of the options that are given, refused where the scheme has them not, needs another, or they say nothing.

        ``known`` are the options of all schemes.
        """
        for name, value in options.items():
            option = known.get(name)
            if option is None:
                raise InputError(f"{name}: expected one of the options {', '.join(known)}, got another one")
            if option.given(value) and self.option(name) is None:
                raise InputError(f"{name}: expected none for scheme {self.name}, got {value}")
        for option in self.options:
            value = options.get(option.name)
            if (option.required and not option.given(value)) or (option.given(value) and not option.accepts(value)):
                raise InputError(f"{option.name}: expected {option.expected} for scheme {self.name}, got {value}")
        return {name: value for name, value in options.items() if known[name].given(value)}


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed layer.

    Attributes:
        scheme, bits, options: what was asked; bits is None where weights keep their 32.
        weights: What, (rows, d) float64; of a convolution (out, in, height, width).
        steps: (rows, 1) float64, or (rows, d) where groups of weights have their own: the stored step of each weight. Where a
            scheme has none, the one whose uniform errors would have the power of this layer's own, sqrt(12 mean (What - W)^2).
        rate_breakdown: stored bits by kind (BREAKDOWN), all side information included; the bias is held as it is.
        parts: what is stored, by name.
    """

    scheme: str
    bits: int | None
    options: dict[str, Any] = field(default_factory=dict)
    weights: Float64[np.ndarray, "rows ..."]
    steps: Float64[np.ndarray, "rows columns"]
    rate_breakdown: dict[str, int]
    parts: Parts = field(default_factory=dict, repr=False)

    @property
    def granularity(self) -> str:
        """What has a step of its own: the "tensor", a "channel" (a row), or a "group" of weights in a row."""
        return "group" if self.options.get("group_size") else "channel" if self.options.get("per_channel") else "tensor"

    @property
    def sparsity(self) -> float:
        return float(self.options.get("sparsity") or 0.0)

    @property
    def stepped(self) -> bool:
        """Whether the weights lie on a grid of equal steps."""
        return "steps" in self.parts

    @property
    def rate(self) -> float:
        """Stored bits per weight."""
        return sum(self.rate_breakdown.values()) / self.weights.size


def float32(values: np.ndarray) -> np.ndarray:
    """Rounded to float32, as stored."""
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float32).astype(np.float64)


def check_float32(weights: np.ndarray) -> None:
    """Refuse weights that float32 cannot hold."""
    largest = float(np.abs(weights).max())
    if not np.isfinite(float32(np.array(largest))):
        raise InputError(f"weights: expected values that float32 can hold, got max |W| = {largest:.3g}")
