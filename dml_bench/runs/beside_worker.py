"""The process of phases that train beside others of the same run (`beside.py`)."""

import sys
import time
from pathlib import Path
from typing import Any

import torch

from dml_bench.config import load
from dml_bench.runs.execute import open_images, open_session
from dml_bench.runs.folder import RunFolder
from dml_bench.runs.request import RunRequest
from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.child_process import Channel, carry_out
from dml_bench.system.memory import collect_garbage_rarely

__all__ = ["main"]

SEND_SECONDS = 0.5
"""The shortest time between two events of progress."""


class BesideCallback(Callback):
    """Tells the first process of a run what happens here."""

    def __init__(self, channel: Channel):
        self.send = channel.send
        self._units = 0.0
        self._last_sent = 0.0
        self._name, self._epochs = "", 0

    def note(self, text: str) -> None:
        self.send("note", text=text)

    def warn(self, text: str) -> None:
        self.send("warning", text=text)

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self._name, self._epochs = name, epochs

    def on_step(self, images: int, loss: Any) -> None:
        self._count(3 * images)

    def on_embedded(self, images: int) -> None:
        self._count(images)

    def on_epoch(self, record: EpochRecord) -> None:
        self._count(0, at_once=True)
        self.send("epoch", name=self._name, epochs=self._epochs, record=record)

    def _count(self, units: float, *, at_once: bool = False) -> None:
        self._units += units
        if at_once or time.monotonic() - self._last_sent > SEND_SECONDS:
            self.send("work", units=self._units)
            self._units, self._last_sent = 0.0, time.monotonic()


def train_phases(job_spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """The work of a process beside the first one."""
    sys.argv = job_spec["command"]
    request = RunRequest(
        experiment=load(job_spec["experiment"]),
        data_dir=Path(job_spec["data_dir"]) if job_spec["data_dir"] else None,
        out=Path(job_spec["out"]),
        cache_dir=Path(job_spec["cache_dir"]),
        device="cpu",
        is_beside=True,
    )
    dataset = open_images(request)
    folder = RunFolder(request.out, request.experiment, dataset.name)
    # The first process has said already what opening the images has to say.
    session = open_session(request, folder, dataset, torch.device("cpu"))
    session.callback = BesideCallback(channel)
    for phase in session.phases:
        if phase.name in job_spec["phases"]:
            session.finish_phase(phase)
            channel.send("phase_ended", phase=phase.name)
    return {}


def main() -> int:
    """0 finished, 1 failed, 130 stopped."""
    collect_garbage_rarely()
    # The run's lock was the first process's: when that has died, the same command goes on at once,
    # or with --force another run, into whose folder nothing of this one may come.
    return carry_out(train_phases, grace_seconds=0)


if __name__ == "__main__":
    sys.exit(main())
