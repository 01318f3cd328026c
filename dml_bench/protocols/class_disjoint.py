"""The protocol `class_disjoint`: retrieval among classes that were never trained on, as papers on
metric learning do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from dml_bench.config import Evaluate, Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, disjoint_phases, make_disjoint_split
from dml_bench.evaluation.clustering import normalized_mutual_information
from dml_bench.evaluation.metrics import (
    macro,
    map_at_r,
    micro,
    precision_at_1,
    r_precision,
    recall_at,
)
from dml_bench.evaluation.search import Neighbours
from dml_bench.protocols.base import (
    PhaseOutput,
    Protocol,
    Result,
    columns_of_queried_classes,
    describe_run,
    predictions,
    register,
)
from dml_bench.protocols.coarse_metrics import (
    coarse_groups,
    coarse_metrics,
    coarse_numbers,
    coarse_of_others,
    describe_coarse,
)
from dml_bench.protocols.metric import (
    Column,
    Metric,
    by_name,
    columns_of,
    scores_of_phase,
)
from dml_bench.system.tables import OutcomeTable, ResultTable, number

__all__ = ["ClassDisjoint", "RetrievalResult"]

DISJOINT = "disjoint"
"""The one phase."""


class RetrievalResult(Result):
    """R@k, R-precision and MAP@R over the test images. All are means over queries, as published;
    P@1 also over classes; NMI where the experiment wants it."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        neighbours: Neighbours,
        query: np.ndarray | None,
    ):
        """`query` are the (query, dim) unit vectors of the queries, where NMI is wanted."""
        self.experiment = experiment
        self.dataset = dataset
        self.split = split
        self.neighbours = neighbours
        self.query = query

    @cached_property
    def nmi(self) -> dict[str, float]:
        """Empty where it is not wanted."""
        if self.query is None:
            return {}
        return {
            "nmi": normalized_mutual_information(
                self.query, self.neighbours.query_labels, self.experiment.seed
            )
        }

    @cached_property
    def coarse_groups(self) -> np.ndarray | None:
        """(classes) the number of the coarse class of each class; None where there are none."""
        return coarse_groups(self.dataset)

    @cached_property
    def per_query(self) -> dict[str, np.ndarray]:
        recalls = {
            f"recall_at_{k}": recall_of_most(k, self.neighbours)
            for k in self.experiment.evaluate.recall_k
        }
        return recalls | {
            "r_precision": r_precision(self.neighbours),
            "map_at_r": map_at_r(self.neighbours),
        }

    def summary(self) -> dict[str, Any]:
        undefined = int(np.isnan(self.per_query["map_at_r"]).sum())
        return {
            "retrieval": self.scalars()
            | {
                "queries": len(self.neighbours.query_labels),
                "queries_without_relevant_images": undefined,
            }
        }

    def scalars(self) -> dict[str, float]:
        at_1 = {
            "precision_at_1_macro": macro(
                precision_at_1(self.neighbours), self.neighbours.query_labels
            )
        }
        means = {name: micro(values) for name, values in self.per_query.items()}
        return means | at_1 | self.nmi | coarse_numbers(self.neighbours, self.coarse_groups)

    def highlights(self) -> Mapping[str, float | str]:
        """What stands for the whole run."""
        return self.scalars()

    def tables(self) -> dict[str, ResultTable]:
        """P@1 and MAP@R of each class of the queries, and the coarse classes of others."""
        means = {
            "precision@1": precision_at_1(self.neighbours),
            "MAP@R": self.per_query["map_at_r"],
        }
        columns = columns_of_queried_classes(self.dataset, self.neighbours, means)
        of_queries = {"test_classes_metrics": ResultTable.of_columns(columns)}
        return of_queries | coarse_of_others(self.dataset, self.neighbours)

    def predictions(self) -> ResultTable:
        unseen = np.ones(len(self.split.test), bool)
        return predictions(self.dataset, self.split, unseen, {DISJOINT: self.neighbours}, {})


@register
class ClassDisjoint(Protocol):
    """One model, asked only about classes that it never trained on."""

    name = "class_disjoint"
    summary = (
        "retrieval among classes that were never trained on, each query left out of its search"
    )
    source = "Song et al. 2016, Deep metric learning via lifted structured feature embedding"
    splits = ("half", "given")
    clusters = True
    validates_by_class = True
    takes_unseen = False
    measures_ranking = True
    gallery_is_trained_on = False
    main_phase = DISJOINT
    class_table = "test_classes_metrics"
    explanation = (
        (
            "Retrieval among classes that were never trained on. Each query is left out of its own"
            " search. Means over queries, P@1 macro over classes."
        ),
    )

    def split(self, experiment: Experiment, dataset: Dataset) -> Split:
        data = experiment.data
        split = make_disjoint_split(dataset, method=data.split, valid_fraction=data.valid_fraction)
        both = np.intersect1d(split.test, split.gallery)
        if len(both) and not split.leaves_one_out:
            raise ValueError(
                f"{len(both):,} images of {dataset.name} are of the part test, others of query or"
                f" gallery, and the first would find themselves (e.g. {dataset.paths[both[0]]}):"
                " name all test, or each query or gallery"
            )
        labels = dataset.labels[split.test]
        others = np.bincount(dataset.labels[split.gallery], minlength=dataset.num_classes)
        alone = int((others[labels] == split.leaves_one_out).sum())
        if alone == len(labels):
            raise ValueError(
                f"none of the {alone:,} queries of {dataset.name} has another image of its class to"
                " be found by: add images to the test classes"
            )
        return replace(split, notes=(*split.notes, *describe_alone(alone, len(labels))))

    def phases(self, experiment: Experiment, dataset: Dataset, split: Split) -> tuple[Phase, ...]:
        return disjoint_phases(dataset, split)

    def num_neighbours(self, evaluate: Evaluate, split: Split) -> int:
        votes = () if split.leaves_one_out else evaluate.vote_k
        return max((*votes, *evaluate.recall_k))

    def evaluate(
        self,
        experiment: Experiment,
        dataset: Dataset,
        split: Split,
        phases: tuple[Phase, ...],
        outputs: dict[str, PhaseOutput],
    ) -> RetrievalResult:
        output = outputs[DISJOINT]
        query = output.query_embeddings() if experiment.evaluate.nmi else None
        return RetrievalResult(experiment, dataset, split, output.neighbours, query)

    def metrics(self, experiment: Experiment) -> dict[str, Metric]:
        coarse = coarse_metrics(experiment, DISJOINT)
        return by_name(*retrieval_metrics(experiment.evaluate.recall_k), *coarse)

    def columns(self, experiments: Sequence[Experiment]) -> tuple[Column, ...]:
        recall_k = {k for experiment in experiments for k in experiment.evaluate.recall_k}
        named = by_name(*retrieval_metrics(sorted(recall_k)))
        for experiment in experiments:
            named |= by_name(*coarse_metrics(experiment, DISJOINT))
        return columns_of(named)

    def describe_phase(self, phase: str, phases: Sequence[str]) -> str:
        return "trained on other classes"

    def describe_split(self, experiment: Experiment, split: Mapping[str, Any]) -> str:
        return (
            f"{split['train_images']:,} images train, {split['valid_images']:,} of other classes"
            f" validate, {split['test_images']:,} of yet others are queries"
            f" ({experiment.data.described_split})"
        )

    def describe_unseen(self, experiment: Experiment) -> str:
        return "never trained on"

    def headline(self, summary: Mapping[str, Any]) -> str:
        retrieval = summary["retrieval"]
        precision, average = retrieval["precision_at_1_macro"], retrieval["map_at_r"]
        return f"P@1 {number(precision)}, MAP@R {number(average)}"

    def outcome(self, summary: Mapping[str, Any]) -> list[OutcomeTable]:
        retrieval = summary["retrieval"]
        recall_k = [
            int(name.removeprefix("recall_at_"))
            for name in retrieval
            if name.startswith("recall_at_")
        ]
        shown = {metric.head: metric.name for metric in retrieval_metrics(recall_k)}
        if "nmi" in retrieval:
            shown["NMI"] = "nmi"
        title = f"Retrieval among unseen classes: {describe_run(summary)}"
        caption = (
            f"{retrieval['queries']:,} queries of {len(summary['unseen_classes'])} classes that"
            " were never trained on; means over queries."
        )
        alone = retrieval.get("queries_without_relevant_images", 0)
        for sentence in describe_alone(alone, retrieval["queries"]):
            caption += f" {sentence}."
        caption += describe_coarse("the model", retrieval)
        row = tuple(number(retrieval[name]) for name in shown.values())
        return [OutcomeTable(title=title, heads=tuple(shown), rows=(row,), caption=caption)]


def describe_alone(alone: int, queries: int) -> list[str]:
    """What becomes of queries of whose class the gallery has no other image; empty where there are
    none."""
    if not alone:
        return []
    return [
        f"{alone:,} of {queries:,} queries have no other image of their class in the gallery: R@k"
        " and P@1 count them as wrong, and R-precision and MAP@R leave them out"
    ]


def retrieval_metrics(recall_k: Iterable[int]) -> Iterator[Metric]:
    """Only the R@k of the smallest k and MAP@R have intervals in tables."""
    recall_k = list(recall_k)
    for k in recall_k:
        name = f"recall_at_{k}"
        yield Metric(
            name=name,
            head=f"R@{k}",
            description=f"R@{k}",
            average="micro",
            scores=partial(scores_of_phase, partial(recall_of_most, k), DISJOINT),
            column=f"R@{k}",
            place="" if k == min(recall_k) else f"retrieval.{name}",
            ranked=k == min(recall_k),
        )
    yield Metric(
        name="r_precision",
        head="R-precision",
        description="R-precision",
        average="micro",
        scores=partial(scores_of_phase, r_precision, DISJOINT),
        column="R-precision",
        place="retrieval.r_precision",
    )
    yield Metric(
        name="map_at_r",
        head="MAP@R",
        description="MAP@R",
        average="micro",
        scores=partial(scores_of_phase, map_at_r, DISJOINT),
        column="MAP@R",
        ranked=True,
    )
    yield Metric(
        name="precision_at_1_macro",
        head="P@1 macro",
        description="P@1 (mean over classes)",
        scores=partial(scores_of_phase, precision_at_1, DISJOINT),
        column="P@1 macro",
        place="retrieval.precision_at_1_macro",
    )


def recall_of_most(k: int, neighbours: Neighbours) -> np.ndarray:
    """(query) R@k; of a gallery of fewer images, of all of these."""
    kept = neighbours.k if neighbours.first_relevant is None else k
    return recall_at(neighbours, min(k, kept))
