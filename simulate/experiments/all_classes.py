"""``python -m simulate.experiments.all_classes [FEATURES]``: a real network, all its classes at once, predicted from one half
of its test images and measured on the other, five ways. Without features the shipped network, from its statistics alone.

Gaussian: statistics fitted on the half, the compressed weights known (actual) or the step alone (expected); left out where no
class has two samples. Distribution-free: the features of the half themselves, with calibrated posteriors in the place of labels
(actual), random errors by the step alone (expected) or with the moments of the layer's own (adapted).
"""

import itertools
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from simulate import measure
from simulate.experiments.halves import BITS, NAME, held, read_table, shipped, split, summary, write_table
from simulate.feature_models.fit import fit
from theory.prediction import predict
from theory.setting.command_line import Parser, add_json, add_seed, print_json, print_table, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_features
from theory.setting.schemes import UNIFORM

GAUSSIAN = ("Gaussian, actual", "Gaussian, expected")
WAYS = (*GAUSSIAN, "distribution-free, actual", "distribution-free, expected", "distribution-free, adapted")


def all_classes(
    features: Features, *, schemes: Sequence[str] = UNIFORM, bits: Sequence[int] = BITS, seed: int = 0
) -> list[dict]:
    """A row per way, scheme, granularity and width: predicted distortion, interval and flips beside the measured ones."""
    fitted, other = split(features, seed)
    n, gaussian = len(other.labels), np.bincount(fitted.labels).max() > 1
    problem = fit(fitted) if gaussian else None
    cells = list(itertools.product(WAYS if gaussian else WAYS[len(GAUSSIAN) :], schemes, (False, True)))
    rows = []
    for way, scheme, channel in progress(cells, what="predicting", unit="cell"):
        question: dict = dict(scheme=scheme, bits=bits, per_channel=channel)
        subject, errors = (problem if problem is not None and way in GAUSSIAN else fitted), way.rsplit(" ", 1)[1]
        predictions = predict(subject, errors=errors, test_size=n, seed=seed, **question)
        for one, seen in zip(predictions, measure(other, **question), strict=True):
            rows.append({"way": way} | held(one, n, seen.distortion, seen.flip_rate))
    return rows


def shipped_rows(*, seed: int = 0) -> list[dict]:
    """The same rows for the shipped network, the Gaussian ways: its statistics against its counts on the other half."""
    problem, rows = shipped()[0], []
    counts = {(seen["scheme"], seen["granularity"], seen["bits"]): seen for seen in shipped_classes()}
    cells = list(itertools.product(GAUSSIAN, UNIFORM, (False, True)))
    for way, scheme, channel in progress(cells, what="predicting", unit="cell"):
        n, errors = next(iter(counts.values()))["n"], way.rsplit(" ", 1)[1]
        question: dict = dict(scheme=scheme, bits=BITS, per_channel=channel, errors=errors, test_size=n, seed=seed)
        for one in predict(problem, **question):
            seen = counts[scheme, one.granularity, one.bits]
            rows.append({"way": way} | held(one, n, (seen["made"] - seen["mended"]) / n, seen["flips"] / n))
    return rows


def measured_classes(features: Features, *, schemes: Sequence[str] = UNIFORM, bits: Sequence[int] = BITS) -> list[dict]:
    """Counts of all classes at once on these samples, a row per scheme, granularity and width, with every class's recall."""
    rows = []
    for scheme, channel in itertools.product(schemes, (False, True)):
        for one in measure(features, scheme=scheme, bits=bits, per_channel=channel):
            row = {"scheme": scheme, "granularity": one.granularity, "bits": one.bits, "n": one.n}
            row |= {key: one.provenance[key] for key in ("made", "mended", "flips")}
            for k, by_class in enumerate(one.per_class):
                row |= {f"share_{k}": by_class["prior"]}
                row |= {f"{key}_{k}": by_class[key] for key in ("recall_before", "recall_after")}
            rows.append(row)
    return rows


def shipped_classes() -> list[dict]:
    """The counts of the shipped network on the half of the test images that its statistics have not seen."""
    with (resources.files("simulate") / "data" / f"{NAME}_all_classes.csv").open(encoding="utf-8") as file:
        return read_table(file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.all_classes", description=__doc__)
    parser.add_argument("features", nargs="?", help="a features file; without it the shipped network")
    parser.add_argument(
        "--bits", type=whole_number(1), nargs="+", default=list(BITS), metavar="B", help="of a features file (default 2 to 6)"
    )
    parser.add_argument("--schemes", nargs="+", choices=list(UNIFORM), default=list(UNIFORM), help="of a features file")
    parser.add_argument("--out", metavar="DIR", help="only write the counts of the half measured there")
    add_seed(parser)
    add_json(parser)

    def work(a) -> int:
        if a.out and not a.features:
            raise InputError("--out: expected a features file to count, got none")
        if a.out:
            _, other = split(read_features(a.features), a.seed)
            write_table(Path(a.out) / f"{NAME}_all_classes.csv", measured_classes(other))
            return 0
        rows = (
            all_classes(read_features(a.features), schemes=a.schemes, bits=a.bits, seed=a.seed)
            if a.features
            else shipped_rows(seed=a.seed)
        )
        if a.json:
            print_json(rows)
            return 0
        for way in dict.fromkeys(row["way"] for row in rows):
            table = summary([row for row in rows if row["way"] == way])
            print(f"{way}; inside: share in the 95 % interval; width over 3.92 sqrt(F/n); errors in points")
            print_table(table, list(table[0]))
        return 0

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
