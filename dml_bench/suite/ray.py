"""Runs as tasks of a Ray cluster, each in the process that it has without Ray as well.

A task starts the process of its run (`worker_process.py`), passes on its events and returns how it
ended. A run that fails by itself is a result like any other; one whose process was killed, or whose
machine was lost, is begun again by Ray and goes on from its last epoch. All machines need the same
file system, the same packages and the images.
"""

import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from dml_bench.suite.executor import (
    Executor,
    ExecutorSetup,
    JobResult,
    Listener,
    Slots,
    Status,
    SuitePaths,
    Worker,
)
from dml_bench.suite.local import cores, threads_of
from dml_bench.suite.plan import Job
from dml_bench.suite.worker_process import start_run
from dml_bench.system.child_process import STOP_SECONDS, Event, stop_all
from dml_bench.system.counted import counted
from dml_bench.system.drafts import scratch
from dml_bench.system.failures import describe_error
from dml_bench.system.fork_server import ForkServer

__all__ = ["on_ray"]

TICK_SECONDS = 0.25
CONNECT_SECONDS = 10
RETRIES = 3
"""How often a run that was lost is begun again in one suite."""
STARTS = 3
"""How many times a start of Ray on this machine is tried."""
LOCK_SECONDS = 60.0
"""How long a run waits for the lock of its folder: the process that was lost may still be
ending."""
STORE_BYTES = 80 * 2**20
"""The smallest memory that Ray takes for values that tasks share: there are hardly any here."""


server = ForkServer()
"""Of each worker of Ray, which carries out one task after the other."""


class ProcessLost(Exception):
    """Somebody else ended the process of a run."""


class Mailbox:
    """Keeps the events of runs until the suite takes them: an actor on the suite's own machine."""

    def __init__(self) -> None:
        self.events: list[tuple[int, Event]] = []

    def put(self, number: int, event: Event) -> None:
        """Keep an event of the task with that number."""
        self.events.append((number, event))

    def take(self) -> list[tuple[int, Event]]:
        """All events since the last call."""
        events, self.events = self.events, []
        return events


def on_ray(
    address: str, jobs: int, device: str, gpus: float, say: Callable[[str], None]
) -> AbstractContextManager[ExecutorSetup]:
    """A Ray cluster that carries out runs; it is connected to when the context is entered.

    Args:
        address: `auto`, `local` or HOST:PORT.
        jobs: how many runs are carried out at a time; 0 means as many as there is room for.
        device: auto, cpu or cuda.
        gpus: the part of a GPU that each run gets, above 0 and at most 1.
        say: called with a sentence before something that takes long.

    Raises ValueError, now or on entering, with a message for people.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"--device must be cuda, cpu or auto with --ray, got {device}: Ray chooses the GPU of"
            " each run"
        )
    if not 0 < gpus <= 1:
        raise ValueError(
            f"--gpus-per-run must be more than 0 and at most 1, got {gpus:g}: give e.g. 0.5 for two"
            " runs on each GPU"
        )
    if find_spec("ray") is None:
        raise ValueError("--ray needs the package ray: pip install 'dml-bench[ray]'")
    return connected(address, jobs, device, gpus, say)


@contextmanager
def connected(
    address: str, jobs: int, device: str, gpus: float, say: Callable[[str], None]
) -> Iterator[ExecutorSetup]:
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    with ExitStack() as stack:
        if address == "local":
            say("starting Ray on this machine")
            start_local_cluster(max(cores(), jobs), stack)
        else:
            connect_to_cluster(address, stack)
        import ray

        slots = slots_of_cluster(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, device, gpus
        )
        yield ExecutorSetup(
            slots, partial(RayExecutor, gpus=gpus if slots.devices == ("cuda",) else 0)
        )


def start_local_cluster(num_cpus: int, stack: ExitStack) -> None:
    """Start a cluster on this machine, which listens on 127.0.0.1 only and leaves no files. It ends
    with `stack`."""
    # Where machines may join, Ray takes an outward address in place of 127.0.0.1.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    folder = stack.enter_context(scratch(Path("/tmp")))  # sockets need short paths
    stack.callback(ray.shutdown)
    options: dict[str, Any] = {
        "num_cpus": num_cpus,
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": str(folder),
        # Ray's memory monitor would kill runs where other programs fill the memory.
        "_system_config": {"memory_monitor_refresh_ms": 0},
    }
    for tries_left in reversed(range(STARTS)):
        try:
            ray.init(address="local", log_to_driver=False, logging_level="error", **options)
            return
        # Ray waits 30 seconds, which a busy machine may need, and then raises a plain Exception.
        except Exception as error:
            if "timed out" not in str(error):
                raise
            if not tries_left:
                raise ValueError(
                    "--ray local: Ray did not start in time: try again when this machine is less"
                    " busy"
                ) from None


def connect_to_cluster(address: str, stack: ExitStack) -> None:
    """Connect to a cluster that runs already. Raises ValueError where none answers."""
    import ray

    host_and_port = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        if host_and_port:
            # Ray itself would try for minutes and then end this process.
            host, _, port = host_and_port.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        stack.callback(ray.shutdown)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"--ray {address}: no Ray cluster answers ({error}); give the HOST:PORT that `ray start"
            " --head` showed, set RAY_AUTH_MODE=token if it asks for a token, or --ray local"
        ) from None


def slots_of_cluster(
    machines: Sequence[dict[str, float]], jobs: int, device: str, gpus: float
) -> Slots:
    """How many runs at a time, and with how many threads; 0 `jobs` means as many as there is room
    for.

    All runs get the same device and number of threads, so that they can be compared: those of a run
    on the fullest machine. Unless `jobs` says more, two runs share a machine without GPUs. Raises
    ValueError where no machine has the device.

    Args:
        machines: the number of `CPU` and `GPU` of each.
    """
    if device == "auto":
        device = "cuda" if any(machine.get("GPU") for machine in machines) else "cpu"

    def most_by_gpu(machine: dict[str, float]) -> float:
        """How many runs the GPUs of a machine can take."""
        if device != "cuda":
            return math.inf
        return int(machine.get("GPU", 0) / gpus + 1e-6)

    usable = [
        machine for machine in machines if machine.get("CPU", 0) >= 1 and most_by_gpu(machine)
    ]
    if not usable:
        needed = "a GPU and a core" if device == "cuda" else "a core"
        raise ValueError(f"no machine of the Ray cluster has {needed} to give")
    usual = -(-jobs // len(usable)) or (math.inf if device == "cuda" else 2)
    shares = []
    for machine in usable:
        runs = int(min(usual, most_by_gpu(machine), machine["CPU"]))
        shares.append(threads_of(int(machine["CPU"]), runs))
    threads = min(shares)
    room = sum(min(machine["CPU"] // threads, most_by_gpu(machine)) for machine in usable)
    where = f"a Ray cluster of {counted(len(usable), 'machine')}"
    return Slots(jobs or int(room), (device,), threads, where)


@dataclass(kw_only=True)
class RayWorker(Worker):
    """A task of Ray, which carries out one run."""

    result: Any
    """Ray's reference to what the task returns."""
    begun_at: float = 0.0
    """The time of its first event; 0 while it waits for a machine."""


class RayExecutor(Executor):
    """Carries out each run in a task; Ray chooses the machines."""

    def __init__(self, paths: SuitePaths, slots: Slots, listener: Listener, *, gpus: float):
        super().__init__(paths, slots, listener)
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.numbers = count()
        self.tasks: dict[int, RayWorker] = {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.mailbox = (
            ray.remote(Mailbox)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote()
        )
        self.run_task = ray.remote(
            num_cpus=slots.threads,
            num_gpus=gpus,
            max_calls=0,  # else Ray ends a worker with each task that has a GPU
            max_retries=RETRIES,
            retry_exceptions=[ProcessLost],
            scheduling_strategy="SPREAD",
        )(perform)

    def working(self) -> list[Worker]:
        return list(self.tasks.values())

    def start(self, job: Job) -> None:
        number, job_spec = next(self.numbers), self.paths.job_spec(job, self.slots.devices[0])
        job_spec["patience_seconds"] = LOCK_SECONDS
        task = self.run_task.options(name=str(job))
        result = task.remote(
            number, job_spec, self.paths.log(job), self.slots.threads, Path.cwd(), self.mailbox
        )
        self.tasks[number] = RayWorker(job=job, result=result)

    def hear(self) -> Iterator[JobResult]:
        import ray

        known = {task.result: number for number, task in self.tasks.items()}
        ended, _ = ray.wait(list(known), timeout=TICK_SECONDS)
        # After the wait: a task that has ended has put all its events into the mailbox.
        for number, event in ray.get(self.mailbox.take.remote()):
            if number in self.tasks:
                self._take(self.tasks[number], event)
        for result in ended:
            yield result_of(self._begun(self.tasks.pop(known[result])))
        self.listener.tick()

    def _take(self, task: RayWorker, event: Event) -> None:
        if event["event"] != "begun":
            self.pass_on(self._begun(task), event)
        elif task.begun_at:
            task.prepared = False
            text = f"its process was lost; the run goes on, on {event['host']}"
            self.pass_on(task, {"event": "note", "text": text})
        else:
            self._begun(task)

    def _begun(self, task: RayWorker) -> RayWorker:
        if not task.begun_at:
            task.begun_at = time.monotonic()
            self.listener.on_start(task.job)
        return task

    def stop(self) -> None:
        import ray

        left = [task.result for task in self.tasks.values()]
        try:
            for result in left:
                ray.cancel(result)
            _, left = ray.wait(left, num_returns=len(left), timeout=STOP_SECONDS + 5)
        except KeyboardInterrupt:
            pass
        finally:
            # Not those that have ended: cancelling them once more can make Ray abort this process.
            for result in left:
                ray.cancel(result, force=True)


def result_of(task: RayWorker) -> JobResult:
    """How a task came out that has ended."""
    import ray

    try:
        reason = ray.get(task.result)
    except ProcessLost as lost:
        reason = f"lost {RETRIES + 1} times, at last {lost.args[0]}"
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        reason = describe_error(cause) or f"{type(cause).__name__}: {cause}".partition("\n")[0]
    except ray.exceptions.RayError as error:
        reason = f"Ray gave it up: {str(error).strip().partition(chr(10))[0]}"
    seconds = time.monotonic() - task.begun_at
    status: Status = "failed" if reason else "finished"
    return JobResult(job=task.job, status=status, seconds=seconds, reason=reason)


def perform(
    number: int, job_spec: dict[str, Any], log: Path, threads: int, folder: Path, mailbox: Any
) -> str:
    """The task: a run in a process of its own. Returns why it failed, and nothing where it
    finished. Raises Lost where it was ended."""
    import ray

    host = socket.gethostname()
    if not folder.is_dir():
        return f"{host} has no folder {folder}: on Ray, all machines need the suite's file system"
    os.chdir(folder)
    process = start_run(job_spec, log, threads, server)
    posted = [mailbox.put.remote(number, {"event": "begun", "host": host})]

    def pass_on() -> None:
        for event in process.events():
            posted[0] = mailbox.put.remote(number, event)

    listening = threading.Thread(target=pass_on, daemon=True)
    try:
        listening.start()
        while listening.is_alive():
            listening.join(TICK_SECONDS)  # Ray cancels a task between two waits
        reason = process.wait()
        ray.get(posted)  # all is delivered before the run is known to have ended
    finally:
        stop_all([process])
    if process.lost:
        raise ProcessLost(reason)
    return reason
