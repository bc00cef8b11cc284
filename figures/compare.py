"""The table that joins theory and simulation: one row a claim, with its z-score."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

from simulate.estimates import NORMAL_95
from simulate.experiments.hypothesis_tests import holm
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


COLUMNS: tuple[str, ...] = (*Cell._fields, "theory", "simulation", "standard_error", "z", "theory_error")
# what a figure may spend on the theory of more classes, beside a simulation that is known no better
QUICK = Budget(orthant_work=2e7, orthant_precision=5e-3, line_work=2e6, average_precision=4e-3, flips_alone_precision=1.6e-2)
FAMILY_RATE = 1e-3  # chance that a true family of exact claims has a row counted as failed (Holm)


def join(figure: str, problem: str, K: int, d: int, claim: str, prediction: Record, estimate: Record) -> list[dict[str, Any]]:
    """Rows for distortion and flip rate of one compressed layer; ``theory_error`` is the standard deviation of what the theory
    integrates numerically."""
    # where no sample changed its class none is known of the spread: that of the flips predicted
    unseen = 0.0 if not estimate.n else float(np.sqrt(prediction.flip_rate / estimate.n))
    errors = estimate.standard_error or unseen, prediction.numerical_error / NORMAL_95
    flips_errors = estimate.flip_rate_standard_error or unseen, prediction.flip_rate_error / NORMAL_95
    pairs = {
        "distortion": (prediction.distortion, estimate.distortion, *errors),
        "flip_rate": (prediction.flip_rate, estimate.flip_rate, *flips_errors),
    }
    return [
        row(
            Cell(
                figure=figure,
                problem=problem,
                quantity=quantity,
                K=K,
                d=d,
                scheme=prediction.scheme,
                bits=prediction.bits,
                errors=prediction.errors,
                method=prediction.method,
                claim=claim,
            ),
            *values,
        )
        for quantity, values in pairs.items()
    ]


def row(
    cell: Cell, theory: float, simulation: float, standard_error: float | None, theory_error: float | None = None
) -> dict[str, Any]:
    """One row; z is over the standard error of the simulation alone; ``theory_error`` as in :func:`join`, None where it is not
    known."""
    values = {"theory": float(theory), "simulation": float(simulation), "standard_error": standard_error}
    z = _score(simulation - theory, standard_error or 0.0)
    return cell._asdict() | values | {"z": z, "theory_error": theory_error}


def with_both_errors(one: dict[str, Any]) -> dict[str, Any]:
    """A row whose z is over the errors of both sides."""
    error = float(np.hypot(one["standard_error"] or 0.0, one["theory_error"] or 0.0))
    return one | {"z": _score(one["simulation"] - one["theory"], error)}


def _score(gap: float, error: float) -> float | None:
    """Gap over error: None where neither is anything, infinite where there is a gap and no error."""
    return float(gap) / error if error else None if gap == 0 else float(np.copysign(np.inf, gap))


def holding(rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How many of the exact claims hold, and of how many: Holm's step-down test at FAMILY_RATE, the errors of both sides
    allowed for."""
    exact = [one for one in rows if one["claim"] == "exact"]
    scores = [with_both_errors(one)["z"] for one in exact]
    z = np.abs([score for score in scores if score is not None])
    failed = int(np.count_nonzero(holm(2 * norm.sf(z)) <= FAMILY_RATE))
    return len(z) - failed, len(z)


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
