"""``figures mine``: your own problem, theory with its interval beside simulation or counting."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from figures import style
from figures.compare import COLUMNS, join, with_both_errors
from simulate import measure, run
from simulate.estimates import NORMAL_95
from theory.prediction import predict
from theory.setting.archive import check_place, write_csv
from theory.setting.checks import seed_of, share
from theory.setting.command_line import say
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_either
from theory.setting.problem import Problem
from theory.setting.record import Record

NAME = "mine"
NONE = {"low": None, "high": None}


def mine(
    source: Problem | Features | Path | str,
    *,
    scheme: str,
    bits: Sequence[int] | None = None,
    errors: str = "actual",
    out: Path | str = "out",
    seed: int = 0,
    **options: Any,
) -> list[dict[str, Any]]:
    """Draw the distortion and the flips of one's own layer, predicted and seen, into ``out`` as ``mine.pdf``, ``.png`` and
    ``.csv``.

    Of statistics the prediction stands beside the simulation of the same law. Of labelled features it is made from one half of
    them, and counted on the other half.

    Args:
        source: a problem, labelled features, or a file of either. scheme, bits, options: as :func:`theory.predict`.
        errors: ``actual`` or, of statistics, ``expected``. out: a folder, made where there is none. seed: of halves and draws.

    Returns:
        The rows of the comparison: quantity, theory, simulation, standard error, z, and of a distortion ``low`` and ``high``,
        the ends of the predicted interval. z is over the standard errors of both sides, that of what was seen and
        ``theory_error``. Of features and fitted statistics, whether it lies in the interval is what judges the theory.

    Raises:
        InputError: a bad file or bad options, features without labels, or a place that can't be written to.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out: expected a folder, got the file {folder}")
    subject, seed = read_either(source), seed_of(seed)
    share("confidence", options.get("confidence", 0.95))
    question: dict[str, Any] = dict(scheme=scheme, bits=bits, **options)
    if isinstance(subject, Problem):
        predicted = predict(subject, errors=errors, seed=seed, **question)
        seen = run(subject, errors=errors, seed=seed, **question)
        d, how, name, samples = subject.features, "simulated", "from the statistics", None
    else:
        if not subject.labelled:
            raise InputError("labels: missing, expected with the features, on whose other half is counted")
        if errors != "actual":
            raise InputError(
                "errors: features are counted, which shows one network: leave --errors out, or for the mean over random errors "
                "draw statistics (`python -m simulate fit`)"
            )
        order = np.random.default_rng([seed, 40]).permutation(len(subject.labels))
        first, other = (subject.take(np.sort(half)) for half in np.array_split(order, 2))
        if len(other.labels) < 1 or len(first.labels) < 2:
            raise InputError(f"features: expected at least 4 samples to halve, got {len(subject.labels)}")
        samples, n = (len(half.restrict(options.get("classes")).labels) for half in (first, other))
        predicted = predict(first, test_size=n, seed=seed, **question)
        seen = measure(other, compressed_by=first, **question)
        d, how, name = subject.weights.shape[1], f"counted on the other {n} samples", "from one half of the samples"
    folder.mkdir(parents=True, exist_ok=True)
    check_place(folder / f"{NAME}.csv")
    rows, K = [], subject.classes
    claim = "exact" if isinstance(subject, Problem) else "measured"
    predicted = predicted if samples is None else [_with_sampling(one, samples) for one in predicted]
    for one, other_one in zip(predicted, seen, strict=True):
        pair = [with_both_errors(row) for row in join(NAME, str(subject), K, d, claim, one, other_one)]
        low, high = one.interval
        rows += [{**row, **(dict(low=low, high=high) if row["quantity"] == "distortion" else NONE)} for row in pair]
        width = "" if one.bits is None else f" {one.bits} bits"
        for warning in one.warnings:
            say(f"{one.scheme}{width}: {warning}")
    write_csv(folder / f"{NAME}.csv", rows, [*COLUMNS, *NONE])
    with matplotlib.rc_context(style.rc()):
        figure = draw(predicted, seen, f"predicted {name}{' for random errors' if errors == 'expected' else ''}", how)
        style.save(figure, folder / NAME)
        plt.close(figure)
    return rows


def _with_sampling(record: Record, n: int) -> Record:
    """The errors of a prediction from n samples with the noise of these samples, which the other half's do not share."""
    rate = record.flip_rate
    flips = np.hypot(record.flip_rate_error or 0.0, NORMAL_95 * np.sqrt(rate * (1 - rate) / n))
    distortion = np.hypot(record.numerical_error, NORMAL_95 * record.interval_sources["statistics"])
    return replace(record, flip_rate_error=float(flips), numerical_error=float(distortion))


def _ends(record: Record, quantity: str) -> tuple[float, float]:
    """How far the 95 % interval of what was seen reaches below and above; of a count of 0 up to its exact bound."""
    error = record.standard_error if quantity == "distortion" else record.flip_rate_standard_error
    if error or not record.n:
        return NORMAL_95 * (error or 0.0), NORMAL_95 * (error or 0.0)
    bound = min(1.0, -np.log(0.05) / record.n)
    return (bound if quantity == "distortion" else 0.0), bound


def draw(predicted: Sequence[Record], seen: Sequence[Record], title: str, how: str):
    """Left: distortion with the predicted interval and what was seen with its own. Right: flips."""
    figure, (left, right) = plt.subplots(1, 2, figsize=style.size(1, 3))
    place = np.arange(len(predicted))
    low, high = (np.array([100 * one.interval[i] for one in predicted]) for i in (0, 1))
    points = np.array([100 * one.distortion for one in predicted])
    confidence = predicted[0].confidence
    left.errorbar(
        place - 0.08,
        points,
        np.stack([np.maximum(points - low, 0), np.maximum(high - points, 0)]),
        fmt="_",
        color="#000000",
        capsize=3,
        markersize=8,
        label=f"{title}, {confidence:.0%} interval",
    )
    ends = 100 * np.array([_ends(one, "distortion") for one in seen]).T
    left.errorbar(place + 0.08, [100 * one.distortion for one in seen], ends, label=f"{how}, 95% interval", **style.SIMULATION)
    right.errorbar(
        place - 0.08,
        [100 * one.flip_rate for one in predicted],
        [100 * (one.flip_rate_error or 0.0) for one in predicted],
        fmt="_",
        color="#000000",
        capsize=3,
        markersize=8,
        clip_on=False,
    )
    ends = 100 * np.array([_ends(one, "flip_rate") for one in seen]).T
    right.errorbar(place + 0.08, [100 * one.flip_rate for one in seen], ends, **style.SIMULATION)
    first = predicted[0]
    steps = {"tensor": "a step a layer", "channel": "a step a row", "group": f"a step for {first.group_size} weights"}
    stepped = first.rate_breakdown["steps"] > 0
    labels = [f"sparsity {one.sparsity:g}" if one.bits is None else str(one.bits) for one in predicted]
    sparse = f", sparsity {first.sparsity:g}" if first.sparsity and first.bits is not None else ""
    for axis, what in ((left, "distortion (percentage points)"), (right, "changed decisions (%)")):
        axis.set_xticks(place, labels)
        axis.set_xlim(-0.6, len(place) - 0.4)
        axis.set_xlabel(f"bits per weight ({first.scheme}{', ' + steps[first.granularity] if stepped else ''}{sparse})")
        axis.set_ylabel(what)
    right.set_ylim(0, 1.05 * right.get_ylim()[1])
    left.axhline(0, color="0.6", linewidth=0.6)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
