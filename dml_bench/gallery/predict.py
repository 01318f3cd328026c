"""Photos looked up in a gallery: the class of the closest image, what the others say, and whether
to believe it.

The threshold is chosen on images that the network was not trained on: the run's validation images,
or its queries where it has none, whose embeddings are kept, and the enrolled images, each left out
of its own look-up. Look-ups of training images would promise too much: they have been pulled
together. A threshold that was chosen on validation images is held against the queries, which knew
nothing of it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from dml_bench.data.images import Unreadable
from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.open_set import Threshold, apply_threshold, threshold_for_precision
from dml_bench.gallery import index_recall
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import Search, search_all
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
"""The run's own images that a threshold may be chosen on, the best first."""
MOST = 5000
"""Look-ups that a threshold is chosen on; of more, evenly spaced ones are taken."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the gallery says of one photo."""

    path: Path
    class_name: str
    """Of the closest image: it takes a single photo to enrol a class, which no vote would elect."""
    similarity: float
    """Of the closest image, -1 to 1."""
    known: bool
    """Whether the similarity reaches the threshold."""
    vote_class: str
    """What the k closest images elect, and its share of their votes."""
    vote_share: float
    closest: tuple[tuple[GalleryImage, float], ...]
    """(k) images and their similarities, closest first."""

    @property
    def as_close(self) -> tuple[str, ...]:
        """Other classes that have an image exactly as close as the closest; the order of the
        gallery decided between them."""
        return tuple(
            sorted(
                {
                    entry.class_name
                    for entry, similarity in self.closest
                    if similarity == self.similarity
                }
                - {self.class_name}
            )
        )

    @property
    def all_as_close(self) -> bool:
        """Whether all of several closest images are exactly as close, so that there may be more."""
        return len(self.closest) > 1 and self.closest[-1][1] == self.similarity


@dataclass(frozen=True, slots=True)
class Predictions:
    answers: tuple[Prediction, ...]
    unreadable: tuple[Unreadable, ...]
    embed_milliseconds: float
    """Per image, with reading and decoding it; the first batch warms up."""
    look_up_milliseconds: float


@dataclass(frozen=True, slots=True)
class SearchOutcomes:
    """Of images that the network was not trained on, and whose classes are known."""

    similarity: np.ndarray
    """(look-ups) of the closest image."""
    correct: np.ndarray
    """(look-ups) bool"""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """What a threshold is chosen on, and what it can be held against."""

    look_ups: SearchOutcomes
    part: Part
    """Which of the run's own images are among them."""
    own: int
    """How many of them are the run's own; the others are enrolled images."""
    queries: SearchOutcomes | None = None
    """Of the run's queries, where the threshold is not chosen on them."""

    def threshold(self, precision: float) -> Threshold:
        return threshold_for_precision(self.look_ups.similarity, self.look_ups.correct, precision)

    def realised(self, threshold: Threshold) -> tuple[float, float] | None:
        """Precision and coverage on the queries; None where the threshold was chosen on them, or
        there are none."""
        if self.queries is None or not len(self.queries.correct):
            return None
        return apply_threshold(threshold.value, self.queries.similarity, self.queries.correct)


@dataclass(frozen=True, slots=True)
class AppliedThreshold:
    """The similarity from which on an answer is believed, and where it comes from, unless a person
    gave it."""

    value: float
    """nan where no threshold reaches the wanted precision: nothing is believed."""
    chosen: Threshold | None = None
    evidence: CalibrationSet | None = None


def threshold_of(
    place: GalleryFile,
    gallery: Gallery,
    given: float | None,
    precision: float,
    search: Search = search_all,
) -> AppliedThreshold:
    """The given threshold, or the lowest at which look-ups are right with the wanted precision."""
    if given is not None:
        return AppliedThreshold(given)
    found = calibration_set(place.run, place.phase, gallery, search)
    chosen = found.threshold(precision)
    return AppliedThreshold(chosen.value, chosen, found)


def predict(
    gallery: Gallery,
    network: GalleryEmbedder,
    images: Sequence[Path],
    *,
    k: int,
    threshold: float,
    search: Search = search_all,
) -> Predictions:
    """Look up image files; answers in the order of those that can be read."""
    import faiss  # noqa: F401 - else the look-up's time would be that of the import

    found = network.embed(images)
    start = time.perf_counter()
    neighbours = search(gallery, found.embeddings, np.full(len(found.paths), -1), k)
    elected, share = vote(neighbours, neighbours.k)
    seconds = time.perf_counter() - start
    answers = []
    for row, path in enumerate(found.paths):
        entries = [gallery.entries[index] for index in neighbours.indices[row]]
        similarities = neighbours.similarities[row].tolist()
        answers.append(
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
        tuple(answers),
        found.unreadable,
        1000 * found.seconds / len(images),
        1000 * seconds / max(len(answers), 1),
    )


@dataclass(frozen=True, slots=True)
class HeldOutQueries:
    """Images to look up, of classes that the gallery still has, and where another image of the
    class can be found."""

    embeddings: np.ndarray
    """(images, dim)"""
    labels: np.ndarray
    """(images) class ids."""
    own_rows: np.ndarray
    """(images) each one's own row in the gallery, -1 where it is not in it."""

    def and_also(self, other: "HeldOutQueries") -> "HeldOutQueries":
        return HeldOutQueries(
            *(
                np.concatenate([getattr(each, field.name) for each in (self, other)])
                for field in fields(self)
            )
        )

    def some(self) -> "HeldOutQueries":
        """Evenly spaced ones where there are very many."""
        chosen = np.unique(
            np.linspace(0, max(len(self.labels) - 1, 0), min(len(self.labels), MOST))
            .round()
            .astype(int)
        )
        return HeldOutQueries(self.embeddings[chosen], self.labels[chosen], self.own_rows[chosen])


def calibration_set(
    run: Run, phase: str, gallery: Gallery, search: Search = search_all
) -> CalibrationSet:
    """Look-ups in the gallery, as photos are looked up, of the run's validation images, or else its
    queries, and of enrolled images."""
    stored = run.embeddings(phase)
    parts = {part: of_the_run(run, stored, part, gallery) for part in PARTS if part in stored.parts}
    part = next((part for part in PARTS if part in parts and len(parts[part].labels)), PARTS[-1])
    asked = parts[part].and_also(of_enrolled(gallery)).some()
    own = int(np.sum(~enrolled_rows(gallery)[asked.own_rows] | (asked.own_rows < 0)))
    queries = look_up(gallery, parts["query"].some(), search) if part == "valid" else None
    return CalibrationSet(look_up(gallery, asked, search), part, own, queries)


def recall_queries(run: Run, phase: str, gallery: Gallery) -> index_recall.RecallQueries:
    """Held-out images to measure an index with: the run's queries, or a sample of the gallery where
    most of it is not of the run."""
    if 2 * enrolled_rows(gallery).sum() > len(gallery.entries):
        return index_recall.asked_of_itself(gallery.embeddings)
    stored = run.embeddings(phase)
    asked = of_the_run(run, stored, "query", gallery)
    if not len(asked.labels):
        return index_recall.asked_of_itself(gallery.embeddings)
    return index_recall.RecallQueries(asked.embeddings, asked.own_rows, "query images of the run")


def look_up(gallery: Gallery, asked: HeldOutQueries, search: Search) -> SearchOutcomes:
    if not len(asked.labels):
        return SearchOutcomes(np.empty(0, np.float32), np.empty(0, bool))
    neighbours = search(gallery, asked.embeddings, asked.labels, 2)
    nearest = (neighbours.indices[:, 0] == asked.own_rows).astype(int)[:, None]
    similarity, found = (
        np.take_along_axis(of, nearest, 1)[:, 0]
        for of in (neighbours.similarities, neighbours.labels)
    )
    return SearchOutcomes(similarity, found == asked.labels)


def of_the_run(run: Run, stored: Embeddings, part: Part, gallery: Gallery) -> HeldOutQueries:
    names = names_now(run, gallery, stored.gallery_images)
    ids = {name: label for label, name in enumerate(gallery.class_names)}
    rows = {entry.path: row for row, entry in enumerate(gallery.entries) if entry.origin == "run"}
    images = part_of_split(run, stored.images(part))
    labels = np.array([ids.get(names.get(name, name), -1) for _, name in images], np.int64)
    return findable(
        gallery,
        HeldOutQueries(
            stored.vectors(part),
            labels,
            np.array([rows.get(path, -1) for path, _ in images], np.int64),
        ),
    )


def of_enrolled(gallery: Gallery) -> HeldOutQueries:
    rows = np.flatnonzero(enrolled_rows(gallery))
    return findable(gallery, HeldOutQueries(gallery.embeddings[rows], gallery.labels[rows], rows))


def findable(gallery: Gallery, asked: HeldOutQueries) -> HeldOutQueries:
    """Those with another image of their class in the gallery."""
    others = np.bincount(gallery.labels, minlength=len(gallery.class_names))[asked.labels] - (
        asked.own_rows >= 0
    )
    kept = (asked.labels >= 0) & (others > 0)
    return HeldOutQueries(asked.embeddings[kept], asked.labels[kept], asked.own_rows[kept])


def names_now(run: Run, gallery: Gallery, images: np.ndarray) -> dict[str, str]:
    """What the run's classes are called by now, read off the images that the gallery has of
    them."""
    then = dict(part_of_split(run, images))
    return {
        then[entry.path]: entry.class_name for entry in gallery.entries if entry.origin == "run"
    }


def enrolled_rows(gallery: Gallery) -> np.ndarray:
    """(entries) bool"""
    return np.array([entry.origin == "enrolled" for entry in gallery.entries])


def cuts_to_boxes(run: Run) -> bool:
    """Whether the run saw its images cut to bounding boxes, which new ones have not."""
    return bool(run.experiment.data.dataset.options.get("crop_to_box", False))
