"""What a suite leaves: the table and the verdicts for the terminal, as Markdown and as CSV, and all
numbers of all runs. They are documents like a report, so that both say the same in the same way."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.analysis.decisions import Decisions
from dml_bench.analysis.table import Group
from dml_bench.report import csv, markdown, terminal
from dml_bench.report.decisions import (
    data_of,
    decided_blocks,
)
from dml_bench.report.document import (
    Block,
    Cell,
    Column,
    Data,
    Details,
    Document,
    Heading,
    Items,
    Row,
    Table,
    Text,
)
from dml_bench.report.ours import is_ours
from dml_bench.report.short import with_short_names
from dml_bench.report.tables import INTERVALS, explanations, results_data, results_table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WRITTEN", "SuiteReport", "show", "write"]

WRITTEN = (
    *("table.md", "expectations.md", "table.csv", "expectations.csv", "family.csv"),
    *("survival.csv", "runs.csv"),
)
"""Files in the folder of a suite, beside suite.json."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteReport:
    """Everything that is shown and written at the end."""

    title: str
    command: Sequence[str]
    groups: Sequence[Group]
    decisions: Decisions
    runs: Sequence[dict[str, Any]]
    """One record per run: experiment, seed, status, reason, and every scalar of its summary."""
    made_with: Sequence[str]
    """Lines on versions, hardware, dates and time."""


def write(folder: Path, report: SuiteReport) -> None:
    """All files but suite.json, each whole or not there. Tables of numbers that an earlier suite
    left here are removed first, as no other would replace them where rows have changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*(folder / name for name in WRITTEN), *folder.glob("table-*.csv")):
        if old.suffix == ".csv" and old.exists() and is_ours(old):
            old.unlink()
    results, claims = results_document(report), claims_document(report)
    markdown.write(folder / "table.md", results)
    markdown.write(folder / "expectations.md", claims)
    for document in (results, claims):
        csv.write(folder, document)


def show(console: "Console", report: SuiteReport) -> None:
    """The same tables in the terminal."""
    blocks: list[Block] = []
    for group in report.groups:
        blocks.append(results_table(group, f"{report.title}: {group.title_with_split}"))
        if group.untested:
            blocks.append(Text(group.untested, "soft"))
    blocks.append(Heading("What was decided"))
    blocks += with_short_names(decided_blocks(report.decisions), names_of(report))
    terminal.show(console, Document(report.title, tuple(blocks)))


def made_by(report: SuiteReport) -> list[Block]:
    return [
        Text(f"Made by `{shlex.join(report.command)}`. Do not edit it."),
        Items(tuple(report.made_with)),
    ]


def results_document(report: SuiteReport) -> Document:
    """A table for each group of experiments that may be compared, and the numbers of all runs."""
    blocks = made_by(report)
    for group in report.groups:
        blocks += [
            Heading(group.title_with_split[:1].upper() + group.title_with_split[1:], 2),
            results_table(group),
            Text(f"{INTERVALS} {group.untested}".strip(), "soft"),
            explanations(group),
            results_data(
                group, "table" if len(report.groups) == 1 else f"table-{group.slug}"
            ).beside_split(group.split),
        ]
    blocks.append(full_names(report))
    blocks.append(runs_data(report.runs))
    return Document(report.title, tuple(blocks))


def names_of(report: SuiteReport) -> dict[str, str]:
    """Short names of the experiments by the full ones."""
    return {line.name: line.short for group in report.groups for line in group.lines}


def full_names(report: SuiteReport) -> Details:
    """The full name behind each short one."""
    columns = (Column("experiment", numeric=False), Column("full name", numeric=False))
    pairs = names_of(report).items()
    rows = [Row((Cell(short), Cell(f"`{name}`"))) for name, short in pairs]
    return Details("Full names", (Table("Full names", columns, tuple(rows)),))


def runs_data(runs: Sequence[dict[str, Any]]) -> Data:
    """Every scalar of every run."""
    heads = list(dict.fromkeys(key for run in runs for key in run))
    return Data("runs", heads, [cells_of(run, heads) for run in runs])


def cells_of(run: dict[str, Any], heads: Sequence[str]) -> list[Any]:
    """One row: what a run has under each head; an empty cell where it has nothing."""
    return [run.get(head, "") for head in heads]


def claims_document(report: SuiteReport) -> Document:
    """The claims of all experiments, and the family of their table."""
    decisions = report.decisions
    blocks = made_by(report)
    blocks += with_short_names(decided_blocks(decisions), names_of(report))
    splits = {line.name: group.split for group in report.groups for line in group.lines}
    blocks.append(full_names(report))
    blocks += [data.beside_split(splits) for data in data_of(decisions)]
    return Document(f"{report.title}: what was decided", tuple(blocks))
