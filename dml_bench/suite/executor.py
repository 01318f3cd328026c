"""What a suite asks of whatever carries out its runs: here in processes (`scheduler.py`), or on a
Ray cluster (`cluster.py`)."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dml_bench.config import as_table
from dml_bench.suite.plan import Job

__all__ = [
    "Event",
    "Executor",
    "ExecutorSetup",
    "JobResult",
    "Listener",
    "Slots",
    "SuitePaths",
    "Worker",
]

Event = dict[str, Any]
Status = Literal["finished", "finished earlier", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class SuitePaths:
    """Where all runs of a suite read and write."""

    data_dir: Path | None
    out: Path
    cache_dir: Path
    logs: Path
    wandb: str

    def log(self, job: Job) -> Path:
        return (
            self.logs
            / job.experiment.name
            / f"{job.experiment.data.dataset.name}-seed-{job.experiment.seed}.log"
        )

    def job_spec(self, job: Job, device: str) -> dict[str, Any]:
        """What the process of a run is told (`child.py`)."""
        return {
            "title": str(job),
            "experiment": as_table(job.experiment),
            "data_dir": str(self.data_dir) if self.data_dir else None,
            "out": str(self.out),
            "cache_dir": str(self.cache_dir),
            "device": device,
            "wandb": self.wandb,
            "command": sys.argv,
        }


@dataclass(frozen=True, slots=True)
class Slots:
    """How many runs at a time, and on what."""

    jobs: int
    devices: tuple[str, ...]
    """Shared round robin."""
    threads: int
    """Of each process."""
    where: str = ""
    """In words, where it is not this machine alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """How a run came out."""

    job: Job
    status: Status
    seconds: float = 0.0
    reason: str = ""


class Listener:
    """Hears how the suite goes on; a terminal overrides what it wants to show."""

    def started(self, job: Job) -> None: ...

    def heard(self, job: Job, event: Event) -> None: ...

    def ended(self, ended: JobResult) -> None: ...

    def tick(self) -> None:
        """Some time has passed."""


@dataclass(kw_only=True)
class Worker:
    """Whoever is at work on one run."""

    job: Job
    prepared: bool = False
    """Whether the images lie decoded on the disk."""


class Executor(ABC):
    """Carries out runs, some at a time: one that fails, hangs up or is killed takes no other with
    it."""

    def __init__(self, places: SuitePaths, slots: Slots, listener: Listener):
        self.places = places
        self.slots = slots
        self.listener = listener
        self.prepared: set[str] = set()

    def run(self, jobs: list[Job]) -> Generator[JobResult, None, None]:
        """Run all jobs in their order and yield how each ended. On the way out, however that comes,
        nobody is left at work."""
        waiting = list(jobs)
        try:
            while waiting or self.working():
                while waiting and self.may_start(waiting[0]):
                    self.start(waiting.pop(0))
                for ended in self.hear():
                    self.listener.ended(ended)
                    yield ended
        finally:
            if self.working():
                self.stop()

    def may_start(self, job: Job) -> bool:
        """Whether a slot is free, and no other run might be decoding the very images that this one
        would decode."""
        if len(self.working()) >= self.slots.jobs:
            return False
        return preparation(job) in self.prepared or all(
            worker.prepared for worker in self.working()
        )

    def pass_on(self, worker: Worker, event: Event) -> None:
        if event["event"] == "plan":
            worker.prepared = True
            self.prepared.add(preparation(worker.job))
        self.listener.heard(worker.job, event)
        self.listener.tick()

    @abstractmethod
    def working(self) -> list[Worker]: ...

    @abstractmethod
    def start(self, job: Job) -> None: ...

    @abstractmethod
    def hear(self) -> Iterator[JobResult]:
        """Wait a moment for what happens, pass it on, and yield the runs that ended."""

    @abstractmethod
    def stop(self) -> None:
        """Ask everyone at work to end, then make them; a second Ctrl-C makes them at once."""


@dataclass(frozen=True, slots=True)
class ExecutorSetup:
    """Ready to carry out runs."""

    slots: Slots
    crew: Callable[[SuitePaths, Slots, Listener], Executor]


def preparation(job: Job) -> str:
    """Equal for runs that need the same decoded images."""
    table = as_table(job.experiment)
    return json.dumps([table[part] for part in ("data", "images", "augment")], sort_keys=True)
