"""Labelled features drawn from a Gaussian problem."""

import numpy as np

from simulate.sampling.paired_counting import factor
from theory.setting.features import Features


def sample(problem, n, rng, dtype: type = np.float64):
    y = rng.choice(problem.classes, n, p=problem.priors)
    z = rng.standard_normal((n, problem.features))
    for k in range(problem.classes):
        z[y == k] = problem.means[k] + z[y == k] @ factor(problem.covariance(k)).T
    return Features(features=z.astype(dtype), labels=y, weights=problem.weights, bias=problem.bias)
