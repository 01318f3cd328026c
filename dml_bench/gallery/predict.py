"""Classes of photos, predicted by a search in a gallery: the class of the closest image, the vote
of the others, and whether the photo is of a known class.

The threshold is chosen on images on which the network was not trained: the run's validation images,
or its queries where it has none, and the enrolled images, each left out of its own search. Training
images would promise too much, because training has pulled them together. A threshold that was
chosen on validation images is tried on the queries.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dml_bench.data.images import Unreadable
from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.open_set import Threshold, apply_threshold, threshold_for_precision
from dml_bench.gallery import index_recall
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import Search, exact_search
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryImage, part_of_split
from dml_bench.runs.arrays import Embeddings
from dml_bench.runs.run import Run

__all__ = [
    "AppliedThreshold",
    "CalibrationSet",
    "Prediction",
    "Predictions",
    "SearchOutcomes",
    "calibration_set",
    "cuts_to_boxes",
    "predict",
    "recall_queries",
    "threshold_of",
]

Part = Literal["valid", "query"]
PARTS: tuple[Part, ...] = ("valid", "query")
"""The run's own images on which a threshold may be chosen, the best first."""
MOST = 5000
"""The number of searches on which a threshold is chosen; of more, evenly spaced ones are taken."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class of one photo."""

    path: Path
    class_name: str
    """The class of the closest image. A single photo enrols a class, which no vote would elect."""
    similarity: float
    """The similarity of the closest image, -1 to 1."""
    known: bool
    """Whether the similarity reaches the threshold."""
    vote_class: str
    """The class that most of the k closest images have."""
    vote_share: float
    """The share of their votes for that class, 0 to 1."""
    closest: tuple[tuple[GalleryImage, float], ...]
    """(k) images and their similarities, closest first."""

    @property
    def as_close(self) -> tuple[str, ...]:
        """Other classes that have an image exactly as close as the closest. The order of the
        gallery has decided between them."""
        names = {
            image.class_name for image, nearness in self.closest if nearness == self.similarity
        }
        return tuple(sorted(names - {self.class_name}))

    @property
    def all_as_close(self) -> bool:
        """Whether all of several closest images are exactly as close, so that there may be more."""
        return len(self.closest) > 1 and self.closest[-1][1] == self.similarity


@dataclass(frozen=True, slots=True)
class Predictions:
    """The classes of several photos."""

    predictions: tuple[Prediction, ...]
    unreadable: tuple[Unreadable, ...]
    embed_milliseconds: float
    """The time to read, decode and embed an image; the first batch warms up."""
    search_milliseconds: float
    """The time to search for an image."""


@dataclass(frozen=True, slots=True)
class SearchOutcomes:
    """Searches for images on which the network was not trained, and whose classes are known."""

    similarity: np.ndarray
    """(searches) the similarity of the closest image."""
    correct: np.ndarray
    """(searches) bool: whether the closest image is of the right class."""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """The images on which a threshold is chosen, and those on which it is tried."""

    outcomes: SearchOutcomes
    """The searches on which the threshold is chosen."""
    part: Part
    """Which of the run's own images are among these."""
    num_run_images: int
    """How many of these are the run's own images; the others are enrolled."""
    queries: SearchOutcomes | None = None
    """The searches for the run's queries, where the threshold is not chosen on them."""

    def threshold(self, precision: float) -> Threshold:
        """The lowest threshold with a precision."""
        return threshold_for_precision(self.outcomes.similarity, self.outcomes.correct, precision)

    def realised(self, threshold: Threshold) -> tuple[float, float] | None:
        """Precision and coverage on the queries; None where the threshold was chosen on them, or
        there are none."""
        if self.queries is None or not len(self.queries.correct):
            return None
        return apply_threshold(threshold.value, self.queries.similarity, self.queries.correct)


@dataclass(frozen=True, slots=True)
class AppliedThreshold:
    """The similarity from which on a photo is of a known class, and how it was chosen."""

    value: float
    """The threshold; nan where none reaches the target precision, so that all photos are
    unknown."""
    chosen: Threshold | None = None
    """How it was chosen; None where a person set it."""
    calibration_set: CalibrationSet | None = None
    """The images on which it was chosen; None where a person set it."""


def threshold_of(
    gallery_file: GalleryFile,
    gallery: Gallery,
    threshold: float | None,
    precision: float,
    search: Search = exact_search,
) -> AppliedThreshold:
    """The threshold that a person has set, or the lowest one with the target precision."""
    if threshold is not None:
        return AppliedThreshold(threshold)
    images = calibration_set(gallery_file.run, gallery_file.phase, gallery, search)
    chosen = images.threshold(precision)
    return AppliedThreshold(chosen.value, chosen, images)


def predict(
    gallery: Gallery,
    network: GalleryEmbedder,
    images: Sequence[Path],
    *,
    k: int,
    threshold: float,
    search: Search = exact_search,
) -> Predictions:
    """Predict the classes of image files, in the order of those that can be read."""
    import faiss  # noqa: F401 - otherwise the first search would be timed with the import

    embedded = network.embed(images)
    start = time.perf_counter()
    neighbours = search(gallery, embedded.embeddings, np.full(len(embedded.paths), -1), k)
    elected, share = vote(neighbours, neighbours.k)
    seconds = time.perf_counter() - start
    predictions = []
    for row, path in enumerate(embedded.paths):
        entries = [gallery.entries[index] for index in neighbours.indices[row]]
        similarities = neighbours.similarities[row].tolist()
        predictions.append(
            Prediction(
                path=path,
                class_name=entries[0].class_name,
                similarity=similarities[0],
                known=similarities[0] >= threshold,
                vote_class=gallery.class_names[elected[row]],
                vote_share=float(share[row]),
                closest=tuple(zip(entries, similarities, strict=True)),
            )
        )
    return Predictions(
        tuple(predictions),
        embedded.unreadable,
        1000 * embedded.seconds / len(images),
        1000 * seconds / max(len(predictions), 1),
    )


@dataclass(frozen=True, slots=True)
class HeldOutQueries:
    """Images on which a network was not trained, each with another image of its class in the
    gallery."""

    embeddings: np.ndarray
    """(images, dim)"""
    labels: np.ndarray
    """(images) class ids."""
    own_rows: np.ndarray
    """(images) the row of each image in the gallery; -1 where it is not in the gallery."""

    def concatenated(self, other: "HeldOutQueries") -> "HeldOutQueries":
        """These images, then the others."""
        return HeldOutQueries(
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.own_rows, other.own_rows]),
        )

    def rows(self, chosen: np.ndarray) -> "HeldOutQueries":
        """The images in some rows, or where a mask holds."""
        return HeldOutQueries(self.embeddings[chosen], self.labels[chosen], self.own_rows[chosen])

    def evenly_spaced(self) -> "HeldOutQueries":
        """At most `MOST` of the images, evenly spaced."""
        count = len(self.labels)
        spaced = np.linspace(0, max(count - 1, 0), min(count, MOST))
        return self.rows(np.unique(spaced.round().astype(int)))


def calibration_set(
    run: Run, phase: str, gallery: Gallery, search: Search = exact_search
) -> CalibrationSet:
    """Searches for the run's validation images, or else its queries, and for enrolled images."""
    embeddings = run.embeddings(phase)
    of_run = {}
    for part in PARTS:
        if part in embeddings.parts:
            of_run[part] = run_queries(run, embeddings, part, gallery)
    part = next((part for part in of_run if len(of_run[part].labels)), PARTS[-1])
    images = of_run[part].concatenated(enrolled_queries(gallery)).evenly_spaced()
    is_enrolled = (images.own_rows >= 0) & enrolled_rows(gallery)[images.own_rows]
    queries = None
    if part == "valid":
        queries = search_outcomes(gallery, of_run["query"].evenly_spaced(), search)
    outcomes = search_outcomes(gallery, images, search)
    return CalibrationSet(outcomes, part, int(np.sum(~is_enrolled)), queries)


def recall_queries(run: Run, phase: str, gallery: Gallery) -> index_recall.RecallQueries:
    """The images with which an index is measured: the run's queries, or a sample of the gallery
    where most of it is not of the run."""
    if 2 * enrolled_rows(gallery).sum() > len(gallery.entries):
        return index_recall.sample_of_gallery(gallery.embeddings)
    queries = run_queries(run, run.embeddings(phase), "query", gallery)
    if not len(queries.labels):
        return index_recall.sample_of_gallery(gallery.embeddings)
    return index_recall.RecallQueries(
        queries.embeddings, queries.own_rows, "query images of the run"
    )


def search_outcomes(gallery: Gallery, queries: HeldOutQueries, search: Search) -> SearchOutcomes:
    """The closest image to each query, other than itself."""
    if not len(queries.labels):
        return SearchOutcomes(np.empty(0, np.float32), np.empty(0, bool))
    neighbours = search(gallery, queries.embeddings, queries.labels, 2)
    # A query in the gallery finds itself first, and the second image counts.
    place = (neighbours.indices[:, 0] == queries.own_rows).astype(int)
    rows = np.arange(len(place))
    similarity = neighbours.similarities[rows, place]
    return SearchOutcomes(similarity, neighbours.labels[rows, place] == queries.labels)


def run_queries(run: Run, embeddings: Embeddings, part: Part, gallery: Gallery) -> HeldOutQueries:
    """Those of the run's own validation images or queries whose class the gallery has."""
    names = current_names(run, gallery, embeddings.gallery_images)
    ids = {name: label for label, name in enumerate(gallery.class_names)}
    rows = {entry.path: row for row, entry in enumerate(gallery.entries) if entry.origin == "run"}
    labels, own_rows = [], []
    for path, name in part_of_split(run, embeddings.images(part)):
        labels.append(ids.get(names.get(name, name), -1))
        own_rows.append(rows.get(path, -1))
    queries = HeldOutQueries(
        embeddings.vectors(part), np.array(labels, np.int64), np.array(own_rows, np.int64)
    )
    return findable(gallery, queries)


def enrolled_queries(gallery: Gallery) -> HeldOutQueries:
    """The enrolled images whose class has another image."""
    rows = np.flatnonzero(enrolled_rows(gallery))
    return findable(gallery, HeldOutQueries(gallery.embeddings[rows], gallery.labels[rows], rows))


def findable(gallery: Gallery, queries: HeldOutQueries) -> HeldOutQueries:
    """The queries that have another image of their class in the gallery."""
    class_sizes = np.bincount(gallery.labels, minlength=len(gallery.class_names))
    others = class_sizes[queries.labels] - (queries.own_rows >= 0)
    return queries.rows((queries.labels >= 0) & (others > 0))


def current_names(run: Run, gallery: Gallery, images: np.ndarray) -> dict[str, str]:
    """The names that the run's classes have in the gallery now, by their names in the run."""
    name_in_run = dict(part_of_split(run, images))
    names = {}
    for entry in gallery.entries:
        if entry.origin == "run":
            names[name_in_run[entry.path]] = entry.class_name
    return names


def enrolled_rows(gallery: Gallery) -> np.ndarray:
    """(entries) bool: the enrolled images."""
    return np.array([entry.origin == "enrolled" for entry in gallery.entries])


def cuts_to_boxes(run: Run) -> bool:
    """Whether the run saw its images cut to bounding boxes, which new photos don't have."""
    return bool(run.experiment.data.dataset.options.get("crop_to_box", False))
