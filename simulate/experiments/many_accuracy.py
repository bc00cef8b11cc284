"""``python -m simulate.experiments.many_accuracy``: expected distortion of more than two classes against conditional Monte
Carlo: predicted, by the law of small steps, and by the textbook.

Reference: sequences (``simulate.sampling.ghk``) where the contrasts are independent, else features near the decision boundary
(``simulate.sampling.importance_sampling``).
"""

import itertools
import sys
from collections.abc import Sequence

import numpy as np

from simulate.experiments.textbook import textbook
from simulate.generator import synthetic
from simulate.sampling.ghk import average_sequences
from simulate.sampling.importance_sampling import GROUP, GROUPS, Boundary, average_boundary
from theory.budget import Budget
from theory.prediction import predict
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.problem import Problem
from theory.setting.schemes import compress
from theory.small_steps import small_steps

CLASSES, FEATURES, BITS = (3, 10, 100), (16, 64, 512), (2, 3, 4, 5, 6, 7, 8)
LAYERS, GRANULARITIES = ("optimal", "perturbed"), ("tensor", "channel")
SEPARATION = 3.5
KNOWN = 1.2e-3  # standard error of the reference over its value
MOST = 2**17  # pairs of networks at most; at K = 100 a sixteenth
KNOWN_ON_LINES, MOST_LINES = 2e-3, 2**22  # the same at the boundary
FORMULAS = ("square_law", "plain_mean", "top_rival", "pairwise_q", "sakr_1", "sakr_2")


def many_accuracy(
    *, classes: Sequence[int] = CLASSES, features: Sequence[int] = FEATURES, bits: Sequence[int] = BITS, seed: int = 0
) -> list[dict]:
    """A row per problem, granularity and width.

    Optimal layers have equal priors, perturbed ones unequal. ``allowed`` is true where predict is within 0.5 % of the
    reference or 0.2 % of the spread over networks.
    """
    rows = []
    for K, d, layer, granularity in progress(
        list(itertools.product(classes, features, LAYERS, GRANULARITIES)), what="problems"
    ):
        priors = "equal" if layer == "optimal" else "unequal"
        problem = synthetic(classes=K, features=d, separation=SEPARATION, priors=priors, layer=layer, seed=seed)
        question: dict = dict(scheme="symmetric", bits=bits, per_channel=granularity == "channel", errors="expected")
        steps = np.stack(
            [compress(problem.weights, "symmetric", b, per_channel=question["per_channel"]).steps[:, 0] for b in bits]
        )
        how, values, errors = reference(problem, steps, seed=seed + 1)
        records, books = (
            predict(problem, seed=seed, budget=Budget(spread_precision=0.0), **question),
            textbook(problem, steps, seed=seed),
        )
        law = float(small_steps(problem, steps[0], seed=seed).distortion.value)
        for i, one in enumerate(records):
            spread, gap = one.interval_sources["network"], abs(one.distortion - values[i])
            rows.append(
                {
                    "K": K,
                    "d": d,
                    "layer": layer,
                    "granularity": granularity,
                    "bits": one.bits,
                    "method": one.method,
                    "reference_method": how,
                    "reference": float(values[i]),
                    "standard_error": float(errors[i]),
                    "spread": spread,
                    "predict": one.distortion,
                    "predict_error": one.numerical_error,
                    "allowed": bool(gap <= max(5e-3 * abs(values[i]), 2e-3 * spread)),
                    "square_law": law * float(steps[i, 0] / steps[0, 0]) ** 2,
                    **books[i],
                }
            )
    return rows


def reference(problem: Problem, steps: np.ndarray, *, seed: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Method, expected distortions (B,) and standard errors: known to KNOWN or as well as the budget allows."""
    if problem.features < problem.classes - 1:
        return "boundary", *_at_boundary(problem, steps, seed)
    done, blocks, sums = 0, 4, None
    budget = MOST if problem.classes < 50 else MOST // 16
    while True:
        points = 8 if problem.features < 64 else 32
        sums = average_sequences(problem, steps, seed=seed, first=done, last=blocks, points=points, onto=sums)
        values, errors = sums.distortion(problem.priors)
        if sums.pairs >= budget or np.all(errors <= KNOWN * np.abs(values)):
            return "sequences", values, errors
        done, blocks = blocks, 2 * blocks


def _at_boundary(problem: Problem, steps: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Width by width from the coarsest: those that are known are left out of the further blocks."""
    values, errors = np.zeros((2, len(steps)))
    wanted, sums, done, blocks = np.arange(len(steps)), None, 0, 2**10
    while True:
        sums = average_boundary(problem, steps[wanted], seed=seed, first=done, last=blocks, onto=sums)
        (values[wanted], _), (errors[wanted], _) = (x.T for x in sums.estimates())
        unknown = errors[wanted] > KNOWN_ON_LINES * np.abs(values[wanted])
        if not unknown.any() or blocks * GROUPS * GROUP >= MOST_LINES:
            return values, errors
        wanted, sums = wanted[unknown], Boundary(sums.groups, *(x[unknown] for x in sums[1:]))
        done, blocks = blocks, 2 * blocks


def worst(rows: Sequence[dict]) -> list[dict]:
    """By K, d and width: predict's worst relative error, and of each formula the ratio to the reference farthest from 1."""
    table = []
    for K, d, width in sorted({(row["K"], row["d"], row["bits"]) for row in rows}):
        cell = [row for row in rows if (row["K"], row["d"], row["bits"]) == (K, d, width)]
        line = {
            "K": K,
            "d": d,
            "bits": width,
            "cells": len(cell),
            "allowed": sum(row["allowed"] for row in cell),
            "reference_noise": max(row["standard_error"] / abs(row["reference"]) for row in cell),
            "predict": max(abs(row["predict"] / row["reference"] - 1) for row in cell),
        }
        for name in FORMULAS:
            ratios = [row[name] / row["reference"] for row in cell if row[name] is not None]
            line[name] = max(ratios, key=lambda x: abs(x - 1)) if ratios else None
        table.append(line)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.many_accuracy", description=__doc__)
    parser.add_argument("--classes", type=whole_number(3), nargs="+", default=CLASSES, metavar="K", help="default 3 10 100")
    parser.add_argument("--features", type=whole_number(1), nargs="+", default=FEATURES, metavar="d", help="default 16 64 512")
    add_seed(parser)
    add_json(parser)

    def work(a) -> int:
        rows = many_accuracy(classes=a.classes, features=a.features, seed=a.seed)
        if a.json:
            print_json(rows)
            return 0
        print("Worst |predict/reference - 1| of the expected distortion, and each formula over the reference")
        table = worst(rows)
        print_table(table, list(table[0]))
        return 0

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
