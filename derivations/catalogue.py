"""All derived results, by name."""

from derivations import arithmetic, binary, calibration, conditional, fitted, flips, laws, layers, multiclass, quantizer, spread
from derivations.result import Result, collect

RESULTS: dict[str, Result] = collect(
    quantizer, binary, conditional, flips, spread, fitted, multiclass, laws, calibration, arithmetic, layers
)
