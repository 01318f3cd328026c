"""A catalogue as the gallery of field photos: one studio photo of each class, or a few, in place of
photos like those that are asked about; and what k field photos of each class add.

Studio and field photos are two domains, and embeddings of each lie around a mean of their own.
Centring takes from each embedding the mean of its domain. The mean of field photos is that of
enrolled ones, whose classes it doesn't need; no query has a part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.few_shot import macro_of
from dml_bench.system import seeding

__all__ = ["KS", "CatalogueCurve", "CatalogueImages", "catalogue_curve", "right_by_catalogue"]

KS = (0, 1, 2, 5, 10)
"""Field photos of each class that are enrolled beside the catalogue."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogueImages:
    """Embeddings of one model, all (images, dim) float32 unit vectors, with (images) class ids."""

    catalogue: np.ndarray
    catalogue_labels: np.ndarray
    field: np.ndarray
    """Field photos that may be enrolled."""
    field_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray

    def centred(self, of_mean: np.ndarray | None = None) -> "CatalogueImages":
        """Each domain around its mean, at unit length again. `of_mean` (field) says of which field
        photos the mean is taken; by default of all."""
        photos = self.field if of_mean is None else self.field[of_mean]
        studio_mean, field_mean = self.catalogue.mean(0), photos.mean(0)
        return CatalogueImages(
            catalogue=at_unit_length(self.catalogue - studio_mean),
            catalogue_labels=self.catalogue_labels,
            field=at_unit_length(self.field - field_mean),
            field_labels=self.field_labels,
            query=at_unit_length(self.query - field_mean),
            query_labels=self.query_labels,
        )


@dataclass(frozen=True, slots=True)
class CatalogueCurve:
    """P@1, averaged over classes, against the field photos that each class has in the gallery."""

    ks: tuple[int, ...]
    beside_catalogue: np.ndarray
    """(ks, draws) of a gallery of catalogue and field photos."""
    field_only: np.ndarray
    """(ks, draws) of a gallery of these field photos alone; 0 where k is 0."""


def at_unit_length(vectors: np.ndarray) -> np.ndarray:
    """What has no length stays 0, and is similar to nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit


def right_by_catalogue(images: CatalogueImages) -> np.ndarray:
    """(query) whether the nearest studio photo is of the query's class; of equally near ones the
    first. A single studio photo has no length once it is centred, and answers all."""
    nearest = (images.query @ images.catalogue.T).argmax(1)
    right: np.ndarray = images.catalogue_labels[nearest] == images.query_labels
    return right


def catalogue_curve(
    images: CatalogueImages,
    chosen: np.ndarray,
    *,
    ks: Sequence[int] = KS,
    draws: int = 10,
    seed: int = 0,
) -> CatalogueCurve:
    """P@1 of the `chosen` (query) queries, with k random field photos of every class, for every k
    of `ks`, or with all that a class has. Draw i depends on the seed and on i alone. Raises
    ValueError where there are no queries."""
    if not chosen.any():
        raise ValueError("a curve needs queries: choose some")
    query, labels = images.query[chosen], images.query_labels[chosen]
    studio = query @ images.catalogue.T
    best_studio = studio.max(1)
    right_studio = images.catalogue_labels[studio.argmax(1)] == labels
    similarity = query @ images.field.T
    beside = np.empty((len(ks), draws, len(query)), bool)
    alone = np.zeros((len(ks), draws, len(query)), bool)
    for draw in range(draws):
        places = places_in_class(images.field_labels, seed, draw)
        for row, k in enumerate(ks):
            enrolled = np.flatnonzero(places < k)
            if not len(enrolled):
                beside[row, draw] = right_studio
                continue
            part = similarity[:, enrolled]
            best = part.max(1)
            right = images.field_labels[enrolled[part.argmax(1)]] == labels
            alone[row, draw] = right
            # Of equally near ones, the catalogue's comes first.
            beside[row, draw] = np.where(best > best_studio, right, right_studio)
    every = np.ones(len(query), bool)
    return CatalogueCurve(
        tuple(ks), macro_of(beside, labels, every), macro_of(alone, labels, every)
    )


def places_in_class(labels: np.ndarray, seed: int, draw: int) -> np.ndarray:
    """(images) the place of each in a random order of its class's images, from 0."""
    chance = seeding.uniform(seed, "catalogue", draw, rows=len(labels), columns=1)[:, 0]
    order = np.lexsort((chance, labels))
    places = np.empty(len(labels), np.int64)
    places[order] = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return places
