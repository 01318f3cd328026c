"""Images on which a threshold is chosen, and those on which it is tried: none was trained on, and
none does both.

A threshold is chosen on the run's validation images, or, where it has none, on enrolled images that
are each left out of their own search. Photos of classes that are not enrolled are stood for by
images of classes that the network was never trained on, each searched without its own class. Test
images are reported, and so choose nothing.

Images of the run may be enrolled too, as where its whole folder is: each is left out of its own
search, and counts as what it is to the run, and not once more as an enrolled one.

Where the split keeps groups whole, a promise is about new groups: validation images count by their
groups. Enrolled images then choose nothing, as each would find others of its own group.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dml_bench.data.images import box_of
from dml_bench.evaluation.open_set import OpenSetResult, open_set_result
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.thresholds import (
    NO_OUTCOMES,
    GuaranteedThreshold,
    PrecisionCurve,
    SearchOutcomes,
    guaranteed_threshold,
    precision_curve,
)
from dml_bench.gallery import index_recall
from dml_bench.gallery.enrol import ImageKey, image_key
from dml_bench.gallery.index_store import Search, exact_search
from dml_bench.gallery.mean_search import mean_search, means_without_query
from dml_bench.gallery.store import Gallery, part_of_split
from dml_bench.runs.arrays import Embeddings, Part
from dml_bench.runs.run import Run

__all__ = [
    "CalibrationSet",
    "HeldOutQueries",
    "calibration_set",
    "current_names",
    "enrolled_queries",
    "key_in_run",
    "nearest_others",
    "recall_queries",
    "run_queries",
]

Source = Literal["validation", "enrolled"]
"""Images on which a threshold is chosen: the run's validation images, or enrolled ones."""
MOST = 5000
"""The number of searches on which a threshold is chosen; of more, evenly spaced ones are taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """The images on which a threshold is chosen, and those on which it is tried."""

    source: Source
    """What `known` are."""
    known: SearchOutcomes
    """Images of classes in the gallery, on which the network was not trained."""
    unknown: SearchOutcomes
    """Images of classes that the network was never trained on, each searched in the gallery without
    its class; grouped by class, and by the groups that the split keeps whole."""
    queries: SearchOutcomes
    """The run's test images, on which nothing is chosen."""
    num_carved: int
    """The images that the run trained and validated on, of which validation images are a part."""
    has_groups: bool = False
    """Whether the run's split keeps groups whole."""
    validates_by_class: bool = False
    """Whether the run's validation images are of classes that its gallery lacks, so that only
    enrolled images can choose a threshold."""
    held_out_phase: str
    """A phase whose network was not trained on some classes; empty where the run has none."""

    def promise(self, goal: float, unknown_share: float = 0.0) -> GuaranteedThreshold:
        """The threshold that keeps a precision, or what it lacks."""
        return guaranteed_threshold(
            self.known, goal, unknown=self.unknown, unknown_share=unknown_share
        )

    def curve(self, unknown_share: float = 0.0) -> PrecisionCurve:
        """Coverage and precision at each threshold."""
        return precision_curve(self.known, self.unknown, unknown_share=unknown_share)

    def against(self, similarity: np.ndarray) -> OpenSetResult:
        """How well similarity tells known images from others, by the others' similarities."""
        known = self.known
        return open_set_result(
            np.concatenate([known.similarity, similarity]),
            np.concatenate([known.correct, np.zeros(len(similarity), bool)]),
            np.arange(len(known.correct) + len(similarity)) >= len(known.correct),
        )

    def on_queries(self, threshold: float) -> tuple[float, float]:
        """Precision and coverage of a threshold on the test images, all of classes in the
        gallery."""
        return precision_curve(self.queries).at(threshold)


@dataclass(frozen=True, slots=True)
class HeldOutQueries:
    """Images on which a network was not trained."""

    embeddings: np.ndarray
    """(images, dim)"""
    labels: np.ndarray
    """(images) class ids; -1 for a class that the gallery lacks."""
    own_rows: np.ndarray
    """(images) the row of each image in the gallery; -1 where it is not in the gallery."""
    names: np.ndarray
    """(images) the names of their classes; in the run, where they are of it."""
    groups: np.ndarray
    """(images) the groups that the run's split kept whole; empty texts where there are none."""

    def concatenated(self, other: "HeldOutQueries") -> "HeldOutQueries":
        """These images, then the others."""
        if not len(self.labels):
            return other
        return HeldOutQueries(
            np.concatenate([self.embeddings, other.embeddings]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.own_rows, other.own_rows]),
            np.concatenate([self.names, other.names]),
            np.concatenate([self.groups, other.groups]),
        )

    def rows(self, chosen: np.ndarray) -> "HeldOutQueries":
        """The images in some rows, or where a mask holds."""
        return HeldOutQueries(
            self.embeddings[chosen],
            self.labels[chosen],
            self.own_rows[chosen],
            self.names[chosen],
            self.groups[chosen],
        )

    def evenly_spaced(self) -> "HeldOutQueries":
        """At most `MOST` of the images, evenly spaced."""
        count = len(self.labels)
        spaced = np.linspace(0, max(count - 1, 0), min(count, MOST))
        return self.rows(np.unique(spaced.round().astype(int)))


NO_QUERIES = HeldOutQueries(
    np.empty((0, 0), np.float32),
    np.empty(0, np.int64),
    np.empty(0, np.int64),
    np.empty(0, object),
    np.empty(0, object),
)


def calibration_set(
    run: Run, phase: str, gallery: Gallery, search: Search = exact_search
) -> CalibrationSet:
    """Searches for the run's validation images, or else for enrolled ones; for images of classes
    that the network was never trained on; and for the run's test images."""
    embeddings = run.embeddings(phase)
    own = {}
    for part in embeddings.parts:
        own[part] = run_queries(run, embeddings, part, gallery)
    validation = own.get("valid", NO_QUERIES)
    enrolled = enrolled_queries(run, embeddings, gallery)
    known = findable(gallery, validation)
    source: Source = "validation"
    has_groups = run.experiment.data.has_groups
    if has_groups:
        # Runs of versions that recorded no groups have no images for a promise on new ones.
        known = known.rows(known.groups != "")
    elif not len(known.labels) and len(findable(gallery, enrolled).labels):
        known, source = findable(gallery, enrolled), "enrolled"
    is_query = np.isin(embeddings.gallery_images, embeddings.query_images)
    candidates = validation.concatenated(enrolled).concatenated(own["gallery"].rows(~is_query))
    trained = trained_classes(run, phase)
    never_trained = candidates.rows(~np.isin(candidates.names, trained))
    chosen = known.evenly_spaced()
    outcomes = search_outcomes(gallery, chosen, search)
    return CalibrationSet(
        source=source,
        known=replace(outcomes, groups=chosen.groups) if has_groups else outcomes,
        unknown=outcomes_without_own_class(gallery, never_trained.evenly_spaced(), search),
        queries=search_outcomes(gallery, findable(gallery, own["query"]).evenly_spaced(), search),
        num_carved=sum(image.part in ("train", "valid") for image in run.split),
        held_out_phase=next(iter(run.protocol.held_out(run.summary)), ""),
        has_groups=has_groups,
        validates_by_class=run.protocol.validates_by_class,
    )


def trained_classes(run: Run, phase: str) -> list[str]:
    """The classes that the network of a phase was trained on, by their names in the run."""
    held_out = run.protocol.held_out(run.summary).get(phase, ())
    names = {image.class_name for image in run.split if image.part == "train"}
    return sorted(names - set(held_out))


def recall_queries(run: Run, phase: str, gallery: Gallery) -> index_recall.RecallQueries:
    """The images with which an index is measured: the run's queries, or a sample of the gallery
    where most of it is not of the run."""
    if 2 * enrolled_rows(gallery).sum() > len(gallery.entries):
        return index_recall.sample_of_gallery(gallery.embeddings)
    queries = findable(gallery, run_queries(run, run.embeddings(phase), "query", gallery))
    if not len(queries.labels):
        return index_recall.sample_of_gallery(gallery.embeddings)
    return index_recall.RecallQueries(
        queries.embeddings, queries.own_rows, "query images of the run"
    )


def search_outcomes(gallery: Gallery, queries: HeldOutQueries, search: Search) -> SearchOutcomes:
    """The closest image, or class mean, to each query, which has no part in it itself."""
    if not len(queries.labels):
        return NO_OUTCOMES
    if search is mean_search:
        similarity, labels = means_without_query(gallery, queries.embeddings, queries.own_rows)
        return SearchOutcomes(similarity, labels == queries.labels)
    nearest = nearest_others(gallery, queries.embeddings, queries.own_rows, search)
    return SearchOutcomes(nearest.similarities[:, 0], nearest.labels[:, 0] == queries.labels)


def nearest_others(
    gallery: Gallery, query: np.ndarray, own_rows: np.ndarray, search: Search = exact_search
) -> Neighbours:
    """The nearest image of the gallery to each query, which is not the query itself. That is in the
    rows `own_rows` (query), or nowhere: -1. The only image of a gallery stays."""
    neighbours = search(gallery, query, np.full(len(query), -1), 2)
    # A query in the gallery finds itself first, and the second image counts.
    place = (neighbours.indices[:, :1] == own_rows[:, None]) & (neighbours.k > 1)
    return replace(
        neighbours,
        indices=np.take_along_axis(neighbours.indices, place.astype(int), axis=1),
        similarities=np.take_along_axis(neighbours.similarities, place.astype(int), axis=1),
    )


def outcomes_without_own_class(
    gallery: Gallery, queries: HeldOutQueries, search: Search
) -> SearchOutcomes:
    """The closest image of another class to each query, as if its class were not enrolled; never
    right; grouped by class, and by session where the split keeps sessions whole. Queries without
    an image of another class are left out."""
    if not len(queries.labels):
        return NO_OUTCOMES
    class_sizes = np.bincount(gallery.labels, minlength=len(gallery.class_names))
    own = class_sizes[queries.labels] * (queries.labels >= 0)
    neighbours = search(gallery, queries.embeddings, queries.labels, int(own.max()) + 1)
    is_other = neighbours.labels != queries.labels[:, None]
    rows = np.flatnonzero(is_other.any(axis=1))
    similarity = neighbours.similarities[rows, is_other[rows].argmax(axis=1)]
    names, sessions = queries.names[rows], queries.groups[rows]
    # An enrolled image has no session in the run, and stands with those of its class.
    crossed = np.where(sessions == "", names, sessions) if (sessions != "").any() else None
    return SearchOutcomes(similarity, np.zeros(len(rows), bool), names, crossed)


def run_queries(run: Run, embeddings: Embeddings, part: Part, gallery: Gallery) -> HeldOutQueries:
    """The run's own validation images or queries, with the names that their classes have now."""
    names = current_names(run, gallery, embeddings.gallery_images)
    ids = gallery.class_ids
    rows = rows_of(gallery)
    images = embeddings.images(part)
    labels, own_rows, own_names = [], [], []
    for image, (path, name) in zip(images, part_of_split(run, images), strict=True):
        row = rows.get(path, rows.get(key_in_run(run, image), -1))
        labels.append(ids.get(names.get(name, name), -1) if row < 0 else gallery.labels[row])
        own_rows.append(row)
        own_names.append(name)
    return HeldOutQueries(
        embeddings.vectors(part),
        np.array(labels, np.int64),
        np.array(own_rows, np.int64),
        np.array(own_names, object),
        np.array([run.split[image].group for image in images], object),
    )


def rows_of(gallery: Gallery) -> dict[str | ImageKey, int]:
    """The rows of a gallery's images by their paths; those of enrolled ones also by their bytes,
    and a part of a photo by those of the photo."""
    rows: dict[str | ImageKey, int] = {}
    of_photos: dict[str | ImageKey, int] = {}
    for row, entry in enumerate(gallery.entries):
        rows[entry.path] = row
        if entry.origin == "enrolled" and entry.sha256:
            rows[image_key(entry)] = row
            of_photos[entry.sha256, None] = row
    return of_photos | rows


def key_in_run(run: Run, image: int) -> ImageKey:
    """Of an image of the run's data set, as `image_key`; its path, where the run is of a version
    that kept no digests."""
    kept = run.split[image]
    if not kept.sha256:
        return run.images.recorded(image), None
    return kept.sha256, box_of(kept.path)


def enrolled_queries(run: Run, embeddings: Embeddings, gallery: Gallery) -> HeldOutQueries:
    """The enrolled images that are none of the run's own: it trained on these, or has measured on
    them. Those that joined a class of the run have its name in the run."""
    names = current_names(run, gallery, embeddings.gallery_images)
    names_in_run = {name: name_in_run for name_in_run, name in names.items()}
    of_run = {key_in_run(run, image) for image in range(len(run.split))}
    are_new = enrolled_rows(gallery)
    for row in np.flatnonzero(are_new):
        entry = gallery.entries[row]
        # A run that cuts images to the boxes of its data set has none in their paths.
        are_new[row] = of_run.isdisjoint(
            [image_key(entry), (entry.sha256, None), (entry.path, None)]
        )
    rows = np.flatnonzero(are_new)
    own_names = []
    for row in rows:
        name = gallery.entries[row].class_name
        own_names.append(names_in_run.get(name, name))
    return HeldOutQueries(
        gallery.embeddings[rows],
        gallery.labels[rows],
        rows,
        np.array(own_names, object),
        np.full(len(rows), "", object),
    )


def findable(gallery: Gallery, queries: HeldOutQueries) -> HeldOutQueries:
    """The queries that have another image of their class in the gallery."""
    class_sizes = np.bincount(gallery.labels, minlength=len(gallery.class_names))
    others = class_sizes[queries.labels] - (queries.own_rows >= 0)
    return queries.rows((queries.labels >= 0) & (others > 0))


def current_names(run: Run, gallery: Gallery, images: np.ndarray) -> dict[str, str]:
    """The names that the run's classes have in the gallery now, by their names in the run. Where a
    gallery of another model has some of a class's images under another name, as before their labels
    were corrected, the name of most of them."""
    name_in_run = dict(part_of_split(run, images))
    names: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in gallery.entries:
        if entry.origin == "run":
            names[name_in_run[entry.path]][entry.class_name] += 1
    return {name: now.most_common(1)[0][0] for name, now in names.items()}


def enrolled_rows(gallery: Gallery) -> np.ndarray:
    """(entries) bool: the enrolled images."""
    return np.array([entry.origin == "enrolled" for entry in gallery.entries])
