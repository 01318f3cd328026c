"""Runs as tasks of a Ray cluster, each in the process that it has without Ray as well.

A task starts the process of its run (`process.py`), passes on what it says and returns how it
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
    Event,
    Executor,
    ExecutorSetup,
    JobResult,
    Listener,
    Slots,
    SuitePaths,
    Worker,
)
from dml_bench.suite.local import cores, threads_of
from dml_bench.suite.plan import Job
from dml_bench.suite.record import counted
from dml_bench.suite.worker_process import STOP_SECONDS, RunProcess, stop_all
from dml_bench.system.drafts import scratch
from dml_bench.system.failures import in_words

__all__ = ["on_ray"]

TICK_SECONDS = 0.25
CONNECT_SECONDS = 10
RETRIES = 3
"""How often a run that was lost is begun again in one suite."""
STARTS = 3
"""How often it is tried to start Ray here."""
LOCK_SECONDS = 60.0
"""How long a run waits for the lock of its folder: a process that lost its machine may still be
dying."""
STORE_BYTES = 80 * 2**20
"""Ray's memory for values that tasks share, of which there are hardly any: its smallest."""


class Lost(Exception):
    """Somebody ended the process of a run."""


class Mailbox:
    """What runs say until the suite takes it: an actor on the suite's own machine."""

    def __init__(self) -> None:
        self.letters: list[tuple[int, Event]] = []

    def put(self, number: int, event: Event) -> None:
        self.letters.append((number, event))

    def take(self) -> list[tuple[int, Event]]:
        letters, self.letters = self.letters, []
        return letters


def on_ray(
    address: str, jobs: int, device: str, gpus: float, say: Callable[[str], None]
) -> AbstractContextManager[ExecutorSetup]:
    """A cluster that carries out runs, connected to when the context is entered: `auto`, `local` or
    HOST:PORT.

    Args:
        jobs: runs at a time; 0: as many as there is room for.
        device: auto, cpu or cuda.
        gpus: part of a GPU for each run, above 0 and at most 1.
        say: is told what takes its time.

    Raises ValueError, now or on entering, in words for people.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"--device {device}: Ray says which GPU a run gets; --device cuda, cpu or auto"
        )
    if not 0 < gpus <= 1:
        raise ValueError(
            f"--gpus-per-run {gpus:g}: more than 0 and at most 1 is wanted, e.g. 0.5 for two runs"
            " on each GPU"
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
            begin_here(max(cores(), jobs), stack)
        else:
            join(address, stack)
        import ray

        slots = room(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], jobs, device, gpus
        )
        yield ExecutorSetup(slots, partial(Tasks, gpus=gpus if slots.devices == ("cuda",) else 0))


def begin_here(num_cpus: int, stack: ExitStack) -> None:
    """A cluster of this machine, which listens on 127.0.0.1 only and leaves no files; it ends with
    `stack`."""
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
        "_system_config": {
            "memory_monitor_refresh_ms": 0
        },  # would kill runs where other programs fill the memory
    }
    for left in reversed(range(STARTS)):
        try:
            ray.init(address="local", log_to_driver=False, logging_level="error", **options)
            return
        except (
            Exception
        ) as error:  # Ray has no other for its 30 seconds, which a busy machine may take
            if "timed out" not in str(error):
                raise
            if not left:
                raise ValueError(
                    "--ray local: Ray did not start in time: try again when this machine is less"
                    " busy"
                ) from None


def join(address: str, stack: ExitStack) -> None:
    """Raises ValueError where no cluster answers."""
    import ray

    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    try:
        if place:
            host, _, port = place.rpartition(":")
            socket.create_connection(
                (host, int(port)), timeout=CONNECT_SECONDS
            ).close()  # Ray tries for minutes, then ends the process
        stack.callback(ray.shutdown)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"--ray {address}: no Ray cluster answers ({error}); give the HOST:PORT that `ray start"
            " --head` showed, set RAY_AUTH_MODE=token if it asks for a token, or --ray local"
        ) from None


def room(machines: Sequence[dict[str, float]], jobs: int, device: str, gpus: float) -> Slots:
    """How many runs at a time, and with how many threads; 0 `jobs`: as many as there is room for.

    All runs get the same device and number of threads, so that they can be compared: what each has
    where most share a machine. Unless `jobs` says more, two share a machine without GPUs. Raises
    ValueError where no machine has the device.

    Args:
        machines: `CPU` and `GPU` of each.
    """
    if device == "auto":
        device = "cuda" if any(machine.get("GPU") for machine in machines) else "cpu"

    def by_gpu(machine: dict[str, float]) -> float:
        return int(machine.get("GPU", 0) / gpus + 1e-6) if device == "cuda" else math.inf

    fit = [machine for machine in machines if machine.get("CPU", 0) >= 1 and by_gpu(machine)]
    if not fit:
        raise ValueError(
            f"no machine of the Ray cluster has {'a GPU and ' if device == 'cuda' else ''}a core to"
            " give"
        )
    usual = -(-jobs // len(fit)) or (math.inf if device == "cuda" else 2)
    threads = min(
        threads_of(int(each["CPU"]), int(min(usual, by_gpu(each), each["CPU"]))) for each in fit
    )
    places = sum(min(each["CPU"] // threads, by_gpu(each)) for each in fit)
    return Slots(
        jobs or int(places), (device,), threads, f"a Ray cluster of {counted(len(fit), 'machine')}"
    )


@dataclass(kw_only=True)
class Task(Worker):
    """One run given to Ray."""

    result: Any
    """The reference of its last event."""
    begun_at: float = 0.0
    """When it was first heard of; 0 while it waits for a machine."""


class Tasks(Executor):
    """One task a run; Ray finds the machines."""

    def __init__(self, places: SuitePaths, slots: Slots, listener: Listener, *, gpus: float):
        super().__init__(places, slots, listener)
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.numbers = count()
        self.tasks: dict[int, Task] = {}
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.mailbox = (
            ray.remote(Mailbox)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote()
        )
        self.perform = ray.remote(
            num_cpus=slots.threads,
            num_gpus=gpus,
            max_retries=RETRIES,
            retry_exceptions=[Lost],
            scheduling_strategy="SPREAD",
        )(perform)

    def working(self) -> list[Worker]:
        return list(self.tasks.values())

    def start(self, job: Job) -> None:
        number, order = next(self.numbers), self.places.job_spec(job, self.slots.devices[0])
        order["patience_seconds"] = LOCK_SECONDS
        task = self.perform.options(name=str(job))
        result = task.remote(
            number, order, self.places.log(job), self.slots.threads, Path.cwd(), self.mailbox
        )
        self.tasks[number] = Task(job=job, result=result)

    def hear(self) -> Iterator[JobResult]:
        import ray

        known = {task.result: number for number, task in self.tasks.items()}
        ended, _ = ray.wait(list(known), num_returns=len(known), timeout=TICK_SECONDS)
        for number, event in ray.get(
            self.mailbox.take.remote()
        ):  # after the wait: whoever ended has told everything
            if number in self.tasks:
                self._take(self.tasks[number], event)
        for result in ended:
            yield ending(self._begun(self.tasks.pop(known[result])))
        self.listener.tick()

    def _take(self, task: Task, event: Event) -> None:
        if event["event"] != "begun":
            self.pass_on(self._begun(task), event)
        elif task.begun_at:
            task.prepared = False
            self.pass_on(
                task,
                {"event": "note", "text": f"its process was lost; it goes on, on {event['host']}"},
            )
        else:
            self._begun(task)

    def _begun(self, task: Task) -> Task:
        if not task.begun_at:
            task.begun_at = time.monotonic()
            self.listener.started(task.job)
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
            # not those that have ended: cancelling them once more can make Ray abort this process
            for result in left:
                ray.cancel(result, force=True)


def ending(task: Task) -> JobResult:
    """How a task came out that has ended."""
    import ray

    try:
        reason = ray.get(task.result)
    except Lost as lost:
        reason = f"lost {RETRIES + 1} times, at last {lost.args[0]}"
    except ray.exceptions.RayTaskError as error:
        reason = (
            in_words(error.cause)
            or f"{type(error.cause).__name__}: {error.cause}".partition("\n")[0]
        )
    except ray.exceptions.RayError as error:
        reason = f"Ray gave it up: {str(error).strip().partition(chr(10))[0]}"
    seconds = time.monotonic() - task.begun_at
    return JobResult(
        job=task.job, status="failed" if reason else "finished", seconds=seconds, reason=reason
    )


def perform(
    number: int, order: dict[str, Any], log: Path, threads: int, folder: Path, mailbox: Any
) -> str:
    """The task: a run in a process of its own. Returns why it failed, and nothing where it
    finished. Raises Lost where it was ended."""
    import ray

    host = socket.gethostname()
    if not folder.is_dir():
        return f"{host} has no folder {folder}: on Ray, all machines need the suite's file system"
    os.chdir(folder)
    process = RunProcess(order, log, threads)
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
        raise Lost(reason)
    return reason
