"""``python -m simulate.experiments.unlabelled NAME=CHECKPOINT ... --data DIR --out FILE.csv``: compressed networks judged
without the labels of the images they are run on, beside the count by all labels.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulate.estimates import NORMAL_95
from simulate.experiments.all_layers import of_networks, opened
from simulate.networks.bench import How, bench_of, posterior_scale
from theory.setting.command_line import progress
from theory.setting.plan import with_least_squares
from theory.setting.question import question

WIDTHS = (2, 3, 4, 5, 6, 8)
CASES: tuple[tuple[str, dict[str, Any], tuple[int, ...] | None], ...] = (
    ("symmetric", {}, WIDTHS),
    ("affine", {"per_channel": True}, WIDTHS),
    ("optimal", {"criterion": "mse"}, WIDTHS),  # a clipping step
    ("codebook", {}, WIDTHS[:4]),
    *(("prune", {"sparsity": sparsity}, None) for sparsity in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)),
)
LABELLED = 500
HOW = How(0.95, 1.0, None, 0)


def unlabelled(
    *,
    network: str,
    checkpoint: Path | str | None,
    data: Path | str,
    name: str | None = None,
    images: int = 4000,
    labelled: int = LABELLED,
    seed: int = 0,
    **preprocessing: Any,
) -> list[dict[str, Any]]:
    """A row per scheme and width, every weight: nothing is drawn, whatever the seed.

    Returns:
        ``distortion`` counted by the labels of all images with its ``standard_error``; by the posteriors of the clean network,
        calibrated on other images, ``unlabelled`` with its interval ``low`` to ``high``; corrected by so many ``labelled``
        ``corrected``, ``corrected_low``, ``corrected_high``; ``flips``.
    """
    runner, inputs, parts = opened(network, checkpoint, data, images, preprocessing)
    bench = bench_of(runner, inputs, parts.evaluated)
    scale, rows = posterior_scale(bench, parts, None), []
    values = {tensor: weight.values for tensor, weight in bench.weights.items()}
    for scheme, options, bits in progress(CASES, what="schemes", unit="scheme"):
        plans = question(scheme, **options).network_plans(bench.weights, bits)
        for plan in with_least_squares(plans, values):
            decided = bench.decided(plan)
            seen = bench.actual(plan, decided, HOW)
            without, corrected = (bench.unlabelled(plan, decided, HOW, scale, labels) for labels in (None, labelled))
            row = {"network": name or network, "scheme": scheme, "granularity": seen.granularity, "bits": seen.bits}
            row |= {"sparsity": options.get("sparsity"), "images": parts.evaluated, "flips": seen.flip_rate}
            row |= {"distortion": seen.distortion, "standard_error": seen.standard_error}
            row |= {"unlabelled": without.distortion, "low": without.interval[0], "high": without.interval[1]}
            row |= {"corrected": corrected.distortion, "corrected_low": corrected.interval[0]}
            rows.append(row | {"corrected_high": corrected.interval[1]})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Root mean square of the error against all labels; the share of these counts inside the intervals, and inside intervals
    widened by the counts' own noise; without labels and corrected by some."""
    found = {}
    for kind, low, high in (("unlabelled", "low", "high"), ("corrected", "corrected_low", "corrected_high")):
        value, start, end, seen = (np.array([row[key] for row in rows]) for key in (kind, low, high, "distortion"))
        found[f"{kind}_rms"] = float(np.sqrt(np.mean((value - seen) ** 2)))
        found[f"{kind}_inside"] = float(np.mean((start <= seen) & (seen <= end)))
        noise = NORMAL_95 * np.array([row["standard_error"] for row in rows])
        found[f"{kind}_agree"] = float(np.mean(np.abs(value - seen) <= np.hypot((end - start) / 2, noise)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    return of_networks("unlabelled", __doc__, lambda a, **given: unlabelled(**given), argv, images=4000)


if __name__ == "__main__":
    sys.exit(main())
