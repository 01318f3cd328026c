"""The experiments that are looked at more closely: enrolment, unknowns, votes, and the images
behind some answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from dml_bench.analysis.study import Study, held_out
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.calibration import Calibration, calibration_of
from dml_bench.evaluation.few_shot import FewShotCurve, few_shot_curve
from dml_bench.evaluation.knn_vote import AccuracyByK, accuracy_by_k, confusions, vote_changes
from dml_bench.evaluation.metrics import precision_at_1, vote
from dml_bench.evaluation.open_set import (
    OpenSetResult,
    apply_threshold,
    leave_one_out_gallery,
    open_set_result,
    search_without_classes,
    threshold_for_precision,
)
from dml_bench.evaluation.search import Neighbours
from dml_bench.runs.arrays import Embeddings
from dml_bench.runs.run import Run

__all__ = [
    "ClassDrop",
    "Diagnostics",
    "Example",
    "ExampleImages",
    "Mistake",
    "class_drop",
    "diagnose",
    "diagnose_chosen",
]

By = Literal["images", "centroids"]
WANTED_PRECISION = 0.9
VOTERS = 10
DRAWS = 30
"""Random choices of images for each point of an enrolment curve."""
CHOSEN_ON = {
    True: "validation images of the known classes",
    False: "the gallery's own images, each left out of its own search",
}


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Unseen classes that are not enrolled, for one seed and one hold-out."""

    curves: OpenSetResult
    precision: float
    """Realised on the queries by the threshold that promised WANTED_PRECISION; nan where it gives
    no answer."""
    coverage: float
    validation_images: int
    """Of the known classes, on which the threshold was chosen; 0 where it was chosen on the
    gallery's own images."""


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """P@1 per class, mean over seeds; of several hold-outs, over those in which the class is
    unseen, if it is in any."""

    names: tuple[str, ...]
    drop: np.ndarray
    """(class) trained on all classes minus trained without the unseen."""
    unseen: np.ndarray
    """(class) bool"""


@dataclass(frozen=True)
class Diagnostics:
    """One experiment over all its seeds."""

    line: TableRow
    enrolment: dict[By, FewShotCurve]
    """Draws of all seeds and hold-outs together; empty without embeddings or unseen classes."""
    open_set: tuple[OpenSet, ...]
    votes: AccuracyByK
    """Mean over seeds, by the model of all classes it may train on."""
    calibration: tuple[Calibration, ...]
    """Of the share of ten votes, one per seed."""

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, mean over seeds."""
        return float(np.mean([each.ece for each in self.calibration]))

    @property
    def reliability(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all seeds together, in each bin that has queries: mean share of votes, accuracy, and
        the part of all queries."""
        count = np.sum([each.count for each in self.calibration], axis=0)
        share, accuracy = (
            np.nansum([getattr(each, what) * each.count for each in self.calibration], axis=0)[
                count > 0
            ]
            / count[count > 0]
            for what in ("confidence", "accuracy")
        )
        return share, accuracy, count[count > 0] / count.sum()

    @property
    def chosen_on(self) -> str:
        """What the threshold was chosen on, in words; empty where there is none."""
        kinds = {each.validation_images > 0 for each in self.open_set}
        return " or ".join(CHOSEN_ON[kind] for kind in (True, False) if kind in kinds)

    def mean(self, name: str) -> float:
        """`auroc`, `aupr`, `fpr_at_95_tpr` or `oscr`, over seeds and hold-outs."""
        return (
            float(np.mean([getattr(each.curves, name) for each in self.open_set]))
            if self.open_set
            else float("nan")
        )

    @cached_property
    def answered(self) -> tuple[float, float]:
        """Realised precision and coverage of the threshold, means."""
        given = [each for each in self.open_set if not np.isnan(each.precision)]
        if not given:
            return float("nan"), 0.0
        return float(np.mean([each.precision for each in given])), float(
            np.mean([each.coverage for each in self.open_set])
        )


def diagnose(section: Study, line: TableRow, draws: int) -> Diagnostics:
    main = [run.neighbours[run.protocol.main_phase] for run in line.runs]
    enrolment: dict[By, FewShotCurve] = {}
    open_set: tuple[OpenSet, ...] = ()
    if section.has_drop:
        without = [
            run for run in line.runs for phase in held_out(run) if not run.has_embeddings(phase)
        ]
        if without:
            section.missing.append(
                f"enrolment and open-set numbers of {line.name}: {without[0].folder} has no stored"
                " embeddings"
            )
        else:
            enrolment = {by: enrolled(line, by, draws) for by in ("images", "centroids")}
            open_set = tuple(
                not_enrolled(run, phase) for run in line.runs for phase in held_out(run)
            )
    return Diagnostics(line, enrolment, open_set, mean_sweep(main), tuple(map(calibrated, main)))


def diagnose_chosen(study: Study) -> dict[str, Diagnostics]:
    """By the name of the experiment: the best, the baseline and the classifier."""
    return {line.name: diagnose(study, line, DRAWS) for line in study.chosen}


def enrolled(line: TableRow, by: By, draws: int) -> FewShotCurve:
    curves = []
    for run in line.runs:
        for phase, unseen in held_out(run).items():
            stored, found = run.embeddings(phase), run.neighbours[phase]
            curves.append(
                few_shot_curve(
                    stored.gallery,
                    stored.query,
                    found.gallery_labels,
                    found.query_labels,
                    unseen,
                    draws=draws,
                    seed=run.seed,
                    by=by,
                )
            )
    least = min(curves, key=lambda curve: len(curve.ks))
    unseen, seen = (
        np.concatenate([np.delete(c, slice(len(least.ks) - 1, -1), 0) for c in parts], 1)
        for parts in both(curves)
    )
    return FewShotCurve(least.ks, unseen, seen, by)


def both(curves: Sequence[FewShotCurve]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [curve.unseen for curve in curves], [curve.seen for curve in curves]


def not_enrolled(run: Run, phase: str) -> OpenSet:
    """The queries looked up in the gallery without the unseen classes. Validation images of the
    other classes choose the threshold, or, where the run has none, the gallery's own images."""
    stored, unseen = run.embeddings(phase), held_out(run)[phase]
    labels = run.neighbours[phase].gallery_labels
    found = search_without_classes(
        stored.gallery, stored.query, labels, run.neighbours[phase].query_labels, unseen
    )
    right, similarity = precision_at_1(found).astype(bool), found.similarities[:, 0]
    known = validation_look_ups(run, stored, labels, unseen)
    kept = ~np.isin(labels, unseen)
    evidence = known or leave_one_out_gallery(stored.gallery[kept], labels[kept])
    chosen = threshold_for_precision(*evidence, WANTED_PRECISION)
    curves = open_set_result(similarity, right, np.isin(found.query_labels, unseen))
    return OpenSet(
        curves,
        *apply_threshold(chosen.value, similarity, right),
        validation_images=len(known[0]) if known else 0,
    )


def validation_look_ups(
    run: Run, stored: Embeddings, gallery_labels: np.ndarray, unseen: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of the validation images of known classes in the gallery without the unseen: (images)
    similarity of the nearest, (images) whether it is of the image's class. None where there are
    none."""
    if "valid" not in stored.parts:
        return None
    labels = run.images.labels[stored.images("valid")]
    known = ~np.isin(labels, unseen)
    if not known.any():
        return None
    found = search_without_classes(
        stored.gallery, stored.vectors("valid")[known], gallery_labels, labels[known], unseen
    )
    return found.similarities[:, 0], precision_at_1(found).astype(bool)


def mean_sweep(found: Sequence[Neighbours]) -> AccuracyByK:
    sweeps = [accuracy_by_k(each) for each in found]
    length = min(len(each.ks) for each in sweeps)
    return AccuracyByK(
        sweeps[0].ks[:length],
        np.mean([each.majority[:length] for each in sweeps], axis=0),
        np.mean([each.distance[:length] for each in sweeps], axis=0),
    )


def calibrated(found: Neighbours) -> Calibration:
    elected, share = vote(found, min(VOTERS, found.k))
    return calibration_of(share, elected == found.query_labels)


def class_drop(line: TableRow) -> ClassDrop:
    labels, drops, unseen = [], [], []
    for run in line.runs:
        right = {phase: precision_at_1(found) for phase, found in run.neighbours.items()}
        for phase, held in held_out(run).items():
            asked = run.neighbours[phase].query_labels
            labels.append(asked)
            drops.append(right["all"] - right[phase])
            unseen.append(np.isin(asked, held))
    every, drop, held_any = np.concatenate(labels), np.concatenate(drops), np.concatenate(unseen)
    counted = held_any | ~np.isin(every, every[held_any])
    classes = np.unique(every)
    means = np.array([drop[counted & (every == label)].mean() for label in classes])
    names = line.runs[0].class_names
    return ClassDrop(
        tuple(names[label] for label in classes), means, np.isin(classes, every[held_any])
    )


@dataclass(frozen=True, slots=True)
class Example:
    """A query beside its nearest image."""

    query: str
    """Path of the image file."""
    nearest: str
    query_class: str
    nearest_class: str
    similarity: float
    unseen: bool
    votes: tuple[tuple[str, int], ...]
    """The classes of the ten nearest, most votes first."""
    elected: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """A class that is taken for another, with one such query."""

    of: str
    as_: str
    count: int
    queries: int
    """Of the class, right ones too."""
    example: Example


class ExampleImages:
    """The images behind the answers of one run's model. Raises OSError or ValueError where the run
    folder does not say which they are."""

    def __init__(self, run: Run, phase: str = ""):
        self.run = run
        self.phase = phase or run.protocol.main_phase
        self.found = run.neighbours[self.phase]
        self.paths = run.images.paths
        self.classes = [image.class_name for image in run.split]
        stored = run.embeddings(self.phase)
        self.gallery_images, self.query_images = stored.gallery_images, stored.query_images
        self.unseen = held_out(run).get(self.phase, np.array([], int))

    def case(self, query: int) -> Example:
        found, image = self.found, self.query_images[query]
        neighbours = [self.classes[self.gallery_images[i]] for i in found.indices[query, :VOTERS]]
        counts = {name: neighbours.count(name) for name in neighbours}
        nearest = self.gallery_images[found.indices[query, 0]]
        elected, _ = vote(found.of(np.array([query])), min(VOTERS, found.k))
        of_class = dict(zip(found.labels[query, :VOTERS].tolist(), neighbours, strict=True))
        return Example(
            self.paths[image],
            self.paths[nearest],
            self.classes[image],
            self.classes[nearest],
            float(found.similarities[query, 0]),
            bool(np.isin(found.query_labels[query], self.unseen)),
            tuple(sorted(counts.items(), key=lambda pair: -pair[1])),
            of_class[int(elected[0])],
        )

    def mistakes(self, most: int) -> list[Mistake]:
        asked = np.bincount(self.found.query_labels)
        chosen = confusions(self.found, most)
        cases = [self.case(confusion.queries[0]) for confusion in chosen]
        return [
            Mistake(case.query_class, case.nearest_class, c.count, int(asked[c.of]), case)
            for c, case in zip(chosen, cases, strict=True)
        ]

    def evidence(self, each: int) -> dict[str, list[Example]]:
        """Queries by what became of them, the unseen classes' first; at most `each` of a kind."""
        right, changed = precision_at_1(self.found).astype(bool), vote_changes(self.found, VOTERS)
        unseen = np.isin(self.found.query_labels, self.unseen)
        elected, _ = vote(self.found, min(VOTERS, self.found.k))
        kinds = {
            (
                "Corrected by the vote: the nearest image is of a wrong class, but the ten nearest"
                " elect the right one"
            ): changed.saved,
            (
                "Spoiled by the vote: the nearest image is of the right class, but the ten nearest"
                " elect a wrong one"
            ): changed.broken,
            "Right by the nearest image and by the vote": right
            & (elected == self.found.query_labels),
            "Wrong by the nearest image and by the vote": ~right
            & (elected != self.found.query_labels),
        }
        return {
            kind: [self.case(query) for query in spread(chosen, unseen, each)]
            for kind, chosen in kinds.items()
        }


def spread(chosen: np.ndarray, unseen: np.ndarray, most: int) -> list[int]:
    """Some of the chosen queries: half of them of unseen classes, as far as there are, and evenly
    over the others of their kind."""
    first, then = np.flatnonzero(chosen & unseen), np.flatnonzero(chosen & ~unseen)
    of_first = min(len(first), max(most // 2, most - len(then)))
    picked = [
        group[np.linspace(0, len(group) - 1, count).astype(int)]
        for group, count in ((first, of_first), (then, min(len(then), most - of_first)))
    ]
    return [int(query) for query in np.concatenate(picked)]
