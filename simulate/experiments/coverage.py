"""``python -m simulate.experiments.coverage``: how many simulated networks the predicted interval holds."""

import itertools
import sys
from collections.abc import Sequence

import numpy as np

from simulate.experiments.averaging import distortions
from simulate.generator import synthetic
from theory.prediction import predict
from theory.setting.command_line import progress, rows_command
from theory.setting.schemes import compress

FEATURES, BITS, LAYERS = (8, 64, 512), (2, 4, 8), ("optimal", "perturbed")


def coverage(
    *,
    features: Sequence[int] = FEATURES,
    bits: Sequence[int] = BITS,
    layers: Sequence[str] = LAYERS,
    networks: int = 20_000,
    seed: int = 0,
) -> list[dict]:
    """Share of simulated networks inside the predicted 95 % interval of their distortion, and beyond either end.

    Shared covariance, unequal priors; each network's distortion is the exact one of W + E.
    """
    rows = []
    for d, layer in progress(list(itertools.product(features, layers)), what="problems"):
        problem = synthetic(classes=2, features=d, separation=2.5, priors="unequal", layer=layer, seed=seed)
        steps = np.stack([compress(problem.weights, "symmetric", width).steps[:, 0] for width in bits])
        values = distortions(problem, steps, networks=networks, seed=seed + 1)
        records = predict(problem, scheme="symmetric", bits=bits, errors="expected", seed=seed)
        for record, one in zip(records, values, strict=True):
            low, high = record.interval
            rows.append(
                {
                    "d": d,
                    "layer": layer,
                    "bits": record.bits,
                    "law": record.provenance["interval_law"],
                    "networks": networks,
                    "inside": (inside := float(np.mean((one >= low) & (one <= high)))),
                    "inside_standard_error": float(np.sqrt(inside * (1 - inside) / networks)),
                    "below": float(np.mean(one < low)),
                    "above": float(np.mean(one > high)),
                    "predicted_sd": record.interval_sources["network"],
                    "simulated_sd": float(one.std()),
                }
            )
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    return rows_command("simulate.experiments.coverage", __doc__, coverage, argv)


if __name__ == "__main__":
    sys.exit(main())
