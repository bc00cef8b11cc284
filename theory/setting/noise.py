"""A sample of the noise of a network's logits: what errors of every tensor that can be rounded do to them, to first order."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax

from theory.setting.checks import finite
from theory.setting.errors import InputError, listed

KINDS = ("weight", "input")
SCALES = ("", "_channel_symmetric", "_channel_affine")  # of Grams and draws: entries as they are, or rows times their range
SKEW = 1e-3  # of a Gram over its largest entry, which single precision leaves


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """What can be rounded, T tensors in the order in which the network uses them.

    Attributes:
        names: of the weights as the framework has them; of the input of a layer that of its weight.
        kinds: "weight" or "input". sizes: entries (of an input: an image's). rows: output channels (of an input 1).
        low, high: least and largest entry (of an input: over calibration images).
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    sizes: np.ndarray
    rows: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __post_init__(self):
        T = len(self.names)
        for name in ("kinds", "sizes", "rows", "low", "high"):
            values = getattr(self, name)
            if np.shape(values) != (T,):
                raise InputError(f"tensor_{name}: expected {T} as of tensor_names, got shape {np.shape(values)}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise InputError(f"tensor_kinds: expected weight or input, got {kind!r}")
        for name in ("sizes", "rows"):
            values = np.asarray(getattr(self, name))
            if not np.issubdtype(values.dtype, np.integer) or (T and values.min() < 1):
                raise InputError(f"tensor_{name}: expected whole numbers of at least 1, got {listed(values)}")
            object.__setattr__(self, name, values.astype(np.int64))
        for name in ("low", "high"):
            values = np.asarray(getattr(self, name), np.float64)
            finite(f"tensor_{name}", values)
            object.__setattr__(self, name, values)
        if np.any(self.low > self.high):
            t = int(np.argmax(self.low > self.high))
            raise InputError(
                f"tensor_low: expected at most tensor_high, got {self.low[t]:g} above {self.high[t]:g} of tensor {t}"
            )
        weights = [name for name, kind in zip(self.names, self.kinds, strict=True) if kind == "weight"]
        if not weights or len(set(weights)) < len(weights):
            raise InputError(f"tensor_names: expected weights, each once, got {listed(weights) or 'none'}")

    def __len__(self) -> int:
        return len(self.names)

    def indices(self, kind: str) -> dict[str, int]:
        """Where the tensors of a kind stand, by name."""
        return {name: t for t, (name, own) in enumerate(zip(self.names, self.kinds, strict=True)) if own == kind}


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Logits of n images and how errors of T tensors move those of C candidates of the K classes.

    Attributes:
        logits: (n, K). labels: (n,) int64, all -1 where none are known.
        candidates: (n, C) classes whose logits are followed, ascending.
        tensors: what can be rounded.
        grams: by a name in SCALES, (T, n, C, C) J J' of the candidates' logits by the entries of a tensor, or by rows times
            their range, so that independent errors of variance v give them the covariance v J J'.
        draws: by a name in SCALES, (M, T, n, C) first-order shifts under M common draws of errors of variance 1. Empty where
            there are none.
        gain_rates: (M,) of each of these draws -ln g over v/V, g the gain of the mean logits that it shows; None where unknown.
        fold: whether batch norm is folded into the weights.
        provenance: where it comes from.

    Raises:
        InputError: shapes that do not go together, values that are not finite, candidates or labels beyond the classes.
    """

    logits: np.ndarray
    labels: np.ndarray
    candidates: np.ndarray
    tensors: Tensors
    grams: dict[str, np.ndarray]
    draws: dict[str, np.ndarray] = field(default_factory=dict)
    gain_rates: np.ndarray | None = None
    fold: bool = False
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        logits = np.asarray(self.logits)
        if logits.ndim != 2 or not len(logits) or logits.shape[1] < 2:
            raise InputError(f"logits: expected shape (images, classes), at least one and two, got {logits.shape}")
        finite("logits", logits)
        n, K = logits.shape
        candidates, C = _candidates(self.candidates, n, K), np.shape(self.candidates)[-1]
        labels = np.asarray(self.labels)
        if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels: expected {n} integers, got {labels.dtype} of shape {labels.shape}")
        if (labels.min() < 0 or labels.max() >= K) and np.any(labels != -1):
            row = int(np.argmax((labels < 0) | (labels >= K)))
            raise InputError(f"labels: expected 0 to {K - 1}, got {labels[row]} at row {row}")
        T = len(self.tensors)
        for scale, gram in self.grams.items():
            _check_gram(f"gram{scale}", gram, (T, n, C, C))
        for scale, draws in self.draws.items():
            if draws.ndim != 4 or draws.shape[1:] != (T, n, C) or len(draws) < 2:
                raise InputError(f"draws{scale}: expected shape (M, {T}, {n}, {C}), M at least 2, got {draws.shape}")
            finite(f"draws{scale}", draws)
        if self.gain_rates is not None:
            M = {len(draws) for draws in self.draws.values()}
            if np.ndim(self.gain_rates) != 1 or {len(self.gain_rates)} != M:
                expected = f"one a draw ({listed(sorted(M)) or 'none'})"
                raise InputError(f"gain_rates: expected {expected}, got shape {np.shape(self.gain_rates)}")
            finite("gain_rates", np.asarray(self.gain_rates, np.float64))
        if "" not in self.grams:
            raise InputError("gram: missing, expected in a noise file")
        for name, array in {
            "logits": logits.astype(np.float64),
            "labels": labels.astype(np.int64),
            "candidates": candidates,
        }.items():
            object.__setattr__(self, name, array)

    def __str__(self) -> str:
        n, K = self.logits.shape
        T = len(self.tensors.indices("weight"))
        return f"Noise: {n} images, {K} classes, {T} weights, {'' if self.labelled else 'not '}labelled"

    @property
    def classes(self) -> int:
        return self.logits.shape[1]

    @property
    def labelled(self) -> bool:
        return bool(self.labels[0] >= 0)

    def posterior(self, temperature: float) -> np.ndarray:
        """(n, K) softmax(logits / T)."""
        return np.exp(log_softmax(self.logits / temperature, 1))


def noise_ratio(logits: np.ndarray, covariance: np.ndarray) -> float:
    """v/V: mean variance of the logits (n, C) about the mean logit of their image, from their covariance (n, C, C), over the
    mean square of the clean ones about it."""
    C = covariance.shape[-1]
    variance = np.trace(covariance, axis1=1, axis2=2) / C - covariance.sum((1, 2)) / C**2
    square = np.mean((logits - logits.mean(1, keepdims=True)) ** 2)
    return float(variance.mean() / max(square, 1e-300))


def _candidates(values: np.ndarray, n: int, K: int) -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or len(values) != n or values.shape[1] < 2 or not np.issubdtype(values.dtype, np.integer):
        raise InputError(f"candidates: expected whole numbers ({n}, C), C at least 2, got {values.dtype} {values.shape}")
    if values.min() < 0 or values.max() >= K or np.any(np.diff(values, axis=1) <= 0):
        raise InputError(f"candidates: expected ascending classes of 0 to {K - 1} in every row")
    return values.astype(np.int64)


def _check_gram(name: str, gram: np.ndarray, shape: tuple[int, ...]) -> None:
    if gram.shape != shape:
        raise InputError(f"{name}: expected shape {shape}, got {gram.shape}")
    finite(name, gram)
    largest = np.abs(gram).max() if gram.size else 0.0
    if np.diagonal(gram, axis1=2, axis2=3).min(initial=0.0) < -SKEW * largest:
        raise InputError(f"{name}: expected variances of at least 0 on the diagonals, got a negative one")
    if np.abs(gram - gram.swapaxes(2, 3)).max(initial=0.0) > SKEW * largest:
        raise InputError(f"{name}: expected symmetric matrices, got entries that differ")
