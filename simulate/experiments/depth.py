"""``python -m simulate.experiments.depth --out FILE.csv``: dense networks of one to six layers, random errors in all of them,
predicted and counted.

Theory and simulation have inputs of their own. The error of the theory is that of its inputs, the error of the simulation that
of its networks and inputs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulate import run as count
from simulate.dense_generator import synthetic
from simulate.experiments.halves import write_table
from theory.prediction import predict
from theory.setting.command_line import Parser, add_seed, progress, run

CLASSES, FEATURES, SEPARATION = 10, 64, 3.0
BITS = (2, 3, 4)
ALL = (1, 2, 3, 4, 5, 6)
CASES = (("optimal", 64, ALL), ("trained", 64, ALL), ("optimal", 256, ALL), ("optimal", 512, (2, 4)))  # layer, width, depths
NETWORKS = 600


def depth_rows(
    *,
    cases: Sequence[tuple[str, int, Sequence[int]]] = CASES,
    bits: Sequence[int] = BITS,
    networks: int = NETWORKS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row per layer law, depth, width and bits.

    Returns:
        ``predicted`` with its ``numerical_error`` (95 %) and the interval ``low`` to ``high`` of one network; ``distortion``
        with its ``standard_error``; ``same_inputs``, what 128 networks drawn lose on the inputs of the theory; flips likewise;
        ``risk``.
    """
    rows = []
    chosen = [(layer, width, depth) for layer, width, depths in cases for depth in depths]
    for layer, width, depth in progress(chosen, what="networks", unit="network"):
        sizes: dict[str, Any] = dict(classes=CLASSES, features=FEATURES, separation=SEPARATION, priors="unequal")
        subject = synthetic(depth=depth, width=None if depth == 1 else width, layer=layer, seed=seed, **sizes)
        question: dict[str, Any] = dict(scheme="symmetric", bits=bits, errors="expected", seed=seed)
        counted = count(subject, networks=networks if depth > 1 else None, **question)
        for said, seen in zip(predict(subject, **question), counted, strict=True):
            row = {"layer": layer, "width": width, "depth": depth, "bits": said.bits, "risk": said.risk_before}
            row |= {"predicted": said.distortion, "numerical_error": said.numerical_error}
            row |= {"low": said.interval[0], "high": said.interval[1]}
            row |= {"distortion": seen.distortion, "standard_error": seen.standard_error}
            row |= {"predicted_flips": said.flip_rate, "flips_error": said.flip_rate_error, "flips": seen.flip_rate}
            row |= {"flips_standard_error": seen.flip_rate_standard_error}
            row |= {"method": said.method, "same_inputs": said.provenance.get("drawn_mean")}
            row |= {"same_inputs_standard_error": said.provenance.get("drawn_standard_error")}
            row |= {"predicted_spread": said.interval_sources["network"], "spread": seen.interval_sources["network"]}
            rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="simulate.experiments.depth", description=__doc__)
    parser.add_argument("--out", required=True, metavar="FILE.csv")
    add_seed(parser)

    def work(a) -> None:
        write_table(Path(a.out), depth_rows(seed=a.seed))

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
