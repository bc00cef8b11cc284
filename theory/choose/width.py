"""How few bits: the fewest stored bits per weight that keep a loss."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from theory.prediction import predict
from theory.setting.checks import share
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import read_either
from theory.setting.problem import Problem
from theory.setting.question import BIAS_OPTIONS, question
from theory.setting.record import Record
from theory.setting.schemes import OPTIONS, Scheme, scheme_of

SPARSITIES = (0.5, 0.7, 0.9)  # tried of schemes that prune, where several schemes are asked for and none is given
USUAL = {"activation_bits": 8, "unit": "feature"}  # of schemes that are tried beside others without being told


def bits(
    source: Problem | Features | Path | str,
    *,
    scheme: str | Sequence[str],
    max_loss: float,
    bits: Sequence[int] | None = None,
    errors: str | None = None,
    confidence: float = 0.95,
    classes: Sequence[int] | None = None,
    test_size: int | None = None,
    temperature: float | None = None,
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """The fewest stored bits per weight that keep the loss.

    A width qualifies if the one-sided upper bound of the distortion at ``confidence``, the numerical error included, is at most
    ``max_loss``. Every width of every scheme is tried: the loss is not monotone in the width.

    Args:
        source: a problem, features, or their file. scheme: one or several, each with the options and widths that it has.
        max_loss: the largest distortion, a fraction from 0 to below 1. bits: widths to try (default: all of each scheme).
        errors, classes, test_size, temperature, seed, options: as :func:`theory.predict`. confidence: of the bound.

    Returns:
        ``chosen`` (a Record, or None where no width qualifies), ``closest`` (the record of the least upper bound, where none
        does, else None), ``records``, ``upper_bounds`` in their order, ``sentence``.

    Raises:
        InputError: bad options or a bad file.
    """
    if isinstance(max_loss, bool) or not isinstance(max_loss, int | float) or not 0 <= max_loss < 1:
        hint = " (a fraction: 0.01 is one point)" if isinstance(max_loss, int | float) and max_loss >= 1 else ""
        raise InputError(f"max_loss: expected a fraction from 0 to below 1, got {max_loss!r}{hint}")
    ask: dict[str, Any] = dict(errors=errors, classes=classes, test_size=test_size, temperature=temperature, seed=seed)
    schemes = [scheme] if isinstance(scheme, str) else list(scheme)
    records, bounds = bounded(read_either(source), schemes, bits, confidence=confidence, **ask, **options)
    return choice(records, bounds, max_loss, confidence)


def choice(records: list[Record], bounds: list[float], max_loss: float, confidence: float) -> dict[str, Any]:
    """What :func:`bits` returns, from the records of all widths and the upper bounds of their losses."""
    chosen = fewest(records, bounds, max_loss)
    closest = int(np.argmin(bounds)) if chosen is None else None
    return {
        "chosen": None if chosen is None else records[chosen],
        "closest": None if closest is None else records[closest],
        "records": records,
        "upper_bounds": bounds,
        "max_loss": max_loss,
        "confidence": confidence,
        "sentence": _sentence(records, bounds, chosen, closest, max_loss, confidence),
    }


def bounded(
    subject: Problem | Features, schemes: Sequence[str], bits: Sequence[int] | None, *, confidence: float, **ask: Any
) -> tuple[list[Record], list[float]]:
    """A record for every width of every scheme, and the upper bounds of their losses at ``confidence``.

    Raises:
        InputError: bad options, or a confidence that gives no upper bound.
    """
    if share("confidence", confidence) <= 0.5:
        raise InputError(f"confidence: expected more than 0.5 for an upper bound, got {confidence}")
    options = {key: ask.pop(key) for key in list(ask) if key in (*OPTIONS, *BIAS_OPTIONS)}
    trials = _trials([scheme_of(name) for name in schemes], options)
    for scheme, own in trials:
        question(scheme.name, **own)  # what cannot be asked is said before the work begins
    records: list[Record] = []
    for scheme, own in trials:
        limits = scheme.bits
        tried = None if limits is None else list(range(limits[0], limits[1] + 1))
        if bits is not None and len(schemes) == 1:
            tried = bits  # what the scheme has not is refused
        elif bits is not None and tried is not None:
            tried = [width for width in bits if width in tried]
        if tried is None or tried:
            records += predict(subject, scheme=scheme.name, bits=tried, confidence=2 * confidence - 1, **own, **ask)
    if not records:
        raise InputError(f"bits: expected widths that one of {', '.join(schemes)} has, got {', '.join(map(str, bits or []))}")
    return records, [record.interval[1] + record.numerical_error for record in records]


def _trials(schemes: Sequence[Scheme], options: dict[str, Any]) -> list[tuple[Scheme, dict[str, Any]]]:
    """The schemes with the options that they have; of several, those that need a sparsity at each of SPARSITIES, and those that
    need another option with its USUAL value."""
    if len(schemes) == 1:
        return [(schemes[0], options)]
    own = [(scheme, {name: value for name, value in options.items() if _has(scheme, name)}) for scheme in schemes]
    for name, value in options.items():
        if value and not any(_has(scheme, name) for scheme in schemes):
            own[0][1][name] = value  # none has it, and the first will say so
    for scheme, given in own:
        for name, usual in USUAL.items():
            if scheme.option(name) is not None and given.get(name) is None:
                given[name] = usual
    trials = []
    for scheme, given in own:
        if scheme.option("sparsity") is None or given.get("sparsity") is not None:
            trials.append((scheme, given))
        else:
            trials += [(scheme, {**given, "sparsity": sparsity}) for sparsity in SPARSITIES]
    return trials


def _has(scheme: Scheme, name: str) -> bool:
    return scheme.option(name) is not None or name == "bias_correction" or (name == "bias" and scheme.bias_column)


def fewest(records: Sequence[Record], bounds: Sequence[float], max_loss: float) -> int | None:
    """Which of the records keeps the loss with the fewest stored bits; None where none does."""
    kept = [i for i, bound in enumerate(bounds) if bound <= max_loss]
    return min(kept, key=lambda i: (records[i].rate, bounds[i]), default=None)


def _alike(record: Record, other: Record) -> bool:
    """Whether two records differ in their width alone."""
    keys = ("scheme", "granularity", "group_size", "sparsity")
    return all(getattr(record, key) == getattr(other, key) for key in keys)


def _sentence(
    records: list[Record], bounds: list[float], chosen: int | None, closest: int | None, max_loss: float, confidence: float
) -> str:
    def name(record: Record) -> str:
        width = "" if record.bits is None else f" at {record.bits} bits"
        scopes = {"tensor": "", "channel": ", a step a row", "group": f", a step for {record.group_size} weights"}
        pruned = f" and sparsity {record.sparsity:g}" if record.sparsity else ""
        return f"{record.scheme}{width}{pruned}{scopes[record.granularity]}"

    if closest is not None:
        one = records[closest]
        return (
            f"no width keeps a loss of {100 * max_loss:.3g} points with {confidence:.0%} confidence; {name(one)} comes "
            f"closest: at most {100 * bounds[closest]:.3g} points (predicted {100 * one.distortion:.3g})"
        )
    assert chosen is not None  # one of the two is
    one = records[chosen]
    size = f"{one.compression_ratio:.3g} times smaller than float32"
    if one.ratio_to_source != one.compression_ratio:
        size += f", {one.ratio_to_source:.3g} times smaller than in the file it came from"
    if one.ratio_to_source < 1:
        size = f"{1 / one.ratio_to_source:.3g} times larger than in the file it came from"
    loss = "nothing" if bounds[chosen] <= 0 else f"at most {100 * bounds[chosen]:.3g} points"
    said = (
        f"{name(one)}: {one.rate:.3g} stored bits per weight, {size}; it loses {loss} with {confidence:.0%} confidence "
        f"(predicted {100 * one.distortion:.3g} points, allowed {100 * max_loss:.3g} points)"
    )
    own = [i for i, record in enumerate(records) if _alike(record, one) and record.bits is not None]
    fewer = [i for i in own if records[i].bits == (one.bits or 0) - 1]
    if fewer:
        said += f"; with one bit fewer at most {100 * bounds[fewer[0]]:.3g} points"
    wider = [records[i].bits for i in own if (records[i].bits or 0) > (one.bits or 0) and bounds[i] > max_loss]
    if wider:
        said += f"; not monotone: {', '.join(map(str, wider))} bits may lose more"
    return said
