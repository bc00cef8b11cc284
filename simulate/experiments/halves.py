"""``python -m simulate.experiments.halves``: a real network, statistics fitted on one half of its test images, predictions
checked on the other half, for every pair of classes.

With a features file and ``--out`` it also writes what the main job needs offline: the fitted statistics, the counts measured on
the other half. Without a file it reads the shipped ones.
"""

import csv
import itertools
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import IO

import numpy as np

from simulate import measure
from simulate.estimates import paired_error
from simulate.feature_models.fit import fit
from theory.budget import DEFAULT, Budget
from theory.expectation import average_of_two
from theory.prediction import predict
from theory.setting.archive import write_csv
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_features, read_statistics, write_statistics
from theory.setting.problem import Problem
from theory.setting.record import Record
from theory.setting.schemes import UNIFORM, compress

BITS = (2, 3, 4, 5, 6)
NAME = "resnet20_cifar10"
COUNTS = ("first", "second", "scheme", "granularity", "bits", "n", "wrong", "made", "mended", "flips")


def split(features: Features, seed: int) -> tuple[Features, Features]:
    """Two random halves of the samples."""
    order = np.random.default_rng(seed).permutation(len(features.labels))
    middle = len(order) // 2
    return features.take(np.sort(order[:middle])), features.take(np.sort(order[middle:]))


def measured_counts(features: Features, *, schemes: Sequence[str] = UNIFORM, bits: Sequence[int] = BITS) -> list[dict]:
    """What compression did to the samples, for every pair of classes, scheme, granularity and width: counts."""
    rows = []
    pairs = list(itertools.combinations(range(features.classes), 2))
    for pair in progress(pairs, what="measuring", unit="pair"):
        part = features.restrict(pair)
        for scheme, channel in itertools.product(schemes, (False, True)):
            for record in measure(part, scheme=scheme, bits=bits, per_channel=channel):
                n = len(part.labels)
                rows.append(
                    {
                        "first": pair[0],
                        "second": pair[1],
                        "scheme": scheme,
                        "granularity": record.granularity,
                        "bits": record.bits,
                        "n": n,
                        "wrong": round(record.risk_before * n),
                        **{key: record.provenance[key] for key in ("made", "mended", "flips")},
                    }
                )
    return rows


def predicted(problem: Problem, counts: Sequence[dict], *, errors: str, seed: int = 0, budget: Budget = DEFAULT) -> list[dict]:
    """The counts, each beside its prediction with the interval for a test set of its size."""
    rows = []
    for row in progress(counts, what=f"predicting, {errors} errors", unit="cell"):
        question = dict(
            scheme=row["scheme"],
            bits=[row["bits"]],
            per_channel=row["granularity"] == "channel",
            classes=(row["first"], row["second"]),
            errors=errors,
            test_size=row["n"],
            seed=seed,
            budget=budget,
        )
        (record,) = predict(problem, **question)
        delta = _delta_method(problem, row) if errors == "expected" else None
        n = row["n"]
        rows.append(
            {
                **row,
                "errors": errors,
                **held(record, n, (row["made"] - row["mended"]) / n, row["flips"] / n),
                "delta_2": delta,
                "standard_error": paired_error(row["made"], row["mended"], n),
            }
        )
    return rows


def _delta_method(problem: Problem, row: dict) -> float:
    """The expected distortion of one cell by the delta method of order 2."""
    part = problem.restrict((row["first"], row["second"]))
    layer = compress(part.weights, row["scheme"], row["bits"], per_channel=row["granularity"] == "channel")
    return average_of_two(part, layer.steps, "delta_2")[1]


def held(said: Record, n: int, distortion: float, flip_rate: float) -> dict:
    """A prediction for a test set of n samples beside what was measured there, as :func:`summary` takes it."""
    return {
        "scheme": said.scheme,
        "granularity": said.granularity,
        "bits": said.bits,
        "n": n,
        "predicted": said.distortion,
        "low": said.interval[0],
        "high": said.interval[1],
        "predicted_flips": said.flip_rate,
        "distortion": distortion,
        "flip_rate": flip_rate,
    }


def overall(rows: Sequence[dict]) -> dict:
    """The line of :func:`summary` for all widths together, its ``bits`` None."""
    (line,) = summary([{**row, "bits": 0} for row in rows])
    return {**line, "bits": None}


def summary(rows: Sequence[dict]) -> list[dict]:
    """By ``bits``: ``cells``, the share ``inside`` the interval, its ``width`` over 3.92 sqrt(F/n), mean absolute errors in
    points of the prediction (``error``) and of no loss at all (``no_loss``), ``bias`` (mean predicted less measured),
    ``flips`` predicted over measured, and the interval ``score`` over that width. None where nothing flipped. The cells share
    samples: the means have no error of their own."""
    table = []
    for bits in sorted({row["bits"] for row in rows}):
        cell = [row for row in rows if row["bits"] == bits]

        def mean(f, cell=cell) -> float:
            return float(np.mean([f(row) for row in cell]))

        noise = mean(lambda r: 3.92 * np.sqrt(r["flip_rate"] / r["n"]))
        outside = mean(lambda r: max(r["low"] - r["distortion"], r["distortion"] - r["high"], 0.0))
        interval = mean(lambda r: r["high"] - r["low"])
        line = {
            "bits": bits,
            "cells": len(cell),
            "inside": mean(lambda r: r["low"] <= r["distortion"] <= r["high"]),
            "width": interval / noise if noise else None,
            "error": 100 * mean(lambda r: abs(r["predicted"] - r["distortion"])),
            "no_loss": 100 * mean(lambda r: abs(r["distortion"])),
            "bias": 100 * mean(lambda r: r["predicted"] - r["distortion"]),
            "flips": mean(lambda r: r["predicted_flips"]) / mean(lambda r: r["flip_rate"]) if noise else None,
            "score": (interval + 2 / 0.05 * outside) / noise if noise else None,
        }
        if cell[0].get("delta_2") is not None:
            line["delta_2"] = 100 * mean(lambda r: abs(r["delta_2"] - r["distortion"]))
        table.append(line)
    return table


def shipped() -> tuple[Problem, list[dict]]:
    """The statistics of the shipped network and the counts of the other half."""
    folder = resources.files("simulate") / "data"
    with resources.as_file(folder / f"{NAME}_statistics.npz") as path:
        problem = read_statistics(path)
    with (folder / f"{NAME}_measured.csv").open(encoding="utf-8") as file:
        return problem, read_table(file)


def read_table(file: IO[str]) -> list[dict]:
    return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str):
    if text in ("True", "False"):
        return text == "True"
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def write_table(path: Path, rows: Sequence[dict]) -> None:
    """Write rows of the same columns as CSV."""
    write_csv(path, rows, list(rows[0]))


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.halves", description=__doc__)
    parser.add_argument("features", nargs="?", help="a features file (default: the shipped network's statistics and counts)")
    parser.add_argument("--out", metavar="DIR", help="write statistics and counts of a features file there")
    parser.add_argument("--name", help=f"names of the files in DIR begin with this (default {NAME})")
    add_seed(parser)
    add_json(parser)

    def work(a) -> int:
        if a.features is None:
            for option in ("out", "name"):
                if getattr(a, option):
                    raise InputError(f"{option}: expected a features file to go with it, got none")
            problem, counts = shipped()
        else:
            features = read_features(a.features)
            one, other = split(features, a.seed)
            problem, counts = fit(one), measured_counts(other)
            if a.out:
                out, name = Path(a.out), a.name or NAME
                out.mkdir(parents=True, exist_ok=True)
                write_statistics(out / f"{name}_statistics.npz", problem)
                write_table(out / f"{name}_measured.csv", counts)
        tables = {errors: summary(predicted(problem, counts, errors=errors, seed=a.seed)) for errors in ("actual", "expected")}
        if a.json:
            print_json(tables)
            return 0
        for errors, table in tables.items():
            print(f"{errors} errors; inside: share in the 95 % interval; width over 3.92 sqrt(F/n); errors in points")
            print_table(table, list(table[0]))
        return 0

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
