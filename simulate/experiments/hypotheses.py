"""``simulate check``: what the theory assumes, held against the features and weights at hand.

Each hypothesis comes with its effect first: how the predicted expected distortion changes when the hypothesis is replaced by
what was measured; its test second (:mod:`simulate.experiments.hypothesis_tests`), Holm-corrected over all of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from simulate.experiments import hypothesis_tests as tests
from simulate.experiments.hypothesis_tests import Test
from simulate.feature_models.gaussian import moments
from theory import logit_noise
from theory.calibrated import logits_of
from theory.error_model import ErrorModel, uniform
from theory.prediction import mean_distortion
from theory.setting.arguments import seed_of, widths
from theory.setting.compression import Compressed, compress
from theory.setting.errors import InputError
from theory.setting.files import Features, features_of
from theory.setting.precision import in_float64
from theory.setting.problem import Problem, decide

ALPHA = 0.05
LARGEST = 128  # classes up to which features are held against Gaussian ones: beyond, the theory has no orthants
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


class Effect:
    """The change of the distortion, a fraction, and its standard error by the finite sample."""

    def __init__(self, change: float, error: float = 0.0):
        self.change, self.error = float(change), float(error)


@in_float64
def check(
    features: Features | Path | str,
    *,
    scheme: str = "symmetric",
    bits: Sequence[int] = (4,),
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
        ``effect_standard_error`` (sampling noise of the effect where there is any), ``statistic``, ``p_value``
        (Holm-corrected over all tests), ``holds`` (that p above 0.05), ``sentence``; largest effect first. What these samples
        cannot tell is None, and the sentence says why.

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
    problem = _fitted(features)
    rng = np.random.default_rng([seed, 1])
    of_features = {
        GAUSSIAN: tests.gaussian_features(z, features.labels),
        MARGINS: tests.gaussian_margins(z, features.labels, features.weights),
        COVARIANCES: tests.equal_covariances(z, features.labels, rng),
        BAYES: tests.bayes_layer(z, features.labels, logits_of(features), rng),
    }
    if others is not None:
        y, x = others.labels, others.features.astype(np.float64)
        of_features[TRAINING] = tests.same_law(z, x, features.labels, y, rng)
    found, family = [], dict(of_features)
    for layer in layers:
        of_errors = error_tests(layer, features, rng)
        family |= {(name, layer.bits): test for name, test in of_errors.items()}
        base = _Base(features, layer, seed)
        effects = _error_effects(base) | _feature_effects(base, problem, None if others is None else _fitted(others))
        for name in (*of_features, *of_errors):
            assumed, effect = effects[name]
            record = {"hypothesis": name, "bits": layer.bits, "distortion": assumed}
            record |= {"effect": effect and effect.change, "effect_standard_error": effect and effect.error}
            found.append((record, name if name in of_features else (name, layer.bits)))
    tested = {key: test for key, test in family.items() if test is not None}
    corrected = dict(zip(tested, tests.holm(np.array([test.p_value for test in tested.values()])), strict=True))
    records = []
    for record, key in found:
        test = tested.get(key)
        p = None if test is None else float(corrected[key])
        record |= {"statistic": test and test.statistic, "p_value": p, "holds": None if p is None else p > ALPHA}
        records.append(record | {"sentence": _sentence(record, test)})
    return sorted(records, key=lambda record: -abs(record["effect"] or 0.0))


def error_tests(layer: Compressed, features: Features, rng: np.random.Generator) -> dict[str, Test | None]:
    """The tests of the errors of a compressed layer; rows without a step have none."""
    live = layer.steps > 0
    E = (layer.weights - features.weights)[live]
    scaled, z = E / layer.steps[live, None], features.features.astype(np.float64)
    flat, weights = scaled.reshape(-1), (features.weights[live] / layer.steps[live, None]).reshape(-1)
    return {
        UNIFORM: tests.uniform_errors(flat),
        VARIANCE: tests.error_variance(flat),
        WEIGHTS: tests.uncorrelated(flat, weights),
        ENTRIES: tests.independent_entries(scaled, z.T @ z / len(z)),
        ROWS: tests.independent_rows(E),
        NOISE: tests.gaussian_noise(scaled, z, rng),
    }


def _fitted(features: Features) -> Problem | None:
    """One Gaussian a class; None where no class has two samples, or there are too many to predict by orthants."""
    if features.classes > LARGEST or np.bincount(features.labels).max() < 2:
        return None
    priors, means, covariances, counts = moments(features)
    return Problem(
        weights=features.weights, bias=features.bias, priors=priors, means=means, covariances=covariances, counts=counts
    )


class _Base:
    """Expected distortion averaged over the features themselves, and its change under other errors or norms."""

    def __init__(self, features: Features, layer: Compressed, seed: int):
        self.features, self.layer, self.seed = features, layer, seed
        self.z = features.features.astype(np.float64)
        self.model = uniform(features.weights, layer.steps)
        self.right = decide(logits_of(features)) == features.labels
        self.each = self.change(self.model)
        self.distortion = float(self.each.mean())

    def change(self, model: ErrorModel, norms: np.ndarray | None = None) -> np.ndarray:
        """(n,) expected change of P(error) of each sample."""
        mean, bias, rows = logit_noise.two_rows(model.mean, self.features.bias, model.rows)
        if norms is None:
            norms = np.asarray(np.linalg.norm(self.z * model.columns, axis=1))
        right, _ = logit_noise.decided(self.z @ mean.T + bias, norms, rows, self.features.labels)
        return self.right - right

    def other(self, model: ErrorModel) -> tuple[float, Effect]:
        """The effect of another error model, sample by sample."""
        shift = self.change(model) - self.each
        return self.distortion, Effect(shift.mean(), _error(shift))


def _error(x: np.ndarray) -> float:
    return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else 0.0


def _error_effects(base: _Base) -> dict[str, tuple[float, Effect | None]]:
    """What was measured of the errors, in the place of each hypothesis on them; the others stay."""
    features, layer, model = base.features, base.layer, base.model
    W, E = features.weights, layer.weights - features.weights
    axis = 1 if layer.granularity == "channel" else None

    def moment(x: np.ndarray) -> np.ndarray:
        """(K, 1) mean over what has a step in common."""
        return np.broadcast_to(np.mean(x, axis, keepdims=True), (len(W), 1))

    power, offset, weight = moment(E**2), moment(E), moment(W**2)
    alpha = np.where(weight > 0, moment(E * W) / np.where(weight > 0, weight, 1), 0.0)
    residual = np.clip(1 - alpha**2 * weight / np.where(power > 0, power, 1), 0, 1)
    second = base.z.T @ base.z / len(base.z)
    own = np.sum(E**2 @ np.diagonal(second)[:, None], 1)
    power_ratio = np.where(own > 0, np.einsum("kd,de,ke->k", E, second, E) / np.where(own > 0, own, 1), 1.0)
    rows = model.rows
    effects: dict[str, tuple[float, Effect | None]] = {
        UNIFORM: base.other(model._replace(mean=W + offset, rows=np.sqrt(np.maximum(power - offset**2, 0))[:, 0])),
        VARIANCE: base.other(model._replace(rows=np.sqrt(power)[:, 0])),
        WEIGHTS: base.other(model._replace(mean=W * (1 + alpha), rows=rows * np.sqrt(residual)[:, 0])),
        ENTRIES: base.other(model._replace(rows=rows * np.sqrt(power_ratio))),
        ROWS: (base.distortion, None),
    }
    live = np.ptp(E, 1) > 0
    if live.sum() > 1:
        r = np.corrcoef(E[live])[np.triu_indices(int(live.sum()), 1)].mean()
        effects[ROWS] = base.other(model._replace(rows=rows * np.sqrt(max(0.0, 1 - r))))
    mean, bias, sigma = logit_noise.two_rows(W, features.bias, rows)
    logits = base.z @ mean.T + bias
    counted, _ = logit_noise.by_networks(base.z, logits, sigma, features.labels, decide(logits), base.seed)
    pairs = counted.reshape(-1, 2).mean(1)
    effects[NOISE] = base.distortion, Effect(pairs.mean() - base.distortion, _error(pairs))
    return effects


def _feature_effects(base: _Base, problem: Problem | None, training: Problem | None) -> dict[str, tuple[float, Effect | None]]:
    """What was measured of the features, in the place of each hypothesis on them; errors are uniform."""
    if problem is None:
        return dict.fromkeys((GAUSSIAN, MARGINS, COVARIANCES, BAYES, TRAINING), (base.distortion, None))
    steps = base.layer.steps
    assumed = mean_distortion(problem, steps, seed=base.seed)

    def under(other: Problem) -> tuple[float, Effect]:
        """What the hypothesis says, which fitted features do not obey; the effect leads from there to what was measured."""
        layer = base.layer
        own = compress(other.weights, layer.scheme, layer.bits, per_channel=layer.granularity == "channel").steps
        said = mean_distortion(other, own, seed=base.seed)
        return said, Effect(assumed - said)

    margins = base.change(base.model, norms_given_logits(base.features, problem))
    return {
        GAUSSIAN: (assumed, Effect(base.distortion - assumed, _error(base.each))),
        MARGINS: (assumed, Effect(margins.mean() - assumed, _error(margins))),
        COVARIANCES: under(replace(problem, covariances=pooled(problem))),
        BAYES: under(bayes_rule(problem)),
        TRAINING: (assumed, None) if training is None else under(training),
    }


def pooled(problem: Problem) -> np.ndarray:
    """(d, d) mean covariance, by priors."""
    return problem.covariances if problem.shared else np.tensordot(problem.priors, problem.covariances, 1)


def bayes_rule(problem: Problem) -> Problem:
    """The problem with the Bayes rule of its priors, means and pooled covariance for a layer."""
    S = pooled(problem)
    S = S + 1e-9 * np.trace(S) / len(S) * np.eye(len(S))
    weights = np.linalg.solve(S, problem.means.T).T
    bias = -0.5 * np.einsum("kd,kd->k", weights, problem.means) + np.log(np.maximum(problem.priors, 1e-12))
    if len(problem.weights) == 1:
        weights, bias = weights[1:] - weights[:1], bias[1:] - bias[:1]
    return replace(problem, weights=weights, bias=bias)


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
    if test is None:
        said = f"{name}: not tested, too few samples or values to tell"
    else:
        verdict = "not rejected" if record["holds"] else "rejected"
        said = f"{name}: {verdict} ({test.what} {test.statistic:.3g}, Holm p = {record['p_value']:.2g})"
    if effect is None:
        return f"{said}; its effect on the distortion cannot be told from these samples"
    spread = f" +- {100 * 1.96 * noise:.3f}" if noise else ""
    return (
        f"{said}; with what was measured instead, the expected distortion at {record['bits']} bits, "
        f"{100 * record['distortion']:.3f} points, changes by {100 * effect:+.3f}{spread} points"
    )
