"""Synthetic dense networks: rectified layers on Gaussian inputs."""

from dataclasses import replace
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from simulate.generator import LAYERS
from simulate.generator import synthetic as one_layer
from simulate.logistic import PENALTY, samples_of, trained_layer
from theory.setting.checks import whole
from theory.setting.dense import DenseNetwork
from theory.setting.errors import InputError
from theory.setting.precision import in_float64
from theory.setting.problem import Problem

SAMPLES = 20  # a feature of the widest layer, to train on
BIAS = 0.1  # standard deviation of the biases of hidden layers
MOST_DEPTH, MOST_WIDTH = 64, 2**13
STEPS = 100  # of the training of the last layer, and of all


def synthetic(
    *, depth: int = 1, width: int | None = None, layer: str = "optimal", seed: int = 0, **options: Any
) -> Problem | DenseNetwork:
    """A synthetic problem, or a dense network of several layers on its features.

    Args:
        depth: layers of weights; of 1 the problem of :func:`simulate.generator.synthetic`, which has the other options.
        width: of a network, units of each hidden layer.
        layer: of a problem as there; of a network as :func:`dense_network`. seed: of all of it.

    Raises:
        InputError: an option out of range.
    """
    if whole("depth", depth, 1, MOST_DEPTH + 1) == 1:
        if width is not None:
            raise InputError("width: expected none with depth 1, which has no hidden layer")
        return one_layer(layer=layer, seed=seed, **options)
    if width is None:
        raise InputError(f"width: expected the units of the hidden layers of depth {depth}, got none")
    if layer not in LAYERS:
        raise InputError(f"layer: expected one of {', '.join(LAYERS)}, got {layer!r}")
    return dense_network(one_layer(seed=seed, **options), depth=depth, width=width, layer=layer, seed=seed)


@in_float64
def dense_network(inputs: Problem, *, depth: int, width: int, layer: str, seed: int) -> DenseNetwork:
    """A network of ``depth`` layers, hidden ones of ``width`` units, on the inputs of a problem.

    Weights of hidden layers are N(0, 2/inputs), biases N(0, 0.01); the last layer is multinomial logistic regression on their
    outputs for 20 samples a unit of the widest layer. With ``layer`` "perturbed" 0.15 mean|W| N(0, 1) is added to it; with
    "trained" all layers are then trained together by L-BFGS.

    Raises:
        InputError: a width out of range.
    """
    width = whole("width", width, 1, MOST_WIDTH + 1)
    rng, hidden, size = np.random.default_rng([seed, 10]), [], inputs.features
    for _ in range(depth - 1):
        hidden.append((rng.standard_normal((width, size)) * np.sqrt(2 / size), BIAS * rng.standard_normal(width)))
        size = width
    x, labels = samples_of(rng, inputs, SAMPLES * max(width, inputs.features))
    features = x
    for weights, bias in hidden:
        features = np.maximum(features @ weights.T + bias, 0)
    K = inputs.classes
    weights, bias = trained_layer(np.zeros((K, width)), np.zeros(K), features, labels, STEPS)
    if layer == "perturbed":
        weights = weights + 0.15 * np.abs(weights).mean() * rng.standard_normal(weights.shape)
    layers = [*hidden, (weights, bias)]
    if layer == "trained":
        layers = _trained_together(layers, x, labels)
    *hidden, (weights, bias) = layers
    provenance = {**inputs.provenance, "depth": depth, "width": width, "layer": layer}
    stand_in = replace(inputs, provenance={})
    return DenseNetwork(hidden=tuple(hidden), weights=weights, bias=bias, inputs=stand_in, provenance=provenance)


def _trained_together(layers: list, x: np.ndarray, labels: np.ndarray) -> list:
    """The layers of less penalized cross-entropy, sought from the given ones."""
    flat, back = jax.flatten_util.ravel_pytree([tuple(map(jnp.asarray, layer)) for layer in layers])
    inputs, classes = jnp.asarray(x), jnp.asarray(labels)

    @jax.jit
    @jax.value_and_grad
    def loss(values):
        h, total, made = inputs, 0.0, back(values)
        for number, (weights, bias) in enumerate(made):
            h = h @ weights.T + bias[None]
            total += jnp.sum(weights**2)
            h = h if number + 1 == len(made) else jnp.maximum(h, 0)
        picked = jnp.take_along_axis(jax.nn.log_softmax(h), classes[:, None], 1)
        return -jnp.mean(picked) + 0.5 * PENALTY * total

    def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = loss(jnp.asarray(values))
        return float(value), np.asarray(gradient)

    found = minimize(cost, np.asarray(flat), jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return [tuple(map(np.asarray, layer)) for layer in back(jnp.asarray(found.x))]
