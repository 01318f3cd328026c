"""Phases that train beside each other: on a CPU each has a process of its own. Threads of one step
wait for each other, and for one that other programs keep from its core; two phases have nothing to
wait for in each other.

The first process of a run keeps the run folder, trains its own share of the phases, and hears from
the others (`beside_worker.py`) what they have done. Which phases train together, and on how many
threads, follows from the experiment and the machine alone, so a run that goes on after an
interruption has the same bits. Threads of those that have ended help the first, as far as its bits
stay the same (`system/spare_threads.py`).
"""

import queue
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from dml_bench.config import Experiment, as_table
from dml_bench.data.split import Phase
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.child_process import ChildProcess, Event, stop_all
from dml_bench.system.spare_threads import SPARE

if TYPE_CHECKING:
    from dml_bench.runs.session import RunSession

__all__ = ["BesidePhases", "phases_at_once"]

PROGRAM = (sys.executable, "-m", "dml_bench.runs.beside_worker")
MOST = 4
"""Phases at a time, unless a person wants more: each holds a network and its batches in memory."""
LEAST_WORK = 2e7
"""Pixels in each of which a phase must be trained, or its process costs more than it saves."""


def phases_at_once(
    wanted: int, experiment: Experiment, phases: Sequence[Phase], images: int, device: torch.device
) -> int:
    """How many phases train at a time; `wanted` is 0 where the program chooses. `images` are the
    training images of the largest phase. Raises ValueError where more than one can't be."""
    hindrance = ""
    if device.type != "cpu":
        hindrance = "phases share a GPU one after another"
    elif distributed.world_size() > 1:
        hindrance = "all processes of torchrun train each phase"
    elif experiment.plugins is not None:
        hindrance = "a plug-in of this process is not there in others"
    if wanted > 1 and hindrance:
        raise ValueError(f"phases at once must be 1, got {wanted}: {hindrance}")
    if wanted:
        return min(wanted, len(phases))
    pixels = images * experiment.train.epochs * experiment.images.size**2
    if hindrance or experiment.model.trainable == "head" or pixels < LEAST_WORK:
        return 1
    return min(len(phases), torch.get_num_threads(), MOST)


class BesidePhases(Callback):
    """Other processes that train phases of a run, and the callback of the phases that this process
    trains: whenever it hears of a step here, it passes on what happened there."""

    def __init__(self, callback: Callback):
        self.callback = callback
        self.events: queue.Queue[tuple[int, Event | None]] = queue.Queue()
        self.processes: list[ChildProcess] = []
        self.at_work: set[int] = set()
        """The numbers of those that have not ended."""
        self.unfinished: dict[str, int] = {}
        """By phase, the number of the process that trains it."""
        self.done_there = 0.0
        """Units of work since the plan was said."""
        self.on_record: Callable[[EpochRecord], None] = callback.on_epoch
        """Called with the record of each epoch that ended there."""

    def start(self, session: "RunSession", shares: Sequence[Sequence[Phase]]) -> None:
        """A process for each share of phases. What they print goes to files beside the run
        folder."""
        request, folder = session.request, session.folder.path
        self.on_record = session.mirror.log
        for share in filter(None, shares):
            names = [phase.name for phase in share]
            job_spec = {
                "title": f"{request.experiment.name}, phases {', '.join(names)}",
                "experiment": as_table(request.experiment),
                "phases": names,
                "data_dir": str(request.data_dir) if request.data_dir else "",
                "out": str(request.out),
                "cache_dir": str(request.cache_dir),
                "command": sys.argv,
            }
            log = folder.with_name(f".{folder.name}-{names[0]}.log")
            process = ChildProcess(PROGRAM, job_spec, log, torch.get_num_threads())
            number = len(self.processes)
            self.unfinished |= dict.fromkeys(names, number)
            self.at_work.add(number)
            self.processes.append(process)
            threading.Thread(target=self._listen, args=(number, process), daemon=True).start()

    def _listen(self, number: int, process: ChildProcess) -> None:
        for event in process.events():
            self.events.put((number, event))
        self.events.put((number, None))

    def note(self, text: str) -> None:
        self.callback.note(text)

    def warn(self, text: str) -> None:
        self.callback.warn(text)

    def progress(self, message: str, done: int, total: int) -> None:
        self.callback.progress(message, done, total)

    def on_plan(self, plan: dict[str, Any]) -> None:
        self.callback.on_plan(plan)

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self.callback.on_phase(name, epochs, images)

    def on_work(self, units: float) -> None:
        """The work of phases elsewhere is part of it until they have ended."""
        self._hear_all()
        self.callback.on_work(max(units - self.done_there, 0.0))

    def on_step(self, images: int, loss: Any) -> None:
        self.callback.on_step(images, loss)
        self._hear_all()

    def on_embedded(self, images: int) -> None:
        self.callback.on_embedded(images)
        self._hear_all()

    def on_epoch(self, record: EpochRecord) -> None:
        self.callback.on_epoch(record)
        self._hear_all()

    def _hear_all(self) -> None:
        """Pass on all that was said until now."""
        with suppress(queue.Empty):
            while True:
                self._hear(*self.events.get_nowait())

    def wait_for(self, phase: str) -> None:
        """Until a phase that is trained elsewhere is sealed. Raises ValueError in one line where
        its process failed."""
        while phase in self.unfinished:
            self._hear(*self.events.get())

    def finish(self) -> None:
        """Until all processes have ended by themselves."""
        while self.at_work:
            self._hear(*self.events.get())

    def _hear(self, number: int, event: Event | None) -> None:
        if event is None:
            self._end(number)
            return
        facts = {key: value for key, value in event.items() if key != "event"}
        match event["event"]:
            case "note":
                self.callback.note(**facts)
            case "warning":
                self.callback.warn(**facts)
            case "work":
                self.done_there += facts["units"]
                self.callback.on_work_beside(facts["units"])
            case "epoch":
                self.on_record(facts["record"])
                self.callback.on_epoch_beside(**facts)
            case "phase_ended":
                del self.unfinished[facts["phase"]]

    def _end(self, number: int) -> None:
        """Raises ValueError where the process failed."""
        process = self.processes[number]
        self.at_work.discard(number)
        ended = len(self.processes) - len(self.at_work)
        SPARE.lend((1 + ended) * torch.get_num_threads())
        reason = process.wait()
        left = [phase for phase, trainer in self.unfinished.items() if trainer == number]
        if reason and process.last:
            raise ValueError(reason)
        if reason:
            raise ValueError(
                f"the process of phase {left[0]} {reason}; the same command goes on, and"
                " --phases-at-once 1 takes less memory"
            )
        process.log.unlink(missing_ok=True)

    def stop(self) -> None:
        """End all processes; what they lose is at most their running epoch."""
        SPARE.lend(0)
        stop_all([process for process in self.processes if process.process.poll() is None])
