"""PyTorch networks run with all layers compressed: by hand, folded, recalibrated, with random errors; what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.small_network import K, Small, decisions, made, rounded_weights
from theory.setting.errors import InputError
from theory.setting.schemes import compress

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

from torch import nn  # noqa: E402

import simulate  # noqa: E402
import theory  # noqa: E402


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


def test_batch_norm_is_folded_as_by_hand(small):
    model, x, _, options = small
    model.norm.weight.data.uniform_(-2, 2)
    kept = {name: values.clone() for name, values in model.state_dict().items()}
    changed = rounded_weights(folded_by_hand(model), 4)
    before = decisions(model, x[:150])
    (record,) = simulate.run(**options, scheme="symmetric", bits=[4], calibrate=50, fold=True)
    assert record.flip_rate == pytest.approx(np.mean(before != decisions(changed, x[:150])), abs=1.5 / 150)
    for name, values in kept.items():  # after it the network is as it was, bit by bit
        assert torch.equal(model.state_dict()[name], values), name


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
    kept = {name: values.clone() for name, values in model.state_dict().items()}
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
    for name, values in kept.items():
        assert torch.equal(model.state_dict()[name], values), name
    (drawn,) = simulate.run(**options, **question, errors="expected", networks=8, recalibrate=True)
    assert drawn.method == "networks_drawn"


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
