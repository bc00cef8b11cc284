"""Any network: the head found by running through PyTorch, ONNX and Keras; what is refused, in one line."""

import sys
from types import ModuleType

import numpy as np
import pytest

from simulate.networks.network import Linear, disagreement, find_head
from theory.setting.errors import InputError
from theory.setting.files import read_features

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from simulate.networks.extract import extract  # noqa: E402
from simulate.networks.folders import Shaping, read_folder  # noqa: E402
from simulate.networks.torch_networks import open_torch  # noqa: E402
from tests.support.photos import write_photos  # noqa: E402

K, d = 5, 8


class Body(nn.Module):
    """Features, then a head of any kind."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, d, 3, 2), head

    def forward(self, x):
        return self.head(F.relu(self.convolution(x)).mean((2, 3)))


class Head(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.linear, self.after = nn.Linear(d, K), after

    def forward(self, z):
        return self.after(self.linear(z))


class Pointwise(nn.Module):
    """A 1x1 convolution, then the mean over positions."""

    def __init__(self, between):
        super().__init__()
        self.convolution, self.head, self.between = nn.Conv2d(3, d, 3, 2), nn.Conv2d(d, K, 1), between

    def forward(self, x):
        return self.between(self.head(F.relu(self.convolution(x)))).mean((2, 3))


class Tied(nn.Module):
    """A head without a module of its own: an embedding, transposed."""

    def __init__(self):
        super().__init__()
        self.embedding, self.bias = nn.Embedding(K, d), nn.Parameter(torch.randn(K))

    def forward(self, z):
        return z @ self.embedding.weight.T + self.bias


class OneLogit(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(d, 1)

    def forward(self, z):
        return torch.sigmoid(self.linear(z)).squeeze(1)


NETS = {
    "plain": lambda: Body(nn.Linear(d, K)),
    "log_softmax": lambda: Body(Head(lambda a: F.log_softmax(a, 1))),
    "softmax": lambda: Body(Head(lambda a: a.softmax(1))),
    "reshape": lambda: Body(Head(lambda a: {"features": a, "logits": a.reshape(-1, K, 1).squeeze(-1)})),
    "pointwise": lambda: Pointwise(lambda a: a),
    "tied": lambda: Body(Tied()),
    "one_logit": lambda: Body(OneLogit()),
    "relu": lambda: Pointwise(F.relu),
    "scaled": lambda: Body(Head(lambda a: 3 * a)),
    "no_module": lambda: 3,
}
KINDS = {"log_softmax": "log-softmax", "softmax": "softmax", "one_logit": "sigmoid"}


@pytest.fixture
def images(seed):
    return np.random.default_rng(seed).standard_normal((16, 3, 16, 16)).astype(np.float32)


@pytest.fixture
def nets(monkeypatch):
    """A module of factories, as a user would have."""
    module = ModuleType("nets_of_a_user")

    def seeded(make):
        def made():
            torch.manual_seed(0)
            return make()

        return made

    for name, make in NETS.items():
        setattr(module, name, seeded(make))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def assert_same_head(opened, model, images):
    """Features and head give the network's own output on other images, and the decisions are its."""
    z, output = opened.run(images[:9])
    head = opened.head
    logits = z.astype(float) @ head.weights.T.astype(float) + head.bias
    assert disagreement(logits, output, head.kind) <= 1
    own = model(torch.from_numpy(images[:9]))
    own = own["logits"] if isinstance(own, dict) else own
    np.testing.assert_allclose(output.reshape(own.shape), own.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", ["plain", "log_softmax", "softmax", "reshape", "pointwise", "tied", "one_logit", "scaled"])
def test_head_of_a_pytorch_network_is_found_by_running(name, nets, images):
    opened, model = open_torch(f"nets_of_a_user:{name}", None, lambda channels: images), getattr(nets, name)().eval()
    assert opened.head.kind == KINDS.get(name, "logits")
    assert opened.head.weights.shape == ((1, d) if name == "one_logit" else (K, d))
    assert_same_head(opened, model, images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relu", "linear layer whose output is the network's"),
        ("no_module", r"torch\.nn\.Module, got int"),
        ("absent", "found none"),
    ],
)
def test_heads_that_are_none_are_refused(name, message, nets, images):
    with pytest.raises(InputError, match=message):
        open_torch(f"nets_of_a_user:{name}", None, lambda channels: images)
    with pytest.raises(InputError, match="importable module"):
        open_torch("no_such_module_anywhere:net", None, lambda channels: images)
    with pytest.raises(InputError, match="module:factory"):
        open_torch("something", None, lambda channels: images)
    with pytest.raises(InputError, match="takes images"):
        open_torch("nets_of_a_user:plain", None, lambda channels: images[:, :2])


def test_a_wrong_layer_is_not_taken_for_the_head(seed):
    """Of two layers of one shape the last that gives the output; a constant added to all logits is a bias; noise is not."""
    rng = np.random.default_rng(seed)
    z, weights = rng.standard_normal((30, 6)), rng.standard_normal((4, 6))
    one, other = Linear(z, weights), Linear(rng.standard_normal((30, 6)), weights)
    head = find_head([other, one, other], z @ weights.T + 3.0, "x")
    assert head.place == 1
    np.testing.assert_allclose(head.bias, 3.0)
    with pytest.raises(InputError, match="linear layer"):
        find_head([one], z @ weights.T + 0.1 * rng.standard_normal((30, 4)), "x")
    with pytest.raises(InputError, match="finite"):
        find_head([one], np.full((30, 4), np.nan), "x")


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_checkpoints_of_any_network(wrap, nets, images, tmp_path):
    torch.manual_seed(5)
    other = NETS["plain"]()
    assert isinstance(other, nn.Module)
    torch.save(wrap(other.state_dict()), tmp_path / "c.pt")
    assert_same_head(open_torch("nets_of_a_user:plain", tmp_path / "c.pt", lambda channels: images), other.eval(), images)
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(other.state_dict(), str(tmp_path / "c.safetensors"))
    assert_same_head(open_torch("nets_of_a_user:plain", tmp_path / "c.safetensors", lambda channels: images), other, images)
    with pytest.raises(InputError, match="no key matches"):
        open_torch("nets_of_a_user:one_logit", _saved(tmp_path, {"a": torch.zeros(1)}), lambda channels: images)
    with pytest.raises(InputError, match=r"head\.weight.*\(1, 8\)|head"):
        open_torch("nets_of_a_user:one_logit", tmp_path / "c.pt", lambda channels: images)
    with pytest.raises(InputError, match="NaN"):
        open_torch(
            "nets_of_a_user:plain",
            _saved(tmp_path, {k: v * torch.nan for k, v in other.state_dict().items()}),
            lambda channels: images,
        )
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot read it"):
        open_torch("nets_of_a_user:plain", tmp_path / "bad.safetensors", lambda channels: images)


def _saved(folder, state):
    torch.save(state, folder / "other.pt")
    return folder / "other.pt"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["plain", "log_softmax", "softmax", "pointwise", "tied", "one_logit"])
def test_head_of_an_onnx_file(name, images, tmp_path):
    """Exported with a free and with a fixed number of images; a Gemm and a MatMul, transposed or not."""
    pytest.importorskip("onnx")
    onnx_networks = pytest.importorskip("simulate.networks.onnx_networks")
    torch.manual_seed(0)
    model = NETS[name]().eval()
    free = {"image": {0: "n"}} if name != "plain" else None
    file = tmp_path / "net.onnx"
    torch.onnx.export(model, (torch.from_numpy(images),), str(file), dynamo=False, input_names=["image"], dynamic_axes=free)
    opened = onnx_networks.open_onnx(file, lambda channels: images)
    assert opened.head.kind == KINDS.get(name, "logits")
    assert_same_head(opened, model, images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("trans_a", "trans_b", "alpha", "kind"),
    [(0, 0, 1.0, "float32"), (0, 1, 0.5, "float32"), (1, 0, 2.0, "float64"), (1, 1, 1.0, "float32"), (0, 1, 0.5, "float16")],
)
def test_every_orientation_of_a_gemm(trans_a, trans_b, alpha, kind, images, tmp_path, seed):
    """alpha A B + C with either factor transposed, written by hand; the head keeps the number format of the file."""
    onnx = pytest.importorskip("onnx")
    onnx_networks = pytest.importorskip("simulate.networks.onnx_networks")
    make, pixels = onnx.helper, int(np.prod(images.shape[1:]))
    rng = np.random.default_rng(seed)
    W, b = rng.standard_normal((K, pixels)).astype(kind), rng.standard_normal(K).astype(kind)
    flat = ["flat", "turned"] if trans_a else ["flat", "flat"]
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    nodes = [make.make_node("Cast", ["image"], ["cast"], to=element), make.make_node("Flatten", ["cast"], ["flat"], axis=1)]
    nodes += [make.make_node("Transpose", ["flat"], ["turned"], perm=[1, 0])] * trans_a
    nodes += [make.make_node("Gemm", [flat[1], "W", "b"], ["logits"], transA=trans_a, transB=trans_b, alpha=alpha)]
    graph = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", *images.shape[1:]])],
        [make.make_tensor_value_info("logits", element, ["n", K])],
        [onnx.numpy_helper.from_array(x, name) for x, name in ((W if trans_b else W.T.copy(), "W"), (b, "b"))],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    opened = onnx_networks.open_onnx(tmp_path / "net.onnx", lambda channels: images)
    z, output = opened.run(images[:9])
    assert opened.source_bits == 8 * np.dtype(kind).itemsize
    rough = 300 if kind == "float16" else 1  # its rounding over that of the others
    np.testing.assert_allclose(z, images[:9].reshape(9, -1), atol=1e-6, rtol=1e-3 if rough > 1 else 1e-7)
    np.testing.assert_allclose(opened.head.weights, alpha * W, rtol=1e-6)
    np.testing.assert_allclose(opened.head.bias, b, atol=2e-4 * rough)
    np.testing.assert_allclose(output, alpha * z @ W.T + b, atol=2e-3 * rough)


@pytest.mark.parametrize("d", [32, 48])
def test_a_weight_made_in_the_graph_is_no_batch(d, images, tmp_path, seed):
    """A file exported for batches of 48, whose weight is transposed in the graph: it has 48 rows too, and is one all the same.
    Constants that do not fit are refused, and the old ones are back."""
    onnx = pytest.importorskip("onnx")
    onnx_networks = pytest.importorskip("simulate.networks.onnx_networks")
    make, rng = onnx.helper, np.random.default_rng(seed)
    W = rng.standard_normal((K, d)).astype(np.float32)
    before = rng.standard_normal((images[0].size, d)).astype(np.float32) / 10
    graph = make.make_graph(
        [
            make.make_node("Flatten", ["image"], ["flat"], axis=1),
            make.make_node("MatMul", ["flat", "before"], ["features"]),
            make.make_node("Transpose", ["W"], ["turned"], perm=[1, 0]),
            make.make_node("MatMul", ["features", "turned"], ["logits"]),
        ],
        "net",
        [make.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [48, *images.shape[1:]])],
        [make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [48, K])],
        [onnx.numpy_helper.from_array(x, name) for x, name in ((W, "W"), (before, "before"))],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    opened = onnx_networks.open_onnx(tmp_path / "net.onnx", lambda channels: images)
    np.testing.assert_array_equal(opened.head.weights, W)
    z, output = opened.run(np.concatenate(4 * [images])[:53])
    assert len(z) == len(output) == 53
    np.testing.assert_allclose(output, z @ W.T, atol=1e-4)
    read = onnx_networks.Graph(tmp_path / "net.onnx", lambda channels: images)
    for wrong, match in (({"W": W[:, 1:]}, "that runs"), ({"W": 0 * W, "V": W}, "names of constants, got V")):
        with pytest.raises(InputError, match=match), read.with_initializers(wrong):
            pass
        np.testing.assert_allclose(read.values(images[:9])["logits"], output[:9], atol=1e-6)
    with read.with_initializers({"W": 2 * W}):
        np.testing.assert_allclose(read.values(images[:9])["logits"], 2 * output[:9], atol=1e-5)
        np.testing.assert_array_equal(read.values(images[:9])["W"], 2 * W)


@pytest.mark.filterwarnings("ignore")
def test_onnx_files_that_cannot_serve(images, tmp_path):
    pytest.importorskip("onnx")
    onnx_networks = pytest.importorskip("simulate.networks.onnx_networks")
    with pytest.raises(InputError, match="found nothing"):
        onnx_networks.open_onnx(tmp_path / "none.onnx", lambda channels: images)
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot read it"):
        onnx_networks.open_onnx(tmp_path / "bad.onnx", lambda channels: images)
    file = tmp_path / "relu.onnx"
    torch.onnx.export(NETS["relu"]().eval(), (torch.from_numpy(images),), str(file), dynamo=False)
    with pytest.raises(InputError, match="linear layer"):
        onnx_networks.open_onnx(file, lambda channels: images)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_heads_of_keras_files(suffix, images, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras_networks = pytest.importorskip("simulate.networks.keras_networks")
    L = keras.layers

    def body():
        return [keras.Input((16, 16, 3)), L.Conv2D(d, 3, strides=2, activation="relu")]

    inputs = keras.Input((16, 16, 3))
    inner = keras.Sequential([*body(), L.GlobalAveragePooling2D()])
    models = {
        "logits": keras.Sequential([*body(), L.GlobalAveragePooling2D(), L.Dense(K)]),
        "softmax": keras.Sequential([*body(), L.Flatten(), L.Dense(K, activation="softmax")]),
        "softmax ": keras.Model(inputs, L.Softmax()(L.Dense(K)(L.Dropout(0.5)(inner(inputs))))),
        "logits ": keras.Sequential([*body(), L.Conv2D(K, 1), L.GlobalAveragePooling2D()]),
        "sigmoid": keras.Sequential([*body(), L.Flatten(), L.Dense(1, activation="sigmoid")]),
    }
    for name, model in models.items():
        file = tmp_path / f"net.{suffix}"
        model.save(file)
        opened = keras_networks.open_keras(file, lambda channels: images)
        assert opened.head.kind == name.strip()
        z, output = opened.run(images[:9])
        assert disagreement(z @ opened.head.weights.T + opened.head.bias, output, opened.head.kind) <= 1
        with keras_networks.usual_jax():
            own = model(images[:9].transpose(0, 2, 3, 1))
        np.testing.assert_allclose(output, np.asarray(own), atol=1e-6)
    keras.Sequential([*body(), L.Flatten(), L.Dense(K, activation="relu")]).save(tmp_path / f"relu.{suffix}")
    with pytest.raises(InputError, match="linear layer"):
        keras_networks.open_keras(tmp_path / f"relu.{suffix}", lambda channels: images)
    (tmp_path / f"bad.{suffix}").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot read it"):
        keras_networks.open_keras(tmp_path / f"bad.{suffix}", lambda channels: images)


@pytest.mark.filterwarnings("ignore")
def test_keras_layers_inside_others_and_kernels_of_four_axes(images, tmp_path, monkeypatch):
    """A body in mixed precision nested in the model: its rounding is allowed for. An einsum of four axes is no convolution."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    keras_networks = pytest.importorskip("simulate.networks.keras_networks")
    L, inputs = keras.layers, keras.Input((16, 16, 3))
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        body = keras.Sequential([keras.Input((16, 16, 3)), L.Conv2D(d, 3, 2, activation="relu"), L.GlobalAveragePooling2D()])
        inner = keras.Sequential([keras.Input((d,)), L.Dense(K)])
        keras.Model(inputs, inner(body(inputs))).save(tmp_path / "mixed.keras")
    finally:
        keras.config.set_dtype_policy(policy)
    opened = keras_networks.open_keras(tmp_path / "mixed.keras", lambda channels: images)
    assert opened.precision == 2.0**-7
    x = L.EinsumDense("abc,bcde->ade", (2, 4))(L.Reshape((-1, 4))(L.Conv2D(d, 3, 2, activation="relu")(inputs)))
    keras.Model(inputs, L.Dense(K)(L.Flatten()(x))).save(tmp_path / "einsum.keras")
    opened = keras_networks.open_keras(tmp_path / "einsum.keras", lambda channels: images)
    assert opened.head.weights.shape == (K, 8)


@pytest.fixture
def photos(tmp_path, seed):
    return write_photos(tmp_path, seed)


def test_extract_any_network_from_a_folder(nets, photos, tmp_path, capsys):
    """Normalization as asked for, classes of the index, the file read back; labels of other classes refused."""
    options: dict = dict(network="nets_of_a_user:softmax", data=photos, crop=32, mean=[0.5], std=[0.25, 0.5, 1.0])
    result = extract(out=tmp_path / "f.npz", **options)
    assert "near chance" in capsys.readouterr().err or result.provenance["accuracy"] >= 2 / K
    model = nets.softmax().eval()
    pixels = read_folder(photos, shaping=Shaping(crop=32)).pixels[0:6].astype(np.float32) / 255
    x = (pixels - 0.5) / np.array([0.25, 0.5, 1.0], np.float32)[:, None, None]
    own = model(torch.from_numpy(x.astype(np.float32))).detach().numpy()
    logits = result.logits
    assert logits is not None
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, own, atol=1e-5)
    read = read_features(tmp_path / "f.npz")
    np.testing.assert_array_equal(read.labels, result.labels)
    assert read.provenance["std"] == [0.25, 0.5, 1.0]
    capsys.readouterr()
    part = extract(limit=2, **options)
    assert set(part.labels) == {0}
    assert "no image of 4 of the 5 classes: --limit" in capsys.readouterr().err
    with pytest.raises(InputError, match="at least two images"):
        extract(limit=1, **options)
    with pytest.raises(InputError, match="existing folder"):
        extract(out=tmp_path / "nowhere" / "f.npz", **options)
    with pytest.raises(InputError, match="give --labels"):
        extract(**{**options, "data": photos / "val" / "n001", "crop": None})
    (photos / "labels.txt").write_text("n001_0.png 1\nn002_0.png 1\n")
    extract(labels=photos / "labels.txt", **options)
    assert "2 of the 6 images" in capsys.readouterr().err
    (photos / "labels.txt").write_text("n001_0.png 5\nn002_0.png 1\n")
    with pytest.raises(InputError, match="expected 0 to 4"):
        extract(labels=photos / "labels.txt", **options)
    with pytest.raises(InputError, match="std: expected positive"):
        extract(**{**options, "std": [0.0]})
    with pytest.raises(InputError, match="mean: expected one finite number or three"):
        extract(**{**options, "mean": [0.0, 1.0]})
    with pytest.raises(InputError, match="interpolation"):
        extract(interpolation="cubic", **options)
