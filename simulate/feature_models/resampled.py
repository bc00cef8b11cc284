"""The samples themselves, smoothed: each a small Gaussian of its class's covariance, moments kept."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from theory.setting.features import Features
from theory.setting.problem import Components, Problem

NARROWEST, WIDEST = 0.03, 0.9  # of the bandwidth
MOST = 2000  # margins of a class from which it is found
FEW = 10  # samples a class below which it does not count for the bandwidth


def components(features: Features, problem: Problem) -> Components:
    """One component a sample, of covariance h^2 Sigma_k about mu_k + sqrt(1 - h^2) (z - mu_k), so that means and covariances
    stay what they are (West, J. R. Stat. Soc. B 55 (1993) 409). The bandwidth h is that of the signed margin by leave-one-out
    likelihood, one for all classes: the theory needs no more of the features, and likelihood in d dimensions picks one far too
    wide."""
    h = bandwidth(features)
    order = np.argsort(features.labels, kind="stable")
    labels = features.labels[order]
    means = problem.means[labels]
    centres = means + np.sqrt(1 - h**2) * (features.features[order].astype(np.float64) - means)
    covariances = h**2 * (problem.covariances[None] if problem.shared else problem.covariances)
    return Components(
        classes=labels,
        shares=1 / np.bincount(labels)[labels],
        means=centres.astype(np.float32).astype(np.float64),  # as many digits as features have
        covariances=np.broadcast_to(covariances, (problem.classes, *covariances.shape[1:])).copy(),
    )


def margins(features: Features) -> np.ndarray:
    """(n,) a_y - max_{j != y} a_j: positive where the decision is right."""
    logits = features.head_logits()
    rows = np.arange(len(logits))
    own = logits[rows, features.labels]
    logits[rows, features.labels] = -np.inf
    return own - logits.max(1)


def bandwidth(features: Features) -> float:
    """Of the margins over their standard deviation in each class, by leave-one-out likelihood."""
    values = margins(features)
    groups = []
    for k in range(features.classes):
        t = values[features.labels == k][:MOST]
        if len(t) >= FEW and t.std() > 0:
            gaps = ((t[:, None] - t[None]) / t.std()) ** 2
            np.fill_diagonal(gaps, np.inf)
            groups.append(gaps)
    if not groups:
        return WIDEST

    def cost(log_h: float) -> float:
        h2 = np.exp(2 * log_h)
        return float(sum(len(gaps) * log_h - np.asarray(logsumexp(-0.5 * gaps / h2, axis=1)).sum() for gaps in groups))

    best = minimize_scalar(cost, bounds=(np.log(NARROWEST), np.log(WIDEST)), method="bounded", options={"xatol": 0.02})
    return float(np.exp(np.asarray(best.x)))
