"""Numbers over seeds and data sets: by hand, and beside rliable where it is installed."""

from dataclasses import replace

import numpy as np
import pytest

from dml_bench.evaluation.aggregates import (
    ClassMeans,
    improvement_bounds,
    interquartile_mean,
    mean_ranks,
    performance_profile,
    probability_of_improvement,
)
from dml_bench.evaluation.statistics import Scores, estimate

FIRST = [np.array([0.5, 0.7, 0.9]), np.array([0.2, 0.3, 0.4])]
SECOND = [np.array([0.4, 0.6, 0.9]), np.array([0.3, 0.3, 0.5])]


def test_the_probability_of_improvement_counts_pairs_of_seeds_and_half_of_each_tie():
    # 1 + 2 + 2.5 of 9 pairs on the first data set, 0 + 1 + 2 on the second.
    assert probability_of_improvement(FIRST, SECOND) == pytest.approx((5.5 / 9 + 3 / 9) / 2)
    assert probability_of_improvement(FIRST, FIRST) == 0.5
    assert probability_of_improvement([np.ones(3)], [np.zeros(5)]) == 1


def scores(*means: float, subtracted: tuple[bool, ...] | None = None) -> Scores:
    """Four queries of each class, of which such a part is right."""
    labels = np.repeat(np.arange(len(means)), 4)
    values = np.concatenate([np.arange(4) < round(4 * mean) for mean in means]).astype(float)
    sides = None if subtracted is None else np.repeat(subtracted, 4)
    return Scores(values, labels, sides)


def test_the_means_of_classes_are_weighed_and_those_of_the_other_group_subtracted():
    one = ClassMeans.of([scores(0.5, 1.0), scores(0.25, 0.75)])
    assert one.means.tolist() == [[0.5, 0.25], [1.0, 0.75]]
    assert one.scores(np.array([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[0.75, 0.5], [1.0, 0.75]]
    both = ClassMeans.of([scores(0.5, 1.0, 0.25, subtracted=(False, False, True))])
    assert both.scores(np.ones((1, 3))).tolist() == [[0.5]]


def test_a_mean_over_queries_is_one_and_what_is_undefined_has_no_part_in_it():
    """R@1 was averaged over classes, and one undefined MAP@R made a method the worst of all."""
    labels = np.array([0, 0, 0, 1, 2])
    seeds = [Scores(np.array([1.0, 1.0, 0.0, 0.0, np.nan]), labels)]
    once = np.ones((1, 2))
    assert ClassMeans.of(seeds, "micro").scores(once).tolist() == [
        [estimate(seeds, average="micro")]
    ]
    assert ClassMeans.of(seeds).scores(once).tolist() == [[estimate(seeds)]]
    assert (estimate(seeds, average="micro"), estimate(seeds)) == (0.5, pytest.approx(1 / 3))


@pytest.mark.parametrize("average", ["macro", "micro"])
def test_classes_that_some_seed_lacks_count_as_one(average):
    """Queries of class 3 were taken for those of class 5, and a class without any was nan."""
    first = Scores(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 2, 5]), None, False)
    second = Scores(np.array([1.0, 1.0, 0.0, 1.0]), np.array([0, 0, 3, 3]), None, False)
    means = ClassMeans.of([first, second], average)
    assert len(means.means) == 2
    seeds = means.scores(np.ones((1, 2)))[0]
    assert seeds.mean() == pytest.approx(estimate([first, second], average=average))
    with pytest.raises(ValueError, match="different classes"):
        ClassMeans.of([replace(one, are_of_all_seeds=True) for one in (first, second)])


def test_the_bounds_of_an_improvement_draw_classes_and_seeds():
    good = [ClassMeans.of([scores(0.75, 1.0, 0.75), scores(1.0, 1.0, 1.0)])] * 2
    bad = [ClassMeans.of([scores(0.25, 0.5, 0.5), scores(0.5, 0.25, 0.25)])] * 2
    assert improvement_bounds(good, bad) == (1.0, 1.0)
    assert improvement_bounds(bad, good) == (0.0, 0.0)
    # better in two classes of three: draws of the third class alone say the contrary
    better = [ClassMeans.of([scores(0.75, 0.75, 0.25)] * 3)]
    other = [ClassMeans.of([scores(0.5, 0.5, 0.75)] * 3)]
    low, high = improvement_bounds(better, other)
    assert (low, high) == (0.0, 1.0)
    assert improvement_bounds(good, good) == (0.5, 0.5)


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
