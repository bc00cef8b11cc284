"""A network as the project needs it: the inputs of its last linear layer, that layer, and its own output.

The layer is found by running, not by name: of the linear operations of one batch, the last one from whose output the network's
output follows by adding a constant, by softmax or its logarithm, or by a sigmoid.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, logit, softmax

from theory.setting.errors import InputError

DISAGREEMENT = 1e-3  # of W z + b from the network's logits, over the largest of them or 1
PROBABLE = 1e-4  # of probabilities
NAMES = tuple(f"resnet{depth}" for depth in (20, 32, 44, 56, 110))  # known by name, with their normalization
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = ("logits", "log-softmax", "softmax", "sigmoid")


class Linear(NamedTuple):
    """One linear operation of a batch: inputs (n, d), weights (K, d)."""

    inputs: np.ndarray
    weights: np.ndarray


class Head(NamedTuple):
    """The last linear layer: its place among the linear operations, counted from the end; weights (K, d), bias (K,); and how
    the network's output follows from W z + b, one of KINDS."""

    place: int
    weights: np.ndarray
    bias: np.ndarray
    kind: str


class Network(NamedTuple):
    """A classifier that was opened: ``run`` takes (n, 3, H, W) float32 normalized images and gives features (n, d) and output
    (n, K); ``said`` is what its file says of it; ``files`` the SHA-256 of what it was read from."""

    name: str
    head: Head
    run: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    source_bits: int
    said: dict[str, Any]
    files: dict[str, str]


def sha256(path: Path | str) -> dict[str, str]:
    return {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def first_line(error: Exception) -> str:
    """What another library's error says, short enough for a message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def find_head(operations: Sequence[Linear], output: np.ndarray, name: str) -> Head:
    """The head among the linear operations of one batch, in the order in which they ran, for the network's output (n, K).

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
        for kind in KINDS:
            bias = _bias(product, output.astype(np.float64), kind)
            if bias is not None and disagreement(product + bias, output, kind) <= 1:
                return Head(place, one.weights, bias, kind)
    shapes = ", ".join(str(one.weights.shape) for one in operations[-4:]) or "none"
    raise InputError(
        f"{name}: expected a linear layer whose output is the network's, up to a softmax or sigmoid, got {output.shape[1]} "
        f"outputs from another operation (last linear layers: {shapes}): return the logits, or write features.npz yourself "
        "(README)"
    )


def _bias(product: np.ndarray, output: np.ndarray, kind: str) -> np.ndarray | None:
    """What is added to W z, from the output; None where the output can't be of that kind. Up to one number common to all
    classes where the output has forgotten it."""
    if kind == "logits":
        return (output - product).mean(0)
    if kind in ("softmax", "sigmoid") and (output.min() < 0 or output.max() > 1 + 1e-6):
        return None
    tiny = np.finfo(np.float32).tiny
    if kind == "sigmoid":
        inside = (output > 1e-4) & (output < 1 - 1e-4)
        if output.shape[1] > 1 or not inside.any():
            return None
        return np.array([(logit(np.clip(output, tiny, 1 - 1e-7)) - product)[inside].mean()])
    if output.shape[1] == 1:
        return None
    logs = output if kind == "log-softmax" else np.log(np.maximum(output, tiny))
    weight = np.exp(np.minimum(logs, 0))  # small probabilities are known badly
    gap = logs - product
    gap = gap - (gap * weight).sum(1, keepdims=True) / np.maximum(weight.sum(1, keepdims=True), tiny)
    return (gap * weight).sum(0) / np.maximum(weight.sum(0), tiny)


def disagreement(logits: np.ndarray, output: np.ndarray, kind: str) -> float:
    """Of the network's output (n, K) from what W z + b (n, K) makes of it, over what is allowed."""
    output = output.reshape(logits.shape).astype(np.float64)
    if kind == "logits":
        return float(np.abs(logits - output).max() / (DISAGREEMENT * max(1.0, np.abs(output).max())))
    made = {"log-softmax": log_softmax, "softmax": softmax}[kind](logits, axis=1) if kind != "sigmoid" else expit(logits)
    if kind == "log-softmax":
        made, output = np.exp(made), np.exp(output)
    return float(np.abs(made - output).max() / PROBABLE)
