"""One Gaussian per class: the moments behind every model of the features."""

from dataclasses import replace

import numpy as np

from theory.setting.command_line import say
from theory.setting.errors import InputError, listed
from theory.setting.features import Features
from theory.setting.problem import Problem

LARGEST = 1e70  # |feature|: fourth powers are summed
COVARIANCES = 2**26  # entries of the covariances of all classes beyond which they have one in common: half a gigabyte


def problem(features: Features, entries: int = COVARIANCES) -> Problem:
    """Priors, means, covariances and counts of labelled features, with their layer.

    Means and unbiased covariances are the samples' own. A class with no more samples than features has a singular
    covariance: it is shrunk towards the pooled one with the Ledoit-Wolf intensity (the share that least mean squared error
    asks for); a class with fewer than two samples takes the pooled covariance, and says so. Where all of them would take more
    than half a gigabyte the classes have the pooled one in common (d, d), shrunk towards a multiple of the identity.

    Args:
        features: labelled. entries: of the covariances of all classes beyond which they have one in common.

    Raises:
        InputError: no class with two samples, or features too large to square.
    """
    z, K = features.features, features.classes
    counts = np.bincount(features.labels, minlength=K)
    if counts.max() < 2:
        raise InputError(f"labels: expected a class with at least two samples, got at most {counts.max()} in each")
    d, largest = z.shape[1], float(np.abs(z).max())
    if largest > LARGEST:
        raise InputError(f"features: expected values whose squares add up, at most {LARGEST:g}, got {largest:.3g}")
    order, ends = np.argsort(features.labels, kind="stable"), np.cumsum(counts)
    rows = [z[order[end - n : end]].astype(np.float64) for n, end in zip(counts, ends, strict=True)]
    means = np.array([one.mean(0) if len(one) else np.zeros(d) for one in rows])
    centred = [one - mean for one, mean in zip(rows, means, strict=True)]
    within = np.concatenate(centred)
    pooled = within.T @ within / max(1, counts.sum() - np.sum(counts > 0))
    found = Problem(
        weights=features.weights,
        bias=features.bias,
        priors=counts / counts.sum(),
        means=means,
        covariances=pooled,
        counts=counts,
        feature_range=np.array([z.min(), z.max()], np.float64),
        source_bits=features.source_bits,
    )
    if K * d**2 > entries:
        say(f"{K} covariances of {d} features would take {8 * K * d**2 / 1e9:.1f} GB: the classes have one in common")
        share = shrinkage(within, pooled, np.eye(d) * np.trace(pooled) / d) if len(within) <= 10 * d else 0.0
        return replace(found, covariances=(1 - share) * pooled + share * np.eye(d) * np.trace(pooled) / d)
    covariances, few = np.zeros((K, d, d)), np.flatnonzero(counts < 2)
    if len(few):
        told = listed(f"class {k} has {counts[k]} sample{'' if counts[k] == 1 else 's'}" for k in few)
        say(f"{told}: {'it takes' if len(few) == 1 else 'they take'} the pooled covariance")
    for k in range(K):
        if counts[k] < 2:
            covariances[k] = pooled
            continue
        covariances[k] = centred[k].T @ centred[k] / (counts[k] - 1)
        if counts[k] <= d:
            share = shrinkage(centred[k], covariances[k], pooled)
            covariances[k] = (1 - share) * covariances[k] + share * pooled
    return replace(found, covariances=covariances)


def shrinkage(centred: np.ndarray, sample: np.ndarray, target: np.ndarray) -> float:
    """The intensity in [0, 1] of Ledoit and Wolf (J. Multivariate Anal. 88 (2004) 365): Var(sample)/|sample - target|^2."""
    n = len(centred)
    noise = (np.sum(np.sum(centred**2, 1) ** 2) / n - np.sum(sample**2)) / n
    distance = np.sum((sample - target) ** 2)
    return float(np.clip(noise / distance, 0, 1)) if distance > 0 else 1.0
