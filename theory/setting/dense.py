"""A dense network with rectifiers and the Gaussian statistics of its inputs: several layers whose every part is known."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax

from theory.setting.checks import finite, head, shaped
from theory.setting.errors import InputError
from theory.setting.plan import Plan
from theory.setting.problem import Problem

HEAD = "weights"  # the last layer's tensor, as its array is called
HIDDEN = "hidden_weights_{}", "hidden_bias_{}"  # arrays of a hidden layer in a file, from 1


@dataclass(frozen=True, kw_only=True)
class DenseNetwork:
    """a = W h_L + b, h_l = max(W_l h_{l-1} + b_l, 0), inputs h_0 | class k ~ N(mu_k, Sigma_k).

    Attributes:
        hidden: of every hidden layer weights (M_l, M_{l-1}) and bias (M_l,), the first to the last.
        weights, bias: the last layer, (K, M_L) and (K,).
        inputs: the law of the inputs, whose own layer is the Bayes rule's stand-in and is not used.
        provenance: where it comes from.

    Raises:
        InputError: no hidden layer, shapes that do not go together, values that are not finite.
    """

    hidden: tuple[tuple[np.ndarray, np.ndarray], ...]
    weights: np.ndarray
    bias: np.ndarray
    inputs: Problem
    provenance: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if not self.hidden:
            raise InputError("hidden_weights_1: missing, expected in a network of several layers")
        size, checked = self.inputs.features, []
        for number, (weights, bias) in enumerate(self.hidden, 1):
            name, of_bias = (text.format(number) for text in HIDDEN)
            if np.ndim(weights) != 2 or not np.size(weights) or np.shape(weights)[1] != size:
                raise InputError(f"{name}: expected shape (units, {size}), got {np.shape(weights)}")
            finite(name, np.asarray(weights))
            size = len(weights)
            checked.append((np.asarray(weights, np.float64), shaped(of_bias, np.asarray(bias), (size,))))
        weights, bias = head(np.asarray(self.weights), np.asarray(self.bias))
        if weights.shape != (self.inputs.classes, size):
            expected = self.inputs.classes, size
            raise InputError(f"weights: expected shape {expected} of classes and units, got {weights.shape}")
        for k in range(1 if self.inputs.shared else self.inputs.classes):
            try:
                np.linalg.cholesky(self.inputs.covariance(k))
            except np.linalg.LinAlgError:
                raise InputError(
                    f"covariances: expected positive definite ones, so that inputs have a density, got a singular one ({k})"
                ) from None
        for name, value in {"hidden": tuple(checked), "weights": weights, "bias": bias}.items():
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        sizes = [self.inputs.features, *(len(bias) for _, bias in self.hidden), self.classes]
        return f"DenseNetwork: {'-'.join(map(str, sizes))}, Gaussian classes"

    @property
    def classes(self) -> int:
        return self.inputs.classes

    @property
    def layers(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weights and bias of all layers, the first to the last."""
        return [*self.hidden, (self.weights, self.bias)]

    @property
    def names(self) -> list[str]:
        """Of the weights, in the same order."""
        return [*(HIDDEN[0].format(number) for number in range(1, len(self.hidden) + 1)), HEAD]

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """(n, K) of inputs (n, d)."""
        return forward(self.layers, inputs)

    def posterior(self, inputs: np.ndarray) -> np.ndarray:
        """(n, K) of the classes given inputs (n, d), exact."""
        law = self.inputs
        log_density = np.empty((len(inputs), self.classes))
        for k in range(self.classes):
            factor = np.linalg.cholesky(law.covariance(k))
            centred = np.linalg.solve(factor, (inputs - law.means[k]).T)
            log_density[:, k] = -0.5 * np.sum(centred**2, 0) - np.log(np.diagonal(factor)).sum()
        return np.exp(log_softmax(log_density + np.log(np.maximum(law.priors, 1e-300)), 1))

    def compressed(self, plan: Plan) -> dict[str, Any]:
        """The tensors of a plan, by name."""
        own = dict(zip(self.names, self.layers, strict=True))
        return {name: tensor.compress(own[name][0]) for name, tensor in plan.tensors.items()}


def forward(layers: list[tuple[np.ndarray, np.ndarray]], inputs: np.ndarray) -> np.ndarray:
    """(n, K) logits of inputs (n, d)."""
    h = inputs
    for weights, bias in layers[:-1]:
        h = np.maximum(h @ weights.T + bias, 0)
    weights, bias = layers[-1]
    return h @ weights.T + bias
