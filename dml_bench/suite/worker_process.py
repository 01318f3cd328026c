"""The process of one run (`child.py`), as whoever started it sees it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dml_bench.suite.executor import Event
from dml_bench.system.failures import deaf_to_ctrl_c, named
from dml_bench.system.files import json_line

__all__ = ["STOP_SECONDS", "RunProcess", "stop_all"]

PROGRAM = (sys.executable, "-m", "dml_bench.suite.worker")
STOP_SECONDS = 15
"""From asking processes to stop to killing them."""


class RunProcess:
    """Started on construction; it stops when its standard input ends."""

    def __init__(self, order: dict[str, Any], log: Path, threads: int):
        """What it prints is added to `log`."""
        self.log = log
        self.last: Event = {}
        """What it said at the end, if it did."""
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)
        )
        with named(log), deaf_to_ctrl_c(), open(log, "a", encoding="utf-8") as file:
            file.write(
                f"{order['title']}, begun {datetime.now(UTC).isoformat(timespec='seconds')}\n"
            )
            file.flush()
            self.process = subprocess.Popen(
                PROGRAM,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it is dead already, which its end will tell
            self.process.stdin.write(json_line(order))
            self.process.stdin.flush()

    def events(self) -> Iterator[Event]:
        """What it says until it ends; its last word is kept for `wait`."""
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # half a line of a process that was killed
            if event["event"] in ("finished", "failed"):
                self.last = event
            else:
                yield event

    def wait(self) -> str:
        """Wait for its end; the reason of its failure in one line, empty where it finished."""
        code = self.process.wait()
        self.close()
        return "" if self.last.get("event") == "finished" else why(code, self.last, self.log)

    @property
    def lost(self) -> bool:
        """Whether somebody else ended it, as a system out of memory does."""
        return not self.last and self.process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 130)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


def stop_all(processes: Sequence[RunProcess]) -> None:
    """Ask all to end, then make them; Ctrl-C makes them at once."""
    try:
        for each in processes:
            assert each.process.stdin
            each.process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        for each in processes:
            each.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        for each in processes:
            each.process.kill()
            each.process.wait()
            each.close()


def why(code: int, last: Event, log: Path) -> str:
    """The reason of a failure in one line."""
    if last.get("expected"):
        return str(last["text"])
    if last:
        return f"{last['kind']}: {last['text']} (traceback in {log})"
    if code == -signal.SIGKILL:
        return "killed by signal 9 (out of memory?)"
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with exit code {code} before it was finished (see {log})"
