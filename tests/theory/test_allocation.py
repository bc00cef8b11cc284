"""Bits for each layer: against every plan there is, sensitivities against differences, plans as files."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.noise import noise_of
from tests.support.problems import random_problem
from tests.support.samples import sample
from theory.all_layers import error_power, predicted, state_of
from theory.choose.allocation import Search, allocate
from theory.interval import Asked
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.precision import in_float64

ASKED = Asked(confidence=0.95, test_size=None, seed=0)
BITS = (2, 3, 4, 5, 6)


def test_the_plan_is_near_the_best_of_all(seed, tmp_path):
    noise = noise_of(seed)
    found = allocate(noise, scheme="symmetric", budget=4.2, bits=BITS, temperature=1.0, seed=seed, out=tmp_path / "plan.json")
    search = Search(state_of(noise, 1.0), "symmetric", BITS, {}, ASKED)
    losses = {}
    for widths in itertools.product(BITS, repeat=3):
        bits = dict(zip("abc", widths, strict=True))
        if search.rate(bits) <= 4.2:
            losses[widths] = predicted(search.state, search.plan(bits), ASKED).distortion
    assert found["record"].distortion <= 1.1 * min(losses.values())
    assert found["record"].distortion <= found["uniform"].distortion
    assert found["gap"] < 1e-6
    assert found["rate"] <= 4.2
    (again,) = predict(noise, scheme="symmetric", plan=tmp_path / "plan.json", temperature=1.0, seed=seed)
    assert again.distortion == pytest.approx(found["record"].distortion, rel=1e-9)
    assert again.rate == pytest.approx(found["rate"])
    assert again.plan == {name: own["bits"] for name, own in found["plan"]["tensors"].items()}


def test_the_smallest_rate_that_keeps_a_loss(seed):
    noise = noise_of(seed)
    found = allocate(noise, scheme="symmetric", max_loss=0.02, bits=BITS, temperature=1.0, seed=seed)
    assert found["record"].distortion <= 0.02
    tighter = allocate(noise, scheme="symmetric", budget=found["rate"] - 0.3, bits=BITS, temperature=1.0, seed=seed)
    assert tighter["record"].distortion > 0.02


@in_float64
def test_sensitivities_are_the_slopes_of_the_loss(seed):
    """At small noise, where the pairwise bound is near the chance: within 15 % of a difference of the loss itself."""
    noise = noise_of(seed)
    search = Search(state_of(noise, 1.0), "symmetric", BITS, {}, ASKED)
    bits = dict.fromkeys("abc", 5)
    slopes, loss = search.sensitivities(bits), search.record(bits).distortion
    for t in range(3):
        grams = noise.grams[""].copy()
        grams[t] *= 1.05
        other = Search(state_of(replace(noise, grams={"": grams}), 1.0), "symmetric", BITS, {}, ASKED)
        variance = error_power(noise, search.plan(bits)).by_scale[""][t]
        difference = (other.record(bits).distortion - loss) / (0.05 * variance)
        assert slopes[t] == pytest.approx(difference, rel=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "budget, max_loss: expected one of the two, got none"),
        ({"budget": 4.0, "max_loss": 0.1}, "budget, max_loss: expected one of the two, got both"),
        ({"budget": 1.5}, "budget: expected at least 2"),
        ({"max_loss": 1e-9}, "max_loss: expected one that 6 bits for all keep"),
        ({"budget": 4.0, "scheme": "codebook"}, "scheme: expected one with a step"),
    ],
)
def test_what_cannot_be_allocated(options, message):
    with pytest.raises(InputError, match=message):
        allocate(noise_of(0), **{"scheme": "symmetric", "bits": BITS, "temperature": 1.0, **options})


def document(granularity: str, **bits: object) -> str:
    tensors = {name: {"bits": width} for name, width in bits.items()}
    return json.dumps({"scheme": "symmetric", "granularity": granularity, "tensors": tensors})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "plan: expected an object with `scheme`"),
        (document("tensor", a=3, d=3), "got 'd': a plan of another network"),
        (document("tensor", a=3), "got none for b, c"),
        (document("row", a=3, b=3, c=3), "granularity: expected tensor or channel"),
        (document("tensor", a=3, b=3, c=1), "bits: expected 2 to 16"),
        ("{", "plan: expected one JSON text"),
        (document("tensor", a="four", b=3, c=3), "plan: a: bits: expected a whole number at least 1, got 'four'"),
    ],
)
def test_plans_that_cannot_serve(tmp_path, text, message):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(InputError, match=message):
        predict(noise_of(0), scheme="symmetric", plan=tmp_path / "plan.json", temperature=1.0)


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"scheme": "affine"}, "scheme: expected symmetric of the plan, got affine"),
        ({"bits": [3]}, r"bits: expected none beside a plan, which says it for every weight, got \[3\]"),
        ({"layer_bits": {"a": 4}}, "layer_bits: expected none beside a plan"),
        ({"group_size": 5}, "group_size: expected none beside a plan"),
    ],
)
def test_what_a_plan_says_may_not_be_said_otherwise(tmp_path, beside, message):
    (tmp_path / "plan.json").write_text(document("channel", a=3, b=3, c=3))
    asked = {"scheme": "symmetric", "plan": tmp_path / "plan.json", "temperature": 1.0}
    (alone,), (agreeing,) = predict(noise_of(0), **asked), predict(noise_of(0), **asked, per_channel=True)
    assert agreeing.distortion == alone.distortion
    with pytest.raises(InputError, match=message):
        predict(noise_of(0), **{**asked, **beside})
    (tmp_path / "plan.json").write_text(document("tensor", a=3, b=3, c=3))
    with pytest.raises(InputError, match="per_channel: expected none beside a plan"):
        predict(noise_of(0), **asked, per_channel=True)
    with pytest.raises(InputError, match="plan: expected none for a single layer"):
        predict(random_problem(4, 3), scheme="symmetric", plan=tmp_path / "plan.json")


def test_a_tensor_may_have_a_granularity_of_its_own(tmp_path):
    noise = noise_of(0)
    own = {"a": {"bits": 3}, "b": {"bits": 4, "granularity": "channel"}, "c": {"bits": 3}}
    (tmp_path / "plan.json").write_text(json.dumps({"scheme": "symmetric", "granularity": "tensor", "tensors": own}))
    (record,) = predict(noise, scheme="symmetric", plan=tmp_path / "plan.json", temperature=1.0)
    assert record.rate == pytest.approx((3 * 100 + 4 * 400 + 3 * 50 + 32 * (1 + 10 + 1)) / 550)


@pytest.mark.parametrize("kind", ["statistics", "features"])
def test_rows_of_a_last_layer_get_widths_of_their_own(kind, seed):
    """A row ten times as small needs fewer bits; the prediction is that of steps a row at one width, and the budget is kept."""
    problem = random_problem(24, seed, K=4)
    scale = np.array([1.0, 0.05, 1.0, 1.0])
    problem = replace(problem, weights=problem.weights * scale[:, None])
    subject = problem if kind == "statistics" else sample(problem, 3000, np.random.default_rng(seed))
    found = allocate(subject, scheme="symmetric", budget=5.0, bits=BITS, seed=seed)
    widths = {name: own["bits"] for name, own in found["plan"]["tensors"].items()}
    assert list(widths) == [f"weights[{k}]" for k in range(4)]
    assert widths["weights[1]"] == min(widths.values()) < max(widths.values())
    assert found["rate"] <= 5.0
    assert found["uniform"] is not None
    assert found["record"].distortion <= found["uniform"].distortion
    (same,) = predict(problem, scheme="symmetric", bits=[found["uniform"].bits], per_channel=True, errors="expected", seed=seed)
    error = np.hypot(found["uniform"].interval_sources["statistics"], same.numerical_error)
    assert abs(found["uniform"].distortion - same.distortion) < 4.5 * error + 0.1 * same.distortion
    assert abs(found["uniform"].flip_rate - same.flip_rate) < 0.15 * same.flip_rate
    assert found["uniform"].provenance["gain"] == 1
    assert not any("first order" in warning for warning in found["record"].warnings)
