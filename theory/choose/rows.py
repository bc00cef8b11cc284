"""The rows of a last layer as tensors of their own, so that each can have a width: the noise of its logits, exact."""

import numpy as np

from theory.budget import Budget
from theory.integrals.mixtures import draw
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.noise import Noise, Tensors
from theory.setting.problem import Problem

POINTS = 2**12  # features drawn from statistics
MOST_ROWS = 32  # their Grams are held one by one
DRAWS = 64


def noise_of_rows(subject: Problem | Features, seed: int) -> Noise:
    """Row k of the weights as the tensor "weights[k]": errors of variance v move logit k alone, by v |z|^2.

    Of statistics features are drawn, with labels. The layer is linear: there is no gain, and first order is exact.

    Raises:
        InputError: a head of one output, or more rows than are held.
    """
    features = subject if isinstance(subject, Features) else draw(subject, seed, Budget(drawn_points=POINTS))
    if len(features.labels) > POINTS:  # spread over the samples, which may be in the order of their classes
        features = features.take(np.unique(np.linspace(0, len(features.labels) - 1, POINTS).astype(int)))
    W, z = features.weights, features.features.astype(np.float64)
    K, n = len(W), len(z)
    if not 2 <= K <= MOST_ROWS:
        raise InputError(f"weights: expected 2 to {MOST_ROWS} rows, each of which gets a width, got {K}")
    own = np.arange(K)
    gram = np.zeros((K, n, K, K), np.float32)
    gram[own, :, own, own] = np.sum(z**2, 1)
    errors = (2 * np.random.default_rng([seed, 11]).random((DRAWS, *W.shape)) - 1) * 3**0.5
    draws = np.zeros((DRAWS, K, n, K), np.float32)
    draws[:, own, :, own] = (errors @ z.T).swapaxes(0, 1)
    return Noise(
        logits=features.head_logits(),
        labels=features.labels,
        candidates=np.tile(own, (n, 1)),
        tensors=Tensors(
            names=tuple(f"weights[{k}]" for k in own),
            kinds=("weight",) * K,
            sizes=np.full(K, W.shape[1]),
            rows=np.ones(K, int),
            low=W.min(1),
            high=W.max(1),
        ),
        grams={"": gram},
        draws={"": draws},
        gain_rates=np.zeros(DRAWS),
        provenance={"source": "rows of a last layer", "of": features.provenance},
    )
