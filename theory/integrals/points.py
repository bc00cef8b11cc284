"""Scrambled Sobol points, from SciPy: imported when they are needed, which takes longer than many answers."""

from typing import Any

import numpy as np


def sobol(dimensions: int, rng: np.random.Generator) -> Any:
    """A source of scrambled Sobol points: ``random(n)`` gives the next ones (n, dimensions)."""
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, rng=rng)


def has_sobol(dimensions: int) -> bool:
    """Whether there are Sobol points in so many dimensions."""
    from scipy.stats import qmc

    return dimensions <= qmc.Sobol.MAXDIM
