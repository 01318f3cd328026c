"""How bad errors are, where the data set sorts its classes into coarse ones: a wrong answer of the
same coarse class (another kind of apple) is milder than one of another (a carton of milk)."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.evaluation.metrics import (
    chance_of_errors_within,
    errors_within,
    micro,
)
from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import Scores
from dml_bench.protocols.metric import MeasuredRun, Metric
from dml_bench.registry import datasets
from dml_bench.system.tables import ResultTable, number

__all__ = [
    "BY_CHANCE",
    "COARSE_OF_OTHERS",
    "ERRORS_WITHIN",
    "coarse_groups",
    "coarse_metrics",
    "coarse_numbers",
    "coarse_of_others",
    "describe_coarse",
]

ERRORS_WITHIN = "errors_within_coarse_class"
BY_CHANCE = f"{ERRORS_WITHIN}_by_chance"
COARSE_OF_OTHERS = "coarse_classes_without_queries"
"""The table of the coarse classes of classes that only the gallery has."""


def coarse_groups(dataset: Dataset) -> np.ndarray | None:
    """(classes) the number of the coarse class of each class; None where there are none."""
    if dataset.coarse_classes is None:
        return None
    groups: np.ndarray = np.unique(dataset.coarse_classes, return_inverse=True)[1]
    return groups


def coarse_of_others(dataset: Dataset, neighbours: Neighbours) -> dict[str, ResultTable]:
    """By name, the table of the coarse classes of classes that have no queries and answer some;
    empty where there are none."""
    others = np.setdiff1d(neighbours.gallery_labels, neighbours.query_labels).tolist()
    if dataset.coarse_classes is None or not others:
        return {}
    rows = tuple((label, dataset.coarse_classes[label]) for label in others)
    return {COARSE_OF_OTHERS: ResultTable(("class id", "coarse class"), rows)}


def coarse_metrics(experiment: Experiment, phase: str) -> Iterator[Metric]:
    """The metric of a phase, where the experiment's data set has coarse classes."""
    # What a run recorded of a plug-in may be older than this fact.
    if datasets.of(experiment.data.dataset).facts.get("has_coarse_classes", False):
        yield Metric(
            name=ERRORS_WITHIN,
            head="errors in coarse class",
            description="share of the errors that stay inside the coarse class",
            average="micro",
            scores=partial(coarse_scores, phase),
            column="errors in coarse class",
        )


def coarse_scores(phase: str, run: MeasuredRun) -> Scores:
    """What each query adds to the share of the errors that stay inside the coarse class. Raises
    ValueError where the run has no coarse classes, or not those of all its answers."""
    neighbours = run.neighbours[phase]
    if run.coarse_groups is None:
        raise ValueError(
            "this run kept no coarse classes, though its data set says that it has some: return"
            " them from its reader, then run again"
        )
    if (run.coarse_groups[neighbours.labels[:, 0]] < 0).any():
        raise ValueError(
            "this run of an earlier version kept no coarse classes of classes that have no queries"
            " and answer some: run it again"
        )
    return Scores(errors_within(neighbours, run.coarse_groups), neighbours.query_labels)


def coarse_numbers(neighbours: Neighbours, groups: np.ndarray | None) -> dict[str, float]:
    """For the summary of a phase: the share of the errors that stay inside the coarse class, and
    what it would be by chance. Empty where there are no coarse classes."""
    if groups is None:
        return {}
    return {
        ERRORS_WITHIN: micro(errors_within(neighbours, groups)),
        BY_CHANCE: chance_of_errors_within(neighbours, groups),
    }


def describe_coarse(phase: str, numbers: Mapping[str, Any]) -> str:
    """A sentence for the terminal; empty where there are no coarse classes."""
    if ERRORS_WITHIN not in numbers:
        return ""
    share, chance = (number(100 * numbers[name], ".0f") for name in (ERRORS_WITHIN, BY_CHANCE))
    return (
        f" Of the errors of {phase}, {share}% stay inside the coarse class ({chance}% by chance)."
    )
