"""``simulate run`` of a dense network of several layers: decisions of clean and compressed networks counted."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from simulate.estimates import NORMAL_95, interval_of, network_spread, paired_error
from simulate.request import MOST_NETWORKS, MOST_VECTORS
from simulate.sampling.dense_networks import Counts, count_dense
from theory.setting.checks import seed_of, share, whole
from theory.setting.dense import DenseNetwork
from theory.setting.errors import InputError
from theory.setting.question import plans_of
from theory.setting.record import Record, class_fields, tensor_fields, version

SAMPLES = 2048  # inputs of a network by default
NETWORKS, BLOCKS = 512, 488  # networks drawn by default; blocks of the one network: a million inputs
MOST_SAMPLES = 2**16  # inputs of a network at most: they are held at once
AT_ONCE = 256  # blocks between two looks at the standard error


def run_dense(
    network: DenseNetwork,
    *,
    scheme: str,
    bits: Sequence[int] | int | None,
    errors: str,
    confidence: float,
    test_size: int | None,
    n: int | None,
    standard_error: float | None,
    networks: int | None,
    seed: int,
    **options: Any,
) -> list[Record]:
    """The records of :func:`simulate.run` for a dense network.

    Raises:
        InputError: options that a network of several layers does not know, or work of hours.
    """
    random = errors == "expected"
    plans = plans_of(network, scheme, bits, **options)
    if random:
        for plan in plans:
            plan.check_stepped()
    compressed = [network.compressed(plan) for plan in plans]
    confidence, seed = share("confidence", confidence), seed_of(seed)
    blocks = (NETWORKS if random else BLOCKS) if networks is None else whole("networks", networks, 2, MOST_NETWORKS)
    samples = SAMPLES
    if n is not None and networks is not None:
        samples = min(MOST_SAMPLES, ceil(whole("n", n, 1, MOST_VECTORS) / blocks))
    elif n is not None:
        samples = min(SAMPLES, whole("n", n, 1, MOST_VECTORS))
        blocks = max(2, ceil(n / samples))
    goal = None if standard_error is None else share("standard_error", standard_error)
    counts, last = None, 0
    while counts is None or (goal is not None and np.max(_errors(counts, samples, random)) > goal):
        first, last = last, last + (blocks if goal is None else AT_ONCE)
        if last * samples > MOST_VECTORS:
            raise InputError(f"standard_error: {standard_error:g} needs more than {MOST_VECTORS:.0e} inputs")
        counts = count_dense(network, compressed, random=random, samples=samples, seed=seed, first=first, last=last).joined(
            counts
        )
    provenance = {"by": f"simulate.run {version()}", "statistics": network.provenance, "seed": seed}
    provenance |= {"networks": last if random else 1}
    rows = zip(plans, compressed, range(len(plans)), strict=True)
    return [
        _record(counts, i, samples, random, confidence, test_size, {**tensor_fields(plan, tensors), "provenance": provenance})
        for plan, tensors, i in rows
    ]


def _errors(counts: Counts, samples: int, random: bool) -> np.ndarray:
    """(B,) standard errors of the distortions: over networks, or over inputs of the one network."""
    if random:
        return np.std((counts.made - counts.mended) / samples, axis=0, ddof=1) / np.sqrt(len(counts.made))
    total = samples * len(counts.made)
    return np.array(
        [paired_error(int(a), int(b), total) for a, b in zip(counts.made.sum(0), counts.mended.sum(0), strict=True)]
    )


def _record(
    counts: Counts, i: int, samples: int, random: bool, confidence: float, test_size: int | None, fields: dict[str, Any]
) -> Record:
    blocks = len(counts.made)
    total = samples * blocks
    made, mended, flips = (x[:, i] / samples for x in (counts.made, counts.mended, counts.flips))
    D, F, changed = float((made - mended).mean()), float(flips.mean()), float((made + mended).mean())
    se = float(_errors(counts, samples, random)[i])
    flips_se = float(flips.std(ddof=1) / np.sqrt(blocks)) if random else float(np.sqrt(F * (1 - F) / total))
    network = network_spread(float(np.mean((made - mended) ** 2)), changed, D, samples) if random and samples > 1 else 0.0
    test_set = 0.0 if test_size is None else float(np.sqrt(max(changed - D**2, 0.0) / test_size))
    seen = int((counts.made + counts.mended)[:, i].sum())
    ends, warnings = interval_of(D, se, confidence, seen, blocks if random else total)
    labels = counts.labels.sum(0)
    before, after = counts.before.sum(0) / np.maximum(labels, 1), counts.after[:, i].sum(0) / np.maximum(labels, 1)
    risk = 1 - counts.before.sum() / total
    return Record(
        **fields,
        errors="expected" if random else "actual",
        method="networks_drawn" if random else "counting",
        risk_before=risk,
        risk_after=risk + D,
        distortion=D,
        interval=ends,
        confidence=confidence,
        interval_sources={"network": network, "statistics": 0.0, "test_set": test_set, "model": 0.0},
        flip_rate=F,
        per_class=class_fields(labels / total, before, after),
        numerical_error=0.0,
        risk_before_error=NORMAL_95 * float(np.sqrt(risk * (1 - risk) / total)),
        flip_rate_error=NORMAL_95 * flips_se,
        standard_error=se,
        flip_rate_standard_error=flips_se,
        n=total,
        warnings=warnings,
    )
