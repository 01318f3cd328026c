"""The process of one run: `python -m dml_bench.suite.worker`, started by `process.py` and by nobody
else.

Standard input brings the order, one line of JSON, and then only its end: the suite was stopped, or
is no more, however it ended. Standard output carries what happens, one line of JSON each; all that
is printed goes where standard error goes, to the log.
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

from dml_bench.system.callbacks import Callback
from dml_bench.system.failures import in_words
from dml_bench.system.files import json_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from dml_bench.runs.request import Outcome

__all__ = ["WorkerCallback", "main"]

GRACE_SECONDS = 10
"""From the end of the suite to the end of the process, whatever it does."""
TELL_SECONDS = 0.5
PAUSE_SECONDS = 1


class WorkerCallback(Callback):
    """Sends what happens to the suite, and keeps the lines of a log."""

    def __init__(self, channel: TextIO):
        self.channel = channel
        self._last_told = 0.0
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
        if self._may_tell() or done == total:
            self.send("progress", text=message, done=done, total=total)

    def on_plan(self, plan: dict[str, Any]) -> None:
        self.send("plan")

    def on_work(self, units: float) -> None:
        self._left = units
        self._tell()

    def on_phase(self, name: str, epochs: int, images: int) -> None:
        self._phase = {"phase": name, "epoch": 1, "epochs": epochs}
        self._tell()

    def on_step(self, images: int, loss: Any) -> None:
        self._count(3 * images)

    def on_embedded(self, images: int) -> None:
        self._count(images)

    def on_epoch(self, record: dict[str, Any]) -> None:
        print(json_line(record), end="", flush=True)  # noqa: T201
        self._phase["epoch"] = record["epoch"] + 1
        self._tell()

    def _count(self, units: float) -> None:
        self._done += units
        self._left -= units
        if self._may_tell():
            self._tell()

    def _tell(self) -> None:
        self._last_told = time.monotonic()
        self.send("at", done=self._done, left=max(self._left, 0.0), **self._phase)

    def _may_tell(self) -> bool:
        return time.monotonic() - self._last_told > TELL_SECONDS


def take_streams() -> tuple[TextIO, TextIO]:
    """The suite's two pipes for this process alone; whatever else it starts or prints gets the log
    and an empty input."""
    orders = os.fdopen(os.dup(0), encoding="utf-8")
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return orders, channel


def end_with(orders: TextIO) -> None:
    """Stop this process as Ctrl-C would when the suite closes its pipe or dies, and for certain
    some seconds later."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        orders.read()
        _thread.interrupt_main(signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(130)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=wait, daemon=True).start()


def work(order: dict[str, Any], callback: WorkerCallback) -> None:
    from dml_bench.config import load
    from dml_bench.runs.execute import execute
    from dml_bench.runs.request import RunRequest

    request = RunRequest(
        experiment=load(order["experiment"]),
        data_dir=Path(order["data_dir"]) if order["data_dir"] else None,
        out=Path(order["out"]),
        cache_dir=Path(order["cache_dir"]),
        device=order["device"],
        wandb=order["wandb"],
        callback=callback,
    )
    outcome = patiently(lambda: execute(request), order.get("patience_seconds", 0.0))
    callback.send("finished", folder=str(outcome.folder))


def patiently(begin: "Callable[[], Outcome]", seconds: float) -> "Outcome":
    """Wait so long for another process to leave the run's folder: one that was lost may still be
    ending."""
    from dml_bench.runs.folder import Occupied

    until = time.monotonic() + seconds
    while True:
        try:
            return begin()
        except Occupied:
            if time.monotonic() >= until:
                raise
            time.sleep(PAUSE_SECONDS)


def main() -> int:
    """0 finished, 1 failed, 130 stopped."""
    orders, channel = take_streams()
    order = json.loads(orders.readline())
    sys.argv = order["command"]
    callback = WorkerCallback(channel)
    try:
        end_with(orders)
        work(order, callback)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        words = in_words(error)
        text = str(error).partition("\n")[0].strip() if words is None else words
        callback.send("failed", kind=type(error).__name__, expected=words is not None, text=text)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
