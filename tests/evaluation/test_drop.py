"""The precision drop, by hand."""

import numpy as np
import pytest

from dml_bench.evaluation.drop import drop_of
from dml_bench.evaluation.search import Neighbours

GALLERY = np.array([0, 1, 2, 3])
QUERIES = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def nearest(
    classes: list[int], query_labels: np.ndarray = QUERIES, gallery_labels: np.ndarray = GALLERY
) -> Neighbours:
    """Neighbours of which the first has these classes and the second another one."""
    first = np.array(classes)
    indices = np.stack([first, (first + 1) % 4], axis=1)
    return Neighbours(indices, np.tile([0.9, 0.8], (len(first), 1)), gallery_labels, query_labels)


# P@1 per class: trained on all 1, 1, 1, .5; trained without classes 2 and 3 it is 1, .5, 0, .5.
ALL = nearest([0, 0, 1, 1, 2, 2, 3, 0])
LIMITED = nearest([0, 0, 1, 0, 1, 1, 3, 1])


def test_the_drop_by_hand():
    drop = drop_of(ALL, LIMITED, (2, 3), 4)
    assert drop.trained_on_all.tolist() == [1, 1, 1, 0.5]
    assert drop.trained_without.tolist() == [1, 0.5, 0, 0.5]
    assert drop.per_class.tolist() == [0, 0.5, 1, 0]
    assert drop.unseen.tolist() == [False, False, True, True]


@pytest.mark.parametrize(("group", "expected"), [("unseen", 0.5), ("seen", 0.25), ("all", 0.375)])
def test_the_mean_drop_of_unseen_seen_and_all_classes(group, expected):
    assert drop_of(ALL, LIMITED, (2, 3), 4).mean(group) == expected


def test_the_drop_is_negative_where_precision_is_gained():
    assert drop_of(LIMITED, ALL, (2, 3), 4).mean("unseen") == -0.5


def test_the_drop_is_a_mean_over_classes_not_over_images():
    queries = np.array([0, 0, 0, 1])
    drop = drop_of(nearest([0, 0, 0, 1], queries), nearest([0, 0, 0, 0], queries), (1,), 2)
    assert (drop.mean("all"), drop.mean("seen"), drop.mean("unseen")) == (0.5, 0, 1)


def test_a_class_without_queries_is_left_out_of_the_mean():
    queries = np.array([0, 1])
    drop = drop_of(nearest([0, 1], queries), nearest([0, 0], queries), (1,), 3)
    assert np.isnan(drop.per_class[2])
    assert (drop.mean("all"), drop.mean("seen")) == (0.5, 0)


def test_an_unknown_group_is_refused():
    with pytest.raises(KeyError):
        drop_of(ALL, LIMITED, (2, 3), 4).mean("known")


@pytest.mark.parametrize(
    "other",
    [
        nearest([0, 0, 1, 1, 2, 2, 3, 0], query_labels=QUERIES[::-1].copy()),
        nearest([0, 0, 1, 1], query_labels=QUERIES[:4]),
        nearest([0, 0, 1, 1, 2, 2, 3, 0], gallery_labels=np.array([1, 0, 2, 3])),
    ],
    ids=["other queries", "fewer queries", "another gallery"],
)
def test_only_answers_to_the_same_questions_are_compared(other):
    with pytest.raises(ValueError, match="evaluated on different images"):
        drop_of(ALL, other, (2, 3), 4)
