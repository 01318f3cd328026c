"""What the vote changes and which classes are taken for which, by hand, by slow loops, and against
scikit-learn."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from test_metrics import neighbours_of, random_problem

from dml_bench.evaluation.knn_vote import (
    Confusion,
    accuracy_by_k,
    confusions,
    recall_and_precision,
    vote_changes,
)
from dml_bench.evaluation.metrics import macro, precision_at_1
from dml_bench.evaluation.search import Neighbours, search

# Majority of 3: right and saved, right and not turned, wrong and broken, wrong as the nearest.
BY_HAND = neighbours_of([[2, 1, 1], [1, 1, 2], [2, 1, 1], [1, 2, 1]], [1, 1, 2, 2], {1: 3, 2: 2})


def test_the_vote_saves_and_breaks_by_hand():
    changes = vote_changes(BY_HAND, 3)
    assert changes.saved.tolist() == [True, False, False, False]
    assert changes.broken.tolist() == [False, False, True, False]


def test_a_near_enough_nearest_is_not_outvoted_by_distance():
    labels, similarities = [[2, 1, 1]], [[0.99, 0.2, 0.2]]
    neighbours = neighbours_of(labels, [2], {1: 2, 2: 1}, similarities)
    assert vote_changes(neighbours, 3).broken.tolist() == [True]
    assert vote_changes(neighbours, 3, "distance").broken.tolist() == [False]


@pytest.mark.parametrize("weights", ["majority", "distance"])
def test_saved_less_broken_is_what_the_vote_gains(weights):
    _, _, neighbours = random_problem(5)
    change = vote_changes(neighbours, 5, weights)
    curve = accuracy_by_k(neighbours, (1, 5))
    gain = {"majority": curve.majority, "distance": curve.distance}[weights]
    assert change.saved.any()
    assert change.broken.any()
    assert not (change.saved & change.broken).any()
    net = change.saved.astype(float) - change.broken
    assert macro(net, neighbours.query_labels) == pytest.approx(gain[1] - gain[0])


def test_the_vote_of_the_nearest_turns_nothing():
    _, _, neighbours = random_problem(1)
    assert not (vote_changes(neighbours, 1).saved | vote_changes(neighbours, 1).broken).any()


def test_a_k_beyond_the_search_is_cut_to_it():
    _, _, neighbours = random_problem(1, k=4)
    curve = accuracy_by_k(neighbours, (10, 3, 1, 20))
    assert curve.ks == (1, 3, 4)
    assert vote_changes(neighbours, 10).saved.tolist() == vote_changes(neighbours, 4).saved.tolist()


@pytest.mark.parametrize("weights", ["majority", "distance"])
def test_the_sweep_averages_scikit_learn_s_votes_over_classes(weights):
    gallery, query, neighbours = random_problem(2)
    curve = accuracy_by_k(neighbours)
    assert curve.ks == (1, 3, 5, 10, 20)
    scores = {"majority": curve.majority, "distance": curve.distance}[weights]
    for k, score in zip(curve.ks, scores, strict=True):
        theirs = KNeighborsClassifier(
            k, weights={"majority": "uniform", "distance": "distance"}[weights]
        ).fit(gallery, neighbours.gallery_labels)
        chances = theirs.predict_proba(query)
        decided = (
            np.sort(chances, axis=1)[:, -1] > np.sort(chances, axis=1)[:, -2]
        )  # on ties they take the lower class
        expected = theirs.predict(query) == neighbours.query_labels
        part = neighbours.of(decided)
        assert decided.mean() > 0.6
        assert getattr(accuracy_by_k(part, (k,)), weights)[0] == pytest.approx(
            macro(expected[decided].astype(float), part.query_labels)
        )
        if decided.all():
            assert score == pytest.approx(macro(expected.astype(float), neighbours.query_labels))


def test_the_sweep_by_hand_is_a_mean_over_classes():
    uneven = neighbours_of([[1, 1], [1, 1], [2, 1], [1, 2]], [1, 1, 1, 2], {1: 2, 2: 1})
    curve = accuracy_by_k(uneven, (1, 2))
    assert curve.majority.tolist() == pytest.approx([(2 / 3 + 0) / 2, (2 / 3 + 0) / 2])
    assert curve.distance.tolist() == pytest.approx([(2 / 3 + 0) / 2, (2 / 3 + 0) / 2])
    assert accuracy_by_k(BY_HAND, (1, 3)).majority.tolist() == [0.5, 0.5]


def test_a_vote_of_none_is_refused():
    with pytest.raises(ValueError, match="at least one neighbour"):
        accuracy_by_k(BY_HAND, (0, 1))


def nearest(classes: list[int], query_labels: list[int]) -> Neighbours:
    """One gallery image per class, 0 to 4, of which these are the nearest."""
    return Neighbours(
        np.array(classes)[:, None],
        np.ones((len(classes), 1), np.float32),
        np.arange(5),
        np.array(query_labels),
    )


def test_confusions_by_hand():
    """0 for 1 twice of 4, 3 for 2 twice of 2, 1 for 0 once of 2, 0 for 3 once of 4."""
    actual = confusions(nearest([1, 0, 3, 1, 2, 0, 1, 2], [0, 0, 0, 0, 3, 1, 1, 3]))
    assert actual == [
        Confusion(of=0, as_=1, count=2, share=0.5, queries=(0, 3)),
        Confusion(of=3, as_=2, count=2, share=1.0, queries=(4, 7)),
        Confusion(of=0, as_=3, count=1, share=0.25, queries=(2,)),
        Confusion(of=1, as_=0, count=1, share=0.5, queries=(5,)),
    ]


def test_no_more_confusions_than_asked_for_and_none_where_all_is_right():
    assert [(c.of, c.as_) for c in confusions(nearest([1, 0, 3, 1], [0, 1, 0, 0]), most=2)] == [
        (0, 1),
        (0, 3),
    ]
    assert confusions(nearest([0, 1], [0, 1])) == []


@pytest.mark.parametrize("seed", range(3))
def test_confusions_equal_a_count_and_scikit_learn_s_matrix(seed):
    _, _, neighbours = random_problem(seed)
    pairs = zip(neighbours.query_labels.tolist(), neighbours.labels[:, 0].tolist(), strict=True)
    counted = Counter(pair for pair in pairs if pair[0] != pair[1])
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    matrix = confusion_matrix(
        neighbours.query_labels, neighbours.labels[:, 0], labels=range(6), normalize="true"
    )
    ours = confusions(neighbours, most=1000)
    assert [((c.of, c.as_), c.count) for c in ours] == ordered
    assert [c.share for c in ours] == pytest.approx([matrix[c.of, c.as_] for c in ours])
    for c in ours:
        assert c.queries == tuple(
            i
            for i in range(36)
            if neighbours.query_labels[i] == c.of and neighbours.labels[i, 0] == c.as_
        )


def test_recall_and_precision_by_hand():
    recall, precision = recall_and_precision(nearest([0, 1, 1, 1, 4], [0, 0, 1, 2, 2]), 6)
    assert recall == pytest.approx(np.array([0.5, 1, 0, np.nan, np.nan, np.nan]), nan_ok=True)
    assert precision == pytest.approx(np.array([1, 1 / 3, np.nan, np.nan, 0, np.nan]), nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_recall_and_precision_are_those_of_scikit_learn(seed):
    _, _, neighbours = random_problem(seed)
    settings = {"labels": range(7), "average": None, "zero_division": np.nan}
    recall, precision = recall_and_precision(neighbours, 7)
    assert recall == pytest.approx(
        recall_score(neighbours.query_labels, neighbours.labels[:, 0], **settings), nan_ok=True
    )
    assert precision == pytest.approx(
        precision_score(neighbours.query_labels, neighbours.labels[:, 0], **settings), nan_ok=True
    )
    assert np.nanmean(recall) == pytest.approx(
        macro(precision_at_1(neighbours), neighbours.query_labels)
    )


def test_the_order_of_the_gallery_changes_nothing():
    gallery, query, neighbours = random_problem(4)
    order = np.random.default_rng(0).permutation(len(gallery))
    other = search(
        gallery[order],
        query,
        neighbours.gallery_labels[order],
        neighbours.query_labels,
        len(gallery),
    )
    assert confusions(other) == confusions(neighbours)
    assert accuracy_by_k(other).distance.tolist() == accuracy_by_k(neighbours).distance.tolist()
    assert vote_changes(other).saved.tolist() == vote_changes(neighbours).saved.tolist()


def test_names_of_classes_change_nothing_but_the_names():
    _, _, neighbours = random_problem(4)
    names = np.array([5, 3, 0, 1, 4, 2])
    other = replace(
        neighbours,
        gallery_labels=names[neighbours.gallery_labels],
        query_labels=names[neighbours.query_labels],
    )
    assert {(c.of, c.as_, c.queries) for c in confusions(other)} == {
        (names[c.of], names[c.as_], c.queries) for c in confusions(neighbours)
    }
    for ours, theirs in zip(
        recall_and_precision(neighbours, 6), recall_and_precision(other, 6), strict=True
    ):
        assert theirs[names] == pytest.approx(ours, nan_ok=True)
    assert accuracy_by_k(other).majority == pytest.approx(accuracy_by_k(neighbours).majority)
