"""The protocol `multi_label`: images of several labels, found by a classifier of each label and by
the votes of the nearest images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from dml_bench.config import Evaluate, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.label_sets import JOINT, LIKELY, LabelSets
from dml_bench.data.split import Phase, Split, split_by_label_sets
from dml_bench.evaluation.label_sets import (
    average_precision,
    mean_with_interval,
    resamples,
    voted,
)
from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import Scores
from dml_bench.protocols.base import (
    PhaseOutput,
    Protocol,
    Result,
    columns_of_queried_classes,
    describe_run,
    predictions,
    register,
)
from dml_bench.protocols.metric import (
    Column,
    MeasuredRun,
    Metric,
    by_name,
    columns_of,
    scores_of_phase,
)
from dml_bench.system.tables import OutcomeTable, ResultTable, number

__all__ = ["MultiLabel", "MultiLabelResult"]

ALL = "all"
"""The one phase."""
CLASSIFIER = "map_classifier"


class MultiLabelResult(Result):
    """Average precision of each label and its mean over labels (mAP), by the votes of the nearest
    images and, where the loss has logits, by these."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        neighbours: Neighbours,
        probabilities: np.ndarray | None,
    ):
        """`probabilities` are (query, labels), None where the loss has no logits."""
        assert dataset.label_sets is not None, "the split refused images of one class"
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.neighbours = neighbours
        self.label_sets: LabelSets = dataset.label_sets
        self.scores = {
            f"map_vote_{k}": voted(neighbours.labels[:, :k], self.label_sets.members)
            for k in sorted(experiment.evaluate.vote_k)
        }
        if probabilities is not None:
            self.scores[CLASSIFIER] = probabilities.astype(np.float64)

    @cached_property
    def truth(self) -> np.ndarray:
        """(query, labels) bool."""
        truth: np.ndarray = self.label_sets.members[self.neighbours.query_labels]
        return truth

    @cached_property
    def scalars(self) -> dict[str, float]:
        """Each mAP with its interval, and the share of queries whose nearest image has the same
        labels."""
        counts = resamples(len(self.truth), self.experiment.seed)
        means: dict[str, float] = {}
        for name, scores in self.scores.items():
            mean, low, high = mean_with_interval(self.truth, scores, counts)
            means |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        right, labels = precision_at_1(self.neighbours), self.neighbours.query_labels
        at_1 = {"same_labels_at_1": micro(right), "precision_at_1_macro": macro(right, labels)}
        return means | at_1

    def summary(self) -> dict[str, Any]:
        present = self.truth.any(axis=0)
        absent = [self.label_sets.names[label] for label in np.flatnonzero(~present)]
        counts = {"queries": len(self.truth), "labels": int(present.sum())}
        return {"retrieval": self.scalars | counts | {"labels_without_queries": absent}}

    def highlights(self) -> Mapping[str, float | str]:
        """What stands for the whole run."""
        return self.scalars

    def tables(self) -> dict[str, ResultTable]:
        """Average precision of each label; and how often the nearest image has the same labels, for
        each combination of them."""
        of_gallery = self.label_sets.members[self.neighbours.gallery_labels]
        columns: dict[str, Sequence[Any]] = {
            "label": self.label_sets.names,
            "gallery images": of_gallery.sum(axis=0).tolist(),
            "test images": self.truth.sum(axis=0).tolist(),
        }
        for name, scores in self.scores.items():
            head = name.replace("map_", "average precision, ").replace("_", " of ")
            columns[head] = average_precision(self.truth, scores)[0].tolist()
        means = {"precision@1": precision_at_1(self.neighbours)}
        sets = columns_of_queried_classes(self.dataset, self.neighbours, means)
        return {
            "labels_metrics": ResultTable.of_columns(columns),
            "test_classes_metrics": ResultTable.of_columns(sets),
        }

    def predictions(self) -> ResultTable:
        """One row for each query, with the labels that have half of the votes of the most
        neighbours, and those that the logits say."""
        unseen = np.zeros(len(self.split.test), bool)
        table = predictions(self.dataset, self.split, unseen, {ALL: self.neighbours}, {})
        columns = list(table.columns)
        rows = [list(row) for row in table.rows]
        votes = f"map_vote_{max(self.experiment.evaluate.vote_k)}"
        for head, name in {"vote_labels": votes, "logits_labels": CLASSIFIER}.items():
            if name not in self.scores:
                continue
            columns.append(f"{ALL}_{head}")
            for row, likely in zip(rows, self.scores[name] >= LIKELY, strict=True):
                row.append(JOINT.join(np.array(self.label_sets.names)[likely]))
        return ResultTable(tuple(columns), tuple(map(tuple, rows)))


def scores_of_combinations(run: MeasuredRun) -> Scores:
    """P@1 of each query, whose class is its combination of labels: the split keeps single labels in
    the test part of each seed, and not rare combinations."""
    scores = scores_of_phase(precision_at_1, ALL, run)
    return replace(scores, are_of_all_seeds=False)


@register
class MultiLabel(Protocol):
    """One model that says which labels an image has."""

    name = "multi_label"
    summary = "images of several labels: their average precision, by a classifier and by votes"
    source = "Everingham et al. 2010, The PASCAL visual object classes challenge (mAP)"
    splits = ("stratified", "given")
    label_sets = True
    takes_unseen = False
    main_phase = ALL
    class_table = "test_classes_metrics"
    explanation = (
        (
            "An image has several labels. mAP is the mean over labels of average precision, by the"
            " share of the nearest images that have a label, and by the classifier's own logits."
        ),
        "Combinations of labels that the test images of some seed lack count as one.",
    )

    def split(self, experiment: Experiment, dataset: Dataset) -> Split:
        """Divided by the rarest label of each image; `given` by the data set's own parts."""
        data = experiment.data
        return split_by_label_sets(
            dataset,
            method=data.split,
            test_fraction=data.test_fraction,
            valid_fraction=data.valid_fraction,
            seed=experiment.seed,
        )

    def phases(self, experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
        return (Phase(ALL),)

    def num_neighbours(self, evaluate: Evaluate, split: Split) -> int:
        return max(evaluate.vote_k)

    def evaluate(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        outputs: dict[str, PhaseOutput],
    ) -> MultiLabelResult:
        output = outputs[ALL]
        probabilities = None if output.probabilities is None else output.probabilities()
        return MultiLabelResult(experiment, dataset, split, output.neighbours, probabilities)

    def metrics(self, experiment: Experiment) -> dict[str, Metric]:
        return by_name(
            Metric(
                name="same_labels_at_1",
                head="same labels",
                description="the share of queries whose nearest image has exactly the same labels",
                average="micro",
                scores=scores_of_combinations,
                column="same labels",
                ranked=True,
            ),
            Metric(
                name="precision_at_1_macro",
                head="P@1 macro",
                description="P@1 (of all labels, mean over their combinations)",
                scores=scores_of_combinations,
            ),
        )

    def columns(self, experiments: Sequence[Experiment]) -> tuple[Column, ...]:
        most = {max(experiment.evaluate.vote_k) for experiment in experiments}
        names = [CLASSIFIER, *(f"map_vote_{k}" for k in sorted(most))]
        means = (Column(head_of(name), name, f"retrieval.{name}") for name in names)
        return *means, *columns_of(self.metrics(experiments[0]))

    def describe_phase(self, phase: str, phases: Sequence[str]) -> str:
        return "trained on all labels"

    def describe_split(self, experiment: Experiment, split: Mapping[str, Any]) -> str:
        return (
            f"{split['train_images']:,} images train, {split['valid_images']:,} validate,"
            f" {split['test_images']:,} are queries ({experiment.data.described_split}, by the"
            " rarest label of each image)"
        )

    def describe_unseen(self, experiment: Experiment) -> str:
        return "none"

    def headline(self, summary: Mapping[str, Any]) -> str:
        means = summary["retrieval"]
        shown = [name for name in means if is_mean(name)]
        return ", ".join(f"{head_of(name)} {number(means[name])}" for name in shown[-2:])

    def outcome(self, summary: Mapping[str, Any]) -> list[OutcomeTable]:
        means = summary["retrieval"]
        rows = []
        for name in filter(is_mean, means):
            low, high = number(means[f"{name}_low"]), number(means[f"{name}_high"])
            rows.append((head_of(name), number(means[name]), f"{low} to {high}"))
        caption = (
            f"{means['queries']:,} queries, mean over {means['labels']} labels; intervals are over"
            f" queries. The nearest image has exactly the same labels for"
            f" {number(means['same_labels_at_1'], '.1%')}."
        )
        if means["labels_without_queries"]:
            caption += f" No query has {', '.join(means['labels_without_queries'])}."
        title = f"Labels: {describe_run(summary)}"
        heads = ("", "mAP", "95% interval")
        return [
            OutcomeTable(
                title=title, heads=heads, rows=tuple(rows), caption=caption, num_text_columns=1
            )
        ]


def is_mean(name: str) -> bool:
    """Whether this is the name of a mAP, and not of a bound or another number."""
    return name.startswith("map_") and not name.endswith(("_low", "_high"))


def head_of(name: str) -> str:
    """`mAP, 10 votes` of `map_vote_10`."""
    if name == CLASSIFIER:
        return "mAP, classifier"
    return f"mAP, {name.removeprefix('map_vote_')} votes"
