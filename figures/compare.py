"""The table that joins theory and simulation: one row a claim, with its z-score."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from theory.budget import Budget
from theory.setting.record import Record


class Cell(NamedTuple):
    """What a row of the comparison is about."""

    figure: str
    problem: str
    quantity: str
    K: int
    d: int
    scheme: str
    bits: int | None
    errors: str
    method: str
    claim: str


COLUMNS: tuple[str, ...] = (*Cell._fields, "theory", "simulation", "standard_error", "z")
# what a figure may spend on the theory of more classes, beside a simulation that is known no better
QUICK = Budget(orthant_work=2e7, orthant_precision=5e-3, line_work=2e6, average_precision=4e-3, flips_alone_precision=1.6e-2)
FAMILY_RATE = 1e-3  # chance that a true family of exact claims has a row counted as failed (Holm)


def join(figure: str, problem: str, K: int, d: int, claim: str, prediction: Record, estimate: Record) -> list[dict[str, Any]]:
    """Rows for distortion and flip rate of one compressed layer; the standard error is that of the simulation and of what the
    theory integrates numerically."""

    def joint(simulation: float | None, theory: float | None) -> float:
        return float(np.hypot(simulation or 0.0, (theory or 0.0) / norm.ppf(0.975)))

    errors = joint(estimate.standard_error, prediction.numerical_error)
    flips_errors = joint(estimate.flip_rate_standard_error, prediction.flip_rate_error)
    pairs = {
        "distortion": (prediction.distortion, estimate.distortion, errors),
        "flip_rate": (prediction.flip_rate, estimate.flip_rate, flips_errors),
    }
    return [
        row(
            Cell(
                figure,
                problem,
                quantity,
                K,
                d,
                prediction.scheme,
                prediction.bits,
                prediction.errors,
                prediction.method,
                claim,
            ),
            *values,
        )
        for quantity, values in pairs.items()
    ]


def row(cell: Cell, theory: float, simulation: float, standard_error: float | None) -> dict[str, Any]:
    """One row; z is left empty where the simulation saw nothing to be uncertain about."""
    z = (simulation - theory) / standard_error if standard_error else None
    values = {"theory": float(theory), "simulation": float(simulation), "standard_error": standard_error, "z": z}
    return cell._asdict() | values


def holding(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How many of the exact claims hold, and of how many: Holm's step-down test at FAMILY_RATE."""
    z = np.array([abs(one["z"]) for one in rows if one["claim"] == "exact" and one["z"] is not None])
    p = np.sort(2 * norm.sf(z))
    below = p <= FAMILY_RATE / (len(p) - np.arange(len(p)))
    failed = len(p) if below.all() else int(np.argmin(below))
    return len(p) - failed, len(p)


def shortened(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By figure, quantity, claim and method: how many rows, the largest |z|, the root mean square of z."""
    groups: dict[tuple, list[dict]] = {}
    for one in rows:
        groups.setdefault(tuple(one[key] for key in ("figure", "quantity", "errors", "method", "claim")), []).append(one)
    table = []
    for (figure, quantity, errors, method, claim), members in groups.items():
        z = np.array([one["z"] for one in members if one["z"] is not None])
        table.append(
            {
                "figure": figure,
                "quantity": quantity,
                "errors": errors,
                "method": method,
                "claim": claim,
                "rows": len(members),
                "largest |z|": float(np.abs(z).max()) if len(z) else None,
                "rms z": float(np.sqrt(np.mean(z**2))) if len(z) else None,
            }
        )
    return table
