"""The process of one run (`worker.py`), as seen by the suite that started it."""

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
"""The time from asking processes to stop to killing them."""


class RunProcess:
    """The process of one run, started on construction; it stops when its standard input ends."""

    def __init__(self, job_spec: dict[str, Any], log: Path, threads: int):
        """What the process prints is appended to `log`."""
        self.log = log
        self.last: Event = {}
        """Its last event, `finished` or `failed`; empty before it has come."""
        log.parent.mkdir(parents=True, exist_ok=True)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, str(threads))
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        with named(log), deaf_to_ctrl_c(), open(log, "a", encoding="utf-8") as file:
            file.write(f"{job_spec['title']}, begun {begun}\n")
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
        with suppress(BrokenPipeError):  # a process that has died already is reported by `wait`
            self.process.stdin.write(json_line(job_spec))
            self.process.stdin.flush()

    def events(self) -> Iterator[Event]:
        """Its events until it ends; the last one is kept for `wait`."""
        assert self.process.stdout
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # half a line, of a process that was killed
            if event["event"] in ("finished", "failed"):
                self.last = event
            else:
                yield event

    def wait(self) -> str:
        """Wait for its end. Returns the reason of its failure in one line, or an empty text where
        it finished."""
        code = self.process.wait()
        self.close()
        if self.last.get("event") == "finished":
            return ""
        return reason_of(code, self.last, self.log)

    @property
    def lost(self) -> bool:
        """Whether somebody else ended it, as the system does when memory runs out."""
        return not self.last and self.process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 130)

    def close(self) -> None:
        """Close its pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()


def stop_all(processes: Sequence[RunProcess]) -> None:
    """Ask all processes to end, and kill those that don't in time; Ctrl-C kills them at once."""
    try:
        for process in processes:
            assert process.process.stdin
            process.process.stdin.close()
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            process.process.wait(timeout=max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        for process in processes:
            process.process.kill()
            process.process.wait()
            process.close()


def reason_of(code: int, last: Event, log: Path) -> str:
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
