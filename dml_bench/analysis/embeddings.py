"""What embeddings are worth, whatever made them: P@1, votes, class means, new and unknown classes;
of a pair that differs in its training classes, the drops and the cost of being unseen."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.embeddings import LabelTable
from dml_bench.data.split import make_split, unseen_classes
from dml_bench.evaluation.class_means import nearest_class_mean
from dml_bench.evaluation.collapse import doubts
from dml_bench.evaluation.drop import lost_to
from dml_bench.evaluation.few_shot import FewShotCurve, few_shot_curve
from dml_bench.evaluation.hubness import Hubness, hubness
from dml_bench.evaluation.metrics import map_at_r, precision_at_1, r_precision, vote
from dml_bench.evaluation.open_set import OpenSetResult, open_set_result, search_without_classes
from dml_bench.evaluation.scatter import scatter, scatter_by_group
from dml_bench.evaluation.search import Neighbours, search
from dml_bench.evaluation.statistics import (
    DIFFERENCE,
    PROPORTION,
    Interval,
    Scores,
    interval,
)
from dml_bench.protocols.holdout_metrics import COST, TO_SEEN, TO_UNSEEN, drop_name
from dml_bench.system.counted import counted

__all__ = [
    "EmbeddingsResult",
    "Line",
    "Queries",
    "describe_unused",
    "evaluate_embeddings",
    "queries_of",
]

VOTES = (5, 10)
DRAWS = 20
TEST_FRACTION = 0.2


@dataclass(frozen=True, slots=True)
class Queries:
    """Which images are looked up among which, and the classes that are taken for new."""

    dataset: Dataset
    gallery: np.ndarray
    """Indices of the images that are searched, rising."""
    query: np.ndarray
    """Indices of the images that are looked up."""
    kind: str
    """`given` by the table, or `random` by class."""
    unseen: tuple[int, ...]
    """Class ids."""
    chosen_unseen: bool
    """Whether a person named them; else they were drawn."""

    @property
    def gallery_labels(self) -> np.ndarray:
        """(gallery) class ids."""
        labels: np.ndarray = self.dataset.labels[self.gallery]
        return labels

    @property
    def query_labels(self) -> np.ndarray:
        """(query) class ids."""
        labels: np.ndarray = self.dataset.labels[self.query]
        return labels


@dataclass(frozen=True, slots=True)
class Line:
    """One way to answer, on all classes, on the old and on the new ones."""

    name: str
    everything: Interval
    seen: Interval
    unseen: Interval


@dataclass(frozen=True, slots=True)
class EmbeddingsResult:
    """All that is measured of the embeddings of one model; `drops` only of a pair of models, of
    which this is the one that never trained on the new classes."""

    lines: tuple[Line, ...]
    by_images: FewShotCurve
    by_means: FewShotCurve
    unknown: OpenSetResult
    """Queries of the new classes, while the gallery lacks them."""
    drops: dict[str, Interval]
    """By metric, see `protocols.holdout_metrics`."""
    scatter: dict[str, dict[str, Interval]]
    """How far queries scatter against the gallery, for `seen` and `unseen` classes, by measure of
    `evaluation.scatter`."""
    hubness: Hubness
    """How unevenly gallery images answer."""
    doubts: dict[str, float]
    """Reasons to doubt all of it, by name (`evaluation.collapse.doubts`)."""

    def as_table(self) -> dict[str, Any]:
        """For JSON: proportions, with 95% intervals over classes and queries."""
        lines = {}
        for line in self.lines:
            groups = {"all": line.everything, "seen": line.seen, "unseen": line.unseen}
            lines[line.name] = {group: value.as_table() for group, value in groups.items()}
        unknown = asdict(self.unknown)
        for key in ("false_positive_rate", "true_positive_rate", "correct_rate"):
            del unknown[key]
        return {
            "accuracy": lines,
            "enrolment": {"images": curve(self.by_images), "class_means": curve(self.by_means)},
            "unknown_classes": unknown,
            "drops": {name: value.as_table() for name, value in self.drops.items()},
            "scatter": scatter_table(self.scatter),
            "hubness": self.hubness.as_table(),
        }


def scatter_table(groups: dict[str, dict[str, Interval]]) -> dict[str, dict[str, Any]]:
    """For JSON."""
    table: dict[str, dict[str, Any]] = {}
    for group, means in groups.items():
        table[group] = {measure: mean.as_table() for measure, mean in means.items()}
    return table


def curve(few_shot: FewShotCurve) -> dict[str, Any]:
    return {
        "images_per_new_class": list(few_shot.ks),
        "new_classes": few_shot.unseen.mean(1).tolist(),
        "old_classes": few_shot.seen.mean(1).tolist(),
    }


def queries_of(table: LabelTable, unseen: str, seed: int) -> Queries:
    """Gallery and queries: the table's own parts, else a fifth of each class at random. `unseen` is
    as in an experiment; empty: a fifth of the classes, at random.

    Raises ValueError where a class lacks gallery images or queries, or where there are fewer than
    three classes.
    """
    dataset = table.dataset
    if dataset.num_classes < 3:
        raise ValueError(
            f"{table.file} must have at least 3 classes, got {dataset.num_classes}: add images of"
            " others"
        )
    if dataset.parts is None:
        split = make_split(dataset, method="stratified", test_fraction=TEST_FRACTION, seed=seed)
        gallery, query, kind = split.train, split.test, "random"
    else:
        parts = np.array(dataset.parts)
        gallery = np.flatnonzero(np.isin(parts, ("train", "gallery")))
        query = np.flatnonzero(np.isin(parts, ("test", "query")))
        kind = "given"
        require_both(table, gallery, query)
    rule = unseen or f"random:{max(1, dataset.num_classes // 5)}:{seed}"
    return Queries(dataset, gallery, query, kind, unseen_classes(rule, dataset), bool(unseen))


def require_both(table: LabelTable, gallery: np.ndarray, query: np.ndarray) -> None:
    dataset = table.dataset
    for what, images in (("gallery (train)", gallery), ("query (test)", query)):
        empty = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[images])
        if len(empty):
            names = ", ".join(dataset.class_names[label] for label in empty[:5])
            raise ValueError(
                f"{len(empty)} classes of {table.file} have no {what} image ({names}): add images,"
                " remove these classes, or remove the column of parts"
            )


def describe_unused(queries: Queries) -> list[str]:
    """A sentence about images that are neither searched nor looked up; empty where all are."""
    parts = np.array(queries.dataset.parts or ())
    used = np.union1d(queries.gallery, queries.query)
    others = np.setdiff1d(np.arange(len(parts)), used)
    if not len(others):
        return []
    names = " and ".join(sorted(set(parts[others].tolist())))
    return [f"{counted(len(others), 'image')} of the part {names} of the table have no use here"]


def evaluate_embeddings(
    queries: Queries,
    embeddings: np.ndarray,
    of_all: np.ndarray | None = None,
    progress: Progress = lambda message, done, total: None,
) -> EmbeddingsResult:
    """(images, dim) unit vectors of the data set's images -> what they are worth. `of_all` are
    those of a model that was also trained on the new classes."""
    gallery, query = embeddings[queries.gallery], embeddings[queries.query]
    labels = queries.gallery_labels, queries.query_labels
    neighbours = neighbours_of(queries, embeddings, partial(progress, "searching"))
    by_images = few_shot_curve(
        gallery,
        query,
        *labels,
        queries.unseen,
        draws=DRAWS,
        progress=partial(progress, "enrolling images"),
    )
    by_means = few_shot_curve(
        gallery,
        query,
        *labels,
        queries.unseen,
        draws=DRAWS,
        by="centroids",
        progress=partial(progress, "enrolling class means"),
    )
    known = search_without_classes(
        gallery,
        query,
        *labels,
        queries.unseen,
        progress=partial(progress, "searching without new classes"),
    )
    unknown = open_set_result(
        known.similarities[:, 0],
        precision_at_1(known).astype(bool),
        np.isin(queries.query_labels, queries.unseen),
    )
    means = nearest_class_mean(gallery, query, queries.gallery_labels)
    drops = {}
    if of_all is not None:
        by_other = neighbours_of(queries, of_all, partial(progress, "searching by the other model"))
        drops = drops_of(queries, by_other, neighbours)
    return EmbeddingsResult(
        lines=tuple(lines_of(queries, neighbours, means)),
        by_images=by_images,
        by_means=by_means,
        unknown=unknown,
        drops=drops,
        scatter=scatter_by_group(scatter(gallery, query, *labels), queries.unseen),
        hubness=hubness(neighbours),
        doubts=doubts(gallery, neighbours).get("doubts", {}),
    )


def neighbours_of(
    queries: Queries, embeddings: np.ndarray, progress: Callable[[int, int], None]
) -> Neighbours:
    """As many as the largest class has images, which R-precision and MAP@R look at."""
    k = max(*VOTES, int(np.bincount(queries.gallery_labels).max()))
    return search(
        embeddings[queries.gallery],
        embeddings[queries.query],
        queries.gallery_labels,
        queries.query_labels,
        k,
        progress,
    )


def lines_of(queries: Queries, neighbours: Neighbours, means: np.ndarray) -> Iterator[Line]:
    labels = queries.query_labels
    yield line(queries, "nearest image (P@1)", precision_at_1(neighbours))
    for k in VOTES:
        elected, _ = vote(neighbours, min(k, neighbours.k), weights="distance")
        yield line(queries, f"vote of the {k} nearest", (elected == labels).astype(float))
    yield line(queries, "nearest class mean", (means == labels).astype(float))
    yield line(queries, "R-precision", r_precision(neighbours))
    yield line(queries, "MAP@R", map_at_r(neighbours))


def line(queries: Queries, name: str, values: np.ndarray) -> Line:
    scores = Scores(values, queries.query_labels)
    is_new = np.isin(queries.query_labels, queries.unseen)
    groups = (scores, scores.where(~is_new), scores.where(is_new))
    everything, seen, unseen = (interval([group], within=PROPORTION) for group in groups)
    return Line(name, everything, seen, unseen)


def drops_of(queries: Queries, of_all: Neighbours, without: Neighbours) -> dict[str, Interval]:
    """The cost of being unseen and what it is made of. It compares other classes, which may be
    harder or easier."""
    labels = queries.query_labels
    is_new = np.isin(labels, queries.unseen)
    lost = Scores(precision_at_1(of_all) - precision_at_1(without), labels)
    to_unseen = Scores(lost_to(of_all, without, queries.unseen), labels).where(~is_new)
    unseen, seen = lost.where(is_new), lost.where(~is_new)
    scores = {
        COST: Scores.contrast(unseen, seen),
        drop_name("unseen"): unseen,
        drop_name("seen"): seen,
        TO_UNSEEN: to_unseen,
        TO_SEEN: seen.minus(to_unseen),
    }
    return {name: interval([values], within=DIFFERENCE) for name, values in scores.items()}
