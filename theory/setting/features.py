"""A sample of a last layer's inputs, with or without labels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from theory.setting.checks import check_classes, finite, head, large_enough, largest_of, shaped
from theory.setting.errors import InputError, listed
from theory.setting.problem import class_numbers, two_rows


@dataclass(frozen=True, kw_only=True)
class Features:
    """Inputs of a last layer a = W z + b.

    Attributes:
        features: (n, d) as stored (float16, 32 or 64).
        labels: (n,) int64 in 0..K-1; all -1 where none are known.
        weights: (K, d) or (1, d) float64; bias: (K,) or (1,) float64.
        logits: (n, K) or None.
        class_names: K names or None.
        source_bits: bits a weight took in the file.
        provenance: where they come from.

    Raises:
        InputError: shapes that do not go together, values that are not finite, labels beyond the classes.
    """

    features: np.ndarray  # shapes and values are checked below, always
    labels: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    logits: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    source_bits: int = 32
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        values, (weights, bias) = np.asarray(self.features), head(np.asarray(self.weights), np.asarray(self.bias))
        K, d = max(2, len(weights)), weights.shape[1]
        if values.ndim != 2 or values.shape[1] != d or not len(values):
            raise InputError(
                f"features: expected shape (n, {d}) to go with weights {weights.shape}, n at least 1, got {values.shape}"
            )
        finite("features", values)
        large_enough("features", largest_of(values))
        checked = {"features": values, "weights": weights, "bias": bias, "labels": _labels(self.labels, len(values), K)}
        if self.logits is not None:
            checked["logits"] = shaped("logits", np.asarray(self.logits), (len(values), len(weights)))
        if self.class_names is not None and len(self.class_names) != K:
            raise InputError(f"class_names: expected {K} names, got {len(self.class_names)}")
        for name, array in checked.items():
            object.__setattr__(self, name, array)

    def __str__(self) -> str:
        n, d = self.features.shape
        return f"Features: {n} samples, {self.classes} classes, {d} features, {'' if self.labelled else 'not '}labelled"

    @property
    def classes(self) -> int:
        return max(2, len(self.weights))

    @property
    def class_numbers(self) -> list[int]:
        """K: the number each class had in the file."""
        return class_numbers(self.provenance, self.classes)

    @property
    def labelled(self) -> bool:
        return bool(self.labels[0] >= 0)

    @property
    def mean_feature(self) -> Float64[np.ndarray, " d"]:
        return self.features.astype(np.float64).mean(0)

    def head_logits(self) -> Float64[np.ndarray, "n K"]:
        """(n, K) W z + b in float64; a head with one output as two, the first 0."""
        weights, bias = two_rows(self.weights, self.bias)
        return self.features.astype(np.float64) @ weights.T + bias

    def take(self, rows: np.ndarray) -> "Features":
        """The samples with the given indices."""
        logits = None if self.logits is None else self.logits[rows]
        return replace(self, features=self.features[rows], labels=self.labels[rows], logits=logits)

    def restrict(self, classes: Sequence[int] | None) -> "Features":
        """The samples of the given classes and the rows of W that belong to them, relabelled 0, 1, ...

        Raises:
            InputError: a class out of range or named twice, fewer than two, no labels, or no sample of any of them.
        """
        if classes is None:
            return self
        chosen = check_classes(classes, self.classes, len(self.weights))
        if len(self.weights) == 1:
            return self
        if not self.labelled:
            raise InputError("classes: expected labels, which say whose samples these are, got features without")
        position = np.full(self.classes, -1)
        position[chosen] = np.arange(len(chosen))
        rows = np.flatnonzero(position[self.labels] >= 0)
        if not len(rows):
            raise InputError(f"labels: expected samples of the classes {listed(chosen)}, got none")
        names = None if self.class_names is None else tuple(self.class_names[k] for k in chosen)
        return replace(
            self,
            features=self.features[rows],
            labels=position[self.labels[rows]],
            weights=self.weights[chosen],
            bias=self.bias[chosen],
            logits=None if self.logits is None else self.logits[np.ix_(rows, chosen)],
            class_names=names,
            provenance={**self.provenance, "classes": [self.class_numbers[k] for k in chosen]},
        )

    def with_bias_column(self) -> "Features":
        """The bias as one more column of the weights, on an input that is always 1."""
        ones = np.ones((len(self.features), 1), self.features.dtype)
        return replace(
            self,
            features=np.concatenate([self.features, ones], 1),
            weights=np.concatenate([self.weights, self.bias[:, None]], 1),
            bias=np.zeros_like(self.bias),
        )

    def moved(self, origin: Float64[np.ndarray, " d"]) -> "Features":
        """The same layer on the inputs z - origin."""
        features = self.features.astype(np.float64) - origin
        return replace(self, features=features, bias=self.bias + self.weights @ origin)

    def input_range(self) -> Float64[np.ndarray, "2"]:
        """Least and largest input."""
        return np.array([self.features.min(), self.features.max()], np.float64)


def _labels(labels: np.ndarray, n: int, K: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        hint = " (one-hot? take argmax(1))" if labels.shape == (n, K) else ""
        raise InputError(f"labels: expected {n} integers, got {labels.dtype} of shape {labels.shape}{hint}")
    if (labels.min() < 0 or labels.max() >= K) and np.any(labels != -1):
        row = int(np.argmax((labels < 0) | (labels >= K)))
        raise InputError(f"labels: expected 0 to {K - 1}, got {labels[row]} at row {row}")
    return labels.astype(np.int64)
