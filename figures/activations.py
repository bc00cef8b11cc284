"""A real network whose weights and activations are compressed together: the loss predicted beside networks run."""

from typing import Any

import matplotlib.pyplot as plt

from figures.all_layers import comparison_of, losses, title
from simulate.experiments.real import shipped_table

NAME = "activations"


def compute(seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The shipped table of :mod:`simulate.experiments.all_layers`, inputs of layers rounded; nothing is drawn, whatever the
    seed."""
    table = shipped_table(NAME)
    return table, comparison_of(table, NAME)


def draw(table: list[dict[str, Any]]):
    """A panel a granularity and width of the inputs of layers."""
    panels = list(dict.fromkeys((one["network"], one["granularity"], one["activation_bits"]) for one in table))
    figure, axes = plt.subplots(1, len(panels), figsize=(7, 2.7), sharey=True, squeeze=False)
    for axis, (network, granularity, width) in zip(axes[0], panels, strict=True):
        chosen = (network, granularity, width)
        losses(axis, [one for one in table if (one["network"], one["granularity"], one["activation_bits"]) == chosen])
        axis.set_title(f"a step a {granularity},\nactivations of {width} bits")
    axes[0, 0].set_ylabel(f"{title(table[0]['network'])}, loss\n(percentage points)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
