"""The distribution-free prediction: random layers averaged over features that are nothing like Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

import theory.__main__
from simulate import measure
from tests.support.commands import code, one_line
from theory.error_model import uniform
from theory.integrals.logit_noise import expected
from theory.prediction import predict
from theory.setting.error_law import independent_errors
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import decide
from theory.setting.schemes import compress


def relu_features(seed: int, *, n: int = 1200, d: int = 48, K: int = 6, one_output: bool = False) -> Features:
    """Post-ReLU features with heavy tails, unequal priors, and a layer that reads them."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(K, n, p=np.arange(1, K + 1) / (K * (K + 1) / 2))
    means = rng.standard_normal((K, d))
    z = np.maximum(0, means[labels] + rng.standard_normal((n, d)) * np.exp(0.4 * rng.standard_normal((n, 1)))) + 0.05
    weights = np.maximum(means, 0) - np.maximum(means, 0).mean(0) + 0.05 * rng.standard_normal((K, d))
    bias = -0.5 * np.sum(weights**2, 1)
    if one_output:
        weights, bias = weights[1:2] - weights[:1], bias[1:2] - bias[:1]
    return Features(features=z, labels=labels, weights=weights, bias=bias)


def drawn(features: Features, steps: np.ndarray, networks: int, seed: int) -> np.ndarray:
    """(networks, 2): distortion and flips of independent layers W + E on the samples."""
    rng, z, found = np.random.default_rng(seed), features.features, []
    before = decide(z @ features.weights.T + features.bias)
    for _ in range(networks):
        E = (rng.random(features.weights.shape) - 0.5) * steps
        after = decide(z @ (features.weights + E).T + features.bias)
        found.append((np.mean(after != features.labels) - np.mean(before != features.labels), np.mean(after != before)))
    return np.array(found)


@pytest.mark.parametrize(
    ("K", "one_output", "bits", "channel"),
    [
        pytest.param(6, False, 3, False, marks=pytest.mark.slow),
        pytest.param(6, False, 4, True, marks=pytest.mark.slow),
        (2, False, 3, True),
        (2, True, 3, False),
    ],
)
def test_mean_and_spread_against_networks_drawn(K, one_output, bits, channel, seed):
    """2,000 networks; what is left is the noise of their mean and the Gaussian law of the logit noise (1/d). The spread is
    that on infinitely many samples: 600 networks on 20,000, less the noise of these samples."""
    everything = relu_features(seed, n=20_000, K=K, one_output=one_output)
    features = everything.take(np.arange(1200))
    question: dict = dict(scheme="symmetric", bits=[bits], errors="expected", per_channel=channel, seed=seed)
    (record,) = predict(features, **question)
    steps = compress(features.weights, "symmetric", bits, per_channel=channel).steps
    values = drawn(features, steps, 2000, seed + 1)
    assert agree(record.distortion, record.flip_rate, values)
    distortions, flips = drawn(everything, steps, 600, seed + 2).T
    spread = np.sqrt(max(distortions.var() - np.mean(flips - distortions**2) / 20_000, 0))
    parts = [predict(everything.take(np.arange(1200 * i, 1200 * (i + 1))), **question)[0] for i in range(16)]
    said = np.sqrt(np.mean([part.interval_sources["network"] ** 2 for part in parts]))  # a few boundary samples each
    assert 0.8 * spread < said < 1.4 * spread
    assert record.risk_before == pytest.approx(measure(features, scheme="symmetric", bits=[8])[0].risk_before, abs=1e-12)
    recalled = sum(one["prior"] * one["recall_after"] for one in record.per_class)
    assert recalled == pytest.approx(1 - record.risk_after, abs=1e-12)


def agree(distortion: float, flips: float, values: np.ndarray) -> bool:
    """Whether predictions agree with networks drawn (n, 2): within their noise, and 1 % for the law of the logit noise."""
    mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))
    return bool(np.all(np.abs(np.array([distortion, flips]) - mean) < 4.5 * error + 0.01 * np.abs(mean)))


def test_wrong_steps_and_a_mean_without_priors_are_seen(seed):
    features = relu_features(seed)
    steps = compress(features.weights, "symmetric", 3, per_channel=True).steps
    values, priors = drawn(features, steps, 2000, seed + 1), np.bincount(features.labels) / len(features.labels)

    def seen(steps: np.ndarray, priors: np.ndarray) -> bool:
        change = expected(features, uniform(features.weights, independent_errors(steps)))
        return not agree(float(change.distortion @ priors), float(change.flips @ priors), values)

    assert not seen(steps, priors)
    assert seen(0.9 * steps, priors)
    assert seen(np.where(np.arange(6)[:, None] == 0, 0.0, steps), priors)
    assert seen(steps, np.full(6, 1 / 6))


@pytest.mark.slow
def test_interval_of_networks_on_new_samples(seed):
    """Predicted on 1,000 samples, measured on 1,000 others, a network each, 80 times: a true .95 falls out with 1e-4."""
    everything, rng, inside = relu_features(seed, n=40_000), np.random.default_rng(seed), 0
    step = compress(everything.weights, "symmetric", 3).steps
    for trial in range(80):
        order = rng.permutation(40_000)
        question: dict = dict(scheme="symmetric", bits=[3], errors="expected", test_size=1000, seed=trial)
        (record,) = predict(everything.take(order[:1000]), **question)
        ((seen, _),) = drawn(everything.take(order[1000:2000]), step, 1, 1000 * seed + trial)
        inside += record.interval[0] <= seen <= record.interval[1]
    assert inside >= binom.ppf(1e-4, 80, 0.95), inside


def test_invariances(seed):
    features = relu_features(seed)
    question: dict = dict(scheme="symmetric", bits=[3], errors="expected", seed=seed)
    (base,) = predict(features, **question)
    (shifted,) = predict(replace(features, bias=features.bias + 2.5), **question)
    assert shifted.distortion == pytest.approx(base.distortion, abs=1e-12)
    (twice,) = predict(features.take(np.repeat(np.arange(1200), 2)), **question)
    assert twice.distortion == pytest.approx(base.distortion, abs=1e-12)
    assert twice.interval_sources["statistics"] == pytest.approx(base.interval_sources["statistics"] / np.sqrt(2), rel=0.01)
    order = np.array([2, 0, 1, 5, 3, 4])
    moved = replace(
        features, weights=features.weights[order], bias=features.bias[order], labels=np.argsort(order)[features.labels]
    )
    (permuted,) = predict(moved, **question)
    assert permuted.distortion == pytest.approx(base.distortion, abs=1e-6)
    (fine,) = predict(features, scheme="symmetric", bits=[16], errors="expected", seed=seed)
    assert abs(fine.distortion) <= fine.flip_rate < 1e-4


def test_the_door(tmp_path, capsys):
    features = relu_features(0)
    path = tmp_path / "f.npz"
    np.savez(path, features=features.features, labels=features.labels, weights=features.weights, bias=features.bias)
    tail = ("--scheme", "symmetric", "--bits", "3")
    assert code(theory.__main__, "predict", path, *tail, "--errors", "expected", "--test-size", 500) == 0
    assert "own_noise" in capsys.readouterr().out
    assert code(theory.__main__, "predict", path, *tail, "--errors", "expected", "--method", "magic") == 2
    one_line(capsys, "method", "own_noise")
    with pytest.raises(InputError, match="classes"):
        predict(features, scheme="symmetric", bits=[3], errors="expected", classes=[0, 9])
    (pair,) = predict(features, scheme="symmetric", bits=[3], errors="expected", classes=[4, 1])
    assert len(pair.per_class) == 2
