"""Which class wins when the logits of an image are Gaussian: one orthant an image and rival, with a reported error.

Class k wins where all contrasts a_k - a_j are positive (:mod:`theory.integrals.orthant`). Every image has its own law, so that
points moved around the cube at random, image by image and rival by rival, average the errors of few points out.
"""

import jax
import jax.numpy as jnp
import numpy as np

from theory.integrals.orthant import cholesky, moved, order_of, raw_points, separated

FAR = 7.5  # standard deviations of a contrast beyond which a rival is left out: 3e-14
BLOCK = 512  # images and rivals integrated in one compiled call
REPLICATES = 8


def wins(
    means: np.ndarray,
    covariances: np.ndarray,
    decided: np.ndarray,
    *,
    points: int = 4,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities with which rivals of the decided class win.

    Args:
        means: (n, C) of the logits. covariances: (n, C, C), positive semi-definite.
        decided: (n,) the class that wins without noise.
        points: of each of so many replicates. seed: of the points.

    Returns:
        (replicates, n, C) probabilities, 0 for the decided class, independent in the first axis; and (n, C) whether a rival is
        near enough to be integrated.

    Kind: exact up to the spread of the replicates. Call inside :func:`theory.setting.precision.in_float64`.
    """
    n, C = means.shape
    own = decided[:, None]
    variance = np.diagonal(covariances, axis1=1, axis2=2)
    cross = np.take_along_axis(covariances, own[:, :, None], 1)[:, 0]  # (n, C)
    contrast = variance + np.take_along_axis(variance, own, 1) - 2 * cross
    lead = np.take_along_axis(means, own, 1) - means
    near = lead < FAR * np.sqrt(np.maximum(contrast, 0))
    near[np.arange(n), decided] = False
    images, rivals = np.nonzero(near)
    found = np.zeros((replicates, n, C))
    if not len(images):
        return found, near
    others = np.array([np.delete(np.arange(C), k) for k in range(C)])[rivals]  # (pairs, C - 1)
    index = np.arange(len(images))[:, None]
    mean = means[images, rivals][:, None] - means[images[:, None], others]
    G = covariances[images]
    covariance = (
        G[index[:, :, None], others[:, :, None], others[:, None, :]]
        - G[index, rivals[:, None], others][:, None, :]
        - G[index, others, rivals[:, None]][:, :, None]
        + G[index[:, 0], rivals, rivals][:, None, None]
    )
    order = order_of(mean, covariance)
    mean = np.take_along_axis(mean, order, 1)
    covariance = np.take_along_axis(np.take_along_axis(covariance, order[:, :, None], 1), order[:, None, :], 2)
    rng = np.random.default_rng([seed, 5])
    sets = np.stack([raw_points(C - 1, points, rng) for _ in range(replicates)])
    shift = rng.random(mean.shape)
    for first in range(0, len(images), BLOCK):
        part = slice(first, first + BLOCK)
        law = (_filled(mean[part], 1.0), _filled(covariance[part], np.eye(C - 1)), _filled(shift[part], 0.5))
        values = np.asarray(_orthants(*map(jnp.asarray, (*law, sets))))[: len(images[part])]
        found[:, images[part], rivals[part]] = values.T
    return found, near


def _filled(values: np.ndarray, rest: np.ndarray | float) -> np.ndarray:
    """BLOCK of them, so that one compiled call serves all."""
    missing = np.broadcast_to(np.asarray(rest), (BLOCK - len(values), *values.shape[1:]))
    return np.concatenate([values, missing])


@jax.jit
def _orthants(mean: jax.Array, covariance: jax.Array, shift: jax.Array, sets: jax.Array) -> jax.Array:
    """(pairs, replicates) of laws (pairs, m), each at point sets (replicates, points, m) moved by its own shift (pairs, m)."""
    replicates, points, m = sets.shape
    single = [x.astype(jnp.float32) for x in (mean, cholesky(covariance), sets.reshape(1, -1, m), shift[:, None])]
    values = jax.vmap(separated)(single[0], single[1], moved(single[2], single[3]))
    return values.reshape(-1, replicates, points).mean(2)
