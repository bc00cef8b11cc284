"""Synthetic problems are what they say."""

import numpy as np
import pytest
from scipy.special import log_softmax

from simulate.generator import synthetic
from simulate.logistic import samples_of, trained_layer
from tests.support.problems import exact_risk
from theory.setting.errors import InputError


@pytest.mark.parametrize("covariance", ["shared", "unequal"])
def test_separation_priors_and_shapes(covariance, seed):
    problem = synthetic(classes=5, features=7, separation=2.5, covariance=covariance, priors="unequal", seed=seed)
    base = problem.covariances if covariance == "shared" else problem.covariances[0]
    factors = [1.0] if covariance == "shared" else [np.trace(S) / np.trace(base) for S in problem.covariances]
    if covariance == "shared":
        distance = np.sqrt(np.einsum("kd,dk->k", problem.means, np.linalg.solve(base, problem.means.T))).mean()
        assert distance == pytest.approx(2.5, rel=1e-12)
    else:
        assert 0.5 <= min(factors) < max(factors) <= 2.0
        for S, f in zip(problem.covariances, factors, strict=True):
            np.testing.assert_allclose(S, base * f, rtol=1e-12)
    assert problem.priors.sum() == pytest.approx(1)
    assert np.ptp(problem.priors) > 0.01
    assert problem.weights.shape == (5, 7)


def test_the_optimal_layer_is_and_the_perturbed_is_not(seed):
    rng = np.random.default_rng(seed)
    problem = synthetic(classes=2, features=6, separation=2.0, priors="unequal", seed=seed)
    best = exact_risk(problem)
    for _ in range(30):
        assert (
            exact_risk(problem, problem.weights + 0.05 * np.abs(problem.weights).mean() * rng.standard_normal((2, 6))) >= best
        )
    other = synthetic(classes=2, features=6, separation=2.0, priors="unequal", layer="perturbed", seed=seed)
    np.testing.assert_array_equal(other.means, problem.means)
    assert exact_risk(other) > best


def test_the_trained_layer_has_the_least_penalized_cross_entropy(seed):
    rng = np.random.default_rng(seed)
    problem = synthetic(classes=3, features=4, separation=2.0, priors="unequal", covariance="unequal", seed=seed)
    z, labels = samples_of(rng, problem, 400)
    assert np.bincount(labels).min() > 20
    W, b = trained_layer(problem.weights, problem.bias, z, labels)

    def loss(W, b):
        return -np.mean(log_softmax(z @ W.T + b, axis=1)[np.arange(400), labels]) + 0.5e-3 * np.sum(W**2)

    best = loss(W, b)
    for _ in range(30):
        step = 0.02 * rng.standard_normal((3, 5))
        assert loss(W + step[:, :4], b + step[:, 4]) > best
    trained = synthetic(classes=3, features=4, separation=2.0, layer="trained", seed=seed)
    assert np.mean((trained.weights - synthetic(classes=3, features=4, separation=2.0, seed=seed).weights) ** 2) > 0


def test_seeds():
    one, two, far = (synthetic(classes=2, features=3, separation=1.0, seed=seed).means for seed in (0, 1, 2**32))
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, far)
    np.testing.assert_array_equal(one, synthetic(classes=2, features=3, separation=1.0, seed=0).means)


def test_options_are_checked():
    for change in (
        {"classes": 1},
        {"features": 0},
        {"separation": -1.0},
        {"separation": np.inf},
        {"layer": "best"},
        {"priors": "none"},
        {"covariance": "none"},
    ):
        with pytest.raises(InputError):
            synthetic(**{"classes": 2, "features": 3, "separation": 1.0, **change})


def test_distance_is_that_between_the_means(seed):
    problem = synthetic(classes=4, features=6, distance=3.0, priors="unequal", seed=seed)
    S = np.linalg.inv(problem.covariances)
    pairs = [problem.means[i] - problem.means[j] for i in range(4) for j in range(i)]
    assert np.mean([np.sqrt(gap @ S @ gap) for gap in pairs]) == pytest.approx(3.0, rel=1e-12)


def test_means_covariance_and_priors_of_files(tmp_path, seed):
    """Taken as they are; the layer is their Bayes rule; scaled where a separation is asked for too."""
    rng = np.random.default_rng(seed)
    means, A, priors = rng.standard_normal((3, 5)), rng.standard_normal((5, 5)), np.array([0.5, 0.3, 0.2])
    np.save(tmp_path / "means.npy", means)
    np.savetxt(tmp_path / "covariance.csv", A @ A.T + np.eye(5), delimiter=",")
    np.savetxt(tmp_path / "priors.txt", priors)
    files = {name: tmp_path / file for name, file in zip(("means", "covariance", "priors"), FILES, strict=True)}
    problem = synthetic(**files)
    np.testing.assert_array_equal(problem.means, means)
    np.testing.assert_allclose(problem.covariances, A @ A.T + np.eye(5))
    np.testing.assert_allclose(problem.priors, priors)
    np.testing.assert_allclose(problem.weights, np.linalg.solve(problem.covariances, means.T).T)
    scaled = synthetic(separation=2.0, **files)
    np.testing.assert_allclose(scaled.means / means, (scaled.means / means)[0, 0])
    own = synthetic(means=means, covariance=np.stack([np.eye(5), 2 * np.eye(5), 3 * np.eye(5)]), layer="perturbed", seed=seed)
    assert own.covariances.shape == (3, 5, 5)


FILES = ("means.npy", "covariance.csv", "priors.txt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"distance": 1.0}, "expected one of the two, got both"),
        ({"separation": None}, "separation: expected a positive number"),
        ({"features": None}, "classes, features: expected both"),
        ({"means": np.ones((2, 3))}, "expected none with means"),
        ({"covariance": np.ones((3, 4))}, "covariances: expected shape"),
        ({"covariance": np.zeros((3, 3))}, "singular"),
        ({"covariance": "none.npy"}, "unequal, or a .npy"),
        ({"priors": np.array([0.5, 0.6])}, "priors"),
        ({"priors": np.array(["a", "b"])}, "priors: expected numbers"),
        ({"features": 10**5}, "at most"),
    ],
)
def test_what_is_given_is_checked(change, says):
    with pytest.raises(InputError, match=says):
        synthetic(**{"classes": 2, "features": 3, "separation": 1.0, **change})
