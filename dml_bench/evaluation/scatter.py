"""How far the test images of a class scatter against its training images: distances within a class,
between its two parts, and to the next class.

A distance is one minus a cosine similarity, 0 to 2: half the squared Euclidean distance of unit
vectors. All are means over pairs of different images, so that classes of few images have the
distances of classes of many.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from dml_bench.evaluation.few_shot import sums
from dml_bench.evaluation.search import ENTRIES
from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.system.shapes import Float, Int, shaped

__all__ = ["GROUPS", "MEASURES", "bounds_of", "scatter", "scatter_by_group"]

GROUPS = ("seen", "unseen")
"""Groups of classes."""

MEASURES = {
    "train_dispersion": "distance between two training images of a class",
    "test_dispersion": "distance between two test images of a class",
    "test_to_train": "distance from a test image to a training image of its class",
    "mean_shift": (
        "half the squared distance from the mean of the test images to that of the training images:"
        " what the distance between them is above the mean of the two distances within them"
    ),
    "train_margin": (
        "similarity of a training image to the nearest other one of its class, minus that to the"
        " nearest of another class"
    ),
    "test_margin": (
        "similarity of a test image to the nearest training image of its class, minus that to the"
        " nearest of another class; above 0 it is right"
    ),
}
"""What is measured, in the order of tables."""


@shaped
def scatter(
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    query: Annotated[np.ndarray, Float("query dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
    query_labels: Annotated[np.ndarray, Int("query")],
    *,
    with_margins: bool = True,
) -> dict[str, Scores]:
    """By the names of MEASURES, one value for each training image (gallery) or test image (query),
    of unit vectors; nan where an image has no partner. Margins, which compare all images, take
    longest: `with_margins` says whether they are wanted.

    The mean of a class's `mean_shift` is the unbiased estimate, which may lie a little below 0.
    """
    count = 1 + int(max(gallery_labels.max(initial=0), query_labels.max(initial=0)))
    train, test = gallery.astype(np.float64), query.astype(np.float64)
    of_train = within_class(train, gallery_labels, count)
    of_test = within_class(test, query_labels, count)
    between = distance_to_class(test, query_labels, train, gallery_labels, count)
    train_of_class = class_means_of(of_train, gallery_labels, count)
    shift = between - (of_test + train_of_class[query_labels]) / 2
    values = {
        "train_dispersion": of_train,
        "test_dispersion": of_test,
        "test_to_train": between,
        "mean_shift": shift,
    }
    if with_margins:
        of_gallery = margins(gallery, gallery_labels, gallery, gallery_labels, itself=True)
        values["train_margin"] = of_gallery
        of_queries = margins(query, query_labels, gallery, gallery_labels, itself=False)
        values["test_margin"] = of_queries
    results = {}
    for name, of_images in values.items():
        labels = gallery_labels if name.startswith("train") else query_labels
        results[name] = Scores(of_images, labels)
    return results


def scatter_by_group(
    measured: Mapping[str, Scores], unseen: Sequence[int] | np.ndarray
) -> dict[str, dict[str, Interval]]:
    """By `seen` and `unseen`, then by measure of `scatter`, the mean over classes with its 95%
    interval. `unseen` are class ids; what no image of a group has is left out."""
    groups: dict[str, dict[str, Interval]] = {group: {} for group in GROUPS}
    for measure, scores in measured.items():
        defined = scores.where(np.isfinite(scores.values))
        is_unseen = np.isin(defined.labels, unseen)
        for group, chosen in zip(GROUPS, (~is_unseen, is_unseen), strict=True):
            if chosen.any():
                mean = interval([defined.where(chosen)], within=bounds_of(measure))
                groups[group][measure] = mean
    return groups


def bounds_of(measure: str, *, is_difference: bool = False) -> tuple[float, float]:
    """The range of a measure, or of a difference of two."""
    if measure == "mean_shift":
        return -np.inf, 2.0
    return (-2.0 if is_difference or measure.endswith("margin") else 0.0), 2.0


def within_class(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(images) mean distance to the other images of the class; nan without others."""
    totals = sums(vectors, labels, count)[labels] - vectors
    others = np.bincount(labels, minlength=count)[labels] - 1
    return distances(vectors, totals, others)


def distance_to_class(
    vectors: np.ndarray,
    labels: np.ndarray,
    others: np.ndarray,
    other_labels: np.ndarray,
    count: int,
) -> np.ndarray:
    """(images) mean distance to the `others` of the class; nan without any."""
    totals = sums(others, other_labels, count)[labels]
    return distances(vectors, totals, np.bincount(other_labels, minlength=count)[labels])


def distances(vectors: np.ndarray, totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(images) mean distance of unit vectors to so many others, of which the sums are given."""
    similarities = (vectors * totals).sum(1) / np.maximum(counts, 1)
    return np.where(counts > 0, 1 - similarities, np.nan)


def class_means_of(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(classes) the mean of (images) values in each class; nan for a class without images."""
    totals = np.bincount(labels, weights=values, minlength=count)
    counts = np.bincount(labels, minlength=count)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)


def margins(
    vectors: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    itself: bool,
) -> np.ndarray:
    """(images) similarity to the nearest gallery image of the class minus that to the nearest of
    another; nan without one of the two. `itself`: the images are the gallery, and none is its own
    neighbour."""
    margin = np.empty(len(labels))
    size = max(ENTRIES // max(len(gallery), 1), 1)
    for first in range(0, len(labels), size):
        rows = slice(first, first + size)
        similarities = vectors[rows] @ gallery.T
        same = labels[rows, None] == gallery_labels
        if itself:
            places = np.arange(len(similarities))
            similarities[places, places + first] = -np.inf
        own = np.where(same, similarities, -np.inf).max(1)
        other = np.where(same, -np.inf, similarities).max(1)
        known = np.isfinite(own) & np.isfinite(other)
        margin[rows] = np.where(known, own - np.where(known, other, 0), np.nan)
    return margin
