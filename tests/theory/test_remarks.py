"""What is said of a layer that rounding takes apart; each case by hand."""

from dataclasses import replace

import numpy as np
import pytest

from simulate.generator import synthetic
from theory.prediction import predict
from theory.setting.remarks import remarks
from theory.setting.schemes import compress

OUTLIER = np.array([[100.0, 0.5, -0.3], [0.0, -0.4, 0.6]])
SMALL_ROW = np.array([[0.01, -0.02, 0.03], [10.0, -7.0, 3.0]])
ALIKE = np.array([[1.0, 0.4], [1.0, 0.3], [-1.0, 1.0]])


@pytest.mark.parametrize(
    ("weights", "bits", "says"),
    [
        (OUTLIER, 4, ["4 of 5 weights become 0: weights[0, 0] = 100 sets the step", "all weights of row 1 become 0"]),
        (SMALL_ROW, 4, ["all weights of row 0 become 0"]),
        (ALIKE, 2, ["row 1 becomes equal to an earlier one"]),
        (np.eye(3), 4, []),
    ],
)
def test_what_rounding_deletes_is_said(weights, bits, says):
    found = remarks(weights, compress(weights, "symmetric", bits), 32)
    assert len(found) == len(says), found
    for sentence, start in zip(found, says, strict=True):
        assert sentence.startswith(start)


def test_a_layer_larger_than_its_source_is_said():
    weights = np.random.default_rng(0).standard_normal((10, 10))
    (sentence,) = remarks(weights, compress(weights, "prune", None, sparsity=0.02), 32)
    assert "more than the 32 of the file" in sentence


def test_a_lossless_layer_is_not_said_to_be_better():
    """W = I is stored exactly: whatever rounding leaves of its distortion, there is nothing to explain."""
    problem = synthetic(means=3 * np.eye(3), covariance=np.eye(3))
    (record,) = predict(problem, scheme="symmetric", bits=[4])
    assert record.distortion == pytest.approx(0, abs=1e-14)
    assert not any("negative" in sentence for sentence in record.warnings)


def test_sentences_name_the_classes_of_the_file():
    """Classes 5 and 2 of seven, of which 2 loses its row: it is not called 1."""
    weights = np.random.default_rng(1).standard_normal((7, 4))
    weights[2] *= 1e-3
    problem = synthetic(means=weights, covariance=np.eye(4))
    problem = replace(problem, weights=weights)
    (record,) = predict(problem, scheme="symmetric", bits=[3], classes=[5, 2])
    (sentence,) = (x for x in record.warnings if "become 0" in x)
    assert sentence == "all weights of row 2 become 0: at most the bias decides for class 2"
    assert problem.restrict([5, 3, 2]).restrict([2, 0]).class_numbers == [2, 5]
