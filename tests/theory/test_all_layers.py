"""All layers from the noise of the logits: orthants of decisions and the closed form against plain sampling."""

from dataclasses import replace

import numpy as np
import pytest

from tests.support.noise import C, n, noise_of
from theory.all_layers import error_power
from theory.integrals.decisions import wins
from theory.integrals.orthant import estimate
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.files import read_noise, write_noise
from theory.setting.noise import noise_ratio
from theory.setting.plan import network_plans
from theory.setting.precision import in_float64


@pytest.mark.parametrize("rank", [3, 7])
@in_float64
def test_decisions_of_gaussian_logits_are_those_counted(rank, seed):
    """Full and deficient covariances; the reported error is that of the replicates."""
    noise = noise_of(seed, rank)
    covariance, decided = 0.02 * noise.grams[""].sum(0), noise.logits.argmax(1)
    chances, near = wins(noise.logits, covariance, decided, seed=seed)
    assert not chances[:, np.arange(n), decided].any()
    assert not chances[:, ~near].any()
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
    after = np.array([(noise.logits + (root @ rng.standard_normal((n, C, 1)))[..., 0]).argmax(1) for _ in range(2000)])
    counted = (after != decided).mean(1)
    found = estimate(chances.sum(2).mean(1))
    assert abs(found.value - counted.mean()) < 4.5 * np.hypot(counted.std() / np.sqrt(2000), found.error / 2)
    assert found.error < 0.01 * found.value


def test_the_record_of_a_noise_file(tmp_path, seed):
    """Rate, distortion and flips of different widths against sampling with the gain; the spread against the draws."""
    noise = noise_of(seed)
    write_noise(tmp_path / "noise.npz", noise)
    kept = read_noise(tmp_path / "noise.npz")
    bits = {"a": 3, "b": 4, "c": 3}
    (record,) = predict(kept, scheme="symmetric", layer_bits=bits, temperature=1.5, seed=seed)
    assert record.bits is None
    assert record.plan == bits
    assert record.rate == pytest.approx((3 * 100 + 4 * 400 + 3 * 50 + 96) / 550)
    variance = np.array([(0.4 / 3) ** 2, (0.9 / 7) ** 2, (0.3 / 3) ** 2]) / 12
    G = np.einsum("t,tnij->nij", variance, noise.grams[""])
    centring = np.eye(C) - 1 / C
    V = np.mean((noise.logits @ centring) ** 2)
    ratio = np.mean(np.trace(centring @ G, axis1=1, axis2=2)) / C / V
    gain = np.exp(-1.2 * ratio)
    assert record.provenance["gain"] == pytest.approx(gain, rel=1e-4)
    p = noise.posterior(1.5)
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(np.sqrt(gain) * G + 1e-9 * np.eye(C))
    before, rows = noise.logits.argmax(1), np.arange(n)
    afters = [(gain * noise.logits + (root @ rng.standard_normal((n, C, 1)))[..., 0]).argmax(1) for _ in range(2000)]
    lost = np.array([np.mean(p[rows, before] - p[rows, after]) for after in afters])
    assert record.risk_before == pytest.approx(1 - p.max(1).mean(), abs=1e-5)
    assert abs(record.distortion - lost.mean()) < 4.5 * np.hypot(lost.std() / np.sqrt(2000), record.numerical_error / 2)
    recalls = [(c["prior"], c["recall_before"] - c["recall_after"]) for c in record.per_class]
    assert sum(prior * drop for prior, drop in recalls) == pytest.approx(record.distortion, abs=2e-4)
    shifts = np.einsum("t,mtnk->mnk", np.sqrt(variance), noise.draws[""])
    after = (gain * noise.logits + gain**0.25 * shifts).argmax(2)
    single = np.mean(p[rows, before] - p[rows, after], 1)
    assert record.interval_sources["network"] == pytest.approx(single.std(), rel=0.05)
    low, high = record.interval
    assert low < record.distortion < high


def test_the_interval_knows_the_error_of_the_temperature(seed):
    """With labels: what a fitted temperature may be off by moves the loss, by its derivative; a given one is exact."""
    noise = noise_of(seed)
    p = noise.posterior(1.5)
    labels = np.array([np.random.default_rng([seed, i]).choice(C, p=row) for i, row in enumerate(p)])
    labelled = replace(noise, labels=labels)
    (fitted,) = predict(labelled, scheme="symmetric", bits=[3], seed=seed)
    T = fitted.provenance["temperature"]
    given, up, down = (
        predict(noise, scheme="symmetric", bits=[3], temperature=T * factor, seed=seed)[0] for factor in (1, 1.01, 1 / 1.01)
    )
    slope = (up.distortion - down.distortion) / (2 * np.log(1.01))
    gap = fitted.interval_sources["statistics"] ** 2 - given.interval_sources["statistics"] ** 2
    error = fitted.provenance["log_temperature_error"]
    assert 0.02 < error < 0.5
    assert np.sqrt(gap) == pytest.approx(abs(slope) * error, rel=0.02)


def test_shares_say_which_layer_costs(seed):
    """They sum to 1 and are those of the losses with a little more noise in one weight at a time."""
    noise = noise_of(seed)
    (record,) = predict(noise, scheme="symmetric", bits=[4], temperature=1.5, method="first_order", seed=seed)
    shares = record.provenance["shares"]
    assert list(shares) == ["a", "b", "c"]
    assert sum(shares.values()) == pytest.approx(1)
    grown = []
    for t in range(3):
        gram = noise.grams[""].copy()
        gram[t] *= 1.15
        (more,) = predict(
            replace(noise, grams={"": gram}), scheme="symmetric", bits=[4], temperature=1.5, method="first_order", seed=seed
        )
        grown.append(more.distortion - record.distortion)
    np.testing.assert_allclose(list(shares.values()), np.array(grown) / sum(grown), atol=0.06)


def test_draws_have_gains_of_their_own(seed):
    """With gain rates the mean of them is kappa, and each draw shrinks by its own."""
    noise = noise_of(seed)
    rates = np.random.default_rng(seed).uniform(0.5, 3.0, 200)
    (record,) = predict(replace(noise, gain_rates=rates), scheme="symmetric", bits=[3], temperature=1.5, seed=seed)
    ratio = record.provenance["noise_ratio"]
    assert record.provenance["kappa"] == pytest.approx(rates.mean())
    assert record.provenance["gain"] == pytest.approx(np.exp(-rates.mean() * ratio))
    variance = np.array([0.4, 0.9, 0.3]) ** 2 / 9 / 12
    gains = np.exp(-rates * ratio)[:, None, None]
    shifts = np.einsum("t,mtnk->mnk", np.sqrt(variance), noise.draws[""])
    p, before, rows = noise.posterior(1.5), noise.logits.argmax(1), np.arange(n)
    after = (gains * noise.logits + gains**0.25 * shifts).argmax(2)
    single = np.mean(p[rows, before] - p[rows, after], 1)
    assert record.interval_sources["network"] == pytest.approx(single.std(), rel=1e-6)


def test_channels_take_their_own_gram(seed):
    """Steps a channel: the Gram whose rows are scaled with their range, at the step of a range of 1."""
    noise = noise_of(seed)
    (plan,) = network_plans("abc", "symmetric", [4], options={"per_channel": True})
    power = error_power(noise, plan)
    assert not power.by_scale[""].any()
    np.testing.assert_allclose(power.by_scale["_channel_symmetric"], 1 / 7**2 / 12, rtol=1e-6)
    tensor = error_power(noise, network_plans("abc", "affine", [4])[0]).by_scale[""]
    np.testing.assert_allclose(tensor, (1.5 * np.array([0.4, 0.9, 0.3]) / 15) ** 2 / 12, rtol=1e-6)


def test_common_noise_changes_no_decision(seed):
    """Noise that all logits share is no noise: no flips, and v/V is 0."""
    noise = noise_of(seed)
    shared = np.ones((3, n, C, C))
    common = replace(noise, grams={"": shared}, draws={})
    (record,) = predict(common, scheme="symmetric", bits=[3], temperature=1.0)
    assert record.flip_rate == 0
    assert noise_ratio(common.logits, shared.sum(0)) == pytest.approx(0, abs=1e-12)


def test_where_first_order_ends_is_said(seed):
    noise = noise_of(seed)
    strong = replace(noise, grams={"": 20 * noise.grams[""]}, draws={"": np.sqrt(20) * noise.draws[""]})
    records = predict(strong, scheme="symmetric", bits=[2, 8], temperature=1.0)
    assert any("too strong for first order" in warning for warning in records[0].warnings)
    assert any("errors of 2 bits or fewer are not uniform (a, b, c)" in warning for warning in records[0].warnings)
    assert not records[1].warnings
    (alone,) = predict(replace(noise, draws={}), scheme="symmetric", bits=[8], temperature=1.0)
    assert alone.warnings == ["no draws in the noise file: the spread between single networks is not in the interval"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(bits=[3], scheme="codebook", temperature=1.0), "scheme: expected one with a step"),
        (dict(bits=[3]), "labels: missing"),
        (dict(bits=[3], temperature=1.0, layers=["d"]), "layers: expected weights among a, b, c, got 'd'"),
        (dict(layer_bits={"a": 1}, temperature=1.0), "bits: expected 2 to 16"),
        (dict(bits=[3], temperature=1.0, errors="actual"), "errors: expected none with a noise file"),
        (dict(bits=[3], temperature=1.0, group_size=4), "group_size: expected none for a noise file"),
        (dict(bits=[3], temperature=1.0, per_channel=True, scheme="affine"), "per_channel: expected gram_channel_affine"),
    ],
)
def test_what_a_noise_file_cannot_be_asked(options, message):
    with pytest.raises(InputError, match=message):
        predict(noise_of(0), **{"scheme": "symmetric", **options})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gram", lambda x: x[:, :-1], "gram: expected shape"),
        ("gram", lambda x: -x, "gram: expected variances of at least 0"),
        ("gram", lambda x: x * np.triu(np.ones((C, C))), "gram: expected symmetric"),
        ("logits", lambda x: x * np.nan, "logits: expected finite values"),
        ("candidates", lambda x: x[:, ::-1], "candidates: expected ascending"),
        ("tensor_kinds", lambda x: np.array(["weight", "weight", "bias"]), "tensor_kinds: expected weight or input"),
        ("tensor_names", lambda x: np.array(["a", "a", "b"]), "tensor_names: expected weights, each once"),
        ("tensor_low", lambda x: -x + 1, "tensor_low: expected at most tensor_high"),
        ("draws", lambda x: x[:1], "draws: expected shape"),
        ("gain_rates", lambda x: x[:5], "gain_rates: expected one a draw"),
    ],
)
def test_a_wrong_noise_file_is_one_line(tmp_path, name, change, message):
    write_noise(tmp_path / "noise.npz", replace(noise_of(0), gain_rates=np.ones(200)))
    arrays = dict(np.load(tmp_path / "noise.npz"))
    arrays[name] = change(arrays[name])
    np.savez(tmp_path / "noise.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_noise(tmp_path / "noise.npz")


def test_inputs_are_rounded_too(seed):
    """The noise of a layer's input is added where its layer is compressed, at the step of its range."""
    noise = noise_of(seed)
    tensors = replace(noise.tensors, kinds=("weight", "weight", "input"), names=("a", "b", "b"))
    mixed = replace(noise, tensors=tensors, draws={})
    (plan,) = network_plans(["a", "b"], "symmetric", [4])
    power = error_power(mixed, plan, 5).by_scale[""]
    assert power[2] == pytest.approx((1.5 * 0.3 / 31) ** 2 / 12, rel=1e-6)
    assert not error_power(mixed, plan).by_scale[""][2]
    (only,) = network_plans(["a", "b"], "symmetric", [4], layers=["a"])
    assert not error_power(mixed, only, 5).by_scale[""][1:].any()
    question: dict = dict(scheme="symmetric", bits=[4], temperature=1.0)
    (weights,), (both,) = predict(mixed, **question), predict(mixed, activation_bits=2, **question)
    assert both.flip_rate > weights.flip_rate
    with pytest.raises(InputError, match="activation_bits: expected tensors of kind `input`"):
        predict(noise, scheme="symmetric", bits=[4], temperature=1.0, activation_bits=4)
