"""A noise file's content without a network: Gaussian logits, noise partly common to all classes."""

import numpy as np

from theory.setting.noise import Noise, Tensors

n, C = 200, 5


def noise_of(seed: int, rank: int = 7) -> Noise:
    """Three weights whose noise is partly common to all classes, no labels."""
    rng = np.random.default_rng(seed)
    factors = (rng.standard_normal((3, n, C, rank)) + rng.standard_normal((3, n, 1, rank))) * np.array([0.5, 1, 2])[
        :, None, None, None
    ]
    top = np.array([0.4, 0.9, 0.3])
    gram = factors @ factors.swapaxes(2, 3)
    draws = np.einsum("tnkr,mtr->mtnk", factors, rng.standard_normal((200, 3, rank)))
    return Noise(
        logits=rng.normal(0, 2.5, (n, C)),
        labels=np.full(n, -1),
        candidates=np.tile(np.arange(C), (n, 1)),
        tensors=Tensors(
            names=("a", "b", "c"),
            kinds=("weight",) * 3,
            sizes=np.array([100, 400, 50]),
            rows=np.array([10, 10, 10]),
            low=-top,
            high=0.5 * top,
        ),
        grams={"": gram, "_channel_symmetric": 0.1 * gram},
        draws={"": draws, "_channel_symmetric": np.sqrt(0.1) * draws},
    )
