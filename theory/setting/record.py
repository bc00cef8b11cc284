"""What every door returns: one record a width, the same fields for a prediction and for an estimate."""

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from theory.setting.compression import Compressed
from theory.setting.door import print_json, print_table

SOURCES = ("network", "statistics", "test_set", "model")


@dataclass(frozen=True, kw_only=True)
class Record:
    """Risk, distortion and flip rate of one compressed layer. Fractions throughout.

    A prediction (``theory.predict``) carries ``numerical_error``; an estimate (``simulate.run``, ``simulate.measure``)
    carries ``standard_error``, ``flip_rate_standard_error`` and ``n``. ``distortion`` is risk after minus risk before.
    ``interval`` is for the distortion one network shows on a test set of the size asked for; ``interval_sources`` are
    standard deviations by name.
    """

    scheme: str
    bits: int | None
    granularity: str
    rate: float
    rate_breakdown: dict[str, int]
    compression_ratio: float
    ratio_to_source: float
    errors: str
    method: str
    risk_before: float
    risk_after: float
    distortion: float
    interval: tuple[float, float]
    confidence: float
    interval_sources: dict[str, float]
    flip_rate: float
    per_class: list[dict[str, float]]
    numerical_error: float = 0.0
    standard_error: float | None = None
    flip_rate_standard_error: float | None = None
    n: int | None = None
    sparsity: float = 0.0
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what does not apply is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None or key == "bits"}


def compression_fields(compressed: Compressed, source_bits: int) -> dict[str, Any]:
    """The fields of a record that the compression alone determines."""
    rate = compressed.rate
    return {
        "scheme": compressed.scheme,
        "bits": compressed.bits,
        "granularity": compressed.granularity,
        "sparsity": compressed.sparsity,
        "rate": rate,
        "rate_breakdown": compressed.rate_breakdown,
        "compression_ratio": 32 / rate,
        "ratio_to_source": source_bits / rate,
    }


def class_fields(priors, before, after) -> list[dict[str, float]]:
    """``per_class`` from priors and recalls, class 0 first."""
    return [
        {"prior": float(p), "recall_before": float(b), "recall_after": float(a)}
        for p, b, a in zip(np.asarray(priors), np.asarray(before), np.asarray(after), strict=True)
    ]


def version() -> str:
    try:
        return importlib.metadata.version("compressed-network-theory")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def show(records: Sequence[Record], *, as_json: bool) -> None:
    """Print records as JSON or as a table with one line per warning below it."""
    if as_json:
        print_json([record.as_dict() for record in records])
        return
    rows = [record.as_dict() for record in records]
    sparsity = ["sparsity"] if any(record.sparsity for record in records) else []
    columns = [
        "scheme",
        "granularity",
        "bits",
        *sparsity,
        "rate",
        "risk_before",
        "risk_after",
        "distortion",
        "interval",
        "flip_rate",
    ]
    error = "standard_error" if records and records[0].standard_error is not None else "numerical_error"
    print_table(rows, [*columns, error, "method"])
    several = len({record.scheme for record in records}) > 1
    for record in records:
        about = [record.scheme] * several + ([] if record.bits is None else [f"{record.bits} bits"])
        for warning in record.warnings:
            print(f"{', '.join(about)}{': ' if about else ''}{warning}")
