"""The linear probe against scikit-learn's, and how its L2 is chosen."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dml_bench.evaluation.linear_probe import (
    L2_GRID,
    choose_l2,
    fit_linear_probe,
    set_aside,
)


def problem(seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """120 images of 4 classes in 6 dimensions, far from the origin as features after a ReLU are."""
    chance = np.random.default_rng(seed)
    labels = np.arange(120) % 4
    centres = np.random.default_rng(7).normal(size=(4, 6))
    return 3 + centres[labels] + noise * chance.normal(size=(120, 6)), labels


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_the_probe_is_scikit_learn_s_logistic_regression_on_centred_and_scaled_features(l2):
    features, labels = problem()
    probe = fit_linear_probe(features, labels, 4, l2)
    centred = features - features.mean(0)
    scaled = centred / np.sqrt((centred**2).sum(1).mean())
    oracle = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-8, max_iter=10_000)
    oracle.fit(scaled, labels)
    other, _ = problem(seed=1)
    expected = oracle.decision_function((other - features.mean(0)) / (centred.std() / scaled.std()))
    logits = probe.logits(other)
    logits -= logits.mean(1, keepdims=True)
    assert np.allclose(logits, expected - expected.mean(1, keepdims=True), atol=5e-3, rtol=1e-3)


def test_where_the_solver_begins_does_not_decide_where_it_ends():
    features, labels = problem()
    cold = fit_linear_probe(features, labels, 4, 1e-2)
    warm = fit_linear_probe(features, labels, 4, 1e-2, fit_linear_probe(features, labels, 4, 1.0))
    assert np.allclose(cold.weights, warm.weights, atol=5e-3, rtol=1e-3)


def test_a_shift_and_a_scale_of_all_features_change_no_answer():
    features, labels = problem()
    moved = 50 * features - 20
    logits = fit_linear_probe(features, labels, 4, 1e-2).logits(features)
    of_moved = fit_linear_probe(moved, labels, 4, 1e-2).logits(moved)
    assert np.allclose(logits, of_moved, atol=5e-3, rtol=1e-3)


def test_weights_shrink_as_l2_grows():
    features, labels = problem()
    norms = [np.linalg.norm(fit_linear_probe(features, labels, 4, l2).weights) for l2 in L2_GRID]
    assert norms == sorted(norms)


def test_the_l2_is_the_best_on_the_validation_images_and_of_equals_the_strongest():
    features, labels = problem(noise=1.5)
    valid_features, valid_labels = problem(seed=2, noise=1.5)
    choice = choose_l2(features, labels, valid_features, valid_labels, 4)
    assert choice.accuracy == max(choice.accuracies)
    assert choice.l2 == L2_GRID[choice.accuracies.index(choice.accuracy)]
    again = fit_linear_probe(features, labels, 4, choice.l2)
    assert np.mean(again.logits(valid_features).argmax(1) == valid_labels) == pytest.approx(
        choice.accuracy, abs=0.01
    )


def test_a_fifth_of_each_class_is_set_aside_and_never_its_last_image():
    labels = np.repeat([0, 1, 2, 3], [20, 3, 2, 1])
    aside = set_aside(labels, seed=0)
    assert [int(aside[labels == label].sum()) for label in range(4)] == [4, 1, 1, 0]
    assert not np.array_equal(aside, set_aside(labels, seed=1))
    assert np.array_equal(aside, set_aside(labels, seed=0))


def test_an_l2_that_bounds_no_weight_is_refused():
    with pytest.raises(ValueError, match=r"^l2 must be above 0, got 0: the weights would grow"):
        fit_linear_probe(*problem(), 4, 0)


def test_an_image_of_weight_2_counts_as_that_image_twice():
    features, labels = problem()
    twice = np.concatenate([np.arange(120), [5]])
    weights = np.ones(120)
    weights[5] = 2
    first = fit_linear_probe(features - features.mean(0), labels, 4, 0.1, weights=weights)
    second = fit_linear_probe(features[twice] - features.mean(0), labels[twice], 4, 0.1)
    # The centre and the scale are those of the images, so l2 differs a little.
    assert np.allclose(first.weights, second.weights, rtol=0.03, atol=0.01)


def test_images_of_a_class_in_one_group_are_never_on_both_sides():
    labels = np.repeat([0, 1, 2], [20, 12, 5])
    groups = np.array([*"aaaabbbbccccddddeeee", *"aaaaaabbbbbb", *"fffff"])
    for seed in range(5):
        aside = set_aside(labels, seed, groups)
        assert np.bincount(labels[aside]).tolist() == [4, 6, 1]
        for label, group in {(0, "a"), (0, "c"), (0, "e"), (1, "a"), (1, "b")}:
            assert len(set(aside[(labels == label) & (groups == group)])) == 1


def test_the_strongest_l2_is_chosen_where_no_image_can_be_set_aside():
    features, labels = np.eye(3, dtype=np.float32), np.arange(3)
    none = set_aside(labels, seed=0)
    assert not none.any()
    choice = choose_l2(features, labels, features[none], labels[none], 3)
    assert choice.l2 == max(L2_GRID)
    probe = fit_linear_probe(features, labels, 3, choice.l2)
    assert probe.logits(features).argmax(axis=1).tolist() == [0, 1, 2]
