"""Every scheme on halves of real networks: what is measured, the lines made of it, what the shipped table and figures say."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from figures import choices, rate_distortion
from simulate import measure
from simulate.experiments import best_step, fewest_bits, rates
from simulate.experiments.real import shipped_table
from simulate.feature_models.fit import fit
from simulate.sampling.paired_counting import draw
from tests.support.cases import compressed
from tests.support.problems import random_problem
from theory.prediction import predict
from theory.setting.errors import InputError
from theory.setting.features import Features
from theory.setting.question import question
from theory.setting.schemes import SCHEMES, compress


def halves(seed, K=3, d=6):
    problem = random_problem(d, seed, K=K)
    parts = [draw(problem, 2000, np.random.default_rng([seed, i])) for i in range(2)]
    return [Features(features=z + 1.0, labels=y, weights=problem.weights, bias=problem.bias) for z, y in parts]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("model", [None, "gaussian"])
def test_the_second_half_only_counts(bias, model, seed):
    """The bias is corrected by the mean feature of the first half; decisions put together here."""
    fitted, other = halves(seed)
    other = replace(other, features=other.features + 0.5)  # another mean feature, which must not be used
    subject = fitted if model is None else fit(fitted)
    W, b, z = fitted.weights, fitted.bias, other.features
    columns = np.concatenate([W, b[:, None]], 1) if bias else W
    What = compress(columns, "symmetric", 2).weights
    held = What[:, 6] if bias else b
    after = np.argmax(z @ What[:, :6].T + held + (W - What[:, :6]) @ fitted.features.mean(0), 1)
    (seen,) = measure(other, compressed_by=subject, scheme="symmetric", bits=[2], bias=bias, bias_correction=True)
    assert seen.risk_after == pytest.approx(np.mean(after != other.labels), abs=1e-12)
    assert seen.risk_before == pytest.approx(np.mean(np.argmax(z @ W.T + b, 1) != other.labels), abs=1e-12)


def test_integer_inputs_keep_the_range_of_the_first_half(seed):
    fitted, other = halves(seed)
    asked = question("integer", activation_bits=3)
    (layer,) = compressed(asked, fitted, [4])
    low, high = min(fitted.features.min(), 0.0), fitted.features.max()
    step = float(np.float32((high - low) / 7))
    zero = np.rint(-low / step)
    p = np.clip(np.rint(other.features / step) + zero, 0, 7) - zero
    product = layer.steps[0, 0] * step
    sums = p @ np.rint(layer.weights / layer.steps[0, 0]).T + np.rint(fitted.bias / product)
    (seen,) = measure(other, compressed_by=fitted, scheme="integer", bits=[4], activation_bits=3)
    assert seen.risk_after == pytest.approx(np.mean(np.argmax(sums, 1) != other.labels), abs=1e-12)


def test_the_best_step_is_that_of_the_first_half_and_other_layers_are_refused(seed):
    fitted, other = halves(seed)
    (layer,) = compressed(question("optimal"), fitted, [2])
    (seen,) = measure(other, compressed_by=fitted, scheme="optimal", bits=[2])
    after = np.argmax(other.features @ layer.weights.T + other.bias, 1)
    assert seen.risk_after == pytest.approx(np.mean(after != other.labels), abs=1e-12)
    with pytest.raises(InputError, match="compressed_by: expected statistics or features of the same layer"):
        measure(other, compressed_by=replace(fitted, weights=2 * fitted.weights), scheme="optimal", bits=[2])


def test_every_scheme_is_asked_and_no_rate_is_beyond_the_highest():
    assert {options["scheme"] for options, _ in rates.cells()} == set(SCHEMES)
    rows = shipped_table(rates.NAME)
    assert {row["scheme"] for row in rows} == set(SCHEMES)
    assert max(row["rate"] for row in rows) <= rates.HIGHEST


def test_predictions_of_real_networks_hold():
    """The shipped table: nine cells of ten in the interval, of posteriors in each scheme, closer than no loss."""
    rows = shipped_table(rates.NAME)
    for line in (*rates.by(rows, "model", "network"), *rates.by(rows, "model")):
        assert line["inside"] >= 0.9, line
    for line in rates.by(rows, "model", "scheme"):
        assert line["error"] < line["no_loss"], line
        assert line["inside"] >= 0.9 or line["model"] == rates.STATISTICS, line


def test_a_small_network_goes_through(seed):
    """Rows for posteriors and statistics with what each needs; the fewest bits keep what they promise on most halves."""
    features, _ = halves(seed)
    rows = rates._question(features, features, {"scheme": "codebook", "bias_correction": True}, [1, 2], 0)
    assert [row["bits"] for row in rows] == [1]  # two centroids a bit more and the rate is beyond HIGHEST
    assert all(row["low"] <= row["predicted"] <= row["high"] for row in rows)


def test_the_chosen_width_is_held_against_the_other_half(seed, monkeypatch):
    """Bounds and losses made up: what is asked for, of which half, and how it is counted."""
    features, _ = halves(seed)
    (record,) = predict(features, scheme="affine", bits=[3])
    losses = {1: 0.3, 2: 0.04, 3: 0.06, **dict.fromkeys(range(4, 17), 0.0)}
    asked, fitted_half = [], []

    def bounded(subject, schemes, bits, *, confidence, **ask):
        asked.append((tuple(schemes), bits, confidence, ask["test_size"], ask["bias_correction"]))
        fitted_half.append(subject)
        made = [replace(record, bits=B, rate=float(B)) for B in (2, 3, 4)]
        return made, [0.2, 0.05, 0.01] if len(asked) < 4 else [0.2, 0.2, 0.01]

    def measure(other, *, compressed_by, scheme, bits, bias_correction):
        assert compressed_by is fitted_half[-1]
        assert len(other.labels) == 1000
        assert not np.array_equal(other.features, compressed_by.features)
        assert (scheme, bias_correction, list(bits)) == ("affine", True, list(range(1, 17)))
        return [replace(record, bits=B, distortion=losses[B]) for B in bits]

    monkeypatch.setattr(fewest_bits, "bounded", bounded)
    monkeypatch.setattr(fewest_bits, "measure", measure)
    options: dict = {"schemes": ["affine"], "losses": [0.05], "models": [rates.POSTERIOR], "corrections": [True]}
    (line,) = fewest_bits.fewest_bits(features, halves=4, seed=seed, **options)
    assert asked == [(("affine",), None, 0.95, 1000, True)] * 4
    assert (line["chosen"], line["kept"], line["fewer_kept"]) == (4, 0.25, 0.75)  # 3, 3, 3, 4 bits: 3 loses .06, 2 bits .04
    assert (line["mean_bits"], line["enough_bits"]) == (3.25, 2.0)


def test_the_least_loss_is_counted():
    names = list(best_step.STEPS)
    losses = [[3.0, 2.0, 1.0], [1.0, 1.0, 2.0]]
    rows = [
        {"problem": "p", "granularity": "tensor", "bits": i, "step": name, "distortion": x / 100, "group": 0}
        for i, values in enumerate(losses)
        for name, x in zip(names, values, strict=True)
    ]
    (line,) = best_step.compared(rows, "group")
    assert line["cells"] == 2
    np.testing.assert_allclose([line[name] for name in names], [2.0, 1.5, 1.5])
    assert [line[f"least: {name}"] for name in names] == [1, 1, 1]


def test_the_best_step_wins_on_the_images_that_did_not_choose_it():
    rows = best_step.measured()
    assert len({(r["problem"], r["granularity"], r["bits"], r["step"]) for r in rows}) == len(rows) == 5 * 2 * 5 * 3
    plain = [r for r in shipped_table(rates.NAME) if r["scheme"] == "symmetric" and not (r["bias"] or r["bias_correction"])]
    (one,) = [
        r for r in plain if (r["network"], r["model"], r["granularity"], r["bits"]) == ("ResNet-20", "posterior", "tensor", 2)
    ]
    assert rows[0]["distortion"] == one["distortion"]
    assert rows[0]["standard_error"] == pytest.approx(np.sqrt((one["flip_rate"] - one["distortion"] ** 2) / one["n"]))
    table = best_step.compared([row | {"all": 0} for row in rows], "all")[0]
    assert table["distortion"] < min(table["largest weight"], table["squared error"])


def test_the_front_has_nothing_beside_it():
    rows = [{"rate": r, "predicted": p} for r, p in [(1, 5.0), (2, 4.0), (2, 3.0), (3, 3.0), (4, 0.0), (5, -1.0)]]
    assert [(one["rate"], one["predicted"]) for one in rate_distortion.front(rows)] == [(1, 5.0), (2, 3.0), (4, 0.0)]


def test_choices_are_drawn_as_they_are_in_the_table():
    table, comparison = choices.compute()
    assert {one["claim"] for one in comparison} == {"measured"}
    figure = choices.draw(table)
    for axis, (panel, curves) in zip(figure.axes, choices.CURVES.items(), strict=True):
        first = [one for one in table if one["panel"] == panel and one["curve"] == curves[0][0] and one["bits"] == 2]
        line = np.asarray(axis.lines[0].get_ydata(), float)
        assert line[0] == pytest.approx(100 * np.mean([one["predicted"] for one in first]))
        assert len(first) >= 3
    plt.close(figure)
