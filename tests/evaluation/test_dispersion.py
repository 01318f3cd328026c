"""How far test images scatter against training images: by hand, from the definition pair by pair,
and under changes that must not matter."""

import math

import numpy as np
import pytest

from dml_bench.evaluation import scatter as scatter_module
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.scatter import MEASURES, scatter
from dml_bench.evaluation.search import search


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery, queries and their labels: three classes, one of a single gallery image."""
    generator = np.random.default_rng(seed)
    gallery_labels = np.array([0, 1, 0, 2, 1, 0, 1])
    query_labels = np.array([2, 1, 0, 0, 1, 2, 0, 1, 1])
    vectors = generator.normal(size=(16, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[:7], vectors[7:], gallery_labels, query_labels


def cosine(degrees: float) -> float:
    return math.cos(math.radians(degrees))


def test_two_classes_on_a_circle_have_the_distances_of_their_angles():
    gallery, query = at_angles(0, 60, 90), at_angles(30, 30)
    measured = scatter(gallery, query, np.array([0, 0, 1]), np.array([0, 0]))
    near = {name: scores.values.tolist() for name, scores in measured.items()}
    assert near["train_dispersion"] == pytest.approx([0.5, 0.5, math.nan], abs=1e-6, nan_ok=True)
    assert near["test_dispersion"] == pytest.approx([0, 0], abs=1e-6)
    assert near["test_to_train"] == pytest.approx(2 * [1 - cosine(30)], abs=1e-6)
    assert near["mean_shift"] == pytest.approx(2 * [1 - cosine(30) - 0.25], abs=1e-6)
    margins = [cosine(60) - 0, cosine(60) - cosine(30), math.nan]
    assert near["train_margin"] == pytest.approx(margins, abs=1e-6, nan_ok=True)
    assert near["test_margin"] == pytest.approx(2 * [cosine(30) - cosine(60)], abs=1e-6)


def test_each_value_is_the_mean_over_pairs_of_the_definition(monkeypatch):
    monkeypatch.setattr(scatter_module, "ENTRIES", 15)  # margins of two images at a time
    gallery, query, gallery_labels, query_labels = drawn()
    measured = scatter(gallery, query, gallery_labels, query_labels)
    for row, label in enumerate(gallery_labels):
        others = [i for i in range(len(gallery)) if gallery_labels[i] == label and i != row]
        away = [gallery[row] @ gallery[i] for i in range(7) if gallery_labels[i] != label]
        near = [float(gallery[row] @ gallery[i]) for i in others]
        distance = 1 - np.mean(near) if near else math.nan
        margin = max(near) - max(away) if near else math.nan
        value = measured["train_dispersion"].values[row]
        assert value == pytest.approx(distance, abs=1e-6, nan_ok=True)
        value = measured["train_margin"].values[row]
        assert value == pytest.approx(margin, abs=1e-6, nan_ok=True)
    for row, label in enumerate(query_labels):
        others = [i for i in range(len(query)) if query_labels[i] == label and i != row]
        distance = 1 - np.mean([query[row] @ query[i] for i in others])
        assert measured["test_dispersion"].values[row] == pytest.approx(distance, abs=1e-6)
        near = [query[row] @ gallery[i] for i in range(7) if gallery_labels[i] == label]
        away = [query[row] @ gallery[i] for i in range(7) if gallery_labels[i] != label]
        assert measured["test_to_train"].values[row] == pytest.approx(1 - np.mean(near), abs=1e-6)
        margin = max(near) - max(away)
        assert measured["test_margin"].values[row] == pytest.approx(margin, abs=1e-6)


def test_the_shift_is_half_the_squared_distance_of_the_means_less_what_few_images_add_to_it():
    generator = np.random.default_rng(1)
    centre, other = at_angles(0, 40)
    shifts = []
    for _ in range(2000):
        images = np.concatenate([np.tile(centre, (3, 1)), np.tile(other, (3, 1))])
        images = images + generator.normal(scale=0.3, size=images.shape)
        images /= np.linalg.norm(images, axis=1, keepdims=True)
        parts = images.astype(np.float32)
        measured = scatter(parts[:3], parts[3:], np.zeros(3, int), np.zeros(3, int))
        shifts.append(measured["mean_shift"].values.mean())
    many = np.concatenate([np.tile(centre, (50_000, 1)), np.tile(other, (50_000, 1))])
    many = many + generator.normal(scale=0.3, size=many.shape)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    means = many[:50_000].mean(0), many[50_000:].mean(0)
    true = ((means[0] - means[1]) ** 2).sum() / 2
    assert np.mean(shifts) == pytest.approx(true, abs=4 * np.std(shifts) / math.sqrt(2000))


def test_a_test_image_has_a_margin_above_zero_where_its_nearest_image_is_of_its_class():
    gallery, query, gallery_labels, query_labels = drawn(3)
    margin = scatter(gallery, query, gallery_labels, query_labels)["test_margin"].values
    neighbours = search(gallery, query, gallery_labels, query_labels, 1)
    assert 0 < precision_at_1(neighbours).mean() < 1
    assert ((margin > 0) == precision_at_1(neighbours).astype(bool)).all()


def test_neither_the_order_of_images_nor_the_numbers_of_classes_matter():
    gallery, query, gallery_labels, query_labels = drawn()
    order, query_order = np.arange(7)[::-1], np.arange(9)[::-1]
    renamed = np.array([4, 0, 2])
    first = scatter(gallery, query, gallery_labels, query_labels)
    second = scatter(
        gallery[order],
        query[query_order],
        renamed[gallery_labels[order]],
        renamed[query_labels[query_order]],
    )
    assert list(first) == list(MEASURES)
    for name, scores in first.items():
        assert second[name].values[::-1] == pytest.approx(scores.values, abs=1e-6, nan_ok=True)
