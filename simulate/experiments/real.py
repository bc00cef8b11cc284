"""``python -m simulate.experiments.real NAME=FEATURES ... --out DIR``: the tables of real networks that the figures draw.

``real_hypotheses.csv``: ``simulate check`` at 2, 3 and 4 bits. ``real_margins.csv``: the law of the margin of each class.
``real_models.csv``: every model of the features fitted on one half of the images and held against the other. The two last leave
out networks of more classes than samples a class allow.
"""

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from simulate.experiments.halves import read_table, write_table
from simulate.experiments.hypotheses import LARGEST, check
from simulate.experiments.hypothesis_tests import closest_contrast
from simulate.experiments.models import held_out
from simulate.experiments.rates import networks_of
from theory.setting.command_line import Parser, add_seed, run
from theory.setting.features import Features

NAMES = ("real_hypotheses", "real_margins", "real_models")
BITS = (2, 3, 4)
GRID = np.round(np.arange(-6, 4.01, 0.25), 2)  # standard deviations


def hypothesis_rows(name: str, features: Features, *, seed: int = 0) -> list[dict[str, Any]]:
    """The records of ``simulate check``, one step a layer, without their sentences."""
    records = check(features, scheme="symmetric", bits=BITS, seed=seed)
    return [{"network": name} | {key: value for key, value in one.items() if key != "sentence"} for one in records]


def margin_rows(name: str, features: Features) -> list[dict[str, Any]]:
    """Share of the samples of each class whose margin over its closest rival lies below a number of standard deviations."""
    z = features.features.astype(np.float64)
    rows = []
    for k in range(features.classes):
        own = z[features.labels == k]
        t = own @ closest_contrast(own, features.weights, features.bias, k)
        t = (t - t.mean()) / t.std()
        share = np.searchsorted(np.sort(t), GRID, side="right") / len(t)
        rows += [
            {"network": name, "class": k, "n": len(t), "deviations": float(x), "share": float(s)}
            for x, s in zip(GRID, share, strict=True)
        ]
    return rows


def model_rows(name: str, features: Features, *, seed: int = 0) -> list[dict[str, Any]]:
    """One split of the samples, both ways."""
    keys = (
        "model",
        "scheme",
        "granularity",
        "bits",
        "n",
        "predicted",
        "low",
        "high",
        "predicted_flips",
        "distortion",
        "flip_rate",
    )
    return [{"network": name} | {key: row[key] for key in keys} for row in held_out(features, seed=seed)]


def shipped_table(name: str) -> list[dict[str, Any]]:
    """A shipped table, by its name."""
    with (resources.files("simulate") / "data" / f"{name}.csv").open(encoding="utf-8") as file:
        return read_table(file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.real", description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="NAME=FEATURES", help="a name for the figures and a features file")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the tables go")
    add_seed(parser)

    def work(a) -> None:
        given = networks_of(a.networks)
        tables: dict[str, list] = {name: [] for name in NAMES}
        for name, features in given.items():
            tables["real_hypotheses"] += hypothesis_rows(name, features, seed=a.seed)
            if features.classes <= LARGEST:
                tables["real_margins"] += margin_rows(name, features)
                tables["real_models"] += model_rows(name, features, seed=a.seed)
        Path(a.out).mkdir(parents=True, exist_ok=True)
        for name, rows in tables.items():
            if rows:
                write_table(Path(a.out) / f"{name}.csv", rows)

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
