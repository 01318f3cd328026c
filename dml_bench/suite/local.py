"""Runs in processes of this machine, some at a time."""

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from dml_bench.suite.executor import (
    Executor,
    JobResult,
    Listener,
    Slots,
    Status,
    SuitePaths,
    Worker,
)
from dml_bench.suite.plan import Job
from dml_bench.suite.worker_process import start_run
from dml_bench.system.child_process import ChildProcess, Event, stop_all
from dml_bench.system.fork_server import ForkServer

__all__ = ["LocalExecutor", "cores", "run_jobs", "slots_of", "threads_of"]

TICK_SECONDS = 0.25


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slots_of(jobs: int, device: str, devices: str) -> Slots:
    """How many runs at a time, and on which devices. With 0 `jobs`, one per device, or 2 on a CPU
    with more than one core.

    Raises ValueError where a device is not there.
    """
    if devices and device != "auto":
        raise ValueError(f"--devices and --device {device} contradict each other: give one of them")
    chosen: tuple[str, ...] = (str(device),)
    if devices:
        chosen = tuple(name.strip() for name in devices.split(","))
    on_cpu = all(name == "cpu" for name in chosen)
    if not on_cpu:
        # late: it brings torch, which a suite on a CPU does without
        from dml_bench.system.devices import choose_device

        on_cpu = [choose_device(name).type for name in chosen] == ["cpu"]
        if on_cpu:
            chosen = ("cpu",)
    usual_jobs = min(2, cores()) if on_cpu else len(chosen)
    count = jobs or usual_jobs
    return Slots(count, chosen, threads_of(cores(), count))


def threads_of(cores: int, jobs: int) -> int:
    """An equal share of a machine's cores for each process, and not more than OMP_NUM_THREADS where
    that is set."""
    share = max(1, cores // jobs)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdecimal() and int(limit):
        return min(share, int(limit))
    return share


def run_jobs(
    jobs: list[Job], paths: SuitePaths, slots: Slots, listener: Listener
) -> Generator[JobResult, None, None]:
    """Run all jobs in their order and yield how each ended. When it ends, even by an error, no
    process is left running."""
    return LocalExecutor(paths, slots, listener).run(jobs)


@dataclass(kw_only=True)
class LocalWorker(Worker):
    """A process of this machine, which carries out one run."""

    process: ChildProcess
    started_at: float


class LocalExecutor(Executor):
    """Carries out each run in a process of this machine."""

    def __init__(self, paths: SuitePaths, slots: Slots, listener: Listener):
        super().__init__(paths, slots, listener)
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.workers: dict[int, LocalWorker] = {}
        """The workers by the number of their slot."""
        self.server = ForkServer()

    def run(self, jobs: list[Job]) -> Generator[JobResult, None, None]:
        with self.server:
            yield from super().run(jobs)

    def working(self) -> list[Worker]:
        return list(self.workers.values())

    def start(self, job: Job) -> None:
        slot = min(set(range(self.slots.jobs)) - self.workers.keys())
        job_spec = self.paths.job_spec(job, self.slots.devices[slot % len(self.slots.devices)])
        process = start_run(job_spec, self.paths.log(job), self.slots.threads, self.server)
        self.workers[slot] = LocalWorker(job=job, process=process, started_at=time.monotonic())
        self.listener.on_start(job)
        threading.Thread(target=self._listen, args=(slot, process), daemon=True).start()

    def _listen(self, slot: int, process: ChildProcess) -> None:
        for event in process.events():
            self.events.put((slot, event))
        self.events.put((slot, None))

    def hear(self) -> Iterator[JobResult]:
        try:
            slot, event = self.events.get(timeout=TICK_SECONDS)
        except queue.Empty:
            self.listener.tick()
            return
        if event is None:
            yield result_of(self.workers.pop(slot))
        else:
            self.pass_on(self.workers[slot], event)

    def stop(self) -> None:
        stop_all([worker.process for worker in self.workers.values()])


def result_of(worker: LocalWorker) -> JobResult:
    """How a run came out whose process has said its last."""
    reason = worker.process.wait()
    seconds = time.monotonic() - worker.started_at
    status: Status = "failed" if reason else "finished"
    return JobResult(job=worker.job, status=status, seconds=seconds, reason=reason)
