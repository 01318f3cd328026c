"""A process that works for this one, and both sides of what they say to each other.

Its standard input brings the job, one line of JSON; when that ends, this process was stopped or has
died. Its standard output carries events, one line of JSON each; whatever is printed goes to
standard error, which is a log.
"""

import _thread
import json
import os
import signal
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

from dml_bench.system.failures import deaf_to_ctrl_c, describe_error, named
from dml_bench.system.files import json_line
from dml_bench.system.fork_server import Fork

__all__ = [
    "STOP_SECONDS",
    "Channel",
    "ChildProcess",
    "Event",
    "carry_out",
    "start_new",
    "stop_all",
]

Event = dict[str, Any]
STOP_SECONDS = 15
"""The time from asking processes to stop to killing them."""
GRACE_SECONDS = 10
"""How long a process may go on after the end of the one that started it, to end what it began."""


class Starter(Protocol):
    """Starts a program with pipes as its standard input and output."""

    def __call__(
        self, program: Sequence[str], *, stderr: IO[str], env: dict[str, str]
    ) -> "subprocess.Popen[str] | Fork": ...


def start_new(
    program: Sequence[str], *, stderr: IO[str], env: dict[str, str]
) -> "subprocess.Popen[str]":
    """A new process."""
    return subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        env=env,
    )


class ChildProcess:
    """A process that carries out one job, started on construction; it stops when its standard input
    ends."""

    def __init__(
        self,
        program: Sequence[str],
        job_spec: dict[str, Any],
        log: Path,
        threads: int,
        start: Starter = start_new,
    ):
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
            self.process = start(program, stderr=file, env=environment)
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


def stop_all(processes: Sequence[ChildProcess]) -> None:
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


class Channel:
    """A job's way to the process that started its own."""

    def __init__(self, output: TextIO):
        self.output = output

    def send(self, event: str, **facts: Any) -> None:
        """One event; the facts must be JSON."""
        self.output.write(json_line({"event": event, **facts}))
        self.output.flush()


def carry_out(
    work: Callable[[dict[str, Any], Channel], dict[str, Any]],
    *,
    grace_seconds: float = GRACE_SECONDS,
) -> int:
    """The program of a child process: `work` on the job, and the event `finished` with what it
    returns, or `failed`. Returns the exit code: 0 finished, 1 failed, 130 stopped.

    `grace_seconds` is how long it may go on after the end of the process that started it: 0 where
    whatever it writes is whole or not there, and must not be written beside the next process.
    """
    job_input, output = take_pipes()
    channel = Channel(output)
    job_spec = json.loads(job_input.readline())
    try:
        stop_with(job_input, grace_seconds)
        channel.send("finished", **work(job_spec, channel))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        description = describe_error(error)
        first_line = str(error).partition("\n")[0].strip()
        channel.send(
            "failed",
            kind=type(error).__name__,
            expected=description is not None,
            text=first_line if description is None else description,
        )
        return 1
    return 0


def take_pipes() -> tuple[TextIO, TextIO]:
    """The two pipes to the process that started this one, for this process alone. What it prints or
    starts gets the log and an empty input instead."""
    job_input = os.fdopen(os.dup(0), encoding="utf-8")
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return job_input, channel


def stop_with(job_input: TextIO, grace_seconds: float) -> None:
    """Stop this process as Ctrl-C would when the one that started it closes its pipe or dies, and
    kill it some seconds later, or at once where there is no grace."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def wait() -> None:
        job_input.read()
        if grace_seconds:
            _thread.interrupt_main(signal.SIGTERM)
            time.sleep(grace_seconds)
        os._exit(130)

    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=wait, daemon=True).start()
