"""Diagnostics of a few experiments: enrolment, unknown classes, votes, and the images behind some
predictions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dml_bench.analysis.short_names import is_classifier
from dml_bench.analysis.study import Study, held_out
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.calibration import Calibration, calibration_of
from dml_bench.evaluation.few_shot import (
    LARGEST_REFIT,
    FewShotCurve,
    RefitCurve,
    few_shot_curve,
    refit_curve,
)
from dml_bench.evaluation.knn_vote import AccuracyByK, accuracy_by_k, confusions, vote_changes
from dml_bench.evaluation.metrics import precision_at_1, vote
from dml_bench.evaluation.open_set import (
    OpenSetResult,
    open_set_result,
    search_without_classes,
)
from dml_bench.evaluation.thresholds import (
    NO_OUTCOMES,
    GuaranteedThreshold,
    PrecisionCurve,
    SearchOutcomes,
    guaranteed_threshold,
    precision_curve,
    upper_bound,
)
from dml_bench.runs.run import RecordedRun, Run

__all__ = [
    "ClassDrop",
    "Diagnostics",
    "Example",
    "ExampleImages",
    "Mistake",
    "class_drop",
    "diagnose",
    "diagnose_chosen",
    "why_unmeasured",
]

By = Literal["images", "centroids", "refit"]
WANTED_PRECISION = 0.9
GOALS = (0.8, WANTED_PRECISION, 0.95)
"""Precisions that a threshold is to keep."""
UNKNOWN_SHARES = (0.0, 0.2)
"""Shares of images of unseen classes, with which it is to keep them."""
FEWEST_DRAWN = 10
"""Answers from which on a precision is drawn; that of fewer jumps up and down."""
VOTERS = 10
DRAWS = 30
"""Random choices of images for each point of an enrolment curve."""
REFITS = 3
"""Of those, how many are taken where a classifier is fitted again."""
CHOSEN_ON = {
    True: "validation images of the known classes",
    False: "one half of the queries of the known classes",
}


@dataclass(frozen=True, slots=True)
class TestedThreshold:
    """A threshold, and what it does on images that had no part in its choice."""

    promise: GuaranteedThreshold
    precision: float
    """Right answers / answers, in the mix that was promised; nan where there is no answer."""
    coverage: float
    """Answers / images; nan where there are no images for the mix."""


@dataclass(frozen=True, slots=True)
class TestImages:
    """How many images test the thresholds of one seed and one hold-out."""

    known: int
    unseen: int
    """Of classes that had no part in the choice."""

    def are_missed_by(self, tested: TestedThreshold) -> bool:
        """Whether a threshold keeps less than it promised: the upper bound of its precision on
        these images, each by itself, lies below the goal. A lower precision alone may be chance."""
        share, goal = tested.promise.unknown_share, tested.promise.goal
        if math.isnan(tested.precision):
            return False
        total = self.known / (1 - share)
        if share:
            total = min(total, self.unseen / share)
        answers = tested.coverage * total
        return upper_bound(tested.precision * answers, answers) < goal


@dataclass(frozen=True, slots=True)
class AnsweredShares:
    """Of falling thresholds, those with at least FEWEST_DRAWN answers, if any has so many."""

    coverage: np.ndarray
    """(thresholds) answers / images."""
    precision: np.ndarray
    """(thresholds) right answers / answers."""

    @classmethod
    def of(cls, curve: PrecisionCurve) -> "AnsweredShares":
        fewest = FEWEST_DRAWN if curve.total >= FEWEST_DRAWN else 0
        enough = curve.answers >= fewest
        return cls(curve.coverage[enough], curve.precision[enough])


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Unseen classes that are not enrolled, for one seed and one hold-out."""

    curves: OpenSetResult
    thresholds: tuple[TestedThreshold, ...]
    """For each of GOALS and UNKNOWN_SHARES."""
    chosen: AnsweredShares
    """Of the known images on which thresholds are chosen."""
    tested: AnsweredShares
    """Of the known images on which they are tested."""
    validation_images: int
    """Of the known classes, on which thresholds were chosen; 0 where these are queries."""

    def threshold(self, goal: float, unknown_share: float) -> TestedThreshold:
        """The one for a precision and a share of images of unseen classes."""
        for tested in self.thresholds:
            if (tested.promise.goal, tested.promise.unknown_share) == (goal, unknown_share):
                return tested
        raise KeyError((goal, unknown_share))


@dataclass(frozen=True, slots=True)
class ThresholdSummary:
    """One goal over all seeds and hold-outs. Means are over those with a threshold; nan without."""

    goal: float
    unknown_share: float
    models: int
    promised: int
    """Models whose calibration images promise the goal."""
    missed: int
    """Of these, models that surely miss it on the images that had no part in the choice."""
    bound: float
    precision: float
    """Realised on those images."""
    coverage: float
    """Share of those images that is answered."""
    known: float
    """Images of known classes on which it was chosen, mean over all models."""
    unknown: float
    """Images of unseen classes on which it was chosen."""


@dataclass(frozen=True, slots=True)
class ClassDrop:
    """P@1 per class, mean over seeds; of several hold-outs, over those in which the class is
    unseen, if it is in any."""

    names: tuple[str, ...]
    drop: np.ndarray
    """(class) trained on all classes minus trained without the unseen."""
    unseen: np.ndarray
    """(class) bool"""
    spread: np.ndarray
    """(class) standard deviation of the drop over seeds; nan of fewer than two."""


@dataclass(frozen=True)
class Diagnostics:
    """One experiment over all its seeds."""

    line: TableRow
    enrolment: dict[By, FewShotCurve]
    """Draws of all seeds and hold-outs together; empty without embeddings or unseen classes."""
    open_set: tuple[OpenSet, ...]
    test_images: tuple[TestImages, ...]
    """One for each of `open_set`."""
    votes: AccuracyByK
    """Mean over seeds, by the model of all classes it may train on."""
    calibration: tuple[Calibration, ...]
    """Of the share of ten votes, one per seed."""

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, mean over seeds."""
        return float(np.mean([of_seed.ece for of_seed in self.calibration]))

    @property
    def reliability(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of all seeds together, in each bin that has queries: mean share of votes, accuracy, and
        the part of all queries."""
        counts = np.array([of_seed.count for of_seed in self.calibration])
        shares = np.array([of_seed.confidence for of_seed in self.calibration])
        accuracies = np.array([of_seed.accuracy for of_seed in self.calibration])
        count = counts.sum(0)
        filled = count > 0
        share = np.nansum(shares * counts, axis=0)[filled] / count[filled]
        accuracy = np.nansum(accuracies * counts, axis=0)[filled] / count[filled]
        return share, accuracy, count[filled] / count.sum()

    @property
    def chosen_on(self) -> str:
        """A description of what the threshold was chosen on; empty where there is none."""
        kinds = {part.validation_images > 0 for part in self.open_set}
        return " or ".join(CHOSEN_ON[kind] for kind in (True, False) if kind in kinds)

    def mean(self, name: str) -> float:
        """`auroc`, `aupr`, `fpr_at_95_tpr` or `oscr`, over seeds and hold-outs."""
        if not self.open_set:
            return math.nan
        return float(np.mean([getattr(part.curves, name) for part in self.open_set]))

    def summary_of(self, goal: float, unknown_share: float) -> ThresholdSummary:
        """What became of the thresholds for one goal."""
        tested = [part.threshold(goal, unknown_share) for part in self.open_set]
        promised = [part for part in tested if part.promise.promised]
        answered = [part for part in promised if not math.isnan(part.precision)]
        missed = [
            images.are_missed_by(part)
            for images, part in zip(self.test_images, tested, strict=True)
            if part.promise.promised
        ]
        return ThresholdSummary(
            goal=goal,
            unknown_share=unknown_share,
            models=len(tested),
            promised=len(promised),
            missed=sum(missed),
            bound=mean_of([part.promise.bound for part in promised]),
            precision=mean_of([part.precision for part in answered]),
            coverage=mean_of([part.coverage for part in promised]),
            known=mean_of([part.promise.known for part in tested]),
            unknown=mean_of([part.promise.unknown for part in tested]),
        )


def mean_of(values: Sequence[float]) -> float:
    """The mean; nan without values."""
    return float(np.mean(values)) if values else math.nan


def diagnose_chosen(study: Study) -> dict[str, Diagnostics]:
    """By the name of the experiment: the best, the baseline and the classifier."""
    return {line.name: diagnose(study, line, DRAWS) for line in study.diagnosed}


def diagnose(study: Study, line: TableRow, draws: int) -> Diagnostics:
    """Everything of one experiment; `draws` is how many random choices of images each point of an
    enrolment curve has. What can't be measured is added to `study.missing`."""
    enrolment: dict[By, FewShotCurve] = {}
    open_set: list[OpenSet] = []
    test_images: list[TestImages] = []
    limited = [(run, phase) for run in line.runs for phase in held_out(run)]
    without = [run for run, phase in limited if not is_diagnosable(run, phase)]
    if study.has_drop and without:
        study.missing.append(
            f"enrolment and open-set numbers of {line.name}: {without[0].folder} has no stored"
            " embeddings"
        )
    elif study.has_drop:
        for by in ways_of(line.runs):
            reasons = (why_unmeasured(run, phase, by) for run, phase in limited)
            if reason := next(filter(None, reasons), ""):
                study.missing.append(f"the refitted last layer of {line.name}: {reason}")
            else:
                enrolment[by] = enrolment_curve(limited, by, draws)
        for run, phase in limited:
            open_set.append(not_enrolled(run, phase))
            test_images.append(images_of_test(run, phase, open_set[-1]))
    calibrations = tuple(map(calibration_of_vote, line.runs))
    votes = mean_votes(line.runs)
    return Diagnostics(line, enrolment, tuple(open_set), tuple(test_images), votes, calibrations)


def is_diagnosable(run: Run, phase: str) -> bool:
    """Whether enrolment and unknown classes can be measured, or were when the run was recorded."""
    if isinstance(run, RecordedRun):
        return run.has_diagnostic(f"open_set.{phase}", OpenSet)
    return run.has_embeddings(phase)


def ways_of(runs: Sequence[Run]) -> tuple[By, ...]:
    """How new classes can be answered: of a classifier also by fitting its last layer again."""
    is_refitted = is_classifier(runs[0].experiment)
    return ("images", "centroids", "refit") if is_refitted else ("images", "centroids")


def why_unmeasured(run: Run, phase: str, by: By) -> str:
    """Why there is no such curve; empty where there is one."""
    if by != "refit":
        return ""
    if isinstance(run, RecordedRun):
        name = f"enrolment.{phase}.{by}"
        return "" if run.has_diagnostic(name, RefitCurve) else f"{run.folder} has none"
    images, dimensions = run.embeddings(phase).gallery.shape
    classes = len(np.unique(run.neighbours[phase].gallery_labels))
    if images * dimensions * classes <= LARGEST_REFIT:
        return ""
    return f"with {images:,} images of {classes:,} classes each fit takes over a minute"


def enrolment_curve(limited: Sequence[tuple[Run, str]], by: By, draws: int) -> FewShotCurve:
    """Of the draws of all seeds and hold-outs together. Its last count is that of the largest class
    of any."""
    curves = [curve_of_phase(run, phase, by, draws) for run, phase in limited]
    shortest = min((curve.ks for curve in curves), key=len)
    length = len(shortest)
    ks = (*shortest[:-1], max(curve.ks[-1] for curve in curves))
    unseen = np.concatenate([shortened(curve.unseen, length) for curve in curves], 1)
    seen = np.concatenate([shortened(curve.seen, length) for curve in curves], 1)
    refits = [curve for curve in curves if isinstance(curve, RefitCurve)]
    if not refits:
        return FewShotCurve(ks, unseen, seen, by)
    seconds = np.concatenate([shortened(curve.seconds, length) for curve in refits], 1)
    return RefitCurve(ks, unseen, seen, by, seconds)


def curve_of_phase(run: Run, phase: str, by: By, draws: int) -> FewShotCurve:
    if isinstance(run, RecordedRun):
        kind = RefitCurve if by == "refit" else FewShotCurve
        return run.diagnostic(f"enrolment.{phase}.{by}", kind)
    stored, neighbours = run.embeddings(phase), run.neighbours[phase]
    if by == "refit":
        return refit_curve(
            stored.gallery,
            stored.query,
            neighbours.gallery_labels,
            neighbours.query_labels,
            held_out(run)[phase],
            draws=min(REFITS, draws),
            seed=run.seed,
            groups=groups_in_split(run, stored.images("gallery")),
        )
    return few_shot_curve(
        stored.gallery,
        stored.query,
        neighbours.gallery_labels,
        neighbours.query_labels,
        held_out(run)[phase],
        draws=draws,
        seed=run.seed,
        by=by,
    )


def shortened(values: np.ndarray, length: int) -> np.ndarray:
    """(k, draws) without those before the last k that are too many."""
    return np.delete(values, slice(length - 1, -1), 0)


def not_enrolled(run: Run, phase: str) -> OpenSet:
    """The queries searched in the gallery without the unseen classes, and thresholds that are
    chosen on images of one half and tested on images of the other.

    Of the known classes, validation images choose and queries test; of a run without validation
    images, every other query of a class, or of a split with groups every other group, chooses and
    the rest test. Of the unseen classes, images that are no queries choose, of every other class,
    and queries of the other classes test.
    """
    if isinstance(run, RecordedRun):
        return run.diagnostic(f"open_set.{phase}", OpenSet)
    stored, unseen = run.embeddings(phase), held_out(run)[phase]
    gallery_labels = run.neighbours[phase].gallery_labels
    query_labels = run.neighbours[phase].query_labels

    def outcomes(vectors: np.ndarray, labels: np.ndarray) -> SearchOutcomes:
        if not len(labels):
            return NO_OUTCOMES
        neighbours = search_without_classes(stored.gallery, vectors, gallery_labels, labels, unseen)
        right = precision_at_1(neighbours).astype(bool)
        return SearchOutcomes(neighbours.similarities[:, 0], right, labels)

    queries = outcomes(stored.query, query_labels)
    is_unseen = np.isin(query_labels, unseen)
    valid_vectors, valid_labels = stored.gallery[:0], query_labels[:0]
    if "valid" in stored.parts:
        valid_vectors = stored.vectors("valid")
        valid_labels = run.images.labels[stored.images("valid")]
    is_known = ~np.isin(valid_labels, unseen)
    chosen_on = outcomes(valid_vectors[is_known], valid_labels[is_known])
    tests = ~is_unseen
    if is_known.any():
        groups = groups_in_split(run, stored.images("valid")[is_known])
    else:
        groups = groups_in_split(run, stored.images("query"))
        half = every_other(query_labels) if groups is None else in_every_other(groups)
        chooses = tests & half
        chosen_on, tests = rows_of(queries, chooses), tests & ~chooses
        groups = None if groups is None else groups[chooses]
    choosing_classes = unseen[::2]
    absent_vectors = np.concatenate([stored.gallery, valid_vectors])
    absent_labels = np.concatenate([gallery_labels, valid_labels])
    absent_images = stored.gallery_images
    if "valid" in stored.parts:
        absent_images = np.concatenate([absent_images, stored.images("valid")])
    chooses = np.isin(absent_labels, choosing_classes)
    absent = outcomes(absent_vectors[chooses], absent_labels[chooses])
    halves = Halves(
        chosen_on=replace(chosen_on, groups=groups),
        tested_on=replace(rows_of(queries, tests), groups=None),
        absent_chosen_on=replace(absent, crossed=groups_in_split(run, absent_images[chooses])),
        absent_tested_on=rows_of(queries, is_unseen & ~np.isin(query_labels, choosing_classes)),
    )
    return OpenSet(
        open_set_result(queries.similarity, queries.correct, is_unseen),
        thresholds=tuple(
            halves.threshold(goal, share) for share in UNKNOWN_SHARES for goal in GOALS
        ),
        chosen=AnsweredShares.of(precision_curve(halves.chosen_on)),
        tested=AnsweredShares.of(precision_curve(halves.tested_on)),
        validation_images=int(is_known.sum()),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Halves:
    """Images on which thresholds are chosen, and others on which they are tested."""

    chosen_on: SearchOutcomes
    tested_on: SearchOutcomes
    absent_chosen_on: SearchOutcomes
    """Of unseen classes, none of which is among those of `absent_tested_on`; grouped by class, and
    by the groups that the split keeps whole."""
    absent_tested_on: SearchOutcomes

    def threshold(self, goal: float, unknown_share: float) -> TestedThreshold:
        """Chosen on the one, and tested on the other."""
        promise = guaranteed_threshold(
            self.chosen_on, goal, unknown=self.absent_chosen_on, unknown_share=unknown_share
        )
        curve = precision_curve(self.tested_on, self.absent_tested_on, unknown_share=unknown_share)
        return TestedThreshold(promise, *curve.at(promise.value))


def images_of_test(run: Run, phase: str, open_set: OpenSet) -> TestImages:
    """Queries of the known classes, less those that chose, and those of every other unseen one."""
    labels, unseen = run.neighbours[phase].query_labels, held_out(run)[phase]
    known = int((~np.isin(labels, unseen)).sum())
    if not open_set.validation_images:
        known -= open_set.thresholds[0].promise.known
    others = np.setdiff1d(unseen, unseen[::2])
    return TestImages(known, int(np.isin(labels, others).sum()))


def in_every_other(groups: np.ndarray) -> np.ndarray:
    """(images) bool: those of the first, third, ... group."""
    chosen: np.ndarray = np.isin(groups, np.unique(groups)[::2])
    return chosen


def groups_in_split(run: Run, images: np.ndarray) -> np.ndarray | None:
    """(images) the groups that the run's split kept whole; None where it has none."""
    if not run.experiment.data.has_groups:
        return None
    groups = np.array([run.split[image].group for image in images], object)
    return groups if len(groups) and (groups != "").all() else None


def every_other(labels: np.ndarray) -> np.ndarray:
    """(images) bool: the first, third, ... image of each class."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[::2]] = True
    return chosen


def rows_of(outcomes: SearchOutcomes, rows: np.ndarray) -> SearchOutcomes:
    """Of some of the images."""
    groups = None if outcomes.groups is None else outcomes.groups[rows]
    return SearchOutcomes(outcomes.similarity[rows], outcomes.correct[rows], groups)


def votes_of(run: Run) -> AccuracyByK:
    """Accuracy against the number of voters, by the model of all classes it may train on."""
    if isinstance(run, RecordedRun):
        return run.diagnostic("votes", AccuracyByK)
    return accuracy_by_k(run.neighbours[run.protocol.main_phase])


def mean_votes(runs: Sequence[Run]) -> AccuracyByK:
    """Over the seeds, for the numbers of voters that all have."""
    votes = list(map(votes_of, runs))
    length = min(len(of_seed.ks) for of_seed in votes)
    return AccuracyByK(
        votes[0].ks[:length],
        np.mean([of_seed.majority[:length] for of_seed in votes], axis=0),
        np.mean([of_seed.distance[:length] for of_seed in votes], axis=0),
    )


def calibration_of_vote(run: Run) -> Calibration:
    """Of the share of ten votes that the elected class has."""
    if isinstance(run, RecordedRun):
        return run.diagnostic("calibration", Calibration)
    neighbours = run.neighbours[run.protocol.main_phase]
    elected, share = vote(neighbours, min(VOTERS, neighbours.k))
    return calibration_of(share, elected == neighbours.query_labels)


def class_drop(line: TableRow) -> ClassDrop:
    """The precision drop of every class."""
    labels, drops, unseen, seeds = [], [], [], []
    for run in line.runs:
        right_by_all = precision_at_1(run.neighbours[run.protocol.main_phase])
        for phase, classes in held_out(run).items():
            neighbours = run.neighbours[phase]
            labels.append(neighbours.query_labels)
            drops.append(right_by_all - precision_at_1(neighbours))
            unseen.append(np.isin(neighbours.query_labels, classes))
            seeds.append(np.full(len(neighbours.query_labels), run.seed))
    label, drop, is_unseen = np.concatenate(labels), np.concatenate(drops), np.concatenate(unseen)
    seed = np.concatenate(seeds)
    counted = is_unseen | ~np.isin(label, label[is_unseen])
    classes, different_seeds = np.unique(label), np.unique(seed)
    means, spreads = np.empty(len(classes)), np.full(len(classes), np.nan)
    for place, of_class in enumerate(classes):
        of_its_images = counted & (label == of_class)
        means[place] = drop[of_its_images].mean()
        if len(different_seeds) > 1:
            by_seed = [drop[of_its_images & (seed == one)].mean() for one in different_seeds]
            spreads[place] = np.std(by_seed, ddof=1)
    names = line.runs[0].class_names
    return ClassDrop(
        names=tuple(names[of_class] for of_class in classes),
        drop=means,
        unseen=np.isin(classes, label[is_unseen]),
        spread=spreads,
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

    count: int
    """Queries of the one class whose nearest image is of the other."""
    queries: int
    """All queries of the class."""
    example: Example


class ExampleImages:
    """The images behind the predictions of one run's model. Raises OSError or ValueError where the
    run folder does not say which they are."""

    def __init__(self, run: Run, phase: str = ""):
        self.run = run
        self.phase = phase or run.protocol.main_phase
        self.neighbours = run.neighbours[self.phase]
        self.paths = run.images.paths
        self.classes = [image.class_name for image in run.split]
        stored = run.embeddings(self.phase)
        self.gallery_images, self.query_images = stored.gallery_images, stored.query_images
        self.unseen = held_out(run).get(self.phase, np.array([], int))
        self.elected, _ = vote(self.neighbours, min(VOTERS, self.neighbours.k))

    def example(self, query: int) -> Example:
        """One query beside its nearest image."""
        neighbours, image = self.neighbours, self.query_images[query]
        places = self.gallery_images[neighbours.indices[query, :VOTERS]]
        classes = [self.classes[place] for place in places]
        votes = {name: classes.count(name) for name in classes}
        class_names = dict(zip(neighbours.labels[query, :VOTERS].tolist(), classes, strict=True))
        return Example(
            query=self.paths[image],
            nearest=self.paths[places[0]],
            query_class=self.classes[image],
            nearest_class=classes[0],
            similarity=float(neighbours.similarities[query, 0]),
            unseen=bool(np.isin(neighbours.query_labels[query], self.unseen)),
            votes=tuple(sorted(votes.items(), key=lambda pair: -pair[1])),
            elected=class_names[int(self.elected[query])],
        )

    def mistakes(self, most: int) -> list[Mistake]:
        """The most frequent confusions of two classes."""
        queries = np.bincount(self.neighbours.query_labels)
        mistakes = []
        for confusion in confusions(self.neighbours, most):
            example = self.example(confusion.queries[0])
            mistakes.append(Mistake(confusion.count, int(queries[confusion.of]), example))
        return mistakes

    def by_outcome(self, most: int) -> dict[str, list[Example]]:
        """Queries by what became of them, the unseen classes' first; at most so many of a kind."""
        labels = self.neighbours.query_labels
        nearest_right = precision_at_1(self.neighbours).astype(bool)
        vote_right = self.elected == labels
        changed = vote_changes(self.neighbours, VOTERS)
        kinds = {
            (
                "Corrected by the vote: the nearest image is of a wrong class, but the ten nearest"
                " elect the right one"
            ): changed.saved,
            (
                "Spoiled by the vote: the nearest image is of the right class, but the ten nearest"
                " elect a wrong one"
            ): changed.broken,
            "Right by the nearest image and by the vote": nearest_right & vote_right,
            "Wrong by the nearest image and by the vote": ~nearest_right & ~vote_right,
        }
        unseen = np.isin(labels, self.unseen)
        examples = {}
        for kind, chosen in kinds.items():
            examples[kind] = list(map(self.example, spread(chosen, unseen, most)))
        return examples


def spread(chosen: np.ndarray, unseen: np.ndarray, most: int) -> list[int]:
    """Some of the chosen queries: half of them of unseen classes, as far as there are, and evenly
    over the others of their kind."""
    of_unseen, of_seen = np.flatnonzero(chosen & unseen), np.flatnonzero(chosen & ~unseen)
    num_unseen = min(len(of_unseen), max(most // 2, most - len(of_seen)))
    num_seen = min(len(of_seen), most - num_unseen)
    return [*evenly(of_unseen, num_unseen), *evenly(of_seen, num_seen)]


def evenly(queries: np.ndarray, count: int) -> list[int]:
    """So many of them, the first and the last among them."""
    places = np.linspace(0, len(queries) - 1, count).astype(int)
    return [int(queries[place]) for place in places]
