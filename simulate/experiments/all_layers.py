"""``python -m simulate.experiments.all_layers NAME=CHECKPOINT ... --data DIR --out FILE.csv``: whole networks compressed,
predicted from the noise of their logits, beside networks run on the same images.

Losses are those by the posteriors of the clean network, on both sides, so that what differs is the theory and not the labels.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from simulate.experiments.halves import write_table
from simulate.networks.bench import Bench, How, bench_of
from simulate.networks.inputs import division, preprocessing_of, read_inputs
from simulate.networks.linearize import linearize
from simulate.networks.network import NAMES
from simulate.networks.torch_runner import open_torch_runner
from theory.prediction import predict
from theory.setting.command_line import Parser, add_seed, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.plan import Plan, network_plans
from theory.setting.problem import decide

BITS = (3, 4, 5, 6, 8)
DRAWS, NETWORKS = 16, 16


def all_layers(
    *,
    network: str,
    checkpoint: Path | str | None,
    data: Path | str,
    name: str | None = None,
    bits: Sequence[int] = BITS,
    images: int = 1000,
    draws: int = DRAWS,
    networks: int = NETWORKS,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """A row per granularity and width, symmetric, every weight.

    Returns:
        Of the theory ``predicted`` (with the gain), ``low``, ``high``, ``predicted_flips``, ``first_order``, ``noise_ratio``
        (v/V) and ``gain``; by random signs ``distortion``, ``standard_error``, ``flips`` and ``sampled_gain``; of networks
        drawn ``networks_mean`` and ``networks_sd``; and of the one network compressed ``actual`` and ``actual_by_labels``.
    """
    noise = linearize(network=network, checkpoint=checkpoint, data=data, limit=images, seed=seed)
    inputs = read_inputs(Path(data), "test", None, preprocessing_of({}, known=network in NAMES))
    n = division(len(inputs.images.labels), None, images).evaluated
    bench = bench_of(open_torch_runner(network, checkpoint, inputs, None), inputs, n)
    rows = []
    for per_channel in (False, True):
        options: dict[str, Any] = {"per_channel": per_channel}
        first, gained = (
            predict(noise, scheme="symmetric", bits=bits, method=method, seed=seed, **options)
            for method in ("first_order", "logit_gain")
        )
        plans = network_plans(bench.weights, "symmetric", bits, options={"per_channel": True} if per_channel else {})
        for plan, one, other in progress(list(zip(plans, first, gained, strict=True)), what="widths", unit="width"):
            temperature = other.provenance["temperature"]
            row = {"network": name or network, "granularity": other.granularity, "bits": other.bits, "images": n}
            row |= {"predicted": other.distortion, "low": other.interval[0], "high": other.interval[1]}
            row |= {"predicted_flips": other.flip_rate, "first_order": one.distortion}
            row |= {"noise_ratio": other.provenance["noise_ratio"], "gain": other.provenance["gain"]}
            rows.append(row | sampled(bench, plan, temperature, draws=draws, networks=networks, seed=seed))
    return rows


def sampled(bench: Bench, plan: Plan, temperature: float, *, draws: int, networks: int, seed: int) -> dict[str, float]:
    """What a plan does to the images, by random signs, by networks drawn and to the one network."""
    posterior, rows = softmax(bench.clean / temperature, 1), np.arange(len(bench.before))
    top = posterior[rows, bench.before]

    def lost(logits: np.ndarray) -> float:
        return float(np.mean(top - posterior[rows, decide(logits)]))

    losses, flips, total = [], [], np.zeros_like(bench.clean)
    for logits in bench.drawn(plan, How(0.95, 1.0, None, seed), draws):
        losses.append(lost(logits))
        flips.append(np.mean(decide(logits) != bench.before))
        total += logits / draws
    singles = [lost(logits) for logits in bench.drawn(plan, How(0.95, 1.0, networks, seed + 1), networks)]
    with bench.runner.replaced({tensor: one.weights for tensor, one in bench.compressed(plan).items()}):
        actual = bench.logits(plan)
    clean, mean = (x - x.mean(1, keepdims=True) for x in (bench.clean, total))
    wrong = np.mean(decide(actual) != bench.labels) - np.mean(bench.before != bench.labels)
    return {
        "distortion": float(np.mean(losses)),
        "standard_error": float(np.std(losses, ddof=1) / np.sqrt(draws)),
        "flips": float(np.mean(flips)),
        "sampled_gain": float(np.sum(mean * clean) / np.sum(clean**2)),
        "networks_mean": float(np.mean(singles)),
        "networks_sd": float(np.std(singles, ddof=1)),
        "actual": lost(actual),
        "actual_by_labels": float(wrong),
    }


def main(argv: Sequence[str] | None = None) -> int:
    return of_networks("all_layers", __doc__, all_layers, argv, images=1000)


def of_networks(
    name: str, description: str | None, study: Callable[..., list[dict[str, Any]]], argv: Sequence[str] | None, *, images: int
) -> int:
    """The command of a study of networks known by name: its table as CSV. ``images``: how many by default."""
    parser = Parser(prog=f"simulate.experiments.{name}", description=description)
    parser.add_argument("networks", nargs="+", metavar="NAME=CHECKPOINT", help="a network by name and its checkpoint")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--images", type=whole_number(2), default=images, metavar="N", help=f"default {images}")
    parser.add_argument("--out", required=True, metavar="FILE.csv")
    add_seed(parser)

    def work(a) -> None:
        rows = []
        for given in a.networks:
            network, sign, checkpoint = given.partition("=")
            if not sign or network not in NAMES:
                raise InputError(f"networks: expected NAME=CHECKPOINT with a name of {', '.join(NAMES)}, got {given!r}")
            rows += study(network=network, checkpoint=checkpoint, data=a.data, images=a.images, seed=a.seed)
        write_table(Path(a.out), rows)

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
