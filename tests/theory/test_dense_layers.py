"""Dense networks of several layers: moments of the logits against networks drawn, theory against simulation, files."""

from dataclasses import replace
from inspect import unwrap

import jax.numpy as jnp
import numpy as np
import pytest

import simulate
import theory
from tests.support.commands import code, one_line
from theory import dense_layers
from theory.budget import Budget
from theory.dense_layers import logit_moments, rectified
from theory.setting.dense import DenseNetwork, forward
from theory.setting.errors import InputError
from theory.setting.files import read_any, read_dense, read_statistics, write_dense
from theory.setting.precision import in_float64
from theory.setting.problem import decide
from theory.setting.question import plans_of

SMALL = Budget(dense_inputs=2**11)


def network_of(seed: int, *, depth: int = 3, width: int = 16, classes: int = 4, **options) -> DenseNetwork:
    made = simulate.synthetic(
        classes=classes, features=12, separation=2.5, depth=depth, width=width, covariance="unequal", seed=seed, **options
    )
    assert isinstance(made, DenseNetwork)
    return made


@pytest.mark.parametrize("scale", [0.3, 3.0])
@in_float64
def test_rectified_moments_are_those_of_samples(scale, seed):
    """Far from 0 and near it; correlations up to one half."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((6, 6)) + 2 * np.eye(6)
    C = A @ A.T / 6
    m = np.maximum(scale * rng.standard_normal(6), -2 * np.sqrt(np.diagonal(C)))  # else samples see nothing
    mean, covariance = map(np.asarray, rectified(jnp.asarray(m), jnp.asarray(C)))
    h = np.maximum(m + rng.standard_normal((400_000, 6)) @ np.linalg.cholesky(C).T, 0)
    assert np.abs(mean - h.mean(0)).max() < 5 * h.std(0).max() / 632
    centred = h - h.mean(0)
    error = np.sqrt(np.mean((centred[:, :, None] * centred[:, None]) ** 2, 0)) / 632
    assert np.all(np.abs(covariance - centred.T @ centred / len(h)) < 5 * error)
    far, _ = rectified(jnp.full(2, 1e6), jnp.eye(2))
    np.testing.assert_allclose(far, 1e6)
    for shift, variance in ((1e6, 1.0), (-1e6, 0.0)):
        np.testing.assert_allclose(rectified(jnp.full(2, shift), jnp.eye(2))[1], variance * np.eye(2), atol=1e-12)


def _without_shared_noise(monkeypatch, network, tensors, x) -> np.ndarray:
    """Covariances of the logits by the same recursion where rectifiers forget what units share."""

    def independent(mean, covariance):
        own = covariance if covariance.ndim == 1 else jnp.diagonal(covariance)
        return rectified(mean, own)

    with monkeypatch.context() as patch:
        patch.setattr(dense_layers, "rectified", independent)
        patch.setattr(dense_layers, "_moments", unwrap(dense_layers._moments))
        return logit_moments(network, tensors, x)[1]


@pytest.mark.parametrize("options", [{}, {"per_channel": True}, {"group_size": 5}])
@in_float64
def test_moments_of_the_logits_are_those_of_networks_drawn(options, seed, monkeypatch):
    """Mean and full covariance at some inputs, 3 bits in every layer; without the covariance of units they are not."""
    network = network_of(seed)
    (plan,) = plans_of(network, "symmetric", [3], **options)
    tensors = network.compressed(plan)
    rng = np.random.default_rng(seed)
    x = network.inputs.means[rng.integers(0, 4, 8)] + rng.standard_normal((8, 12))
    means, covariances = logit_moments(network, tensors, x)
    drawn = []
    for _ in range(6000):
        layers = [
            (weights + rng.uniform(-0.5, 0.5, weights.shape) * tensors[name].steps, bias)
            for name, (weights, bias) in zip(network.names, network.layers, strict=True)
        ]
        drawn.append(forward(layers, x))
    drawn = np.array(drawn)
    scale = drawn.std(0)
    assert (np.abs(means - drawn.mean(0)) / scale).max() < 0.08  # 6 standard errors, or of the closure
    centred = (drawn - drawn.mean(0)) / scale
    seen = np.einsum("mni,mnj->nij", centred, centred) / len(drawn)
    got = covariances / (scale[:, :, None] * scale[:, None])
    assert np.abs(got - seen).max() < 0.15
    alone = _without_shared_noise(monkeypatch, network, tensors, x) / (scale[:, :, None] * scale[:, None])
    error = np.sqrt(np.mean((alone - seen) ** 2)), np.sqrt(np.mean((got - seen) ** 2))
    assert error[0] > 2 * error[1], error  # units whose noise is taken as independent
    first = drawn.var(0).sum() / np.trace(covariances, axis1=1, axis2=2).sum()
    assert first == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("depth", [2, 4])
def test_distortion_and_flips_are_those_counted(depth, seed):
    network = network_of(seed, depth=depth, width=32)
    predicted = theory.predict(network, scheme="symmetric", bits=[2, 3], seed=seed, budget=Budget(dense_inputs=2**12))
    counted = simulate.run(network, scheme="symmetric", bits=[2, 3], errors="expected", networks=300, seed=seed)
    for record, other in zip(predicted, counted, strict=True):
        assert other.standard_error is not None
        assert other.flip_rate_standard_error is not None
        error = np.hypot(record.numerical_error / 2, other.standard_error)
        assert abs(record.distortion - other.distortion) < 4.5 * error + 0.03 * record.distortion
        error = np.hypot(record.flip_rate_error / 2, other.flip_rate_standard_error)
        assert abs(record.flip_rate - other.flip_rate) < 4.5 * error + 0.03 * record.flip_rate
        error = np.hypot(record.risk_before_error / 2, other.risk_before_error / 2)
        assert abs(record.risk_before - other.risk_before) < 4.5 * error
        assert record.interval_sources["network"] == pytest.approx(other.interval_sources["network"], rel=0.3, abs=0.002)
        drops = [c["prior"] * (c["recall_before"] - c["recall_after"]) for c in record.per_class]
        assert sum(drops) == pytest.approx(record.distortion, abs=0.01)
        assert record.plan == {name: record.bits for name in network.names}
        assert record.rate == other.rate
    assert counted[1].distortion > 0.02  # there is something to agree on


def test_one_network_is_counted_as_by_hand(seed):
    """Actual errors: layers compressed one by one, inputs drawn here."""
    network = network_of(seed)
    (record,) = simulate.run(network, scheme="symmetric", bits=[3], n=200_000, seed=seed, per_channel=True)
    (plan,) = plans_of(network, "symmetric", [3], per_channel=True)
    layers = [
        (tensor.weights, bias) for tensor, (_, bias) in zip(network.compressed(plan).values(), network.layers, strict=True)
    ]
    rng, law = np.random.default_rng(seed), network.inputs
    labels = rng.choice(4, 200_000, p=law.priors)
    x = np.empty((len(labels), 12))
    for k in range(4):
        own = labels == k
        x[own] = law.means[k] + rng.standard_normal((own.sum(), 12)) @ np.linalg.cholesky(law.covariance(k)).T
    before, after = decide(network.logits(x)), decide(forward(layers, x))
    shift = (after != labels).astype(float) - (before != labels)
    assert record.standard_error is not None
    assert record.n is not None
    assert record.n >= 200_000
    assert abs(record.distortion - shift.mean()) < 4.5 * 1.5 * record.standard_error
    assert record.standard_error == pytest.approx(shift.std() / np.sqrt(record.n), rel=0.05)
    assert abs(record.flip_rate - np.mean(before != after)) < 4.5 * 1.5 * np.sqrt(record.flip_rate / 2e5)
    posterior = network.posterior(x)
    assert abs(np.mean(posterior[np.arange(len(x)), before]) - np.mean(before == labels)) < 0.006


def test_layers_and_plans_of_a_dense_network(seed):
    """One layer alone, widths of its own, exact layers without errors."""
    network = network_of(seed, depth=2)
    assert network.names == ["hidden_weights_1", "weights"]
    (alone,) = theory.predict(network, scheme="symmetric", bits=[3], layers=["weights"], budget=SMALL)
    (both,) = theory.predict(network, scheme="symmetric", bits=[3], budget=SMALL)
    (mixed,) = theory.predict(network, scheme="symmetric", bits=[3], layer_bits={"hidden_weights_1": 12}, budget=SMALL)
    assert alone.plan == {"weights": 3}
    assert mixed.plan == {"hidden_weights_1": 12, "weights": 3}
    assert alone.distortion < both.distortion
    assert mixed.distortion == pytest.approx(alone.distortion, abs=2e-3)
    for call in (theory.predict, simulate.run):
        with pytest.raises(InputError, match="layers: expected weights among hidden_weights_1, weights, got 'conv1'"):
            call(network, scheme="symmetric", bits=[3], layers=["conv1"])


def test_a_dense_network_has_no_random_errors_without_a_step():
    network = network_of(0, depth=2)
    for call in (theory.predict, simulate.run):
        with pytest.raises(InputError, match="errors: expected 'actual' for scheme prune"):
            call(network, scheme="prune", sparsity=0.5, errors="expected")
    (few,) = simulate.run(network, scheme="symmetric", bits=[3], errors="expected", n=5, networks=5)
    assert few.n == 5


def test_the_file_of_a_dense_network_travels(tmp_path, seed, capsys):
    import simulate.__main__
    import theory.__main__

    path = tmp_path / "network.npz"
    words = ["--classes", 3, "--features", 6, "--separation", 2, "--depth", 3, "--width", 8, "--seed", seed]
    assert code(simulate.__main__, "synthetic", *words, "--out", path) == 0
    back = read_dense(path)
    assert isinstance(read_any(path), DenseNetwork)
    assert str(back) == "DenseNetwork: 6-8-8-3, Gaussian classes"
    again = tmp_path / "again.npz"
    write_dense(again, back)
    for (W, b), (V, c) in zip(read_dense(again).layers, back.layers, strict=True):
        np.testing.assert_array_equal(W, V)
        np.testing.assert_array_equal(b, c)
    assert code(simulate.__main__, "run", path, "--scheme", "symmetric", "--bits", 3, "--n", 20000) == 0
    capsys.readouterr()
    with pytest.raises(InputError, match="hidden_weights_1: expected the statistics of one layer, got a network of several"):
        read_statistics(path)
    assert code(theory.__main__, "predict", path, "--scheme", "symmetric", "--bits", 3, "--errors", "actual") == 2
    one_line(capsys, "errors: expected none with a network of several layers")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n: {"hidden": ()}, "hidden_weights_1: missing"),
        (lambda n: {"hidden": ((n.hidden[0][0].T, n.hidden[0][1]), *n.hidden[1:])}, "hidden_weights_1: expected shape"),
        (lambda n: {"hidden": ((n.hidden[0][0], n.hidden[0][1][1:]), *n.hidden[1:])}, "hidden_bias_1: expected shape"),
        (lambda n: {"hidden": ((np.nan * n.hidden[0][0], n.hidden[0][1]), *n.hidden[1:])}, "hidden_weights_1: expected finite"),
        (lambda n: {"weights": n.weights[:, 1:]}, "weights: expected shape"),
        (
            lambda n: {"inputs": replace(n.inputs, covariances=np.diag(np.arange(12.0)))},
            "covariances: expected positive definite",
        ),
    ],
)
def test_what_is_no_dense_network(change, message):
    network = network_of(0)
    with pytest.raises(InputError, match=message):
        replace(network, **change(network))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 8}, "width: expected none with depth 1"),
        ({"depth": 3}, "width: expected the units"),
        ({"depth": 65, "width": 8}, "depth: expected a whole number from 1 to 64"),
    ],
)
def test_depths_and_widths_there_are_none_of(options, message):
    with pytest.raises(InputError, match=message):
        simulate.synthetic(classes=3, features=4, separation=2.0, **options)


def test_trained_and_perturbed_networks_differ_as_said(seed):
    """Training lowers the risk, perturbing the last layer raises it."""
    risks = {
        layer: theory.predict(network_of(seed, layer=layer), scheme="symmetric", bits=[8], budget=SMALL)[0].risk_before
        for layer in ("optimal", "perturbed", "trained")
    }
    assert risks["trained"] < risks["optimal"] < risks["perturbed"]
