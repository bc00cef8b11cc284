"""The world that checks the theory: synthetic problems, Monte Carlo, real networks and the experiments on them.

Risk is computed here from samples and argmax alone; nothing is borrowed from :mod:`theory` but its setting. The public
functions load lazily: ``simulate.run`` needs JAX, ``simulate.extract`` and ``simulate.train`` the extra ``torch``.
"""

import importlib

_HOMES = {
    "synthetic": "simulate.generator",
    "run": "simulate.monte_carlo",
    "measure": "simulate.counting",
    "fit": "simulate.feature_models.gaussian",
    "extract": "simulate.networks.extract",
    "train": "simulate.networks.training",
    "check": "simulate.experiments.hypotheses",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'simulate' has no attribute {name!r}")
