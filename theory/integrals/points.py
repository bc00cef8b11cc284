"""Points in the unit cube: scrambled Sobol points of SciPy, imported when they are needed, which takes longer than many
answers; and lattices, made in no time."""

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


def lattices(rng: np.random.Generator, batch: int, n: int, dimensions: int) -> np.ndarray:
    """(batch, n, dimensions) points in the unit cube: independent lattices with random odd multipliers, n a power of
    two. Made in no time; to be moved at random before use."""
    multiplier = 2 * rng.integers(0, n // 2, (batch, 1, dimensions), dtype=np.int32) + 1
    shifted = (np.arange(n, dtype=np.int32)[:, None] * multiplier) % n + rng.random((batch, 1, dimensions))
    return shifted / n
