"""The studies of whole networks, on a small one: what their tables say of each other, and of a network run by hand."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("PIL")

from simulate.experiments.all_layers import all_layers
from simulate.experiments.sensitivities import sensitivities
from simulate.experiments.unlabelled import CASES, summary, unlabelled
from tests.support.small_network import decisions, rounded_weights


@pytest.mark.parametrize("fold", [False, True])
def test_whole_networks_beside_their_prediction(small, seed, fold):
    """Bounds bound, both ways to the mean agree, activations of 16 bits change nothing."""
    _, _, _, options = small
    own: dict = dict(**options, checkpoint=None, bits=[4], images=80, draws=24, networks=24, fold=fold, seed=seed)
    rows = all_layers(**own, activation_bits=(None, 16))
    assert [row["granularity"] for row in rows] == (["tensor, folded"] * 2 if fold else ["tensor"] * 2 + ["channel"] * 2)
    for row in rows:
        assert row["sakr_flips"] > row["flips"]
        error = np.hypot(row["signs_sd"] / np.sqrt(24), row["networks_sd"] / np.sqrt(24))
        assert abs(row["distortion"] - row["networks_mean"]) < 4.5 * error
        assert row["networks_inside"] > 0.7  # of 24 where 95 % are said
        assert abs(row["predicted"] - row["distortion"]) < 4.5 * row["standard_error"] + 0.15 * row["predicted_flips"]
        assert row["standard_error"] == pytest.approx(row["signs_sd"] / np.sqrt(24))
    for plain, rounded in zip(rows[::2], rows[1::2], strict=True):
        assert (plain["activation_bits"], rounded["activation_bits"]) == (None, 16)
        assert rounded["predicted"] == pytest.approx(plain["predicted"], rel=0.01)
        assert abs(rounded["actual"] - plain["actual"]) < 0.03


def test_one_layer_at_a_time(small, seed):
    _, _, _, options = small
    rows = sensitivities(**options, checkpoint=None, images=80, draws=24, seed=seed)
    assert [row["layer"] for row in rows] == ["conv.weight", "head.weight"]
    for row in rows:
        assert abs(row["predicted"] - row["distortion"]) < 4.5 * row["standard_error"] + 0.15 * row["predicted_flips"]


def test_networks_judged_without_labels(small):
    """Flips are those of the network compressed by hand; corrected by labels, posteriors agree with the count."""
    model, x, _, options = small
    rows = unlabelled(**options, checkpoint=None, images=120, labelled=40)
    assert len(rows) == sum(1 if bits is None else len(bits) for _, _, bits in CASES)
    before = decisions(model, x[:100])
    after = decisions(rounded_weights(model, 3), x[:100])
    (row,) = (row for row in rows if (row["scheme"], row["bits"]) == ("symmetric", 3))
    assert row["images"] == 100  # the others calibrate
    assert row["flips"] == pytest.approx(np.mean(before != after))
    found = summary(rows)
    assert found["corrected_agree"] > 0.9


def test_the_summary_of_judgements_by_hand():
    row = {"distortion": 0.10, "standard_error": 0.01, "unlabelled": 0.13, "low": 0.12, "high": 0.14, "corrected": 0.07}
    found = summary([row | {"corrected_low": 0.05, "corrected_high": 0.11}])
    assert found == pytest.approx(
        {
            "unlabelled_rms": 0.03,
            "unlabelled_inside": 0.0,
            "unlabelled_agree": 0.0,
            "corrected_rms": 0.03,
            "corrected_inside": 1.0,
            "corrected_agree": 1.0,
        }
    )
