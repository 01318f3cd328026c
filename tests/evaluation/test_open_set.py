"""Unknowns by hand, by slow loops from their definitions, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from test_metrics import random_problem

from dml_bench.evaluation.open_set import OpenSetResult, open_set_result, search_without_classes


def drawn(
    seed: int, decimals: int = 7, known: int = 60, unknown: int = 40
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity, correct, is_unknown: overlapping; with few decimals full of ties."""
    chance = np.random.default_rng(seed)
    is_unknown = chance.permutation(np.arange(known + unknown) < unknown)
    similarity = np.round(
        chance.normal(size=len(is_unknown)) * 0.2 + 0.5 - 0.15 * is_unknown, decimals
    ).astype(np.float32)
    return (
        similarity,
        (chance.random(len(is_unknown)) < 0.3 + 0.6 * similarity) & ~is_unknown,
        is_unknown,
    )


PROBLEMS = pytest.mark.parametrize(
    "problem", [drawn(0), drawn(1, 1), drawn(2, 2, 7, 90), drawn(3, 0, 90, 7)], ids=range(4)
)


def test_unknowns_by_hand():
    """Known .9 right, .7 wrong, .5 right; unknown .8, .4. Of the 6 pairs known are ahead in 4,
    known and right in 3."""
    result = open_set_result(
        np.array([0.5, 0.8, 0.9, 0.4, 0.7]), np.array([1, 0, 1, 0, 0]), np.array([0, 1, 0, 1, 0])
    )
    assert result.true_positive_rate.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1, 1])
    assert result.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 0.5, 1]
    assert result.correct_rate.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert result.auroc == pytest.approx(4 / 6)
    assert result.oscr == pytest.approx(3 / 6)
    assert result.aupr == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert result.fpr_at_95_tpr == 0.5
    assert (result.known, result.unknown) == (3, 2)


@PROBLEMS
def test_the_roc_curve_its_area_and_average_precision_are_those_of_scikit_learn(problem):
    similarity, correct, is_unknown = problem
    result = open_set_result(similarity, correct, is_unknown)
    false_positive, true_positive, _ = roc_curve(~is_unknown, similarity, drop_intermediate=False)
    assert result.false_positive_rate == pytest.approx(false_positive)
    assert result.true_positive_rate == pytest.approx(true_positive)
    assert result.auroc == pytest.approx(roc_auc_score(~is_unknown, similarity))
    assert result.aupr == pytest.approx(average_precision_score(~is_unknown, similarity))
    assert result.fpr_at_95_tpr == pytest.approx(false_positive[true_positive >= 0.95].min())


def test_19_of_20_known_queries_are_95_percent():
    similarity, is_unknown = np.append(np.arange(20, 0, -1), [1.5, 0.5]), np.arange(22) >= 20
    assert open_set_result(similarity, ~is_unknown, is_unknown).fpr_at_95_tpr == 0
    similarity[:2] = 0.1
    assert open_set_result(similarity, ~is_unknown, is_unknown).fpr_at_95_tpr == 1


@PROBLEMS
def test_oscr_equals_slow_loops_from_its_definition(problem):
    similarity, correct, is_unknown = problem
    result = open_set_result(similarity, correct, is_unknown)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(similarity), reverse=True):
        accepted = [i for i in range(len(similarity)) if similarity[i] >= threshold]
        false_positive = sum(is_unknown[i] for i in accepted) / sum(is_unknown)
        points.append(
            (
                false_positive,
                sum(correct[i] and not is_unknown[i] for i in accepted) / sum(~is_unknown),
            )
        )
    assert np.stack([result.false_positive_rate, result.correct_rate], 1) == pytest.approx(
        np.array(points)
    )
    known, unknown = np.flatnonzero(~is_unknown), np.flatnonzero(is_unknown)
    pairs = sum(
        correct[i] * ((similarity[i] > similarity[j]) + 0.5 * (similarity[i] == similarity[j]))
        for i in known
        for j in unknown
    )
    assert result.oscr == pytest.approx(pairs / (len(known) * len(unknown)))
    assert result.oscr < result.correct_rate[-1] == correct[known].mean()


def numbers(result: OpenSetResult) -> list[float]:
    return [result.auroc, result.aupr, result.fpr_at_95_tpr, result.oscr]


@PROBLEMS
def test_only_the_order_of_the_similarities_matters(problem):
    similarity, correct, is_unknown = problem
    order = np.random.default_rng(9).permutation(len(similarity))
    other = open_set_result(
        np.exp(similarity[order].astype(float)), correct[order], is_unknown[order]
    )
    assert numbers(other) == pytest.approx(
        numbers(open_set_result(similarity, correct, is_unknown))
    )


def test_where_every_known_query_is_right_oscr_is_auroc():
    similarity, _, is_unknown = drawn(5)
    result = open_set_result(similarity, ~is_unknown, is_unknown)
    assert result.oscr == result.auroc < 1


def test_an_unknown_query_is_never_right():
    similarity, correct, is_unknown = drawn(6)
    assert numbers(open_set_result(similarity, correct | is_unknown, is_unknown)) == numbers(
        open_set_result(similarity, correct, is_unknown)
    )


@pytest.mark.parametrize(
    "is_unknown", [[False, False], [True, True]], ids=["all known", "all unknown"]
)
def test_without_both_kinds_nothing_is_defined(is_unknown):
    result = open_set_result(np.array([0.1, 0.2]), np.array([True, False]), np.array(is_unknown))
    assert np.isnan(numbers(result)).all()
    assert (
        len(result.false_positive_rate)
        == len(result.true_positive_rate)
        == len(result.correct_rate)
        == 0
    )
    assert result.known + result.unknown == 2


def test_without_their_classes_unknown_queries_find_the_nearest_of_the_others():
    gallery, query, full_search = random_problem(0)
    neighbours = search_without_classes(
        gallery, query, full_search.gallery_labels, full_search.query_labels, [1, 4], k=3
    )
    kept = ~np.isin(full_search.gallery_labels, [1, 4])
    for row, vector in enumerate(query):
        allowed = [(-float(vector @ other), i) for i, other in enumerate(gallery) if kept[i]]
        nearest = [np.flatnonzero(kept).tolist().index(i) for _, i in sorted(allowed)[:3]]
        assert neighbours.indices[row].tolist() == nearest
        assert neighbours.similarities[row, 0] == pytest.approx(-min(allowed)[0], abs=1e-6)
    assert set(neighbours.gallery_labels) == {0, 2, 3, 5}
    assert neighbours.query_labels.tolist() == full_search.query_labels.tolist()


def test_something_must_be_left_in_the_gallery():
    gallery, query, neighbours = random_problem(0)
    with pytest.raises(ValueError, match="no class is left"):
        search_without_classes(
            gallery, query, neighbours.gallery_labels, neighbours.query_labels, range(6)
        )
