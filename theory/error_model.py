"""What is random in a compressed layer: the uniform hypothesis, or one adapted to the errors of the layer at hand.

Adapted: e = alpha w + eps. A quantizer of few bits shrinks or stretches the weights it rounds (the gain alpha, see ``gain`` in
:mod:`derivations.quantizer`), and what is left scatters with the variance it was seen to have. One gain and variance for the
layer, for every row, or for every input column, whichever describes the errors best by Akaike's criterion for finite samples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from theory.setting.compression import Compressed

QUIETEST = 1e-3  # of the loudest column: one without errors is given so much, so that features can be scaled


class ErrorModel(NamedTuple):
    """Random layers mean + eps, eps_kj independent and uniform with standard deviation rows_k columns_j: mean (K, d), rows
    (K,), columns (d,); ``scope`` is "uniform", "layer", "row" or "column"."""

    scope: str
    mean: Float64[np.ndarray, "K d"]
    rows: Float64[np.ndarray, " K"]
    columns: Float64[np.ndarray, " d"]


def uniform(weights: np.ndarray, steps: np.ndarray) -> ErrorModel:
    """The uniform hypothesis: W + E, E in +-steps/2, whatever the layer's own errors."""
    return ErrorModel("uniform", weights, steps / np.sqrt(12), np.ones(weights.shape[1]))


def adapted(weights: np.ndarray, layer: Compressed) -> ErrorModel:
    """The model of the errors of this compressed layer (K, d), by their empirical moments.

    Of layers with a step a row, or few rows, the scopes in question are those that leave two errors or more a parameter.
    """
    E, (K, d) = layer.weights - weights, weights.shape
    models = {"layer": _fitted("layer", weights, E, None)}
    if layer.granularity == "channel" and d >= 4 and K > 1:
        models["row"] = _fitted("row", weights, E, 1)
    if K >= 4:
        models["column"] = _fitted("column", weights, E, 0)
    least = max(float(np.mean(E**2)), 1e-300) * 1e-6

    def criterion(model: ErrorModel) -> float:
        variance = np.maximum((model.rows[:, None] * model.columns[None]) ** 2, least)
        parameters = {"layer": 2, "row": 2 * K, "column": 2 * d}[model.scope]
        return float(np.sum(np.log(variance) + (weights + E - model.mean) ** 2 / variance)) + 2 * parameters * K * d / (
            K * d - parameters - 1
        )

    return min(models.values(), key=criterion) if len(models) > 1 else models["layer"]


def _fitted(scope: str, weights: np.ndarray, E: np.ndarray, axis: int | None) -> ErrorModel:
    """Gain and residual along an axis: None for the layer, 1 for every row, 0 for every column."""
    power = np.sum(weights**2, axis, keepdims=True)
    alpha = np.sum(E * weights, axis, keepdims=True) / np.where(power > 0, power, 1.0)
    n = E.size if axis is None else E.shape[axis]
    residual = np.sqrt(np.sum((E - alpha * weights) ** 2, axis, keepdims=True) / max(1, n - 1))
    rows, columns = np.ones(len(weights)), np.ones(weights.shape[1])
    if axis == 0:
        columns = np.maximum(residual[0], QUIETEST * residual.max())
    else:
        rows = np.broadcast_to(residual[:, 0], len(weights)).copy()
    return ErrorModel(scope, weights * (1 + alpha), rows, columns)
