"""The look of every figure: dictionaries for ``rc_context`` and one style per method, told apart in grey print too."""

from pathlib import Path
from typing import Any

import numpy as np

from simulate.estimates import NORMAL_95

# Okabe and Ito's colours (jfly.uni-koeln.de/color), safe for colour-blind readers; line styles and markers carry grey print.
METHODS: dict[str, dict[str, Any]] = {
    "margin_quadrature": {"color": "#000000", "linestyle": "-", "label": "margin quadrature"},
    "corrected_marginal": {"color": "#0072B2", "linestyle": "--", "label": "corrected marginal"},
    "marginal": {"color": "#E69F00", "linestyle": "-.", "label": "marginal (textbook)"},
    "delta_2": {"color": "#CC79A7", "linestyle": ":", "label": "delta method, order 2"},
}
SIMULATION: dict[str, Any] = {
    "color": "#D55E00",
    "marker": "o",
    "linestyle": "none",
    "markersize": 3.5,
    "capsize": 2,
    "elinewidth": 0.9,
    "zorder": 5,
}
REFERENCE: dict[str, Any] = {
    "color": "#009E73",
    "marker": "D",
    "linestyle": "none",
    "markersize": 3.5,
    "capsize": 2,
    "markerfacecolor": "none",
    "elinewidth": 0.9,
    "zorder": 6,
}
POINTS = {name: value for name, value in REFERENCE.items() if name not in ("capsize", "elinewidth")}  # without bars


def rc() -> Any:
    """Settings for a two-column paper: 8-point text, thin axes, a light grid, fonts kept as text in the PDF."""
    return {
        "font.size": 8,
        "axes.titlesize": 8,
        "figure.titlesize": 8,
        "axes.labelsize": 8,
        "legend.fontsize": 7,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "axes.grid": True,
        "grid.linewidth": 0.4,
        "grid.alpha": 0.35,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
        "savefig.dpi": 200,
        "pdf.fonttype": 42,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }


def save(figure, place: Path) -> None:
    """PDF and PNG, laid out once for both, in the two passes that it takes."""
    for _ in range(2):
        figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    figure.savefig(place.with_suffix(".pdf"), metadata={"CreationDate": None})
    figure.savefig(place.with_suffix(".png"))


def ratios(axis, x: np.ndarray, ratio: np.ndarray, low: float, high: float, **style: Any) -> None:
    """Ratios on an axis from ``low`` to ``high``; a triangle at its edge stands for one that lies beyond."""
    axis.plot(x, ratio, **style)
    axis.set_ylim(low, high)
    for beyond, edge, marker in ((ratio > high, high, 6), (ratio < low, low, 7)):  # carets up and down, tips at the edge
        axis.plot(x[beyond], np.full(np.count_nonzero(beyond), edge), marker=marker, color=style["color"], linestyle="none")


def size(rows: int, columns: int) -> tuple[float, float]:
    """Figure size in inches for a grid of panels, at most 7 wide."""
    return min(7.0, 2.33 * columns), 2.1 * rows + 0.35


def points_or_bounds(axis, x: np.ndarray, value: np.ndarray, standard_error: np.ndarray, **style: Any) -> None:
    """Positive quantities on a log axis: where they are known to two standard errors the value with its 95 % interval, else
    an arrow down from its upper end. (Points shown where they happen to be large only would lie too high.)"""
    half = NORMAL_95 * standard_error
    known = value > 2 * standard_error
    lower = np.minimum(half, 0.999 * np.maximum(value, 0))
    axis.errorbar(x[known], value[known], np.stack([lower, half])[:, known], **style)
    ends = np.maximum(value + half, 0)[~known]
    if (ends > 0).any():
        bound = {**style, "marker": "none", "label": "_bound"}
        axis.errorbar(x[~known], ends, 0.45 * ends, uplims=True, **bound)
