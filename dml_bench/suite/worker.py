"""The process of one run: `python -m dml_bench.suite.worker`, which only a
suite starts.

Standard input brings the job, one line of JSON. When it ends, the suite was stopped or has died.
Standard output carries the events, one line of JSON each; whatever is printed goes to standard
error, which is the log.
"""

import importlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.child_process import Channel, carry_out
from dml_bench.system.code_digest import code_digest
from dml_bench.system.files import json_line
from dml_bench.system.memory import collect_garbage_rarely

if TYPE_CHECKING:
    from collections.abc import Callable

    from dml_bench.runs.request import Outcome

__all__ = ["WorkerCallback", "main", "prepare"]

IMPORTED_LATE = (
    "dml_bench.data.samplers",
    "dml_bench.losses.miners",
    "dml_bench.models.heads",
    "dml_bench.runs.execute",
    "dml_bench.tracking.wandb_mirror",
    "dml_bench.training.optimizers",
    "faiss",
    "pytorch_metric_learning.losses",
    "pytorch_metric_learning.miners",
    "safetensors.numpy",
    "timm",
    "torch._dynamo",
)
"""What a run imports while it runs: four seconds, where the rest of a tiny run takes one."""
SEND_SECONDS = 0.5
"""The shortest time between two events of progress."""
PAUSE_SECONDS = 1
"""The time between two tries to lock the run's folder."""


class WorkerCallback(Callback):
    """Sends events to the suite, and prints the lines of the log."""

    def __init__(self, channel: Channel):
        self.send = channel.send
        self._last_sent = 0.0
        self._done = self._left = 0.0
        self._phase: dict[str, Any] = {}

    def note(self, text: str) -> None:
        print(text, flush=True)  # noqa: T201 - the log
        self.send("note", text=text)

    def warn(self, text: str) -> None:
        print(f"warning: {text}", flush=True)  # noqa: T201
        self.send("warning", text=text)

    def progress(self, message: str, done: int, total: int) -> None:
        if self._may_send() or done == total:
            self.send("progress", text=message, done=done, total=total)

    def on_plan(self, plan: dict[str, Any]) -> None:
        self.send("plan", goes_on=any(phase["epochs_done"] for phase in plan["phases"]))

    def on_work(self, units: float) -> None:
        self._left = units
        self._send_work()

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self._phase = {"phase": name, "epoch": 1, "epochs": epochs}
        self._send_work()

    def on_step(self, images: int, loss: Any) -> None:
        self._count(3 * images)

    def on_embedded(self, images: int) -> None:
        self._count(images)

    def on_epoch(self, record: EpochRecord) -> None:
        print(json_line(record), end="", flush=True)  # noqa: T201
        self._phase["epoch"] = record["epoch"] + 1
        self._send_work()

    def on_work_beside(self, units: float) -> None:
        self._count(units)

    def on_epoch_beside(self, name: str, epochs: int, record: EpochRecord) -> None:
        print(json_line(record), end="", flush=True)  # noqa: T201

    def _count(self, units: float) -> None:
        self._done += units
        self._left -= units
        if self._may_send():
            self._send_work()

    def _send_work(self) -> None:
        self._last_sent = time.monotonic()
        self.send("at", done=self._done, left=max(self._left, 0.0), **self._phase)

    def _may_send(self) -> bool:
        return time.monotonic() - self._last_sent > SEND_SECONDS


def run_job(job_spec: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Carry out the run that the suite asks for; returns its folder."""
    from dml_bench.config import load
    from dml_bench.registry.plugins import allow_plugin
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest
    from dml_bench.tracking.wandb_mirror import mirror_in_wandb

    sys.argv = job_spec["command"]
    for name in job_spec["allowed_plugins"]:
        allow_plugin(name)
    request = RunRequest(
        experiment=load(job_spec["experiment"]),
        data_dir=Path(job_spec["data_dir"]) if job_spec["data_dir"] else None,
        out=Path(job_spec["out"]),
        cache_dir=Path(job_spec["cache_dir"]),
        device=job_spec["device"],
        mirror=mirror_in_wandb(job_spec["wandb"]),
        callback=WorkerCallback(channel),
    )
    outcome = retry_while_occupied(lambda: execute(request), job_spec.get("patience_seconds", 0.0))
    return {"folder": str(outcome.folder)}


def retry_while_occupied(begin: "Callable[[], Outcome]", seconds: float) -> "Outcome":
    """Call `begin`, and for some seconds again while another process has the run's folder: one that
    was lost may still be ending."""
    from dml_bench.runs.folder import Occupied

    deadline = time.monotonic() + seconds
    while True:
        try:
            return begin()
        except Occupied:
            if time.monotonic() >= deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def prepare() -> None:
    """For all runs that are forks of one process, what each would do alike."""
    from PIL import Image

    for name in IMPORTED_LATE:
        importlib.import_module(name)
    Image.preinit()
    code_digest()


def main() -> int:
    """0 finished, 1 failed, 130 stopped."""
    collect_garbage_rarely()
    return carry_out(run_job)


if __name__ == "__main__":
    sys.exit(main())
