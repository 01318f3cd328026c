"""A suite from its rows to its page."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dml_bench.analysis.claims import ClaimResult, check_claims, claim_in_words
from dml_bench.analysis.table import Group, grouped, value_at
from dml_bench.config import experiments
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.identity import OtherData
from dml_bench.runs.run import Run, find_run
from dml_bench.suite import page, record
from dml_bench.suite.executor import ExecutorSetup, JobResult, Slots, SuitePaths
from dml_bench.suite.plan import Job, PlannedRow, in_order
from dml_bench.suite.progress import SuiteListener
from dml_bench.system.terminal import SuiteProgress, duration, number

__all__ = ["Suite", "commands", "run_suite"]

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
    """None: a folder in `out`, named for table and data."""
    wandb: str
    command: tuple[str, ...]


def run_suite(
    suite: Suite, engine: AbstractContextManager[ExecutorSetup], display: SuiteProgress
) -> list[JobResult]:
    """Run what is not finished, show and write the table, and return how each run ended. `engine`
    is entered only where there is something to run. Raises ValueError before anything is run where
    an experiment claims what can't be measured, the data can't be opened, or another suite writes
    the same page."""
    session = opened(suite, display)
    with session.alone():
        if session.unfinished:
            with engine as ready:
                session.run(ready, display)
        session.conclude(display)
    return session.ended


def commands(suite: Suite, device: str, display: SuiteProgress) -> list[str]:
    """A line for a shell for each run that is not finished, which does what the suite would do.
    Raises ValueError as `run_suite` does, and where a name has a line break, which xargs and SLURM
    would take for the end of a command."""
    lines = [shlex.join(command(job, suite, device)) for job in opened(suite, display).unfinished]
    broken = next((line for line in lines if len(line.splitlines()) > 1), "")
    if broken:
        raise ValueError(
            "--print-jobs writes a command a line, and this one has a line break in a name:"
            f" {broken!r}; rename it"
        )
    return lines


def command(job: Job, suite: Suite, device: str) -> list[str]:
    told = [
        *(["--demo"] if suite.profile == "demo" else []),
        *(part for value in suite.overrides for part in ("--set", value)),
    ]
    places = {
        "--data-dir": suite.data_dir,
        "--out": suite.out,
        "--cache-dir": suite.cache_dir,
        "--wandb": suite.wandb,
        "--device": device,
    }
    where = [
        part
        for option, value in places.items()
        if value is not None
        for part in (option, str(value))
    ]
    return [
        "dml-bench",
        "run",
        job.asked or job.experiment.name,
        *told,
        "--seeds",
        str(job.experiment.seed),
        *where,
    ]


def opened(suite: Suite, display: SuiteProgress) -> "SuiteSession":
    """The session of a suite that is checked, its data opened and its finished runs found."""
    jobs = in_order(list(suite.rows))
    for row in suite.rows:
        for expectation in row.written.expects:
            claim_in_words(row.written, expectation)
    with display:
        datasets = open_datasets(jobs, suite, display)
    session = SuiteSession(suite, jobs, datasets)
    session.look()
    return session


def open_datasets(jobs: Sequence[Job], suite: Suite, display: SuiteProgress) -> dict[str, Dataset]:
    """The data sets by the configuration that opens them; what they draw is drawn once, before the
    runs."""
    found: dict[str, Dataset] = {}
    for job in jobs:
        component = job.experiment.data.dataset
        if repr(component) not in found:
            found[repr(component)] = open_dataset(
                component, suite.data_dir, suite.cache_dir, display.progress
            )
    return found


class SuiteSession:
    """One call of a suite."""

    def __init__(self, suite: Suite, jobs: Sequence[Job], datasets: dict[str, Dataset]):
        self.suite = suite
        self.jobs = jobs
        self.datasets = datasets
        self.report = (
            suite.report
            or suite.out
            / "suite"
            / f"{suite.name}-{'+'.join(dict.fromkeys(each.name for each in datasets.values()))}"
        )
        self.runs: dict[Key, Run] = {}
        self.failures: dict[Key, str] = {}
        self.ended: list[JobResult] = []

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held from before the record is read until the page is written. Raises ValueError where
        another suite holds it."""
        self.report.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.report / ".lock").acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another suite is writing {self.report}: wait for it, or choose another folder"
                " with --report DIR"
            ) from None
        with held:
            self.record = record.SuiteRecord(self.report / "suite.json", self.suite.command)
            yield

    @property
    def unfinished(self) -> list[Job]:
        return [job for job in self.jobs if job.key not in self.runs]

    def look(self) -> None:
        """Find the runs that are finished already. One that can't be read is left to its process to
        complain about. Raises OtherData where one, finished or begun, is of other data: no table
        may mix them."""
        for job in self.jobs:
            try:
                if run := self.read(job):
                    self.runs[job.key] = run
                    self.ended.append(JobResult(job=job, status="finished earlier"))
            except OtherData:
                raise
            except ValueError:
                continue

    def read(self, job: Job) -> Run | None:
        return find_run(
            self.suite.out, job.experiment, self.datasets[repr(job.experiment.data.dataset)]
        )

    def run(self, engine: ExecutorSetup, display: SuiteProgress) -> None:
        """Run what is not finished, some at a time. On Ctrl-C what is known is kept, and
        KeyboardInterrupt goes on."""
        suite, jobs, slots, start, how = (
            self.suite,
            self.unfinished,
            engine.slots,
            time.perf_counter(),
            "stopped",
        )
        places = SuitePaths(
            suite.data_dir, suite.out, suite.cache_dir, suite.out / "suite" / "logs", suite.wandb
        )
        listener = SuiteListener(display, jobs, len(self.runs), slots.jobs, duration)
        self.record.begin(slots)
        display.say(describe(jobs, len(self.runs), slots))
        try:
            with display, closing(engine.crew(places, slots, listener).run(jobs)) as outcomes:
                for ended in outcomes:
                    self.keep(ended, listener)
            how = "complete"
        finally:
            self.record.write(self.facts(), time.perf_counter() - start, how)

    def keep(self, ended: JobResult, listener: SuiteListener) -> None:
        told = ""
        if ended.status == "finished":
            try:
                run = self.read(ended.job)
                assert run, "a run that says it is finished left no summary"
                self.runs[ended.job.key], told = run, numbers(run.summary)
            except ValueError as error:
                ended = replace(ended, status="failed", reason=str(error))
        if ended.status == "failed":
            self.failures[ended.job.key] = ended.reason
        self.ended.append(ended)
        self.record.add(ended)
        listener.tell(ended, told)

    def facts(self) -> dict[str, Any]:
        suite = self.suite
        runs = list(self.runs.values())
        return {
            "table": suite.name,
            "title": suite.title,
            "command": list(suite.command),
            "rows": [row.name for row in suite.rows],
            "seeds": sorted({experiment.seed for row in suite.rows for experiment in row.seeds}),
            "profile": suite.profile,
            "overrides": list(suite.overrides),
            "made_with": record.environments(runs),
            "failures": [
                {"experiment": name, "seed": seed, "reason": reason}
                for (name, seed), reason in self.failures.items()
            ],
        }

    def conclude(self, display: SuiteProgress) -> None:
        """Show the tables and write the page."""
        groups = grouped(self.suite.rows, self.runs, self.failures)
        runs = list(self.runs.values())
        report = page.SuiteReport(
            title=self.suite.title,
            command=self.suite.command,
            groups=groups,
            verdicts=self.verdicts(groups),
            runs=[self.scalars(job) for job in self.jobs],
            made_with=record.made_with(runs, self.record.sessions),
        )
        page.write(self.report, report)
        self.record.write(
            self.facts(), self.record.session["wall_seconds"], self.record.session["ended"]
        )
        page.show(display.console, report)
        display.say(f"results  {self.report}")

    def scalars(self, job: Job) -> dict[str, Any]:
        name, seed = job.key
        status = "finished" if job.key in self.runs else "failed"
        row = {
            "experiment": name,
            "seed": seed,
            "status": status,
            "reason": self.failures.get(job.key, ""),
        }
        return row | (record.scalars(self.runs[job.key].summary) if job.key in self.runs else {})

    def verdicts(self, groups: Sequence[Group]) -> list[ClaimResult]:
        of_row = {line.name: line.runs for group in groups for line in group.lines}
        elsewhere: dict[str, list[Run]] = {}

        def runs_of(name: str) -> Sequence[Run]:
            if name not in of_row and name not in elsewhere:
                elsewhere[name] = self.runs_outside(name)
            return of_row[name] if name in of_row else elsewhere[name]

        return [
            tested
            for row in self.suite.rows
            for tested in check_claims(row.written, of_row[row.name], runs_of)
        ]

    def runs_outside(self, name: str) -> list[Run]:
        """Finished runs of an experiment that is no row of this suite, by the same settings."""
        seeds = sorted({experiment.seed for row in self.suite.rows for experiment in row.seeds})
        found = []
        for seed in seeds:
            try:
                other = experiments.resolve(
                    name,
                    profile=self.suite.profile,
                    overrides=[*self.suite.overrides, f"seed={seed}"],
                )
                found.append(
                    find_run(self.suite.out, other, self.datasets[repr(other.data.dataset)])
                )
            except (ValueError, KeyError):
                continue
        return [run for run in found if run]


def describe(jobs: Sequence[Job], finished: int, slots: Slots) -> str:
    """What is about to happen."""
    earlier = f", {finished} are finished already" if finished else ""
    devices = "" if slots.devices == ("auto",) else f" on {', '.join(slots.devices)}"
    runs, threads = record.counted(len(jobs), "run"), record.counted(slots.threads, "thread")
    where = f", on {slots.where}" if slots.where else ""
    return f"{runs}{earlier}; {slots.jobs} at a time{devices}, {threads} each{where}"


def numbers(summary: dict[str, Any]) -> str:
    """The most telling numbers of a run, in a few words."""
    if summary["protocol"] == "class_disjoint":
        found = summary["retrieval"]
        return f"P@1 {number(found['precision_at_1_macro'])}, MAP@R {number(found['map_at_r'])}"
    both = " ".join(
        f"{phase} {number(value_at(summary, f'phases.{phase}.precision_at_1_macro'))}"
        for phase in ("all", "limited")
    )
    return f"P@1 {both}, drop unseen {number(summary['precision_drop_unseen_classes'], '+.3f')}"
