"""``python -m simulate.experiments.rates NAME=FEATURES ...``: every scheme at rates of 1 to 8 bits, predicted from one half of
the images of a network and measured on the other.

The layer is compressed with what the first half knows: its mean feature for the correction of the bias, its range for integer
inputs, its predicted distortion for the best step. The second half only counts. Two models: ``posterior`` predicts from the
features of the first half, ``statistics`` from statistics fitted to them (``--model``, smoothed samples by default).
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulate import measure
from simulate.experiments.halves import held, overall, split, write_table
from simulate.experiments.hypotheses import LARGEST
from simulate.feature_models.fit import MODELS, fit
from theory.prediction import predict
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_features
from theory.setting.problem import Problem

NAME = "real_rates"
IMAGENET = "EfficientNet-lite0"  # in the shipped table; one image a class: points of it are not those of the others
POSTERIOR, STATISTICS = "posterior", "statistics"
HIGHEST = 8.5  # stored bits per weight beyond which a cell is left out: 8 bits and their side information
PRUNED, UNITS = (0.97, 0.94, 0.9, 0.85, 0.8), (0.95, 0.9, 0.85, 0.8, 0.75)
OPTIONS = ("sparsity", "unit", "criterion", "activation_bits", "bias", "bias_correction")


def cells() -> Iterator[tuple[dict[str, Any], list[int] | None]]:
    """The options of each question, by keyword of :func:`theory.predict`, and its widths."""
    for corrected in (False, True):
        more = {"bias_correction": corrected}
        for channel in (False, True):
            step = more | {"per_channel": channel}
            yield {"scheme": "symmetric"} | step, list(range(2, 9))
            yield {"scheme": "affine"} | step, list(range(1, 9))
            yield {"scheme": "midrise"} | step, list(range(1, 9))
            yield {"scheme": "integer", "activation_bits": 8} | step, list(range(2, 9))
            for criterion in ("distortion", "mse"):
                yield {"scheme": "optimal", "criterion": criterion} | step, list(range(2, 9))
        yield {"scheme": "integer", "activation_bits": 4} | more, list(range(2, 9))
        yield {"scheme": "symmetric", "bias": True} | more, list(range(2, 9))
        yield {"scheme": "codebook"} | more, list(range(1, 8))
        for sparsity in (0.5, 0.8):
            yield {"scheme": "deep-compression", "sparsity": sparsity} | more, list(range(1, 8))
        for sparsity in PRUNED:
            yield {"scheme": "prune", "sparsity": sparsity} | more, None
        for sparsity in UNITS:
            yield {"scheme": "prune-structured", "sparsity": sparsity, "unit": "feature"} | more, None
            yield {"scheme": "prune-structured", "sparsity": sparsity, "unit": "map", "map_size": 4} | more, None


def rates(
    features: Features, *, model: str | None = "resampled", halves: int = 1, both_ways: bool = False, seed: int = 0
) -> list[dict[str, Any]]:
    """A row per split, direction, model and cell of at most HIGHEST bits a weight: prediction beside what was measured.

    Args:
        model: of the statistics; None to leave them out. halves: random splits. both_ways: each half predicts the other.
    """
    rounds = [(r, way) for r in range(halves) for way in ((False, True) if both_ways else (False,))]
    work, rows = [(*one, *cell) for one in rounds for cell in cells()], []
    subjects: dict[tuple[int, bool], tuple[dict[str, Problem | Features], Features]] = {}
    for r, way, options, bits in progress(work, total=len(work), what="comparing", unit="question"):
        if (r, way) not in subjects:
            fitted, other = split(features, seed + r)[:: -1 if way else 1]
            known: dict[str, Problem | Features] = {POSTERIOR: fitted}
            if model is not None:
                known[STATISTICS] = fit(fitted, model=model)
            subjects = {(r, way): (known, other)}
        known, other = subjects[r, way]
        for name, subject in known.items():
            rows += [{"split": r, "way": way, "model": name} | row for row in _question(subject, other, options, bits, seed)]
    return rows


def _question(subject: Problem | Features, other: Features, options: dict, bits: list[int] | None, seed: int) -> list[dict]:
    n, rows = len(other.labels), []
    counts = measure(other, compressed_by=subject, bits=bits, **options)
    for one, seen in zip(predict(subject, bits=bits, test_size=n, seed=seed, **options), counts, strict=True):
        if one.rate > HIGHEST:
            continue
        row = {"scheme": one.scheme} | {key: options.get(key) for key in OPTIONS} | {"rate": one.rate}
        rows.append(row | held(one, n, seen.distortion, seen.flip_rate))
    return rows


def counting_error(row: dict[str, Any]) -> float:
    """Standard error of the distortion measured in a row, at most: as if every flip changed the correctness."""
    return float(np.sqrt(max(row["flip_rate"] - row["distortion"] ** 2, 0.0) / row["n"]))


def by(rows: Sequence[dict[str, Any]], *keys: str) -> list[dict[str, Any]]:
    """A line per value of the keys: cells, share inside the 95 % interval, its width over that of the flips' sampling noise,
    mean absolute errors in points of the prediction and of "no loss", flips predicted over measured."""
    lines = []
    for value in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        some = overall([row for row in rows if tuple(row[key] for key in keys) == value])
        lines.append(
            dict(zip(keys, value, strict=True))
            | {key: some[key] for key in ("cells", "inside", "width", "error", "no_loss", "bias", "flips")}
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.rates", description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="NAME=FEATURES", help="a name and a features file, one a network")
    parser.add_argument("--model", choices=MODELS, default="resampled", help="of the statistics (default resampled)")
    parser.add_argument("--halves", type=whole_number(1), default=1, metavar="R", help="random splits (1)")
    parser.add_argument("--both-ways", action="store_true", help="each half predicts the other")
    parser.add_argument("--out", metavar="DIR", help=f"write the rows to {NAME}.csv there")
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        rows = []
        for name, features in networks_of(a.networks).items():
            model = a.model if features.classes <= LARGEST else None
            some = rates(features, model=model, halves=a.halves, both_ways=a.both_ways, seed=a.seed)
            rows += [{"network": name} | row for row in some]
        if a.out:
            Path(a.out).mkdir(parents=True, exist_ok=True)
            write_table(Path(a.out) / f"{NAME}.csv", [_short(row) for row in rows])
        if a.json:
            print_json(rows)
            return
        for keys in (("model", "network"), ("model", "scheme"), ("model", "bias_correction")):
            print(f"by {' and '.join(keys)}; inside: share in the 95 % interval; errors in points")
            print_table(by(rows, *keys), [*keys, "cells", "inside", "width", "error", "no_loss", "bias", "flips"])

    parser.set_defaults(run=work)
    return run(parser, argv)


def networks_of(given: Sequence[str]) -> dict[str, Features]:
    """Features by name, from NAME=FILE.

    Raises:
        InputError: another form, or a bad file.
    """
    found = {}
    for text in given:
        name, mark, path = text.partition("=")
        if not mark:
            raise InputError(f"networks: expected NAME=FEATURES, got {text!r}")
        found[name] = read_features(path)
    return found


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    sys.exit(main())
