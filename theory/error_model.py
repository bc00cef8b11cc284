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

TIED = 0.9  # |cosine| of the errors of two rows of proportional weights above which they are taken as tied
QUIETEST_COLUMN = 1e-3  # of the loudest column: one without errors is given so much, so that features can be scaled


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


def uniform(weights: np.ndarray, errors: UniformErrors) -> ErrorModel:
    """The uniform hypothesis: W + E, whatever the layer's own errors."""
    deviations = np.abs(errors.wide) / np.sqrt(12)
    return ErrorModel("uniform", weights, deviations, np.ones(weights.shape[1]), errors.group, errors.sign)


def adapted(weights: np.ndarray, layer: Compressed, *, tied: bool = True) -> ErrorModel:
    """The model of the errors of this compressed layer (K, d), by their empirical moments; with ``tied`` rows of proportional
    weights whose errors are so too have tied ones.

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

    model = min(models.values(), key=criterion) if len(models) > 1 else models["layer"]
    if not tied:
        return model
    group, sign = _ties(weights, E, sizes_differ=model.scope == "row")
    return model._replace(group=group, sign=sign)


def _ties(weights: np.ndarray, E: np.ndarray, *, sizes_differ: bool) -> tuple[np.ndarray, np.ndarray]:
    """Group (K,) and sign (K, 1) of rows whose weights are proportional and whose errors are, up to TIED; without
    ``sizes_differ`` only where the errors are of one size."""
    K = len(weights)
    group, sign = np.arange(K), np.ones((K, 1))
    length = np.linalg.norm(weights, axis=1, keepdims=True)
    directions = weights / np.where(length > 0, length, 1.0)
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    _, first, same = np.unique(
        np.round(directions * np.where(largest < 0, -1, 1), 6) + 0.0, axis=0, return_index=True, return_inverse=True
    )
    size = np.linalg.norm(E, axis=1)
    for k, j in enumerate(first[same.reshape(-1)]):
        if j == k or min(size[k], size[j]) == 0:
            continue
        cosine, ratio = float(E[k] @ E[j]) / (size[k] * size[j]), size[k] / size[j]
        if abs(cosine) > TIED and (sizes_differ or TIED < ratio < 1 / TIED):
            group[k], sign[k] = j, np.sign(cosine)
    return group, sign


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
        columns = np.maximum(residual[0], QUIETEST_COLUMN * residual.max())
    else:
        rows = np.broadcast_to(residual[:, 0], len(weights)).copy()
    return ErrorModel(scope, weights * (1 + alpha), rows[:, None], columns, np.arange(len(weights)), np.ones((len(weights), 1)))
