"""Enrolling classes that the model never trained on: a few gallery images of each, and no training.

The model stays as it is, and the old classes keep all their gallery images. Of each unseen class k
images, drawn at random, are put into the gallery, so that its queries can be answered, at the price
that queries of the old classes may now be drawn to the new ones. Both are measured against k, by
the nearest image or by the nearest class mean (Mensink et al. 2013, "Distance-based image
classification: generalizing to new classes at near-zero cost"; Snell et al. 2017, "Prototypical
networks").

A classifier's answer to a new class is to fit its last layer again, on the same images; that is
`refit_curve`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dml_bench.evaluation.linear_probe import (
    L2_GRID,
    LinearProbe,
    choose_l2,
    fit_linear_probe,
    set_aside,
)
from dml_bench.system import seeding

__all__ = [
    "LARGEST_REFIT",
    "FewShotCurve",
    "RefitCurve",
    "few_shot_curve",
    "macro_of",
    "refit_curve",
]

LARGEST_REFIT = 10**10
"""Images x dimensions x classes of a fit that takes up to a minute of a core; a curve has twenty
fits."""

CHUNK = 1024
"""Queries whose similarities are held at a time."""
COARSE_L2_GRID = L2_GRID[::3]
"""Of which a refit chooses."""


@dataclass(frozen=True, slots=True)
class FewShotCurve:
    """P@1, averaged over the classes of each group, against the number of images that each unseen
    class has in the gallery."""

    ks: tuple[int, ...]
    """Images enrolled per unseen class, or all that a class has: first 0 (not enrolled), last the
    largest class's count."""
    unseen: np.ndarray
    """(ks, draws) of the queries of the unseen classes, 0 where k is 0; nan where they have none.
    """
    seen: np.ndarray
    """(ks, draws) of the queries of the old classes, in the same galleries; nan where they have
    none."""
    by: Literal["images", "centroids", "refit"]

    @property
    def old_without(self) -> float:
        """P@1 of the old classes while no unseen class is enrolled."""
        return float(self.seen[0, 0])

    def band(
        self, group: Literal["unseen", "seen"], level: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(ks) mean, low and high over draws: the band holds `level` of the draws. It says nothing
        of other queries or models."""
        precision = {"unseen": self.unseen, "seen": self.seen}[group]
        low, high = np.quantile(precision, [(1 - level) / 2, (1 + level) / 2], axis=1)
        return precision.mean(1), low, high


@dataclass(frozen=True, slots=True)
class RefitCurve(FewShotCurve):
    """The same of a last layer that is fitted again for each k and draw."""

    seconds: np.ndarray
    """(ks, draws) CPU time of one fit, from the layer of the old classes on."""


@dataclass(frozen=True, slots=True)
class FewShotImages:
    """Embeddings, divided into the old classes' gallery images and those that get enrolled."""

    gallery: np.ndarray
    gallery_labels: np.ndarray
    query: np.ndarray
    query_labels: np.ndarray
    old: np.ndarray
    """(old) positions in the gallery, rising."""
    new: np.ndarray
    """(new) positions of the unseen classes' images, rising."""


def few_shot_curve(
    gallery: np.ndarray,
    query: np.ndarray,
    gallery_labels: np.ndarray,
    query_labels: np.ndarray,
    unseen: Sequence[int] | np.ndarray,
    *,
    ks: Sequence[int] = (1, 2, 5, 10, 20),
    draws: int = 100,
    seed: int = 0,
    by: Literal["images", "centroids"] = "images",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FewShotCurve:
    """What k images per unseen class are worth, for every k of `ks` below the largest class's
    count, for none and for all.

    Args: gallery, query: (images, dim) and (query, dim) float32 unit vectors of one model.
    gallery_labels, query_labels: int64 class ids of each. unseen: ids of the classes to enrol.
    draws: how often each class's images are put in a random order, of which the first k are
    enrolled. Draw i depends on the seed and on i alone. by: nearest image (equally near ones in
    gallery order, as `search`), or nearest normalised class mean of the enrolled images (an old
    class before an unseen one where equally near, then the lower id). progress: hears of queries,
    or of draws for class means, that are done.

    Raises ValueError where the gallery lacks images of unseen classes, or of others, or where a k
    or `draws` is not positive.
    """
    images, steps, places = enrolments(
        (gallery, gallery_labels), (query, query_labels), unseen, ks, draws, seed
    )
    right_by = {"images": right_by_images, "centroids": right_by_centroids}[by]
    right = right_by(images, places, steps, progress)
    return FewShotCurve(steps, *unseen_and_seen(right, query_labels, unseen), by)


def refit_curve(
    gallery: np.ndarray,
    query: np.ndarray,
    gallery_labels: np.ndarray,
    query_labels: np.ndarray,
    unseen: Sequence[int] | np.ndarray,
    *,
    ks: Sequence[int] = (1, 2, 5, 10, 20),
    draws: int = 3,
    seed: int = 0,
    groups: np.ndarray | None = None,
) -> RefitCurve:
    """What the same images are worth to a classifier: logistic regression on the vectors of the old
    classes' images and of the k new ones, in which all classes count the same however few images
    they have.

    Its l2 is chosen once, on a fifth of the old classes' gallery images; no query chooses anything.
    Where these have (images) `groups`, that fifth is of whole groups, as photos of one session
    would choose too weak a penalty. Other arguments and errors are those of `few_shot_curve`; draw
    i enrols the same images.
    """
    images, steps, places = enrolments(
        (gallery, gallery_labels), (query, query_labels), unseen, ks, draws, seed
    )
    right, seconds = right_by_refit(images, places, steps, seed, groups)
    curves = unseen_and_seen(right, query_labels, unseen)
    return RefitCurve(steps, *curves, "refit", seconds)


def enrolments(
    gallery: tuple[np.ndarray, np.ndarray],
    query: tuple[np.ndarray, np.ndarray],
    unseen: Sequence[int] | np.ndarray,
    ks: Sequence[int],
    draws: int,
    seed: int,
) -> tuple[FewShotImages, tuple[int, ...], np.ndarray]:
    """The images in their parts, the numbers of images to enrol, and (draws, new) the places."""
    (vectors, gallery_labels), (queries, query_labels) = gallery, query
    is_new = np.isin(gallery_labels, unseen)
    if is_new.all() or not is_new.any():
        raise ValueError(
            "an enrolment curve needs gallery images both of unseen classes and of others; check"
            " which classes are unseen"
        )
    if min(ks, default=1) < 1 or draws < 1:
        raise ValueError(
            "a few-shot curve must have at least one image per class and one draw, got ks"
            f" {tuple(ks)} and {draws} draws"
        )
    images = FewShotImages(
        vectors,
        gallery_labels,
        queries,
        query_labels,
        np.flatnonzero(~is_new),
        np.flatnonzero(is_new),
    )
    largest = int(np.bincount(gallery_labels[is_new]).max())
    steps = (0, *sorted({int(k) for k in ks if k < largest}), largest)
    places = np.stack([places_in_class(images, seed, draw) for draw in range(draws)])
    return images, steps, places


def places_in_class(images: FewShotImages, seed: int, draw: int) -> np.ndarray:
    """(new) the place of each image in a random order of its class's images, from 0."""
    chance = seeding.uniform(seed, "enrolment", draw, rows=len(images.gallery), columns=1)[
        images.new, 0
    ]
    labels = images.gallery_labels[images.new]
    order = np.lexsort((chance, labels))
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    return places


def unseen_and_seen(
    right: np.ndarray, labels: np.ndarray, unseen: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`macro_of` the queries of unseen classes, and of the others."""
    of_unseen = np.isin(labels, unseen)
    return macro_of(right, labels, of_unseen), macro_of(right, labels, ~of_unseen)


def macro_of(right: np.ndarray, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(k, draws) mean over the classes of the mean over their queries, of (k, draws, query)
    answers; nan where `group` is empty."""
    if not group.any():
        return np.full(right.shape[:2], np.nan)
    order = np.flatnonzero(group)[np.argsort(labels[group], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    return (np.add.reduceat(right[:, :, order], starts, axis=2, dtype=np.int64) / counts).mean(2)


def right_by_images(
    images: FewShotImages,
    places: np.ndarray,
    ks: tuple[int, ...],
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """(k, draws, query) whether the nearest image is of the query's class.

    The new images are ranked once for each query. Sorted by their places, those that a larger k
    adds stand together, so the best rank of all that k enrols is a running minimum; and which
    answer a rank gives is known beforehand.
    """
    sizes = np.unique(images.gallery_labels[images.new], return_counts=True)[1]
    ends = [int(np.minimum(sizes, k).sum()) for k in ks]
    orders = np.argsort(places, axis=1, kind="stable")
    right = np.empty((len(ks), len(places), len(images.query)), bool)
    for start in range(0, len(images.query), CHUNK):
        progress(start, len(images.query))
        part = slice(start, start + CHUNK)
        ranks, right_at, right_without = ranked(images, part)
        right[0, :, part] = right_without
        for draw, order in enumerate(orders):
            best = np.full(ranks.shape[1], len(ranks) - 1, ranks.dtype)
            for k in range(1, len(ks)):
                best = np.minimum(best, ranks[order[ends[k - 1] : ends[k]]].min(axis=0))
                right[k, draw, part] = right_at[best, np.arange(len(best))]
    progress(len(images.query), len(images.query))
    return right


def ranked(images: FewShotImages, part: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(new, query) rank of each new image among the new ones, 0 the nearest; (new, query) whether
    the query is answered right if the nearest enrolled image has this rank; and (query) whether it
    is if none is enrolled."""
    labels, similarity = images.query_labels[part], images.query[part] @ images.gallery.T
    known, new = similarity[:, images.old], similarity[:, images.new]
    nearest = known.argmax(1)
    best = np.take_along_axis(known, nearest[:, None], 1)
    right_without = images.gallery_labels[images.old[nearest]] == labels
    ahead = ((new > best) | ((new == best) & (images.new < images.old[nearest][:, None]))).sum(1)
    order = np.argsort(-new, axis=1, kind="stable").T
    ranks = np.empty(order.shape, np.int32)
    positions = np.arange(len(order), dtype=np.int32)[:, None]
    np.put_along_axis(ranks, order, positions, axis=0)
    right_at = np.where(
        positions < ahead, images.gallery_labels[images.new][order] == labels, right_without
    )
    return ranks, right_at, right_without


def right_by_centroids(
    images: FewShotImages,
    places: np.ndarray,
    ks: tuple[int, ...],
    progress: Callable[[int, int], None],
) -> np.ndarray:
    """(k, draws, query) whether the nearest class mean is that of the query's class."""
    labels = images.query_labels
    old_classes, rows = np.unique(images.gallery_labels[images.old], return_inverse=True)
    known = images.query @ unit(sums(images.gallery[images.old], rows, len(old_classes))).T
    right_without, best_known = old_classes[known.argmax(1)] == labels, known.max(1)
    classes, rows = np.unique(images.gallery_labels[images.new], return_inverse=True)
    vectors = images.gallery[images.new]
    right = np.empty((len(ks), len(places), len(images.query)), bool)
    right[0] = right_without
    for draw, place in enumerate(places):
        progress(draw, len(places))
        step = np.searchsorted(ks[1:], place, side="right")
        added = sums(vectors, step * len(classes) + rows, (len(ks) - 1) * len(classes))
        means = unit(np.cumsum(added.reshape(len(ks) - 1, len(classes), -1), axis=0))
        for k, centroids in enumerate(means, start=1):
            new = images.query @ centroids.T
            nearest = new.argmax(1)
            wins = np.take_along_axis(new, nearest[:, None], 1)[:, 0] > best_known
            right[k, draw] = np.where(wins, classes[nearest] == labels, right_without)
    progress(len(places), len(places))
    return right


def right_by_refit(
    images: FewShotImages,
    places: np.ndarray,
    ks: tuple[int, ...],
    seed: int,
    groups: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(k, draws, query) whether a refitted classifier names the query's class, and (k, draws) the
    CPU time of each fit in seconds, which other work on the machine does not lengthen."""
    vectors, labels = images.gallery[images.old], images.gallery_labels[images.old]
    old_classes, rows = np.unique(labels, return_inverse=True)
    aside = set_aside(rows, seed, None if groups is None else groups[images.old])
    l2 = choose_l2(
        vectors[~aside], rows[~aside], vectors[aside], rows[aside], len(old_classes), COARSE_L2_GRID
    ).l2
    start = time.process_time()
    known = fit_linear_probe(vectors, rows, len(old_classes), l2, weights=balanced(rows))
    right = np.empty((len(ks), len(places), len(images.query)), bool)
    seconds = np.empty((len(ks), len(places)))
    seconds[0] = time.process_time() - start
    right[0] = old_classes[known.logits(images.query).argmax(1)] == images.query_labels
    # The old classes come first, so that the fit goes on from their layer.
    new_classes = np.unique(images.gallery_labels[images.new])
    classes = np.concatenate([old_classes, new_classes])
    fresh = np.zeros((len(new_classes), vectors.shape[1]), vectors.dtype)
    begun = LinearProbe(
        np.concatenate([known.weights, fresh]),
        np.concatenate([known.bias, np.full(len(new_classes), known.bias.mean())]),
    )
    order = np.argsort(classes, kind="stable")
    for draw, place in enumerate(places):
        for step, k in enumerate(ks[1:], start=1):
            enrolled = np.concatenate([images.old, images.new[place < k]])
            chosen = order[np.searchsorted(classes[order], images.gallery_labels[enrolled])]
            start = time.process_time()
            probe = fit_linear_probe(
                images.gallery[enrolled], chosen, len(classes), l2, begun, balanced(chosen)
            )
            seconds[step, draw] = time.process_time() - start
            predicted = classes[probe.logits(images.query).argmax(1)]
            right[step, draw] = predicted == images.query_labels
    return right, seconds


def balanced(labels: np.ndarray) -> np.ndarray:
    """(images) in inverse proportion to the images of the class."""
    return 1 / np.bincount(labels)[labels]


def sums(vectors: np.ndarray, cells: np.ndarray, num_cells: int) -> np.ndarray:
    """(num_cells, dim) sum of the vectors of each cell; 0 for an empty one."""
    order = np.argsort(cells, kind="stable")
    filled, starts = np.unique(cells[order], return_index=True)
    total = np.zeros((num_cells, vectors.shape[1]), vectors.dtype)
    total[filled] = np.add.reduceat(vectors[order], starts, axis=0)
    return total


def unit(vectors: np.ndarray) -> np.ndarray:
    """To length 1; what has none, as the sum of opposite images, stays 0 and is similar to
    nothing."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
