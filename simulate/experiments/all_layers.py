"""``python -m simulate.experiments.all_layers NAME=CHECKPOINT ... --data DIR --out FILE.csv``: whole networks compressed,
predicted from the noise of their logits, beside networks run on the same images.

Losses are those by the posteriors of the clean network, on both sides, so that what differs is the theory and not the labels.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from simulate.experiments.halves import write_table
from simulate.networks.bench import Bench, How, bench_of
from simulate.networks.inputs import Division, Inputs, division, preprocessing_of, read_inputs
from simulate.networks.linearize import linearize
from simulate.networks.network import NAMES
from simulate.networks.runner import input_grids
from simulate.networks.torch_runner import TorchRunner, open_torch_runner
from theory.all_layers import State, error_power, state_of
from theory.prediction import predict
from theory.setting.command_line import Parser, add_seed, progress, run, whole_number
from theory.setting.errors import InputError
from theory.setting.plan import Plan, network_plans
from theory.setting.precision import in_float64
from theory.setting.problem import decide

BITS = (3, 4, 5, 6, 8)
DRAWS, NETWORKS = 16, 16


@in_float64
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
    activation_bits: Sequence[int | None] = (None,),
    fold: bool = False,
    seed: int = 0,
    **preprocessing: Any,
) -> list[dict[str, Any]]:
    """A row per granularity, width of the inputs of layers (None: not rounded) and of the weights, symmetric, every weight.

    With ``fold`` batch norms are in the weights, which have a step a tensor.

    Returns:
        Of the theory ``predicted`` (with the gain), ``low``, ``high``, ``predicted_flips``, ``first_order``, ``noise_ratio``
        (v/V) and ``gain``, and ``sakr_flips``, the bound of :func:`sakr` on the flips; and what :func:`sampled` says.
    """
    noise = linearize(network=network, checkpoint=checkpoint, data=data, limit=images, fold=fold, seed=seed, **preprocessing)
    state = state_of(noise, None)
    runner, inputs, parts = opened(network, checkpoint, data, images, preprocessing)
    n, rows = parts.evaluated, []
    with runner.folded(inputs) if fold else nullcontext():
        clean = bench_of(runner, inputs, n)
        for per_channel, width in itertools.product((False,) if fold else (False, True), activation_bits):
            bench = clean
            options: dict[str, Any] = {"per_channel": True} if per_channel else {}
            plans = network_plans(bench.weights, "symmetric", bits, options=options, fold=fold)
            if width is not None:
                bench = replace(bench, grids=input_grids(bench.runner, inputs, parts, width))
                options = {**options, "activation_bits": width}
            first, gained = (
                predict(noise, scheme="symmetric", bits=bits, method=method, seed=seed, **options)
                for method in ("first_order", "logit_gain")
            )
            for plan, one, other in progress(list(zip(plans, first, gained, strict=True)), what="widths", unit="width"):
                granularity = f"{other.granularity}, folded" if fold else other.granularity
                row = {"network": name or network, "granularity": granularity, "bits": other.bits, "activation_bits": width}
                row |= {"images": n, "predicted": other.distortion, "low": other.interval[0], "high": other.interval[1]}
                row |= {"predicted_flips": other.flip_rate, "first_order": one.distortion}
                row |= {"sakr_flips": sakr(state, plan, width)}
                row |= {"noise_ratio": other.provenance["noise_ratio"], "gain": other.provenance["gain"]}
                temperature = other.provenance["temperature"]
                seen = sampled(bench, plan, temperature, other.interval, draws=draws, networks=networks, seed=seed)
                rows.append(row | seen)
    return rows


def opened(
    network: str, checkpoint: Path | str | None, data: Path | str, images: int, preprocessing: dict[str, Any]
) -> tuple[TorchRunner, Inputs, Division]:
    """A network of a study, the test images, and which of them are evaluated and which calibrate."""
    inputs = read_inputs(Path(data), "test", None, preprocessing_of(preprocessing, known=network in NAMES))
    parts = division(len(inputs.images.labels), None, images)
    return open_torch_runner(network, checkpoint, inputs, None), inputs, parts


def sakr(state: State, plan: Plan, activation_bits: int | None = None) -> float:
    """Bound of the flip rate by Chebyshev's inequality, summed over rivals: the variance of the noise of each lead over twice
    its square (Sakr, Kim, Shanbhag, "Analytical guarantees on numerical precision of deep neural networks", ICML 2017); at
    most 1 an image."""
    variance = state.contrasts(error_power(state.noise, plan, activation_bits).covariance(state.noise))
    lead = np.take_along_axis(state.followed, state.own[:, None], 1) - state.followed
    rivals = np.arange(lead.shape[1]) != state.own[:, None]
    bound = np.sum(np.where(rivals, variance / np.maximum(2 * lead**2, 1e-300), 0.0), 1)
    return float(np.minimum(bound, 1.0).mean())


def sampled(
    bench: Bench,
    plan: Plan,
    temperature: float,
    interval: tuple[float, float],
    *,
    draws: int,
    networks: int,
    seed: int,
) -> dict[str, float]:
    """What a plan does to the images: by random signs, in networks drawn, and to the one network.

    Returns:
        By random signs ``distortion``, ``standard_error``, ``flips``, ``sampled_gain`` with its ``gain_error`` (a standard
        error), ``signs_sd`` between draws and ``signs_seconds`` of a processor a draw; of networks drawn ``networks_mean``,
        ``networks_sd``, the share ``networks_inside`` the interval, how many ``networks``, and ``networks_seconds``; of the one
        network compressed ``actual`` and ``actual_by_labels``.
    """
    posterior, rows = softmax(bench.clean / temperature, 1), np.arange(len(bench.before))
    top, clean = posterior[rows, bench.before], bench.clean - bench.clean.mean(1, keepdims=True)

    def lost(decisions: np.ndarray) -> float:
        return float(np.mean(top - posterior[rows, decisions]))

    losses, flips, gains, started = [], [], [], time.process_time()
    for logits in bench.drawn(plan, How(0.95, 1.0, None, seed), draws):
        decisions = decide(logits)
        losses.append(lost(decisions))
        flips.append(np.mean(decisions != bench.before))
        gains.append(np.sum((logits - logits.mean(1, keepdims=True)) * clean) / np.sum(clean**2))
    signs_seconds, started = time.process_time() - started, time.process_time()
    singles = np.array([lost(decide(logits)) for logits in bench.drawn(plan, How(0.95, 1.0, networks, seed + 1), networks)])
    networks_seconds = time.process_time() - started
    _, actual = bench.decided(plan)
    wrong = np.mean(actual != bench.labels) - np.mean(bench.before != bench.labels)
    low, high = interval
    return {
        "distortion": float(np.mean(losses)),
        "standard_error": float(np.std(losses, ddof=1) / np.sqrt(draws)),
        "flips": float(np.mean(flips)),
        "sampled_gain": float(np.mean(gains)),
        "gain_error": float(np.std(gains, ddof=1) / np.sqrt(draws)),
        "signs_sd": float(np.std(losses, ddof=1)),
        "signs_seconds": signs_seconds / draws,
        "networks": networks,
        "networks_mean": float(singles.mean()),
        "networks_sd": float(singles.std(ddof=1)),
        "networks_inside": float(np.mean((low <= singles) & (singles <= high))),
        "networks_seconds": networks_seconds / networks,
        "actual": lost(actual),
        "actual_by_labels": float(wrong),
    }


def main(argv: Sequence[str] | None = None) -> int:
    def options(parser: Parser) -> None:
        parser.add_argument("--bits", nargs="+", type=whole_number(2, 17), default=BITS, help="default 3 4 5 6 8")
        parser.add_argument("--networks-drawn", type=whole_number(2), default=NETWORKS, metavar="M", help="default 16")
        parser.add_argument("--activation-bits", nargs="+", type=whole_number(2, 17), default=(None,), metavar="A")
        parser.add_argument("--fold", action="store_true", help="batch norms folded into the weights, a step a tensor")

    def study(a, **given: Any) -> list[dict[str, Any]]:
        own = {"bits": a.bits, "networks": a.networks_drawn, "activation_bits": a.activation_bits, "fold": a.fold}
        return all_layers(**own, **given)

    return of_networks("all_layers", __doc__, study, argv, images=1000, options=options)


def of_networks(
    name: str,
    description: str | None,
    study: Callable[..., list[dict[str, Any]]],
    argv: Sequence[str] | None,
    *,
    images: int,
    options: Callable[[Parser], None] = lambda parser: None,
) -> int:
    """The command of a study of networks: ``study`` of the arguments and of each network, its table as CSV. ``images``: how
    many by default. ``options``: adds those of the study."""
    parser = Parser(prog=f"simulate.experiments.{name}", description=description)
    parser.add_argument(
        "networks", nargs="+", metavar="NAME=CHECKPOINT", help="a network by name or module:factory, and its checkpoint"
    )
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--images", type=whole_number(2), default=images, metavar="N", help=f"default {images}")
    for statistic in ("mean", "std"):
        parser.add_argument(
            f"--{statistic}", nargs="+", type=float, help="of the pixels; networks known by name have their own"
        )
    parser.add_argument("--out", required=True, metavar="FILE.csv")
    options(parser)
    add_seed(parser)

    def work(a) -> None:
        rows = []
        pixels = {statistic: getattr(a, statistic) for statistic in ("mean", "std") if getattr(a, statistic)}
        for given in a.networks:
            network, sign, checkpoint = given.partition("=")
            if not sign or (network not in NAMES and ":" not in network):
                raise InputError(
                    f"networks: expected NAME=CHECKPOINT with a name of {', '.join(NAMES)}, or module:factory, got {given!r}"
                )
            short = network.rpartition(":")[2]
            rows += study(
                a, network=network, checkpoint=checkpoint, name=short, data=a.data, images=a.images, seed=a.seed, **pixels
            )
        write_table(Path(a.out), rows)

    parser.set_defaults(run=work)
    return run(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
