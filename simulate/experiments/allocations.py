"""``python -m simulate.experiments.allocations NAME=CHECKPOINT ... --data DIR --out FILE.csv``: bits for each layer, by this
theory and by the rankings that others use, checked by running.

Every ranking is a cost of the error variance of each tensor, and the same integer programme takes it: squared error of the
weights; trace of the Gauss-Newton matrix of the cross-entropy times squared error (HAWQ-V2, Dong et al. 2020); mean square of
the change of the centred logits, whose PSNR it is. Widths are chosen on the first images of the split and run on others.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulate.experiments.all_layers import of_networks, sampled
from simulate.networks.bench import bench_of
from simulate.networks.inputs import preprocessing_of, read_inputs
from simulate.networks.linearize import linearize
from simulate.networks.network import NAMES
from simulate.networks.torch_runner import open_torch_runner
from simulate.networks.weights import Weight
from theory.all_layers import State, state_of
from theory.choose.allocation import Search
from theory.interval import Asked
from theory.setting.command_line import progress
from theory.setting.precision import in_float64

BUDGETS = (3, 4)  # bits of a code for every weight, beside the steps
WIDTHS = (2, 3, 4, 5, 6, 7, 8)
DRAWS, NETWORKS = 16, 8
COLUMNS = ("distortion", "standard_error", "flips", "networks_mean", "networks_sd", "actual", "actual_by_labels")


def rankings(state: State, search: Search, weights: Mapping[str, Weight]) -> dict[str, np.ndarray]:
    """(weights,) the cost of a unit of error variance in every weight, whose rows are scaled with their max |W|."""
    noise, place = state.noise, state.noise.tensors.indices("weight")
    p = state.posterior
    curvature = np.einsum("nk,kl->nkl", p, np.eye(p.shape[1])) - p[:, :, None] * p[:, None]
    C = p.shape[1]
    centring = np.eye(C) - 1 / C
    costs: dict[str, list[float]] = {"squared error": [], "HAWQ-V2 trace": [], "logits' mean square": []}
    for name in search.names:
        t, scale = place[name], search.scale[name]
        gram = noise.grams[scale][t].astype(np.float64)
        values = weights[name]
        costs["squared error"].append(float(np.sum(values.ranges[1] ** 2)) * values.values.shape[1])
        costs["HAWQ-V2 trace"].append(float(np.einsum("nkl,nlk->", curvature, gram)) / len(p))
        costs["logits' mean square"].append(float(np.einsum("kl,nlk->", centring, gram)) / len(p))
    return {name: np.array(values) for name, values in costs.items()}


@in_float64
def allocations(
    *,
    network: str,
    checkpoint: Path | str | None,
    data: Path | str,
    name: str | None = None,
    images: int = 500,
    budgets: Sequence[int] = BUDGETS,
    draws: int = DRAWS,
    networks: int = NETWORKS,
    seed: int = 0,
    **preprocessing: Any,
) -> list[dict[str, Any]]:
    """A row per budget and ranking, symmetric, a step a channel.

    Returns:
        ``predicted`` loss of the plan with its interval ``low`` to ``high``; on images that nothing was chosen by the loss
        by random signs, ``distortion`` with its ``standard_error``, of networks drawn, and of the ``actual`` one; ``widths``.
    """
    noise = linearize(network=network, checkpoint=checkpoint, data=data, limit=images, seed=seed, **preprocessing)
    state = state_of(noise, None)
    search = Search(state, "symmetric", WIDTHS, {"per_channel": True}, Asked(confidence=0.95, test_size=None, seed=seed))
    inputs = read_inputs(Path(data), "test", None, preprocessing_of(preprocessing, known=network in NAMES))
    held = slice(images, 2 * images)
    seen = inputs.images._replace(pixels=inputs.images.pixels[held], labels=inputs.images.labels[held])
    other = replace(inputs, images=seen)
    bench = bench_of(open_torch_runner(network, checkpoint, inputs, None), other, images)
    rows = []
    for budget in budgets:
        rate = search.rate(dict.fromkeys(search.names, budget))
        found = search.within(rate)
        assert found is not None
        plans = {"one width": dict.fromkeys(search.names, budget), "predicted loss": found.bits}
        for ranking, costs in rankings(state, search, bench.weights).items():
            plans[ranking], _ = search.best_linear(costs, rate)
        measured: dict[tuple, dict[str, float]] = {}
        for ranking, bits in progress(list(plans.items()), what="plans", unit="plan"):
            record, key = search.record(bits), tuple(bits.values())
            if key not in measured:
                temperature = state.calibration.temperature
                seen = sampled(
                    bench, search.plan(bits), temperature, record.interval, draws=draws, networks=networks, seed=seed
                )
                measured[key] = {column: seen[column] for column in COLUMNS}
            row = {"network": name or network, "budget": budget, "ranking": ranking, "rate": record.rate, "images": images}
            row |= {"predicted": record.distortion, "low": record.interval[0], "high": record.interval[1]}
            rows.append(row | measured[key] | {"widths": " ".join(map(str, key))})
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    return of_networks("allocations", __doc__, lambda a, **given: allocations(**given), argv, images=500)


if __name__ == "__main__":
    sys.exit(main())
