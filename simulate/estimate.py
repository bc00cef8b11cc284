"""From counts to records: paired estimates with their standard errors."""

from typing import Any

import numpy as np
from scipy.stats import norm

from simulate.conditional import Lines
from simulate.sampler import Tally
from theory.setting.compression import Compressed
from theory.setting.record import Record, class_fields, compression_fields


def sampled(
    tally: Tally,
    index: int,
    layer: Compressed,
    priors: np.ndarray,
    source_bits: int,
    confidence: float,
    errors: str,
    method: str,
    test_size: int | None,
    provenance: dict[str, Any],
) -> Record:
    """The record of layer ``index`` of a tally.

    The standard error is that of the mean over independent units (samples of a shared normal, or networks) of
    sum_k pi_k (made - mended): it allows for the dependence of the classes.
    """
    wrong = tally.wrong / tally.samples
    shift = (tally.made[index] - tally.mended[index]) / tally.samples
    flips = tally.flips[index] / tally.samples
    distortion, flip_rate = float(shift @ priors), float(flips @ priors)
    variance = tally.squares[index] / tally.units - np.array([distortion, flip_rate]) ** 2
    se = np.sqrt(np.maximum(variance, 0) / tally.units)
    within = tally.samples // tally.units
    network = 0.0
    if within > 1:  # variance over networks, sampling noise removed
        network = float(
            np.sqrt(
                max(
                    0.0,
                    (within * tally.squares[index, 0] / tally.units - tally.sample_squares[index] / tally.samples)
                    / (within - 1)
                    - distortion**2,
                )
            )
        )
    changed = float((tally.made[index] + tally.mended[index]) @ priors) / tally.samples
    test_set = 0.0 if test_size is None else float(np.sqrt(max(changed - distortion**2, 0.0) / test_size))
    n = tally.samples * len(priors)
    seen = int(tally.flips[index].sum())
    interval, warnings = _interval(distortion, float(se[0]), confidence, seen, tally.samples)
    return Record(
        **compression_fields(layer, source_bits),
        errors=errors,
        method=method,
        risk_before=float(wrong @ priors),
        risk_after=float((wrong + shift) @ priors),
        distortion=distortion,
        interval=interval,
        confidence=confidence,
        interval_sources={"network": network, "statistics": 0.0, "test_set": test_set, "model": 0.0},
        flip_rate=flip_rate,
        per_class=class_fields(priors, 1 - wrong, 1 - wrong - shift),
        standard_error=float(se[0]),
        flip_rate_standard_error=float(se[1]),
        n=n,
        warnings=warnings,
        provenance=provenance,
    )


def averaged(
    sums: Lines,
    index: int,
    layer: Compressed,
    priors: np.ndarray,
    source_bits: int,
    confidence: float,
    errors: str,
    test_size: int | None,
    provenance: dict[str, Any],
) -> Record:
    """The record of layer ``index`` from conditional averages; the lines are the independent units."""
    right, shift, flips = sums.right / sums.lines, sums.shift[index] / sums.lines, sums.flips[index] / sums.lines
    distortion, flip_rate = float(shift @ priors), float(flips @ priors)
    variance = sums.squares[index] / sums.lines - np.array([distortion, flip_rate]) ** 2
    se = np.sqrt(np.maximum(variance, 0) / (sums.lines - 1))
    half = float(norm.isf((1 - confidence) / 2)) * float(se[0])
    test_set = 0.0 if test_size is None else float(np.sqrt(max(flip_rate - distortion**2, 0.0) / test_size))
    return Record(
        **compression_fields(layer, source_bits),
        errors=errors,
        method="conditional",
        risk_before=float((1 - right) @ priors),
        risk_after=float((1 - right + shift) @ priors),
        distortion=distortion,
        interval=(distortion - half, distortion + half),
        confidence=confidence,
        interval_sources={"network": 0.0, "statistics": 0.0, "test_set": test_set, "model": 0.0},
        flip_rate=flip_rate,
        per_class=class_fields(priors, right, right - shift),
        standard_error=float(se[0]),
        flip_rate_standard_error=float(se[1]),
        n=sums.lines * len(priors),
        provenance=provenance,
    )


def paired_error(made: int, mended: int, n: int) -> float:
    """Standard error of the paired difference (made - mended)/n of n samples."""
    return float(np.sqrt(made + mended - (made - mended) ** 2 / n) / n)


def counted(
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    K: int,
    layer: Compressed,
    source_bits: int,
    confidence: float,
    provenance: dict[str, Any],
) -> Record:
    """The record of one layer on n labelled samples, from both decisions on each of them.

    Its standard error is :func:`paired_error`.
    """
    n = len(labels)
    wrong, wrong_after = before != labels, after != labels
    made, mended = int(np.sum(wrong_after & ~wrong)), int(np.sum(wrong & ~wrong_after))
    flips = int(np.sum(before != after))
    se = paired_error(made, mended, n)
    flip_rate = flips / n
    share = np.bincount(labels, minlength=K)
    recalls = [np.bincount(labels, weights=~x, minlength=K) / np.maximum(share, 1) for x in (wrong, wrong_after)]
    interval, warnings = _interval((made - mended) / n, se, confidence, made + mended, n)
    if not share.all():
        absent = ", ".join(map(str, np.flatnonzero(share == 0)))
        warnings.append(f"no sample of class {absent}: recalls are given as 0")
    return Record(
        **compression_fields(layer, source_bits),
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
        standard_error=se,
        flip_rate_standard_error=float(np.sqrt(flip_rate * (1 - flip_rate) / n)),
        n=n,
        warnings=warnings,
        provenance={**provenance, "made": made, "mended": mended, "flips": flips},
    )


def _interval(distortion: float, se: float, confidence: float, events: int, n: int):
    """Estimate +- z standard errors; when nothing was seen to change, the exact bound of a zero count instead."""
    if events:
        half = float(norm.isf((1 - confidence) / 2)) * se
        return (distortion - half, distortion + half), []
    bound = min(1.0, float(-np.log1p(-confidence)) / n)
    return (-bound, bound), [
        f"no decision changed its correctness in {n} samples: |distortion| is below {bound:.2g} with "
        f"{confidence:.0%} confidence"
    ]
