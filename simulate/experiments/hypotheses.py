"""``simulate check``: what the theory assumes, held against the features and weights at hand.

Each hypothesis comes with its effect first: how the predicted expected distortion changes when the hypothesis is replaced by
what was measured; its test second (:mod:`simulate.experiments.hypothesis_tests`), Holm-corrected over those of the features and
over those of the errors.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from simulate.experiments import hypothesis_tests as tests
from simulate.experiments.hypothesis_tests import Test
from simulate.feature_models import gaussian
from theory.calibration import calibrate, has_maximum
from theory.error_model import ErrorModel, gain_and_residual, uniform
from theory.expectation import mean_distortion
from theory.integrals import logit_noise
from theory.integrals.contrasts import MOST_RIVALS
from theory.setting.checks import seed_of, widths
from theory.setting.command_line import progress
from theory.setting.error_law import SQUARE_VARIANCE, independent_errors
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.files import features_of
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, decide, two_rows
from theory.setting.schemes import Compressed, compress

ALPHA = 0.05
LABELS = 8  # sets of them drawn from the posteriors
STRETCH = 1.1  # of the error variance, for its slope
LARGEST = MOST_RIVALS + 1  # classes up to which features are held against Gaussian ones: beyond, the theory has no orthants
GAUSSIAN, MARGINS = "Gaussian features in each class", "Gaussian margins"
COVARIANCES, BAYES = "equal covariances", "the layer is the Bayes rule"
TRAINING = "features as in training"
UNIFORM, VARIANCE = "errors uniform", "error variance step^2/12"
WEIGHTS, ENTRIES, ROWS = (
    "errors uncorrelated with the weights",
    "errors independent in a row",
    "errors independent between rows",
)
NOISE = "logit noise Gaussian given the features"
TESTED = (GAUSSIAN, MARGINS, COVARIANCES, BAYES, TRAINING, UNIFORM, VARIANCE, WEIGHTS, ENTRIES, ROWS, NOISE)
ASSUMED = {  # what the expected distortion is of, where it is not of the samples themselves
    GAUSSIAN: "of one Gaussian a class",
    MARGINS: "of one Gaussian a class",
    COVARIANCES: "of Gaussians with one covariance",
    BAYES: "of labels drawn from the layer's posteriors",
    TRAINING: "of the training samples, one Gaussian a class",
}


class Change(NamedTuple):
    """The change of the distortion, a fraction, and its standard error."""

    change: float
    error: float


@in_float64
def check(
    features: Features | Path | str,
    *,
    scheme: str = "symmetric",
    bits: Sequence[int] | int = (4,),
    per_channel: bool = False,
    classes: Sequence[int] | None = None,
    training: Features | Path | str | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test the hypotheses of the theory on these features and these weights, any number of classes.

    Of the features: Gaussian in each class (Mardia's kurtosis); their margins Gaussian, which is what the theory needs of them
    (Shapiro and Wilk); equal covariances (permuted labels); the layer the Bayes rule (labels drawn from its calibrated
    posteriors); with ``training`` distributed as in training (energy distance). Of the errors of the compressed layer: uniform
    in +-step/2 (Kolmogorov and Smirnov); of variance step^2/12; uncorrelated with the weights; independent in a row and between
    rows; the logit noise they make Gaussian.

    Args:
        features: labelled features or a features file.
        scheme, bits, per_channel, classes: as :func:`theory.predict`.
        training: features of the training samples by the same layer, or their file.
        seed: of permuted and drawn labels and random layers.

    Returns:
        Records ``hypothesis``, ``bits``, ``distortion`` (expected, under the hypothesis), ``effect`` (its change, a fraction),
        ``effect_standard_error`` (of the finite sample, and of the one draw of errors that a layer is), ``statistic``,
        ``p_value`` (Holm-corrected over the tests of the features, or of the errors), ``holds`` (that p above 0.05),
        ``sentence``; largest effect first. What these samples cannot tell is None.

    Raises:
        InputError: a bad file or bad options.
    """
    bits, seed = widths(bits), seed_of(seed)
    features = features_of(features).restrict(classes)
    layers = [compress(features.weights, scheme, width, per_channel=per_channel) for width in bits]
    if not all(layer.steps.max() > 0 for layer in layers):
        raise InputError("weights: expected weights that are not all 0, got zeros: there is nothing to compress")
    others = None if training is None else features_of(training).restrict(classes)
    if others is not None and not np.array_equal(others.weights, features.weights):
        raise InputError("training: expected features of the same layer, got other weights")
    z = features.features.astype(np.float64)
    problem, elsewhere = _fitted(features), None if others is None else _fitted(others)
    of_features = {
        GAUSSIAN: tests.gaussian_features(z, features.labels),
        MARGINS: tests.gaussian_margins(z, features.labels, features.weights, features.bias),
        COVARIANCES: tests.equal_covariances(z, features.labels, stream(seed, COVARIANCES)),
        BAYES: tests.bayes_layer(z, features.labels, features.head_logits(), stream(seed, BAYES)),
    }
    if others is not None:
        y, x = others.labels, others.features.astype(np.float64)
        of_features[TRAINING] = tests.same_law(z, features.labels, x, y, stream(seed, TRAINING))
    rows: list[tuple[dict[str, Any], Any]] = []
    of_errors: dict[Any, Test | None] = {}
    for layer in progress(layers, what="checking", unit="width"):
        own = error_tests(layer, features, stream(seed, NOISE, layer.bits or 0))
        of_errors |= {(name, layer.bits): test for name, test in own.items()}
        base = _Base(features, layer, seed)
        effects = _error_effects(base) | _feature_effects(base, problem, elsewhere)
        for name in (*of_features, *own):
            assumed, effect = effects[name]
            record = {"hypothesis": name, "bits": layer.bits, "distortion": assumed}
            record |= {
                "effect": None if effect is None else effect.change,
                "effect_standard_error": None if effect is None else effect.error,
            }
            rows.append((record, name if name in of_features else (name, layer.bits)))
    tested = of_features | of_errors
    # corrected apart: a verdict on the features does not depend on how many widths are asked
    corrected = _corrected(of_features) | _corrected(of_errors)
    records = []
    for record, key in rows:
        test, p = tested[key], corrected.get(key)
        record |= {
            "statistic": None if test is None else test.statistic,
            "p_value": p,
            "holds": None if p is None else p > ALPHA,
        }
        records.append(record | {"sentence": _sentence(record, test)})
    return sorted(records, key=lambda record: -abs(record["effect"] or 0.0))


def stream(seed: int, name: str, width: int = 0) -> np.random.Generator:
    """The random numbers of each test, its own: what else is asked changes no number."""
    return np.random.default_rng([seed, 1, TESTED.index(name), width])


def _corrected(family: dict[Any, Test | None]) -> dict[Any, float]:
    """Holm's p-values of one family; what could not be tested has none."""
    p = {key: test.p_value for key, test in family.items() if test is not None}
    return dict(zip(p, map(float, tests.holm(np.array(list(p.values())))), strict=True))


def error_tests(layer: Compressed, features: Features, rng: np.random.Generator) -> dict[str, Test | None]:
    """The tests of the errors of a compressed layer; rows without a step have none."""
    live = layer.steps[:, 0] > 0
    E = (layer.weights - features.weights)[live]
    scaled, z = E / layer.steps[live], features.features.astype(np.float64)
    rest = _without_gain(features.weights, layer)[1][live] / layer.steps[live]
    flat, weights = scaled.reshape(-1), (features.weights[live] / layer.steps[live]).reshape(-1)
    return {
        UNIFORM: tests.uniform_errors(flat),
        VARIANCE: tests.error_variance(flat),
        WEIGHTS: tests.uncorrelated(flat, weights),
        ENTRIES: tests.independent_entries(rest, z.T @ z / len(z)),
        ROWS: tests.independent_rows(E),
        NOISE: tests.gaussian_noise(scaled, z, rng),
    }


def _fitted(features: Features) -> Problem | None:
    """One Gaussian a class; None where no class has two samples, or there are too many to predict by orthants."""
    if features.classes > LARGEST or np.bincount(features.labels).max() < 2:
        return None
    return gaussian.problem(features)


class _Base:
    """Expected distortion averaged over the features themselves, and its change under other errors or norms."""

    def __init__(self, features: Features, layer: Compressed, seed: int):
        self.features, self.layer, self.seed = features, layer, seed
        self.z = features.features.astype(np.float64)
        self.model = uniform(features.weights, independent_errors(layer.steps))
        self.right = decide(features.head_logits()) == features.labels
        self.each = self.change(self.model)
        self.distortion = float(self.each.mean())

    def change(
        self,
        model: ErrorModel,
        *,
        norms: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        right: np.ndarray | None = None,
    ) -> np.ndarray:
        """(n,) expected change of P(error) of each sample; with other norms, or labels and where the clean layer is right."""
        mean, bias = two_rows(model.mean, self.features.bias)
        deviations = logit_noise.deviations_of(self.z, model)
        if norms is not None:
            deviations = deviations * (norms / np.linalg.norm(self.z * model.columns, axis=1))[:, None]
        labels, before = (self.features.labels, self.right) if labels is None or right is None else (labels, right)
        after, _ = logit_noise.decided(self.z @ mean.T + bias, deviations, labels)
        return before - after

    @functools.cached_property
    def slope(self) -> float:
        """dD/d log v, v the variance of the errors."""
        louder = self.change(self.model._replace(rows=np.sqrt(STRETCH) * self.model.rows))
        return float(np.mean(louder - self.each)) / np.log(STRETCH)

    def other(self, model: ErrorModel, noise: float) -> tuple[float, Change]:
        """The effect of another error model, sample by sample; ``noise`` is the standard deviation of log v that one draw of
        errors of the hypothesis has."""
        shift = self.change(model) - self.each
        return self.distortion, Change(float(shift.mean()), float(np.hypot(_error(shift), self.slope * noise)))


def _error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0


def _over(layer: Compressed) -> Callable[[np.ndarray], np.ndarray]:
    """(K, 1) mean over what has a step in common."""
    axis = 1 if layer.granularity == "channel" else None
    return lambda x: np.broadcast_to(np.mean(x, axis, keepdims=True), (len(layer.weights), 1))


def _without_gain(W: np.ndarray, layer: Compressed) -> tuple[np.ndarray, np.ndarray]:
    """The gain of the errors E on the weights of each step, and E - gain W."""
    E = layer.weights - W
    gain, _ = gain_and_residual(W, E, 1 if layer.granularity == "channel" else None)
    return gain, E - gain * W


def _error_effects(base: _Base) -> dict[str, tuple[float, Change | None]]:
    """What was measured of the errors, in the place of each hypothesis on them; the others stay."""
    features, layer, model = base.features, base.layer, base.model
    W, E = features.weights, layer.weights - features.weights
    moment, (alpha, rest) = _over(layer), _without_gain(W, layer)
    power, offset, weight = moment(E**2), moment(E), moment(W**2)
    residual = np.clip(1 - alpha**2 * weight / np.where(power > 0, power, 1), 0, 1)
    second = base.z.T @ base.z / len(base.z)
    diagonal = np.diagonal(second)
    own = float(np.sum(rest**2 @ diagonal))
    ratio = float(np.einsum("kd,de,ke->", rest, second, rest)) / own if own > 0 else 1.0
    live = np.ptp(E, 1) > 0
    K, d = max(1, int(live.sum())), W.shape[1]
    rows, m = model.rows, K * d
    # of the mean square of m uniform errors; of their correlation with the weights, twice over; of their power in the logits
    spread, tilt = np.sqrt(SQUARE_VARIANCE / m), 2 * float(np.sqrt(np.mean(power) / max(float(np.mean(weight)), 1e-300) / m))
    off = np.sum(second**2) - np.sum(diagonal**2)
    joint = float(np.sqrt(2 * max(float(off), 0.0) / K) / max(float(diagonal.sum()), 1e-300))
    effects: dict[str, tuple[float, Change | None]] = {
        UNIFORM: base.other(model._replace(mean=W + offset, rows=np.sqrt(np.maximum(power - offset**2, 0))), spread),
        VARIANCE: base.other(model._replace(rows=np.sqrt(power)), spread),
        WEIGHTS: base.other(model._replace(mean=W * (1 + alpha), rows=rows * np.sqrt(residual)), tilt),
        ENTRIES: base.other(model._replace(rows=rows * np.sqrt(ratio)), joint),
        ROWS: (base.distortion, None),
    }
    if live.sum() > 1:
        r = np.corrcoef(E[live])[np.triu_indices(int(live.sum()), 1)].mean()
        effects[ROWS] = base.other(model._replace(rows=rows * np.sqrt(max(0.0, 1 - r))), 1 / np.sqrt(d * K * (K - 1) / 2))
    mean, bias = two_rows(W, features.bias)
    logits = base.z @ mean.T + bias
    counted = logit_noise.by_networks(base.z, logits, model, features.labels, decide(logits), base.seed).distortion
    pairs = counted.reshape(-1, 2).mean(1)
    effects[NOISE] = base.distortion, Change(float(pairs.mean()) - base.distortion, _error(pairs))
    return effects


def _feature_effects(base: _Base, problem: Problem | None, training: Problem | None) -> dict[str, tuple[float, Change | None]]:
    """What was measured of the features, in the place of each hypothesis on them; errors are uniform."""
    if problem is None:
        return dict.fromkeys((GAUSSIAN, MARGINS, COVARIANCES, TRAINING), (base.distortion, None)) | {BAYES: _bayes_effect(base)}
    steps = base.layer.steps
    assumed, numerical = mean_distortion(problem, steps, seed=base.seed)

    def under(other: Problem) -> tuple[float, Change]:
        """What the hypothesis says, which fitted features do not obey; the effect leads from there to what was measured. Both
        are of one sample, as it is: the error is that of the integrals."""
        layer = base.layer
        own = compress(other.weights, layer.scheme, layer.bits, **layer.options).steps
        said, error = mean_distortion(other, own, seed=base.seed)
        return said, Change(assumed - said, float(np.hypot(numerical, error)) / 1.96)

    margins = base.change(base.model, norms=norms_given_logits(base.features, problem))
    return {
        GAUSSIAN: (assumed, Change(base.distortion - assumed, _error(base.each))),
        MARGINS: (assumed, Change(float(margins.mean()) - assumed, _error(margins))),
        COVARIANCES: under(replace(problem, covariances=pooled(problem))),
        BAYES: _bayes_effect(base),
        TRAINING: (assumed, None) if training is None else under(training),
    }


def _bayes_effect(base: _Base) -> tuple[float, Change | None]:
    """From labels drawn from the layer's own posteriors softmax(logits/T), whose Bayes rule it is, to the labels measured."""
    logits = base.features.head_logits()
    calibration = calibrate(logits, base.features.labels)
    if not has_maximum(calibration):
        return base.distortion, None
    edges = np.cumsum(softmax(logits / calibration.temperature, 1), 1)
    rng, decisions = np.random.default_rng([base.seed, 2]), decide(logits)
    each = np.zeros(len(logits))
    for _ in range(LABELS):
        labels = np.minimum(np.sum(edges < rng.random((len(edges), 1)), 1), edges.shape[1] - 1)
        each += base.change(base.model, labels=labels, right=decisions == labels) / LABELS
    shift = base.each - each
    return float(each.mean()), Change(float(shift.mean()), _error(shift))


def pooled(problem: Problem) -> np.ndarray:
    """(d, d) mean covariance, by priors."""
    return problem.covariances if problem.shared else np.tensordot(problem.priors, problem.covariances, 1)


def norms_given_logits(features: Features, problem: Problem) -> np.ndarray:
    """(n,) root of E[|z|^2 | logits] of each sample under the Gaussian law of its class."""
    z, W = features.features.astype(np.float64), features.weights
    A = W if len(W) == 1 else W - W.mean(0)
    squares = np.zeros(len(z))
    for k in np.unique(features.labels):
        S, rows = problem.covariance(int(k)), features.labels == k
        gain = S @ A.T @ np.linalg.pinv(A @ S @ A.T, rcond=1e-10, hermitian=True)
        centre = problem.means[k] + (z[rows] - problem.means[k]) @ A.T @ gain.T
        squares[rows] = np.sum(centre**2, 1) + max(float(np.trace(S) - np.sum(gain * (S @ A.T))), 0.0)
    return np.sqrt(squares)


def _sentence(record: dict[str, Any], test: Test | None) -> str:
    name, effect, noise = record["hypothesis"], record["effect"], record["effect_standard_error"]
    under = ASSUMED.get(name, "of uniform errors on these samples")
    if test is None:
        said = f"{name}: not tested, too few samples or values to tell"
    else:
        verdict = "not rejected" if record["holds"] else "rejected"
        p = f"p = {record['p_value']:.2g}" if record["p_value"] >= 1e-16 else "p < 1e-16"
        said = f"{name}: {verdict} ({test.what} {test.statistic:.3g}, Holm {p})"
    if effect is None:
        return f"{said}; its effect on the distortion cannot be told from these samples"
    spread, sure = (f" +- {100 * 1.96 * noise:.3f}", " (95 %)") if noise else ("", "")
    return (
        f"{said}; with what was measured instead, the expected distortion {under} at {record['bits']} bits, "
        f"{100 * record['distortion']:.3f} points, changes by {100 * effect:+.3f}{spread} points{sure}"
    )
