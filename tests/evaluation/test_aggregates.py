"""Numbers over seeds and data sets: by hand, and beside rliable where it is installed."""

import numpy as np
import pytest

from dml_bench.evaluation.aggregates import (
    interquartile_mean,
    mean_ranks,
    performance_profile,
    probability_of_improvement,
)

FIRST = [np.array([0.5, 0.7, 0.9]), np.array([0.2, 0.3, 0.4])]
SECOND = [np.array([0.4, 0.6, 0.9]), np.array([0.3, 0.3, 0.5])]


def test_the_probability_of_improvement_counts_pairs_of_seeds_and_half_of_each_tie():
    # 1 + 2 + 2.5 of 9 pairs on the first data set, 0 + 1 + 2 on the second.
    assert probability_of_improvement(FIRST, SECOND) == pytest.approx((5.5 / 9 + 3 / 9) / 2)
    assert probability_of_improvement(FIRST, FIRST) == 0.5
    assert probability_of_improvement([np.ones(3)], [np.zeros(5)]) == 1


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert interquartile_mean([np.arange(8.0)]) == np.mean([2, 3, 4, 5])
    assert interquartile_mean([np.array([0.0, 100.0]), np.array([1.0, 3.0])]) == 2


def test_a_profile_falls_from_all_runs_to_none_and_counts_each_data_set_alike():
    profile = performance_profile([np.array([0.5, 0.7]), np.array([0.1])], np.array([0, 0.4, 1]))
    assert profile.tolist() == [1, 0.5, 0]


def test_mean_ranks_share_a_tie():
    assert mean_ranks(np.array([[0.9, 0.5, 0.5], [0.2, 0.8, 0.1]])).tolist() == [1.5, 1.75, 2.75]


def test_the_estimates_are_those_of_rliable():
    metrics = pytest.importorskip("rliable.metrics")
    rng = np.random.default_rng(0)
    scores = rng.random((5, 6))  # (seeds, data sets)
    others = rng.random((5, 6))
    ours, theirs = list(scores.T), list(others.T)
    assert interquartile_mean(ours) == pytest.approx(metrics.aggregate_iqm(scores), abs=1e-12)
    expected = metrics.probability_of_improvement(scores, others)
    assert probability_of_improvement(ours, theirs) == pytest.approx(expected, abs=1e-12)
