"""A table over several data sets: a suite for each of those that are here, and what they cost."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from dml_bench.analysis.origin import counted
from dml_bench.board.over_data_sets_page import report_over_data_sets
from dml_bench.config import Experiment
from dml_bench.config.tables import PlannedRow, TableOnData, read_table
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.datasets.dataset import NotThere
from dml_bench.registry import datasets
from dml_bench.report import terminal
from dml_bench.runs import record_format
from dml_bench.runs.layout import records_below
from dml_bench.suite.executor import ExecutorSetup, JobResult
from dml_bench.suite.plan import Job, resolved_rows
from dml_bench.suite.run import (
    Suite,
    SuiteSession,
    carry_out,
    open_session,
    session_commands,
)
from dml_bench.suite.tuned import NoSearch, with_tuned_rows
from dml_bench.system.terminal import SuiteProgress

__all__ = ["Places", "SuitesOverData", "commands_of_suites", "plan_suites", "run_suites"]

SHARED_SPLITS = ("given", "half")
"""Kinds of split that no seed changes."""


@dataclass(frozen=True, kw_only=True)
class SuitesOverData:
    """The suites of a table over several data sets."""

    name: str
    title: str
    suites: Mapping[str, Suite]
    """By data set."""
    absent: Mapping[str, str]
    """By data set, why it is left out."""
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
    searched for settings. Raises NoSearch where none was."""
    table = read_table(name)
    if not table.data:
        raise ValueError(f"the table {name} is of one data set: plan it by plan_suite")
    searches = (places.out, places.results)
    suites: dict[str, Suite] = {}
    absent: dict[str, str] = {}
    unsearched: NoSearch | None = None
    for entry in table.data:
        try:
            opened = opened_folder(entry, places)
            rows = rows_of(entry, list(seeds) or list(table.seeds), searches, tuned=tuned)
        except NotHere as problem:
            absent[entry.dataset] = " ".join(str(problem).split())
            continue
        except NoSearch as problem:
            absent[entry.dataset] = str(problem)
            unsearched = problem
            continue
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
    if unsearched is not None and not suites:
        raise unsearched
    return SuitesOverData(
        name=name,
        title=table.title,
        suites=suites,
        absent=absent,
        results=places.results,
        report=places.report or places.out / "suite" / name,
        tuned=tuned,
        command=tuple(command),
    )


def rows_of(
    entry: TableOnData, seeds: list[int], searches: Sequence[Path], *, tuned: bool
) -> tuple[PlannedRow, ...]:
    """The rows on one data set. Those without training have one seed where the split is the same
    for all, and none has a search; the searches of the others are in one of these folders."""
    overrides = entry.overrides(tuned=tuned)
    fixed: list[PlannedRow] = []
    trained: list[PlannedRow] = []
    for row in resolved_rows(entry.rows, entry.profile, overrides, seeds):
        experiment = row.seeds[0]
        if not experiment.no_drop_because:
            trained.append(row)
        elif experiment.data.split in SHARED_SPLITS and not experiment.data.per_class:
            fixed.append(replace(row, seeds=row.seeds[:1]))
        else:
            fixed.append(row)
    if tuned:
        trained = list(with_tuned_rows(trained, searches, entry.profile, overrides))
    return (*fixed, *trained)


def folder_for(row: PlannedRow, places: Places) -> Path | None:
    """The folder of the images; None where they are drawn."""
    facts = datasets.of(row.seeds[0].data.dataset).facts
    return places.data_dir if facts["needs_data_dir"] else None


def opened_folder(entry: TableOnData, places: Places) -> dict[str, Dataset]:
    """A data set that lies in a folder, by the configuration that opens it; nothing where it is
    drawn, which its suite does. Raises NotHere."""
    [row, *_] = rows_of(entry, [], (), tuned=False)
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
    results: list[JobResult] = []
    for session in open_sessions(planned, display):
        carry_out(session, executor_setup(), display)
        results += session.results
    document = report_over_data_sets(
        planned.name, [planned.results], planned.report, planned.command
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
    """All suites, checked and their records found, when what they cost is said."""
    sessions = {name: open_session(suite, display) for name, suite in planned.suites.items()}
    for line in session_lines(planned, sessions):
        display.say(line)
    return list(sessions.values())


# What it costs


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """What a recorded run took."""

    name: str
    dataset: str
    num_images: int
    seconds: float
    """Of one core."""


def session_lines(planned: SuitesOverData, sessions: Mapping[str, SuiteSession]) -> list[str]:
    """Which data sets are here, which are not, and the core-hours of what is left to do."""
    measured = measured_runs(planned.results)
    lines, total, unknown = [], 0.0, 0
    for name, session in sessions.items():
        jobs = session.unfinished
        seconds = [seconds_of(job, session, measured) for job in jobs]
        known = [value for value in seconds if value is not None]
        total, unknown = total + sum(known), unknown + len(seconds) - len(known)
        done = f"{len(session.runs)} of {counted(len(session.jobs), 'run')} recorded or finished"
        cost = f", the others take about {core_hours(sum(known))}" if jobs else ""
        if len(known) < len(seconds):
            cost += f" without {counted(len(seconds) - len(known), 'run')} that nothing is known of"
        lines.append(f"{name}: {done}{cost}")
    lines += [f"{name} is left out: {reason}" for name, reason in planned.absent.items()]
    more = f", and {counted(unknown, 'run')} of unknown cost" if unknown else ""
    lines.append(
        f"in all about {core_hours(total)}{more}, estimated from {planned.results}; the first look"
        " of a frozen backbone at a data set is not in it"
    )
    return lines


def core_hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} core-hours"


def measured_runs(results: Path) -> list[MeasuredRun]:
    """What all records say of their cost."""
    runs = []
    for path in records_below(results):
        description = record_format.read_description(path)
        session = description["session"]
        cores = session.get("threads", 1) * session.get("processes", 1)
        dataset = description["dataset"]
        runs.append(
            MeasuredRun(
                description["experiment"],
                dataset["name"],
                dataset["num_images"],
                description["cost"]["total_seconds"] * cores,
            )
        )
    return runs


def seconds_of(job: Job, session: SuiteSession, measured: Sequence[MeasuredRun]) -> float | None:
    """Seconds of one core that a run may take; None where nothing is known."""
    dataset = session.datasets[repr(job.experiment.data.dataset)]
    rows = rows_alike(job.experiment, session.suite.rows)
    return estimate(job.experiment.name, dataset.name, len(dataset.labels), rows, measured)


def rows_alike(experiment: Experiment, rows: Iterable[PlannedRow]) -> set[str]:
    """The rows that cost about as much as a run: those that train features, or those that don't."""
    without = bool(experiment.no_drop_because)
    return {row.name for row in rows if bool(row.seeds[0].no_drop_because) == without}


def estimate(
    name: str,
    dataset: str,
    num_images: int,
    rows: Collection[str],
    measured: Sequence[MeasuredRun],
) -> float | None:
    """Seconds that a row may take on a data set: as its other seeds, else as these other `rows` on
    the same images, else by image as on other data sets; None where nothing is known."""
    here = [run for run in measured if run.dataset == dataset and run.name in rows]
    same = [run.seconds for run in here if run.name == name]
    beside = [run.seconds for run in here]
    elsewhere = [run.seconds / run.num_images * num_images for run in measured if run.name == name]
    for seconds in (same, beside, elsewhere):
        if seconds:
            return sum(seconds) / len(seconds)
    return None
