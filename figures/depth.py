"""Dense networks of one to six layers, random errors in all of them: distortion predicted and counted."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.compare import Cell, row
from simulate.estimates import NORMAL_95
from simulate.experiments.depth import CLASSES, FEATURES
from simulate.experiments.real import shipped_table

NAME = "depth"
QUANTITIES = {  # theory with its error of 95 %, simulation with its standard error
    "distortion": ("predicted", "numerical_error", "distortion", "standard_error"),
    "flip_rate": ("predicted_flips", "flips_error", "flips", "flips_standard_error"),
}
LOOKS = (("#000000", "o", "-"), ("#0072B2", "s", "--"), ("#D55E00", "^", "-."), ("#009E73", "D", ":"))


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.depth`; nothing is drawn, whatever the seed."""
    table, comparison = shipped_table(NAME), []
    for one in table:
        problem = f"{_title(one['layer'], one['width'])}, {one['depth']} layers"
        details = (CLASSES, FEATURES, "symmetric", one["bits"], "expected", one["method"], "approximation")
        for quantity, names in QUANTITIES.items():
            theory, known, seen, error = (one[name] for name in names)
            comparison.append(row(Cell(NAME, problem, quantity, *details), theory, seen, error, theory_error=known / NORMAL_95))
    return table, comparison


def draw(table: list[dict[str, Any]]):
    """A panel a width of the codes; bars are 95 % of either side's own error."""
    widths = sorted({one["bits"] for one in table})
    cases = list(dict.fromkeys((one["layer"], one["width"]) for one in table))
    figure, axes = plt.subplots(1, len(widths), figsize=(7, 2.7), squeeze=False)
    for axis, bits in zip(axes[0], widths, strict=True):
        for (layer, width), (color, marker, line) in zip(cases, LOOKS, strict=False):
            rows = [one for one in table if (one["layer"], one["width"], one["bits"]) == (layer, width, bits)]
            depth = np.array([one["depth"] for one in rows])
            theory, error, seen, noise = (
                100 * np.array([one[name] for one in rows])
                for name in ("predicted", "numerical_error", "distortion", "standard_error")
            )
            axis.fill_between(depth, theory - error, theory + error, color=color, alpha=0.15, linewidth=0)
            axis.plot(depth, theory, line, color=color, label=_title(layer, width))
            axis.errorbar(
                depth,
                seen,
                NORMAL_95 * noise,
                label="counted on networks drawn, 95 %" if (layer, width) == cases[0] else None,
                **{**style.SIMULATION, "color": color, "marker": marker, "markerfacecolor": "none"},
            )
        axis.set_title(f"{bits} bits")
        axis.set_xlabel("layers")
        axis.set_xticks(sorted({one["depth"] for one in table}))
        axis.set_ylim(0)
    axes[0][0].set_ylabel("expected distortion\n(percentage points)")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _title(layer: str, width: int) -> str:
    return f"{width} units, {'trained' if layer == 'trained' else 'Gaussian'}, predicted"
