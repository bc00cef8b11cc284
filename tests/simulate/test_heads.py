"""Heads as trained networks have them: biases of every size, scales, softmax and sigmoids behind, several outputs, other number
formats; through PyTorch, Keras and ONNX."""

import argparse
import sys
import warnings
import zipfile
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from simulate.networks.network import Linear, disagreement, find_head, pick_output
from theory.setting.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from simulate.networks.checkpoints import load_state, read_state  # noqa: E402
from simulate.networks.torch_networks import open_torch  # noqa: E402

K, d = 6, 9
BEHIND = {
    "logits": lambda a: a,
    "log-softmax": lambda a: F.log_softmax(a, 1),
    "softmax": lambda a: a.softmax(1),
    "sigmoid": torch.sigmoid,
}


def reference(product, bias, kind):
    """What a network of that kind gives."""
    return BEHIND[kind](torch.from_numpy(product + bias)).numpy()


@pytest.mark.parametrize("kind", list(BEHIND))
@pytest.mark.parametrize("size", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("scale", [1.0, 0.1, 7.0])
def test_bias_and_scale_are_read_off_the_output(kind, size, scale, seed):
    """The bias is not held by the operation: row and class effects are told apart whatever the bias is."""
    rng = np.random.default_rng(seed)
    z, W = rng.standard_normal((32, d)), 0.4 * rng.standard_normal((K, d))
    bias = size * rng.standard_normal(K)
    output = reference(scale * (z @ W.T), bias, kind).astype(np.float32)
    head = find_head([Linear(z, W)], output, "net")
    assert head.kind == kind
    other = rng.standard_normal((500, d))
    logits, want = other @ head.weights.T + head.bias, scale * (other @ W.T) + bias
    assert disagreement(logits, reference(scale * (other @ W.T), bias, kind), kind) <= 1
    np.testing.assert_array_equal(logits.argmax(1), want.argmax(1))
    free = kind in ("log-softmax", "softmax")  # up to one number common to all classes
    np.testing.assert_allclose(head.bias - free * head.bias.mean(), bias - free * bias.mean(), atol=2e-3 * max(1, size))


def test_a_held_bias_is_taken_as_it_is(seed):
    rng = np.random.default_rng(seed)
    z, W, bias = rng.standard_normal((32, d)), rng.standard_normal((K, d)), np.full(K, 0.1)
    head = find_head([Linear(z, W, bias)], (z @ W.T + bias).astype(np.float32), "net")
    np.testing.assert_array_equal(head.bias, bias)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda z, a: a * np.linspace(0.5, 2, K) + 1, "class by class, as by a batch norm"),
        (lambda z, a: 9 * a / np.linalg.norm(z, axis=1, keepdims=True), "cosines"),
        (lambda z, a: np.maximum(a, 0), "from another operation"),
        (lambda z, a: -a, "whose sign is turned"),
    ],
)
def test_what_it_is_that_is_no_head(wrong, says, seed):
    rng = np.random.default_rng(seed)
    z, W = rng.standard_normal((32, d)), rng.standard_normal((K, d))
    with pytest.raises(InputError, match=says):
        find_head([Linear(z, W)], wrong(z, z @ W.T), "net")


class Labels(nn.Module):
    """Labels in the place of logits, in a row or in a column."""

    def __init__(self, column: bool):
        super().__init__()
        self.net, self.column = Net(), column

    def forward(self, x):
        labels = self.net(x).argmax(1)
        return labels[:, None] if self.column else labels


@pytest.mark.parametrize("column", [False, True])
def test_a_network_that_returns_labels_is_told_so(column, seed, monkeypatch):
    monkeypatch.setitem(sys.modules, "labels_net", SimpleNamespace(make=lambda: Labels(column)))
    with pytest.raises(InputError, match="got whole numbers, as of labels instead of logits"):
        open_torch("labels_net:make", None, lambda channels: sample(seed), K)


@pytest.mark.filterwarnings("ignore")
def test_weights_that_only_look_like_tensors_are_refused(seed, monkeypatch):
    """Those of torchao, quantized already."""
    quantization = pytest.importorskip("torchao.quantization")
    model = Net()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    monkeypatch.setitem(sys.modules, "quantized_net", SimpleNamespace(make=lambda: model))
    with pytest.raises(InputError, match="expected weights of floats, got tensors of another kind"):
        open_torch("quantized_net:make", None, lambda channels: sample(seed), K)


def test_a_transposed_or_foreign_head_is_refused(seed):
    rng = np.random.default_rng(seed)
    z, W = rng.standard_normal((32, K)), rng.standard_normal((K, K))
    for kind in BEHIND:
        output = reference(z @ W.T, 0.3, kind).astype(np.float32)
        assert find_head([Linear(z, W)], output, "net").kind == kind
        for foreign in (W.T, W + 0.01 * rng.standard_normal((K, K))):
            with pytest.raises(InputError, match=r"from another operation|class by class|cosines"):
                find_head([Linear(z, foreign)], output, "net")


class Net(nn.Module):
    def __init__(self, channels=3, behind="logits", several=None, bias=3.0):
        super().__init__()
        torch.manual_seed(4)
        self.convolution, self.linear = nn.Conv2d(channels, d, 3, 2), nn.Linear(d, K)
        self.embedding = nn.Linear(d, 4)
        nn.init.normal_(self.linear.bias, std=bias)
        self.behind, self.several = behind, several

    def forward(self, x):
        z = F.relu(self.convolution(x)).mean((2, 3))
        a = BEHIND[self.behind](self.linear(z))
        embedding = self.embedding(z)
        outputs = {"tuple": (embedding, a), "dict": {"embedding": embedding, "scores": a}}
        return a if self.several is None else outputs[self.several]


@pytest.fixture
def make(monkeypatch):
    """Registers a factory and gives its name."""
    module = ModuleType("heads_of_a_user")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def register(factory):
        vars(module)["factory"] = factory
        return "heads_of_a_user:factory"

    return register


def sample(seed, channels=3, n=24):
    return np.random.default_rng(seed).standard_normal((n, channels, 12, 12)).astype(np.float32)


@pytest.mark.parametrize("behind", list(BEHIND))
def test_pytorch_heads_with_large_biases(behind, make, seed):
    opened = open_torch(make(lambda: Net(behind=behind)), None, lambda channels: sample(seed))
    assert opened.head.kind == behind
    torch.testing.assert_close(torch.from_numpy(opened.head.bias).float(), Net().linear.bias.data, rtol=0, atol=0)


class Turned(nn.Module):
    """A head W z' + b, whose weight is multiplied from the left."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(K, 432)), nn.Parameter(torch.randn(K, 1))

    def forward(self, x):
        return (torch.matmul(self.weight, x.flatten(1).T) + self.bias).T


def test_a_head_turned_round_is_refused_in_a_line(make, seed):
    with pytest.raises(InputError, match="outputs from another operation"):
        open_torch(make(Turned), None, lambda channels: sample(seed))


def test_outputs_that_hardly_differ_between_images_are_no_head(seed):
    """A tanh near -1 on every image: no scale of the logits explains what is left of it."""
    rng = np.random.default_rng(seed)
    z, W = rng.standard_normal((32, d)), rng.standard_normal((1, d))
    with pytest.raises(InputError, match="hardly differ between images"):
        find_head([Linear(z, W)], np.tanh(z @ W.T - 12), "net")


@pytest.mark.parametrize("several", ["tuple", "dict"])
def test_of_several_outputs_the_one_as_wide_as_the_classes(several, make, seed):
    name = make(lambda: Net(several=several))
    assert open_torch(name, None, lambda channels: sample(seed), K).head.weights.shape == (K, d)
    assert open_torch(name, None, lambda channels: sample(seed), 4).head.weights.shape == (4, d)
    with pytest.raises(InputError, match=r"one output as wide as the 3 classes.*--output"):
        open_torch(name, None, lambda channels: sample(seed), 3)
    asked = {"tuple": "1", "dict": "scores"}[several]
    assert open_torch(name, None, lambda channels: sample(seed), 4, asked).head.weights.shape == (K, d)
    with pytest.raises(InputError, match="output: expected one of"):
        open_torch(name, None, lambda channels: sample(seed), 4, "nonsense")


def test_the_only_output_is_taken_whatever_its_width():
    assert pick_output({"a": np.zeros((3, 7))}, 10, None, "net") == "a"
    assert pick_output({"a": np.zeros((3, 7)), "logits": np.zeros((3, 5))}, 10, None, "net") == "logits"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_number_formats(kind, make, seed):
    """Fed in their own format; weights come back exactly."""
    opened = open_torch(make(lambda: Net(bias=0.1).to(kind)), None, lambda channels: sample(seed))
    weights = Net(bias=0.1).to(kind).linear.weight.detach().double().numpy()
    np.testing.assert_array_equal(opened.head.weights.astype(np.float64), weights)
    held = {16: np.float16, 32: np.float32, 64: np.float64}[opened.source_bits]
    np.testing.assert_array_equal(weights.astype(held).astype(np.float64), weights)
    z, output = opened.run(sample(seed + 1))
    logits = z @ opened.head.weights.T.astype(float) + opened.head.bias
    assert disagreement(logits, output, "logits", opened.precision) <= 1
    wrong = opened.head.weights * (1 + np.random.default_rng(seed).standard_normal((K, d)))
    with pytest.raises(InputError):  # in every format
        find_head([Linear(z, wrong)], output, "net", opened.precision)


def test_channels_are_those_of_the_first_layer(make, seed):
    opened = open_torch(make(lambda: Net(channels=1)), None, lambda channels: sample(seed, channels))
    assert opened.channels == 1


@pytest.mark.filterwarnings("ignore")  # PyTorch announces the end of both
def test_networks_whose_operations_are_hidden_are_named(make, seed):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(432, 16), nn.ReLU(), nn.Linear(16, K))
    for hidden, says in (
        (torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}), "int8 network"),
        (torch.jit.trace(plain, torch.zeros(2, 3, 12, 12)), "TorchScript module"),
    ):
        network = make(lambda hidden=hidden: hidden)
        with pytest.raises(InputError, match=says):
            open_torch(network, None, lambda channels: sample(seed, channels))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("flatten", [True, False])
def test_dense_networks_take_images_or_vectors(make, channels, flatten, seed):
    """No convolution: greyscale or colour by the inputs of the first layer, flattened here where the network does not."""
    layers = [nn.Linear(144 * channels, 16), nn.ReLU(), nn.Linear(16, K)]
    network = make(lambda: nn.Sequential(*([nn.Flatten()] if flatten else []), *layers))
    opened = open_torch(network, None, lambda channels: sample(seed, channels))
    assert opened.channels == channels
    assert opened.head.weights.shape == (K, 16)
    features, logits = opened.run(sample(seed, channels))
    np.testing.assert_allclose(features @ opened.head.weights.T + opened.head.bias, logits, atol=1e-5)


def test_autocast_inside_is_seen_through(make, seed):
    class Cast(Net):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x)

    assert open_torch(make(Cast), None, lambda channels: sample(seed)).head.weights.shape == (K, d)


@pytest.mark.parametrize("name", ["builtins:exit", "sys:exit", "../x:y", ".net:make", "a:", ":b", "os:nothing_of_this"])
def test_names_that_make_no_network(name):
    with pytest.raises(InputError, match="network: expected"):
        open_torch(name, None, lambda channels: sample(0))


def save(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    return tmp_path / "c.pt"


@pytest.mark.parametrize("wrap", ["net", "model", "model_state_dict", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.module."])
def test_checkpoints_as_people_keep_them(wrap, prefix, tmp_path):
    state = {prefix + key: value for key, value in Net().state_dict().items()}
    content = state if wrap is None else {wrap: state, "best_prec1": np.float64(92.6), "loss": float("inf"), "epoch": 3}
    found, said = read_state(save(tmp_path, content))
    assert set(found) == set(Net().state_dict())
    assert said == ({} if wrap is None else {"best_prec1": 92.6, "epoch": 3})
    load_state(Net(), found, "c.pt", "net")


@pytest.mark.parametrize("kept", ["nested", "owned", "options", "array", "NumPy 1"])
def test_more_of_what_checkpoints_hold(kept, tmp_path):
    """Nested dictionaries, one prefix of all keys, options and arrays beside the tensors, a scalar that NumPy 1 wrote."""
    state = Net().state_dict()
    content = {
        "nested": {"model": {"state_dict": state}},
        "owned": {"state_dict": {f"model.{key}": value for key, value in state.items()}},
        "options": {"state_dict": state, "args": argparse.Namespace(lr=0.1)},
        "array": {"state_dict": state, "losses": np.zeros(3)},
        "NumPy 1": {"state_dict": state, "best_prec1": np.float64(92.6)},
    }[kept]
    path = save(tmp_path, content)
    if kept == "NumPy 1":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    found, said = read_state(path)
    load_state(Net(), found, "c.pt", "net")
    assert said == ({"best_prec1": 92.6} if kept == "NumPy 1" else {})


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    content: dict = {}
    content["model"] = content
    found, _ = read_state(save(tmp_path, content))
    with pytest.raises(InputError, match="no key matches"):
        load_state(Net(), found, "c.pt", "net")


def test_files_that_are_no_checkpoints_are_named(tmp_path):
    path = tmp_path / "c.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match="Git LFS"):
        read_state(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what files hold
        torch.jit.script(nn.Linear(2, 2)).save(str(path))
    with pytest.raises(InputError, match="TorchScript"):
        read_state(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty"):
        read_state(path)
    for text, kind in (("<!DOCTYPE html><html>", "HTML"), ('{"error": "not found"}', "JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=f"a text \\({kind}.*in the place of the download"):
            read_state(path)
    with pytest.raises(InputError, match="is not loaded: save the state_dict alone"):
        read_state(save(tmp_path, {"f": nn.Linear(2, 2)}))


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(K, device="meta"), "meta"),
        (torch.zeros(K).to_sparse(), "sparse"),
        (torch.zeros(K).to(torch.float8_e4m3fn), "float8"),
        (torch.zeros(K, dtype=torch.complex64), "complex"),
        (torch.full((K,), torch.inf), "finite"),
        (torch.zeros(K, dtype=torch.bool), "floats, got bool"),
        (torch.zeros(K, dtype=torch.int64), "floats, got int64"),
    ],
)
def test_tensors_that_hold_no_weights(tensor, says):
    state = Net().state_dict() | {"linear.bias": tensor}
    with pytest.raises(InputError, match=f"linear.bias: expected.*{says}"):
        load_state(Net(), state, "c.pt", "net")


def test_a_tied_head_that_the_file_leaves_out():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(K, d), nn.Linear(d, K, bias=False)
            self.head.weight = self.embedding.weight

    model, weights = Tied(), torch.randn(K, d)
    load_state(model, {"embedding.weight": weights}, "c.pt", "net")
    torch.testing.assert_close(model.head.weight.data, weights)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("behind", ["logits", "softmax", "sigmoid"])
def test_keras_heads_with_large_biases(behind, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    from simulate.networks.keras_networks import open_keras, usual_jax

    with usual_jax():
        x = keras.Input((12, 12, 1))
        z = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(d, 3, activation="relu")(x))
        embedding = keras.layers.Dense(4, name="embedding")(z)
        bias = keras.initializers.RandomNormal(stddev=3.0, seed=1)
        head = keras.layers.Dense(K, bias_initializer=bias, activation=None if behind == "logits" else behind, name="scores")
        model = keras.Model(x, {"embedding": embedding, "scores": head(z)})
        model.save(tmp_path / "net.keras")
    opened = open_keras(tmp_path / "net.keras", lambda channels: sample(seed, channels), K)
    assert (opened.head.kind, opened.channels) == (behind, 1)
    np.testing.assert_array_equal(opened.head.bias, head.bias.numpy())


@pytest.mark.parametrize("shape", [(144,), (12, 12)])
@pytest.mark.filterwarnings("ignore")
def test_keras_dense_networks_take_vectors_and_greyscale_images(shape, tmp_path, monkeypatch, seed):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    from simulate.networks.keras_networks import open_keras, usual_jax

    with usual_jax():
        x = keras.Input(shape)
        z = keras.layers.Dense(d, activation="relu")(keras.layers.Flatten()(x))
        keras.Model(x, keras.layers.Dense(K)(z)).save(tmp_path / "net.keras")
    opened = open_keras(tmp_path / "net.keras", lambda channels: sample(seed, channels), K)
    assert opened.channels == 1
    assert opened.run(sample(seed, 1))[0].shape == (24, d)


@pytest.mark.parametrize("behind", ["logits", "softmax", "sigmoid"])
def test_onnx_heads_channels_last_with_a_label_beside(behind, tmp_path, seed):
    """As Keras and scikit-learn export them: (n, H, W, 3), label and probabilities as two outputs."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    from simulate.networks.onnx_networks import open_onnx

    rng = np.random.default_rng(seed)
    W, bias = rng.standard_normal((3, K)).astype(np.float32), (3 * rng.standard_normal(K)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["z"], keepdims=0),
        helper.make_node("MatMul", ["z", "W"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["a"]),
    ]
    if behind != "logits":
        nodes.append(helper.make_node({"softmax": "Softmax", "sigmoid": "Sigmoid"}[behind], ["a"], ["p"]))
    last = "a" if behind == "logits" else "p"
    nodes.append(helper.make_node("ArgMax", [last], ["label"], axis=1, keepdims=0))
    arrays = {"W": W, "b": bias, "axes": np.array([1, 2], np.int64)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12, 12, 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info(last, TensorProto.FLOAT, ["n", K]),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "net.onnx")
    opened = open_onnx(tmp_path / "net.onnx", lambda channels: sample(seed, channels), K)
    assert opened.head.kind == behind
    np.testing.assert_array_equal(opened.head.bias, bias)
