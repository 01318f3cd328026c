"""Hubs: gallery images that are among the nearest of many queries."""

import math

import numpy as np
import pytest
from scipy.stats import skew

from dml_bench.evaluation.hubness import hubness, occurrences
from dml_bench.evaluation.search import Neighbours, search


def neighbours_of(indices: list[list[int]], gallery: int) -> Neighbours:
    nearest = np.array(indices)
    zeros = np.zeros(nearest.shape, np.float32)
    return Neighbours(nearest, zeros, np.zeros(gallery, int), np.zeros(len(nearest), int))


def test_an_image_that_answers_three_of_four_queries_is_a_hub_by_hand():
    uneven = hubness(neighbours_of([[0], [0], [0], [1]], gallery=4))
    # counts 3, 1, 0, 0: mean 1, deviations 2, 0, -1, -1, variance 6/4, third moment (8 - 2)/4
    assert uneven.skewness == pytest.approx(1.5 / 1.5**1.5)
    assert (uneven.never, uneven.largest) == (0.5, 3.0)


def test_only_the_nearest_k_are_counted():
    assert occurrences(neighbours_of([[0, 1], [0, 2]], gallery=3), k=1).tolist() == [2, 0, 0]
    assert occurrences(neighbours_of([[0, 1], [0, 2]], gallery=3)).tolist() == [2, 1, 1]


def test_the_skewness_is_that_of_scipy():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.zeros(100, np.int64)
    neighbours = search(vectors[:100], vectors[100:], labels, labels, 10)
    assert hubness(neighbours).skewness == pytest.approx(skew(occurrences(neighbours)))


def test_images_that_all_answer_alike_have_no_skewness():
    even = hubness(neighbours_of([[0], [1]], gallery=2))
    assert math.isnan(even.skewness)
    assert (even.never, even.largest) == (0.0, 1.0)
