"""Each metric by hand, by a slow loop from its definition, against independent programs, and its
invariances."""

import numpy as np
import pytest
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.neighbors import KNeighborsClassifier

from dml_bench.evaluation.metrics import (
    by_class,
    chance_of_errors_within,
    errors_within,
    macro,
    map_at_r,
    micro,
    precision_at_1,
    r_precision,
    recall_at,
    vote,
)
from dml_bench.evaluation.search import Neighbours, search


def neighbours_of(
    labels: list[list[int]], query_labels: list[int], gallery: dict[int, int], similarities=None
) -> Neighbours:
    """Neighbours with these classes, from a gallery with so many images of each class."""
    gallery_labels = np.repeat(list(gallery), list(gallery.values()))
    indices = np.empty(np.shape(labels), dtype=np.int64)
    for row, classes in enumerate(labels):
        left = {label: iter(np.flatnonzero(gallery_labels == label)) for label in gallery}
        indices[row] = [next(left[label]) for label in classes]
    if similarities is None:
        similarities = np.tile(np.linspace(0.9, 0.1, indices.shape[1]), (len(indices), 1))
    return Neighbours(
        indices, np.asarray(similarities, dtype=np.float32), gallery_labels, np.array(query_labels)
    )


def random_problem(
    seed: int = 0, k: int | None = None
) -> tuple[np.ndarray, np.ndarray, Neighbours]:
    """(gallery, query) unit vectors of 6 unbalanced, overlapping classes, and their neighbours."""
    generator = np.random.default_rng(seed)
    gallery_labels = np.repeat(np.arange(6), [3, 5, 8, 13, 21, 34])
    query_labels = np.repeat(np.arange(6), [2, 2, 3, 5, 9, 15])
    generator.shuffle(gallery_labels)
    generator.shuffle(query_labels)
    centres = generator.normal(size=(6, 8))

    def embed(labels):
        vectors = centres[labels] + 1.2 * generator.normal(size=(len(labels), 8))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    gallery, query = embed(gallery_labels), embed(query_labels)
    return gallery, query, search(gallery, query, gallery_labels, query_labels, k or len(gallery))


# Query 0, class 1, R = 3: relevant, not, relevant, relevant, not. Query 1, class 2, R = 2: not,
# relevant, relevant, not, not.
BY_HAND = neighbours_of([[1, 2, 1, 1, 2], [1, 2, 2, 1, 1]], [1, 2], {1: 3, 2: 2})


def test_precision_at_1_by_hand():
    assert precision_at_1(BY_HAND).tolist() == [1, 0]


@pytest.mark.parametrize(("k", "expected"), [(1, [1, 0]), (2, [1, 1]), (5, [1, 1])])
def test_recall_at_k_by_hand(k, expected):
    assert recall_at(BY_HAND, k).tolist() == expected


def test_r_precision_by_hand():
    assert r_precision(BY_HAND).tolist() == pytest.approx([2 / 3, 1 / 2])


def test_map_at_r_by_hand():
    assert map_at_r(BY_HAND).tolist() == pytest.approx([(1 / 1 + 2 / 3) / 3, (1 / 2) / 2])


def test_what_lies_beyond_the_first_r_neighbours_counts_for_nothing():
    beyond = neighbours_of([[2, 2, 1, 1]], [1], {1: 2, 2: 2})
    assert (r_precision(beyond).tolist(), map_at_r(beyond).tolist()) == ([0], [0])


def slow(neighbours: Neighbours) -> dict[str, list[float]]:
    """The definitions, one query and one neighbour at a time."""
    values: dict[str, list[float]] = {
        "precision_at_1": [],
        "recall_at_5": [],
        "r_precision": [],
        "map_at_r": [],
    }
    for indices, label in zip(neighbours.indices, neighbours.query_labels, strict=True):
        relevant = [neighbours.gallery_labels[index] == label for index in indices]
        r = sum(other == label for other in neighbours.gallery_labels)
        values["precision_at_1"].append(float(relevant[0]))
        values["recall_at_5"].append(float(any(relevant[:5])))
        values["r_precision"].append(sum(relevant[:r]) / r)
        values["map_at_r"].append(
            sum(sum(relevant[: i + 1]) / (i + 1) for i in range(r) if relevant[i]) / r
        )
    return values


@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_a_slow_loop_from_their_definitions(seed):
    _, _, neighbours = random_problem(seed)
    expected = slow(neighbours)
    assert 0.2 < np.mean(expected["precision_at_1"]) < 0.95
    assert precision_at_1(neighbours).tolist() == expected["precision_at_1"]
    assert recall_at(neighbours, 5).tolist() == expected["recall_at_5"]
    assert r_precision(neighbours).tolist() == pytest.approx(expected["r_precision"])
    assert map_at_r(neighbours).tolist() == pytest.approx(expected["map_at_r"])


@pytest.mark.parametrize("per_class", [False, True], ids=["micro", "macro"])
@pytest.mark.parametrize("seed", range(3))
def test_metrics_equal_those_of_pytorch_metric_learning(seed, per_class):
    gallery, query, neighbours = random_problem(seed)
    wanted = ("precision_at_1", "r_precision", "mean_average_precision_at_r")
    calculator = AccuracyCalculator(include=wanted, k="max_bin_count", avg_of_avgs=per_class)
    theirs = calculator.get_accuracy(
        query, neighbours.query_labels, gallery, neighbours.gallery_labels, ref_includes_query=False
    )
    ours = dict(
        zip(
            wanted,
            (precision_at_1(neighbours), r_precision(neighbours), map_at_r(neighbours)),
            strict=True,
        )
    )
    for name, values in ours.items():
        average = macro(values, neighbours.query_labels) if per_class else micro(values)
        assert average == pytest.approx(theirs[name], abs=1e-6), name


def test_micro_precision_at_1_is_the_accuracy_of_a_loop_over_queries():
    gallery, query, neighbours = random_problem(4)
    correct = 0
    for vector, label in zip(query, neighbours.query_labels, strict=True):
        correct += neighbours.gallery_labels[np.argmax(gallery @ vector)] == label
    assert micro(precision_at_1(neighbours)) == correct / len(query)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_the_majority_vote_is_that_of_scikit_learn_where_there_is_no_tie(k, metric):
    gallery, query, neighbours = random_problem(5)
    classifier = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(
        gallery, neighbours.gallery_labels
    )
    shares = classifier.predict_proba(query)
    ranked = np.sort(shares, axis=1)
    decided = ranked[:, -1] - ranked[:, -2] > 1e-9
    assert decided.mean() > 0.6
    elected, share = vote(neighbours, k)
    assert elected[decided].tolist() == classifier.predict(query)[decided].tolist()
    assert share == pytest.approx(shares.max(1))


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_the_distance_weighted_vote_is_that_of_scikit_learn(k):
    gallery, query, neighbours = random_problem(6)
    classifier = KNeighborsClassifier(k, metric="euclidean", algorithm="brute", weights="distance")
    classifier.fit(gallery.astype(float), neighbours.gallery_labels)
    elected, share = vote(neighbours, k, weights="distance")
    assert elected.tolist() == classifier.predict(query.astype(float)).tolist()
    assert share == pytest.approx(classifier.predict_proba(query.astype(float)).max(1), abs=1e-5)


def test_a_tied_vote_goes_to_the_class_whose_nearest_member_is_nearer():
    neighbours = neighbours_of(
        [[3, 1, 1, 3], [2, 3, 1, 1], [3, 2, 1, 1], [1, 3, 3, 1]], [1, 1, 1, 1], {1: 2, 2: 1, 3: 2}
    )
    elected, share = vote(neighbours, 4)
    assert elected.tolist() == [3, 1, 1, 1]
    assert share.tolist() == [0.5, 0.5, 0.5, 0.5]
    elected, share = vote(neighbours, 3)
    assert elected.tolist() == [1, 2, 3, 3]
    assert share.tolist() == pytest.approx([2 / 3, 1 / 3, 1 / 3, 2 / 3])


def test_one_near_neighbour_outweighs_two_far_ones_in_the_distance_weighted_vote():
    # Distances 0.2, 1 and 1: weights 5, 1 and 1.
    neighbours = neighbours_of([[2, 1, 1]], [1], {1: 2, 2: 1}, [[0.98, 0.5, 0.5]])
    assert vote(neighbours, 3)[0].tolist() == [1]
    elected, share = vote(neighbours, 3, weights="distance")
    assert elected.tolist() == [2]
    assert share.tolist() == pytest.approx([5 / 7], abs=1e-6)


def test_a_copy_of_the_query_decides_the_distance_weighted_vote():
    neighbours = neighbours_of([[2, 1, 1, 1]], [1], {1: 3, 2: 1}, [[1.0, 0.999, 0.999, 0.999]])
    elected, share = vote(neighbours, 4, weights="distance")
    assert elected.tolist() == [2]
    assert share[0] > 0.999


def test_the_vote_of_one_is_the_nearest_neighbour():
    _, _, neighbours = random_problem(7)
    for weights in ("majority", "distance"):
        elected, share = vote(neighbours, 1, weights=weights)
        assert elected.tolist() == neighbours.labels[:, 0].tolist()
        assert share.tolist() == [1.0] * 36


def everything(neighbours: Neighbours) -> dict[str, float]:
    values = {
        "precision_at_1": precision_at_1(neighbours),
        "recall_at_3": recall_at(neighbours, 3),
        "r_precision": r_precision(neighbours),
        "map_at_r": map_at_r(neighbours),
        "vote": (vote(neighbours, 5)[0] == neighbours.query_labels).astype(float),
    }
    averages = {f"{name} micro": micro(value) for name, value in values.items()}
    return averages | {
        f"{name} macro": macro(value, neighbours.query_labels) for name, value in values.items()
    }


def test_relabelling_the_classes_changes_no_metric():
    gallery, query, neighbours = random_problem(8)
    other_name = np.array([40, 2, 17, 5, 0, 33])
    relabelled = search(
        gallery,
        query,
        other_name[neighbours.gallery_labels],
        other_name[neighbours.query_labels],
        neighbours.k,
    )
    assert everything(relabelled) == pytest.approx(everything(neighbours))


def test_permuting_the_gallery_changes_no_metric():
    gallery, query, neighbours = random_problem(9)
    order = np.random.default_rng(1).permutation(len(gallery))
    permuted = search(
        gallery[order],
        query,
        neighbours.gallery_labels[order],
        neighbours.query_labels,
        neighbours.k,
    )
    assert everything(permuted) == pytest.approx(everything(neighbours))


def test_a_longer_search_than_needed_changes_no_metric():
    _, _, long = random_problem(10)
    _, _, short = random_problem(10, k=34)
    assert everything(long) == everything(short)


def test_macro_is_the_mean_over_classes_and_micro_the_mean_over_images():
    # Class 0: 3 of 4 right; class 1: 0 of 1.
    values, labels = np.array([1, 1, 0, 1, 0.0]), np.array([0, 0, 0, 0, 1])
    assert by_class(values, labels, 2).tolist() == [0.75, 0]
    assert macro(values, labels) == 0.375
    assert micro(values) == 0.6


def test_a_class_without_queries_is_nan_and_left_out_of_macro():
    values, labels = np.array([1, 0, 1.0]), np.array([0, 0, 2])
    assert by_class(values, labels, 4).tolist() == pytest.approx(
        [0.5, np.nan, 1, np.nan], nan_ok=True
    )
    assert macro(values, labels) == 0.75


def test_what_is_undefined_is_nan_and_left_out():
    # The gallery has no image of class 5, so R is 0 for the second query.
    neighbours = neighbours_of([[1, 2], [2, 1]], [1, 5], {1: 1, 2: 1})
    for metric in (r_precision, map_at_r):
        values = metric(neighbours)
        assert values.tolist() == pytest.approx([1, np.nan], nan_ok=True)
        assert (micro(values), macro(values, neighbours.query_labels)) == (1, 1)


def test_the_mean_over_nothing_is_nan():
    nothing, labels = np.array([]), np.array([], dtype=np.int64)
    assert np.isnan(micro(nothing)) and np.isnan(macro(nothing, labels))
    assert np.isnan(micro(np.array([np.nan, np.nan])))


@pytest.mark.parametrize("metric", [r_precision, map_at_r])
def test_a_search_too_short_for_r_is_refused(metric):
    _, _, neighbours = random_problem(11, k=33)
    with pytest.raises(
        ValueError, match="a class has 34 gallery images, but only 33 neighbours were searched"
    ):
        metric(neighbours)


@pytest.mark.parametrize("k", [0, 6])
def test_more_neighbours_than_were_searched_or_none_are_refused(k):
    for metric in (recall_at, vote):
        with pytest.raises(AssertionError):
            metric(BY_HAND, k)


GROUPS = np.array([0, 0, 1, 1])
"""The coarse class of each of four classes."""


def answers_of(labels: list[int], nearest: list[int], gallery: list[int]) -> Neighbours:
    """The class of the nearest image of each query, in a gallery of these classes."""
    indices = np.array([gallery.index(label) for label in nearest])[:, None]
    similarities = np.ones((len(labels), 1), np.float32)
    return Neighbours(indices, similarities, np.array(gallery), np.array(labels))


def test_the_share_of_errors_within_a_coarse_class_by_hand():
    some = answers_of([0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [0, 1, 2, 3])
    values = errors_within(some, GROUPS)  # of three errors, 0 -> 1 and 2 -> 3 stay inside
    assert values.mean() == pytest.approx(2 / 3)
    # One query more or less inside moves the share by 1/3, as one in five does the mean of 5/3.
    assert values.tolist() == pytest.approx([2 / 3, 11 / 9, -4 / 9, 11 / 9, 2 / 3])


def test_the_spread_of_the_share_of_errors_is_that_of_resampled_queries():
    rng = np.random.default_rng(1)
    labels, nearest = rng.integers(0, 4, (2, 2000))
    some = answers_of(labels.tolist(), nearest.tolist(), [0, 1, 2, 3])
    expected = errors_within(some, GROUPS).std() / np.sqrt(2000)
    wrong = labels != nearest
    within = wrong & (GROUPS[labels] == GROUPS[nearest])
    draws = rng.integers(0, 2000, (1000, 2000))
    shares = within[draws].sum(1) / wrong[draws].sum(1)
    assert shares.std() == pytest.approx(expected, rel=0.1)


def test_without_errors_none_is_within_a_coarse_class():
    some = answers_of([0, 1], [0, 1], [0, 1, 2, 3])
    assert errors_within(some, GROUPS).tolist() == [0.0, 0.0]
    assert chance_of_errors_within(some, GROUPS) == 0.0


def test_the_chance_of_an_error_within_a_coarse_class_counts_the_images_of_other_classes():
    some = answers_of([0, 2], [1, 0], [0, 0, 1, 2, 3, 3])
    # Of four images that are no 0, one is a 1; of five that are no 2, two are a 3.
    assert chance_of_errors_within(some, GROUPS) == pytest.approx((1 / 4 + 2 / 5) / 2)
