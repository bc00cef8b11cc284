"""All layers of networks in ONNX and Keras files: the compressed network by hand, random errors, what is refused."""

import numpy as np
import pytest

import simulate
import theory
from tests.support.cifar import coarse_pixels, normalized, write_cifar
from theory.setting.errors import InputError
from theory.setting.schemes import compress

pytest.importorskip("PIL")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter, and of Keras
K, n = 4, 120


@pytest.fixture
def data(tmp_path, seed):
    """A folder of images in CIFAR's layout, and the images normalized."""
    rng = np.random.default_rng(seed)
    pixels = coarse_pixels(n, rng)
    write_cifar(tmp_path / "data", pixels, rng.integers(0, K, n))
    return dict(data=tmp_path / "data", mean=[0.5], std=[0.25]), normalized(pixels)


@pytest.fixture
def onnx_file(tmp_path, seed):
    """A grouped convolution, a transposed one, a product, a Gemm and a softmax, exported; and the module."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from torch import nn

    torch.manual_seed(seed)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.grouped = nn.Conv2d(3, 8, 5, stride=4), nn.Conv2d(8, 6, 3, groups=2)
            self.up, self.product = nn.ConvTranspose2d(6, 4, 2, groups=2), nn.Parameter(torch.randn(4, 5))
            self.head = nn.Linear(5, K)

        def forward(self, x):
            x = self.up(torch.relu(self.grouped(torch.relu(self.first(x)))))
            return torch.softmax(10 * self.head(torch.relu(x.mean((2, 3)) @ self.product)), 1)

    model, file = Net().eval(), tmp_path / "net.onnx"
    with torch.no_grad():  # so that decisions differ between images
        x = torch.from_numpy(normalized(coarse_pixels(50, np.random.default_rng(seed))))
        model.head.bias -= model(x).clamp(min=1e-30).log().mean(0) / 10
    example = torch.zeros(2, 3, 32, 32)
    torch.onnx.export(model, (example,), str(file), dynamo=False, input_names=["image"], dynamic_axes={"image": {0: "n"}})
    return model, file


def test_the_network_of_an_onnx_file_is_that_of_pytorch(data, onnx_file):
    """Records of both doors are the same, every kind of weight compressed, a step a tensor and a channel."""
    import sys
    from types import ModuleType

    model, file = onnx_file
    options, _ = data
    module = ModuleType("exported_network")
    module.__dict__["model"] = model
    sys.modules["exported_network"] = module
    for own in ({}, {"per_channel": True}):
        question: dict = dict(scheme="symmetric", bits=[3], calibrate=20, **own)
        (held,) = simulate.run(network=str(file), **options, **question)
        (other,) = simulate.run(network="exported_network:model", **options, **question)
        assert held.plan is not None
        assert other.plan is not None
        assert len(held.plan) == len(other.plan) == 5
        assert held.rate == pytest.approx(other.rate)
        assert held.flip_rate == pytest.approx(other.flip_rate, abs=1.5 / 100)
        assert held.flip_rate > 0.02
    (blind,) = simulate.run(network=str(file), **options, **question, unlabelled=True, temperature=2.0)
    (seen,) = simulate.run(network="exported_network:model", **options, **question, unlabelled=True, temperature=2.0)
    assert blind.risk_after == pytest.approx(seen.risk_after, abs=0.01)
    for refused, message in (
        (dict(errors="expected"), "errors: expected 'actual' for an ONNX network"),
        (dict(activation_bits=8), "activation_bits: expected a PyTorch or Keras network, got net.onnx"),
        (dict(fold=True), "fold: expected a PyTorch network"),
        (dict(checkpoint="x.pt"), "checkpoint: expected none beside"),
    ):
        with pytest.raises(InputError, match=message):
            simulate.run(network=str(file), **options, **{**question, **refused})
    with pytest.raises(InputError, match="network: expected a PyTorch or Keras network to linearize"):
        simulate.linearize(network=str(file), **options)
    (again,) = simulate.run(network=str(file), **options, **question)
    assert again.flip_rate == held.flip_rate  # its weights are as they were


@pytest.fixture
def keras_file(tmp_path, seed, monkeypatch):
    """Convolution, depthwise and transposed ones, dense with a softmax; and the model without it."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    networks = pytest.importorskip("simulate.networks.keras_networks")
    keras.utils.set_random_seed(seed)
    L = keras.layers
    with networks.usual_jax():
        model = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                L.Conv2D(6, 5, strides=4, activation="relu"),
                L.BatchNormalization(),
                L.DepthwiseConv2D(3, depth_multiplier=2, activation="relu"),
                L.Conv2DTranspose(5, 2, activation="relu"),
                L.GlobalAveragePooling2D(),
                L.Dense(K, activation="softmax"),
            ]
        )
        end = model.layers[-1]
        end.kernel.assign(40 * np.asarray(end.kernel.value))
        x = normalized(coarse_pixels(50, np.random.default_rng(seed))).transpose(0, 2, 3, 1)
        end.bias.assign(-np.log(np.maximum(np.asarray(model(x, training=False)), 1e-30)).mean(0))  # decisions differ
    file = tmp_path / "net.keras"
    model.save(file)
    return keras, model, file, networks.usual_jax


def by_hand(model, usual_jax, x, bits=None, inputs=None, **options):
    """Decisions with the kernels compressed: rows of output channels, those of a depthwise kernel all pairs."""
    kernels = [layer for layer in model.layers if getattr(layer, "kernel", None) is not None]
    kept = [np.asarray(layer.kernel.value) for layer in kernels]
    with usual_jax():
        for layer, kernel in zip(kernels, kept, strict=True):
            if bits is None:
                continue
            if "depthwise" in layer.name:
                rows = kernel.reshape(9, 12).T
                new = compress(rows.astype(float), "symmetric", bits, **options).weights.T.reshape(kernel.shape)
            else:
                axis = -2 if "transpose" in layer.name else -1
                rows = np.moveaxis(kernel, axis, 0)
                new = compress(rows.reshape(len(rows), -1).astype(float), "symmetric", bits, **options).weights
                new = np.moveaxis(new.reshape(rows.shape), 0, axis)
            layer.kernel.assign(new.astype(np.float32))
        decisions = np.asarray(model(x.transpose(0, 2, 3, 1), training=False)).argmax(1)
        for layer, kernel in zip(kernels, kept, strict=True):
            layer.kernel.assign(kernel)
    return decisions


@pytest.mark.parametrize("options", [{}, {"per_channel": True}])
def test_the_network_of_a_keras_file_is_the_one_compressed_by_hand(data, keras_file, options):
    _, model, file, usual_jax = keras_file
    given, x = data
    (record,) = simulate.run(network=str(file), **given, scheme="symmetric", bits=[2], calibrate=20, **options)
    before, after = by_hand(model, usual_jax, x[:100]), by_hand(model, usual_jax, x[:100], 2, **options)
    assert record.flip_rate == pytest.approx(np.mean(before != after), abs=1.5 / 100)
    assert record.flip_rate > 0.02
    assert record.plan is not None
    kernels = [layer.kernel.path for layer in model.layers if getattr(layer, "kernel", None) is not None]
    assert all(own.endswith(path) or path.endswith(own) for own, path in zip(record.plan, kernels, strict=True))


def test_the_noise_file_of_keras_is_that_of_its_gradients(data, keras_file, seed):
    """Grams of a kernel and of an input against finite differences of the logits, draws against Grams; its prediction against
    networks drawn."""
    _, model, file, usual_jax = keras_file
    given, x = data
    noise = simulate.linearize(network=str(file), **given, calibrate=20, limit=40, draws=64, seed=seed)
    assert noise.tensors.kinds == ("weight",) * 4 + ("input",) * 4
    W = np.asarray(model.layers[-1].kernel.value)
    images = x[:40].transpose(0, 2, 3, 1)

    def logits(values):
        with usual_jax():
            return np.log(np.asarray(model(values, training=False), np.float64))

    centring = np.eye(K) - 1 / K  # the softmax forgets what is common to all
    np.testing.assert_allclose((noise.logits - logits(images)) @ centring, 0, atol=1e-3)
    own = noise.tensors.names.index(next(name for name in noise.tensors.names if "dense" in name))
    top = noise.grams[""][own].max()
    diagonal = np.diagonal(noise.grams[""][own], axis1=1, axis2=2)
    np.testing.assert_allclose(noise.grams[""][own], diagonal[:, :1, None] * np.eye(K), atol=1e-4 * top)
    entering = [t for t, name in enumerate(noise.tensors.names) if "dense" in name][1]
    np.testing.assert_allclose(noise.grams[""][entering], np.broadcast_to(W.T @ W, (40, K, K)), rtol=1e-3, atol=1e-3)
    kernel, rng = model.layers[0].kernel, np.random.default_rng(seed)
    kept, J = np.asarray(kernel.value), []
    for _ in range(40):
        direction = rng.standard_normal(kept.shape).astype(np.float32)
        sides = []
        for sign in (1, -1):
            with usual_jax():
                kernel.assign(kept + sign * 3e-4 * direction)
            sides.append(logits(images) @ centring)
        J.append((sides[0] - sides[1]) / 6e-4)
    with usual_jax():
        kernel.assign(kept)
    seen = np.mean(np.square(J), 0).sum(1)  # of random directions, the trace of the Gram
    want = np.trace(centring @ noise.grams[""][0] @ centring, axis1=1, axis2=2)
    assert seen.mean() == pytest.approx(want.mean(), rel=0.25)
    variance = np.trace(noise.grams[""][:4], axis1=2, axis2=3).mean(1)
    shifts = np.square(noise.draws[""][:, :4].astype(float)).mean(0).sum(2).mean(1)
    np.testing.assert_allclose(shifts, variance, rtol=0.6)
    question: dict = dict(scheme="symmetric", bits=[3])
    (said,) = theory.predict(noise, temperature=1.0, **question)
    (drawn,) = simulate.run(network=str(file), **given, calibrate=20, limit=40, errors="expected", networks=100, **question)
    assert drawn.flip_rate_standard_error is not None
    assert drawn.flip_rate > 0.01
    assert abs(said.flip_rate - drawn.flip_rate) < 4.5 * drawn.flip_rate_standard_error + 0.15 * drawn.flip_rate


def test_random_signs_of_keras_have_the_mean_of_networks_drawn(data, keras_file, seed):
    _, _, file, _ = keras_file
    given, _ = data
    question: dict = dict(scheme="symmetric", bits=[3], errors="expected", calibrate=20, seed=seed, network=str(file))
    (drawn,) = simulate.run(**given, **question, networks=100)
    (signs,) = simulate.run(**given, **question, standard_error=0.004)
    assert (drawn.method, signs.method) == ("networks_drawn", "random_signs")
    for name, error in (("distortion", "standard_error"), ("flip_rate", "flip_rate_standard_error")):
        gap = getattr(drawn, name) - getattr(signs, name)
        assert abs(gap) < 4.5 * np.hypot(getattr(drawn, error), getattr(signs, error))
    assert drawn.flip_rate > 0.02


def test_inputs_of_keras_layers_are_rounded(data, keras_file):
    """At 16 bits nothing changes, at 2 much; folding and recalibrating are refused."""
    _, _, file, _ = keras_file
    given, _ = data
    question: dict = dict(scheme="symmetric", bits=[12], calibrate=20, network=str(file))
    (fine,) = simulate.run(**given, **question, activation_bits=16)
    (coarse,) = simulate.run(**given, **question, activation_bits=2)
    assert fine.flip_rate <= 0.02 < coarse.flip_rate
    for option in ("fold", "recalibrate"):
        refused: dict = {option: True}
        with pytest.raises(InputError, match=f"{option}: expected a PyTorch network, got net.keras"):
            simulate.run(**given, **question, **refused)
