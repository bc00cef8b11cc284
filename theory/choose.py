"""Which step, and how few bits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from theory import binary, calibrated, components, multiclass
from theory.setting.arguments import share
from theory.setting.compression import SCHEMES
from theory.setting.errors import InputError
from theory.setting.files import Features, read_either
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, margin
from theory.setting.question import Options, question
from theory.setting.record import Record

COARSE, FINE, BEST = 64, 1024, 24  # points for all layers, for the best of them, and how many those are
LAYERS = 32  # a compiled call


@in_float64
def distortions(subject: Problem | Features, layers: np.ndarray, temperature: float | None = None) -> np.ndarray:
    """(B,) predicted distortions of known layers (B, rows, d) of one problem, good enough to choose the least: of more than two
    classes by orthants at common points, of mixtures along common lines, few for all layers and more for the best of them.

    Raises:
        InputError: features without labels, whose temperature is not known.
    """
    if isinstance(subject, Features):
        if temperature is None and not subject.labelled:
            raise InputError("labels: missing, expected of features whose least distortion is asked for (or a temperature)")
        given = calibrated.posteriors(subject, calibrated.calibration_of(subject, temperature))
        return np.array([float(given.count(What).distortion @ given.priors) for What in layers])
    if subject.components is None and subject.classes == 2:
        return _two(subject, layers)
    if subject.components is None and not multiclass.has_orthants(subject):
        return np.concatenate([_lines(subject, layers[i : i + LAYERS]) for i in range(0, len(layers), LAYERS)])
    values = _orthants if subject.components is None else _components
    found = values(subject, layers, COARSE)
    order = np.lexsort((-np.arange(len(layers)), np.round(found, 13)))  # of equal ones the last
    best = np.sort(order[:BEST])
    out = np.full(len(layers), np.inf)
    out[best] = values(subject, layers[best], FINE)
    return out


def _two(problem: Problem, layers: np.ndarray) -> np.ndarray:
    pair = binary.pair_of(problem)
    at = binary.margin(pair)
    return np.array([float(binary.known(pair, at, margin(What, problem.bias)[0])[1] @ pair.priors) for What in layers])


def _orthants(problem: Problem, layers: np.ndarray, n: int) -> np.ndarray:
    found = []
    for i in range(0, len(layers), LAYERS):
        some = layers[i : i + LAYERS]
        full = np.concatenate([some, np.repeat(problem.weights[None], LAYERS - len(some), 0)])  # one compiled shape
        replicates = multiclass.orthants(multiclass.laws_of(problem, full), n=n, seed=0)
        found.append(((replicates[:, :1] - replicates[:, 1:]).mean(0) @ problem.priors)[: len(some)])
    return np.concatenate(found)


def _components(problem: Problem, layers: np.ndarray, n: int) -> np.ndarray:
    sets = 1 if n == COARSE else multiclass.LINE_SETS
    parts = [layers[i : i + LAYERS] for i in range(0, len(layers), LAYERS)]
    return np.concatenate([components.distortions(problem, part, sets=sets, seed=0) for part in parts])


def _lines(problem: Problem, layers: np.ndarray) -> np.ndarray:
    return np.array([float(c.distortion @ problem.priors) for c in multiclass.known(problem, layers, method="lines", seed=0)])


def bits(
    source: Problem | Features | Path | str,
    *,
    scheme: str | Sequence[str],
    max_loss: float,
    bits: Sequence[int] | None = None,
    errors: str = "actual",
    confidence: float = 0.95,
    classes: Sequence[int] | None = None,
    test_size: int | None = None,
    temperature: float | None = None,
    seed: int = 0,
    **options: Unpack[Options],
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
    from theory.prediction import predict

    if share("confidence", confidence) <= 0.5:
        raise InputError(f"confidence: expected more than 0.5 for an upper bound, got {confidence}")
    options, records = {key: ask.pop(key) for key in list(ask) if key in Options.__annotations__}, []
    own = {name: _own(name, options) if len(schemes) > 1 else options for name in schemes}
    for key, value in options.items():
        if value and not any(some.get(key) for some in own.values()):
            own[schemes[0]][key] = value  # none has it, and the first will say so
    for name in schemes:
        question(name, **own[name])  # what cannot be asked is said before the work begins
    for name in schemes:
        limits = SCHEMES[name].bits if name in SCHEMES else None
        tried = None if limits is None else list(range(limits[0], limits[1] + 1))
        if bits is not None and tried is not None:
            tried = [width for width in bits if width in tried] if len(schemes) > 1 else bits
        if tried is None or tried:
            records += predict(subject, scheme=name, bits=tried, confidence=2 * confidence - 1, **own[name], **ask)
    if not records:
        raise InputError(f"bits: expected widths that one of {', '.join(schemes)} has, got {', '.join(map(str, bits or []))}")
    return records, [record.interval[1] + record.numerical_error for record in records]


def _own(scheme: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options for several schemes that this one has."""
    known = SCHEMES.get(scheme)
    has = {
        "per_channel": known is not None and known.per_channel,
        "sparsity": known is not None and known.sparsity,
        "unit": known is not None and known.unit,
        "map_size": known is not None and known.unit,
        "criterion": scheme == "optimal",
        "activation_bits": scheme == "integer",
        "bias": scheme != "integer",
    }
    return {key: value for key, value in options.items() if has.get(key, True)}


def fewest(records: Sequence[Record], bounds: Sequence[float], max_loss: float) -> int | None:
    """Which of the records keeps the loss with the fewest stored bits; None where none does."""
    kept = [i for i, bound in enumerate(bounds) if bound <= max_loss]
    return min(kept, key=lambda i: (records[i].rate, bounds[i]), default=None)


def _sentence(
    records: list[Record], bounds: list[float], chosen: int | None, closest: int | None, max_loss: float, confidence: float
) -> str:
    def name(record: Record) -> str:
        width = "" if record.bits is None else f" at {record.bits} bits"
        return f"{record.scheme}{width}{', a step a row' if record.granularity == 'channel' else ''}"

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
    own = [i for i, record in enumerate(records) if record.scheme == one.scheme and record.bits is not None]
    fewer = [i for i in own if records[i].bits == (one.bits or 0) - 1]
    if fewer:
        said += f"; with one bit fewer at most {100 * bounds[fewer[0]]:.3g} points"
    wider = [records[i].bits for i in own if (records[i].bits or 0) > (one.bits or 0) and bounds[i] > max_loss]
    if wider:
        said += f"; not monotone: {', '.join(map(str, wider))} bits may lose more"
    return said
