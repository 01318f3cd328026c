"""What is shown of each image of a run, as plain arrays: gallery, queries, and images that were
enrolled later.

Only queries have a prediction. How surely a gallery image is labelled wrongly is judged by the vote
of the other gallery images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dml_bench.analysis.sessions import chains
from dml_bench.browse.projection import aligned, project
from dml_bench.evaluation.metrics import macro, vote
from dml_bench.evaluation.scatter import scatter
from dml_bench.evaluation.search import Neighbours, search_leaving_one_out
from dml_bench.evaluation.statistics import Scores
from dml_bench.gallery.predict import USUAL_GOAL, USUAL_SHARES, NoPromise, threshold_of
from dml_bench.gallery.store import GalleryFile, run_gallery
from dml_bench.registry.names import label_named
from dml_bench.runs import layout
from dml_bench.runs.arrays import Embeddings
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import Run

__all__ = [
    "ENROLLED",
    "GALLERY",
    "LOST",
    "QUERY",
    "VOTERS",
    "BrowseTable",
    "PhaseColumns",
    "chosen_classes",
    "read_browse_table",
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


@dataclass(frozen=True)
class BrowseTable:
    """A run's images in a fixed order: the gallery, the queries, what was enrolled."""

    run: Run
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
        neighbours = self.run.neighbours[phase]
        nearest = neighbours.indices[:, :VOTERS]
        counts = np.bincount(nearest.ravel(), minlength=len(neighbours.gallery_labels))
        hubness = np.full(len(self.paths), np.nan)
        hubness[: len(counts)] = counts / counts.mean()
        return hubness

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
            least = least_similarity(self.run, phase)
            unknown[phase] = self.is_query & (np.nan_to_num(columns.similarity, nan=1) < least)
        return unknown

    @cached_property
    def outcome(self) -> np.ndarray:
        """(images) a value of OUTCOMES, empty where there are no two models. Of several hold-outs,
        the one that held the image's class out counts, or else the first."""
        outcomes = np.full(len(self.paths), "", object)
        main_phase = self.run.protocol.main_phase
        without = [phase for phase in self.phases if self.run.protocol.is_limited(phase)]
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
        without = [phase for phase in self.phases if self.run.protocol.is_limited(phase)]
        phases = np.full(len(self.paths), (without or list(self.phases))[0], object)
        for phase in reversed(without):
            phases[np.isin(self.labels, self.run.held_out.get(phase, []))] = phase
        return phases

    def maps(self) -> dict[str, np.ndarray]:
        """By phase, (images, 2) points on a map of its embeddings, nan for images that the phase
        has not embedded. All maps are turned to lie like the first."""
        maps: dict[str, np.ndarray] = {}
        for phase, columns in self.phases.items():
            own = int(np.sum(self.part[columns.rows] != ENROLLED))
            cache = layout.projection(self.run.folder, phase)
            points = np.full((len(self.paths), 2), np.nan, np.float32)
            points[columns.rows] = project(
                columns.embeddings[:own], columns.embeddings[own:], cache
            )
            if maps:
                points = aligned(points, next(iter(maps.values()))).astype(np.float32)
            maps[phase] = points
        return maps

    def scatter(self, phase: str) -> dict[str, tuple[float, float]]:
        """How far test images scatter against training images in a phase, by measure of
        `evaluation.scatter`: the means over seen and over unseen classes, nan without any. Empty
        where each image is searched among all others."""
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
        )
        unseen = np.unique(self.labels[self.unseen])
        means = {}
        for measure, scores in measured.items():
            defined = scores.where(np.isfinite(scores.values))
            is_unseen = np.isin(defined.labels, unseen)
            means[measure] = (mean_of(defined, ~is_unseen), mean_of(defined, is_unseen))
        return means


def mean_of(scores: Scores, chosen: np.ndarray) -> float:
    """The mean over classes of the chosen images; nan without any."""
    return macro(scores.values[chosen], scores.labels[chosen]) if chosen.any() else np.nan


def read_browse_table(run: Run) -> BrowseTable:
    """Everything that a finished run says of its images."""
    embeddings = {phase: run.embeddings(phase) for phase in run.neighbours}
    first = next(iter(run.neighbours))
    neighbours = run.neighbours[first]
    images, labels = embeddings[first].query_images, neighbours.query_labels
    parts = [QUERY] * len(images)
    # Where each image is searched among all others, the queries are the gallery too.
    if not neighbours.leaves_one_out:
        images = np.concatenate([embeddings[first].gallery_images, images])
        labels = np.concatenate([neighbours.gallery_labels, labels])
        parts = [GALLERY] * (len(images) - len(parts)) + parts
    recorded = [run.images.recorded(image) for image in images]
    paths = [str(run.images.located(path)) for path in recorded]
    enrolled = read_enrolled(run, list(run.neighbours), {*recorded, *paths})
    ids = dict(run.class_ids)
    for name in dict.fromkeys(name for name, _ in enrolled.values()):
        ids.setdefault(name, max(ids.values()) + 1)
    enrolled_labels = np.array([ids[name] for name, _ in enrolled.values()], np.int64)
    labels = np.concatenate([labels, enrolled_labels])
    drops = class_drops(run)
    phases = {}
    for phase in run.neighbours:
        vectors = [by_phase.get(phase) for _, by_phase in enrolled.values()]
        phases[phase] = phase_columns(run.neighbours[phase], embeddings[phase], vectors)
    return BrowseTable(
        run=run,
        paths=tuple(paths) + tuple(enrolled),
        digests=tuple([run.split[image].sha256 for image in images] + [""] * len(enrolled)),
        labels=labels,
        class_names={label: name for name, label in ids.items()},
        part=np.array(parts + [ENROLLED] * len(enrolled), object),
        unseen=np.isin(labels, run.unseen) | ~np.isin(labels, list(run.class_names)),
        drop=np.array([drops.get(label, np.nan) for label in labels.tolist()]),
        phases=phases,
    )


def phase_columns(
    neighbours: Neighbours, embeddings: Embeddings, enrolled: Sequence[np.ndarray | None]
) -> PhaseColumns:
    """What one phase says of the images. `enrolled` holds the embedding of each enrolled image,
    None where another phase enrolled it."""
    first_query = 0 if neighbours.leaves_one_out else len(neighbours.gallery_labels)
    own = first_query + len(neighbours.query_labels)
    queries = np.arange(first_query, own)
    count = own + len(enrolled)
    elected, share, mistaken = np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan)
    elected[queries], share[queries] = vote(neighbours, min(VOTERS, neighbours.k))
    mistaken[queries] = mistakenness(elected[queries], share[queries], neighbours.query_labels)
    if first_query:
        labels = neighbours.gallery_labels
        others = vote_of_others(embeddings.gallery, labels)
        elected[:first_query], share[:first_query] = others
        has_others = np.bincount(labels)[labels] > 1
        mistaken[:first_query] = np.where(has_others, mistakenness(*others, labels), np.nan)
    nearest, similarity = np.full(count, -1), np.full(count, np.nan)
    nearest[queries] = neighbours.indices[:, 0]
    similarity[queries] = neighbours.similarities[:, 0]
    vectors = [embeddings.query]
    if not neighbours.leaves_one_out:
        vectors.insert(0, embeddings.gallery)
    rows = list(range(own))
    for row, vector in enumerate(enrolled, start=own):
        if vector is not None:
            rows.append(row)
            vectors.append(vector[None])
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


Enrolled = dict[str, tuple[str, dict[str, np.ndarray]]]
"""By path, the class of an image and its embedding in each phase."""


def read_enrolled(run: Run, phases: Sequence[str], known: set[str]) -> Enrolled:
    """The images that were enrolled into the run's galleries, without those that are its own."""
    enrolled: Enrolled = {}
    for phase in phases:
        gallery_file = GalleryFile(run, phase)
        if not gallery_file.path.exists():
            continue
        gallery = gallery_file.read()
        for entry, vector in zip(gallery.entries, gallery.embeddings, strict=True):
            if entry.origin == "enrolled" and entry.path not in known:
                _, by_phase = enrolled.setdefault(entry.path, (entry.class_name, {}))
                by_phase[phase] = vector
    return enrolled


def least_similarity(run: Run, phase: str) -> float:
    """The threshold below which `predict` answers "unknown"; -1 where it promises nothing."""
    if not run.protocol.gallery_is_trained_on:
        return -1.0
    gallery_file, share = GalleryFile(run, phase), USUAL_SHARES[-1]
    try:
        gallery = run_gallery(run, phase)
        return threshold_of(gallery_file, gallery, precision=USUAL_GOAL, unknown_share=share).value
    except NoPromise:
        return -1.0


def class_drops(run: Run) -> dict[int, float]:
    """By class id, P@1 trained on all classes minus P@1 trained without some. Of several hold-outs,
    the mean over those that held the class out, or over all where none did. Empty for a protocol
    without a second model."""
    metrics = metrics_of(run.experiment)
    drops: dict[int, float] = {}
    for group in ("seen", "unseen"):
        name = f"precision_drop_{group}_classes"
        if name not in metrics:
            continue
        scores = metrics[name].scores(run)
        for label in np.unique(scores.labels):
            drops[int(label)] = float(scores.values[scores.labels == label].mean())
    return drops


def chosen_classes(table: BrowseTable, names: Sequence[str]) -> list[int]:
    """The class ids of names, which may leave out their number. Raises UnknownName."""
    return [label_named(name, table.class_names) for name in names]
