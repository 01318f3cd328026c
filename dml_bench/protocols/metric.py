"""A metric by its name: all that tables, comparisons, claims and reports have to know of it, in one
declaration."""

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.evaluation.search import Neighbours
from dml_bench.evaluation.statistics import PROPORTION, Average, Scores, interval
from dml_bench.protocols.holdouts import Holdouts

__all__ = [
    "Column",
    "MeasuredRun",
    "Metric",
    "by_name",
    "columns_of",
    "measured",
    "scores_of_phase",
    "value_at",
]


class LogitsOutput(typing.Protocol):
    @property
    def predicted(self) -> np.ndarray:
        """(query) the likeliest class id."""


class MeasuredRun(typing.Protocol):
    """What a metric reads of a finished run."""

    @property
    def neighbours(self) -> Mapping[str, Neighbours]:
        """By phase, the images that each query is closest to."""

    @property
    def held_out(self) -> Mapping[str, np.ndarray]:
        """By phase, the ids of the classes that it never saw."""

    @property
    def holdouts(self) -> Holdouts:
        """The same beside the queries."""

    @property
    def coarse_groups(self) -> np.ndarray | None:
        """(classes) the number of the coarse class of each class; None where there are none."""

    def logits(self, phase: str) -> LogitsOutput:
        """What the loss's own logits say of the queries, where the loss has logits."""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a run in the tables."""

    head: str
    key: str
    """The name in CSV files, and of the metric where an interval is shown."""
    place: str = ""
    """Where the summary has the number. Without a place it is measured, with an interval."""
    signed: bool = False

    @property
    def interval(self) -> bool:
        """Whether it has an interval: what is read from the summary alone has none."""
        return not self.place


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A number that is measured of a finished run, one value for each query."""

    name: str
    """As claims, CSV files and W&B have it."""
    head: str
    """A short name for tables."""
    description: str
    """What it is, as the subject of a sentence."""
    scores: Callable[[MeasuredRun], Scores]
    average: Average = "macro"
    within: tuple[float, float] = PROPORTION
    """The range of the mean."""
    lower_is_better: bool = False
    column: str = ""
    """The head of its column in the tables of a suite; a metric without a head has no column."""
    place: str = ""
    """Where the summary has the mean, for a column that shows no interval."""
    ranked: bool = False
    """Whether a scoreboard ranks by it."""
    compared: bool = True
    """Whether `dml-bench compare` shows it."""
    depends_on_holdouts: bool = False
    """Whether it can only be compared where both runs held out the same classes."""
    needs_training: bool = False
    """Whether it compares phases, which differ only where features are trained."""

    @property
    def signed(self) -> bool:
        """Whether it is shown with its sign, as a difference is."""
        return self.within[0] < 0

    @property
    def of_differences(self) -> tuple[float, float]:
        """The range of the difference of two means."""
        width = self.within[1] - self.within[0]
        return -width, width


def by_name(*metrics: Metric) -> dict[str, Metric]:
    """In the order in which they are shown."""
    return {metric.name: metric for metric in metrics}


def columns_of(metrics: Mapping[str, Metric]) -> tuple[Column, ...]:
    """The columns of those that have one."""
    return tuple(
        Column(metric.column, metric.name, metric.place, metric.signed)
        for metric in metrics.values()
        if metric.column
    )


def scores_of_phase(
    values: Callable[[Neighbours], np.ndarray], phase: str, run: MeasuredRun
) -> Scores:
    """`values` are one for each query, as the functions of `evaluation.metrics` return them."""
    neighbours = run.neighbours[phase]
    return Scores(values(neighbours), neighbours.query_labels)


def measured(metric: Metric, run: MeasuredRun) -> dict[str, float]:
    """A metric of one run under its name, and the bounds of its 95% interval under `NAME_low` and
    `NAME_high` where there are any. It says nothing about other seeds."""
    value = interval([metric.scores(run)], average=metric.average, within=metric.within)
    numbers = {metric.name: value.estimate}
    if not math.isnan(value.low):
        numbers |= {f"{metric.name}_low": value.low, f"{metric.name}_high": value.high}
    return numbers


def value_at(summary: Mapping[str, Any], place: str) -> float | None:
    """The number at `a.b.c` of a summary; None where there is none. A part that ends in `*` means
    all keys that begin so: `phases.limited*.x` is the mean over the phases of all hold-outs."""
    values: list[Any] = [summary]
    for part in place.split("."):
        values = [inner for value in values for inner in values_of(value, part)]
    numbers = [float(value) for value in values if value is not None]
    if not numbers or len(numbers) < len(values) or math.isnan(sum(numbers)):
        return None
    return sum(numbers) / len(numbers)


def values_of(value: Any, key: str) -> list[Any]:
    """What a mapping holds under a key, or under all that begin like `key*`; None where it holds
    nothing there."""
    if not isinstance(value, Mapping):
        return [None]
    if not key.endswith("*"):
        return [value.get(key)]
    return [value[name] for name in value if name.startswith(key[:-1])] or [None]
