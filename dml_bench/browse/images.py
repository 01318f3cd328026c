"""What is shown of each image of a run, as plain arrays: gallery, queries, and images that were
enrolled later.

Only queries have been asked, so only they have a prediction. Whether a gallery image may be
labelled wrongly is judged by its vote among the other gallery images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dml_bench.browse.projection import aligned, project
from dml_bench.evaluation.metrics import vote
from dml_bench.evaluation.search import Neighbours, search_leaving_one_out
from dml_bench.gallery.store import GalleryFile
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
"""Of a query whose nearest image is right by the model of all classes, and by the one without some.
"""


@dataclass(frozen=True, slots=True)
class PhaseColumns:
    """What the model of one phase makes of the images. All arrays are (images); -1 or nan where an
    image was not asked."""

    nearest: np.ndarray
    """Row of the nearest gallery image of a query."""
    similarity: np.ndarray
    """Of that image, -1 to 1."""
    elected: np.ndarray
    """Class id that the ten nearest elect."""
    share: np.ndarray
    """That class's share of their votes, 0 to 1."""
    mistakenness: np.ndarray
    """How surely the label is wrong, 0 to 1: (1 + share) / 2 where the vote elects another class,
    else (1 - share) / 2, as FiftyOne Brain has it of confidences. Of queries by their votes, of
    gallery images by those of the other gallery images, if some are of their class."""
    embeddings: np.ndarray
    """(embedded, dim) unit vectors: of all images of the run, then of those that were enrolled in
    this phase."""
    rows: np.ndarray
    """(embedded) which images these are."""


@dataclass(frozen=True)
class BrowseTable:
    """A run's images in a fixed order: the gallery, the queries, what was enrolled."""

    run: Run
    paths: tuple[str, ...]
    """Where they lie now, if they can be found."""
    digests: tuple[str, ...]
    """(images) SHA-256 of the files that the run saw; empty where it is not known."""
    labels: np.ndarray
    """(images) class ids."""
    class_names: dict[int, str]
    part: np.ndarray
    """(images) what an image is in this run: GALLERY, QUERY or, after the run, ENROLLED."""
    unseen: np.ndarray
    """(images) whether a model without this class was trained, or none ever was trained with it."""
    drop: np.ndarray
    """(images) precision drop of the image's class, nan where there is none."""
    phases: dict[str, PhaseColumns]

    @property
    def asked(self) -> np.ndarray:
        """(images) bool: the queries."""
        return self.part == QUERY

    def predicted(self, phase: str) -> np.ndarray:
        """(images) class id of the nearest gallery image, -1 where not asked."""
        nearest = self.phases[phase].nearest
        return np.where(nearest >= 0, self.labels[nearest], -1)

    def right(self, phase: str) -> np.ndarray:
        """(images) bool; means something for queries only."""
        return self.predicted(phase) == self.labels

    @cached_property
    def outcome(self) -> np.ndarray:
        """(images) a key's words of OUTCOMES, empty where there are no two models. Of several
        hold-outs that one counts which held the image's class out, or else the first."""
        words = np.full(len(self.paths), "", object)
        without = [phase for phase in self.phases if phase != "all"]
        if "all" not in self.phases or not without:
            return words
        right = self.right(without[0])
        for phase in reversed(without):
            held = np.isin(self.labels, self.run.held_out.get(phase, []))
            right = np.where(held, self.right(phase), right)
        for row in np.flatnonzero(self.asked):
            words[row] = OUTCOMES[bool(self.right("all")[row]), bool(right[row])]
        return words

    def maps(self) -> dict[str, np.ndarray]:
        """By phase: (images, 2) places on a map of its embeddings, nan for images that the phase
        has not embedded. All are turned to lie like the first."""
        found: dict[str, np.ndarray] = {}
        for phase, answered in self.phases.items():
            own = int(np.sum(self.part[answered.rows] != ENROLLED))
            cache = layout.projection(self.run.folder, phase)
            points = np.full((len(self.paths), 2), np.nan, np.float32)
            points[answered.rows] = project(
                answered.embeddings[:own], answered.embeddings[own:], cache
            )
            found[phase] = (
                aligned(points, next(iter(found.values()))).astype(np.float32) if found else points
            )
        return found

    def closeness(self, phase: str) -> tuple[np.ndarray, np.ndarray]:
        """(class ids in rising order) mean similarity of a class's gallery images to each other,
        and of its queries to them; nan where it has none. The second below the first is what
        training pulled together and test images do not follow."""
        answered = self.phases[phase]
        labels, part = self.labels[answered.rows], self.part[answered.rows]
        among, between = [], []
        for label in sorted(self.class_names):
            own, asked = (
                answered.embeddings[(labels == label) & (part == which)].astype(float)
                for which in (GALLERY, QUERY)
            )
            n = len(own)
            among.append(((own.sum(0) ** 2).sum() - n) / (n * (n - 1)) if n > 1 else np.nan)
            between.append(own.mean(0) @ asked.mean(0) if n and len(asked) else np.nan)
        return np.array(among), np.array(between)


def read_browse_table(run: Run) -> BrowseTable:
    """Everything that a finished run says of its images."""
    stored = {phase: run.embeddings(phase) for phase in run.neighbours}
    first = next(iter(run.neighbours))
    gallery, query = stored[first].gallery_images, stored[first].query_images
    found = run.neighbours[first]
    asks_gallery = found.leaves_one_out
    images = query if asks_gallery else np.concatenate([gallery, query])
    labels = (
        found.query_labels
        if asks_gallery
        else np.concatenate([found.gallery_labels, found.query_labels])
    )
    part = np.repeat([GALLERY, QUERY], [len(images) - len(query), len(query)]).astype(object)
    recorded = [run.images.recorded(image) for image in images]
    paths = [str(run.images.located(path)) for path in recorded]
    names = dict(run.class_names)
    enrolled = read_enrolled(run, list(run.neighbours), {*recorded, *paths})
    ids = {name: label for label, name in names.items()}
    for name in dict.fromkeys(name for name, _ in enrolled.values()):
        ids.setdefault(name, max(ids.values()) + 1)
    labels = np.concatenate(
        [labels, np.array([ids[name] for name, _ in enrolled.values()], np.int64)]
    )
    drops = class_drops(run)
    return BrowseTable(
        run=run,
        paths=(*paths, *enrolled),
        digests=(
            *(run.split[image].sha256 for image in images),
            *("" for _ in enrolled),
        ),
        labels=labels,
        class_names={label: name for name, label in ids.items()},
        part=np.concatenate([part, np.full(len(enrolled), ENROLLED, object)]),
        unseen=np.isin(labels, run.unseen) | ~np.isin(labels, list(names)),
        drop=np.array([drops.get(label, np.nan) for label in labels.tolist()]),
        phases={
            phase: phase_columns(
                found, stored[phase], [vectors.get(phase) for _, vectors in enrolled.values()]
            )
            for phase, found in run.neighbours.items()
        },
    )


def phase_columns(
    found: Neighbours, stored: Embeddings, enrolled: Sequence[np.ndarray | None]
) -> PhaseColumns:
    """`enrolled` holds the embedding of each enrolled image, None where another phase enrolled
    it."""
    first_query = 0 if found.leaves_one_out else len(found.gallery_labels)
    own = first_query + len(found.query_labels)
    queries = np.arange(first_query, own)
    count = own + len(enrolled)
    elected, share, mistaken = np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan)
    elected[queries], share[queries] = vote(found, min(VOTERS, found.k))
    mistaken[queries] = mistakenness(elected[queries], share[queries], found.query_labels)
    if first_query:
        others = search_leaving_one_out(stored.gallery, found.gallery_labels, VOTERS)
        several = np.bincount(found.gallery_labels)[found.gallery_labels] > 1
        if others.k:
            mistaken[:first_query] = np.where(
                several, mistakenness(*vote(others, others.k), found.gallery_labels), np.nan
            )
    nearest, similarity = np.full(count, -1), np.full(count, np.nan)
    nearest[queries], similarity[queries] = found.indices[:, 0], found.similarities[:, 0]
    parts = [stored.query] if found.leaves_one_out else [stored.gallery, stored.query]
    added = [row for row, vector in enumerate(enrolled, start=own) if vector is not None]
    embeddings = np.concatenate(
        [*parts, *(vector[None] for vector in enrolled if vector is not None)]
    )
    return PhaseColumns(
        nearest, similarity, elected, share, mistaken, embeddings, np.array([*range(own), *added])
    )


def mistakenness(elected: np.ndarray, share: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(elected == labels, 1 - share, 1 + share) / 2


Enrolled = dict[str, tuple[str, dict[str, np.ndarray]]]
"""By path: the class, and by phase the embedding."""


def read_enrolled(run: Run, phases: Sequence[str], known: set[str]) -> Enrolled:
    """What was put into the galleries beside the run, but for images that are the run's own."""
    found: Enrolled = {}
    for phase in phases:
        place = GalleryFile(run, phase)
        if not place.path.exists():
            continue
        gallery = place.read()
        for entry, vector in zip(gallery.entries, gallery.embeddings, strict=True):
            if entry.origin == "enrolled" and entry.path not in known:
                found.setdefault(entry.path, (entry.class_name, {}))[1][phase] = vector
    return found


def class_drops(run: Run) -> dict[int, float]:
    """By class id: P@1 trained on all classes minus P@1 trained without some; of several hold-outs,
    the mean over those that held the class out, or over all where none did. Empty for the protocol
    without a second model."""
    known = metrics_of(run.experiment)
    found: dict[int, float] = {}
    for group in ("seen", "unseen"):
        name = f"precision_drop_{group}_classes"
        if name in known:
            scores = known[name].scores(run)
            found |= {
                int(label): float(scores.values[scores.labels == label].mean())
                for label in np.unique(scores.labels)
            }
    return found


def chosen_classes(images: BrowseTable, wanted: Sequence[str]) -> list[int]:
    """Class ids of names, which may be given without their number. Raises UnknownName."""
    return [label_named(name, images.class_names) for name in wanted]
