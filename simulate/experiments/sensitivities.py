"""``python -m simulate.experiments.sensitivities NAME=CHECKPOINT ... --data DIR --out FILE.csv``: what each layer alone loses,
predicted from the noise of the logits and run on the same images.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulate.experiments.all_layers import of_networks, opened, sampled
from simulate.networks.bench import bench_of
from simulate.networks.linearize import linearize
from theory.prediction import predict
from theory.setting.command_line import progress
from theory.setting.plan import network_plans
from theory.setting.precision import in_float64

BITS = 3
DRAWS, NETWORKS = 8, 2
COLUMNS = ("distortion", "standard_error", "flips", "actual")


@in_float64
def sensitivities(
    *,
    network: str,
    checkpoint: Path | str | None,
    data: Path | str,
    name: str | None = None,
    images: int = 500,
    draws: int = DRAWS,
    seed: int = 0,
    **preprocessing: Any,
) -> list[dict[str, Any]]:
    """A row a layer: that one alone symmetric with a step a tensor and BITS bits.

    Returns:
        ``predicted`` with its interval ``low`` to ``high`` and ``predicted_flips``; by random signs ``distortion``,
        ``standard_error`` and ``flips``; of the one network ``actual``. Losses by the posteriors of the clean network.
    """
    noise = linearize(network=network, checkpoint=checkpoint, data=data, limit=images, seed=seed, **preprocessing)
    runner, inputs, parts = opened(network, checkpoint, data, images, preprocessing)
    bench, rows = bench_of(runner, inputs, parts.evaluated), []
    for layer in progress(list(bench.weights), what="layers", unit="layer"):
        (record,) = predict(noise, scheme="symmetric", bits=[BITS], layers=[layer], seed=seed)
        (plan,) = network_plans(bench.weights, "symmetric", [BITS], layers=[layer])
        temperature = record.provenance["temperature"]
        seen = sampled(bench, plan, temperature, record.interval, draws=draws, networks=NETWORKS, seed=seed)
        row = {
            "network": name or network,
            "layer": layer,
            "bits": BITS,
            "images": parts.evaluated,
            "predicted": record.distortion,
        }
        row |= {"low": record.interval[0], "high": record.interval[1], "predicted_flips": record.flip_rate}
        rows.append(row | {column: seen[column] for column in COLUMNS})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    return of_networks("sensitivities", __doc__, lambda a, **given: sensitivities(**given), argv, images=500)


if __name__ == "__main__":
    sys.exit(main())
