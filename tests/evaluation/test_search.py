"""The one search: exact, ties in gallery order, and a value that checks itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dml_bench.evaluation import search as searching
from dml_bench.evaluation.search import (
    Neighbours,
    search,
    search_leaving_one_out,
    search_nearest_on,
)


def unit_vectors(count: int, dim: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def look_up(gallery: np.ndarray, query: np.ndarray, k: int) -> Neighbours:
    return search(gallery, query, np.arange(len(gallery)) % 7, np.arange(len(query)) % 7, k)


@pytest.mark.parametrize(
    ("num_gallery", "num_query", "dim", "k"),
    [(300, 50, 16, 10), (40, 7, 128, 1), (1500, 33, 8, 60)],
)
def test_the_search_finds_what_brute_force_finds(num_gallery, num_query, dim, k):
    gallery, query = unit_vectors(num_gallery, dim, 1), unit_vectors(num_query, dim, 2)
    neighbours = look_up(gallery, query, k)
    similarity = query.astype(np.float64) @ gallery.T.astype(np.float64)
    expected = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    assert np.array_equal(neighbours.indices, expected)
    assert np.allclose(
        neighbours.similarities, np.take_along_axis(similarity, expected, 1), atol=1e-6
    )


def test_neighbours_are_of_these_types_and_shapes():
    neighbours = look_up(unit_vectors(9, 4, 1), unit_vectors(3, 4, 2), 5)
    assert (
        neighbours.indices.shape
        == neighbours.similarities.shape
        == neighbours.labels.shape
        == (3, 5)
    )
    assert (neighbours.indices.dtype, neighbours.similarities.dtype) == (np.int64, np.float32)
    assert neighbours.k == 5


@pytest.mark.parametrize("num_query", [1, 4, 64])
@pytest.mark.parametrize("k", [1, 5, 19, 20, 21])
def test_equally_near_images_come_in_gallery_order_also_over_the_kth_place(num_query, k):
    gallery = unit_vectors(200, 32, 1)
    copies = np.sort(np.random.default_rng(3).choice(200, 20, replace=False))
    gallery[copies] = gallery[copies[0]]
    query = np.repeat(gallery[copies[:1]], num_query, axis=0)
    neighbours = look_up(gallery, query, k)
    assert np.array_equal(neighbours.indices[:, :20], np.tile(copies[:k], (num_query, 1)))
    assert not np.isin(neighbours.indices[:, 20:], copies).any()


@pytest.mark.parametrize("num_query", [1, 64])
@pytest.mark.parametrize("k", [4, 5, 12, 22])
def test_nearer_images_late_in_the_gallery_do_not_disturb_the_order_of_ties(num_query, k):
    gallery, query = unit_vectors(200, 32, 1), unit_vectors(1, 32, 2)
    near = query + 0.05 * gallery[:1]
    copies = np.sort(np.random.default_rng(3).choice(190, 20, replace=False))
    gallery[copies] = near / np.linalg.norm(near)
    gallery[197:] = query
    neighbours = look_up(gallery, np.repeat(query, num_query, axis=0), k)
    assert neighbours.indices.tolist() == [[197, 198, 199, *copies][:k]] * num_query


@pytest.mark.parametrize("leaving_one_out", [False, True])
def test_a_device_finds_the_same_nearest_one_and_of_equally_near_ones_the_first(
    monkeypatch, leaving_one_out
):
    monkeypatch.setattr(searching, "ROWS", 7)  # several parts, the last one shorter
    gallery, labels = unit_vectors(60, 8, 1), np.arange(60) % 5
    gallery[[9, 33, 34, 58]] = gallery[21]
    queries = gallery if leaving_one_out else np.concatenate([unit_vectors(30, 8, 2), gallery])
    of_queries = np.arange(len(queries)) % 5
    by_faiss = (
        search_leaving_one_out(gallery, labels, k=1)
        if leaving_one_out
        else search(gallery, queries, labels, of_queries, k=1)
    )
    by_product = search_nearest_on(
        torch.device("cpu"), gallery, queries, labels, of_queries, leaving_one_out=leaving_one_out
    )
    assert np.array_equal(by_product.indices, by_faiss.indices)
    assert np.allclose(by_product.similarities, by_faiss.similarities, atol=1e-6)
    assert by_product.leaves_one_out == leaving_one_out
    assert np.array_equal(by_product.labels, by_faiss.labels)


def test_ties_behind_nearer_images_are_in_gallery_order_too():
    gallery = np.array([[0, 1], [1, 0], [0, 1], [0.6, 0.8], [0, 1], [1, 0]], dtype=np.float32)
    neighbours = look_up(gallery, np.array([[1, 0], [0, 1]], dtype=np.float32), 4)
    assert neighbours.indices.tolist() == [[1, 5, 3, 0], [0, 2, 4, 3]]


def test_a_collapsed_model_finds_the_first_of_the_gallery():
    gallery = np.repeat(unit_vectors(1, 8, 1), 50, axis=0)
    assert look_up(gallery, gallery[:30], 3).indices.tolist() == [[0, 1, 2]] * 30


@pytest.mark.parametrize("k", [6, 7, 1000])
def test_a_k_beyond_the_gallery_gives_the_whole_gallery(k):
    gallery, query = unit_vectors(6, 4, 1), unit_vectors(3, 4, 2)
    neighbours = look_up(gallery, query, k)
    assert neighbours.k == 6
    assert np.sort(neighbours.indices, axis=1).tolist() == [[0, 1, 2, 3, 4, 5]] * 3


@pytest.mark.parametrize("where", ["gallery", "query"])
@pytest.mark.parametrize("wrong", [0.0, 2.0, np.nan, np.inf])
def test_embeddings_that_are_not_unit_length_or_not_finite_are_refused(where, wrong):
    embeddings = {"gallery": unit_vectors(6, 4, 1), "query": unit_vectors(3, 4, 2)}
    embeddings[where][1] *= wrong
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=f"{where} embeddings are not of unit length"),
    ):
        look_up(embeddings["gallery"], embeddings["query"], 2)


@pytest.mark.parametrize("num_query", [12, 40])
def test_permuting_the_queries_permutes_the_result(num_query):
    gallery, query = unit_vectors(100, 16, 1), unit_vectors(num_query, 16, 2)
    order = np.random.default_rng(0).permutation(num_query)
    straight, permuted = look_up(gallery, query, 8), look_up(gallery, query[order], 8)
    assert np.array_equal(permuted.indices, straight.indices[order])
    assert np.allclose(permuted.similarities, straight.similarities[order], atol=1e-6)


def test_the_search_leaves_the_embeddings_as_they_were():
    gallery, query = unit_vectors(20, 4, 1), unit_vectors(5, 4, 2)
    look_up(gallery, query, 3)
    assert np.array_equal(gallery, unit_vectors(20, 4, 1)) and np.array_equal(
        query, unit_vectors(5, 4, 2)
    )


SMALL = Neighbours(
    indices=np.array([[2, 0], [1, 2]]),
    similarities=np.array([[0.9, 0.1], [0.5, 0.5]], dtype=np.float32),
    gallery_labels=np.array([7, 8, 9]),
    query_labels=np.array([9, 7]),
)


def test_labels_are_the_classes_of_the_neighbours():
    assert SMALL.labels.tolist() == [[9, 7], [8, 9]]


@pytest.mark.parametrize("queries", [np.array([False, True]), np.array([1])])
def test_some_of_the_queries_keep_their_neighbours_and_the_whole_gallery(queries):
    part = SMALL.of(queries)
    assert part.indices.tolist() == [[1, 2]]
    assert part.query_labels.tolist() == [7]
    assert part.gallery_labels.tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    "change",
    [
        {"similarities": np.array([[0.1, 0.9], [0.5, 0.5]])},
        {"similarities": np.array([[np.nan, 0.1], [0.5, 0.5]])},
        {"similarities": np.array([[0.9], [0.5]])},
        {"indices": np.array([[3, 0], [1, 2]])},
        {"indices": np.array([[-1, 0], [1, 2]])},
        {"query_labels": np.array([9])},
    ],
)
def test_neighbours_that_can_not_be_are_refused(change):
    with pytest.raises(AssertionError):
        replace(SMALL, **change)


def test_neighbours_of_no_query_are_allowed():
    assert SMALL.of(np.array([], dtype=int)).indices.shape == (0, 2)
