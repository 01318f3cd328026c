"""The process of one run: `python -m dml_bench.suite.worker`, which only `worker_process.py`
starts.

Standard input brings the job, one line of JSON. When it ends, the suite was stopped or has died.
Standard output carries the events, one line of JSON each; whatever is printed goes to standard
error, which is the log.
"""

import _thread
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from dml_bench.system.callbacks import Callback, EpochRecord
from dml_bench.system.failures import describe_error
from dml_bench.system.files import json_line
from dml_bench.system.memory import collect_garbage_rarely

if TYPE_CHECKING:
    from collections.abc import Callable

    from dml_bench.runs.request import Outcome

__all__ = ["WorkerCallback", "main"]

GRACE_SECONDS = 10
"""How long the process may go on after the end of the suite."""
SEND_SECONDS = 0.5
"""The shortest time between two events of progress."""
PAUSE_SECONDS = 1
"""The time between two tries to lock the run's folder."""


class WorkerCallback(Callback):
    """Sends events to the suite, and prints the lines of the log."""

    def __init__(self, channel: TextIO):
        self.channel = channel
        self._last_sent = 0.0
        self._done = self._left = 0.0
        self._phase: dict[str, Any] = {}

    def send(self, event: str, **facts: Any) -> None:
        self.channel.write(json_line({"event": event, **facts}))
        self.channel.flush()

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
        self.send("plan")

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


def take_pipes() -> tuple[TextIO, TextIO]:
    """The suite's two pipes, for this process alone. What it prints or starts gets the log and an
    empty input instead."""
    suite_input = os.fdopen(os.dup(0), encoding="utf-8")
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return suite_input, channel


def stop_with(suite_input: TextIO) -> None:
    """Stop this process as Ctrl-C would when the suite closes its pipe or dies, and kill it some
    seconds later."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        suite_input.read()
        _thread.interrupt_main(signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(130)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=wait, daemon=True).start()


def run_job(job_spec: dict[str, Any], callback: WorkerCallback) -> None:
    """Carry out the run that the suite asks for."""
    from dml_bench.config import load
    from dml_bench.registry.plugins import allow_plugin
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest
    from dml_bench.tracking.wandb_mirror import mirror_in_wandb

    for name in job_spec["allowed_plugins"]:
        allow_plugin(name)
    request = RunRequest(
        experiment=load(job_spec["experiment"]),
        data_dir=Path(job_spec["data_dir"]) if job_spec["data_dir"] else None,
        out=Path(job_spec["out"]),
        cache_dir=Path(job_spec["cache_dir"]),
        device=job_spec["device"],
        mirror=mirror_in_wandb(job_spec["wandb"]),
        callback=callback,
    )
    outcome = retry_while_occupied(lambda: execute(request), job_spec.get("patience_seconds", 0.0))
    callback.send("finished", folder=str(outcome.folder))


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


def main() -> int:
    """0 finished, 1 failed, 130 stopped."""
    collect_garbage_rarely()
    suite_input, channel = take_pipes()
    job_spec = json.loads(suite_input.readline())
    sys.argv = job_spec["command"]
    callback = WorkerCallback(channel)
    try:
        stop_with(suite_input)
        run_job(job_spec, callback)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        description = describe_error(error)
        first_line = str(error).partition("\n")[0].strip()
        callback.send(
            "failed",
            kind=type(error).__name__,
            expected=description is not None,
            text=first_line if description is None else description,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
