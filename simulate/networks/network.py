"""A network as the project needs it: the inputs of its last linear layer, that layer, and its own output.

The layer is found by running, not by name: of the linear operations of one batch, the last one from whose output the network's
output follows by a scale common to all classes and a constant, then by softmax or its logarithm, or by sigmoids.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, logit, softmax

from theory.setting.errors import InputError, in_short, listed

DISAGREEMENT = 1e-3  # of W z + b from the network's logits, over the largest of them or 1
PROBABLE = 1e-4  # of probabilities
ROUNDINGS = 4  # of the network's own precision that are allowed for instead where that is more
NAMES = tuple(f"resnet{depth}" for depth in (20, 32, 44, 56, 110))  # known by name, with their normalization
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("logits", "log-softmax", "softmax", "sigmoid")
FORGETFUL = ("log-softmax", "softmax")  # they forget a number of every row
SINGLE = float(np.finfo(np.float32).eps)
NEARLY_NONE = 1e-3  # of the disagreement that is allowed
UNEXPLAINED = 1e-3  # share of what differs between images in the output that a common scale may leave
UNIT_SCALE = 1e-3  # a common scale this near to 1 is 1
SWEEPS = 2000  # at most, of row and column effects taken out in turn


def channels_of(inputs: int, images: np.ndarray) -> int:
    """Of the images (n, 3, H, W) that a network takes whose first layer is dense, with so many inputs: 1 or 3."""
    return 1 if inputs == images[0, 0].size else 3


# what an opener is given: normalized images to find the head by, of so many channels
Sample = Callable[[int], np.ndarray]


def channels_taken(shape: tuple, sample: Sample) -> int:
    """Of the images that a network takes whose input (batch, ...) has not four axes: 1 or 3."""
    if len(shape) == 2:
        return channels_of(shape[-1], sample(3))
    return 1 if len(shape) == 3 else 3


def of_rank(images: np.ndarray, rank: int) -> np.ndarray:
    """Images as an input of so many axes takes them: of two axes as vectors, of three without their one channel."""
    if rank == 2:
        return images.reshape(len(images), -1)
    return images.reshape(len(images), *(size for size in images.shape[1:] if size > 1)) if rank == 3 else images


class Linear(NamedTuple):
    """One linear operation of a batch: inputs (n, d), weights (K, d), and the bias (K,) that it is known to add, or None."""

    inputs: np.ndarray
    weights: np.ndarray
    bias: np.ndarray | None = None


class Head(NamedTuple):
    """The last linear layer: its place among the linear operations, counted from the end; weights (K, d), bias (K,); and how
    the network's output follows from W z + b, one of KINDS."""

    place: int
    weights: np.ndarray
    bias: np.ndarray
    kind: str


class Network(NamedTuple):
    """A classifier that was opened: ``run`` takes (n, channels, H, W) float32 normalized images and gives features (n, d) and
    output (n, K); ``said`` is what its file says of it; ``files`` the SHA-256 of what it was read from; ``precision`` the
    rounding of what it computes with."""

    name: str
    head: Head
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    source_bits: int
    said: dict[str, Any]
    files: dict[str, str]
    channels: int = 3
    precision: float = SINGLE


def sha256(path: Path | str) -> dict[str, str]:
    return {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough for a message."""
    return f"{type(error).__name__}: {in_short((str(error).splitlines() or [''])[0])}"


def pick_output(outputs: dict[str, np.ndarray], classes: int, asked: str | None, name: str) -> str:
    """Which of a network's outputs is the decision: the one asked for, the only one, or the only one as wide as there are
    classes in the data.

    Raises:
        InputError: none of that name, or it can't be told.
    """
    if asked is not None:
        if asked not in outputs:
            raise InputError(f"output: expected one of {listed(outputs)}, got {asked!r}")
        return asked
    if len(outputs) == 1:
        return next(iter(outputs))
    shapes = ", ".join(f"{key} {np.shape(value)}" for key, value in outputs.items())
    fitting = [key for key, value in outputs.items() if np.ndim(value) == 2 and np.shape(value)[1] == classes]
    for accepted in (["logits"], fitting):
        there = [key for key in accepted if key in outputs]
        if len(there) == 1:
            return there[0]
    raise InputError(f"{name}: expected one output as wide as the {classes} classes, got {shapes}: say which with --output")


INTEGER = "an int8 network, whose layers hold integers: give the network before it was quantized"
SCRIPT = "a TorchScript module, whose operations cannot be seen: give the Python module"


def find_head(
    operations: Sequence[Linear], output: np.ndarray, name: str, precision: float = SINGLE, opaque: str | None = None
) -> Head:
    """The head among the linear operations of one batch, in the order in which they ran, for the network's output (n, K), which
    was computed to this precision. ``opaque`` says what the network is, where its operations cannot all be seen.

    Raises:
        InputError: none of them is the last but for what changes no decision.
    """
    if output.ndim == 1:
        output = output[:, None]
    if len(output) < 2:
        raise InputError(f"{name}: expected at least two images to find the head by, got one")
    if output.ndim != 2:
        raise InputError(f"{name}: expected one row of logits an image, got an output of shape {output.shape}")
    if not np.isfinite(output).all():
        raise InputError(f"{name}: expected finite outputs, got NaN or infinity: check the checkpoint and --mean, --std")
    for place, one in enumerate(reversed(operations)):
        if one.weights.shape[0] != output.shape[1] or len(one.inputs) != len(output):
            continue
        product = one.inputs.astype(np.float64) @ one.weights.T.astype(np.float64)
        # with a scale last: a sigmoid of small logits is nearly a scaled one
        for candidates in (_held, _read_off, _scaled):
            for kind in (kind for kind in KINDS if _possible(kind, output, precision)):
                found = candidates(one, product, output.astype(np.float64), kind, precision)
                if found is not None and disagreement(found[0] * product + found[1], output, kind, precision) <= 1:
                    scale, bias = found
                    weights = one.weights if scale == 1 else (scale * one.weights.astype(np.float64)).astype(one.weights.dtype)
                    return Head(place, weights, bias, kind)
    what = _unexplained(operations, output) if opaque is None else f"expected a linear layer behind the output, got {opaque}"
    raise InputError(f"{name}: {what}")


def _possible(kind: str, output: np.ndarray, precision: float) -> bool:
    """Whether an output (n, K) can be of a kind."""
    if kind in ("softmax", "sigmoid") and (output.min() < 0 or output.max() > 1 + 2 * precision):
        return False
    return kind not in ("log-softmax", "softmax") or output.shape[1] > 1


def _held(one: Linear, product: np.ndarray, output: np.ndarray, kind: str, precision: float):
    """Scale 1 and the bias that the operation holds, or none; None where what the output says explains it far better."""
    bias = np.zeros(product.shape[1]) if one.bias is None else one.bias.astype(np.float64)
    read = _read_off(one, product, output, kind, precision)
    best = 1.0 if read is None else disagreement(product + read[1], output, kind, precision)
    return (1.0, bias) if disagreement(product + bias, output, kind, precision) <= 3 * best + NEARLY_NONE else None


def _read_off(one: Linear, product: np.ndarray, output: np.ndarray, kind: str, precision: float):
    """Scale 1 and the bias that the output says; None where it says too little."""
    logs, weight = _logits_of(output, kind, precision)
    if not np.all(weight.sum(0) > 0):
        return None
    return 1.0, _without_effects(logs - product, weight, kind in FORGETFUL).columns


def _scaled(one: Linear, product: np.ndarray, output: np.ndarray, kind: str, precision: float):
    """A common scale and the bias that the output says; None where there is none."""
    logs, weight = _logits_of(output, kind, precision)
    if not np.all(weight.sum(0) > 0):
        return None
    rows = kind in FORGETFUL
    own, theirs = _without_effects(product, weight, rows).rest, _without_effects(logs, weight, rows).rest
    power = float(np.sum(weight * own**2))
    scale = float(np.sum(weight * own * theirs)) / power if power > 0 else 1.0
    left = float(np.sum(weight * (theirs - scale * own) ** 2))
    if scale <= 0 or abs(scale - 1) <= UNIT_SCALE or left > UNEXPLAINED * float(np.sum(weight * theirs**2)):
        return None
    return scale, _without_effects(logs - scale * product, weight, rows).columns


def _logits_of(output: np.ndarray, kind: str, precision: float) -> tuple[np.ndarray, np.ndarray]:
    """The logits up to what the kind forgets, and 1 where they can be told from the output, else 0."""
    if kind in ("logits", "log-softmax"):
        return output, np.ones_like(output)
    least = np.finfo(np.float16).tiny if precision > SINGLE else float(np.finfo(np.float32).tiny)
    inside = output > 16 * least
    if kind == "softmax":
        return np.log(np.maximum(output, 16 * least)), inside.astype(float)
    inside &= output < 1 - 1e3 * precision  # a probability near 1 has forgotten its logit
    return logit(np.clip(output, 16 * least, 1 - precision)), inside.astype(float)


class Effects(NamedTuple):
    """A table (n, K) as row effects, column effects (K,) of mean 0 where rows have theirs, and the rest (n, K)."""

    columns: np.ndarray
    rest: np.ndarray


def _without_effects(table: np.ndarray, weight: np.ndarray, rows: bool) -> Effects:
    """Weighted least squares of a table on row and column effects (column effects alone without ``rows``)."""
    rest, columns = table.copy(), np.zeros(table.shape[1])
    of_row, of_column = np.maximum(weight.sum(1, keepdims=True), 1e-300), np.maximum(weight.sum(0), 1e-300)
    for _ in range(SWEEPS if rows else 1):
        if rows:
            rest = rest - (weight * rest).sum(1, keepdims=True) / of_row
        shift = (weight * rest).sum(0) / of_column
        rest, columns = rest - shift, columns + shift
        if np.abs(shift).max() <= 1e-13 * max(1.0, float(np.abs(columns).max())):
            break
    if rows:
        columns = columns - columns.mean()
    return Effects(columns, rest)


def _unexplained(operations: Sequence[Linear], output: np.ndarray) -> str:
    """What stands between the last linear layer and the output, as far as it can be told, and the way out."""
    expected = "expected a linear layer whose output is the network's, up to a scale, a softmax or sigmoids"
    shapes = ", ".join(str(one.weights.shape) for one in operations[-4:]) or "none"
    way_out = "return the logits, or write features.npz yourself (README)"
    fitting = [one for one in operations if len(one.weights) == output.shape[1] and len(one.inputs) == len(output)]
    difference = float(np.ptp(output, 0).max())
    if fitting and 0 < difference < 10 * DISAGREEMENT * max(1.0, float(np.abs(output).max())):
        return f"{expected}, got outputs that hardly differ between images (by {difference:.2g}): {way_out}"
    if output.dtype.kind in "iu" or (output.shape[1] == 1 and np.array_equal(output, np.rint(output)) and np.ptp(output) > 1):
        return f"{expected}, got whole numbers, as of labels instead of logits: {way_out}"
    if fitting:
        product = fitting[-1].inputs.astype(np.float64) @ fitting[-1].weights.T.astype(np.float64)
        centred, own = output - output.mean(0), product - product.mean(0)
        power = np.sum(own**2, 0)
        slope = np.sum(own * centred, 0) / np.where(power > 0, power, 1.0)
        if np.abs(centred - slope * own).max() <= DISAGREEMENT * max(1.0, np.abs(output).max()):
            if np.all(slope < 0):
                return f"{expected}, got logits whose sign is turned, so that the least decides: {way_out}"
            return (
                f"{expected}, got logits that are scaled class by class, as by a batch norm after it: fold it in, or {way_out}"
            )
        lengths = np.linalg.norm(fitting[-1].inputs, axis=1, keepdims=True)
        turned = product / np.maximum(lengths, 1e-300)
        turned, by = turned - turned.mean(), output - output.mean()
        if abs(np.sum(turned * by)) > 0.999 * np.sqrt(np.sum(turned**2) * np.sum(by**2)):
            return f"{expected}, got cosines of the features, whose length is divided out: {way_out}"
    return f"{expected}, got {output.shape[1]} outputs from another operation (last linear layers: {shapes}): {way_out}"


def disagreement(logits: np.ndarray, output: np.ndarray, kind: str, precision: float = SINGLE) -> float:
    """Of the network's output (n, K), computed to this precision, from what W z + b (n, K) makes of it: over what is
    allowed."""
    output = output.reshape(logits.shape).astype(np.float64)
    if kind == "logits":
        allowed = max(DISAGREEMENT, ROUNDINGS * precision)
        return float(np.abs(logits - output).max() / (allowed * max(1.0, np.abs(output).max())))
    made = {"log-softmax": log_softmax, "softmax": softmax}[kind](logits, axis=1) if kind != "sigmoid" else expit(logits)
    if kind == "log-softmax":
        made, output = np.exp(made), np.exp(output)
    allowed = max(PROBABLE, ROUNDINGS * precision * min(1.0, float(np.abs(logits).max()) + 1))
    return float(np.abs(made - output).max() / allowed)
