"""The world that checks the theory: synthetic problems, Monte Carlo, real networks and the experiments on them.

Risk is computed here from samples and argmax alone; nothing is borrowed from :mod:`theory` but its setting. The public
functions load lazily: ``simulate.run`` needs JAX, ``simulate.train`` the extra ``torch``, ``simulate.extract`` that of the
network, each of which has Pillow.
"""

import importlib

from theory.setting.errors import InputError

_HOMES = {
    "synthetic": "simulate.generator",
    "run": "simulate.monte_carlo",
    "measure": "simulate.counting",
    "compress": "simulate.stored",
    "decompress": "simulate.stored",
    "fit": "simulate.feature_models.fit",
    "extract": "simulate.networks.extract",
    "train": "simulate.networks.training",
    "compare": "simulate.experiments.models",
    "check": "simulate.experiments.hypotheses",
    "benchmark": "simulate.experiments.benchmark",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str):
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            missing = {"torch": "PyTorch", "PIL": "Pillow"}.get(error.name or "")
            if missing is None:
                raise
            raise InputError(f"simulate.{name} needs {missing}: pip install 'compressed-network-theory[torch]'") from None
    raise AttributeError(f"module 'simulate' has no attribute {name!r}")
