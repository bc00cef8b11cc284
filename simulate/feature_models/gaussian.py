"""``simulate fit``: one Gaussian per class."""

import datetime
import hashlib
from pathlib import Path

import numpy as np

from theory.setting.door import say
from theory.setting.errors import InputError
from theory.setting.files import Features, features_of, write_statistics
from theory.setting.problem import Problem
from theory.setting.record import version

LARGEST = 1e70  # |feature|: fourth powers are summed


def fit(features: Features | Path | str, *, out: Path | str | None = None, classes=None, model: str = "gaussian") -> Problem:
    """Fit priors, class means and class covariances to labelled features.

    Means and unbiased covariances are the samples' own. A class with no more samples than features has a singular
    covariance: it is shrunk towards the pooled one with the Ledoit-Wolf intensity (the share that least mean squared error
    asks for); a class with fewer than two samples takes the pooled covariance, and says so.

    Args:
        features: labelled features or a features file.
        out: where to write the statistics file, if anywhere.
        classes: only the samples and rows of these classes.
        model: ``gaussian``.

    Returns:
        The problem with ``counts``, float64.

    Raises:
        InputError: a bad file, an unknown model, or no class with two samples.
    """
    if model != "gaussian":
        raise InputError(f"model: expected gaussian, got {model!r}")
    features = features_of(features).restrict(classes)
    z, K = features.features.astype(np.float64), features.classes
    counts = np.bincount(features.labels, minlength=K)
    if counts.max() < 2:
        raise InputError(f"labels: expected a class with at least two samples, got at most {counts.max()} in each")
    d, largest = z.shape[1], float(np.abs(z).max())
    if largest > LARGEST:
        raise InputError(f"features: expected values whose squares add up, at most {LARGEST:g}, got {largest:.3g}")
    means, covariances = np.zeros((K, d)), np.zeros((K, d, d))
    scatter = np.zeros((d, d))
    for k in range(K):
        if counts[k]:
            rows = z[features.labels == k]
            means[k] = rows.mean(0)
            covariances[k] = (rows - means[k]).T @ (rows - means[k])
            scatter += covariances[k]
    pooled = scatter / max(1, counts.sum() - np.sum(counts > 0))
    for k in range(K):
        if counts[k] < 2:
            say(f"class {k} has {counts[k]} sample{'' if counts[k] == 1 else 's'}: it takes the pooled covariance")
            covariances[k] = pooled
            continue
        covariances[k] /= counts[k] - 1
        if counts[k] <= d:
            share = _shrinkage(z[features.labels == k] - means[k], covariances[k], pooled)
            covariances[k] = (1 - share) * covariances[k] + share * pooled
    problem = Problem(
        weights=features.weights,
        bias=features.bias,
        priors=counts / counts.sum(),
        means=means,
        covariances=covariances,
        counts=counts,
        source_bits=features.source_bits,
        provenance={
            "source": features.provenance,
            "model": model,
            "n": len(z),
            "features_sha256": hashlib.sha256(np.ascontiguousarray(features.features).tobytes()).hexdigest(),
            "date": datetime.date.today().isoformat(),
            "by": f"simulate.fit {version()}",
        },
    )
    if out is not None:
        write_statistics(out, problem)
    return problem


def _shrinkage(centred: np.ndarray, sample: np.ndarray, target: np.ndarray) -> float:
    """The intensity in [0, 1] of Ledoit and Wolf (J. Multivariate Anal. 88 (2004) 365): Var(sample)/|sample - target|^2."""
    n = len(centred)
    noise = (np.sum(np.sum(centred**2, 1) ** 2) / n - np.sum(sample**2)) / n
    distance = np.sum((sample - target) ** 2)
    return float(np.clip(noise / distance, 0, 1)) if distance > 0 else 1.0
