"""Weight matrices that quantizers stumble over."""

import numpy as np
import torch


def adversarial(seed, count):
    """Matrices (rows, d) with ties, zero rows, one value, an outlier, subnormals, or the values of bfloat16."""
    rng = np.random.default_rng([seed, 1])
    for i in range(count):
        W = rng.standard_normal((rng.integers(1, 6), rng.integers(2, 40))) * 10.0 ** rng.uniform(-3, 3)
        kind = i % 8
        if kind == 1:
            W = np.round(W / np.abs(W).max() * 4) / 4
        elif kind == 2:
            W[rng.integers(len(W))] = 0
        elif kind == 3:
            W[:] = W[0, 0]
        elif kind == 4:
            W[0, 0] = 1e4 * np.abs(W).max()
        elif kind == 5:
            W *= 1e-41 / np.abs(W).max()
        elif kind == 6:
            W = torch.from_numpy(W).bfloat16().double().numpy()
        elif kind == 7:
            W = W * (rng.random(W.shape) < 0.2)
        yield W
