"""What each change does to known and to unseen classes, as sentences, table and numbers; they are
measured by `dml_bench.analysis.ablation`."""

import math
from collections.abc import Mapping, Sequence

from dml_bench.analysis.ablation import METRICS, Ablation
from dml_bench.analysis.compare import Difference
from dml_bench.report.document import Cell, Column, Data, Row, Table
from dml_bench.report.format import interval_cell

__all__ = ["changes_data", "changes_table", "describe"]


def changes_table(changes: Sequence[Ablation], names: Mapping[str, str]) -> Table:
    """A row for each change; `names` are the short names of all experiments."""
    columns = (
        Column("experiment", numeric=False),
        Column("beside", numeric=False),
        Column("P@1 known"),
        Column("P@1 unseen"),
        Column("cost of being unseen"),
    )
    rows = [change_row(change, names) for change in changes]
    return Table("What each change does", columns, tuple(rows))


def change_row(change: Ablation, names: Mapping[str, str]) -> Row:
    experiment = change.name_in_short(names)
    cells = [Cell(experiment, experiment, hover=change.name), Cell(change.without, change.without)]
    cells += map(difference_cell, (change.seen, change.unseen, change.cost))
    return Row(tuple(cells))


def difference_cell(part: Difference) -> Cell:
    difference = part.difference
    if math.isnan(difference.estimate):
        return Cell("-")
    return Cell(interval_cell(difference, is_signed=True), difference.estimate)


def describe(changes: Sequence[Ablation]) -> list[str]:
    """How the differences were measured; they are exploratory, and no sentence says what any of
    them does."""
    sentences = [
        (
            "Each row compares an experiment with the one that it extends, query by query, over"
            " the seeds that both have."
        ),
        (
            "P@1 is that of the model trained without the unseen classes, mean over classes. Of the"
            " cost of being unseen, less is better."
        ),
        (
            "All this is exploratory. The file has a q-value for each of"
            f" {len(METRICS) * len(changes)} differences (Benjamini and Hochberg)."
        ),
    ]
    if any(len(change.to) > 1 for change in changes):
        sentences.append("A change made to several experiments has a row for their mean too.")
    return sentences


def changes_data(changes: Sequence[Ablation]) -> Data:
    """Long form: one difference a row."""
    heads = [
        "experiment",
        "without",
        "metric",
        "seeds",
        "difference",
        "low",
        "high",
        "smallest_detectable",
        "seeds_for_2_points",
        "q",
    ]
    rows = []
    for change in changes:
        for part in (change.seen, change.unseen, change.cost):
            difference = part.difference
            rows.append(
                [
                    change.name,
                    change.without,
                    part.metric,
                    len(change.seeds),
                    difference.estimate,
                    difference.low,
                    difference.high,
                    part.smallest_detectable,
                    part.seeds_for_2_points,
                    part.q,
                ]
            )
    return Data("changes", heads, rows)
