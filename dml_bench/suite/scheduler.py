"""Runs in processes of their own, some at a time: one that fails, hangs up or is killed takes no other with it."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from dml_bench.config import as_table
from dml_bench.suite.rows import Job

__all__ = ["Ended", "Listener", "Places", "Slots", "cores", "run_jobs", "slots_of", "threads_of"]

PROGRAM = (sys.executable, "-m", "dml_bench.suite.child")
STOP_SECONDS = 15
"""From asking the processes to stop to killing them."""
TICK_SECONDS = 0.25

Event = dict[str, Any]
Status = Literal["finished", "finished earlier", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class Places:
    """Where all runs of a suite read and write."""

    data_dir: Path | None
    out: Path
    cache_dir: Path
    logs: Path
    wandb: str


@dataclass(frozen=True, slots=True)
class Slots:
    """How many runs at a time, and on what."""

    jobs: int
    devices: tuple[str, ...]
    """Shared round robin."""
    threads: int
    """Of each process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a run came out."""

    job: Job
    status: Status
    seconds: float = 0.0
    reason: str = ""


class Listener:
    """Hears how the suite goes on; a terminal overrides what it wants to show."""

    def started(self, job: Job) -> None: ...

    def heard(self, job: Job, event: Event) -> None: ...

    def ended(self, ended: Ended) -> None: ...

    def tick(self) -> None:
        """Some time has passed."""


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots_of(jobs: int, device: str, devices: str) -> Slots:
    """How many runs at a time on which devices; 0 `jobs`: one per device, or 2 on a CPU with more than one core.

    Raises ValueError where a device is not there.
    """
    if devices and device != "auto":
        raise ValueError(f"--devices and --device {device} contradict each other: give one of them")
    chosen = tuple(part.strip() for part in devices.split(",")) if devices else (device,)
    on_cpu = all(name == "cpu" for name in chosen)
    if not on_cpu:
        from dml_bench.training.run import choose_device  # brings torch, which a suite on a CPU does without

        on_cpu = [choose_device(name).type for name in chosen] == ["cpu"]
    count = jobs or (min(2, cores()) if on_cpu else len(chosen))
    return Slots(count, chosen, threads_of(count))


def threads_of(jobs: int) -> int:
    """An equal share of the cores for each process, and not more than OMP_NUM_THREADS where that is set."""
    share = max(1, cores() // jobs)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wanted)) if wanted.isdecimal() and int(wanted) else share


@dataclass
class Worker:
    """One process at work on one run."""

    job: Job
    process: subprocess.Popen[str]
    log: Path
    started_at: float
    prepared: bool = False
    """Whether the images lie decoded on the disk."""
    last: Event = field(default_factory=dict)
    """What the process said at the end, if it did."""


def run_jobs(jobs: list[Job], places: Places, slots: Slots, listener: Listener) -> Generator[Ended, None, None]:
    """Run all jobs in their order and yield how each ended. On the way out, however that comes, no process is left behind."""
    scheduler = Scheduler(places, slots, listener)
    with scheduler.cleared_up():
        waiting = list(jobs)
        while waiting or scheduler.working:
            while waiting and scheduler.may_start(waiting[0]):
                scheduler.start(waiting.pop(0))
            yield from scheduler.hear()


class Scheduler:
    def __init__(self, places: Places, slots: Slots, listener: Listener):
        self.places = places
        self.slots = slots
        self.listener = listener
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.working: dict[int, Worker] = {}
        """By slot."""
        self.prepared: set[str] = set()

    def may_start(self, job: Job) -> bool:
        """Whether a slot is free, and no other process might be decoding the very images that this run would decode."""
        if len(self.working) >= self.slots.jobs:
            return False
        return preparation(job) in self.prepared or all(worker.prepared for worker in self.working.values())

    def start(self, job: Job) -> None:
        slot = min(set(range(self.slots.jobs)) - self.working.keys())
        log = self.places.logs / job.experiment.name / f"{job.experiment.data.dataset.name}-seed-{job.experiment.seed}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = str(self.slots.threads)
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{job}, begun {datetime.now(UTC).isoformat(timespec='seconds')}\n")
            file.flush()
            process = subprocess.Popen(
                PROGRAM,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        self.working[slot] = Worker(job, process, log, time.monotonic())
        self.listener.started(job)
        self._order(process, job, self.slots.devices[slot % len(self.slots.devices)])
        threading.Thread(target=self._listen, args=(slot, process), daemon=True).start()

    def _order(self, process: subprocess.Popen[str], job: Job, device: str) -> None:
        order = {
            "experiment": as_table(job.experiment),
            "data_dir": str(self.places.data_dir) if self.places.data_dir else None,
            "out": str(self.places.out),
            "cache_dir": str(self.places.cache_dir),
            "device": device,
            "wandb": self.places.wandb,
            "command": sys.argv,
        }
        assert process.stdin
        with suppress(BrokenPipeError):  # it is dead already, which its end will tell
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()

    def _listen(self, slot: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            try:
                self.events.put((slot, json.loads(line)))
            except ValueError:
                continue  # half a line of a process that was killed
        self.events.put((slot, None))

    def hear(self) -> Iterator[Ended]:
        """Wait a moment for events, pass them on, and yield the runs that ended."""
        try:
            slot, event = self.events.get(timeout=TICK_SECONDS)
        except queue.Empty:
            self.listener.tick()
            return
        worker = self.working[slot]
        if event is None:
            ended = self._end(self.working.pop(slot))
            self.listener.ended(ended)
            yield ended
        elif event["event"] in ("finished", "failed"):
            worker.last = event
        else:
            if event["event"] == "plan":
                worker.prepared = True
                self.prepared.add(preparation(worker.job))
            self.listener.heard(worker.job, event)
            self.listener.tick()

    def _end(self, worker: Worker) -> Ended:
        code = worker.process.wait()
        close(worker.process)
        seconds = time.monotonic() - worker.started_at
        if worker.last.get("event") == "finished":
            return Ended(job=worker.job, status="finished", seconds=seconds)
        return Ended(job=worker.job, status="failed", seconds=seconds, reason=why(code, worker))

    @contextmanager
    def cleared_up(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self.working:
                self._stop()

    def _stop(self) -> None:
        """Ask all processes to end, then make them; a second Ctrl-C makes them at once."""
        workers = list(self.working.values())
        try:
            for worker in workers:
                assert worker.process.stdin
                worker.process.stdin.close()
            deadline = time.monotonic() + STOP_SECONDS
            for worker in workers:
                worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
                close(worker.process)


def preparation(job: Job) -> str:
    """Equal for runs that need the same decoded images."""
    table = as_table(job.experiment)
    return json.dumps([table[part] for part in ("data", "images", "augment")], sort_keys=True)


def close(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe
        with suppress(BrokenPipeError):
            pipe.close()


def why(code: int, worker: Worker) -> str:
    """The reason of a failure in one line."""
    last = worker.last
    if last.get("expected"):
        return str(last["text"])
    if last:
        return f"{last['kind']}: {last['text']} (traceback in {worker.log})"
    if code == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code} before it was finished (see {worker.log})"
