"""A suite: its runs are carried out, and its page is written."""

import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dml_bench.analysis.claims import describe_claim
from dml_bench.analysis.decisions import DecidedRow, Decisions, decide
from dml_bench.analysis.origin import environments
from dml_bench.analysis.priors import SeedPriors
from dml_bench.analysis.recording import record_run
from dml_bench.analysis.table import Group, grouped
from dml_bench.config import experiments
from dml_bench.config.tables import PlannedRow
from dml_bench.config.variants import settings_in, variant_name
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.identity import OtherData
from dml_bench.data.sessions import session_warning
from dml_bench.registry.plugins import allowed_here, require_importable
from dml_bench.report.ours import require_ours
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.record import find_record, is_recorded
from dml_bench.runs.run import Run, find_run
from dml_bench.suite import page, record
from dml_bench.suite.cost import MeasuredRun, core_hours, measured_runs, seconds_of
from dml_bench.suite.executor import ExecutorSetup, JobResult, Slots, SuitePaths
from dml_bench.suite.plan import Job, in_order, without_seed
from dml_bench.suite.progress import SuiteListener
from dml_bench.system.counted import counted
from dml_bench.system.locks import held
from dml_bench.system.terminal import SuiteProgress, duration

__all__ = [
    "Suite",
    "SuiteSession",
    "carry_out",
    "commands",
    "open_session",
    "run_suite",
    "session_commands",
]

Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What to run, where, and where to write the page."""

    name: str
    title: str
    rows: tuple[PlannedRow, ...]
    profile: str
    overrides: tuple[str, ...]
    data_dir: Path | None
    out: Path
    cache_dir: Path
    report: Path | None
    """The folder of the page; None means a folder in `out`, named for table and data."""
    wandb: str
    command: tuple[str, ...]
    results: Path | None = None
    """The folder of records, which count as finished runs; None where none are kept."""
    any_code: bool = False
    """Whether records count that other code or other packages made."""
    opened: Mapping[str, Dataset] = field(default_factory=dict)
    """Data sets that are open already, by the `repr` of the configuration that opens them."""


def run_suite(
    suite: Suite, executor_setup: AbstractContextManager[ExecutorSetup], display: SuiteProgress
) -> list[JobResult]:
    """Run what is not finished, show and write the table, and return how each run ended.
    `executor_setup` is entered only where there is something to run. Raises ValueError before
    anything is run where an experiment claims what can't be measured, the data can't be opened, or
    another suite writes the same page."""
    session = open_session(suite, display)
    carry_out(session, executor_setup, display)
    return session.results_in_order()


def carry_out(
    session: "SuiteSession",
    executor_setup: AbstractContextManager[ExecutorSetup],
    display: SuiteProgress,
) -> None:
    """Run what is not finished of an open suite, and show and write its table."""
    with session.locked():
        if session.unfinished:
            with executor_setup as ready:
                session.run(ready, display)
        else:
            runs = counted(len(session.jobs), "run")
            display.say(f"nothing to run: {runs} finished earlier; the page is in {session.report}")
        session.conclude(display)


def commands(suite: Suite, device: str, display: SuiteProgress) -> list[str]:
    """A shell command for each run that is not finished, which does what the suite would do. Raises
    ValueError as `run_suite` does, and where a name has a line break, which xargs and SLURM would
    take for the end of a command."""
    session = open_session(suite, display)
    session.say_cost(display)
    return session_commands(session, device)


def session_commands(session: "SuiteSession", device: str) -> list[str]:
    """The same for a suite that is open."""
    suite = session.suite
    lines = [shlex.join(command_of(job, suite, device)) for job in session.unfinished]
    broken = next((line for line in lines if len(line.splitlines()) > 1), "")
    if broken:
        raise ValueError(
            "--print-jobs writes a command a line, and this one has a line break in a name:"
            f" {broken!r}; rename it"
        )
    return lines


def command_of(job: Job, suite: Suite, device: str) -> list[str]:
    """The arguments of `dml-bench run` for one run of a suite."""
    arguments = ["dml-bench", "run", job.named_as or job.experiment.name]
    if suite.profile == "demo":
        arguments.append("--demo")
    name = job.experiment.name
    overrides = [*suite.overrides, *job.swept]
    if variant_name(name, overrides) != name:
        overrides.append(f"name={name}")  # the suite looks for the run under this name
    for value in without_seed(overrides):
        arguments += ["--set", value]
    arguments += ["--seeds", str(job.experiment.seed)]
    options = {
        "--data-dir": suite.data_dir,
        "--out": suite.out,
        "--cache-dir": suite.cache_dir,
        "--wandb": suite.wandb,
        "--device": device,
    }
    for option, setting in options.items():
        if setting is not None:
            arguments += [option, str(setting)]
    for name in allowed_here(()):
        arguments += ["--allow-plugin", name]
    return arguments


def open_session(suite: Suite, display: SuiteProgress) -> "SuiteSession":
    """The session of a suite that is checked, its data opened and its finished runs found. Raises
    ValueError where a run would need a plug-in that its process can't import."""
    jobs = in_order(list(suite.rows))
    for row in suite.rows:
        for expectation in row.written.expects:
            describe_claim(row.written, expectation)
    with display:
        datasets = open_datasets(jobs, suite, display)
    rows = tuple(beside_other_settings(row, suite, datasets) for row in suite.rows)
    session = SuiteSession(replace(suite, rows=rows), in_order(list(rows)), datasets)
    session.find_finished()
    for job in session.unfinished:
        for plugin in job.experiment.plugin_records:
            require_importable(plugin)
    return session


def beside_other_settings(
    row: PlannedRow, suite: Suite, datasets: dict[str, Dataset]
) -> PlannedRow:
    """The row itself. Under a variant's name where the folder of its own name holds a run with
    other settings, or where `run` has begun that variant."""
    name = variant_name(row.name, suite.overrides)
    if row.swept or name == row.name:
        return row
    runs_elsewhere = []
    for experiment in row.seeds:
        dataset = datasets[repr(experiment.data.dataset)].name
        plain = RunFolder(suite.out, experiment, dataset)
        variant = RunFolder(suite.out, replace(experiment, name=name), dataset)
        runs_elsewhere.append(is_elsewhere(plain, variant))
    if not any(runs_elsewhere):
        return row
    seeds = tuple(replace(experiment, name=name) for experiment in row.seeds)
    written = replace(row.written, name=name)
    return PlannedRow(written, seeds, row.named_as, (f"name={name}",))


def is_elsewhere(plain: RunFolder, variant: RunFolder) -> bool:
    """Whether a run belongs into the folder of its variant."""
    try:
        if plain.has_trained:
            return bool(plain.other_settings())
        return variant.has_trained
    except ValueError:
        return False  # the process of the run reports a folder that can't be read


def open_datasets(jobs: Sequence[Job], suite: Suite, display: SuiteProgress) -> dict[str, Dataset]:
    """The data sets by the configuration that opens them. A drawn data set is drawn once, before
    the runs."""
    datasets = dict(suite.opened)
    for job in jobs:
        component = job.experiment.data.dataset
        if repr(component) not in datasets:
            datasets[repr(component)] = open_dataset(
                component, suite.data_dir, suite.cache_dir, display.progress
            )
    return datasets


class SuiteSession:
    """One call of a suite."""

    def __init__(self, suite: Suite, jobs: Sequence[Job], datasets: dict[str, Dataset]):
        self.suite = suite
        self.jobs = jobs
        self.datasets = datasets
        names = dict.fromkeys(dataset.name for dataset in datasets.values())
        self.report = suite.report or suite.out / "suite" / f"{suite.name}-{'+'.join(names)}"
        self.runs: dict[Key, Run] = {}
        """The finished runs, by experiment and seed."""
        self.failures: dict[Key, str] = {}
        """The reasons of failed runs."""
        self.not_counted: list[str] = []
        """Of each record that does not count as a finished run: which, and why."""
        self.results: list[JobResult] = []

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the report's lock from before the record is read until the page is written. Raises
        ValueError where another suite holds it, or a file of others would be written over."""
        require_ours(self.report, page.WRITTEN, "--report")
        self.report.mkdir(parents=True, exist_ok=True)
        busy = (
            f"another suite is writing {self.report}: wait for it, or choose another folder with"
            " --report DIR"
        )
        with held(self.report / ".lock", busy):
            self.record = record.SuiteRecord(self.report / "suite.json", self.suite.command)
            yield

    @property
    def unfinished(self) -> list[Job]:
        """The jobs whose runs are not finished."""
        return [job for job in self.jobs if job.key not in self.runs]

    def seconds_left(self, measured: Sequence[MeasuredRun]) -> list[float | None]:
        """Seconds of one core that each run that is not finished may take; None where nothing is
        known."""
        seconds = []
        for job in self.unfinished:
            dataset = self.datasets[repr(job.experiment.data.dataset)]
            seconds.append(seconds_of(job, dataset, self.suite.rows, measured))
        return seconds

    def say_cost(self, display: SuiteProgress) -> None:
        """Say what is left costs, where records tell it. A suite that is one of several has said so
        with them."""
        if self.suite.results is None or self.suite.any_code:
            return
        seconds = self.seconds_left(measured_runs(self.suite.results))
        if any(value is not None for value in seconds):
            hours = core_hours(seconds, "run")
            display.say(f"about {hours}, estimated from {self.suite.results}")

    def find_finished(self) -> None:
        """Find the runs that are finished already. Raises OtherData where one, finished or begun,
        is of other data: no table may mix them."""
        for job in self.jobs:
            try:
                run = self.read(job)
            except OtherData:
                raise
            except ValueError:
                continue  # the process of the run reports a folder that can't be read
            run = run or self.recorded(job)
            if run is not None:
                self.runs[job.key] = run
                self.results.append(JobResult(job=job, status="finished earlier"))

    def recorded(self, job: Job) -> Run | None:
        """The record of a job that has no run folder; None where there is none that counts."""
        if self.suite.results is None:
            return None
        dataset = self.datasets[repr(job.experiment.data.dataset)]
        try:
            return find_record(
                self.suite.results, job.experiment, dataset, any_code=self.suite.any_code
            )
        except ValueError as reason:
            self.not_counted.append(str(reason))
            return None

    def results_in_order(self) -> list[JobResult]:
        """How the runs ended, as they were planned and not as they ended."""
        places = {job: place for place, job in enumerate(self.jobs)}
        return sorted(self.results, key=lambda result: places[result.job])

    def keep_record(self, run: Run, display: SuiteProgress) -> None:
        """Record a run that has ended, where records are kept. A record that can't be written is
        said and stops nothing: `dml-bench record` makes it later."""
        if self.suite.results is None or not run.is_complete:
            return
        try:
            if not is_recorded(self.suite.results, run):
                record_run(self.suite.results, run)
        except (OSError, ValueError) as problem:
            display.say(f"warning: {run.folder} is not recorded: {problem}", "yellow")

    def read(self, job: Job) -> Run | None:
        """The finished run of a job; None where there is none."""
        return find_run(
            self.suite.out, job.experiment, self.datasets[repr(job.experiment.data.dataset)]
        )

    def run(self, executor_setup: ExecutorSetup, display: SuiteProgress) -> None:
        """Run what is not finished, some at a time. On Ctrl-C what is known is written, and
        KeyboardInterrupt is raised again."""
        suite, jobs, slots = self.suite, self.unfinished, executor_setup.slots
        start = time.perf_counter()
        how = "stopped"
        logs = suite.out / "suite" / "logs"
        paths = SuitePaths(suite.data_dir, suite.out, suite.cache_dir, logs, suite.wandb)
        warned = self.warn_of_sessions(display)
        listener = SuiteListener(display, jobs, len(self.runs), slots.jobs, duration, warned)
        self.record.begin(slots)
        display.say(describe_plan(jobs, len(self.runs), slots))
        self.say_cost(display)
        if self.not_counted:
            records = counted(len(self.not_counted), "record")
            display.say(f"{records} can't be counted as a run made now: {self.not_counted[0]}")
        try:
            executor = executor_setup.make_executor(paths, slots, listener)
            with display, closing(executor.run(jobs)) as results:
                for result in results:
                    self.record_result(result, listener)
                    if (run := self.runs.get(result.job.key)) is not None:
                        self.keep_record(run, display)
            how = "complete"
        finally:
            self.record.write(self.facts(), time.perf_counter() - start, how)

    def warn_of_sessions(self, display: SuiteProgress) -> list[str]:
        """Say once for each data set that a random split divides its sessions; what was said."""
        warned: dict[str, None] = {}
        for job in self.unfinished:
            data = job.experiment.data
            warned[session_warning(self.datasets[repr(data.dataset)], data)] = None
        warned.pop("", None)
        for text in warned:
            display.say(f"warning: {text}", "yellow")
        return list(warned)

    def record_result(self, result: JobResult, listener: SuiteListener) -> None:
        """Record how a run ended; one whose folder can't be read counts as failed."""
        results_line = ""
        if result.status == "finished":
            try:
                run = self.read(result.job)
                assert run, "a run that says it is finished left no summary"
                self.runs[result.job.key] = run
                split = run.experiment.data.described_split
                results_line = f"{run.protocol.headline(run.summary)}, split {split}"
            except ValueError as error:
                result = replace(result, status="failed", reason=str(error))
        if result.status == "failed":
            self.failures[result.job.key] = result.reason
        self.results.append(result)
        self.record.add(result)
        listener.report(result, results_line)

    def facts(self) -> dict[str, Any]:
        """What suite.json says of the whole suite."""
        suite = self.suite
        runs = list(self.runs.values())
        failures = [
            {"experiment": name, "seed": seed, "reason": reason}
            for (name, seed), reason in self.failures.items()
        ]
        return {
            "table": suite.name,
            "title": suite.title,
            "command": list(suite.command),
            "rows": [row.name for row in suite.rows],
            "splits": sorted({job.experiment.data.described_split for job in self.jobs}),
            "seeds": sorted({experiment.seed for row in suite.rows for experiment in row.seeds}),
            "profile": suite.profile,
            "overrides": list(suite.overrides),
            "made_with": environments(runs),
            "failures": failures,
        }

    def conclude(self, display: SuiteProgress) -> None:
        """Show the tables and write the page."""
        groups = grouped(self.suite.rows, self.runs, self.failures)
        runs = list(self.runs.values())
        for run in runs:
            self.keep_record(run, display)
        report = page.SuiteReport(
            title=self.suite.title,
            command=self.suite.command,
            groups=groups,
            decisions=self.decisions(groups),
            runs=[self.scalars(job) for job in self.jobs],
            made_with=record.made_with(runs, self.record.sessions),
        )
        page.write(self.report, report)
        splits = self.facts()["splits"]
        if len(splits) > 1:
            display.say(
                f"one table for each kind of split ({', '.join(splits)}), as their numbers can't be"
                " compared"
            )
        session = self.record.session
        facts = self.facts() | {"seed_priors": {g.slug: g.priors.record() for g in groups}}
        self.record.write(facts, session["wall_seconds"], session["ended"])
        page.show(display.console, report)
        display.say(f"results  {self.report}")

    def scalars(self, job: Job) -> dict[str, Any]:
        """One row of runs.csv: how the run came out, and all numbers of its summary."""
        name, seed = job.key
        run = self.runs.get(job.key)
        row = {
            "experiment": name,
            **settings_in(job.experiment),
            "seed": seed,
            "status": "failed" if run is None else "finished",
            "reason": self.failures.get(job.key, ""),
        }
        return row if run is None else row | record.scalars(run.summary)

    def decisions(self, groups: Sequence[Group]) -> Decisions:
        """What the finished runs say of the claims and the family of the suite's experiments."""
        of_row: dict[str, Sequence[Run]] = {}
        priors: dict[str, SeedPriors] = {}
        for group in groups:
            of_row |= {line.name: line.runs for line in group.lines}
            priors |= dict.fromkeys(of_row.keys() - priors.keys(), group.priors)
        elsewhere: dict[str, list[Run]] = {}

        def runs_of(name: str) -> Sequence[Run]:
            if name in of_row:
                return of_row[name]
            if name not in elsewhere:
                elsewhere[name] = self.runs_outside(name)
            return elsewhere[name]

        rows = self.suite.rows
        decided = [DecidedRow(row.written, of_row[row.name], priors[row.name]) for row in rows]
        return decide(decided, runs_of)

    def runs_outside(self, name: str) -> list[Run]:
        """Finished runs of an experiment that is no row of this suite, by the same settings."""
        seeds = sorted({experiment.seed for row in self.suite.rows for experiment in row.seeds})
        runs = []
        for seed in seeds:
            overrides = [*self.suite.overrides, f"seed={seed}"]
            try:
                other = experiments.resolve(name, profile=self.suite.profile, overrides=overrides)
                dataset = self.datasets[repr(other.data.dataset)]
                run = find_run(self.suite.out, other, dataset)
            except (ValueError, KeyError):
                continue
            if run is not None:
                runs.append(run)
        return runs


def describe_plan(jobs: Sequence[Job], finished: int, slots: Slots) -> str:
    """What the suite is about to run, in a line."""
    earlier = f", {finished} are finished already" if finished else ""
    devices = "" if slots.devices == ("auto",) else f" on {', '.join(slots.devices)}"
    runs, threads = counted(len(jobs), "run"), counted(slots.threads, "thread")
    where = f", on {slots.where}" if slots.where else ""
    return f"{runs}{earlier}; {slots.jobs} at a time{devices}, {threads} each{where}"
