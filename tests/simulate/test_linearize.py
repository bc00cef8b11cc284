"""First order of PyTorch networks: Jacobians of every kind of operation against autograd, the noise file, its gains."""

from typing import Any

import numpy as np
import pytest

from tests.support.small_network import K, made
from theory.all_layers import error_power
from theory.setting.errors import InputError
from theory.setting.files import read_noise
from theory.setting.noise import noise_ratio
from theory.setting.plan import network_plans

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import simulate  # noqa: E402
import theory  # noqa: E402
from simulate.networks.jacobians import Trace, jacobian, row_grams, shifts, weights_of  # noqa: E402


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
