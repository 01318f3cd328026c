"""Runs in processes of this machine, some at a time."""

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from dml_bench.suite.executor import Event, Executor, JobResult, Listener, Slots, SuitePaths, Worker
from dml_bench.suite.plan import Job
from dml_bench.suite.worker_process import RunProcess, stop_all

__all__ = ["Processes", "cores", "run_jobs", "slots_of", "threads_of"]

TICK_SECONDS = 0.25


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def slots_of(jobs: int, device: str, devices: str) -> Slots:
    """How many runs at a time on which devices; 0 `jobs`: one per device, or 2 on a CPU with more
    than one core.

    Raises ValueError where a device is not there.
    """
    if devices and device != "auto":
        raise ValueError(f"--devices and --device {device} contradict each other: give one of them")
    chosen = tuple(part.strip() for part in devices.split(",")) if devices else (device,)
    on_cpu = all(name == "cpu" for name in chosen)
    if not on_cpu:
        from dml_bench.system.devices import (
            choose_device,  # brings torch, which a suite on a CPU does without
        )

        on_cpu = [choose_device(name).type for name in chosen] == ["cpu"]
    count = jobs or (min(2, cores()) if on_cpu else len(chosen))
    return Slots(count, chosen, threads_of(cores(), count))


def threads_of(cores: int, jobs: int) -> int:
    """An equal share of a machine's cores for each process, and not more than OMP_NUM_THREADS where
    that is set."""
    share = max(1, cores // jobs)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wanted)) if wanted.isdecimal() and int(wanted) else share


def run_jobs(
    jobs: list[Job], places: SuitePaths, slots: Slots, listener: Listener
) -> Generator[JobResult, None, None]:
    """Run all jobs in their order and yield how each ended. On the way out, however that comes, no
    process is left behind."""
    return Processes(places, slots, listener).run(jobs)


@dataclass(kw_only=True)
class Child(Worker):
    """One process at work on one run."""

    process: RunProcess
    started_at: float


class Processes(Executor):
    """One process a run, on this machine."""

    def __init__(self, places: SuitePaths, slots: Slots, listener: Listener):
        super().__init__(places, slots, listener)
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.children: dict[int, Child] = {}
        """By slot."""

    def working(self) -> list[Worker]:
        return list(self.children.values())

    def start(self, job: Job) -> None:
        slot = min(set(range(self.slots.jobs)) - self.children.keys())
        order = self.places.job_spec(job, self.slots.devices[slot % len(self.slots.devices)])
        started = RunProcess(order, self.places.log(job), self.slots.threads)
        self.children[slot] = Child(job=job, process=started, started_at=time.monotonic())
        self.listener.started(job)
        threading.Thread(target=self._listen, args=(slot, started), daemon=True).start()

    def _listen(self, slot: int, started: RunProcess) -> None:
        for event in started.events():
            self.events.put((slot, event))
        self.events.put((slot, None))

    def hear(self) -> Iterator[JobResult]:
        try:
            slot, event = self.events.get(timeout=TICK_SECONDS)
        except queue.Empty:
            self.listener.tick()
            return
        if event is None:
            yield ending(self.children.pop(slot))
        else:
            self.pass_on(self.children[slot], event)

    def stop(self) -> None:
        stop_all([child.process for child in self.children.values()])


def ending(child: Child) -> JobResult:
    reason = child.process.wait()
    seconds = time.monotonic() - child.started_at
    return JobResult(
        job=child.job, status="failed" if reason else "finished", seconds=seconds, reason=reason
    )
