"""Clusters of unknown images, the similarity of a link, and agreement with true classes."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

from dml_bench.evaluation.discovery import (
    agreement_of,
    alone_as_clusters,
    estimated_number,
    graph_clusters,
    hdbscan_clusters,
    link_similarity,
    linkage_clusters,
    over_classes,
    ward_clusters,
    without_small,
)
from dml_bench.evaluation.statistics import Interval


def at_angles(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def blobs(*sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors close to so many different axes."""
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    vectors = np.eye(16)[labels] + 0.08 * rng.normal(size=(len(labels), 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


CHAIN = at_angles(0, 10, 20, 30, 40, 90, 91, 92, 170)
"""Nine images: five in a chain of steps of ten degrees, three together, one alone."""


def test_the_threshold_graph_follows_a_chain_and_average_linkage_divides_it():
    link = float(np.cos(np.deg2rad(12)))
    assert graph_clusters(CHAIN, link).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, -1]
    divided = linkage_clusters(CHAIN, link, fewest=2)
    assert divided[0] != divided[4]
    assert len(set(divided[5:8].tolist())) == 1


def test_images_that_are_exactly_as_similar_as_a_link_are_linked():
    pair = np.array([[1, 0], [0, 1]], np.float32)
    assert linkage_clusters(pair, 0.0, fewest=2).tolist() == [0, 0]
    assert linkage_clusters(pair, 0.01, fewest=2).tolist() == [-1, -1]


@pytest.mark.parametrize(
    "cluster",
    [
        lambda vectors: linkage_clusters(vectors, 0.7),
        lambda vectors: graph_clusters(vectors, 0.7),
        hdbscan_clusters,
        lambda vectors: ward_clusters(vectors, 3),
    ],
    ids=["linkage", "graph", "hdbscan", "ward"],
)
def test_each_way_finds_classes_that_are_far_apart_in_any_order_of_the_images(cluster):
    vectors, labels = blobs(9, 7, 6)
    order = np.random.default_rng(0).permutation(len(labels))
    assert adjusted_rand_score(labels, cluster(vectors)) == 1
    assert adjusted_rand_score(labels[order], cluster(vectors[order])) == 1


def test_the_number_of_classes_is_estimated():
    assert estimated_number(blobs(9, 7, 6, 8)[0]) == 4
    assert estimated_number(blobs(3)[0]) == 1


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_are_in_no_cluster(count):
    vectors = blobs(2)[0][:count]
    for clusters in (
        linkage_clusters(vectors, 0.5),
        graph_clusters(vectors, 0.5),
        hdbscan_clusters(vectors),
    ):
        assert clusters.tolist() == [-1] * count


def test_small_clusters_are_none_and_the_others_are_numbered_by_their_size():
    assert without_small(np.array([0, 1, 1, 2, 2, 2]), 2).tolist() == [-1, 1, 1, 0, 0, 0]


def test_a_link_is_the_lowest_similarity_whose_pairs_are_pure_enough():
    vectors, labels = at_angles(0, 10, 40, 60), np.array([0, 0, 1, 1])
    # By falling similarity: 10 degrees (same), 20 (same), 30 (other), 40, 50, 60 (others).
    assert link_similarity(vectors, labels, 1.0) == pytest.approx(np.cos(np.deg2rad(20)), abs=1e-6)
    assert link_similarity(vectors, labels, 0.6) == pytest.approx(np.cos(np.deg2rad(30)), abs=1e-6)
    assert np.isnan(link_similarity(vectors, np.arange(4), 0.5))


def test_agreement_counts_an_image_in_no_cluster_as_a_cluster_of_its_own():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
    clusters = np.array([0, 0, -1, 1, 1, 1, 1, 2, 2, -1])
    alone = np.array([0, 0, 3, 1, 1, 1, 1, 2, 2, 4])
    agreement = agreement_of(labels, clusters)
    assert agreement.ari.estimate == pytest.approx(adjusted_rand_score(labels, alone))
    assert agreement.ami.estimate == pytest.approx(adjusted_mutual_info_score(labels, alone))
    assert (agreement.clusters, agreement.classes) == (3, 3)
    assert agreement.clustered == 0.8
    assert agreement.pure == pytest.approx(2 / 3)  # three of four are less than 80%
    assert agreement.covered == 2
    assert agreement.ari.low < agreement.ari.estimate < agreement.ari.high <= 1


def test_names_of_classes_and_numbers_of_clusters_do_not_matter():
    labels, clusters = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 2])
    agreement = agreement_of(labels, clusters)
    other = agreement_of(np.array(list("zzaabb")), np.array([2, 2, 0, 0, 0, 1]))
    assert other.ari.estimate == pytest.approx(agreement.ari.estimate)
    assert other.ami.low == pytest.approx(agreement.ami.low)


def test_one_class_has_no_interval_and_no_images_are_refused():
    agreement = agreement_of(np.zeros(4, int), np.array([0, 0, 1, 1]))
    assert np.isnan(agreement.ari.low)
    with pytest.raises(ValueError, match="agree with nothing"):
        agreement_of(np.empty(0, int), np.empty(0, int))


@pytest.mark.slow
def test_intervals_hold_the_agreement_of_other_classes_of_the_same_kind():
    rng = np.random.default_rng(1)
    spreads = rng.uniform(0.05, 0.6, 300)
    centres = rng.normal(size=(300, 12))

    def of_draw() -> tuple[float, float, float]:
        classes = rng.choice(300, 20, replace=False)
        labels = np.repeat(np.arange(20), 10)
        noise = rng.normal(size=(200, 12)) * 3 * spreads[classes][labels][:, None]
        vectors = centres[classes][labels] + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        ari = agreement_of(labels, linkage_clusters(vectors, 0.6)).ari
        return ari.estimate, ari.low, ari.high

    draws = np.array([of_draw() for _ in range(100)])
    mean = draws[:, 0].mean()
    assert ((draws[:, 1] <= mean) & (mean <= draws[:, 2])).mean() >= 0.88


def test_intervals_hold_where_a_few_of_eight_classes_are_no_clusters():
    rng = np.random.default_rng(1)

    def of_draw() -> Interval:
        sizes = rng.integers(8, 20, size=8)
        ids = np.repeat(np.arange(8), sizes)
        noise = rng.normal(size=(len(ids), 32)) / np.sqrt(32)
        spread = 0.7 * np.exp(0.5 * rng.normal(size=8))
        centres = rng.normal(size=(8, 32))
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        vectors = centres[ids] + spread[ids][:, None] * noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        clusters = alone_as_clusters(linkage_clusters(vectors, 0.45))
        return over_classes(adjusted_rand_score, ids, clusters)

    draws = [of_draw() for _ in range(200)]
    mean = np.mean([draw.estimate for draw in draws])
    assert 0.8 < mean < 0.95
    known = [draw for draw in draws if not np.isnan(draw.low)]
    assert np.mean([draw.low <= mean <= draw.high for draw in known]) >= 0.92


def test_clusters_that_are_classes_have_no_interval_and_bad_ones_end_at_minus_one():
    ids = np.repeat(np.arange(4), 3)
    assert np.isnan(over_classes(adjusted_rand_score, ids, ids).low)
    poor = over_classes(adjusted_rand_score, ids, np.array([0, 1, 2, 0, 0, 0, 3, 1, 4, 5, 6, 7]))
    assert poor.low == -1 < poor.estimate < poor.high < 1
