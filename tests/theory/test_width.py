"""How few bits: the bound, every width, what is said when none will do."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

import theory.__main__
from tests.support.problems import random_problem
from theory.choose.width import SPARSITIES, _trials, bits, choice
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.files import write_statistics
from theory.setting.schemes import scheme_of

KNOWN = replace(random_problem(8, 3, K=4), counts=np.array([300, 400, 500, 600]))
BINARY = replace(random_problem(8, 3), counts=np.array([300, 400]))  # the same question in a tenth of the time


@pytest.mark.slow
def test_the_bound_is_one_sided_and_holds_the_numerical_error():
    found = bits(KNOWN, scheme="symmetric", max_loss=0.01, confidence=0.9)
    widths = [record.bits for record in found["records"]]
    for again, bound in zip(predict(KNOWN, scheme="symmetric", bits=widths), found["upper_bounds"], strict=True):
        sd = np.sqrt(sum(x**2 for x in again.interval_sources.values()))
        assert bound == pytest.approx(again.distortion + norm.ppf(0.9) * sd + again.numerical_error, rel=0.02, abs=1e-7)
    assert len(found["records"]) == 15


@pytest.mark.slow
def test_fewest_stored_bits_among_all_that_qualify():
    """Of several schemes, by stored bits and not by the width; one that says more is not chosen."""
    found = bits(KNOWN, scheme=["symmetric", "affine", "codebook"], max_loss=0.02)
    chosen = found["chosen"]
    kept = [r.rate for r, b in zip(found["records"], found["upper_bounds"], strict=True) if b <= 0.02]
    assert chosen.rate == min(kept)
    assert str(chosen.bits) in found["sentence"]
    assert chosen.scheme in found["sentence"]
    assert found["closest"] is None
    tighter = bits(KNOWN, scheme=["symmetric", "affine", "codebook"], max_loss=0.002)
    assert tighter["chosen"].rate > chosen.rate


def test_the_loss_is_not_monotone_and_that_is_said():
    """Thirds lie on the grid of 3 bits and on neither that of 2 nor that of 4."""
    rng = np.random.default_rng(0)
    W = rng.choice([-1.0, -1 / 3, 1 / 3, 1.0], (2, 8))
    W[:, 0] = 1.0, -1.0
    problem = replace(random_problem(8, 1), weights=W, bias=np.zeros(2))
    losses = [abs(record.distortion) for record in predict(problem, scheme="symmetric", bits=[2, 3, 4])]
    assert losses[1] < 1e-7 < min(losses[0], losses[2])
    found = bits(problem, scheme="symmetric", max_loss=1e-7, bits=[2, 3, 4])
    assert found["chosen"].bits == 3
    assert found["sentence"].endswith("not monotone: 4 bits may lose more")


def test_none_qualifies_is_an_answer(tmp_path, capsys):
    write_statistics(tmp_path / "s.npz", BINARY)
    ask = ["bits", str(tmp_path / "s.npz"), "--scheme", "symmetric", "--bits", "2", "3", "--max-loss", "0.00001"]
    assert theory.__main__.main(ask) == 3
    assert "no width keeps" in capsys.readouterr().out
    found = bits(BINARY, scheme="symmetric", bits=[2, 3], max_loss=1e-5)
    assert found["chosen"] is None
    assert found["closest"].bits == 3
    assert theory.__main__.main([*ask, "--json"]) == 3
    assert '"chosen": null' in capsys.readouterr().out


def test_the_bound_and_not_the_prediction_decides():
    """Records made up: little loss predicted with little known, and the other way round."""
    (one,) = predict(BINARY, scheme="symmetric", bits=[3])
    made = [replace(one, bits=B, distortion=D, rate=rate) for B, D, rate in ((2, 0.0, 2.0), (3, 0.009, 3.0), (4, 0.002, 4.0))]
    bounds = [0.03, 0.0095, 0.012]
    found = choice(made, bounds, 0.01, 0.95)
    assert found["chosen"].bits == 3
    none = choice(made, bounds, 0.001, 0.95)
    assert none["chosen"] is None
    assert none["closest"].bits == 3


def test_several_schemes_each_with_the_options_and_widths_it_has():
    asked: dict = dict(sparsity=0.25, criterion="mse", per_channel=True, bits=[1, 3, 16], max_loss=0.5)
    found = bits(KNOWN, scheme=["symmetric", "optimal", "deep-compression", "prune"], **asked)["records"]
    assert [(one.scheme, one.bits) for one in found] == [
        *((scheme, width) for scheme in ("symmetric", "optimal") for width in (3, 16)),
        ("deep-compression", 1),
        ("deep-compression", 3),
        ("prune", None),
    ]
    assert [one.sparsity for one in found] == [0.0] * 4 + [0.25] * 3
    assert [one.granularity for one in found] == ["channel"] * 4 + ["tensor"] * 3
    with pytest.raises(InputError, match="sparsity: expected none for scheme symmetric"):
        bits(KNOWN, scheme=["symmetric", "affine"], sparsity=0.5, max_loss=0.5)
    with pytest.raises(InputError, match="bits: expected widths that one of"):
        bits(KNOWN, scheme=["symmetric", "affine"], bits=[17], max_loss=0.5)


def test_the_sentence_says_points_and_what_the_file_held():
    half = replace(KNOWN, source_bits=16)
    said = bits(half, scheme="symmetric", bits=[3], max_loss=0.5)["sentence"]
    assert "times smaller than float32, 4 times smaller than in the file it came from" in said
    assert "points, allowed 50 points)" in said
    wide = bits(half, scheme="prune", sparsity=0.05, max_loss=0.5)
    assert "larger than in the file it came from" in wide["sentence"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_loss": 1.0}, "a fraction"),
        ({"max_loss": -0.1}, "max_loss"),
        ({"max_loss": float("nan")}, "max_loss"),
        ({"max_loss": 0.01, "confidence": 0.4}, "confidence"),
        ({"max_loss": 0.01, "scheme": "prune"}, "sparsity"),
        ({"max_loss": 0.01, "scheme": "nonsense"}, "scheme"),
    ],
)
def test_what_is_refused(options, named):
    with pytest.raises(InputError, match=named):
        bits(KNOWN, **({"scheme": "symmetric"} | options))


def test_schemes_that_need_an_option_are_tried_with_its_usual_value_beside_others():
    names = ("symmetric", "integer", "prune-structured")
    trials = _trials([scheme_of(name) for name in names], {"bias_correction": True})
    assert [scheme.name for scheme, _ in trials] == ["symmetric", "integer", *["prune-structured"] * len(SPARSITIES)]
    assert trials[1][1]["activation_bits"] == 8
    assert {options["unit"] for _, options in trials[2:]} == {"feature"}
    assert [options["sparsity"] for _, options in trials[2:]] == list(SPARSITIES)
    assert "activation_bits" not in trials[0][1]
    own = _trials([scheme_of("symmetric"), scheme_of("integer")], {"activation_bits": 4})
    assert own[1][1]["activation_bits"] == 4
