"""What is worth a sentence about a compressed layer, whoever looks at it: rows that rounding deletes, and its size."""

from collections.abc import Sequence

import numpy as np

from theory.setting.errors import listed
from theory.setting.schemes import Compressed

NEAR_CHANCE = 1.25  # of 1/K: an accuracy below is worth a sentence
MOST_ZEROS = 0.9  # share of the weights that were not 0 and become 0 that is worth a sentence


def near_chance(right: float, classes: int) -> list[str]:
    """The sentence on a clean layer that is hardly ever right for the labels, if it is not."""
    if right >= NEAR_CHANCE / classes:
        return []
    return [f"the clean layer is right for {right:.2%} of the samples, chance is {1 / classes:.2%}: are the labels its own?"]


def remarks(
    weights: np.ndarray,
    layer: Compressed,
    source_bits: int,
    *,
    bias_column: bool = False,
    class_numbers: Sequence[int] | None = None,
) -> list[str]:
    """The sentences for a layer (rows, d) and its compressed one; none where nothing is lost but precision.

    With ``bias_column`` the last column is the bias. ``class_numbers`` are the names of the rows (default 0, 1, ...).
    """
    names = list(range(len(weights)) if class_numbers is None or len(class_numbers) != len(weights) else class_numbers)
    rows, after = weights.reshape(len(weights), -1), layer.weights.reshape(len(weights), -1)
    inputs = slice(0, rows.shape[1] - bias_column)
    live, found = rows != 0, []
    gone = live & (after == 0)
    emptied = np.flatnonzero(gone[:, inputs].any(1) & ~after[:, inputs].any(1))
    left = live.sum() - gone.sum()
    if not layer.sparsity and gone.any() and (gone.sum() >= MOST_ZEROS * live.sum() or left <= 1):
        row, column = np.unravel_index(int(np.argmax(np.abs(rows))), rows.shape)
        name = f"bias[{names[row]}]" if bias_column and column == rows.shape[1] - 1 else f"weights[{names[row]}, {column}]"
        found.append(f"{gone.sum()} of {live.sum()} weights become 0: {name} = {rows[row, column]:.4g} sets the step")
    if len(emptied):
        which = [names[k] for k in emptied]
        found.append(f"all weights of row {listed(which)} become 0: at most the bias decides for {_classes(which)}")
    later = _equal_to_an_earlier(after[:, inputs]) & ~_equal_to_an_earlier(rows[:, inputs])
    alike = np.setdiff1d(np.flatnonzero(later), emptied)
    if len(alike):
        which = [names[k] for k in alike]
        found.append(f"row {listed(which)} becomes equal to an earlier one: at most the bias tells {_classes(which)} from it")
    if layer.rate > source_bits:
        found.append(f"{layer.rate:.4g} stored bits per weight are more than the {source_bits} of the file it came from")
    return found


def _classes(rows: Sequence[int]) -> str:
    return f"class {rows[0]}" if len(rows) == 1 else f"{len(rows)} classes"


def _equal_to_an_earlier(rows: np.ndarray) -> np.ndarray:
    """(rows,) whether a row is the same as one before it."""
    _, first, same = np.unique(rows + 0.0, axis=0, return_index=True, return_inverse=True)
    return first[same.reshape(-1)] != np.arange(len(rows))
