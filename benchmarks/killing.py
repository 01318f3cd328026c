"""Commands as forked processes of one that has imported everything, and their deaths at file
operations, in the middle of writes, at any time."""

import builtins
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Literal

__all__ = [
    "EXPECTED",
    "OPERATIONS",
    "STOPPED",
    "Death",
    "Event",
    "drawn_deaths",
    "events_of",
    "run_in_fork",
]

OPERATIONS = ("replace", "rename", "unlink", "fsync", "mkdir", "rmdir", "posix_fallocate")
WRITE = "write"
SIGNALS = {signal.SIGKILL: 7, signal.SIGINT: 1, signal.SIGTERM: 1, signal.SIGHUP: 1}
"""How often each of them ends a process, in parts of ten."""
PATIENCE_SECONDS = 120
"""After which a process counts as hung."""
EXPECTED = 2
"""Exit code after an error in words for people."""
STOPPED = 130
"""Exit code after Ctrl-C."""

Moment = Literal["before", "after", "half", "time", "group"]


@dataclass(frozen=True, slots=True)
class Event:
    """A file operation, in the order in which a process makes them; a `write` is a file that is
    opened to be written."""

    name: str
    file: str


@dataclass(frozen=True, slots=True)
class Death:
    """When a process dies: before, after or in the middle of its event number `at`, or after `at`
    seconds, alone or with its children."""

    moment: Moment
    at: float
    signal: Signals = SIGKILL

    def __str__(self) -> str:
        return f"{self.signal.name} {self.moment} {self.at:.3g}"


class FileOperations:
    """Counts this process's file operations and ends it at one of them."""

    def __init__(self, place: Path, death: Death | None):
        self.place = place
        self.death = death
        self.events: list[Event] = []

    def install(self) -> None:
        for name in OPERATIONS:
            self.wrap(name)
        opened = builtins.open
        builtins.open = io.open = lambda file, mode="r", *rest, **options: self.opened(
            opened(file, mode, *rest, **options), file, mode
        )  # type: ignore[assignment,misc]

    def wrap(self, name: str) -> None:
        real = getattr(os, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            due = self.due(name, str(arguments[0]))
            if due == "before":
                self.die()
            result = real(*arguments, **options)
            if due == "after":
                self.die()
            return result

        setattr(os, name, operation)

    def opened(self, file: Any, name: Any, mode: str) -> Any:
        if "b" in mode and set(mode) & set("wax+") and self.due(WRITE, str(name)):
            return HalfWritten(file, self.die)
        return file

    def due(self, name: str, file: str) -> str:
        """The moment of death if this is the event, else nothing. What is done outside of the
        place, as compilers do, does not count."""
        if Path(file).is_absolute() and not Path(file).is_relative_to(self.place):
            return ""
        self.events.append(Event(name, file))
        here = (
            self.death is not None
            and self.death.moment not in ("time", "group")
            and self.death.at == len(self.events)
        )
        return self.death.moment if here and self.death else ""

    def die(self) -> None:
        assert self.death
        os.kill(os.getpid(), self.death.signal)


class HalfWritten:
    """A file of which half of what is first written gets to the disk."""

    def __init__(self, file: Any, die: Callable[[], None]):
        self.file = file
        self.die = die
        self.half = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "HalfWritten":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """A file that nothing is written into, because it is mapped, dies here."""
        if not self.half:
            self.half = True
            self.die()
        self.file.close()

    def write(self, data: Any) -> int:
        data = bytes(data)
        if self.half:
            return int(self.file.write(data))
        self.half = True
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.die()
        return (
            int(self.file.write(data[len(data) // 2 :])) + len(data) // 2
        )  # where the signal is answered later

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(map(bytes, parts)))


def run_in_fork(
    work: Callable[[Path], object],
    place: Path,
    log: Path,
    death: Death | None = None,
    events: Path | None = None,
) -> tuple[int, float]:
    """Exit code, or minus the signal, and seconds. What it says is added to `log`, and what it did
    to files in its place to `events`."""
    log.touch()
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        code = STOPPED  # also where Ctrl-C comes before the work has begun
        try:
            os.setpgrp()
            code = child(work, place, log, death, events)
        finally:
            os._exit(code)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)  # whoever is first: its group can be killed from now on
    return wait_for(pid, death, start), time.monotonic() - start


def child(
    work: Callable[[Path], object], place: Path, log: Path, death: Death | None, events: Path | None
) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has taken away
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    operations = FileOperations(place, death)
    if death is not None or events is not None:
        operations.install()
    try:
        work(place)
    except KeyboardInterrupt:
        return STOPPED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except ValueError as problem:
        print(f"error: {problem}", flush=True)
        return EXPECTED
    except BaseException:
        traceback.print_exc()
        return 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    if events is not None:
        events.write_text(json.dumps([[event.name, event.file] for event in operations.events]))
    return 0


def wait_for(pid: int, death: Death | None, start: float) -> int:
    """Until it and all that it started have ended."""
    timed = death if death is not None and death.moment in ("time", "group") else None
    code: int | None = None
    while code is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif timed is not None and time.monotonic() - start > timed.at:
            (os.killpg if timed.moment == "group" else os.kill)(pid, timed.signal)
            timed = None
        elif time.monotonic() - start > PATIENCE_SECONDS:
            os.killpg(pid, signal.SIGKILL)
        else:
            time.sleep(0.003)
    with suppress(ProcessLookupError):
        while time.monotonic() - start < PATIENCE_SECONDS:
            os.killpg(pid, 0)
            time.sleep(0.02)
    return code


def events_of(path: Path) -> list[Event]:
    return [Event(*event) for event in json.loads(path.read_text())]


def drawn_deaths(
    chance: random.Random, events: list[Event], seconds: float, by_time_only: bool
) -> list[Death]:
    """One death at a file operation, some in a row, or some at any time."""
    how = "time" if by_time_only else chance.choice(["one", "one", "one", "row", "row", "time"])
    if how == "time":
        moment: Moment = chance.choice(["time", "group"])
        return [
            Death(moment, chance.random() * 0.9 * seconds, drawn_signal(chance))
            for _ in range(chance.randint(1, 1 if by_time_only else 3))
        ]
    count = 1 if how == "one" else 3
    return [at_event(chance, events, len(events) // part) for part in range(1, count + 1)]


def at_event(chance: random.Random, events: list[Event], last: int) -> Death:
    number = chance.randint(1, max(last, 1))
    moments: tuple[Moment, ...] = (
        ("half",) if events[number - 1].name == WRITE else ("before", "after")
    )
    return Death(chance.choice(moments), number, drawn_signal(chance))


def drawn_signal(chance: random.Random) -> Signals:
    return chance.choices(list(SIGNALS), list(SIGNALS.values()))[0]
