"""``python -m simulate.experiments.fewest_bits FEATURES``: does the width that ``theory bits`` chooses on one half of a
network's images keep the loss on the other half, and would one bit fewer have done?

Random halves; the loss is kept with 95 % confidence on a test set as large as the other half, and then counted there.
``posterior``: chosen from the features of the first half; ``statistics``: from Gaussians fitted to them.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from simulate import measure
from simulate.experiments.halves import split
from simulate.experiments.rates import POSTERIOR, STATISTICS
from simulate.feature_models.fit import fit
from theory.choose.width import bounded, fewest
from theory.setting.checks import whole
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_features
from theory.setting.problem import Problem
from theory.setting.schemes import SCHEMES

HALVES = 200
ASKED = ("symmetric", "affine")
LOSSES = (0.001, 0.002, 0.005, 0.01, 0.02)
COLUMNS = (
    "model",
    "scheme",
    "bias_correction",
    "max_loss",
    "halves",
    "images",
    "chosen",
    "kept",
    "fewer_kept",
    "mean_bits",
    "enough_bits",
)


def fewest_bits(
    features: Features,
    *,
    halves: int = HALVES,
    schemes: Sequence[str] = ASKED,
    losses: Sequence[float] = LOSSES,
    models: Sequence[str] = (POSTERIOR, STATISTICS),
    corrections: Sequence[bool] = (False, True),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row per model, scheme, correction of the bias and loss.

    Returns:
        ``chosen`` halves where a width qualified, and of these the share where it ``kept`` the loss on the other half and that
        where one bit fewer would have (``fewer_kept``; a width that the scheme has not keeps nothing); ``mean_bits`` chosen,
        and ``enough_bits``, the mean of the fewest that keep it on the other half, where any does. All halves are of the same
        ``images``: the shares have no error of their own, and are one trial of each width.

    Raises:
        InputError: an unknown model, a loss of 1 or more, no halves.
    """
    _check(halves, losses, models)
    found: dict[tuple, list[tuple[int, bool, bool, float]]] = {}
    for r in progress(range(halves), total=halves, what="choosing", unit="half"):
        fitted, other = split(features, 1000 * seed + r)
        for model in models:
            subject = fitted if model == POSTERIOR else fit(fitted)
            for scheme in schemes:
                for corrected in corrections:
                    ask: dict[str, Any] = {"bias_correction": corrected, "test_size": len(other.labels), "seed": seed}
                    records, bounds = bounded(subject, [scheme], None, confidence=0.95, **ask)
                    losses_at = _counted(subject, other, scheme, corrected)
                    for most in losses:
                        chosen = fewest(records, bounds, most)
                        cell = found.setdefault((model, scheme, corrected, most), [])
                        if chosen is not None:
                            B = records[chosen].bits
                            assert B is not None  # of schemes with widths
                            enough = min((width for width, loss in losses_at.items() if loss <= most), default=np.nan)
                            cell.append((B, losses_at[B] <= most, losses_at.get(B - 1, np.inf) <= most, enough))
    rows = []
    for (model, scheme, corrected, most), cell in found.items():
        B, kept, fewer, enough = np.array(cell, float).reshape(-1, 4).T
        row = {"model": model, "scheme": scheme, "bias_correction": corrected, "max_loss": most, "halves": halves}
        row["images"] = len(features.labels)
        row |= {"chosen": len(cell), "kept": None, "fewer_kept": None, "mean_bits": None, "enough_bits": None}
        if cell:
            row |= {"kept": float(kept.mean()), "fewer_kept": float(fewer.mean())}
            row |= {"mean_bits": float(B.mean())}
            row["enough_bits"] = None if np.isnan(enough).all() else float(np.nanmean(enough))
        rows.append(row)
    return rows


def _check(halves: int, losses: Sequence[float], models: Sequence[str]) -> None:
    whole("halves", halves, 1)
    for model in models:
        if model not in (POSTERIOR, STATISTICS):
            raise InputError(f"models: expected {POSTERIOR} or {STATISTICS}, got {model!r}")
    for most in losses:
        if not 0 <= most < 1:
            raise InputError(f"losses: expected fractions from 0 to below 1, got {most!r}")


def _counted(subject: Problem | Features, other: Features, scheme: str, corrected: bool) -> dict[int, float]:
    """The loss of every width on the other half."""
    widths = SCHEMES[scheme].bits
    if widths is None:
        raise InputError(f"schemes: expected schemes with widths, got {scheme}")
    low, high = widths
    counts = measure(other, compressed_by=subject, scheme=scheme, bits=range(low, high + 1), bias_correction=corrected)
    return dict(zip(range(low, high + 1), (record.distortion for record in counts), strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.fewest_bits", description=__doc__)
    parser.add_argument("features", help="a features file")
    parser.add_argument("--halves", type=whole_number(1), default=HALVES, metavar="R", help=f"random splits ({HALVES})")
    parser.add_argument("--models", nargs="+", choices=(POSTERIOR, STATISTICS), default=[POSTERIOR, STATISTICS])
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        rows = fewest_bits(read_features(a.features), halves=a.halves, models=a.models, seed=a.seed)
        print_json(rows) if a.json else print_table(rows, COLUMNS)

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
