"""What the theory predicts: risk, distortion and flip rate of a compressed last layer, from its statistics.

Loads lazily: importing :mod:`theory.setting` (problems, files, schemes, records) loads neither SymPy nor JAX.
"""

import importlib
import sys

if sys.argv[:1] == ["-m"]:  # a command is being found: Ctrl-C ends it in one line from here on
    from theory.setting import interrupt

    interrupt.install(interrupt.module_run(sys.orig_argv))

_HOMES = {
    "predict": "theory.prediction",
    "bits": "theory.choose.width",
    "allocate": "theory.choose.allocation",
    "Problem": "theory.setting.problem",
    "Features": "theory.setting.features",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'theory' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
