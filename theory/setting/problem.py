"""A classification problem: a last linear layer and the Gaussian statistics of its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from theory.setting.checks import check_classes, check_priors, head, large_enough, largest_of, semi_definite, shaped
from theory.setting.errors import InputError, listed

MOST_CLASSES = 2048  # of a Gaussian problem: a gram of all logits for every layer


@dataclass(frozen=True, kw_only=True)
class Components:
    """Classes that are mixtures of Gaussians: M components, at least one a class with a positive prior. All floats float64.

    Attributes:
        classes: (M,) the class of each, ascending.
        shares: (M,) of its class, summing to 1 in each.
        means: (M, d).
        covariances: (M, d, d), or (K, d, d) where the components of a class have a common one.
    """

    classes: Int64[np.ndarray, " M"]
    shares: Float64[np.ndarray, " M"]
    means: Float64[np.ndarray, "M d"]
    covariances: Float64[np.ndarray, "G d d"]

    def group(self, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """The components of class k by covariance: the indices of those that have one in common, and the covariance."""
        own = np.flatnonzero(self.classes == k)
        if len(self.covariances) == len(self.classes):
            return [(own[[i]], self.covariances[m]) for i, m in enumerate(own)]
        return [(own, self.covariances[k])] if len(own) else []

    def restrict(self, chosen: np.ndarray) -> "Components":
        """Those of the chosen classes, which become 0, 1, ..."""
        rows = np.concatenate([np.flatnonzero(self.classes == k) for k in chosen])
        own = len(self.covariances) == len(self.classes)
        return Components(
            classes=np.repeat(np.arange(len(chosen)), [np.sum(self.classes == k) for k in chosen]),
            shares=self.shares[rows],
            means=self.means[rows],
            covariances=self.covariances[rows if own else chosen],
        )


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Last layer a = W z + b and features z | class k ~ N(mu_k, Sigma_k). All arrays float64; others are converted.

    Attributes:
        weights: (K, d), or (1, d) for a head with one output: class 1 when w z + b > 0, K = 2.
        bias: (K,), or (1,).
        priors: (K,), summing to 1.
        means: (K, d).
        covariances: (d, d) when shared by the classes, else (K, d, d).
        counts: (K,) samples behind each class, or None when the statistics are known exactly.
        source_bits: bits a weight took in the file it came from.
        components: the law of the features where it is a mixture; ``means`` and ``covariances`` are then its moments.
        misfit: standard deviation of what the model of the features gets wrong of a distortion, over the flip rate times the
            ``changed_ratio``; None where nothing was fitted.
        changed_ratio: decisions whose correctness compression changes, counted on the samples fitted over those of the model;
            None where nothing was fitted.
        feature_range: (2,) least and largest feature, for their quantization; None where it is not known.
        provenance: where all this comes from.

    Raises:
        InputError: shapes that do not go together, values that are not finite, priors that do not sum to 1, a covariance that
            is not symmetric or has a negative eigenvalue (what is only rounding is mended).
    """

    weights: np.ndarray  # shapes and values are checked below, always
    bias: np.ndarray
    priors: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    counts: Int64[np.ndarray, " K"] | None = None
    components: Components | None = None
    misfit: float | None = None
    changed_ratio: float | None = None
    feature_range: Float64[np.ndarray, "2"] | None = None
    source_bits: int = 32
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        arrays = {name: np.asarray(getattr(self, name)) for name in ("weights", "bias", "priors", "means", "covariances")}
        weights, bias = head(arrays["weights"], arrays["bias"])
        K, d = max(2, len(weights)), weights.shape[1]
        covariances = arrays["covariances"]
        checked = {
            "weights": weights,
            "bias": bias,
            "priors": check_priors(shaped("priors", arrays["priors"], (K,))),
            "means": shaped("means", arrays["means"], (K, d)),
            "covariances": shaped("covariances", covariances, (d, d) if covariances.ndim == 2 else (K, d, d)),
        }
        checked["covariances"] = semi_definite("covariances", checked["covariances"])
        scale = max(largest_of(checked["means"]), largest_of(checked["covariances"]) ** 0.5)
        large_enough("means, covariances", scale)
        for name, array in checked.items():
            object.__setattr__(self, name, array)

    def __str__(self) -> str:
        law = "Gaussian classes" if self.components is None else f"mixtures of {len(self.components.shares)} Gaussians"
        counts = "exact statistics" if self.counts is None else f"{int(self.counts.sum())} samples"
        covariance = "one covariance" if self.shared else "a covariance a class"
        return f"Problem: {self.classes} classes, {self.features} features, {law}, {covariance}, {counts}"

    @property
    def classes(self) -> int:
        return len(self.priors)

    @property
    def features(self) -> int:
        return self.means.shape[1]

    @property
    def shared(self) -> bool:
        """Whether all classes have one covariance."""
        return self.covariances.ndim == 2

    @property
    def mean_feature(self) -> Float64[np.ndarray, " d"]:
        return self.priors @ self.means

    @property
    def class_numbers(self) -> list[int]:
        """K: the number each class had where the statistics come from."""
        return class_numbers(self.provenance, self.classes)

    def covariance(self, k: int) -> np.ndarray:
        return self.covariances if self.shared else self.covariances[k]

    def restrict(self, classes: Sequence[int] | None) -> "Problem":
        """The problem among the given classes only: rows of W, means, covariances, priors renormalized.

        Raises:
            InputError: a class out of range or named twice, fewer than two, or no sample in any of them.
        """
        if classes is None:
            return self
        chosen = check_classes(classes, self.classes, len(self.weights))
        if len(self.weights) == 1:
            return self
        total = self.priors[chosen].sum()
        if total <= 0:
            raise InputError(f"classes: expected classes with a positive prior, got {listed(chosen)}")
        return replace(
            self,
            weights=self.weights[chosen],
            bias=self.bias[chosen],
            priors=self.priors[chosen] / total,
            means=self.means[chosen],
            covariances=self.covariances if self.shared else self.covariances[chosen],
            counts=None if self.counts is None else self.counts[chosen],
            components=None if self.components is None else self.components.restrict(chosen),
            provenance={
                **{name: value for name, value in self.provenance.items() if name != "risk"},  # it was that of all classes
                "classes": [self.class_numbers[k] for k in chosen],
            },
        )

    def with_bias_column(self) -> "Problem":
        """The bias as one more column of the weights, on an input that is always 1."""

        def padded(covariances: np.ndarray) -> np.ndarray:
            return np.pad(covariances, [(0, 0)] * (covariances.ndim - 2) + [(0, 1), (0, 1)])

        components = self.components
        if components is not None:
            means = np.pad(components.means, [(0, 0), (0, 1)], constant_values=1.0)
            components = replace(components, means=means, covariances=padded(components.covariances))
        return replace(
            self,
            weights=np.concatenate([self.weights, self.bias[:, None]], 1),
            bias=np.zeros_like(self.bias),
            means=np.pad(self.means, [(0, 0), (0, 1)], constant_values=1.0),
            covariances=padded(self.covariances),
            components=components,
        )

    def moved(self, origin: Float64[np.ndarray, " d"]) -> "Problem":
        """The same layer on the inputs z - origin."""
        components = self.components
        if components is not None:
            components = replace(components, means=components.means - origin)
        bias = self.bias + self.weights @ origin
        return replace(self, means=self.means - origin, bias=bias, components=components)

    def input_range(self) -> Float64[np.ndarray, "2"]:
        """Least and largest input.

        Raises:
            InputError: it is not known.
        """
        if self.feature_range is None:
            raise InputError("feature_range: missing, expected in a statistics file for scheme integer: fit it anew")
        return self.feature_range


def margin(
    weights: Float64[np.ndarray, "rows d"], bias: Float64[np.ndarray, " rows"]
) -> tuple[Float64[np.ndarray, " d"], float]:
    """The binary margin (w, c) of a head: w'z + c > 0 decides class 1. Two rows: differences; one row: itself."""
    if len(weights) == 1:
        return weights[0], float(bias[0])
    return weights[1] - weights[0], float(bias[1] - bias[0])


def two_rows(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Arrays (1, ...) of a head with one output as those of two rows, the first 0; of other heads themselves."""
    return tuple(np.concatenate([0 * x, x]) if len(x) == 1 else x for x in arrays)


def class_numbers(provenance: dict[str, Any], classes: int) -> list[int]:
    """The number each of the ``classes`` had before some were chosen."""
    chosen = provenance.get("classes")
    return chosen if isinstance(chosen, list) and len(chosen) == classes else list(range(classes))


def decide(logits: np.ndarray) -> np.ndarray:
    """(n, rows) logits to (n,) classes: argmax, ties to the lowest class; one output: 1 when positive."""
    return (logits[:, 0] > 0).astype(np.int64) if logits.shape[1] == 1 else np.argmax(logits, 1)
