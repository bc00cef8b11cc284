"""The distribution-free prediction: random layers averaged over features that are nothing like Gaussian."""

from dataclasses import replace

import numpy as np
import pytest

import theory.__main__
from simulate import measure
from tests.support.commands import code, one_line
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.problem import decide
from theory.setting.schemes import compress


def relu_features(seed: int, *, n: int = 1200, d: int = 48, K: int = 6, rows: int | None = None) -> Features:
    """Post-ReLU features with heavy tails and a layer that reads them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, n)
    means = rng.standard_normal((K, d))
    z = np.maximum(0, means[labels] + rng.standard_normal((n, d)) * np.exp(0.4 * rng.standard_normal((n, 1)))) + 0.05
    weights = np.maximum(means, 0) - np.maximum(means, 0).mean(0) + 0.05 * rng.standard_normal((K, d))
    bias = -0.5 * np.sum(weights**2, 1)
    if rows == 1:
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
    ("K", "rows", "bits", "channel"), [(6, None, 3, False), (6, None, 4, True), (2, None, 3, True), (2, 1, 3, False)]
)
def test_mean_and_spread_against_networks_drawn(K, rows, bits, channel, seed):
    """2,000 networks; what is left is the noise of their mean and the Gaussian law of the logit noise (1/d). The spread is
    that on infinitely many samples: 300 networks on 20,000."""
    everything = relu_features(seed, n=20_000, K=K, rows=rows)
    features = everything.take(np.arange(1200))
    (record,) = predict(features, scheme="symmetric", bits=[bits], errors="expected", per_channel=channel, seed=seed)
    steps = compress(features.weights, "symmetric", bits, per_channel=channel).steps
    values = drawn(features, steps, 2000, seed + 1)
    se = values.std(0, ddof=1) / np.sqrt(2000)
    assert abs(record.distortion - values[:, 0].mean()) < 4.5 * se[0] + 0.01 * abs(record.distortion)
    assert abs(record.flip_rate - values[:, 1].mean()) < 4.5 * se[1] + 0.01 * record.flip_rate
    spread = drawn(everything, steps, 300, seed + 2)[:, 0].std()
    question: dict = dict(scheme="symmetric", bits=[bits], errors="expected", per_channel=channel, seed=seed)
    parts = [predict(everything.take(np.arange(1200 * i, 1200 * (i + 1))), **question)[0] for i in range(16 if K == 2 else 6)]
    said = np.sqrt(np.mean([one.interval_sources["network"] ** 2 for one in parts]))  # a few boundary samples each
    assert said == pytest.approx(spread, rel=0.4)
    assert record.risk_before == pytest.approx(measure(features, scheme="symmetric", bits=[8])[0].risk_before, abs=1e-12)
    recalled = sum(one["prior"] * one["recall_after"] for one in record.per_class)
    assert recalled == pytest.approx(1 - record.risk_after, abs=1e-12)


def test_a_step_half_as_large_or_one_row_forgotten_is_seen(seed):
    features = relu_features(seed)
    steps = compress(features.weights, "symmetric", 3, per_channel=True).steps
    values = drawn(features, steps, 1000, seed + 1)[:, 1]
    from theory.error_model import uniform
    from theory.integrals.logit_noise import expected
    from theory.setting.error_law import independent_errors

    for wrong in (0.5 * steps, np.where(np.arange(6)[:, None] == 0, 0.0, steps)):
        change = expected(features, uniform(features.weights, independent_errors(wrong)))
        priors = np.bincount(features.labels) / len(features.labels)
        assert abs(change.flips @ priors - values.mean()) > 0.02 * values.mean()


def test_interval_of_networks_on_new_samples(seed):
    """Predicted on 3,000 samples, measured on 1,000 others, 300 networks: 95 % at p = 1e-4, with statistics and test set."""
    from scipy.stats import binom

    everything, rng, inside = relu_features(seed, n=40_000), np.random.default_rng(seed), 0
    step = compress(everything.weights, "symmetric", 3).steps
    for trial in range(300):
        order = rng.permutation(40_000)
        if trial % 30 == 0:
            question: dict = dict(scheme="symmetric", bits=[3], errors="expected", test_size=1000, seed=trial)
            (record,) = predict(everything.take(order[:3000]), **question)
        ((seen, _),) = drawn(everything.take(order[3000:4000]), step, 1, trial)
        inside += record.interval[0] <= seen <= record.interval[1]
    low, high = binom.interval(1 - 1e-4, 300, 0.95)
    assert low <= inside <= high, inside


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
