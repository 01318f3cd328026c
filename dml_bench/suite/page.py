"""What a suite leaves: the table and the verdicts for the terminal, as Markdown and as CSV, and all
numbers of all runs."""

import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.analysis.claims import ClaimResult, Verdict
from dml_bench.analysis.table import Group, TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols.metric import Column
from dml_bench.runs.metrics import COST
from dml_bench.system.files import write_atomically, write_csv
from dml_bench.system.markdown import code, markdown, markdown_row, sentence
from dml_bench.system.terminal import duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["SuiteReport", "show", "write"]

INTERVALS = (
    "Means over seeds, in brackets with the 95% interval of a bootstrap over classes and their"
    " queries; of a single seed it says nothing about other seeds."
)
COSTS = (
    "Training: time of all phases of a run and of their starts, without preparation and evaluation."
    " Memory: the most that any run's process took."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteReport:
    """Everything that is shown and written at the end."""

    title: str
    command: Sequence[str]
    groups: Sequence[Group]
    verdicts: Sequence[ClaimResult]
    runs: Sequence[dict[str, Any]]
    """One record per run: experiment, seed, status, reason, and every scalar of its summary."""
    made_with: Sequence[str]
    """Lines on versions, hardware, dates and time."""


def show(console: "Console", report: SuiteReport) -> None:
    """The tables in the terminal."""
    from rich.text import Text

    for group in report.groups:
        console.print()
        console.print(results_table(f"{report.title}: {group.title}", group))
        console.print()
        console.print(cost_table(group))
        for line in group.lines:
            for failure in line.failures:
                console.print(Text(f"failed: {line.name}, {failure}", style="red"))
            for doubt in line.doubts:
                console.print(Text(f"in doubt: {line.name}, {doubt}", style="yellow"))
    console.print()
    console.print(Text(INTERVALS, style="dim"))
    console.print()
    show_verdicts(console, report.verdicts)


def results_table(title: str, group: Group) -> Any:
    table = plain_table(title)
    table.add_column("experiment", overflow="fold")
    table.add_column("seeds", justify="right")
    for column in group.columns:
        table.add_column(column.head.replace(" ", "\n"), justify="right", no_wrap=True)
    for line in group.lines:
        table.add_row(line.name, seeds(line), *cells(group, line))
    return table


def cost_table(group: Group) -> Any:
    table = plain_table("cost of a run")
    table.add_column("experiment", overflow="fold")
    shown = shown_cost([group])
    for i in shown:
        table.add_column(COST[i].head, justify="right")
    for line in group.lines:
        table.add_row(line.name, *(cost_cell(COST[i].key, line.cost[i]) for i in shown))
    return table


STYLES = {Verdict.holds: "green", Verdict.does_not: "red", Verdict.within_noise: "yellow"}


def show_verdicts(console: "Console", verdicts: Sequence[ClaimResult]) -> None:
    """Those that were tested, by experiment; others are only counted."""
    from rich.text import Text

    console.print(Text("What was expected", style="bold"))
    experiment = ""
    for judged in verdicts:
        if judged.verdict is Verdict.not_tested:
            continue
        if judged.experiment != experiment:
            experiment = judged.experiment
            console.print(Text(experiment))
        versus = f" against {judged.expectation.versus}" if judged.expectation.versus else ""
        found = interval_cell(judged.measured, signed=judged.signed)
        line = Text(f"  {judged.verdict.value:<13} ", style=STYLES[judged.verdict])
        console.print(
            line.append(
                f"{judged.head} {claimed(judged)}{versus}; measured {found}", style="default"
            )
        )
    console.print(Text(count_verdicts(verdicts)))


def plain_table(title: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )


def count_verdicts(verdicts: Sequence[ClaimResult]) -> str:
    """`46 expectations: 3 hold, 1 do not, 2 within noise, 40 not tested (30 other data; ...)`"""
    counts = Counter(judged.verdict for judged in verdicts)
    reasons = Counter(judged.reason for judged in verdicts if judged.verdict is Verdict.not_tested)
    told = (
        f"{counts[Verdict.holds]} hold, {counts[Verdict.does_not]} do not,"
        f" {counts[Verdict.within_noise]} within noise"
    )
    why = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return (
        f"{len(verdicts)} expectations: {told}, {counts[Verdict.not_tested]} not"
        f" tested{why and f' ({why})'}"
    )


def seeds(line: TableRow) -> str:
    return (
        str(len(line.runs))
        if len(line.runs) == line.wanted
        else f"{len(line.runs)} of {line.wanted}"
    )


def cells(group: Group, line: TableRow) -> list[str]:
    return [cell(column, value) for column, value in zip(group.columns, line.values, strict=True)]


def cell(column: Column, value: Interval | float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, Interval):
        return interval_cell(value, signed=column.signed)
    return number(value, column.signed)


def number(value: float, is_signed: bool) -> str:
    """`.612`, or `+.123` for a difference."""
    text = f"{value:+.3f}" if is_signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def interval_cell(interval: Interval | None, *, signed: bool) -> str:
    if interval is None:
        return "-"
    if math.isnan(interval.low):
        return number(interval.estimate, signed)
    return (
        f"{number(interval.estimate, signed)} [{number(interval.low, signed)},"
        f" {number(interval.high, signed)}]"
    )


def cost_cell(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return duration(value) if key.endswith("_seconds") else f"{value:.0f}"


def shown_cost(groups: Sequence[Group]) -> list[int]:
    """Those entries of COST that some line has."""
    return [
        i
        for i in range(len(COST))
        if any(line.cost[i] is not None for group in groups for line in group.lines)
    ]


def write(folder: Path, report: SuiteReport) -> None:
    """All files but suite.json, each whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.md", table_page(report))
    write_text(folder / "expectations.md", expectations_page(report))
    for group in report.groups:
        name = "table.csv" if len(report.groups) == 1 else f"table-{group.slug}.csv"
        write_csv(folder / name, *table_csv(group))
    write_csv(folder / "expectations.csv", *expectations_csv(report.verdicts))
    columns = list(dict.fromkeys(key for run in report.runs for key in run))
    write_csv(
        folder / "runs.csv",
        columns,
        ([run.get(column, "") for column in columns] for run in report.runs),
    )


def write_text(path: Path, lines: Iterable[str]) -> None:
    text = "\n".join(lines) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def made_by(report: SuiteReport) -> Iterable[str]:
    yield f"Made by {code(shlex.join(report.command))}; never edited by hand."
    yield ""
    yield from (f"- {sentence(line)}" for line in report.made_with)
    yield ""


def table_page(report: SuiteReport) -> Iterable[str]:
    yield f"# {markdown(report.title)}"
    yield ""
    yield from made_by(report)
    for group in report.groups:
        yield f"## {markdown(group.title[:1].upper() + group.title[1:])}"
        yield ""
        yield from markdown_table(group)
        yield ""
        yield from (f"- {line}" for line in (*group.explanation, INTERVALS, COSTS))
        yield ""


def markdown_table(group: Group) -> Iterable[str]:
    shown = shown_cost([group])
    remarks = any(line.remarks for line in group.lines)
    heads = [
        "experiment",
        "seeds",
        *(column.head for column in group.columns),
        *(COST[i].head for i in shown),
    ]
    yield markdown_row([*heads, *(["remarks"] if remarks else [])])
    yield markdown_row(["---", *["--:"] * (len(heads) - 1), *(["---"] if remarks else [])])
    for line in group.lines:
        cost = [cost_cell(COST[i].key, line.cost[i]) for i in shown]
        yield markdown_row(
            [
                line.name,
                seeds(line),
                *cells(group, line),
                *cost,
                *(["; ".join(line.remarks)] if remarks else []),
            ]
        )


def expectations_page(report: SuiteReport) -> Iterable[str]:
    yield f"# {markdown(report.title)}: what was expected"
    yield ""
    yield from made_by(report)
    yield f"{count_verdicts(report.verdicts)}."
    yield ""
    yield (
        "A claimed value *holds* if it lies within the 95% interval of what was measured; it is"
        " only tested on the data, protocol and settings that it was claimed for. A claimed change"
        " *holds* if the interval of the difference, query by query, lies wholly on the claimed"
        " side of zero, *does not* if on the other, and is *within noise* otherwise; no change"
        " holds within 0.02 of zero."
    )
    yield ""
    yield markdown_row(["experiment", "claim", "source", "claimed", "measured", "verdict"])
    yield markdown_row(["---", "---", "---", "--:", "--:", "---"])
    for judged in report.verdicts:
        verdict = judged.verdict.value + (f": {judged.reason}" if judged.reason else "")
        measured = interval_cell(judged.measured, signed=judged.signed)
        yield markdown_row(
            [
                judged.experiment,
                judged.words,
                judged.expectation.source,
                claimed(judged),
                measured,
                verdict,
            ]
        )


def claimed(judged: ClaimResult) -> str:
    value, change = judged.expectation.value, judged.expectation.change
    return number(value, judged.signed) if value is not None else number(change or 0.0, True)


def table_csv(group: Group) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows, numbers as they are."""
    heads = ["experiment", "seeds"]
    for column in group.columns:
        heads += [
            column.key,
            *([f"{column.key}_low", f"{column.key}_high"] if column.interval else []),
        ]
    heads += [*(cost.key for cost in COST), "failed", "doubts"]
    rows = []
    for line in group.lines:
        row: list[Any] = [line.name, len(line.runs)]
        for column, value in zip(group.columns, line.values, strict=True):
            row += plain(value, bool(column.interval))
        rows.append(
            [
                *row,
                *("" if value is None else value for value in line.cost),
                "; ".join(line.failures),
                "; ".join(line.doubts),
            ]
        )
    return heads, rows


def plain(value: Interval | float | None, has_interval: bool) -> list[Any]:
    if isinstance(value, Interval):
        return [
            value.estimate,
            *("" if math.isnan(bound) else bound for bound in (value.low, value.high)),
        ]
    return ["" if value is None else value, *(["", ""] if has_interval else [])]


def expectations_csv(verdicts: Sequence[ClaimResult]) -> tuple[list[str], list[list[Any]]]:
    heads = [
        "experiment",
        "metric",
        "claim",
        "source",
        "value",
        "change",
        "versus",
        "measured",
        "low",
        "high",
        "verdict",
        "reason",
    ]
    blank: Callable[[Any], Any] = lambda value: "" if value is None else value  # noqa: E731
    return heads, [
        [
            judged.experiment,
            judged.expectation.metric,
            judged.words,
            judged.expectation.source,
            blank(judged.expectation.value),
            blank(judged.expectation.change),
            judged.expectation.versus,
            *plain(judged.measured, True),
            judged.verdict.value,
            judged.reason,
        ]
        for judged in verdicts
    ]
