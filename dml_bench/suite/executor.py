"""What a suite asks of whatever carries out its runs: processes of this machine (`local.py`), or a
Ray cluster (`ray.py`)."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dml_bench.config import as_table
from dml_bench.registry.plugins import allowed_here
from dml_bench.suite.plan import Job
from dml_bench.system.child_process import Event

__all__ = [
    "Executor",
    "ExecutorSetup",
    "JobResult",
    "Listener",
    "Slots",
    "Status",
    "SuitePaths",
    "Worker",
]

Status = Literal["finished", "finished earlier", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class SuitePaths:
    """Where all runs of a suite read and write."""

    data_dir: Path | None
    """The folder of the images; None where the data set is drawn."""
    out: Path
    cache_dir: Path
    logs: Path
    wandb: str

    def log(self, job: Job) -> Path:
        """The file that takes what the process of a run prints."""
        experiment = job.experiment
        name = f"{experiment.data.dataset.name}-seed-{experiment.seed}.log"
        return self.logs / experiment.name / name

    def job_spec(self, job: Job, device: str) -> dict[str, Any]:
        """What the process of a run needs to know, as JSON (`worker.py`)."""
        return {
            "title": str(job),
            "experiment": as_table(job.experiment),
            "allowed_plugins": allowed_here(job.experiment.plugin_records),
            "data_dir": str(self.data_dir) if self.data_dir else None,
            "out": str(self.out),
            "cache_dir": str(self.cache_dir),
            "device": device,
            "wandb": self.wandb,
            "command": sys.argv,
        }


@dataclass(frozen=True, slots=True)
class Slots:
    """How many runs are carried out at a time, and on what."""

    jobs: int
    devices: tuple[str, ...]
    """The runs take them in turn."""
    threads: int
    """Each process has so many."""
    where: str = ""
    """A description of the machines; empty for this machine alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """How a run came out."""

    job: Job
    status: Status
    seconds: float = 0.0
    reason: str = ""


class Listener:
    """Called as the suite goes on; a terminal overrides what it wants to show."""

    def on_start(self, job: Job) -> None:
        """A run has begun."""

    def on_event(self, job: Job, event: Event) -> None:
        """The process of a run has sent an event."""

    def on_end(self, result: JobResult) -> None:
        """A run has ended."""

    def tick(self) -> None:
        """Some time has passed."""


@dataclass(kw_only=True)
class Worker:
    """What carries out one run."""

    job: Job
    prepared: bool = False
    """Whether the decoded images are on the disk."""


class Executor(ABC):
    """Carries out runs, some at a time. A run that fails, hangs or is killed doesn't disturb the
    others."""

    def __init__(self, paths: SuitePaths, slots: Slots, listener: Listener):
        self.paths = paths
        self.slots = slots
        self.listener = listener
        self.prepared: set[str] = set()

    def run(self, jobs: list[Job]) -> Generator[JobResult, None, None]:
        """Run all jobs in their order and yield how each ended. When it ends, even by an error, no
        worker is left running."""
        waiting = list(jobs)
        try:
            while waiting or self.working():
                while waiting and self.may_start(waiting[0]):
                    self.start(waiting.pop(0))
                for result in self.hear():
                    self.listener.on_end(result)
                    yield result
        finally:
            if self.working():
                self.stop()

    def may_start(self, job: Job) -> bool:
        """Whether a slot is free, and no other run may be decoding the images that this run needs
        decoded."""
        if len(self.working()) >= self.slots.jobs:
            return False
        return preparation_key(job) in self.prepared or all(
            worker.prepared for worker in self.working()
        )

    def pass_on(self, worker: Worker, event: Event) -> None:
        """Tell the listener of an event."""
        if event["event"] == "plan":
            worker.prepared = True
            self.prepared.add(preparation_key(worker.job))
        self.listener.on_event(worker.job, event)
        self.listener.tick()

    @abstractmethod
    def working(self) -> list[Worker]:
        """The workers that carry out a run now."""

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a run."""

    @abstractmethod
    def hear(self) -> Iterator[JobResult]:
        """Wait a moment for what happens, pass it on, and yield the runs that ended."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all workers to end, then kill those that don't; a second Ctrl-C kills them at
        once."""


@dataclass(frozen=True, slots=True)
class ExecutorSetup:
    """What is needed to make an executor."""

    slots: Slots
    make_executor: Callable[[SuitePaths, Slots, Listener], Executor]


def preparation_key(job: Job) -> str:
    """A text that is equal for runs that need the same decoded images."""
    table = as_table(job.experiment)
    return json.dumps([table[part] for part in ("data", "images", "augment")], sort_keys=True)
