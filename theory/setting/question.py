"""What is asked of a layer: the scheme with its options, and what they make of the layer and its inputs.

The bias compressed with the weights is one more column of W on an input that is always 1. The correction of the bias,
(W - What) zbar, is a change of origin: W z + b = W (z - zbar) + (b + W zbar), where the last term is held. So every theory and
every simulation of a layer with its bias held answers for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, TypeVar

import numpy as np

from theory.setting.arguments import whole, widths
from theory.setting.compression import CRITERIA, SCHEMES, Compressed, check_bits, compress, uniform
from theory.setting.errors import InputError
from theory.setting.files import Features
from theory.setting.problem import Problem

Subject = TypeVar("Subject", bound=Problem | Features)
FEW = 16  # layers held at once
ROUNDING = 1e-13  # distortion, or squared error over the squared weights, within which two steps are as good


class Options(TypedDict, total=False):
    """Options of a scheme, by keyword.

    per_channel: one step per row instead of one per tensor. sparsity: fraction of weights or units that become 0. unit,
    map_size: what ``prune-structured`` removes. criterion: of ``optimal``, least predicted ``distortion`` (default) or least
    squared error ``mse``. bias: compress the bias as one more column. bias_correction: add (W - What) zbar to the bias, zbar
    the mean feature. activation_bits: of the inputs of ``integer``.
    """

    per_channel: bool
    sparsity: float | None
    unit: str | None
    map_size: int | None
    criterion: str | None
    bias: bool
    bias_correction: bool
    activation_bits: int | None


@dataclass(frozen=True, kw_only=True)
class Question:
    """A scheme and its Options."""

    scheme: str
    per_channel: bool = False
    sparsity: float | None = None
    unit: str | None = None
    map_size: int | None = None
    criterion: str | None = None
    bias: bool = False
    bias_correction: bool = False
    activation_bits: int | None = None

    def layers(
        self, subject: Problem | Features, bits: Sequence[int] | None, temperature: float | None = None
    ) -> list[Compressed]:
        """The compressed layer at each width, of weights that already hold the bias where it is asked for. The temperature,
        where given, is that of the posteriors by which features say the distortion of a step.

        Raises:
            InputError: widths or options that the scheme does not have.
        """
        found = []
        for width in [None] if bits is None else widths(bits):
            check_bits(self.scheme, width)
            options: dict[str, Any] = {"per_channel": self.per_channel}
            if SCHEMES[self.scheme].sparsity or self.sparsity is not None:
                options["sparsity"] = self.sparsity
            if self.unit is not None or self.map_size is not None:
                options |= {"unit": self.unit, "map_size": self.map_size}
            if self.scheme == "optimal":
                assert width is not None  # check_bits has seen to it
                options["k"] = self._finest(subject, width, temperature)
            found.append(compress(subject.weights, self.scheme, width, **options))
        return found

    def _finest(self, subject: Problem | Features, bits: int, temperature: float | None) -> int:
        """k of ``optimal``: the largest one of the least predicted distortion or squared error."""
        ks = range(1, uniform.PER_STEP + 1)

        def layer(k: int) -> np.ndarray:
            return compress(subject.weights, "optimal", bits, per_channel=self.per_channel, k=k).weights

        if self.criterion == "mse":
            costs = np.array([np.sum((layer(k) - subject.weights) ** 2) for k in ks])
        else:
            from theory.choose import distortions  # what the theory says, the only thing of it that the setting asks for

            some = FEW if isinstance(subject, Features) else len(ks)  # layers of networks with features can be large
            parts = [ks[i : i + some] for i in range(0, len(ks), some)]
            costs = np.concatenate([distortions(subject, np.stack([layer(k) for k in part]), temperature) for part in parts])
        scale = float(np.sum(subject.weights**2)) if self.criterion == "mse" else 1.0
        alike = costs <= costs.min() + ROUNDING * scale
        return ks[int(np.flatnonzero(alike)[-1])]

    def of(self, subject: Subject) -> Subject:
        """The problem or features as the compressed layer meets them: the bias a weight, the origin moved. (Of ``integer`` as
        they are: :mod:`theory.setting.integer` sees to it.)"""
        if self.scheme == "integer":
            return subject
        origin = self.origin(subject)
        if self.bias:
            subject = _with_bias_as_weight(subject)
        return _moved(subject, origin) if self.bias_correction else subject

    def origin(self, subject: Problem | Features) -> np.ndarray:
        """What is taken off the inputs of the compressed layer: the mean feature where the bias is corrected, else 0."""
        inputs = subject.weights.shape[1] + self.bias
        if not self.bias_correction:
            return np.zeros(inputs)
        return np.append(subject.mean_feature, 0.0)[:inputs]


def question(scheme: str, **options: Any) -> Question:
    """A scheme and its options, checked.

    Raises:
        InputError: an option there is none of, or that the scheme does not have.
    """
    known = [one.name for one in fields(Question)]
    for name in options:
        if name not in known:
            raise InputError(f"{name}: expected one of the options {', '.join(known[1:])}, got another one")
    if scheme not in SCHEMES:
        raise InputError(f"scheme: expected one of {', '.join(SCHEMES)}, got {scheme!r}")
    asked = Question(scheme=scheme, **options)
    if asked.criterion is not None and (scheme != "optimal" or asked.criterion not in CRITERIA):
        expected = f"one of {', '.join(CRITERIA)}" if scheme == "optimal" else f"none for scheme {scheme}"
        raise InputError(f"criterion: expected {expected}, got {asked.criterion!r}")
    if (asked.activation_bits is None) == (scheme == "integer"):
        expected = "a width from 2 to 16" if scheme == "integer" else f"none for scheme {scheme}"
        raise InputError(f"activation_bits: expected {expected}, got {asked.activation_bits}")
    if asked.activation_bits is not None:
        whole("activation_bits", asked.activation_bits, 2, 17)
        if asked.bias:
            raise InputError("bias: expected none for scheme integer, whose bias is a 32-bit integer")
    if asked.map_size is not None:
        whole("map_size", asked.map_size, 1)
    return asked


def _with_bias_as_weight(subject: Subject) -> Subject:
    weights, bias = np.concatenate([subject.weights, subject.bias[:, None]], 1), np.zeros_like(subject.bias)
    if isinstance(subject, Features):
        ones = np.ones((len(subject.features), 1), subject.features.dtype)
        return replace(subject, features=np.concatenate([subject.features, ones], 1), weights=weights, bias=bias)

    def padded(covariances: np.ndarray) -> np.ndarray:
        return np.pad(covariances, [(0, 0)] * (covariances.ndim - 2) + [(0, 1), (0, 1)])

    components = subject.components
    if components is not None:
        means = np.pad(components.means, [(0, 0), (0, 1)], constant_values=1.0)
        components = replace(components, means=means, covariances=padded(components.covariances))
    means = np.pad(subject.means, [(0, 0), (0, 1)], constant_values=1.0)
    laws: dict[str, Any] = {"means": means, "covariances": padded(subject.covariances), "components": components}
    return replace(subject, weights=weights, bias=bias, **laws)


def _moved(subject: Subject, origin: np.ndarray) -> Subject:
    bias = subject.bias + subject.weights @ origin
    if isinstance(subject, Features):
        return replace(subject, features=subject.features.astype(np.float64) - origin, bias=bias)
    components = subject.components
    if components is not None:
        components = replace(components, means=components.means - origin)
    return replace(subject, means=subject.means - origin, bias=bias, components=components)
