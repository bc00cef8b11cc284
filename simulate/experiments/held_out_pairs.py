"""``python -m simulate.experiments.held_out_pairs FEATURES ...``: intervals of class pairs from Gaussian statistics, held out.

Of every network random pairs of classes; of each pair the samples in two halves. One half gives the statistics, the other is
counted: three schemes, one step a layer and a row, 2 to 6 bits, known weights. The networks are to be ones that nothing was
tuned to (:mod:`simulate.experiments.small_networks`). Cells of a pair share its samples.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simulate import measure
from simulate.experiments.halves import BITS, held, split, summary
from simulate.feature_models.fit import MODELS, fit
from theory.prediction import predict
from theory.setting.checks import whole
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.features import Features
from theory.setting.files import features_of
from theory.setting.schemes import UNIFORM

PAIRS = 20
COLUMNS = ("network", "bits", "cells", "inside", "width", "error", "no_loss", "flips")


def held_out_pairs(
    *sources: Features | Path | str, pairs: int = PAIRS, model: str = "gaussian", seed: int = 0
) -> list[dict[str, Any]]:
    """A row per network, pair, scheme, granularity and width: prediction beside what was counted.

    Args:
        sources: labelled features or their files, one network each. pairs: of classes, at random. model: of the features.
        seed: of the pairs and the halves.
    """
    pairs = whole("pairs", pairs, 1)
    chosen = []
    for i, source in enumerate(sources):
        features = features_of(source)
        every = list(itertools.combinations(range(features.classes), 2))
        order = np.random.default_rng([seed, 30, i]).permutation(len(every))[:pairs]
        chosen += [(i, features, every[index]) for index in order]
    rows = []
    for i, features, pair in progress(chosen, what="holding out", unit="pair"):
        fitted, other = split(features.restrict(pair), 1000 * seed + i)
        problem, n = fit(fitted, model=model), len(other.labels)
        for scheme, channel in itertools.product(UNIFORM, (False, True)):
            question: dict[str, Any] = dict(scheme=scheme, bits=BITS, per_channel=channel)
            records, counts = predict(problem, test_size=n, seed=seed, **question), measure(other, **question)
            for record, seen in zip(records, counts, strict=True):
                rows.append({"network": i, "pair": pair} | held(record, n, seen.distortion, seen.flip_rate))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.held_out_pairs", description=__doc__)
    parser.add_argument("features", nargs="+", help="features files, one a network")
    parser.add_argument("--pairs", type=whole_number(1), default=PAIRS, metavar="P", help=f"of each network ({PAIRS})")
    parser.add_argument("--model", choices=tuple(MODELS), default="gaussian", help="of the features (default gaussian)")
    add_seed(parser)
    add_json(parser)

    def work(a) -> None:
        rows = held_out_pairs(*a.features, pairs=a.pairs, model=a.model, seed=a.seed)
        table = [{"network": "all", **line} for line in summary(rows)]
        for i, name in enumerate(a.features):
            table += [{"network": Path(name).stem, **line} for line in summary([row for row in rows if row["network"] == i])]
        print_json(table) if a.json else print_table(table, COLUMNS)

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
