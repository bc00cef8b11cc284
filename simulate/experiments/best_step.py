"""``python -m simulate.experiments.best_step``: the step of least predicted distortion against those of the largest weight and
of least squared error.

On synthetic problems by simulation (conditional averages), and on the networks of the shipped table ``real_rates`` as measured
on the half of the images that chose no step.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulate import run
from simulate.experiments.rates import IMAGENET, NAME, POSTERIOR, counting_error
from simulate.experiments.real import shipped_table
from simulate.generator import synthetic
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress
from theory.setting.command_line import run as run_door

STEPS: dict[str, dict[str, Any]] = {
    "largest weight": {"scheme": "symmetric"},
    "squared error": {"scheme": "optimal", "criterion": "mse"},
    "distortion": {"scheme": "optimal", "criterion": "distortion"},
}
BITS = (2, 3, 4, 5, 6)
CLASSES, FEATURES, LAYERS = (2, 10), (16, 64), ("optimal", "perturbed")
LINES = 200_000  # feature vectors of the conditional averages, all classes


def simulated(*, bits: Sequence[int] = BITS, n: int = LINES, seed: int = 0) -> list[dict[str, Any]]:
    """A row per synthetic problem, granularity, width and step; all steps of a problem see the same samples."""
    rows = []
    for K, d, layer, channel in progress(list(itertools.product(CLASSES, FEATURES, LAYERS, (False, True))), what="problems"):
        problem = synthetic(classes=K, features=d, separation=3.5 if K > 2 else 2.0, layer=layer, seed=seed)
        for name, options in STEPS.items():
            for one in run(problem, bits=bits, method="conditional", n=n, per_channel=channel, seed=seed + 1, **options):
                row = {"problem": f"K = {K}, d = {d}, {layer}", "granularity": one.granularity, "bits": one.bits, "step": name}
                rows.append(row | {"distortion": one.distortion, "standard_error": one.standard_error})
    return rows


def measured() -> list[dict[str, Any]]:
    """The same rows of the shipped networks."""
    rows = []
    for one in shipped_table(NAME):
        names = [
            step
            for step, options in STEPS.items()
            if (options["scheme"], options.get("criterion")) == (one["scheme"], one["criterion"])
        ]
        if names and one["model"] == POSTERIOR and not one["bias_correction"] and not one["bias"] and one["bits"] in BITS:
            row = {"problem": one["network"], "granularity": one["granularity"], "bits": one["bits"], "step": names[0]}
            error = counting_error(one)
            rows.append(row | {"distortion": one["distortion"], "standard_error": error})
    return rows


def compared(rows: Sequence[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """By value of the keys: cells, each step's mean distortion in points, and the number of cells where it is least (ties count
    for each)."""
    lines = []
    for value in sorted({tuple(row[key] for key in keys) for row in rows}):
        some = [row for row in rows if tuple(row[key] for key in keys) == value]
        table = {(row["problem"], row["granularity"], row["bits"], row["step"]): row["distortion"] for row in some}
        cells = sorted({key[:-1] for key in table})
        losses = np.array([[table[(*cell, name)] for name in STEPS] for cell in cells])
        least = losses == losses.min(1, keepdims=True)
        line = dict(zip(keys, value, strict=True)) | {"cells": len(cells)}
        line |= {name: 100 * float(x) for name, x in zip(STEPS, losses.mean(0), strict=True)}
        lines.append(line | {f"least: {name}": int(x) for name, x in zip(STEPS, least.sum(0), strict=True)})
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.best_step", description=__doc__)
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        found = {"simulated": simulated(seed=a.seed), "measured, CIFAR-10": [], f"measured, {IMAGENET}": []}
        for one in measured():
            found[f"measured, {IMAGENET if one['problem'] == IMAGENET else 'CIFAR-10'}"].append(one)
        if a.json:
            print_json(found)
            return
        for name, rows in found.items():
            print(f"{name}: mean distortion in points, and the cells in which the step loses least")
            for keys in (("bits",), ("granularity",)):
                table = compared(rows, *keys)
                print_table(table, list(table[0]))

    parser.set_defaults(run=work)
    return run_door(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
