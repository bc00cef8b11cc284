"""Every formula of the project, derived in SymPy from its definition and kept as data.

``RESULTS`` maps a name to its :class:`~derivations.result.Result`; nothing numerical is typed by hand elsewhere.
"""

from derivations import arithmetic, binary, calibration, conditional, fitted, flips, laws, multiclass, quantizer, spread
from derivations.result import Result, collect

RESULTS: dict[str, Result] = collect(
    quantizer, binary, conditional, flips, spread, fitted, multiclass, laws, calibration, arithmetic
)

__all__ = ["RESULTS", "Result"]
