"""Real networks: images, checkpoints, training, extraction; what is refused, in one line."""

import io
import pickle
import tarfile

import numpy as np
import pytest

from theory.setting.errors import InputError
from theory.setting.files import read_features

torch = pytest.importorskip("torch")

from simulate.networks import training  # noqa: E402
from simulate.networks.cifar_resnet import CifarResNet, build, load  # noqa: E402
from simulate.networks.extract import extract  # noqa: E402
from simulate.networks.images import LAYOUTS, PIXELS, read_cifar  # noqa: E402
from simulate.networks.training import train  # noqa: E402

FILES, FOLDER, ARCHIVE, RECORD = LAYOUTS[0].files, LAYOUTS[0].folder, LAYOUTS[0].archive, 1 + PIXELS


@pytest.fixture
def fake_cifar(tmp_path):
    """Tiny files in CIFAR-10's layout: 64 images each, the class in the brightness."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar" / FOLDER
    folder.mkdir(parents=True)
    for name in FILES["train"] + FILES["test"]:
        records = rng.integers(0, 60, (64, RECORD), np.uint8)
        records[:, 0] = rng.integers(0, 10, 64)
        records[:, 1:] += records[:, :1] * 18
        (folder / name).write_bytes(records.tobytes())
    return tmp_path / "cifar"


def test_images_are_read_in_order_from_folder_and_archive(fake_cifar, tmp_path):
    images = read_cifar(fake_cifar)
    raw = np.frombuffer((fake_cifar / FOLDER / "test_batch.bin").read_bytes(), np.uint8).reshape(64, RECORD)
    np.testing.assert_array_equal(images.labels, raw[:, 0])
    assert images.pixels[3, 1, 2, 5] == raw[3, 1 + 1024 + 2 * 32 + 5]  # green plane, row 2, column 5
    archive = tmp_path / ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(fake_cifar / FOLDER, FOLDER)
    for place in (archive, tmp_path, fake_cifar / FOLDER):
        np.testing.assert_array_equal(read_cifar(place).pixels, images.pixels)
    assert len(read_cifar(fake_cifar, split="train", limit=70).labels) == 70
    assert len(read_cifar(fake_cifar, split="train").labels) == 320


def test_bad_image_files_are_named(fake_cifar, tmp_path):
    path = fake_cifar / FOLDER / "test_batch.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"test_batch\.bin.*truncated"):
        read_cifar(fake_cifar)
    path.write_bytes(b"\x0b" + whole[1:])
    with pytest.raises(InputError, match=r"labels.*11 in record 0"):
        read_cifar(fake_cifar)
    (fake_cifar / FOLDER / "data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"missing data_batch_3\.bin"):
        read_cifar(fake_cifar, split="train")
    with pytest.raises(InputError, match="found none"):
        read_cifar(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty.*got an empty folder"):
        extract(network="resnet20", data=tmp_path / "empty")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / ARCHIVE).write_bytes(b"\x1f\x8bnot really")
    with pytest.raises(InputError, match="cannot read it"):
        read_cifar(tmp_path / "bad")
    with pytest.raises(InputError, match="split"):
        read_cifar(fake_cifar, split="all")


class Bomb:
    def __reduce__(self):
        return print, ("this pickle ran code",)


def test_bad_checkpoints_are_named(tmp_path, capsys):
    path = tmp_path / "c.pt"
    torch.save({"state_dict": build("resnet32").state_dict()}, path)
    with pytest.raises(InputError, match="depth 32"):
        load("resnet20", path)
    torch.save({"encoder.weight": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="no key matches"):
        load("resnet20", path)
    state = build("resnet20").state_dict()
    torch.save({key: value for key, value in state.items() if key != "linear.bias"}, path)
    with pytest.raises(InputError, match=r"linear\.bias.*missing"):
        load("resnet20", path)
    torch.save({**state, "linear.weight": torch.zeros(100, 64)}, path)
    with pytest.raises(InputError, match=r"linear\.weight.*\(10, 64\).*\(100, 64\)"):
        load("resnet20", path)
    torch.save({**state, "linear.bias": torch.full((10,), torch.nan)}, path)
    with pytest.raises(InputError, match=r"linear\.bias.*NaN"):
        load("resnet20", path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"not readable|is not loaded"):
        load("resnet20", path)
    buffer = io.BytesIO()
    torch.save({"state_dict": Bomb()}, buffer, pickle_module=pickle)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="is not loaded"):
        load("resnet20", path)
    assert "ran code" not in capsys.readouterr().out
    with pytest.raises(InputError, match="found nothing"):
        load("resnet20", tmp_path / "absent.pt")
    with pytest.raises(InputError, match="resnet110"):
        build("resnet18")


def test_wrapped_and_prefixed_checkpoints_load(tmp_path):
    torch.manual_seed(0)
    state = build("resnet20").state_dict()
    for content in (state, {"state_dict": state}, {"model": {f"module.{key}": value for key, value in state.items()}}):
        torch.save(content, tmp_path / "c.pt")
        model, _ = load("resnet20", tmp_path / "c.pt")
        assert not model.training
        torch.testing.assert_close(model.linear.weight, state["linear.weight"])


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_depths_and_parameters(depth):
    """Convolutions and the linear layer: 6n + 1 + 1 layers; parameter counts of He et al., table 6 (0.27 to 1.7 million)."""
    model = build(f"resnet{depth}")
    assert len([m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]) == depth
    millions = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}[depth]
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.025)


def test_a_depth_that_no_such_network_has():
    with pytest.raises(InputError, match="depth: expected 6 n"):
        CifarResNet(23)


def test_training_goes_on_where_it_stopped(fake_cifar, tmp_path, monkeypatch, capsys):
    arguments = {"network": "resnet20", "data": fake_cifar, "epochs": 2, "seed": 3}
    whole = train(out=tmp_path / "whole.pt", **arguments)
    real = training._epoch

    def interrupted(*args):
        if args[3] == 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(out=tmp_path / "parts.pt", **arguments)
    monkeypatch.setattr(training, "_epoch", real)
    parts = train(out=tmp_path / "parts.pt", **arguments)
    assert "going on after 1 of 2 epochs" in capsys.readouterr().err
    assert parts["test_error"] == whole["test_error"]
    one, other = (torch.load(tmp_path / name, weights_only=True)["state_dict"] for name in ("whole.pt", "parts.pt"))
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-6)
    train(out=tmp_path / "parts.pt", **arguments)
    assert "already trained" in capsys.readouterr().err
    with pytest.raises(InputError, match="epochs 3, got 2"):
        train(out=tmp_path / "parts.pt", **{**arguments, "epochs": 3})
    assert not list(tmp_path.glob("*.partial"))


def test_extraction_is_the_networks_own(fake_cifar, tmp_path, capsys):
    torch.manual_seed(1)
    torch.save({"state_dict": build("resnet20").state_dict(), "best_prec1": 90.0}, tmp_path / "c.pt")
    features = extract(network="resnet20", checkpoint=tmp_path / "c.pt", data=fake_cifar, out=tmp_path / "f.npz", limit=50)
    again = read_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(again.features, features.features)
    assert again.features.shape == (50, 64)
    assert again.features.min() >= 0
    assert again.logits is not None
    np.testing.assert_allclose(again.features @ again.weights.T + again.bias, again.logits, atol=1e-4)
    said = capsys.readouterr().err
    assert "the checkpoint says 90.00%" in said
    assert "warning" in said
    with pytest.raises(InputError, match="expected_accuracy"):
        extract(
            network="resnet20", checkpoint=tmp_path / "c.pt", data=fake_cifar, out=tmp_path / "g.npz", expected_accuracy=0.9
        )
    assert not (tmp_path / "g.npz").exists()


@pytest.mark.data
@pytest.mark.parametrize(
    ("network", "file", "error"),
    [
        pytest.param("resnet20", "resnet20-12fca82f.th", 0.0827, marks=pytest.mark.slow),
        pytest.param("resnet44", "resnet44-014dd654.th", 0.0690, marks=pytest.mark.slow),
    ],
)
def test_published_errors(network, file, error, resnet_dir, cifar10_dir):
    features = extract(network=network, checkpoint=resnet_dir / file, data=cifar10_dir)
    wrong = np.argmax(features.features.astype(np.float64) @ features.weights.T + features.bias, 1) != features.labels
    assert wrong.mean() == pytest.approx(error, abs=2e-4)
    assert len(features.labels) == 10_000


@pytest.mark.data
def test_a_wrong_normalization_is_caught(resnet_dir, cifar10_dir):
    """The negative control of the check on accuracy: another mean and deviation costs more than a point."""
    with pytest.raises(InputError, match="preprocessing"):
        extract(
            network="resnet20",
            checkpoint=resnet_dir / "resnet20-12fca82f.th",
            data=cifar10_dir,
            limit=2000,
            std=(0.5, 0.5, 0.5),
            expected_accuracy=0.9173,
        )


@pytest.mark.data
def test_labels_in_another_order_are_near_chance_and_named(resnet_dir, cifar10_dir, tmp_path, capsys):
    """Every label moved to the next class; with the labels as they are, no warning."""
    question: dict = dict(network="resnet20", checkpoint=resnet_dir / "resnet20-12fca82f.th", limit=300)
    extract(data=cifar10_dir, **question)
    assert "near chance" not in capsys.readouterr().err
    images = read_cifar(cifar10_dir, limit=300)
    folder = tmp_path / FOLDER
    folder.mkdir()
    labels = ((images.labels + 1) % 10).astype(np.uint8)
    records = np.concatenate([labels[:, None], images.pixels[0:300].reshape(300, -1)], 1)
    (folder / FILES["test"][0]).write_bytes(records.tobytes())
    extract(data=tmp_path, **question)
    said = capsys.readouterr().err
    assert "near chance" in said
    assert "order" in said
