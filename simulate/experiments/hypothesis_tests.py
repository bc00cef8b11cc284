"""Tests of single hypotheses of the theory: a statistic and a p-value each, nothing about effects.

Each has the right size where its hypothesis is true: an exact law, exact moments, or an exchange that the hypothesis allows
(permuted or drawn labels). ``None`` is returned where the data cannot tell.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import log_softmax

from theory.calibration import calibrate, has_maximum
from theory.setting.error_law import SQUARE_VARIANCE

LEAST = 20  # samples of a class below which its law is not tested
MOST = 5000  # values that the test of Shapiro and Wilk takes
EXCHANGES = 999  # permutations or draws behind a p-value, the observed one beside them
ROWS = 1500  # samples of all classes together whose covariances or distances are compared, with every exchange
EACH = 4  # samples a dimension, where they are few
DIRECTIONS = 64  # of the features whose covariances are compared
RANKED = 4000  # sets of normal samples that are enough for a p-value by rank,
SMALLEST = 1e-3  # and the p-value, corrected for the classes, that they must be able to give


class Test(NamedTuple):
    """A statistic, its p-value, and what the statistic is."""

    statistic: float
    p_value: float
    what: str


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p-values."""
    order = np.argsort(p)
    corrected = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    back = np.empty_like(corrected)
    back[order] = corrected
    return back


def by_class(values: np.ndarray, labels: np.ndarray, least: int = LEAST) -> list[np.ndarray]:
    """The values of each class that has at least so many."""
    order = np.argsort(labels, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(labels))[:-1])
    return [part for part in parts if len(part) >= least]


def gaussian_features(features: np.ndarray, labels: np.ndarray) -> Test | None:
    """Mardia's kurtosis of each class, the mean fourth power of the Mahalanobis distance, in standard deviations (exact mean
    and variance); its law simulated, or where that is dear Pearson's type III with the skewness simulated. Least p-value over
    the classes, Bonferroni. With few samples a class on few random combinations of the features, which are as Gaussian."""
    groups = by_class(features, labels)
    if not groups:
        return None
    found = []
    for z in groups:
        values, vectors = np.linalg.eigh(np.cov(z.T).reshape(z.shape[1], -1))
        z = z @ vectors[:, values > 1e-8 * values[-1]]  # a feature that is constant says nothing
        n, d = z.shape
        q = min(d, n // EACH)
        if q < 1:
            continue
        if q < d:
            z = z @ np.random.default_rng(0).standard_normal((d, q))
        b = kurtosis(z[None])[0]
        if not np.isfinite(b):
            continue
        score, law = _standard(b, n, q), _scores(_round(n), q)
        found.append((min(1.0, 2 * _tail(score, law, len(groups))), score))
    if not found:
        return None
    p, score = min(found)
    return Test(float(score), min(1.0, len(found) * p), "Mardia's kurtosis in standard deviations")


def _tail(score: float, law: np.ndarray, classes: int) -> float:
    """The smaller of the chances of a score beyond this one on its side: by rank where enough of the law is simulated, else by
    Pearson's type III. Where many classes ask for more than ranks can give, they do for the upper tail alone: the fitted law
    ends too early in the other."""
    ranks = [(1 + float(np.sum(beyond))) / (1 + len(law)) for beyond in (law >= score, law <= score)]
    if len(law) >= RANKED and 2 * classes <= SMALLEST * (1 + len(law)):
        return min(ranks)
    fitted = stats.pearson3(float(stats.skew(law)))
    if len(law) >= RANKED:
        return min(float(fitted.sf(score)), ranks[1])
    return min(float(fitted.sf(score)), float(fitted.cdf(score)))


def kurtosis(z: np.ndarray) -> np.ndarray:
    """Mardia's b (sets,) of sets of samples (sets, n, d); NaN where their covariance is singular."""
    centred = z - z.mean(1, keepdims=True)
    covariance = np.swapaxes(centred, 1, 2) @ centred / z.shape[1]
    values = np.linalg.eigvalsh(covariance)
    regular = values[:, 0] > 1e-10 * values[:, -1]
    inverse = np.linalg.inv(np.where(regular[:, None, None], covariance, np.eye(z.shape[2])))
    distances = np.sum((centred @ inverse) * centred, 2)
    return np.where(regular, np.mean(distances**2, 1), np.nan)


def _standard(b, n: int, d: int):
    """Less its mean, over its standard deviation, for normal samples (K. V. Mardia, Sankhya B 36 (1974) 115)."""
    mean = d * (d + 2) * (n - 1) / (n + 1)
    return (b - mean) / np.sqrt(8 * d * (d + 2) * (n - 3) / (n + 1) ** 2 * (n - d - 1) / (n + 3) * (n - d + 1) / (n + 5))


def _round(n: int) -> int:
    """n to two digits: the law varies slowly."""
    scale = 10 ** max(0, int(np.log10(n)) - 1)
    return n // scale * scale


@functools.cache
def _scores(n: int, d: int) -> np.ndarray:
    """Of normal samples, as many sets as are cheap, at least a few hundred."""
    rng = np.random.default_rng([n, d])
    sets, each = int(np.clip(2e8 / (n * d**2), 400, 20_000)), max(1, int(2e6 / (n * d)))
    parts = [kurtosis(rng.standard_normal((min(each, sets - first), n, d))) for first in range(0, sets, each)]
    return _standard(np.concatenate(parts), n, d)


def closest_contrast(features: np.ndarray, weights: np.ndarray, bias: np.ndarray, k: int) -> np.ndarray:
    """(d,) w_k - w_j, j the rival that comes closest to samples (n, d) of class k, in standard deviations of their lead; a head
    with one output is its own."""
    if len(weights) == 1:
        return weights[0]
    lead = features @ (weights[[k]] - weights).T + (bias[k] - bias)
    deviation = lead.std(0)
    distance = np.where(deviation > 0, lead.mean(0) / np.where(deviation > 0, deviation, 1), np.inf)
    return weights[k] - weights[np.argmin(distance)]


def gaussian_margins(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> Test | None:
    """Shapiro and Wilk's W of w'z in each class, w the contrast with the rival that comes closest; Bonferroni."""
    found = []
    for k in np.unique(labels):
        z = features[labels == k][:MOST]
        if len(z) < LEAST:
            continue
        t = z @ closest_contrast(z, weights, bias, int(k))
        if np.ptp(t) > 0:
            found.append(stats.shapiro((t - t.mean()) / t.std()))
    if not found:
        return None
    worst = min(found, key=lambda one: one.pvalue)
    return Test(float(worst.statistic), min(1.0, len(found) * float(worst.pvalue)), "Shapiro and Wilk's W")


def equal_covariances(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Test | None:
    """Sum over classes of |S_k|^2/n_k, S_k the scatter of the whitened differences of pairs of samples of a class, beside that
    of differences exchanged between the classes: exact where the classes have one law but for their means, whatever it is. Of
    many features the strongest directions."""
    groups = by_class(features, labels, least=5)
    if len(groups) < 2:
        return None
    share = min(1.0, ROWS / sum(map(len, groups)))
    groups = [rng.permutation(z)[: max(5, int(share * len(z)))] for z in groups]
    groups = [z[: len(z) // 2] - z[len(z) // 2 : len(z) // 2 * 2] for z in groups]
    sizes, apart = np.array([len(z) for z in groups]), np.concatenate(groups)
    scale = np.sqrt(np.mean(apart**2, 0))
    apart = apart / np.where(scale > 0, scale, 1)
    values, vectors = np.linalg.eigh(apart.T @ apart / len(apart))
    most = min(DIRECTIONS, 2 * len(apart) // EACH)
    keep = np.flatnonzero(values > 1e-8 * values[-1])[-most:]
    if not len(keep):
        return None
    white = apart @ (vectors[:, keep] / np.sqrt(values[keep]))
    starts = np.cumsum(sizes) - sizes

    def statistic(z: np.ndarray) -> float:
        parts = [z[first : first + n] for first, n in zip(starts, sizes, strict=True)]
        scatters = np.array([part.T @ part for part in parts])
        return float(np.sum(np.einsum("kij,kji->k", scatters, scatters) / sizes))

    exchanged = np.array([statistic(rng.permutation(white)) for _ in range(EXCHANGES)])
    return _ranked(statistic(white), exchanged, "scatter of the class covariances")


def _ranked(seen: float, exchanged: np.ndarray, what: str) -> Test:
    """A statistic in standard deviations of those under an exchange that the hypothesis allows, and its rank among them."""
    p = (1 + np.sum(exchanged >= seen)) / (1 + len(exchanged))
    score = (seen - exchanged.mean()) / max(float(exchanged.std()), 1e-300)
    return Test(float(score), float(p), f"{what}, deviations from {len(exchanged)} exchanges")


def bayes_layer(features: np.ndarray, labels: np.ndarray, logits: np.ndarray, rng: np.random.Generator) -> Test | None:
    """Whether labels follow softmax(logits/T), as those of a Bayes rule do: the score of the likelihood in the weights,
    squared, beside that of labels drawn from these posteriors. T is the likeliest one, and changes no decision."""
    calibration = calibrate(logits, labels)
    if not has_maximum(calibration):
        return None
    p = np.exp(log_softmax(logits / calibration.temperature, 1))
    z = features - features.mean(0)
    scale = np.sqrt(np.mean(z**2, 0))
    z = z[:, scale > 0] / scale[scale > 0]
    if not z.size:
        return None
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    keep = values > 1e-8 * values[-1]
    white = np.concatenate([z @ (vectors[:, keep] / np.sqrt(values[keep])), np.ones((len(z), 1))], 1)
    noise = np.maximum(np.sum(p * (1 - p), 0), 1e-12)[:, None]
    # how the expected score moves with log T, taken out: T was fitted to these labels
    along = (p * (logits - np.sum(p * logits, 1, keepdims=True))).T @ white
    along = along / np.sqrt(noise)
    along = along / max(np.linalg.norm(along), 1e-300)
    expected = p.T @ white
    edges = np.cumsum(p, 1)

    def statistic(y: np.ndarray) -> float:
        hits = np.zeros_like(expected)
        np.add.at(hits, y, white)
        score = (hits - expected) / np.sqrt(noise)
        return float(np.sum(score**2) - np.sum(score * along) ** 2)

    def drawn() -> np.ndarray:
        return np.minimum(np.sum(edges < rng.random((len(p), 1)), 1), p.shape[1] - 1)

    return _ranked(statistic(labels), np.array([statistic(drawn()) for _ in range(EXCHANGES)]), "score of the weights")


def uniform_errors(scaled: np.ndarray) -> Test:
    """Kolmogorov and Smirnov's distance of E/step (m,) from the uniform law on +-1/2."""
    test = stats.kstest(scaled, stats.uniform(-0.5, 1).cdf)
    return Test(float(test.statistic), float(test.pvalue), "Kolmogorov and Smirnov's distance")


def error_variance(scaled: np.ndarray) -> Test:
    """The mean square of E/step (m,) over 1/12."""
    power = 12 * float(np.mean(scaled**2))
    score = (power - 1) / np.sqrt(SQUARE_VARIANCE / len(scaled))
    return Test(power, float(2 * stats.norm.sf(abs(score))), "variance over step^2/12")


def uncorrelated(errors: np.ndarray, weights: np.ndarray) -> Test | None:
    """Pearson's correlation of errors and weights (m,)."""
    if len(errors) < 4 or np.ptp(errors) == 0 or np.ptp(weights) == 0:
        return None
    correlation, p = np.asarray(stats.pearsonr(errors, weights))
    return Test(float(correlation), float(p), "correlation")


def independent_rows(E: np.ndarray) -> Test | None:
    """Sum of the squared correlations of all pairs of rows (K, d), over its mean for independent rows: mean and variance those
    of normal rows, which uniform ones have to order 1/d, gamma law."""
    E = E[np.ptp(E, 1) > 0]
    K, d = E.shape
    if K < 2 or d < 4:
        return None
    pairs = K * (K - 1) / 2
    r = np.corrcoef(E)[np.triu_indices(K, 1)]
    total, mean, variance = float(np.sum(r**2)), pairs / (d - 1), pairs * 2 * (d - 2) / ((d - 1) ** 2 * (d + 1))
    p = stats.gamma(mean**2 / variance, scale=variance / mean).sf(total)
    return Test(total / mean, float(p), "squared correlations of the rows over those expected")


def independent_entries(errors: np.ndarray, second: np.ndarray) -> Test | None:
    """Power that the errors of each row (K, d) put into the logits, sum e'Se with S = E zz' (d, d), beside that of errors of
    the same sizes with independent signs: exact mean and variance, gamma law, two-sided. What the errors owe to the weights is
    to be taken off before."""
    diagonal = np.diagonal(second)
    mean = float(np.sum(errors**2 @ diagonal))
    squares = errors**2
    off = second**2 - np.diag(diagonal**2)
    variance = 2 * float(np.einsum("kd,de,ke->", squares, off, squares))
    if not (mean > 0 and variance > 0):
        return None
    value = float(np.einsum("kd,de,ke->", errors, second, errors))
    law = stats.gamma(mean**2 / variance, scale=variance / mean)
    return Test(value / mean, float(2 * min(law.sf(value), law.cdf(value), 0.5)), "power in the logits over that expected")


def gaussian_noise(scaled: np.ndarray, features: np.ndarray, rng: np.random.Generator) -> Test | None:
    """Shapiro and Wilk's W of the noise e'z/|z| that rows of errors (K, d) make of one of the features drawn for each row: its
    shape alone, whatever its mean and variance."""
    features = features[np.any(features != 0, axis=1)]  # a feature of 0 has no noise
    scaled = scaled[:MOST]
    if len(scaled) < 4 or not len(features):
        return None
    z = features[rng.integers(len(features), size=len(scaled))]
    noise = np.sum(scaled * z, 1) / np.linalg.norm(z, axis=1)
    test = stats.shapiro((noise - noise.mean()) / max(noise.std(), 1e-300))
    return Test(float(test.statistic), float(test.pvalue), "Shapiro and Wilk's W")


def same_law(
    features: np.ndarray, labels: np.ndarray, training: np.ndarray, training_labels: np.ndarray, rng: np.random.Generator
) -> Test | None:
    """Energy distance of two sets of features, class by class, beside that of samples exchanged between them within each
    class."""
    parts = []
    common = np.intersect1d(labels, training_labels)
    each = max(5, ROWS // max(1, len(common)) // 2)
    for k in common:
        a, b = (rng.permutation(z[y == k])[:each] for z, y in ((features, labels), (training, training_labels)))
        if min(len(a), len(b)) >= 5:
            z = np.concatenate([a, b])
            squares = np.sum(z**2, 1)
            gaps = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * z @ z.T, 0))
            parts.append((gaps, np.repeat([0, 1], [len(a), len(b)])))
    if not parts:
        return None

    def energy(gaps: np.ndarray, side: np.ndarray) -> float:
        m = np.eye(2)[side] / np.bincount(side)[side][:, None]
        both = m.T @ gaps @ m
        return float(2 * both[0, 1] - both[0, 0] - both[1, 1]) * len(side)

    exchanged = np.array([sum(energy(gaps, rng.permutation(side)) for gaps, side in parts) for _ in range(EXCHANGES)])
    return _ranked(sum(energy(*part) for part in parts), exchanged, "energy distance")
