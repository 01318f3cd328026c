"""A catalogue as the gallery of field photos."""

from dataclasses import replace

import numpy as np
import pytest

from dml_bench.evaluation.catalogue import (
    CatalogueImages,
    catalogue_curve,
    right_by_catalogue,
)


def drawn(shift: float, classes: int = 12, per_class: int = 8) -> CatalogueImages:
    """Classes around random directions; field photos are moved by the same shift."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(classes, 16))
    moved = np.full(16, shift)

    def photos(count: int, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(classes), count)
        vectors = centres[labels] + 0.5 * rng.normal(size=(len(labels), 16)) + offset
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32), labels

    studio, field, query = photos(1, 0 * moved), photos(per_class, moved), photos(5, moved)
    return CatalogueImages(
        catalogue=studio[0],
        catalogue_labels=studio[1],
        field=field[0],
        field_labels=field[1],
        query=query[0],
        query_labels=query[1],
    )


ALL = np.ones(60, bool)


def test_the_nearest_studio_photo_answers():
    images = drawn(0.0)
    nearest = (images.query @ images.catalogue.T).argmax(1)
    expected = images.catalogue_labels[nearest] == images.query_labels
    assert right_by_catalogue(images).tolist() == expected.tolist()


def test_centring_takes_away_what_divides_the_domains():
    images = drawn(2.0)
    centred = images.centred()
    assert np.abs(centred.field.mean(0)).max() < 0.1
    assert np.linalg.norm(centred.query, axis=1) == pytest.approx(np.ones(60), abs=1e-5)
    assert right_by_catalogue(centred).mean() > right_by_catalogue(images).mean() + 0.1


def test_a_catalogue_of_one_photo_answers_all_queries_with_its_class():
    images = drawn(1.0)
    single = replace(images, catalogue=images.catalogue[:1], catalogue_labels=np.array([0]))
    of_class = (images.query_labels == 0).tolist()
    assert right_by_catalogue(single).tolist() == of_class
    assert right_by_catalogue(single.centred()).tolist() == of_class
    curve = catalogue_curve(single.centred(), ALL, ks=(0,))
    assert curve.beside_catalogue.mean() == pytest.approx(1 / 12)


def test_the_mean_of_the_field_is_of_the_photos_that_are_named_and_of_no_query():
    images = drawn(1.0)
    few = images.field_labels < 4
    by_hand = images.query - images.field[few].mean(0)
    by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
    assert images.centred(few).query == pytest.approx(by_hand, abs=1e-6)


def test_the_curve_begins_with_the_catalogue_alone_and_ends_with_all_photos():
    images = drawn(0.5)
    curve = catalogue_curve(images, ALL, ks=(0, 1, 3, 8), draws=4)
    of_catalogue = right_by_catalogue(images).reshape(12, 5).mean()
    assert curve.beside_catalogue[0] == pytest.approx(np.full(4, of_catalogue))
    assert curve.field_only[0].tolist() == [0] * 4
    together = np.concatenate([images.catalogue, images.field])
    labels = np.concatenate([images.catalogue_labels, images.field_labels])
    right = labels[(images.query @ together.T).argmax(1)] == images.query_labels
    assert curve.beside_catalogue[-1] == pytest.approx(np.full(4, right.mean()))
    assert curve.field_only.mean(1).tolist() == sorted(curve.field_only.mean(1).tolist())


def test_each_draw_enrols_the_photos_of_a_smaller_number_too_and_is_repeatable():
    images = drawn(0.5)
    first, again = (catalogue_curve(images, ALL, draws=3, seed=5) for _ in range(2))
    assert np.array_equal(first.beside_catalogue, again.beside_catalogue)
    other = catalogue_curve(images, ALL, draws=3, seed=6)
    assert not np.array_equal(first.field_only, other.field_only)


def test_without_queries_there_is_no_curve():
    with pytest.raises(ValueError, match="needs queries"):
        catalogue_curve(drawn(0.0), np.zeros(60, bool))
