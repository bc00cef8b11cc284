"""``simulate fit --compare`` and, for several networks, ``python -m simulate.experiments.models FEATURES ...``: every model of
the features fitted on one half of the samples and held against the labels of the other, and which one to use.

A model answers for every scheme, one step a layer and a row, 2 to 6 bits, with a 95 % interval for a test set as large as the
other half. Models are ranked by the interval score (Gneiting and Raftery, J. Am. Stat. Assoc. 102 (2007) 359), which asks for
narrow intervals that hold: width + 40 times what the measured distortion lies outside, over 3.92 sqrt(F/n), the width that the
sampling noise of the flips alone would have.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from simulate import measure
from simulate.experiments.halves import BITS, held, overall, split, summary
from simulate.feature_models.fit import MODELS, fit
from theory.prediction import predict
from theory.setting.checks import whole
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import features_of
from theory.setting.record import Record
from theory.setting.schemes import UNIFORM

FEWEST = 200  # samples of a network
ALIKE = 0.05  # of the score, within which models are as good as each other here
POSTERIOR, COUNTED, NOTHING = "posterior", "counted", "no loss"
ALL = (NOTHING, COUNTED, *MODELS, POSTERIOR)
COLUMNS = ("model", "bits", "cells", "inside", "width", "error", "bias", "flips", "score")


def compare(
    *sources: Features | Path | str, classes: Sequence[int] | None = None, halves: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """Hold all models of the features against each other on held-out halves.

    Args:
        sources: labelled features or their files, one network each.
        classes: only the samples and rows of these classes.
        halves: random splits, each used both ways.
        seed: of the splits.

    Returns:
        A record per model and width, and one per model over all widths (``bits`` None): ``inside`` the 95 % interval,
        ``width`` over that of the sampling noise of the flips, ``error`` and ``bias`` in points, ``flips`` predicted over
        measured, ``score`` (less is better); the best model is ``recommended``, and ``sentence`` says why. ``no loss`` and
        ``counted``, the fitted half's own labels, are there to be beaten.

    Raises:
        InputError: a bad file, or too few samples to fit a half.
    """
    rows = held_out(*sources, classes=classes, halves=halves, seed=seed)
    records = []
    for model in ALL:
        own = [row for row in rows if row["model"] == model]
        for line in (*summary(own), overall(own)):
            if model == NOTHING:
                line = {**line, "inside": None, "width": None, "flips": None, "score": None}
            records.append({"model": model, **line})
    total = {one["model"]: one for one in records if one["bits"] is None}
    ranked = sorted((one for name, one in total.items() if name not in (NOTHING, COUNTED)), key=lambda one: one["score"])
    sentence = _sentence(ranked, records)
    for one in records:
        one.update(recommended=one["model"] == ranked[0]["model"], sentence=sentence)
    return records


def held_out(
    *sources: Features | Path | str, classes: Sequence[int] | None = None, halves: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    """A row per network, split, direction, model, scheme, granularity and width: prediction beside what was measured."""
    halves = whole("halves", halves, 1)
    networks = [features_of(source).restrict(classes) for source in sources]
    for one in networks:
        if len(one.labels) < FEWEST:
            raise InputError(f"labels: expected at least {FEWEST} samples to compare models on halves, got {len(one.labels)}")
    rounds = [(i, r, way) for i in range(len(networks)) for r in range(halves) for way in (False, True)]
    rows = []
    for i, r, way in progress(rounds, what="comparing", unit="half"):
        fitted, other = split(networks[i], seed + r)[:: -1 if way else 1]
        n = len(other.labels)
        models = {name: fit(fitted, model=name) for name in MODELS}
        for scheme in UNIFORM:
            for channel in (False, True):
                question: dict[str, Any] = dict(scheme=scheme, bits=BITS, per_channel=channel)
                ask = partial(predict, test_size=n, seed=seed, **question)
                answers = {name: ask(problem) for name, problem in models.items()} | {POSTERIOR: ask(fitted)}
                answers[COUNTED] = [_both_halves(one) for one in measure(fitted, **question)]
                answers[NOTHING] = [
                    replace(one, distortion=0.0, interval=(0.0, 0.0), flip_rate=0.0) for one in answers[COUNTED]
                ]
                for k, seen in enumerate(measure(other, **question)):
                    for model in ALL:
                        row = {"network": i, "split": r, "way": way, "model": model}
                        rows.append(row | held(answers[model][k], n, seen.distortion, seen.flip_rate))
    return rows


def _both_halves(counted: Record) -> Record:
    """A count on one half as a prediction for another as large: the noise of both."""
    low, high = (counted.distortion + np.sqrt(2) * (end - counted.distortion) for end in counted.interval)
    return replace(counted, interval=(float(low), float(high)))


def _sentence(ranked: list[dict[str, Any]], records: list[dict[str, Any]]) -> str:
    best, following = ranked[:2]
    alike = [one["model"] for one in ranked[1:] if one["score"] < (1 + ALIKE) * best["score"]]
    what = "predict from the features themselves" if best["model"] == POSTERIOR else f"fit --model {best['model']}"
    nothing = {one["bits"]: one["error"] for one in records if one["model"] == NOTHING}
    own = {one["bits"]: one["error"] for one in records if one["model"] == best["model"]}
    return (
        f"use {best['model']} ({what}): its 95 % intervals hold {best['inside']:.1%} of the cells and score "
        f"{best['score']:.2f} (next, {following['model']}: {following['score']:.2f}); it errs by {own[2]:.2f} points at 2 bits "
        f"and {own[3]:.2f} at 3, taking no loss by {nothing[2]:.2f} and {nothing[3]:.2f}"
        + (f"; as good within {ALIKE:.0%} of the score: {', '.join(alike)}" if alike else "")
    )


def show(records: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(records)
        return
    print(
        "Fitted on one half, held against the other. no loss, counted (labels of the fitted half): to be beaten; posterior: "
        "predict from the features themselves.\ninside: share of the cells in the 95 % interval; width over that of the flips' "
        "sampling noise; error, bias: points; flips: predicted over measured;\nscore: width and 40 times what lies outside, "
        "less is better; bits -: all"
    )
    print_table([one | {"bias": round(one["bias"], 9)} for one in records], COLUMNS)
    print(records[0]["sentence"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.models", description=__doc__)
    parser.add_argument("features", nargs="+", help="features files, one a network")
    parser.add_argument("--halves", type=whole_number(1), default=10, metavar="R", help="random splits, each both ways (10)")
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(run=lambda a: show(compare(*a.features, halves=a.halves, seed=a.seed), as_json=a.json))
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
