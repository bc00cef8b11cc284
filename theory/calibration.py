"""Calibrated posteriors in the place of labels: the distortion of known layers on real features, no hypothesis on their law.

The label given the features is taken to follow softmax(a/T), a the clean logits and T one temperature, found by likelihood
where labels are known (Guo et al., ICML 2017; :mod:`derivations.calibration`). What a compressed layer loses is then the mean
over the features, whatever their law, of the posterior of the clean decision less that of the compressed one
(``posterior_loss`` in :mod:`derivations.multiclass`, the second decision known). It has less noise than labels counted.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from theory.effect import ROUNDING, negative
from theory.integrals.two_classes import evaluate
from theory.setting.errors import listed
from theory.setting.features import Features
from theory.setting.misfit import FLOOR, grid, misfit
from theory.setting.problem import decide
from theory.setting.remarks import near_chance

WIDEST = 7.0  # |log T - log of the logits' deviation| that is looked at; a fit at the end of it is none


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

    def flipped(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The samples whose decision the compressed layer (rows, d) changes, and the decisions there before and after."""
        after = decide(self.features @ weights.T + self.bias)
        samples = np.flatnonzero(self.decisions != after)
        return samples, self.decisions[samples], after[samples]

    def count(self, weights: np.ndarray) -> Counted:
        """What the known compressed layer (rows, d) does."""
        (n, K), (flipped, old, new) = self.posterior.shape, self.flipped(weights)
        rows = self.posterior[flipped]
        made, mended = _of(rows, old), _of(rows, new)
        change = np.asarray(evaluate("posterior_loss")(eta_top=made, eta_k=mended, decided=1.0))
        by_class = np.bincount(old, weights=made, minlength=K) - np.bincount(new, weights=mended, minlength=K)
        priors = np.maximum(self.priors, 1e-300)
        D = change.sum() / n
        slope = (_of(self.slope[flipped], old) - _of(self.slope[flipped], new)).sum() / n
        # one more change of a decision than was seen is allowed for, as large as those seen and one of 1: few say little
        squares = float(np.sum(change**2))
        sampling = (max(squares - n * D**2, 0.0) + (1 + squares) / (1 + len(flipped))) / n**2
        return Counted(
            distortion=by_class / n / priors,
            flips=rows.sum(0) / n / priors,
            changed=max(float((made + mended).sum()), 1.0) / n,
            variance=sampling + (slope * self.log_error) ** 2,
        )


def _of(array: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.take_along_axis(array, classes[:, None], 1)[:, 0]


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The likeliest temperature of logits (n, K) for labels (n,), and the error of its logarithm by Fisher's information."""

    logits = logits - logits.mean(1, keepdims=True)  # softmax does not see it, a difference of squares does

    def cost(s: float) -> float:
        return -float(_of(log_softmax(logits * np.exp(-s), 1), labels).sum())

    centre = np.log(max(float(np.std(logits)), 1e-300))
    ends = (centre - WIDEST, centre + WIDEST)
    from scipy.optimize import minimize_scalar  # takes longer than many answers that need none

    s = float(np.asarray(minimize_scalar(cost, bounds=ends, method="bounded", options={"xatol": 1e-8}).x))
    if abs(s - centre) > WIDEST - 1e-3:
        return Calibration(float(np.exp(s)), np.inf)
    p = np.exp(log_softmax(logits * np.exp(-s), 1))
    information = evaluate("temperature_information")(
        mean_square_logit=np.sum(p * logits**2, 1), mean_logit=np.sum(p * logits, 1), temperature=np.exp(s)
    )
    total = float(np.maximum(information, 0).sum())
    return Calibration(float(np.exp(s)), float(1 / np.sqrt(total)) if total > 0 else np.inf)


def calibration_of(features: Features, temperature: float | None) -> Calibration:
    """The temperature given, or fitted to the labels."""
    if temperature is not None:
        return Calibration(temperature, 0.0)
    return calibrate(features.head_logits(), features.labels)


def has_maximum(calibration: Calibration) -> bool:
    """Whether the likelihood has a maximum, inside the range looked at."""
    return bool(np.isfinite(calibration.log_error))


def posteriors(features: Features, calibration: Calibration) -> Posteriors:
    logits, T = features.head_logits(), calibration.temperature
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
    n, cells = len(features.labels), []
    for layer in grid(features.weights):
        flipped, old, new = given.flipped(layer.weights)
        counted = np.sum(features.labels[flipped] == old) - np.sum(features.labels[flipped] == new)
        made, mended = _of(given.posterior[flipped], old), _of(given.posterior[flipped], new)
        noise = np.sum(made + mended - (made - mended) ** 2)  # variance of the labels given the features
        cells.append((((made - mended).sum() - counted) / n, len(flipped) / n, noise / n**2))
    return max(FLOOR, misfit(*np.array(cells, float).reshape(-1, 3).T))


def warnings(features: Features, calibration: Calibration, given: Posteriors, flips: float, D: float, sd: float) -> list[str]:
    """The sentences for one record of a layer with this flip rate and distortion, known to ``sd``."""
    sentences = []
    if flips == 0:
        n = len(given.posterior)
        sentences.append(
            f"no decision changes on {n} samples: flips are below {min(1, 3 / n):.2g} with 95 % confidence, and the interval "
            "allows for one"
        )
    if D < -ROUNDING:
        sentences.append(negative(D, sd))
    if not features.labelled:
        sentences.append(
            f"no labels: the temperature {calibration.temperature:g} is taken as exact, and the misfit of the posteriors as "
            f"{FLOOR:.0%} of the flips"
        )
        return sentences
    absent = np.flatnonzero(np.bincount(features.labels, minlength=features.classes) == 0)
    if len(absent):
        which = listed(features.class_numbers[k] for k in absent)
        sentences.append(f"no sample of class {which}: what compression does to it is not in the distortion")
    p = _of(given.posterior, given.decisions)
    counted, n = float(np.mean(given.decisions == features.labels)), len(p)
    foreign = near_chance(counted, features.classes)
    sentences += foreign
    if calibration.log_error and not has_maximum(calibration) and not foreign:
        sentences.append(
            f"the likelihood of the temperature has no maximum (T = {calibration.temperature:.3g}): too few samples or errors "
            "to calibrate on"
        )
    noise = float(np.sqrt(np.sum(p * (1 - p)))) / n
    if abs(p.mean() - counted) > 3 * noise + 0.5 / n:
        sentences.append(
            f"the posteriors say {p.mean():.2%} right, the labels {counted:.2%}: one temperature does not calibrate this layer"
        )
    return sentences
