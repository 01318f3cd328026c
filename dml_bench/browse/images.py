"""What is shown of each image of a run, or of embeddings, as plain arrays: gallery, queries, and
images that were enrolled later.

Only queries have a prediction. How surely a gallery image is labelled wrongly is judged by the vote
of the other gallery images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dml_bench.analysis.sessions import chains
from dml_bench.browse.projection import aligned, project
from dml_bench.evaluation.hubness import hubness, occurrences
from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.scatter import scatter, scatter_by_group
from dml_bench.evaluation.search import Neighbours, search_leaving_one_out
from dml_bench.evaluation.statistics import Interval
from dml_bench.registry.names import label_named

__all__ = [
    "ENROLLED",
    "GALLERY",
    "LOST",
    "QUERY",
    "VOTERS",
    "BrowseSource",
    "BrowseTable",
    "PhaseColumns",
    "chosen_classes",
    "phase_columns",
    "with_bounds",
]

VOTERS = 10
GALLERY, QUERY, ENROLLED = "gallery", "query", "enrolled"
LOST = "lost"
OUTCOMES = {
    (True, True): "right in both",
    (True, False): LOST,
    (False, True): "won",
    (False, False): "wrong in both",
}
"""The outcome of a query by whether it is right with the model of all classes, and with the model
without some."""


@dataclass(frozen=True, slots=True)
class PhaseColumns:
    """What the model of one phase says of the images. Arrays are (images) unless they say
    otherwise; -1 or nan stands where an image is no query."""

    nearest: np.ndarray
    """The row of the nearest gallery image."""
    similarity: np.ndarray
    """The similarity of that image, -1 to 1."""
    elected: np.ndarray
    """The class id that most of the ten nearest gallery images have. For a gallery image, these are
    the others."""
    share: np.ndarray
    """The share of their votes for that class, 0 to 1."""
    mistakenness: np.ndarray
    """How surely the label is wrong, 0 to 1: (1 + share) / 2 where the vote elects another class,
    else (1 - share) / 2, as FiftyOne Brain computes it from confidences. Gallery images have it
    where others are of their class."""
    embeddings: np.ndarray
    """(embedded, dim) unit vectors: of all images of the run, then of those that were enrolled in
    this phase."""
    rows: np.ndarray
    """(embedded) the row of each of these images."""


@dataclass(frozen=True, slots=True)
class BrowseSource:
    """What a table is of: a run, or files of embeddings."""

    title: str
    neighbours: dict[str, Neighbours]
    """By phase, the gallery images nearest to each query."""
    phase_titles: dict[str, str]
    """By phase, which classes its model was trained on."""
    main_phase: str
    """The phase that trained on all classes, or the only one."""
    held_out: dict[str, np.ndarray]
    """By phase that trained without some classes, the ids of these."""
    gallery_name: str
    """What images of the gallery are called: `train` where they were trained on."""
    map_files: dict[str, Path]
    """By phase, where the map of its embeddings is kept."""
    threshold: Callable[[str], float]
    """By phase, the similarity below which a query is answered "unknown"; -1 for never."""
    coarse_classes: dict[int, str]
    """By class id, the coarse class; empty where there are none."""


@dataclass(frozen=True)
class BrowseTable:
    """Images in a fixed order: the gallery, the queries, what was enrolled."""

    source: BrowseSource
    paths: tuple[str, ...]
    """(images) where the files are now, if they can be found."""
    digests: tuple[str, ...]
    """(images) SHA-256 of the files that the run saw; empty where it is not known."""
    labels: np.ndarray
    """(images) class ids."""
    class_names: dict[int, str]
    """The names of the classes by their ids."""
    part: np.ndarray
    """(images) what an image is in this run: GALLERY, QUERY or, after the run, ENROLLED."""
    unseen: np.ndarray
    """(images) whether a model without this class was trained, or none ever was trained with it."""
    drop: np.ndarray
    """(images) precision drop of the image's class, nan where there is none."""
    phases: dict[str, PhaseColumns]
    """What the model of each phase says of the images."""

    @property
    def is_query(self) -> np.ndarray:
        """(images) bool: the queries."""
        return self.part == QUERY

    @property
    def part_names(self) -> dict[str, str]:
        """By part, what an image of it is called."""
        of_gallery = "training" if self.source.gallery_name == "train" else "gallery"
        return {GALLERY: f"{of_gallery} image", QUERY: "test image", ENROLLED: "enrolled image"}

    def predicted(self, phase: str) -> np.ndarray:
        """(images) class id of the nearest gallery image, -1 where an image is no query."""
        nearest = self.phases[phase].nearest
        return np.where(nearest >= 0, self.labels[nearest], -1)

    def right(self, phase: str) -> np.ndarray:
        """(images) bool: whether a query is right; of other images it says nothing."""
        return self.predicted(phase) == self.labels

    def hubness(self, phase: str) -> np.ndarray:
        """(images) how often an image is among the ten nearest of a query, as a multiple of the
        mean over gallery images (N_10 of Radovanović et al. 2010); nan for what is not in it."""
        counts = occurrences(self.source.neighbours[phase])
        multiples = np.full(len(self.paths), np.nan)
        multiples[: len(counts)] = counts / counts.mean()
        return multiples

    @cached_property
    def session(self) -> np.ndarray:
        """(images) ids of the sessions of photos that embeddings of the first phase show, 0 for an
        image that is alone; of images that were enrolled nothing is known."""
        columns = next(iter(self.phases.values()))
        own = self.part[columns.rows] != ENROLLED
        chain = chains(columns.embeddings[own], self.labels[own.nonzero()[0]])
        _, number, count = np.unique(chain, return_inverse=True, return_counts=True)
        sessions = np.zeros(len(self.paths), int)
        sessions[: len(chain)] = np.where(count[number] > 1, number + 1, 0)
        return sessions

    @cached_property
    def unknown(self) -> dict[str, np.ndarray]:
        """By phase, (images) bool: the queries that `predict --precision 0.95` answers "unknown"
        where a fifth of photos are of other classes; none where that can't be promised."""
        unknown = {}
        for phase, columns in self.phases.items():
            least = self.source.threshold(phase)
            unknown[phase] = self.is_query & (np.nan_to_num(columns.similarity, nan=1) < least)
        return unknown

    @cached_property
    def outcome(self) -> np.ndarray:
        """(images) a value of OUTCOMES, empty where there are no two models. Of several hold-outs,
        the one that held the image's class out counts, or else the first."""
        outcomes = np.full(len(self.paths), "", object)
        main_phase = self.source.main_phase
        without = [phase for phase in self.phases if phase in self.source.held_out]
        if main_phase not in self.phases or not without:
            return outcomes
        right = np.zeros(len(self.paths), bool)
        for phase in without:
            right = np.where(self.phase_without == phase, self.right(phase), right)
        for row in np.flatnonzero(self.is_query):
            outcomes[row] = OUTCOMES[bool(self.right(main_phase)[row]), bool(right[row])]
        return outcomes

    @cached_property
    def phase_without(self) -> np.ndarray:
        """(images) the phase whose model was trained without the image's class; of a class that
        none held out, the first with fewer classes, or the only phase."""
        without = [phase for phase in self.phases if phase in self.source.held_out]
        phases = np.full(len(self.paths), (without or list(self.phases))[0], object)
        for phase in reversed(without):
            phases[np.isin(self.labels, self.source.held_out[phase])] = phase
        return phases

    def unseen_in(self, phase: str) -> np.ndarray:
        """(images) bool: whether the model of a phase was trained without the image's class. Of one
        that was trained with all classes: whether any other was trained without it."""
        held_out = self.source.held_out
        if phase not in held_out:
            return self.unseen
        trained = np.setdiff1d(np.concatenate(list(held_out.values())), held_out[phase])
        return self.unseen & ~np.isin(self.labels, trained)

    def maps(self) -> dict[str, np.ndarray]:
        """By phase, (images, 2) points on a map of its embeddings, nan for images that the phase
        has not embedded. All maps are turned to lie like the first."""
        maps: dict[str, np.ndarray] = {}
        for phase, columns in self.phases.items():
            own = int(np.sum(self.part[columns.rows] != ENROLLED))
            cache = self.source.map_files[phase]
            points = np.full((len(self.paths), 2), np.nan, np.float32)
            points[columns.rows] = project(
                columns.embeddings[:own], columns.embeddings[own:], cache
            )
            if maps:
                points = aligned(points, next(iter(maps.values()))).astype(np.float32)
            maps[phase] = points
        return maps

    def scatter(self, phase: str, *, with_margins: bool) -> dict[str, dict[str, Interval]]:
        """How far test images scatter against training images in a phase, for its `seen` and
        `unseen` classes, by measure of `evaluation.scatter`. Empty where each image is searched
        among all others."""
        columns = self.phases[phase]
        labels, part = self.labels[columns.rows], self.part[columns.rows]
        is_gallery, is_query = part == GALLERY, part == QUERY
        if not is_gallery.any():
            return {}
        measured = scatter(
            columns.embeddings[is_gallery],
            columns.embeddings[is_query],
            labels[is_gallery],
            labels[is_query],
            with_margins=with_margins,
        )
        return scatter_by_group(measured, np.unique(self.labels[self.unseen_in(phase)]))

    def notes(self, phase: str) -> list[str]:
        """What stands beside a map of a phase: the scatter of seen and unseen classes, with 95%
        intervals, and hubness."""
        lines = []
        for group, means in self.scatter(phase, with_margins=False).items():
            if {"train_dispersion", "test_to_train"} <= means.keys():
                training = with_bounds(means["train_dispersion"])
                test = with_bounds(means["test_to_train"])
                lines.append(f"{group} classes: training {training} apart, test {test} from them")
        measured = hubness(self.source.neighbours[phase])
        if np.isfinite(measured.skewness):
            lines.append(
                f"hubness {measured.skewness:.1f} (skewness); {measured.never:.0%} of gallery"
                " images never answer"
            )
        return lines


def with_bounds(mean: Interval) -> str:
    """`0.33 ±0.04`, or the mean alone where it has no bounds."""
    estimate = f"{round(mean.estimate, 2) + 0.0:.2f}"  # no -0.00
    if not np.isfinite(mean.low):
        return estimate
    return f"{estimate} \N{PLUS-MINUS SIGN}{(mean.high - mean.low) / 2:.2f}"


def phase_columns(
    neighbours: Neighbours,
    gallery: np.ndarray,
    query: np.ndarray,
    enrolled: Sequence[np.ndarray | None] = (),
    enrolled_labels: Sequence[int] = (),
) -> PhaseColumns:
    """What one phase says of the images, of which these are the embeddings. `enrolled` are None
    where another phase enrolled an image."""
    first_query = 0 if neighbours.leaves_one_out else len(neighbours.gallery_labels)
    own = first_query + len(neighbours.query_labels)
    queries = np.arange(first_query, own)
    count = own + len(enrolled)
    elected, share, mistaken = np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan)
    elected[queries], share[queries] = vote(neighbours, min(VOTERS, neighbours.k))
    mistaken[queries] = mistakenness(elected[queries], share[queries], neighbours.query_labels)
    vectors, rows = [query] if neighbours.leaves_one_out else [gallery, query], list(range(own))
    searched, labels = list(range(first_query)), [*neighbours.gallery_labels.tolist()]
    for row, vector, label in zip(range(own, count), enrolled, enrolled_labels, strict=True):
        if vector is not None:
            rows.append(row)
            searched.append(row)
            vectors.append(vector[None])
            labels.append(label)
    if first_query:
        of_gallery = np.array(labels)
        others = vote_of_others(np.concatenate([gallery, *vectors[2:]]), of_gallery)
        elected[searched], share[searched] = others
        has_others = np.bincount(of_gallery)[of_gallery] > 1
        mistaken[searched] = np.where(has_others, mistakenness(*others, of_gallery), np.nan)
    nearest, similarity = np.full(count, -1), np.full(count, np.nan)
    nearest[queries] = neighbours.indices[:, 0]
    similarity[queries] = neighbours.similarities[:, 0]
    return PhaseColumns(
        nearest, similarity, elected, share, mistaken, np.concatenate(vectors), np.array(rows)
    )


def vote_of_others(gallery: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gallery) the class id that the ten nearest other images elect, and (gallery) its share of
    the votes; -1 and nan where there are no others."""
    others = search_leaving_one_out(gallery, labels, VOTERS)
    if not others.k:
        return np.full(len(labels), -1), np.full(len(labels), np.nan)
    elected, share = vote(others, others.k)
    return elected, share


def mistakenness(elected: np.ndarray, share: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How surely labels are wrong, by the class that a vote elects and its share of the votes."""
    return np.where(elected == labels, 1 - share, 1 + share) / 2


def chosen_classes(table: BrowseTable, names: Sequence[str]) -> list[int]:
    """The class ids of names, which may leave out their number. Raises UnknownName."""
    return [label_named(name, table.class_names) for name in names]
