"""Calibration by hand, by a slow loop from its definition, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from dml_bench.evaluation.calibration import calibration_of


def test_calibration_by_hand():
    """Shares .6 and .7 stand in the bins up to .6 and up to .7; 0 in the first, 1 in the last."""
    result = calibration_of(np.array([0.6, 0.6, 0.7, 0.65, 0.0, 1.0]), np.array([1, 0, 1, 1, 0, 1]))
    assert result.count.tolist() == [1, 0, 0, 0, 0, 2, 2, 0, 0, 1]
    assert result.confidence[[0, 5, 6, 9]].tolist() == pytest.approx([0, 0.6, 0.675, 1])
    assert result.accuracy[[0, 5, 6, 9]].tolist() == [0, 0.5, 1, 1]
    assert np.isnan(result.accuracy[[1, 2, 3, 4, 7, 8]]).all()
    assert result.ece == pytest.approx((2 * 0.1 + 2 * 0.325) / 6)


def test_a_share_on_an_edge_belongs_to_the_bin_below():
    for tenths in range(1, 11):
        assert calibration_of(np.array([tenths / 10]), np.array([1])).count.tolist() == [
            int(i == tenths - 1) for i in range(10)
        ]


@pytest.mark.parametrize("bins", [1, 5, 10, 15])
def test_calibration_equals_scikit_learn_s_curve_and_a_slow_sum(bins):
    chance = np.random.default_rng(bins)
    share = chance.random(200) ** 0.5
    correct = chance.random(200) < share**2
    result = calibration_of(share, correct, bins)
    accuracy, confidence = calibration_curve(correct, share, n_bins=bins)
    filled = result.count > 0
    assert result.accuracy[filled] == pytest.approx(accuracy)
    assert result.confidence[filled] == pytest.approx(confidence)
    gaps = []
    for m in range(bins):
        inside = [i for i in range(200) if m / bins < share[i] <= (m + 1) / bins]
        gaps.append(abs(sum(correct[inside]) - sum(share[inside])))
    assert result.ece == pytest.approx(sum(gaps) / 200)


def test_calibration_of_nothing_is_undefined():
    result = calibration_of(np.empty(0), np.empty(0, bool), 3)
    assert math.isnan(result.ece)
    assert result.count.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="at least one bin"):
        calibration_of(np.array([0.5]), np.array([True]), 0)
