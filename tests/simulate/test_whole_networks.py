"""All layers of a PyTorch network: Jacobians of every kind of operation against autograd, the noise file, and networks run."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.cifar import coarse_pixels, normalized, write_cifar
from theory.all_layers import error_power
from theory.setting.errors import InputError
from theory.setting.files import read_noise
from theory.setting.noise import noise_ratio
from theory.setting.plan import network_plans
from theory.setting.schemes import compress

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import simulate  # noqa: E402
import theory  # noqa: E402
from simulate.networks.jacobians import Trace, jacobian, row_grams, shifts, weights_of  # noqa: E402

K = 4


class Mixed(nn.Module):
    """Every kind of operation, one weight used twice, one as (inputs, outputs), rectifiers that work in place."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 8, 3, padding="same", dilation=2, groups=2)
        self.depthwise = nn.Conv2d(8, 8, (3, 2), groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.line = nn.Conv1d(4, 5, 4, stride=3)
        self.twice = nn.Linear(5, 5)
        self.product = nn.Parameter(torch.randn(5, 6) / 2)
        self.head = nn.Linear(6, K)

    def forward(self, x):
        x = F.relu(self.norm(self.plain(x)), inplace=True)
        x = F.relu(self.grouped(x), inplace=True)
        x = self.up(F.relu(self.depthwise(x)))
        x = self.line(x.flatten(2)).transpose(1, 2)  # (n, positions, 5)
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        return self.head(torch.relu(x @ self.product).mean(1))


class Small(nn.Module):
    """A convolution, batch norm and a linear head, on CIFAR's images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.Linear(6, K)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def made(kind: type, seed: int) -> Any:
    torch.manual_seed(seed)
    model = kind().eval()
    model.norm.running_mean.uniform_(-0.3, 0.3)
    model.norm.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture
def small(tmp_path, seed, monkeypatch):
    """The options of a network of four classes and 200 images in CIFAR's layout, which is right for most of them."""
    model = made(Small, seed)
    model.head.weight.data *= 30
    rng = np.random.default_rng(seed)
    pixels = coarse_pixels(200, rng)
    x = torch.from_numpy(normalized(pixels))
    with torch.no_grad():
        model.head.bias -= model(x).mean(0)
        labels = np.where(rng.random(200) < 0.8, model(x).argmax(1).numpy(), rng.integers(0, K, 200)).astype(np.uint8)
    write_cifar(tmp_path / "data", pixels, labels)
    module = ModuleType("small_networks")
    module.__dict__["model"] = model
    monkeypatch.setitem(sys.modules, "small_networks", module)
    options: dict = dict(network="small_networks:model", data=tmp_path / "data", mean=[0.5], std=[0.25])
    return model, x, labels.astype(int), options


def autograd_rows(model: Any, x: Any, name: str, rows: Any) -> np.ndarray:
    """(n, K, rows, columns) of the logits by a parameter, one call of autograd a logit and image."""
    parameter = dict(model.named_parameters())[name]
    found = []
    for image in x:
        logits = model(image[None])[0]
        parts = [torch.autograd.grad(logits[k], parameter, retain_graph=True)[0] for k in range(K)]
        found.append(torch.stack([rows.of(part) for part in parts]))
    return torch.stack(found).numpy()


def test_jacobians_of_every_operation_are_those_of_autograd(seed):
    model = made(Mixed, seed).double()
    x = torch.randn(3, 3, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    trace = Trace(model)
    with trace.watch:
        logits = model(x)
    weights = weights_of(trace.operations, model)
    assert [w.name for w in weights] == [
        *("plain.weight", "grouped.weight", "depthwise.weight", "up.weight", "line.weight"),
        *("twice.weight", "product", "head.weight"),
    ]
    _, gradients = trace.gradients(logits, torch.arange(K).repeat(3, 1))
    found: dict = {}
    for operation, gradient in zip(trace.operations, gradients, strict=True):
        found[operation.tensor] = found.get(operation.tensor, 0) + jacobian(operation, gradient, 3)
    rng = np.random.default_rng(seed)
    for weight in weights:
        J = autograd_rows(model, x, weight.name, weight.rows)
        np.testing.assert_allclose(found[weight.name].detach().numpy(), J, atol=1e-10 * np.abs(J).max())
        scales = torch.from_numpy(weight.ranges)
        scaled = J[None] * weight.ranges[:, None, None, :, None]
        want = np.einsum("sncrp,sndrp->sncd", scaled, scaled)
        np.testing.assert_allclose(row_grams(found[weight.name], scales**2).detach(), want, atol=1e-10 * want.max())
        errors = rng.standard_normal((*weight.values.shape, 2))
        want = np.einsum("sncrp,rpm->smnc", scaled, errors)
        got = shifts(found[weight.name], torch.from_numpy(errors), scales).detach()
        np.testing.assert_allclose(got, want, atol=1e-10 * np.abs(want).max())
        parameter = dict(model.named_parameters())[weight.name].detach()
        assert torch.equal(weight.rows.back(torch.from_numpy(weight.values), parameter), parameter)


def test_the_noise_file_has_weights_inputs_and_draws(small, tmp_path, seed):
    model, x, labels, options = small
    noise = simulate.linearize(**options, calibrate=20, draws=64, out=tmp_path / "noise.npz", limit=30, seed=seed)
    back = read_noise(tmp_path / "noise.npz")
    assert back.tensors.names == ("conv.weight", "head.weight", "conv.weight", "head.weight")
    assert back.tensors.kinds == ("weight", "weight", "input", "input")
    assert list(back.tensors.sizes) == [6 * 75, 6 * K, 3 * 32 * 32, 6]
    assert np.array_equal(back.labels, labels[:30])
    with torch.no_grad():
        np.testing.assert_allclose(back.logits, model(x[:30]).numpy(), atol=1e-4)
        z = torch.relu(model.norm(model.conv(x))).mean((2, 3))
        W = model.head.weight.numpy()
        np.testing.assert_allclose(back.grams[""][3], np.broadcast_to(W @ W.T, (30, K, K)), rtol=1e-3, atol=1e-4)
        want = np.sum(z[:30].numpy() ** 2, 1)[:, None, None] * np.eye(K)
        np.testing.assert_allclose(back.grams[""][1], want, rtol=1e-3, atol=1e-6)
        assert back.tensors.high[3] == pytest.approx(float(z[180:].max()), rel=1e-6)  # of the images that calibrate
    variance = np.trace(noise.grams[""], axis1=2, axis2=3)
    seen = np.square(noise.draws[""].astype(float)).mean(0).sum(2)
    assert np.abs(seen.mean(1) / variance.mean(1) - 1).max() < 0.5
    for name, members in (("_channel_symmetric", slice(2, 4)), ("_channel_affine", slice(2, 4))):
        assert not noise.grams[name][members].any()
    assert not np.allclose(noise.grams["_channel_symmetric"][:2], noise.grams["_channel_affine"][:2])
    np.testing.assert_allclose(back.grams[""], noise.grams[""], rtol=2e-5)
    assert back.gain_rates is not None
    np.testing.assert_allclose(back.gain_rates, noise.gain_rates)


def test_the_gain_of_the_draws_is_that_of_networks_drawn(small, seed):
    """-ln g over v/V at 5 bits a tensor, against pairs of networks W + E and W - E drawn here: slope of their mean logits in
    the clean ones, both centred."""
    model, x, _, options = small
    noise = simulate.linearize(**options, calibrate=20, draws=64, seed=seed)
    (plan,) = network_plans(noise.tensors.indices("weight"), "symmetric", [5])
    ratio = noise_ratio(noise.logits[:64], error_power(noise, plan).covariance(noise)[:64])
    rng, weights = np.random.default_rng(seed), {name: getattr(model, name).weight for name in ("conv", "head")}
    kept = {name: weight.detach().clone() for name, weight in weights.items()}
    clean, gains = noise.logits[:64] - noise.logits[:64].mean(1, keepdims=True), []
    with torch.no_grad():
        for _ in range(400):
            E = {
                name: torch.from_numpy(rng.random(tuple(w.shape)) - 0.5).float() * w.abs().max() / 15
                for name, w in kept.items()
            }
            mean = np.zeros((64, K))
            for side in (1, -1):
                for name, weight in weights.items():
                    weight.copy_(kept[name] + side * E[name])
                mean += model(x[:64]).numpy() / 2
            mean -= mean.mean(1, keepdims=True)
            gains.append(-np.log(np.sum(mean * clean) / np.sum(clean**2)) / ratio)
        for name, weight in weights.items():
            weight.copy_(kept[name])
    error = np.hypot(np.std(gains) / 20, np.std(noise.gain_rates) / 8)
    assert abs(np.mean(gains) - np.mean(noise.gain_rates)) < 4.5 * error


@pytest.mark.slow
def test_the_gain_of_a_resnet_is_that_of_the_shipped_table(resnet_dir, cifar10_dir):
    """kappa of 32 draws on 64 images, against what random signs showed on 500 images at 5 bits a tensor."""
    from simulate.experiments.real import shipped_table

    (row,) = (one for one in shipped_table("all_layers") if (one["granularity"], one["bits"]) == ("tensor", 5))
    checkpoint = resnet_dir / "resnet20-12fca82f.th"
    noise = simulate.linearize(network="resnet20", checkpoint=checkpoint, data=cifar10_dir, limit=64)
    assert noise.gain_rates is not None
    error = np.std(noise.gain_rates) / np.sqrt(32) + 0.05
    assert abs(np.mean(noise.gain_rates) + np.log(row["sampled_gain"]) / row["noise_ratio"]) < 4.5 * error


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_actual_network_is_the_one_compressed_by_hand(small, per_channel):
    model, x, labels, options = small
    records = simulate.run(**options, scheme="symmetric", bits=[3, 4], per_channel=per_channel, calibrate=50)
    before = decisions(model, x[:150])
    for record, bits in zip(records, (3, 4), strict=True):
        changed, stored = made(Small, 0), 0
        changed.load_state_dict(model.state_dict())
        for name in ("conv", "head"):
            weight = getattr(changed, name).weight
            layer = compress(
                weight.detach().double().numpy().reshape(len(weight), -1), "symmetric", bits, per_channel=per_channel
            )
            weight.data = torch.from_numpy(layer.weights.reshape(weight.shape)).float()
            stored += sum(layer.rate_breakdown.values())
        after = decisions(changed, x[:150])
        assert record.flip_rate == pytest.approx(np.mean(before != after))
        assert record.risk_before == pytest.approx(np.mean(before != labels[:150]))
        assert record.distortion == pytest.approx(np.mean(after != labels[:150]) - np.mean(before != labels[:150]))
        assert record.rate == pytest.approx(stored / (6 * 75 + 6 * K))
        assert record.plan == {"conv.weight": bits, "head.weight": bits}


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "affine", "bits": [4]},
        {"scheme": "midrise", "bits": [3], "per_channel": True},
        {"scheme": "symmetric", "bits": [3], "group_size": 7},
        {"scheme": "optimal", "criterion": "mse", "bits": [3]},
        {"scheme": "codebook", "bits": [3]},
        {"scheme": "prune", "sparsity": 0.5},
        {"scheme": "deep-compression", "bits": [3], "sparsity": 0.5},
    ],
    ids=lambda options: options["scheme"],
)
def test_every_scheme_compresses_whole_networks(small, options):
    """Rows of output channels flattened in C order, by the public function of one layer."""
    model, x, _, own = small
    (record,) = simulate.run(**own, **options, calibrate=50)
    changed = made(Small, 0)
    changed.load_state_dict(model.state_dict())
    question = {name: value for name, value in options.items() if name not in ("scheme", "bits")}
    stored = 0
    for name in ("conv", "head"):
        weight = getattr(changed, name).weight
        rows = weight.detach().double().numpy().reshape(len(weight), -1)
        width = options["bits"][0] if "bits" in options else None
        if options["scheme"] == "optimal":
            errors = [np.sum((compress(rows, "optimal", width, step=k, **question).weights - rows) ** 2) for k in range(1, 257)]
            question["step"] = 256 - int(np.argmin(errors[::-1]))
        layer = compress(rows, options["scheme"], width, **question)
        weight.data = torch.from_numpy(layer.weights.reshape(weight.shape)).float()
        stored += sum(layer.rate_breakdown.values())
        question.pop("step", None)
    after = decisions(changed, x[:150])
    assert record.flip_rate == pytest.approx(np.mean(decisions(model, x[:150]) != after), abs=1e-9)
    assert record.rate == pytest.approx(stored / (6 * 75 + 6 * K))


def folded_by_hand(model: Any) -> Any:
    """A convolution with the batch norm behind it in its weight and bias, and none behind it."""
    changed = made(Small, 0)
    changed.load_state_dict(model.state_dict())
    scale = model.norm.weight.detach() / torch.sqrt(model.norm.running_var + model.norm.eps)
    changed.conv.weight.data *= scale[:, None, None, None]
    changed.conv.bias.data = (model.conv.bias.detach() - model.norm.running_mean) * scale + model.norm.bias.detach()
    changed.norm = nn.Identity()
    return changed


def rounded_weights(model: Any, bits: int, **options: Any) -> Any:
    for name in ("conv", "head"):
        weight = getattr(model, name).weight
        layer = compress(weight.detach().double().numpy().reshape(len(weight), -1), "symmetric", bits, **options)
        weight.data = torch.from_numpy(layer.weights.reshape(weight.shape)).float()
    return model


def test_batch_norm_is_folded_as_by_hand(small):
    model, x, _, options = small
    model.norm.weight.data.uniform_(-2, 2)
    changed = rounded_weights(folded_by_hand(model), 4)
    before = decisions(model, x[:150])
    (record,) = simulate.run(**options, scheme="symmetric", bits=[4], calibrate=50, fold=True)
    assert record.flip_rate == pytest.approx(np.mean(before != decisions(changed, x[:150])), abs=1.5 / 150)
    np.testing.assert_allclose(decisions(model, x[:150]), before)  # what is folded is the same network


def test_folding_changes_no_step_per_channel(small, seed):
    """A row scaled is a step scaled: Grams and draws of rows times their range are those of the network as it was."""
    model, _, _, options = small
    model.norm.weight.data.uniform_(0.2, 2)
    own: dict = dict(**options, calibrate=20, limit=20, draws=4, seed=seed)
    plain = simulate.linearize(**own)
    folded = simulate.linearize(**own, fold=True)
    assert (plain.fold, folded.fold) == (False, True)
    np.testing.assert_allclose(folded.logits, plain.logits, atol=1e-4 * np.abs(plain.logits).max())
    for name in ("_channel_symmetric", "_channel_affine"):
        top = plain.grams[name].max()
        np.testing.assert_allclose(folded.grams[name], plain.grams[name], rtol=1e-3, atol=1e-4 * top)
        np.testing.assert_allclose(folded.draws[name], plain.draws[name], rtol=1e-2, atol=1e-2 * top**0.5)
    assert np.abs(folded.grams[""][0] / plain.grams[""][0] - 1).max() > 0.1  # with one step for all rows it is another one


def test_batch_norm_that_is_not_alone_is_not_folded(small):
    model, _, _, options = small

    def forward(x):
        y = model.conv(x)
        return model.head(torch.relu(model.norm(y) + y).mean((2, 3)))

    model.forward = forward
    with pytest.raises(InputError, match="fold: expected the logits of small_networks:model to stay as they are"):
        simulate.run(**options, scheme="symmetric", bits=[4], calibrate=50, fold=True)
    model.forward = lambda x: model.head(torch.relu(model.norm(torch.relu(model.conv(x)))).mean((2, 3)))
    with pytest.raises(InputError, match="fold: expected a batch norm that follows a convolution"):
        simulate.run(**options, scheme="symmetric", bits=[4], calibrate=50, fold=True)


def test_batch_norm_is_recalibrated_as_by_hand(small):
    """Means and variances of all images that calibrate together, of the compressed network, which is as before after it."""
    model, x, labels, options = small
    changed = made(Small, 0)
    changed.load_state_dict(model.state_dict())
    rounded_weights(changed, 3)
    with torch.no_grad():
        seen = changed.conv(x[150:]).double()
        changed.norm.running_mean = seen.mean((0, 2, 3)).float()
        changed.norm.running_var = seen.var((0, 2, 3), unbiased=False).float()
    before = decisions(model, x[:150])
    question: dict = dict(scheme="symmetric", bits=[3], calibrate=50)
    (record,) = simulate.run(**options, **question, recalibrate=True)
    after = decisions(changed, x[:150])
    assert record.flip_rate == pytest.approx(np.mean(before != after), abs=1e-9)
    assert record.distortion == pytest.approx(np.mean(after != labels[:150]) - np.mean(before != labels[:150]))
    assert record.provenance["recalibrated_on"] == 50
    (plain,) = simulate.run(**options, **question)
    assert plain.flip_rate != record.flip_rate
    (drawn,) = simulate.run(**options, **question, errors="expected", networks=8, recalibrate=True)
    assert drawn.method == "networks_drawn"


def decisions(model: Any, x: Any) -> np.ndarray:
    with torch.no_grad():
        return model(x).argmax(1).numpy()


def test_random_signs_have_the_mean_of_networks_drawn(small, seed):
    _, _, _, options = small
    question: dict = dict(scheme="symmetric", bits=[3], errors="expected", calibrate=50, seed=seed)
    (drawn,) = simulate.run(**options, **question, networks=200)
    (signs,) = simulate.run(**options, **question, standard_error=0.002)
    assert signs.standard_error is not None
    assert signs.standard_error <= 0.002
    for name, error in (("distortion", "standard_error"), ("flip_rate", "flip_rate_standard_error")):
        gap = getattr(drawn, name) - getattr(signs, name)
        assert abs(gap) < 4.5 * np.hypot(getattr(drawn, error), getattr(signs, error))
    assert drawn.interval_sources["network"] > 0
    assert (drawn.method, signs.method) == ("networks_drawn", "random_signs")


def test_the_interval_of_a_mean_over_errors_has_its_confidence(small):
    question: dict = dict(scheme="symmetric", bits=[3], errors="expected", calibrate=50, networks=4)
    (wide,), (narrow,) = (simulate.run(**small[3], **question, confidence=c) for c in (0.95, 0.5))
    ratio = (wide.interval[1] - wide.interval[0]) / (narrow.interval[1] - narrow.interval[0])
    assert ratio == pytest.approx(1.959964 / 0.674490, rel=1e-5)


def test_what_whole_networks_refuse(small, tmp_path):
    """No weight at all; logits that are not finite, with the image; a noise file cut short. One line each."""
    model, _, _, options = small
    forward = model.forward
    model.forward = lambda x: x.mean((2, 3))[:, :1] * torch.arange(1.0, 5.0)
    for call in (simulate.linearize, lambda **own: simulate.run(**own, scheme="symmetric", bits=[3])):
        with pytest.raises(InputError, match="expected convolutions or linear layers, found none whose weight is a parameter"):
            call(**options)
    model.forward = lambda x: forward(x) + torch.where(torch.arange(len(x)) == 7, torch.nan, 0.0)[:, None]
    for call in (simulate.linearize, lambda **own: simulate.run(**own, scheme="symmetric", bits=[3])):
        with pytest.raises(InputError, match="small_networks:model: expected finite logits, got NaN or infinity at image 7"):
            call(**options)
    model.forward = forward
    simulate.linearize(**options, out=tmp_path / "noise.npz", limit=20, draws=2)
    whole = (tmp_path / "noise.npz").read_bytes()
    (tmp_path / "noise.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"noise\.npz"):
        theory.predict(tmp_path / "noise.npz", scheme="symmetric", bits=[3])
    with pytest.raises(InputError, match="calibrate: expected fewer than the 200 images there are, got 200"):
        simulate.linearize(**options, calibrate=200)


def test_weights_that_are_no_parameters_are_refused(small):
    """One computed from others: it would stay as it is, and nobody would know."""
    model, _, _, options = small
    torch.nn.utils.parametrizations.weight_norm(model.head)
    for work in (lambda: simulate.linearize(**options), lambda: simulate.run(**options, scheme="symmetric", bits=[3])):
        with pytest.raises(InputError, match="expected weights that are parameters, got one computed"):
            work()


def test_packed_weights_are_refused_and_the_rest_is_named(small, capsys):
    """Attention holds three weights in one: they would stay as they are. So does an embedding, which is said."""
    model, _, _, options = small
    model.attention = nn.MultiheadAttention(6, 2, batch_first=True)
    model.position = nn.Parameter(torch.randn(6, 6))

    def features(x):
        return torch.relu(model.norm(model.conv(x))).flatten(2).transpose(1, 2)

    model.forward = lambda x: model.head((features(x) @ torch.tanh(model.position)).mean(1))
    simulate.run(**options, scheme="symmetric", bits=[3], calibrate=50)
    assert "no convolution or linear layer takes" in capsys.readouterr().err
    model.forward = lambda x: model.head(model.attention(features(x), features(x), features(x))[0].mean(1))
    with pytest.raises(InputError, match="attention with packed weights"):
        simulate.linearize(**options)


@pytest.mark.parametrize("ending", ["softmax", "log_softmax", "one output", "sigmoid"])
def test_outputs_behind_a_softmax_or_sigmoid_are_followed_before_it(small, ending):
    """Logits are what enters them: posteriors, Grams and decisions are those of the network without."""
    model, _, _, options = small
    plain = simulate.linearize(**options, calibrate=20, draws=2, limit=10) if "softmax" in ending else None
    forward = model.forward
    if plain is not None:
        model.forward = lambda x: getattr(torch, ending)(forward(x), dim=1)
        noise = simulate.linearize(**options, calibrate=20, draws=2, limit=10)
        for name in ("", "_channel_symmetric"):
            np.testing.assert_allclose(noise.grams[name], plain.grams[name], rtol=1e-5)
        np.testing.assert_allclose(noise.logits, plain.logits, atol=1e-5)
        model.forward = lambda x: forward(x).exp() / forward(x).exp().sum(1, keepdim=True)
        with pytest.raises(InputError, match="expected logits, or what a softmax makes of them, got probabilities"):
            simulate.linearize(**options)
        return
    path = options["data"] / "cifar-10-batches-bin" / "test_batch.bin"
    raw = np.fromfile(path, np.uint8).reshape(200, -1)
    raw[:, 0] %= 2
    raw.tofile(path)
    model.forward = lambda x: torch.sigmoid(forward(x)[:, :1]) if ending == "sigmoid" else forward(x)[:, :1]
    noise = simulate.linearize(**options, calibrate=20, draws=2, limit=10)
    assert noise.logits.shape == (10, 2)
    assert not noise.logits[:, 0].any()
    assert not noise.grams[""][:, :, 0].any()
    assert np.abs(noise.logits[:, 1]).max() > 1  # no probabilities
    (record,) = simulate.run(**options, scheme="symmetric", bits=[3], calibrate=20)
    assert len(record.per_class) == 2


def test_of_many_classes_those_that_can_win_are_followed(small, seed):
    """40 classes: at least 8, so many that the others' posterior is below 1e-3; their Grams are those of the rows that all
    would have."""
    model, x, _, options = small
    model.head = nn.Linear(6, 40)
    model.head.weight.data *= 25
    path = options["data"] / "cifar-10-batches-bin" / "test_batch.bin"
    raw = np.fromfile(path, np.uint8).reshape(200, -1)
    with torch.no_grad():
        logits = model(x).numpy().astype(float)
        raw[:, 0] = [k % 10 for k in logits.argmax(1)]
    raw.tofile(path)
    noise = simulate.linearize(**options, calibrate=20, draws=64, limit=30, seed=seed)
    n, followed = noise.candidates.shape
    assert 8 <= followed < 40
    assert noise.provenance["posterior_not_followed"] <= 1e-3
    for row in range(n):
        assert set(np.argsort(-noise.logits[row])[:followed]) == set(noise.candidates[row])
    with torch.no_grad():
        z = torch.relu(model.norm(model.conv(x[:30]))).mean((2, 3)).numpy()
    W = model.head.weight.detach().numpy()
    own = W[noise.candidates]
    np.testing.assert_allclose(noise.grams[""][3], own @ own.swapaxes(1, 2), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(noise.grams[""][1], np.sum(z**2, 1)[:, None, None] * np.eye(followed), rtol=1e-3, atol=1e-5)
    (record,) = theory.predict(noise, scheme="symmetric", bits=[4])
    (counted,) = simulate.run(
        **options, scheme="symmetric", bits=[4], errors="expected", calibrate=20, limit=30, networks=200, seed=seed
    )
    assert counted.flip_rate_standard_error is not None
    assert record.flip_rate == pytest.approx(
        counted.flip_rate, abs=4.5 * counted.flip_rate_standard_error + 0.1 * counted.flip_rate
    )


def test_no_label_of_the_evaluated_images_is_read(small, tmp_path):
    model, x, labels, options = small
    question: dict = dict(scheme="symmetric", bits=[3], calibrate=50)
    (blind,) = simulate.run(**options, **question, unlabelled=True)
    (known,) = simulate.run(**options, **question)
    assert blind.flip_rate == known.flip_rate
    path = tmp_path / "data" / "cifar-10-batches-bin" / "test_batch.bin"
    raw = np.fromfile(path, np.uint8).reshape(200, -1)
    raw[:150, 0] = 0
    raw.tofile(path)
    (again,) = simulate.run(**options, **question, unlabelled=True)
    assert again.risk_after == blind.risk_after
    (given,) = simulate.run(**options, **question, unlabelled=True, temperature=2.0)
    with torch.no_grad():
        posterior = torch.softmax(model(x[:150]).double() / 2, 1).numpy()
    assert given.risk_before == pytest.approx(1 - posterior.max(1).mean(), abs=1e-5)
    raw[:150, 0] = labels[:150]
    raw.tofile(path)
    (corrected,) = simulate.run(**options, **question, unlabelled=True, temperature=2.0, labelled=150)
    assert corrected.distortion == pytest.approx(known.distortion, abs=1e-9)  # all labels: the count itself


def test_inputs_of_layers_are_rounded_by_hand(small, tmp_path):
    """Weights and activations: one affine step on the range over the images that calibrate, clipped beyond; widths from a
    plan's file."""
    model, x, _, options = small
    plan = {"scheme": "symmetric", "granularity": "tensor"}
    plan |= {"tensors": {"conv.weight": {"bits": 5}, "head.weight": {"bits": 4}}}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (record,) = simulate.run(
        **options, scheme="symmetric", plan=tmp_path / "plan.json", activation_bits=4, calibrate=50, errors="actual"
    )

    def rounded(values, seen):
        low, high = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
        step = float(np.float32((high - low) / 15))
        zero = np.rint(-low / step)
        return step * (torch.clamp(torch.round(values / step) + zero, 0, 15) - zero)

    changed = made(Small, 0)
    changed.load_state_dict(model.state_dict())
    for name, bits in (("conv", 5), ("head", 4)):
        weight = getattr(changed, name).weight
        layer = compress(weight.detach().double().numpy().reshape(len(weight), -1), "symmetric", bits)
        weight.data = torch.from_numpy(layer.weights.reshape(weight.shape)).float()
    with torch.no_grad():
        features = torch.relu(changed.norm(changed.conv(rounded(x[:150], x[150:])))).mean((2, 3))
        clean = torch.relu(model.norm(model.conv(x[150:]))).mean((2, 3))
        after = changed.head(rounded(features, clean)).argmax(1).numpy()
    assert record.flip_rate == pytest.approx(np.mean(after != decisions(model, x[:150])), abs=1.5 / 150)
    assert record.plan == {"conv.weight": 5, "head.weight": 4}


def test_the_commands_of_the_readme_run(small, tmp_path, monkeypatch, capsys):
    """Those of the section on all layers, with another network."""
    import simulate.__main__
    import theory.__main__

    text = (Path(simulate.__file__).parent / "networks" / "README.md").read_text()
    commands = re.findall(r"^    python -m (\w+) (.*)$", text[text.index("## All layers") :], flags=re.MULTILINE)
    assert len(commands) == 4
    monkeypatch.chdir(tmp_path)
    own = "--network small_networks:model --mean 0.5 --std 0.25"
    for room, rest in commands:
        words = rest.replace("--network resnet20 --checkpoint resnet20.th", own).replace("DIR", "data").split()
        assert {"simulate": simulate.__main__, "theory": theory.__main__}[room].main(words) == 0, rest
    printed = capsys.readouterr().out
    assert "predicted loss" in printed
    assert "logit_gain" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_bits": {"nonsense": 3}}, "layer_bits: expected weights among conv.weight, head.weight, got 'nonsense'"),
        ({"layers": ["conv"], "bits": [3]}, "layers: expected weights among"),
        ({"bits": [3], "calibrate": 200}, "calibrate: expected fewer than the 200 images there are"),
        ({"bits": [3], "errors": "expected", "unlabelled": True}, "unlabelled: expected with actual errors alone"),
        ({"bits": [3], "temperature": 1.0}, "temperature, labelled: expected with --unlabelled alone"),
        ({"bits": [3], "method": "counting"}, "method: expected none with a network"),
        ({"bits": [3], "scheme": "optimal", "criterion": "distortion"}, "criterion: expected mse for several layers"),
        ({"bits": [3], "fold": True, "recalibrate": True}, "recalibrate: expected none with --fold"),
        ({"bits": [3], "errors": "expected", "recalibrate": True}, "recalibrate: expected --networks M"),
        ({"bits": [3], "recalibrate": True, "calibrate": 0}, "calibrate: expected images to recalibrate"),
        (
            {"plan": {"scheme": "symmetric", "granularity": "tensor", "fold": True, "tensors": {}}},
            "plan: expected an object",
        ),
        (
            {
                "plan": {
                    "scheme": "symmetric",
                    "granularity": "tensor",
                    "fold": True,
                    "tensors": {"conv.weight": {"bits": 3}, "head.weight": {"bits": 3}},
                }
            },
            "plan: expected one for batch norm as it is, got one for batch norm folded",
        ),
    ],
)
def test_what_a_network_cannot_be_asked(small, options, message):
    with pytest.raises(InputError, match=message):
        simulate.run(**small[3], **{"scheme": "symmetric", "calibrate": 50, **options})
