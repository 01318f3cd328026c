"""Enrolment by hand, and against a slow loop that builds every gallery and searches it."""

import time

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from test_metrics import random_problem

from dml_bench.evaluation import few_shot
from dml_bench.evaluation.few_shot import FewShotCurve, few_shot_curve, refit_curve
from dml_bench.evaluation.linear_probe import choose_l2
from dml_bench.evaluation.metrics import macro, precision_at_1
from dml_bench.evaluation.search import search
from dml_bench.system import seeding

BOTH = pytest.mark.parametrize("by", ["images", "centroids"])


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def overlapping(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery, query and their labels: classes of 3, 5, 8, 13, 21 and 34 gallery images in mixed
    order."""
    gallery, query, neighbours = random_problem(seed, 1)
    return gallery, query, neighbours.gallery_labels, neighbours.query_labels


def full_of_ties() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The same with 6 distinct vectors, whose products have no rounding."""
    chance = np.random.default_rng(3)
    corners = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    return (
        corners[chance.integers(6, size=60)],
        corners[chance.integers(6, size=40)],
        chance.integers(5, size=60),
        chance.integers(5, size=40),
    )


# Class 0 is known, class 1 unseen. The query of class 1 needs the image at 80 degrees; the one at
# -10 draws the query of class 0 away.
BY_HAND = (at(30, 80, -10), at(90, -20), np.array([0, 1, 1]), np.array([1, 0]))


def test_enrolment_by_hand():
    curve = few_shot_curve(*BY_HAND, [1], ks=(1,), draws=400)
    assert curve.ks == (0, 1, 2)
    assert curve.unseen[[0, 2]].mean(1).tolist() == [0, 1]
    assert curve.seen[[0, 2]].mean(1).tolist() == [1, 0]
    assert set(curve.unseen[1]) == {0, 1}
    assert curve.unseen[1].tolist() == curve.seen[1].tolist()
    assert curve.unseen[1].mean() == pytest.approx(0.5, abs=0.1), (
        "each image is as likely to be the one"
    )
    assert curve.old_without == 1


def test_enrolment_of_centroids_by_hand():
    """With both images the mean of class 1 lies at 35 degrees, and the query at -20 is nearer to
    class 0 at 30."""
    curve = few_shot_curve(*BY_HAND, [1], ks=(1,), draws=50, by="centroids")
    assert curve.unseen[2].tolist() == [1] * 50
    assert curve.seen[2].tolist() == [1] * 50
    assert curve.unseen[1].tolist() == curve.seen[1].tolist()
    assert curve.by == "centroids"


def slow(gallery, query, gallery_labels, query_labels, unseen, k, draw, by, seed=0):
    """P@1 of the unseen and of the seen classes: shuffle each class, take its first k, search."""
    chance = seeding.uniform(seed, "enrolment", draw, rows=len(gallery), columns=1)[:, 0]
    kept = []
    for label in np.unique(gallery_labels):
        images = np.flatnonzero(gallery_labels == label)
        kept += (
            sorted(images, key=lambda image: chance[image])[:k] if label in unseen else list(images)
        )
    kept = np.sort(np.array(kept, int))
    gallery, gallery_labels = gallery[kept], gallery_labels[kept]
    if by == "centroids":
        classes = np.unique(gallery_labels)
        means = np.stack(
            [gallery[gallery_labels == label].astype(float).mean(0) for label in classes]
        )
        gallery, gallery_labels = (
            (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32),
            classes,
        )
    correct = precision_at_1(search(gallery, query, gallery_labels, query_labels, 1))
    is_unseen = np.isin(query_labels, unseen)
    return [macro(correct[group], query_labels[group]) for group in (is_unseen, ~is_unseen)]


@BOTH
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("unseen", [(0, 3, 4), (5,), (1, 2, 3, 4, 5)])
def test_the_curve_equals_a_slow_loop_from_its_definition(by, seed, unseen):
    problem = overlapping(seed)
    curve = few_shot_curve(*problem, unseen, ks=(2, 1, 4, 10), draws=4, by=by, seed=seed)
    assert curve.ks[:5] == (0, 1, 2, 4, 10)
    for row, k in enumerate(curve.ks):
        for draw in range(4):
            expected = slow(*problem, unseen, k, draw, by, seed)
            assert [curve.unseen[row, draw], curve.seen[row, draw]] == pytest.approx(expected), (
                k,
                draw,
            )


def test_equally_near_images_are_taken_in_gallery_order_as_the_search_does():
    problem = full_of_ties()
    curve = few_shot_curve(*problem, [1, 3], ks=(1, 3), draws=20)
    for row, k in enumerate(curve.ks):
        for draw in range(20):
            assert [curve.unseen[row, draw], curve.seen[row, draw]] == pytest.approx(
                slow(*problem, [1, 3], k, draw, "images")
            )


def test_an_old_class_as_near_as_a_new_one_keeps_the_query_of_centroids():
    gallery, labels = at(0, 0), np.array([4, 2])
    curve = few_shot_curve(gallery, gallery, labels, labels, [2], draws=1, by="centroids")
    assert (curve.ks, curve.unseen.tolist(), curve.seen.tolist()) == (
        (0, 1),
        [[0], [0]],
        [[1], [1]],
    )


def test_a_class_mean_of_opposite_images_is_similar_to_nothing():
    gallery, labels = np.array([[0.6, 0.8], [1, 0], [-1, 0]], np.float32), np.array([0, 1, 1])
    curve = few_shot_curve(
        gallery, at(90, 10), labels, np.array([0, 1]), [1], ks=(), draws=1, by="centroids"
    )
    assert (curve.ks, curve.unseen.tolist(), curve.seen.tolist()) == (
        (0, 2),
        [[0], [0]],
        [[1], [1]],
    )


def test_all_images_enrolled_are_the_whole_gallery_and_none_are_the_old_one():
    gallery, query, gallery_labels, query_labels = overlapping()
    curve = few_shot_curve(gallery, query, gallery_labels, query_labels, [2, 4], draws=3)
    precision = precision_at_1(search(gallery, query, gallery_labels, query_labels, 1))
    new, new_queries = np.isin(gallery_labels, [2, 4]), np.isin(query_labels, [2, 4])
    without = precision_at_1(search(gallery[~new], query, gallery_labels[~new], query_labels, 1))
    assert curve.ks == (0, 1, 2, 5, 10, 20, 21)
    assert curve.unseen[-1] == pytest.approx(
        macro(precision[new_queries], query_labels[new_queries])
    )
    assert curve.seen[-1] == pytest.approx(
        macro(precision[~new_queries], query_labels[~new_queries])
    )
    assert curve.old_without == pytest.approx(
        macro(without[~new_queries], query_labels[~new_queries])
    )
    assert curve.unseen[0].tolist() == [0, 0, 0]
    assert 0 < curve.unseen[1].mean() < curve.unseen[-1].mean()


def test_a_k_that_reaches_every_class_is_all():
    assert few_shot_curve(*overlapping(), [0, 1], ks=(1, 5, 20), draws=1).ks == (0, 1, 5)
    assert few_shot_curve(*overlapping(), [0], ks=(20,), draws=1).ks == (0, 3)


@BOTH
def test_a_draw_depends_on_the_seed_and_its_number_alone(by):
    few, many, other = (
        few_shot_curve(*overlapping(), [3, 4, 5], draws=draws, seed=seed, by=by)
        for draws, seed in ((3, 0), (8, 0), (8, 1))
    )
    assert few.unseen.tolist() == many.unseen[:, :3].tolist()
    assert many.unseen.tolist() != other.unseen.tolist()
    assert len(set(many.unseen[1])) > 1, "draws differ from each other"


@BOTH
def test_neither_names_of_classes_nor_the_order_of_queries_matter(by):
    gallery, query, gallery_labels, query_labels = overlapping()
    curve = few_shot_curve(gallery, query, gallery_labels, query_labels, [0, 4], draws=5, by=by)
    names, order = np.array([11, 7, 9, 0, 3, 5]), np.random.default_rng(0).permutation(len(query))
    other = few_shot_curve(
        gallery,
        query[order],
        names[gallery_labels],
        names[query_labels[order]],
        names[[0, 4]],
        draws=5,
        by=by,
    )
    assert other.unseen == pytest.approx(curve.unseen)
    assert other.seen == pytest.approx(curve.seen)


def test_queries_are_answered_in_chunks_as_at_once(monkeypatch):
    at_once = few_shot_curve(*overlapping(), [1, 4], draws=5)
    monkeypatch.setattr(few_shot, "CHUNK", 7)
    parts = few_shot_curve(*overlapping(), [1, 4], draws=5)
    assert (parts.unseen.tolist(), parts.seen.tolist()) == (
        at_once.unseen.tolist(),
        at_once.seen.tolist(),
    )


def test_the_band_is_the_mean_and_the_middle_of_the_draws():
    draws = np.linspace(0, 1, 101)
    curve = FewShotCurve(
        (0, 1), np.stack([np.zeros(101), draws]), np.stack([1 - draws / 2, np.ones(101)]), "images"
    )
    for band, expected in (
        (curve.band("unseen"), [[0, 0.5], [0, 0.025], [0, 0.975]]),
        (curve.band("seen", level=0.5), [[0.75, 1], [0.625, 1], [0.875, 1]]),
    ):
        assert np.array(band) == pytest.approx(np.array(expected))


@BOTH
def test_a_group_without_queries_is_undefined(by):
    gallery, query, gallery_labels, query_labels = overlapping()
    only = query_labels == 1
    curve = few_shot_curve(
        gallery, query[only], gallery_labels, query_labels[only], [1], draws=2, by=by
    )
    assert np.isnan(curve.seen).all()
    assert not np.isnan(curve.unseen).any()
    assert np.isnan(np.array(curve.band("seen"))).all()


@pytest.mark.parametrize("unseen", [(), (9,), range(6)], ids=["none", "unknown class", "all"])
def test_without_unseen_or_without_other_classes_there_is_no_curve(unseen):
    with pytest.raises(ValueError, match="both of unseen classes and of others"):
        few_shot_curve(*overlapping(), unseen)


@pytest.mark.parametrize("settings", [{"ks": (0, 1)}, {"ks": (-1,)}, {"draws": 0}], ids=str)
def test_counts_that_are_not_positive_are_refused(settings):
    with pytest.raises(ValueError, match="at least one image per class and one draw"):
        few_shot_curve(*overlapping(), [1], **settings)


@BOTH
def test_a_hundred_draws_of_the_whole_of_cub_take_seconds(by):
    chance = np.random.default_rng(0)
    gallery, query = (
        chance.normal(size=(images, 128)).astype(np.float32) for images in (9_400, 2_400)
    )
    gallery, query = (
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (gallery, query)
    )
    start = time.process_time()
    curve = few_shot_curve(
        gallery, query, np.arange(9_400) % 200, np.arange(2_400) % 200, range(180, 200), by=by
    )
    assert time.process_time() - start < 10
    assert curve.unseen.shape == (7, 100)


# A classifier that is fitted again


def separable(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery, query and labels of 4 classes of 12 images around the corners of a cube."""
    chance = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 12)
    vectors = np.eye(4)[labels] + 0.15 * chance.normal(size=(48, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors.astype(np.float32)
    return vectors[::2], vectors[1::2], labels[::2], labels[1::2]


def test_a_classifier_knows_no_new_class_until_it_is_fitted_again_with_images_of_it():
    curve = refit_curve(*separable(), [3], ks=(1, 3), draws=2)
    assert curve.ks == (0, 1, 3, 6)
    assert curve.unseen[0].tolist() == [0, 0] and curve.seen[0].tolist() == [1, 1]
    assert (curve.unseen[1:] > 0.8).all() and (curve.seen[1:] > 0.8).all()
    assert curve.by == "refit"
    assert curve.seconds.shape == (4, 2) and (curve.seconds > 0).all()


def test_waiting_does_not_lengthen_the_time_of_a_refit(monkeypatch):
    fit = few_shot.fit_linear_probe

    def waiting(*rest, **options):
        time.sleep(0.5)
        return fit(*rest, **options)

    monkeypatch.setattr(few_shot, "fit_linear_probe", waiting)
    curve = refit_curve(*separable(), [3], ks=(1,), draws=1)
    assert (curve.seconds < 0.4).all()


def test_a_refit_is_logistic_regression_in_which_all_classes_count_the_same():
    gallery, query, gallery_labels, query_labels = separable()
    curve = refit_curve(gallery, query, gallery_labels, query_labels, [1], ks=(2,), draws=1)
    chance = seeding.uniform(0, "enrolment", 0, rows=len(gallery), columns=1)[:, 0]
    new = np.flatnonzero(gallery_labels == 1)
    kept = np.sort(
        np.concatenate([np.flatnonzero(gallery_labels != 1), new[np.argsort(chance[new])][:2]])
    )
    oracle = LogisticRegression(C=1.0, class_weight="balanced", max_iter=10_000)
    predicted = oracle.fit(gallery[kept], gallery_labels[kept]).predict(query)
    right = predicted == query_labels
    assert curve.unseen[1, 0] == pytest.approx(right[query_labels == 1].mean(), abs=0.2)
    assert curve.seen[1, 0] == pytest.approx(right[query_labels != 1].mean(), abs=0.1)
    assert curve.unseen[1, 0] > 0.8


def test_no_query_has_a_part_in_a_refit():
    gallery, query, gallery_labels, query_labels = separable()
    of_all = refit_curve(gallery, query, gallery_labels, query_labels, [3], draws=1)
    last = slice(len(query) - 6, None)
    first = refit_curve(gallery, query[last], gallery_labels, query_labels[last], [3], draws=1)
    assert np.array_equal(of_all.unseen, first.unseen)


def test_no_session_is_on_both_sides_of_the_choice_of_a_refit(monkeypatch):
    """All images of a session have one vector, so that it shows on which side they are."""
    sessions = np.repeat(np.arange(20), 4)
    labels = sessions // 5
    vectors = np.eye(20, dtype=np.float32)[sessions]
    sides: list[tuple[set[int], set[int]]] = []

    def listened(fitted: np.ndarray, fitted_labels: np.ndarray, chosen_on: np.ndarray, *rest):
        sides.append((set(fitted.argmax(1).tolist()), set(chosen_on.argmax(1).tolist())))
        return choose_l2(fitted, fitted_labels, chosen_on, *rest)

    monkeypatch.setattr(few_shot, "choose_l2", listened)
    refit_curve(vectors, vectors, labels, labels, [3], ks=(), draws=1, groups=sessions)
    [(fitted, chosen_on)] = sides
    assert chosen_on and not fitted & chosen_on
    assert fitted | chosen_on == set(range(15)), "of the old classes"
