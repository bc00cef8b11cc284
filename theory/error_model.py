"""What is random in a compressed layer: the uniform hypothesis, or one adapted to the errors of the layer at hand.

Adapted: e = alpha w + eps. A quantizer of few bits shrinks or stretches the weights it rounds (the gain alpha, see ``gain`` in
:mod:`derivations.quantizer`), and what is left scatters with the variance it was seen to have. One gain and variance for the
layer, for every row, or for every input column, whichever describes the errors best by Akaike's criterion for finite samples.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from theory.setting.error_law import UniformErrors
from theory.setting.schemes import Compressed

QUIETEST = 1e-3  # of the loudest column: one without errors is given so much, so that features can be scaled


class ErrorModel(NamedTuple):
    """Random layers mean + eps, eps_kj uniform with standard deviation rows_kj columns_j, independent but for rows that are
    tied: mean (K, d), rows (K, 1) or (K, d), columns (d,); ``group`` (K,) and ``sign`` (K, 1) or (K, d) as in
    :class:`theory.setting.error_law.UniformErrors`. ``scope`` is "uniform", "layer", "row" or "column"."""

    scope: str
    mean: Float64[np.ndarray, "K d"]
    rows: Float64[np.ndarray, "K columns"]
    columns: Float64[np.ndarray, " d"]
    group: Int64[np.ndarray, " K"]
    sign: Float64[np.ndarray, "K signs"]

    @property
    def tied(self) -> bool:
        """Whether some rows' errors are functions of each other."""
        return bool(np.any(self.group != np.arange(len(self.group))))


def independent(scope: str, mean: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> ErrorModel:
    """A model whose rows (K, 1 or d) are independent."""
    return ErrorModel(scope, mean, rows, columns, np.arange(len(mean)), np.ones((len(mean), 1)))


def uniform(weights: np.ndarray, errors: UniformErrors) -> ErrorModel:
    """The uniform hypothesis: W + E, whatever the layer's own errors."""
    deviations = np.abs(errors.wide) / np.sqrt(12)
    return ErrorModel("uniform", weights, deviations, np.ones(weights.shape[1]), errors.group, errors.sign)


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
        variance = np.maximum((model.rows * model.columns[None]) ** 2, least)
        parameters = {"layer": 2, "row": 2 * K, "column": 2 * d}[model.scope]
        return float(np.sum(np.log(variance) + (weights + E - model.mean) ** 2 / variance)) + 2 * parameters * K * d / (
            K * d - parameters - 1
        )

    return min(models.values(), key=criterion) if len(models) > 1 else models["layer"]


def gain_and_residual(weights: np.ndarray, E: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Slope of the errors in the weights along an axis, None for all of them, and the deviation of what it leaves."""
    power = np.sum(weights**2, axis, keepdims=True)
    alpha = np.sum(E * weights, axis, keepdims=True) / np.where(power > 0, power, 1.0)
    n = E.size if axis is None else E.shape[axis]
    return alpha, np.sqrt(np.sum((E - alpha * weights) ** 2, axis, keepdims=True) / max(1, n - 1))


def _fitted(scope: str, weights: np.ndarray, E: np.ndarray, axis: int | None) -> ErrorModel:
    """Gain and residual along an axis: None for the layer, 1 for every row, 0 for every column."""
    alpha, residual = gain_and_residual(weights, E, axis)
    rows, columns = np.ones(len(weights)), np.ones(weights.shape[1])
    if axis == 0:
        columns = np.maximum(residual[0], QUIETEST * residual.max())
    else:
        rows = np.broadcast_to(residual[:, 0], len(weights)).copy()
    return independent(scope, weights * (1 + alpha), rows[:, None], columns)
