"""Calibrated posteriors in the place of labels: the distortion of known layers on real features, no hypothesis on their law.

The label given the features is taken to follow softmax(a/T), a the clean logits and T one temperature, found by likelihood
where labels are known (Guo et al., ICML 2017). What a compressed layer loses is then the mean of eta_before - eta_after over
the features, whatever their law, with less noise than labels counted. See :mod:`derivations.calibration`.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from theory.binary import evaluate
from theory.setting.files import Features
from theory.setting.misfit import FLOOR, grid, misfit
from theory.setting.problem import decide
from theory.validity import negative

WIDEST = 7.0  # |log T| that is looked at; a fit at the end of it is none


class Calibration(NamedTuple):
    """The temperature and the standard deviation of its logarithm, 0 where it was given."""

    temperature: float
    log_error: float


class Counted(NamedTuple):
    """What one layer does, by class (K,): change of risk and flips; over all: share whose correctness changes, variance of the
    distortion by the finite sample and the temperature."""

    distortion: np.ndarray
    flips: np.ndarray
    changed: float
    variance: float


class Posteriors(NamedTuple):
    """Of n features: decisions of the clean layer (n,), posteriors (n, K), their slopes in log T (n, K)."""

    features: np.ndarray
    bias: np.ndarray
    decisions: np.ndarray
    posterior: np.ndarray
    slope: np.ndarray
    log_error: float

    @property
    def priors(self) -> np.ndarray:
        return self.posterior.mean(0)

    def before(self) -> np.ndarray:
        """(K,) risk of the clean layer by class."""
        right = np.bincount(self.decisions, weights=_of(self.posterior, self.decisions), minlength=self.posterior.shape[1])
        return 1 - right / len(self.posterior) / np.maximum(self.priors, 1e-300)

    def count(self, weights: np.ndarray) -> Counted:
        """What the known compressed layer (rows, d) does."""
        before, after = self.decisions, decide(self.features @ weights.T + self.bias)
        n, K = self.posterior.shape
        flipped = np.flatnonzero(before != after)
        rows, old, new = self.posterior[flipped], before[flipped], after[flipped]
        made, mended = _of(rows, old), _of(rows, new)
        change = np.asarray(evaluate("posterior_distortion")(eta_before=made, eta_after=mended))
        by_class = np.bincount(old, weights=made, minlength=K) - np.bincount(new, weights=mended, minlength=K)
        priors = np.maximum(self.priors, 1e-300)
        D = change.sum() / n
        slope = (_of(self.slope[flipped], old) - _of(self.slope[flipped], new)).sum() / n
        # where no decision is seen to change, one that was not seen is allowed for
        sampling = max(float(np.sum(change**2) / n - D**2), 0.0) / n if len(flipped) else 1 / n**2
        return Counted(
            distortion=by_class / n / priors,
            flips=rows.sum(0) / n / priors,
            changed=float((made + mended).sum() / n) if len(flipped) else 1 / n,
            variance=sampling + (slope * self.log_error) ** 2,
        )


def _of(array: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, classes[:, None], 1)[:, 0]


def logits_of(features: Features) -> np.ndarray:
    """(n, K) clean logits in float64; a head with one output as two, the first 0."""
    logits = features.features.astype(np.float64) @ features.weights.T + features.bias
    return np.concatenate([0 * logits, logits], 1) if logits.shape[1] == 1 else logits


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The likeliest temperature of logits (n, K) for labels (n,), and the error of its logarithm by Fisher's information."""

    def cost(s: float) -> float:
        return -float(_of(log_softmax(logits * np.exp(-s), 1), labels).sum())

    s = float(np.asarray(minimize_scalar(cost, bounds=(-WIDEST, WIDEST), method="bounded", options={"xatol": 1e-8}).x))
    p = np.exp(log_softmax(logits * np.exp(-s), 1))
    information = evaluate("temperature_information")(
        square_logit=np.sum(p * logits**2, 1), mean_logit=np.sum(p * logits, 1), temperature=np.exp(s)
    )
    total = float(np.maximum(information, 0).sum())
    return Calibration(float(np.exp(s)), float(1 / np.sqrt(total)) if total > 0 else np.inf)


def found(calibration: Calibration) -> bool:
    """Whether the likelihood has a maximum, inside the range looked at."""
    return bool(abs(np.log(calibration.temperature)) < WIDEST - 1e-3 and np.isfinite(calibration.log_error))


def posteriors(features: Features, calibration: Calibration) -> Posteriors:
    logits, T = logits_of(features), calibration.temperature
    p = np.exp(log_softmax(logits / T, 1))
    slope = evaluate("posterior_slope")(
        posterior=p, logit=logits, mean_logit=np.sum(p * logits, 1, keepdims=True), temperature=T
    )
    return Posteriors(
        features=features.features.astype(np.float64),
        bias=features.bias,
        decisions=decide(logits),
        posterior=p,
        slope=np.asarray(slope),
        log_error=calibration.log_error if np.isfinite(calibration.log_error) else 0.0,
    )


def misfit_of(features: Features, given: Posteriors) -> float:
    """tau of the posteriors on these labelled features: the distortions of a grid of layers held against labels counted. At
    least FLOOR, which is all that is known without labels."""
    if not features.labelled:
        return FLOOR
    n, right = len(features.labels), given.decisions == features.labels
    cells = []
    for layer in grid(features.weights):
        after = decide(given.features @ layer.weights.T + given.bias)
        counted = (np.sum(right) - np.sum(after == features.labels)) / n
        flipped = after != given.decisions
        made, mended = _of(given.posterior, given.decisions)[flipped], _of(given.posterior, after)[flipped]
        noise = float(np.sum(made + mended - (made - mended) ** 2)) / n**2  # of the labels given the features
        cells.append(((made - mended).sum() / n - counted, flipped.mean(), noise))
    return max(FLOOR, misfit(*np.array(cells, float).reshape(-1, 3).T))


def warnings(features: Features, calibration: Calibration, given: Posteriors, flips: float, D: float, sd: float) -> list[str]:
    """The sentences for one record of a layer with this flip rate and distortion, known to ``sd``."""
    sentences = []
    if flips == 0:
        sentences.append(
            f"no decision changes on {len(given.posterior)} samples: flips are below {3 / len(given.posterior):.2g} with 95 % "
            "confidence, and the interval allows for one"
        )
    if D < 0:
        sentences.append(negative(D, sd))
    if not features.labelled:
        sentences.append(
            f"no labels: the temperature {calibration.temperature:g} is taken as exact, and the misfit of the posteriors as "
            f"{FLOOR:.0%} of the flips"
        )
        return sentences
    if calibration.log_error and not found(calibration):
        sentences.append(
            f"the likelihood of the temperature has no maximum (T = {calibration.temperature:.3g}): too few samples or errors "
            "to calibrate on"
        )
    p = _of(given.posterior, given.decisions)
    counted, n = float(np.mean(given.decisions == features.labels)), len(p)
    noise = float(np.sqrt(np.sum(p * (1 - p)))) / n
    if abs(p.mean() - counted) > 3 * noise + 0.5 / n:
        sentences.append(
            f"the posteriors say {p.mean():.2%} right, the labels {counted:.2%}: one temperature does not calibrate this layer"
        )
    return sentences
