"""What is asked of a layer: the scheme with its options, and what they make of the layer and its inputs.

The bias compressed with the weights is one more column of W on an input that is always 1. The correction of the bias,
(W - What) zbar, is a change of origin: W z + b = W (z - zbar) + (b + W zbar), where the last term is held. So every theory and
every simulation of a layer with its bias held answers for both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from theory.setting.checks import widths
from theory.setting.dense import DenseNetwork
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import given_plan
from theory.setting.plan import Plan, TensorPlan, network_plans, with_least_squares
from theory.setting.problem import Problem
from theory.setting.schemes import OPTIONS, Scheme, scheme_of

Subject = TypeVar("Subject", bound=Problem | Features)
BIAS_OPTIONS = ("bias", "bias_correction")
NETWORK_OPTIONS = ("layers", "layer_bits", "plan")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A scheme, those of its options that are given, and what becomes of the bias.

    ``bias``: compressed as one more column. ``bias_correction``: (W - What) zbar is added to it, zbar the mean feature.
    """

    scheme: Scheme
    options: dict[str, Any] = field(default_factory=dict)
    bias: bool = False
    bias_correction: bool = False

    @property
    def activation_bits(self) -> int | None:
        """Bits of the inputs, where they are integers too."""
        return self.options.get("activation_bits")

    def plans(self, bits: Sequence[int] | int | None) -> list[Plan]:
        """A plan for each width, the step of ``optimal`` still open.

        Raises:
            InputError: widths that the scheme does not have.
        """
        plans = []
        for width in [None] if bits is None else widths(bits):
            self.scheme.check_bits(width)
            plans.append(Plan(tensors={"weights": TensorPlan(scheme=self.scheme.name, bits=width, options=self.options)}))
        return plans

    def network_plans(
        self,
        names: Iterable[str],
        bits: Sequence[int] | int | None,
        *,
        layers: Sequence[str] | None = None,
        layer_bits: Mapping[str, int] | None = None,
        plan: Any = None,
        fold: bool = False,
    ) -> list[Plan]:
        """A plan for each width of all layers of a network (:func:`theory.setting.plan.network_plans`), or the ``plan``
        given, a document or its file.

        Raises:
            InputError: a layer there is none of, widths that the scheme does not have, a plan of another network.
        """
        if self.bias or self.bias_correction:
            raise InputError("bias, bias_correction: expected none with several layers, whose biases are held")
        if plan is not None:
            beside = {"bits": bits, "layers": layers, "layer_bits": layer_bits, **self.options}
            return [given_plan(plan, names, self.scheme.name, beside, fold=fold)]
        own: dict[str, Any] = dict(layers=layers, layer_bits=layer_bits, options=self.options, fold=fold)
        return network_plans(names, self.scheme.name, bits, **own)

    def of(self, subject: Subject) -> Subject:
        """The problem or features as the compressed layer meets them: the bias a weight, the origin moved. (Of ``integer`` as
        they are: :mod:`theory.setting.integer` sees to it.)"""
        if self.activation_bits is not None:
            return subject
        met: Any = subject.with_bias_column() if self.bias else subject
        return met.moved(self.origin(subject)) if self.bias_correction else met

    def origin(self, subject: Problem | Features) -> np.ndarray:
        """What is taken off the inputs of the compressed layer: the mean feature where the bias is corrected, else 0."""
        inputs = subject.weights.shape[1] + self.bias
        if not self.bias_correction:
            return np.zeros(inputs)
        return np.append(subject.mean_feature, 0.0)[:inputs]

    def correction(self, subject: Problem | Features, What: np.ndarray) -> np.ndarray:
        """(rows,) what is added to the bias of a layer What: (W - What) zbar, or 0. The subject is as it was given."""
        weights = subject.with_bias_column().weights if self.bias else subject.weights
        return (weights - What) @ self.origin(subject)


def question(scheme: str, **options: Any) -> Question:
    """A scheme and its options, checked.

    Args:
        scheme: a name in :data:`theory.setting.schemes.SCHEMES`.
        options: those of the scheme (:data:`theory.setting.schemes.OPTIONS`), ``bias`` and ``bias_correction``.

    Raises:
        InputError: an option there is none of, or that the scheme does not have.
    """
    known = scheme_of(scheme)
    own = {name: value for name, value in options.items() if name not in BIAS_OPTIONS}
    for name in own:
        if name in NETWORK_OPTIONS:
            raise InputError(f"{name}: expected none for a single layer, whose options are of its scheme; it is of a network")
        if name not in OPTIONS:
            listed = [option for option in OPTIONS if OPTIONS[option].listed]
            raise InputError(f"{name}: expected one of the options {', '.join([*listed, *BIAS_OPTIONS])}, got another one")
    given = known.check_options(OPTIONS, own)
    bias, correction = (bool(options.get(name, False)) for name in BIAS_OPTIONS)
    if bias and not known.bias_column:
        raise InputError(f"bias: expected none for scheme {scheme}, whose bias is a 32-bit integer")
    return Question(scheme=known, options=given, bias=bias, bias_correction=correction)


def plans_of(network: DenseNetwork, scheme: str, bits: Sequence[int] | int | None, **options: Any) -> list[Plan]:
    """What becomes of each layer of a dense network, a plan a width; ``options`` as :meth:`Question.network_plans` and of the
    scheme.

    Raises:
        InputError: options that it does not know.
    """
    own = {name: options.pop(name, None) for name in NETWORK_OPTIONS}
    asked = question(scheme, **options)
    if asked.activation_bits is not None:
        raise InputError("activation_bits: expected none with a dense network of several layers")
    weights = {name: layer[0] for name, layer in zip(network.names, network.layers, strict=True)}
    return with_least_squares(asked.network_plans(network.names, bits, **own), weights)
