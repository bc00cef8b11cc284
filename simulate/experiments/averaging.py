"""The reference for expected errors: exact risks of random layers, averaged. NumPy and SciPy alone, none of the formulas
under test but R(w) = sum_k pi_k Phi(sign_k m_k/s_k).
"""

import numpy as np
from scipy.special import ndtr

from simulate.sampling.paired_counting import factor
from theory.setting.problem import Problem, margin

SLAB = 2**22  # numbers held at once


def distortions(problem: Problem, steps: np.ndarray, *, networks: int, seed: int, antithetic: bool = False) -> np.ndarray:
    """Distortion of random layers W + E of two classes, E independent and uniform in +-step/2.

    Args:
        problem: two classes. steps: (B, rows); the widths share the uniforms.
        networks: how many. antithetic: add each one's mirror W - E.

    Returns:
        (B, networks) distortions, or their means over E and -E.
    """
    w, c = margin(problem.weights, problem.bias)
    signs = np.array([-1.0, 1.0]) if len(problem.weights) == 2 else np.array([1.0])
    factors = [factor(problem.covariance(k)) for k in range(2)]
    rng = np.random.default_rng(seed)
    d, slab = problem.features, max(1, SLAB // problem.features)
    parts = []
    for start in range(0, networks, slab):
        u = rng.random((len(signs), min(slab, networks - start), d)) - 0.5
        invariants = []
        for k in range(2):
            images = u @ factors[k]
            gram = np.einsum("anj,bnj->abn", images, images)
            invariants.append(
                (u @ problem.means[k], images @ (w @ factors[k]), gram, w @ problem.means[k] + c, np.sum((w @ factors[k]) ** 2))
            )
        parts.append(np.stack([_slab(problem.priors, invariants, step * signs, antithetic) for step in steps]))
    return np.concatenate(parts, 1)


def _slab(priors, invariants, c, antithetic: bool) -> np.ndarray:
    total = np.zeros(invariants[0][0].shape[1])
    for prior, sign, (a, q, gram, m, power) in zip(priors, (1, -1), invariants, strict=True):
        a, q, r = c @ a, c @ q, np.einsum("a,b,abn->n", c, c, gram)
        after = ndtr(sign * (m + a) / np.sqrt(power + 2 * q + r))
        if antithetic:
            after = (after + ndtr(sign * (m - a) / np.sqrt(power - 2 * q + r))) / 2
        total += prior * (after - ndtr(sign * m / np.sqrt(power)))
    return total
