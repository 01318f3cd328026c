"""The experiments side by side: which columns a protocol has, and the numbers in them over all
seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dml_bench.evaluation import collapse
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.metrics import measure
from dml_bench.runs.run import Run
from dml_bench.suite.plan import PlannedRow

__all__ = ["COST", "Column", "Group", "TableRow", "columns_of", "grouped", "value_at"]


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a run."""

    head: str
    key: str
    """The name in CSV files, and of the metric where an interval is wanted."""
    place: str
    """Where the summary has it."""
    interval: bool = False
    signed: bool = False


DROP = (
    Column("P@1 all", "precision_at_1_macro", "phases.all.precision_at_1_macro", interval=True),
    Column("P@1 limited", "precision_at_1_macro_limited", "phases.limited.precision_at_1_macro"),
    Column(
        "drop unseen",
        "precision_drop_unseen_classes",
        "precision_drop_unseen_classes",
        interval=True,
        signed=True,
    ),
    Column("drop seen", "precision_drop_seen_classes", "precision_drop_seen_classes", signed=True),
    Column("drop all", "precision_drop_all_classes", "precision_drop_all_classes", signed=True),
    Column("logits top-1", "logits_accuracy_macro", "phases.all.logits_accuracy_macro_known"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took; `of` reads it from the parts of the summary's cost, one per phase."""

    head: str
    key: str
    of: Callable[[list[dict[str, Any]]], float | None]
    worst: bool = False
    """The most of all seeds, instead of the mean."""


def images_per_second(parts: list[dict[str, Any]]) -> float:
    seconds = sum(part["train_seconds"] for part in parts)
    return sum(part["train_images_per_second"] * part["train_seconds"] for part in parts) / seconds


def most(key: str) -> Callable[[list[dict[str, Any]]], float | None]:
    return lambda parts: max((part[key] for part in parts if key in part), default=None)


COST = (
    Cost(
        "training",
        "train_seconds",
        lambda parts: sum(part["train_seconds"] + part.get("start_seconds", 0.0) for part in parts),
    ),
    Cost("images/s", "train_images_per_second", images_per_second),
    Cost("memory", "peak_memory_bytes", most("peak_memory_bytes"), worst=True),
    Cost("GPU memory", "peak_gpu_memory_bytes", most("peak_gpu_memory_bytes"), worst=True),
)


def columns_of(runs: Sequence[Run]) -> tuple[Column, ...]:
    """What is shown of runs that share a protocol."""
    if runs[0].experiment.protocol != "class_disjoint":
        return DROP
    recalls = sorted({k for run in runs for k in run.experiment.evaluate.recall_k})
    shown = [(f"R@{k}", f"recall_at_{k}", k == recalls[0]) for k in recalls]
    shown += [
        ("R-precision", "r_precision", False),
        ("MAP@R", "map_at_r", True),
        ("P@1 macro", "precision_at_1_macro", False),
    ]
    return tuple(Column(head, key, f"retrieval.{key}", interval) for head, key, interval in shown)


def value_at(summary: dict[str, Any], place: str) -> float | None:
    """The number at `a.b.c`; None where there is none. That of phase `limited` is the mean over all
    hold-outs."""
    if place.startswith("phases.limited."):
        phases = [name for name in summary["phases"] if name.partition("-")[0] == "limited"]
        each = [
            value_at(summary["phases"][name], place.removeprefix("phases.limited."))
            for name in phases
        ]
        known = [number for number in each if number is not None]
        return sum(known) / len(known) if known and len(known) == len(phases) else None
    value: Any = summary
    for part in place.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return None if value is None or math.isnan(value) else float(value)


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table with its numbers, or why there are none."""

    name: str
    runs: tuple[Run, ...]
    wanted: int
    """Number of seeds."""
    failures: tuple[str, ...]
    """Seeds without a result, and why."""
    doubts: tuple[str, ...]
    """Seeds whose numbers say nothing, and why."""
    values: tuple[Interval | float | None, ...]
    """One per column."""
    cost: tuple[float | None, ...]
    """One per entry of COST."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that a reader of the numbers has to know."""
        return self.failures + self.doubts


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that may be compared: one protocol, one data set, one profile."""

    protocol: str
    dataset: str
    profile: str
    columns: tuple[Column, ...]
    lines: tuple[TableRow, ...]

    @property
    def title(self) -> str:
        profile = f", profile {self.profile}" if self.profile else ""
        return f"{self.protocol.replace('_', ' ')} on {self.dataset}{profile}"

    @property
    def slug(self) -> str:
        return "-".join(part for part in (self.protocol, self.dataset, self.profile) if part)

    @property
    def runs(self) -> list[Run]:
        return [run for line in self.lines for run in line.runs]


def grouped(
    rows: Sequence[PlannedRow],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
) -> list[Group]:
    """The table, or one for each protocol, data set and profile that the rows mix.

    Args:
        runs: finished runs by experiment and seed.
        failures: reasons of those that failed.
    """
    members: dict[tuple[str, str, str], list[PlannedRow]] = {}
    for row in rows:
        first = row.seeds[0]
        found = [runs[e.name, e.seed] for e in row.seeds if (e.name, e.seed) in runs]
        dataset = found[0].summary["dataset"]["name"] if found else first.data.dataset.name
        members.setdefault((first.protocol, dataset, first.profile), []).append(row)
    return [_group(key, chosen, runs, failures) for key, chosen in members.items()]


def _group(
    key: tuple[str, str, str],
    rows: list[PlannedRow],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
) -> Group:
    everything = [
        runs[e.name, e.seed] for row in rows for e in row.seeds if (e.name, e.seed) in runs
    ]
    columns = columns_of(everything) if everything else ()
    return Group(*key, columns, tuple(_line(row, columns, runs, failures) for row in rows))


def _line(
    row: PlannedRow,
    columns: tuple[Column, ...],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
) -> TableRow:
    found = tuple(runs[e.name, e.seed] for e in row.seeds if (e.name, e.seed) in runs)
    failed = tuple(
        f"seed {e.seed}: {failures[e.name, e.seed]}"
        for e in row.seeds
        if (e.name, e.seed) in failures
    )
    values = tuple(_value(column, found) for column in columns)
    doubted = tuple(
        f"seed {run.seed}: {doubt}"
        for run in found
        for doubt in collapse.describe_doubts(run.summary)
    )
    return TableRow(
        row.name,
        found,
        len(row.seeds),
        failed,
        doubted,
        values,
        tuple(_cost(cost, found) for cost in COST),
    )


def _value(column: Column, runs: Sequence[Run]) -> Interval | float | None:
    if not runs:
        return None
    if column.interval:
        return measure(runs, column.key)
    values = [value_at(run.summary, column.place) for run in runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _cost(cost: Cost, runs: Sequence[Run]) -> float | None:
    parts = [
        [part for part in run.summary["cost"].values() if isinstance(part, dict)] for run in runs
    ]
    values = [value for each in parts if (value := cost.of(each)) is not None]
    if not values:
        return None
    return max(values) if cost.worst else sum(values) / len(values)
