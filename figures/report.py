"""Making the figures: PDF, PNG and the numbers as CSV, and the comparison of theory and simulation."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from figures import (
    activations,
    actual_errors,
    all_layers,
    allocations,
    choices,
    compare,
    depth,
    distortion,
    failure_map,
    many_classes,
    power,
    quantization_errors,
    rate_distortion,
    real_classes,
    real_hypotheses,
    real_margins,
    real_models,
    real_pairs,
    sensitivities,
    slopes,
    spread,
    style,
    unlabelled,
)
from theory.setting.archive import write_csv
from theory.setting.command_line import say
from theory.setting.errors import InputError
from theory.setting.precision import in_float64

FIGURES: dict[str, ModuleType] = {
    module.NAME: module
    for module in (
        quantization_errors,  # the first figure within seconds
        distortion,
        failure_map,
        spread,
        actual_errors,
        many_classes,
        slopes,
        real_pairs,
        real_classes,
        real_margins,
        real_hypotheses,
        real_models,
        rate_distortion,
        choices,
        power,
        all_layers,
        activations,
        sensitivities,
        unlabelled,
        allocations,
        depth,
    )
}


@in_float64
def report(names: Sequence[str] = (), *, out: Path | str = "out", seed: int = 0) -> list[dict[str, Any]]:
    """Compute and draw the named figures (default: all) into ``out``; one line of progress each on stderr.

    Every figure is ``NAME.pdf``, ``NAME.png`` and ``NAME.csv``; ``comparison.csv`` has a row per claim.

    Returns:
        The rows of the comparison.

    Raises:
        InputError: an unknown name, or ``out`` not a folder.
    """
    chosen = list(names) or list(FIGURES)
    for name in chosen:
        if name not in FIGURES:
            raise InputError(f"NAME: expected one of {', '.join(FIGURES)}, got {name!r}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"out: expected a folder, got the file {out}")
    out.mkdir(parents=True, exist_ok=True)
    comparison: list[dict[str, Any]] = []
    for i, name in enumerate(chosen):
        start = time.monotonic()
        table, rows = FIGURES[name].compute(seed)
        comparison += rows
        write_csv(out / f"{name}.csv", table, list(table[0]))
        with matplotlib.rc_context(style.rc()):
            figure = FIGURES[name].draw(table)
            style.save(figure, out / name)
            plt.close(figure)
        say(f"{i + 1}/{len(chosen)} {name}: {time.monotonic() - start:.0f} s")
    write_csv(out / "comparison.csv", comparison, compare.COLUMNS)
    return comparison
