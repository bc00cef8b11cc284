"""From counts to records: paired estimates with their standard errors."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from simulate.request import Request
from simulate.sampling.conditional_lines import Lines
from simulate.sampling.paired_counting import Tally
from theory.setting.errors import listed
from theory.setting.record import Record, class_fields, compression_fields
from theory.setting.remarks import near_chance, remarks
from theory.setting.schemes import Compressed

NORMAL_95 = 1.959963984540054  # quantile of 95 % of a normal law, both sides


def sampled(tally: Tally, index: int, request: Request, method: str) -> Record:
    """The record of layer ``index`` of a tally.

    The standard error is that of the mean over independent units (samples of a shared normal, or networks) of
    sum_k pi_k (made - mended): it allows for the dependence of the classes.
    """
    layer, priors = request.layers[index], request.problem.priors
    wrong = tally.wrong / tally.samples
    shift = (tally.made[index] - tally.mended[index]) / tally.samples
    flips = tally.flips[index] / tally.samples
    distortion, flip_rate = float(shift @ priors), float(flips @ priors)
    variance = tally.squares[index] / tally.units - np.array([distortion, flip_rate]) ** 2
    se = np.sqrt(np.maximum(variance, 0) / tally.units)
    within = tally.samples // tally.units
    network = 0.0
    if within > 1:
        squares = float(tally.squares[index, 0]) / tally.units, float(tally.sample_squares[index]) / tally.samples
        network = network_spread(*squares, distortion, within)
    changed = float((tally.made[index] + tally.mended[index]) @ priors) / tally.samples
    test_set = test_noise(changed, distortion, request.test_size)
    n = tally.samples * len(priors)
    seen = int((tally.made[index] + tally.mended[index])[priors > 0].sum())
    interval, warnings = interval_of(distortion, float(se[0]), request.confidence, seen, tally.units)
    return Record(
        **compression_fields(layer, request.problem.source_bits),
        errors=request.errors,
        method=method,
        risk_before=float(wrong @ priors),
        risk_after=float((wrong + shift) @ priors),
        distortion=distortion,
        interval=interval,
        confidence=request.confidence,
        interval_sources={"network": network, "statistics": 0.0, "test_set": test_set, "model": 0.0},
        flip_rate=flip_rate,
        per_class=class_fields(priors, 1 - wrong, 1 - wrong - shift),
        numerical_error=0.0,
        risk_before_error=_share_error(float(wrong @ priors), tally.samples),
        flip_rate_error=NORMAL_95 * float(se[1]),
        standard_error=float(se[0]),
        flip_rate_standard_error=float(se[1]),
        n=n,
        warnings=[*warnings, *remarks_of(request, layer)],
        provenance=request.provenance,
    )


def averaged(sums: Lines, index: int, request: Request, method: str) -> Record:
    """The record of layer ``index`` from conditional averages; the lines are the independent units."""
    layer, priors = request.layers[index], request.problem.priors
    right, shift, flips = sums.right / sums.lines, sums.shift[index] / sums.lines, sums.flips[index] / sums.lines
    distortion, flip_rate = float(shift @ priors), float(flips @ priors)
    variance = sums.squares[index] / sums.lines - np.array([distortion, flip_rate]) ** 2
    se = np.sqrt(np.maximum(variance, 0) / (sums.lines - 1))
    half = _quantile(request.confidence) * float(se[0])
    test_set = test_noise(flip_rate, distortion, request.test_size)
    return Record(
        **compression_fields(layer, request.problem.source_bits),
        errors=request.errors,
        method=method,
        risk_before=float((1 - right) @ priors),
        risk_after=float((1 - right + shift) @ priors),
        distortion=distortion,
        interval=(distortion - half, distortion + half),
        confidence=request.confidence,
        interval_sources={"network": 0.0, "statistics": 0.0, "test_set": test_set, "model": 0.0},
        flip_rate=flip_rate,
        per_class=class_fields(priors, right, right - shift),
        numerical_error=0.0,
        risk_before_error=_share_error(float((1 - right) @ priors), sums.lines),
        flip_rate_error=NORMAL_95 * float(se[1]),
        standard_error=float(se[0]),
        flip_rate_standard_error=float(se[1]),
        n=sums.lines * len(priors),
        warnings=remarks_of(request, layer),
        provenance=request.provenance,
    )


def remarks_of(request: Request, layer: Compressed) -> list[str]:
    problem = request.problem
    names = problem.class_numbers
    return remarks(problem.weights, layer, problem.source_bits, bias_column=request.question.bias, class_numbers=names)


def network_spread(of_networks: float, of_samples: float, distortion: float, each: int) -> float:
    """Standard deviation of the distortion over networks, the noise of ``each`` samples removed, from the mean squares of the
    networks' means and of their samples."""
    return float(np.sqrt(max(0.0, (each * of_networks - of_samples) / (each - 1) - distortion**2)))


def paired_error(made: int, mended: int, n: int) -> float:
    """Standard error of the paired difference (made - mended)/n of n samples."""
    return float(np.sqrt(made + mended - (made - mended) ** 2 / n) / n)


class Decisions(NamedTuple):
    """Of n labelled samples of K classes: labels, decisions of the clean and of the compressed layer, each (n,); the numbers
    of the classes where they come from."""

    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray
    class_numbers: list[int]


def counted(seen: Decisions, fields: dict[str, Any], confidence: float, provenance: dict[str, Any]) -> Record:
    """The record of one layer, or network, on n labelled samples, from both decisions on each of them; ``fields`` are those of
    its compression.

    Its standard error is :func:`paired_error`.
    """
    labels, n, K = seen.labels, len(seen.labels), len(seen.class_numbers)
    wrong, wrong_after = seen.before != labels, seen.after != labels
    made, mended = int(np.sum(wrong_after & ~wrong)), int(np.sum(wrong & ~wrong_after))
    flips = int(np.sum(seen.before != seen.after))
    se = paired_error(made, mended, n)
    flip_rate = flips / n
    flips_se = float(np.sqrt(flip_rate * (1 - flip_rate) / n))
    share = np.bincount(labels, minlength=K)
    recalls = [np.bincount(labels, weights=~x, minlength=K) / np.maximum(share, 1) for x in (wrong, wrong_after)]
    interval, warnings = interval_of((made - mended) / n, se, confidence, made + mended, n)
    if not share.all():
        which = listed(seen.class_numbers[k] for k in np.flatnonzero(share == 0))
        warnings.append(f"no sample of class {which}: recalls are given as 0")
    warnings += near_chance(1 - float(np.mean(wrong)), K)
    return Record(
        **fields,
        errors="actual",
        method="counting",
        risk_before=float(np.mean(wrong)),
        risk_after=float(np.mean(wrong_after)),
        distortion=(made - mended) / n,
        interval=interval,
        confidence=confidence,
        interval_sources={"network": 0.0, "statistics": 0.0, "test_set": se, "model": 0.0},
        flip_rate=flip_rate,
        per_class=class_fields(share / n, *recalls),
        numerical_error=0.0,
        risk_before_error=_share_error(float(np.mean(wrong)), n),
        flip_rate_error=NORMAL_95 * flips_se,
        standard_error=se,
        flip_rate_standard_error=flips_se,
        n=n,
        warnings=warnings,
        provenance={**provenance, "made": made, "mended": mended, "flips": flips},
    )


def _share_error(share: float, n: int) -> float:
    """95 % half-width of a share of n samples; of a prior-weighted sum over classes that share their samples at most that."""
    return NORMAL_95 * float(np.sqrt(max(share * (1 - share), 0.0) / n))


def test_noise(changed: float, distortion: float, test_size: int | None) -> float:
    """What a test set of so many samples adds to a distortion, a share of which changes in correctness."""
    return 0.0 if test_size is None else float(np.sqrt(max(changed - distortion**2, 0.0) / test_size))


def _quantile(confidence: float) -> float:
    return float(-ndtri((1 - confidence) / 2))


def interval_of(distortion: float, se: float, confidence: float, events: int, n: int):
    """Estimate +- z standard errors; when nothing was seen to change in n independent units (samples, or networks of several),
    the exact bound of a zero count instead."""
    if events:
        half = _quantile(confidence) * se
        return (distortion - half, distortion + half), []
    bound = min(1.0, float(-np.log1p(-confidence)) / n)
    return (-bound, bound), [
        f"no decision changed its correctness in {n} independent draws: |distortion| is below {bound:.2g} with "
        f"{confidence:.0%} confidence"
    ]
