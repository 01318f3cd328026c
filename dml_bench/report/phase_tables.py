"""Folded tables of what a summary says of each phase of each run: a row for each experiment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from dml_bench.analysis.table import TableRow
from dml_bench.report.document import Block, Column, Data, Details, Row, Table, Text

__all__ = ["PhaseFacts", "experiments_table", "folded_table", "of_phases", "phase_data"]

PhaseFacts = list[tuple[int, str, dict[str, Any]]]
"""Seed, name of the phase, and what the summary says of it."""


def of_phases(line: TableRow, key: str) -> PhaseFacts:
    """What summaries say of phases under `key`, of those that say it."""
    facts = []
    for run in line.runs:
        for phase, summary in run.summary.get("phases", {}).items():
            values = dict(summary).get(key)
            if values is not None:
                facts.append((run.seed, phase, cast(dict[str, Any], values)))
    return facts


def folded_table(
    title: str,
    explanation: str,
    heads: Sequence[str],
    rows: Sequence[Row],
    more: Sequence[Block] = (),
) -> Details:
    """An `experiments_table`, and what else is to be folded with it."""
    table = experiments_table(title, heads, rows)
    blocks = (Text(explanation, "soft"), table, *more)
    return Details(f"{title}: {len(rows)} experiments", blocks)


def experiments_table(title: str, heads: Sequence[str], rows: Sequence[Row]) -> Table:
    """A row for each experiment, whose name comes before `heads`."""
    return Table(title, (Column("experiment", numeric=False), *map(Column, heads)), tuple(rows))


def phase_data(
    name: str,
    heads: Sequence[str],
    facts: Mapping[str, PhaseFacts],
    numbers_of: Callable[[dict[str, Any]], list[Any]],
) -> Data:
    """The file NAME.csv, with a row for each phase: `heads` are those of `numbers_of` its facts.
    `facts`: by the experiment's name."""
    rows = []
    for experiment, phases in facts.items():
        for seed, phase, values in phases:
            rows.append([experiment, seed, phase, *numbers_of(values)])
    return Data(name, ["experiment", "seed", "phase", *heads], rows)
