"""The table of experiments, for reports and suites alike."""

import math
from collections.abc import Sequence
from typing import Any

from dml_bench.analysis.table import Group, TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols.metric import Column as TableColumn
from dml_bench.report.document import Cell, Column, Data, Items, Row, Table
from dml_bench.report.format import cost_cell, interval_cell, number
from dml_bench.runs.metrics import COST
from dml_bench.runs.run import Run

__all__ = [
    "explanations",
    "results_data",
    "results_table",
]

INTERVALS = (
    "Numbers are means over seeds. Brackets hold the 95% interval over classes, their queries and"
    " seeds. The interval of a single seed does not cover other seeds."
)
COSTS = (
    "Training: the time of all phases of a run and of their pretraining, without preparation and"
    " evaluation. Memory: the peak of any run's process."
)


def explanations(group: Group) -> Items:
    """What the columns of the table of experiments mean."""
    return Items((*group.explanation, INTERVALS, COSTS), "soft")


# The experiments


def results_table(group: Group, title: str = "The experiments") -> Table:
    """One row for each experiment: seeds, the protocol's numbers, and what a run cost."""
    costs = [place for place in range(len(COST)) if is_measured(group, place)]
    columns = [Column("experiment", numeric=False)]
    columns += [Column(key) for key in group.settings]
    columns.append(Column("seeds"))
    columns += [Column(column.head) for column in group.columns]
    columns += [Column(COST[place].head) for place in costs]
    rows = [results_row(group, line, costs) for line in group.lines]
    return Table(title, tuple(columns), tuple(rows))


def is_measured(group: Group, place: int) -> bool:
    """Whether some experiment has this entry of COST."""
    return any(line.cost[place] is not None for line in group.lines)


def results_row(group: Group, line: TableRow, costs: Sequence[int]) -> Row:
    cells = [Cell(line.name, line.name)]
    cells += [setting_cell(line.settings.get(key)) for key in group.settings]
    cells.append(Cell(count_seeds(line), float(len(line.runs))))
    for column, value in zip(group.columns, line.values, strict=True):
        cells.append(value_cell(value, is_signed=column.signed))
    for place in costs:
        cost = line.cost[place]
        cells.append(Cell(cost_cell(COST[place].key, cost), cost))
    return Row(tuple(cells), line.remarks)


def setting_cell(value: Any) -> Cell:
    """The value of a setting in which a variant differs."""
    if value is None:
        return Cell("-")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(str(value), float(value) if is_number else str(value))


def value_cell(value: Interval | float | None, *, is_signed: bool) -> Cell:
    if value is None:
        return Cell("-")
    if isinstance(value, Interval):
        return Cell(interval_cell(value, is_signed=is_signed), sortable(value.estimate))
    return Cell(number(value, is_signed), sortable(value))


def sortable(value: float) -> float | None:
    return None if math.isnan(value) else value


def count_seeds(line: TableRow) -> str:
    """`3`, or `2 of 3` where one has no result."""
    finished = len(line.runs)
    return str(finished) if finished == line.wanted else f"{finished} of {line.wanted}"


def results_data(group: Group, name: str = "table") -> Data:
    """The same as numbers, with the bounds of the intervals and the remarks of the protocol."""
    heads = ["experiment", *group.settings, "seeds"]
    for column in group.columns:
        heads += heads_of(column)
    heads += [*remarks_of(group.runs), *(cost.key for cost in COST)]
    heads += ["failed", "doubts"]
    return Data(name, heads, [results_numbers(group, line) for line in group.lines])


def remarks_of(runs: Sequence[Run]) -> dict[str, str]:
    """What a reader of the numbers has to know, by name; nothing without runs."""
    return runs[0].protocol.remarks(runs[0].summary) if runs else {}


def heads_of(column: TableColumn) -> list[str]:
    if not column.interval:
        return [column.key]
    return [column.key, f"{column.key}_low", f"{column.key}_high"]


def results_numbers(group: Group, line: TableRow) -> list[Any]:
    row: list[Any] = [line.name]
    row += [blank(line.settings.get(key)) for key in group.settings]
    row.append(len(line.runs))
    for column, value in zip(group.columns, line.values, strict=True):
        row += numbers_of(value, has_interval=bool(column.interval))
    of_line = remarks_of(line.runs)
    row += [of_line.get(name, "") for name in remarks_of(group.runs)]
    row += [blank(cost) for cost in line.cost]
    return [*row, "; ".join(line.failures), "; ".join(line.doubts)]


def numbers_of(value: Interval | float | None, *, has_interval: bool) -> list[Any]:
    """The value, and its bounds where the column has them."""
    if isinstance(value, Interval):
        bounds = ["" if math.isnan(bound) else bound for bound in (value.low, value.high)]
        return [value.estimate, *bounds]
    return [blank(value), "", ""] if has_interval else [blank(value)]


def blank(value: Any) -> Any:
    return "" if value is None else value
