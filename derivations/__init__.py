"""Every formula of the project, derived in SymPy from its definition and kept as data.

``RESULTS`` maps a name to its :class:`~derivations.result.Result`; it is derived when it is asked for. The rest of the house
calls the code generated from it (:mod:`derivations.compiled`), which needs no SymPy. Nothing numerical is typed by hand
elsewhere.
"""

import importlib

_HOMES = {"RESULTS": "derivations.catalogue", "Result": "derivations.result"}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'derivations' has no attribute {name!r}")
