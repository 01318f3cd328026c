"""A table over several data sets: a suite for each of those that are here, and what they cost."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from dml_bench.board.over_data_sets_page import report_over_data_sets
from dml_bench.config.tables import PlannedRow, TableOnData, read_table
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.datasets.dataset import NotThere
from dml_bench.registry import datasets
from dml_bench.report import terminal
from dml_bench.report.compose import WRITTEN
from dml_bench.report.ours import require_ours
from dml_bench.suite.cost import core_hours, measured_runs, search_lines
from dml_bench.suite.executor import ExecutorSetup, JobResult
from dml_bench.suite.plan import resolved_rows
from dml_bench.suite.run import (
    Suite,
    SuiteSession,
    carry_out,
    open_session,
    session_commands,
)
from dml_bench.suite.tuned import (
    MissingSearch,
    NoSearch,
    has_shared_split,
    missing_searches,
    trains,
    with_tuned_rows,
)
from dml_bench.system.counted import counted
from dml_bench.system.terminal import SuiteProgress
from dml_bench.training.tuning import SEARCHES

__all__ = ["Places", "SuitesOverData", "commands_of_suites", "plan_suites", "run_suites"]


@dataclass(frozen=True, kw_only=True)
class SuitesOverData:
    """The suites of a table over several data sets."""

    name: str
    title: str
    suites: Mapping[str, Suite]
    """By data set."""
    absent: Mapping[str, str]
    """By data set, why it is left out."""
    searches: Mapping[str, tuple[MissingSearch, ...]]
    """By data set, the searches that nobody has made yet; without them it can't be tuned."""
    results: Path
    """The folder of the records, from which the page is made."""
    report: Path
    """The folder of the page."""
    tuned: bool
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where suites read and write."""

    data_dir: Path | None
    out: Path
    cache_dir: Path
    results: Path
    report: Path | None
    wandb: str


class NotHere(ValueError):
    """A data set of a table can't be opened."""


def plan_suites(
    name: str,
    seeds: Sequence[int],
    places: Places,
    *,
    tuned: bool,
    command: Sequence[str],
) -> SuitesOverData:
    """A suite for each data set of the table that is here, with `tuned` for each whose rows were
    searched for settings."""
    table = read_table(name)
    if not table.data:
        raise ValueError(f"the table {name} is of one data set: plan it by plan_suite")
    suites: dict[str, Suite] = {}
    absent: dict[str, str] = {}
    searches: dict[str, tuple[MissingSearch, ...]] = {}
    chosen = list(seeds) or list(table.seeds)
    for entry in table.data:
        try:
            opened = opened_folder(entry, places)
        except NotHere as problem:
            absent[entry.dataset] = " ".join(str(problem).split())
            continue
        missing = searches_missing(entry, chosen, places)
        if missing:
            searches[entry.dataset] = missing
        if missing and tuned:
            absent[entry.dataset] = str(NoSearch(missing, searched_in(places)))
            continue
        rows = rows_of(entry, chosen, places, tuned=tuned)
        suites[entry.dataset] = Suite(
            name=name,
            title=f"{table.title}: {entry.dataset}",
            rows=rows,
            profile=entry.profile,
            overrides=tuple(entry.overrides(tuned=tuned)),
            data_dir=folder_for(rows[0], places),
            out=places.out,
            cache_dir=places.cache_dir,
            report=None if places.report is None else places.report / entry.dataset,
            wandb=places.wandb,
            command=tuple(command),
            results=places.results,
            any_code=True,
            opened=opened,
        )
    return SuitesOverData(
        name=name,
        title=table.title,
        suites=suites,
        absent=absent,
        searches=searches,
        results=places.results,
        report=places.report or places.out / "suite" / name,
        tuned=tuned,
        command=tuple(command),
    )


def rows_of(
    entry: TableOnData, seeds: list[int], places: Places, *, tuned: bool
) -> tuple[PlannedRow, ...]:
    """The rows on one data set, with `tuned` each trained one beside itself with the settings of
    its search."""
    fixed, trained = planned_rows(entry, seeds, tuned=tuned)
    rows = (*fixed, *trained)
    if not tuned:
        return rows
    overrides = entry.overrides(tuned=True)
    return with_tuned_rows(rows, searched_in(places), entry.profile, overrides)


def planned_rows(
    entry: TableOnData, seeds: list[int], *, tuned: bool
) -> tuple[tuple[PlannedRow, ...], tuple[PlannedRow, ...]]:
    """The rows without training, with one seed where the split is the same for all, and those that
    train, under the hold-outs of a tuned table or of another."""
    fixed: list[PlannedRow] = []
    trained: list[PlannedRow] = []
    overrides = entry.overrides(tuned=tuned)
    for row in resolved_rows(entry.rows, entry.profile, overrides, seeds):
        if trains(row):
            trained.append(row)
        elif has_shared_split(row.seeds[0]):
            fixed.append(replace(row, seeds=row.seeds[:1]))
        else:
            fixed.append(row)
    return tuple(fixed), tuple(trained)


def searches_missing(
    entry: TableOnData, seeds: list[int], places: Places
) -> tuple[MissingSearch, ...]:
    """The searches that a tuned table would need and nobody has made."""
    _, trained = planned_rows(entry, seeds, tuned=True)
    return missing_searches(
        trained,
        searched_in(places),
        entry.profile,
        entry.overrides(tuned=True),
        folder_for(trained[0], places),
    )


def searched_in(places: Places) -> list[Path]:
    """The folders that may hold searches: those of the runs and records, and those below the
    latter."""
    below = sorted(folder.parent for folder in places.results.glob(f"*/{SEARCHES}"))
    return [places.out, places.results, *below]


def folder_for(row: PlannedRow, places: Places) -> Path | None:
    """The folder of the images; None where they are drawn."""
    facts = datasets.of(row.seeds[0].data.dataset).facts
    return places.data_dir if facts["needs_data_dir"] else None


def opened_folder(entry: TableOnData, places: Places) -> dict[str, Dataset]:
    """A data set that lies in a folder, by the configuration that opens it; nothing where it is
    drawn, which its suite does. Raises NotHere."""
    [row, *_] = rows_of(entry, [], places, tuned=False)
    component = row.seeds[0].data.dataset
    facts = datasets.of(component).facts
    if not facts["needs_data_dir"]:
        return {}
    try:
        return {repr(component): open_dataset(component, places.data_dir, places.cache_dir)}
    except NotThere as problem:  # that another data set is there is no advice: both are wanted
        raise NotHere(f"{problem.missing}: {facts['obtain']}") from problem
    except (OSError, ValueError) as problem:
        raise NotHere(str(problem)) from problem


def run_suites(
    planned: SuitesOverData,
    executor_setup: Callable[[], AbstractContextManager[ExecutorSetup]],
    display: SuiteProgress,
) -> list[JobResult]:
    """Say what all of it costs, run what has no record, one data set after the other, and show and
    write the page over all data sets. Raises ValueError as `run_suite` does."""
    require_ours(planned.report, WRITTEN, "--report")
    results: list[JobResult] = []
    for session in open_sessions(planned, display):
        carry_out(session, executor_setup(), display)
        results += session.results_in_order()
    document = report_over_data_sets(
        planned.name, [planned.results], planned.report, planned.command, display.say
    )
    terminal.show(display.console, document)
    display.say(f"results  {planned.report}")
    return results


def commands_of_suites(planned: SuitesOverData, device: str, display: SuiteProgress) -> list[str]:
    """Say what all of it costs, and return a shell command for each run that has no record. Raises
    ValueError as `commands` does."""
    lines: list[str] = []
    for session in open_sessions(planned, display):
        lines += session_commands(session, device)
    return lines


def open_sessions(planned: SuitesOverData, display: SuiteProgress) -> list[SuiteSession]:
    """All suites, checked and their records found, when what they cost is said. Raises ValueError
    where there is none, as no data set is here or none was searched."""
    sessions = {name: open_session(suite, display) for name, suite in planned.suites.items()}
    without_search = planned.searches if planned.tuned else {}
    left_out = {name: why for name, why in planned.absent.items() if name not in without_search}
    for line in cost_lines(sessions, left_out, planned):
        display.say(line)
    if not sessions and without_search:
        raise ValueError("no data set has the searches that --tuned needs: make those above first")
    return list(sessions.values())


def cost_lines(
    sessions: Mapping[str, SuiteSession], absent: Mapping[str, str], planned: SuitesOverData
) -> list[str]:
    """By data set the core-hours of the runs that are left to do, or why it is left out, and in
    all; then the same of the searches that nobody has made yet, with their commands."""
    measured = measured_runs(planned.results)
    lines, every = [], []
    for name, session in sessions.items():
        seconds = session.seconds_left(measured)
        done = f"{len(session.runs)} of {counted(len(session.jobs), 'run')} recorded or finished"
        cost = f", the others take about {core_hours(seconds, 'run')}" if seconds else ""
        lines.append(f"{name}: {done}{cost}")
        every += seconds
    lines += [f"{name} is left out: {reason}" for name, reason in absent.items()]
    of = ", of what is there," if absent else ""
    lines.append(
        f"in all{of} about {core_hours(every, 'run')}, estimated from {planned.results}; the first"
        " look of a frozen backbone at a data set is not in it"
    )
    missing = chain.from_iterable(planned.searches.values())
    return [*lines, *search_lines(missing, measured)]
