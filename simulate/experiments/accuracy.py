"""``python -m simulate.experiments.accuracy``: expected distortion by every formula against averaged exact risks."""

import itertools
import sys
from collections.abc import Sequence

import numpy as np

from simulate.experiments.averaging import distortions
from simulate.generator import synthetic
from theory.expectation import average_of_two
from theory.integrals.two_classes import OLDER
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run
from theory.setting.precision import in_float64
from theory.setting.schemes import compress

FEATURES = (4, 8, 16, 64, 512)
BITS = (2, 3, 4, 8)
PROBLEMS = tuple(itertools.product(("optimal", "perturbed"), ("equal", "unequal"), ("shared", "unequal")))
SEPARATION = 2.5


@in_float64
def accuracy(
    *,
    features: Sequence[int] = FEATURES,
    bits: Sequence[int] = BITS,
    problems: Sequence[tuple[str, str, str]] = PROBLEMS,
    draws: int = 2**18,
    seed: int = 0,
) -> list[dict]:
    """Error of the average that ``predict`` takes of two classes, and of each older formula, over a grid of synthetic problems.

    The reference averages exact risks over ``draws`` pairs of errors E, -E (fewer for large d, where less is needed), in
    code of its own.

    Returns:
        One row per problem and width: the method predict chose, ``reference`` and its standard error, ``spread`` over
        networks, and for every formula the relative error; ``error`` is predict's, ``allowed`` is true where it is at most
        1 % of the reference or 0.2 % of the spread.
    """
    rows = []
    for d, (layer, priors, covariance) in progress(list(itertools.product(features, problems)), what="problems"):
        problem = synthetic(
            classes=2, features=d, separation=SEPARATION, covariance=covariance, priors=priors, layer=layer, seed=seed
        )
        layers = [compress(problem.weights, "symmetric", width) for width in bits]
        steps = np.stack([one.steps[:, 0] for one in layers])
        paired = distortions(problem, steps, networks=max(2**13, min(draws, 2**23 // d)), seed=seed + 1, antithetic=True)
        single = distortions(problem, steps, networks=2**11, seed=seed + 2)
        for one, values, spread in zip(layers, paired, single.std(1), strict=True):
            reference, se = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
            method, best, error = average_of_two(problem, one.steps, seed=seed)
            row = {
                "d": d,
                "bits": one.bits,
                "layer": layer,
                "priors": priors,
                "covariance": covariance,
                "method": method,
                "reference": reference,
                "standard_error": se,
                "spread": spread,
                "predict": best,
                "estimated_error": error,
            }
            for name in ("margin_quadrature", *OLDER):
                row[name] = average_of_two(problem, one.steps, name, seed=seed)[1]
            gap = abs(row["predict"] - reference)
            row["error"] = gap / abs(reference)
            row["allowed"] = bool(gap <= max(0.01 * abs(reference), 0.002 * spread))
            rows.append(row)
    return rows


def worst(rows: list[dict]) -> list[dict]:
    """The worst relative error of predict and of each formula by (d, bits), with the noise of the reference."""
    table = []
    for d, width in sorted({(row["d"], row["bits"]) for row in rows}):
        cell = [row for row in rows if (row["d"], row["bits"]) == (d, width)]
        line = {
            "d": d,
            "bits": width,
            "cells": len(cell),
            "methods": "/".join(sorted({row["method"] for row in cell})),
            "reference_noise": max(row["standard_error"] / abs(row["reference"]) for row in cell),
            "predict": max(row["error"] for row in cell),
            "allowed": sum(row["allowed"] for row in cell),
        }
        for name in ("margin_quadrature", *OLDER):
            line[name] = max(abs(row[name] / row["reference"] - 1) for row in cell)
        table.append(line)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.accuracy", description=__doc__)
    add_seed(parser)
    add_json(parser)

    def work(a) -> int:
        rows = accuracy(seed=a.seed)
        if a.json:
            print_json(rows)
        else:
            print(
                "Worst |formula/reference - 1| of the expected distortion; 'allowed': predict within 1 % of it or 0.2 % of "
                "the spread over networks"
            )
            table = worst(rows)
            print_table(table, list(table[0]))
        return 0

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
