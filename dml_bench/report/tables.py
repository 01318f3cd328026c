"""The table of experiments, for reports and suites alike."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import QUANTITIES, Study
from dml_bench.analysis.table import Group, TableRow
from dml_bench.config import Experiment, as_table
from dml_bench.evaluation.few_shot import FewShotCurve, RefitCurve
from dml_bench.evaluation.statistics import Interval, share_of_width_kept
from dml_bench.protocols.metric import Column as TableColumn
from dml_bench.report.document import Block, Cell, Column, Data, Items, Row, Table, Text
from dml_bench.report.format import cost_cell, cost_points, draws_cell, interval_cell, number
from dml_bench.runs.folder import differing
from dml_bench.runs.metrics import COST, CPU_TIME
from dml_bench.runs.run import Run
from dml_bench.system.counted import counted
from dml_bench.system.provenance import says_generation

__all__ = [
    "INTERVALS",
    "OWN_RULE",
    "enrolment_table",
    "explanations",
    "main_table",
    "means_blocks",
    "name_cell",
    "names_table",
    "reference",
    "results_data",
    "results_table",
    "rival_table",
]

INTERVALS = (
    "Brackets hold 95% intervals over classes, their queries and seeds. Those of a single seed say"
    " nothing about other seeds."
)
NUMBERS = "Numbers are percent and percentage points, means over classes and seeds."
COSTS = (
    "Clock time: of training all phases of a run and what they start from, without preparation and"
    " evaluation. Other work on a machine lengthens it and lowers images/s: they compare no rows.",
    "CPU time: the processor's time for the same, by which rows are compared. It is of the runs on"
    " one processor that counted it",
    "Memory: the peak of any run's process.",
)

OWN_RULE = (
    "how much a pair of mixed images counts, by the anchor's share or by all shares"
    " (mixing.pair_weight), is this project's own rule, which no paper has tested."
)


def explanations(group: Group) -> Items:
    """What the columns of the table of experiments mean, and which numbers rest on a rule of this
    project alone."""
    clock, cpu, memory = COSTS
    cpu += f", {group.processor}." if group.processor else "; here none did."
    if group.processor and not says_generation(group.processor):
        cpu += " Several generations have this name, and one may take half the time of another."
    lines = [*group.explanation, NUMBERS, clock, cpu, memory]
    mixing = [
        line.short for line in group.lines if line.runs and line.runs[0].experiment.mixes_pairs
    ]
    if mixing:
        lines.append(f"{', '.join(mixing)}: {OWN_RULE}")
    return Items(tuple(lines), "soft")


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


LESS = (
    "precision_drop_all_classes",
    "precision_drop_seen_to_unseen_classes",
    "precision_drop_seen_to_seen_classes",
    "precision_at_1_macro_limited",
)
"""Columns that a first look doesn't need."""


def main_table(group: Group) -> Table:
    """The same without the columns that a first look doesn't need. Of the costs it has the one by
    which rows can be compared."""
    table = results_table(group)
    less = {column.head for column in group.columns if column.key in LESS}
    less |= {cost.head for place, cost in enumerate(COST) if place != CPU_TIME}
    kept = [place for place, column in enumerate(table.columns) if column.head not in less]
    rows = tuple(row_of_places(row, kept) for row in table.rows)
    return Table(table.title, tuple(table.columns[place] for place in kept), rows)


def row_of_places(row: Row, kept: Sequence[int]) -> Row:
    return Row(tuple(row.cells[place] for place in kept), row.remarks)


def is_measured(group: Group, place: int) -> bool:
    """Whether some experiment has this entry of COST."""
    return any(line.cost[place] is not None for line in group.lines)


def results_row(group: Group, line: TableRow, costs: Sequence[int]) -> Row:
    cells = [name_cell(line)]
    cells += [setting_cell(line.setting(key)) for key in group.settings]
    cells.append(Cell(count_seeds(line), float(len(line.runs))))
    for column, value in zip(group.columns, line.values, strict=True):
        if value is None and line.no_drop_because:
            cells.append(Cell(line.no_drop_because))
        else:
            cells.append(value_cell(value, is_signed=column.signed))
    for place in costs:
        cost = line.cost[place]
        cells.append(Cell(cost_cell(COST[place].key, cost), cost))
    return Row(tuple(cells), line.remarks)


def name_cell(line: TableRow) -> Cell:
    """The short name; the full one on hover."""
    return Cell(line.short, line.short, hover=line.name)


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
    """What a reader of the numbers has to know, by name, of any of the runs."""
    remarks: dict[str, str] = {}
    for run in runs:
        remarks |= run.protocol.remarks(run.summary)
    return remarks


def heads_of(column: TableColumn) -> list[str]:
    if not column.interval:
        return [column.key]
    return [column.key, f"{column.key}_low", f"{column.key}_high"]


def results_numbers(group: Group, line: TableRow) -> list[Any]:
    row: list[Any] = [line.name]
    row += [blank(line.setting(key)) for key in group.settings]
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


def means_blocks(study: Study) -> Iterator[Block]:
    """The mean of all methods, where there are several, on what being unseen costs."""
    mean = study.pooled("cost") if len(study.methods) > 1 and study.has_drop else None
    if mean is None:
        return
    sentence = f"Mean of the {len(study.methods)} methods: not training on a class costs"
    yield Text(f"{sentence} {cost_points(mean)}.{what_more_seeds_bring(study)}", "soft")
    metric = QUANTITIES["cost"]
    row = [metric, len(study.methods), *numbers_of(mean, has_interval=True)]
    yield Data("means", ["metric", "methods", "mean", "low", "high"], [row])


def what_more_seeds_bring(study: Study) -> str:
    """A sentence for who would run more seeds; none where no method has several."""
    costs = [study.measure(line, "cost") for line in study.methods]
    kept = np.array([share_of_width_kept(cost) for cost in costs if cost is not None])
    if np.isnan(kept).all():
        return ""
    return (
        f" With any number of seeds a method's interval would keep {np.nanmedian(kept):.0%} of its"
        " width (median): by so much classes and images differ."
    )


# Beside the classifier


def rival_table(study: Study) -> Table | None:
    """Each method minus the classifier, on the same queries; None without one of the two."""
    rival = study.rival
    if rival is None or not study.methods:
        return None
    columns = [Column("experiment", numeric=False)]
    quantities = ["known", "unseen_limited"] if study.has_drop else ["known"]
    columns.append(Column("known classes, minus its logits"))
    if study.has_drop:
        columns.append(Column("unseen classes, minus its features"))
    columns.append(Column("times its CPU time"))
    rows = []
    for line in study.methods:
        values = [study.beside_rival(line, quantity) for quantity in quantities]
        cells = [value_cell(value, is_signed=True) for value in values]
        rows.append(Row((name_cell(line), *cells, times_cell(line, rival))))
    own = [name_cell(rival), value_cell(study.measure(rival, "logits"), is_signed=False)]
    if study.has_drop:
        own.append(value_cell(study.measure(rival, "unseen_limited"), is_signed=False))
    rows.append(Row((*own, times_cell(rival, rival))))
    return Table("Each method beside the classifier", tuple(columns), tuple(rows))


def times_cell(line: TableRow, rival: TableRow) -> Cell:
    times = line.times_the_training_of(rival)
    return Cell("not comparable") if times is None else Cell(f"{times:.1f}", times)


# Enrolment


def enrolment_table(diagnostics: Mapping[str, Diagnostics]) -> Table | None:
    """P@1 by the number of images that are enrolled of each unseen class; None without any."""
    shown = [measured for measured in diagnostics.values() if measured.enrolment]
    if not shown:
        return None
    columns = [Column("images enrolled")]
    for measured in shown:
        columns += [
            Column(f"{measured.line.short}: unseen classes"),
            Column(f"{measured.line.short}: old classes"),
        ]
        if "refit" in measured.enrolment:
            columns += [
                Column(f"{measured.line.short}, refitted: unseen classes"),
                Column(f"{measured.line.short}, refitted: old classes"),
                Column(f"{measured.line.short}, refitted: seconds of CPU time"),
            ]
    rows = []
    for k in sorted({k for measured in shown for k in measured.enrolment["images"].ks}):
        cells = [Cell(str(k), float(k))]
        for measured in shown:
            cells += enrolment_cells(measured.enrolment["images"], k)
            if "refit" in measured.enrolment:
                cells += enrolment_cells(measured.enrolment["refit"], k)
        rows.append(Row(tuple(cells)))
    return Table("P@1 by images enrolled", tuple(columns), tuple(rows))


def enrolment_cells(curve: FewShotCurve, k: int) -> list[Cell]:
    """Of unseen and of old classes, with k images; of a refit also its CPU time. Galleries of other
    sizes have other points: a curve ends where all images are enrolled."""
    is_refit = isinstance(curve, RefitCurve)
    if k not in curve.ks:
        return [Cell("-")] * (3 if is_refit else 2)
    place = curve.ks.index(k)
    cells = []
    for group in ("unseen", "seen"):
        mean, low, high = (float(part[place]) for part in curve.band(group))
        cells.append(Cell(draws_cell(mean, low, high), mean))
    if isinstance(curve, RefitCurve):
        seconds = float(curve.seconds[place].mean())
        cells.append(Cell(f"{seconds:.1f}", seconds))
    return cells


# Full names and settings


def names_table(study: Study) -> Table:
    """The full name behind each short one, and how its settings differ from the reference's."""
    first = as_table(reference(study).runs[0].experiment)
    columns = tuple(Column(head, numeric=False) for head in ("experiment", "full name", "settings"))
    rows = []
    for line in study.finished:
        seeds = [settings_in_words(run.experiment) for run in line.runs]
        settings = [(key, values_in(seeds, key)) for key in differing(first, seeds[0])]
        shown = [f"{key}={values}" for key, values in settings if values is not None]
        shown = [setting for setting in shown if not setting.startswith(UNSHOWN)]
        text = ", ".join(shown) or "those of the list below"
        rows.append(Row((name_cell(line), Cell(line.name, line.name), Cell(text, text))))
    return Table("Full names and settings", columns, tuple(rows))


def settings_in_words(experiment: Experiment) -> dict[str, Any]:
    """All settings; of a search for them, how much it tried and for whom."""
    settings, searched = as_table(experiment), experiment.tuned
    if searched is not None:
        settings["tuned"] = f"{counted(searched.trials, 'trial')} of {searched.by}"
    return settings


def reference(study: Study) -> TableRow:
    """The row whose settings are listed in full."""
    return study.baseline or study.finished[0]


UNSHOWN = ("name=", "summary=", "seed=", "expects=")


def values_in(seeds: Sequence[dict[str, Any]], key: str) -> str | None:
    """What a row's seeds have for a setting: one value, or those that a search of each chose; None
    where they have none."""
    values = [value_in(settings, key) for settings in seeds]
    texts = dict.fromkeys(str(value) for value in values if value is not None)
    return " and ".join(texts) if texts else None


def value_in(settings: Any, key: str) -> Any:
    """The value at `a.b.c`."""
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings
