"""The uniform hypothesis on the errors of a layer, with what its weights alone say of the rows.

Two rows that are the same or the opposite when measured in their steps have errors that are functions of each other:
w_1 = -w_0 makes e_1 = -e_0, so that the margin has twice the noise of independent errors; but a weight between two levels
may be rounded up in both rows. A row of zeros has no errors where zero is a level.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from theory.setting.schemes import Compressed

SQUARE_VARIANCE = 4 / 5  # of 12 U^2, U uniform on +-1/2: its mean is 1
NEAR = 2e-6  # of the largest weight of a row: what computing in float32 leaves between rows that are opposite


class UniformErrors(NamedTuple):
    """E_kj = sign_kj steps_kj U_ij with i = group_k, the U independent and uniform on (-1/2, 1/2).

    steps: (rows, 1), or (rows, d) where groups of weights have their own. group: (rows,), each the lowest row of those tied to
    each other. sign: (rows, 1), or (rows, d) where it differs along a row: 1, -1, or 0 for a row without errors.
    """

    steps: Float64[np.ndarray, "rows columns"]
    group: Int64[np.ndarray, " rows"]
    sign: Float64[np.ndarray, "rows signs"]

    @property
    def tied(self) -> bool:
        """Whether some rows' errors are functions of each other."""
        return bool(np.any(self.group != np.arange(len(self.group))))

    @property
    def wide(self) -> Float64[np.ndarray, "rows columns"]:
        """Steps with the sign: what a row's uniforms are multiplied by."""
        return self.sign * self.steps

    def of(self, uniforms: np.ndarray) -> np.ndarray:
        """Errors (..., rows, d) from uniforms (..., rows, d) on (-1/2, 1/2)."""
        return uniforms[..., self.group, :] * self.wide if self.tied else uniforms * self.wide


def uniform_errors(weights: Float64[np.ndarray, "rows d"], layer: Compressed, *, tied: bool = True) -> UniformErrors:
    """The uniform errors of a compressed layer; with ``tied`` rows that are tied have tied errors, else all are independent."""
    if not tied:
        return independent_errors(layer.steps)
    return UniformErrors(layer.steps, *row_ties(weights, layer))


def independent_errors(steps: Float64[np.ndarray, "rows columns"]) -> UniformErrors:
    """Independent uniform errors of these steps."""
    return UniformErrors(steps, np.arange(len(steps)), np.ones((len(steps), 1)))


def row_ties(weights: np.ndarray, layer: Compressed) -> tuple[np.ndarray, np.ndarray]:
    """Group and sign of each row, as :class:`UniformErrors` has them: of rows whose weights over steps are the same or opposite
    up to NEAR, and whose errors are so too, entry by entry."""
    E = layer.weights - weights
    group, sign = np.arange(len(weights)), np.ones(weights.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(layer.steps > 0, weights / layer.steps, 0.0)
        errors = np.where(layer.steps > 0, E / layer.steps, 0.0)
    # rows that may be alike: their projections on one direction are, which are sorted
    seen = np.abs(scaled @ np.random.default_rng(0).standard_normal(scaled.shape[1]))
    slack = NEAR * np.sum(np.abs(scaled), 1)
    order = np.argsort(seen, kind="stable")
    first = np.searchsorted(seen[order], seen - 4 * slack, "left")
    last = np.searchsorted(seen[order], seen + 4 * slack, "right")
    for k, row in enumerate(scaled):
        if not row.any() and not errors[k].any():
            sign[k] = 0.0
            continue
        near = np.sort(order[first[k] : last[k]])
        for j in near[(near < k) & (group[near] == near)]:
            sides = (_signs(row, x * scaled[j], errors[k], errors[j], x) for x in (1.0, -1.0))
            found = next((side for side in sides if side is not None), None)
            if found is not None:
                group[k], sign[k] = j, found
                break
    return group, sign if np.any(sign != sign[:, :1]) else sign[:, :1]


def _signs(row: np.ndarray, other: np.ndarray, error: np.ndarray, other_error: np.ndarray, side: float) -> np.ndarray | None:
    """(d,) error over other error, 1 or -1: ``side`` where both are on the same side of their level, else the opposite, which
    is so of weights between two levels. None where rows that are the same up to NEAR have errors that are not; but at the ends
    of the row a quantizer may clip one side and not the other."""
    size = np.abs(row).max()
    near = NEAR * size if size > 0 else NEAR
    if np.abs(row - other).max() > near:
        return None
    same = (np.abs(error - side * other_error) <= near) | (np.abs(row) >= (1 - NEAR) * size) & (size > 0)
    opposite = np.abs(error + side * other_error) <= near
    return np.where(same, side, -side) if np.all(same | opposite) else None
