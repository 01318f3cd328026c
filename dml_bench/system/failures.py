"""What ends a command although nobody wrote it wrong: a full disk, a missing right, no memory,
Ctrl-C. Each is one line with the next step."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from dml_bench.system.printable import printable

__all__ = [
    "WrongKind",
    "carry_out",
    "deaf_to_ctrl_c",
    "describe_error",
    "ended_as_by_ctrl_c",
    "named",
]

Handler = Callable[[int, FrameType | None], Any]
STOPPED = 130
"""Exit code after Ctrl-C."""
NOBODY_LISTENS = 141
"""Exit code where whoever read our output has ended, as `| head -1` does: what a shell shows for
SIGPIPE."""
WRONG = 2
LONGEST_PATH = 200
"""Characters of a path that are shown."""

ELSEWHERE = "choose another place with --out or --cache-dir"
SENTENCES = {
    errno.ENOSPC: f"no space is left on this disk: make room, or {ELSEWHERE}",
    errno.EDQUOT: f"your quota on this disk is used up: make room, or {ELSEWHERE}",
    errno.EFBIG: (
        f"the file became larger than is allowed here: raise the limit (ulimit -f), or {ELSEWHERE}"
    ),
    errno.EROFS: f"this disk can only be read: {ELSEWHERE}",
    errno.EACCES: f"permission denied: ask its owner for access, or {ELSEWHERE}",
    errno.EPERM: f"this is not permitted: ask its owner for access, or {ELSEWHERE}",
    errno.ENOENT: (
        "there is no such file or folder: check the name, and whether something removed it"
    ),
    errno.ENOTDIR: "a file is where a folder is wanted: move it away, or name another folder",
    errno.EEXIST: "this exists already: move it away, or name another place",
    errno.EISDIR: "a folder is where a file is wanted: move it away, or name a file",
    errno.ENOTEMPTY: "something else writes into this folder: end it, or name another folder",
    errno.ENAMETOOLONG: "the name is too long for this disk: choose a shorter one",
    errno.ELOOP: "symbolic links lead in a circle: correct them",
    errno.EIO: (
        "the disk could not be read or written (input/output error): check it, then run the same"
        " command again"
    ),
    errno.ESTALE: "the network disk has lost this: mount it again, then run the same command again",
    errno.ENODEV: "the disk is gone: mount it again, then run the same command again",
    errno.ENXIO: "the device is gone: mount it again, then run the same command again",
    errno.ETXTBSY: "a running program is in the way: end it, then run the same command again",
    errno.EBUSY: "something else uses this: end it, then run the same command again",
    errno.ENOLCK: f"this disk can't lock files: {ELSEWHERE}",
    errno.ENOTSUP: f"this disk can't do what is asked of it: {ELSEWHERE}",
    errno.EXDEV: f"this would have to move from one disk to another: {ELSEWHERE}",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n), or run fewer at a time",
    errno.ENFILE: (
        "this machine has too many open files: end other programs, or run fewer at a time"
    ),
    errno.EAGAIN: (
        "this machine can start no more processes: raise the limit (ulimit -u), or run fewer at a"
        " time"
    ),
    errno.ENOMEM: "this machine has no memory left: end other programs, or run fewer at a time",
}
CWD_GONE = (
    "the folder that this command was started in is gone: cd to one that exists, then run it again"
)
NO_MEMORY = (
    "no memory is left ({}): set a smaller train.batch_size or images.size, or end other programs"
)
TOO_DEEP = "something is nested too deeply: make the file or the value that was given flatter"


class WrongKind(TypeError):
    """What somebody's code returns is of another kind than has to be. The text is for them."""


def describe_error(error: BaseException) -> str | None:
    """One line for a failure that people can mend; None for our own mistakes, whose traceback is
    wanted."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError | WrongKind):
        return text
    if isinstance(error, MemoryError) or out_of_torch_memory(error):
        return NO_MEMORY.format(text[:LONGEST_PATH] or "MemoryError")
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return of_the_system(error) if isinstance(error, OSError) else None


def of_the_system(error: OSError) -> str:
    """What the operating system refused, where, and what to do."""
    if error.errno == errno.ENOENT and not has_working_folder():
        return CWD_GONE
    place = error.filename2 or error.filename
    if error.errno is None:
        return " ".join(str(error).split()) or type(error).__name__
    sentence = (
        SENTENCES.get(error.errno) or f"{error.strerror}: check it, then run the same command again"
    )
    return (
        f"{short(os.fsdecode(place))}: {sentence}"
        if isinstance(place, str | bytes | os.PathLike)
        else sentence
    )


def out_of_torch_memory(error: BaseException) -> bool:
    """Whether torch could get no memory, of a GPU or of the machine: it says so by a
    RuntimeError."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "alloc_cpu" in str(error)
    )


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, what that came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@contextmanager
def named(path: Path | str, draft: str = "") -> Iterator[None]:
    """What the system refuses inside is about `path` where it names no file, as a full disk does
    not in the middle of one, or a file in a folder whose name begins with `draft`.

    Raises OSError, also where a library passed it on as a RuntimeError, as torch does.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refused = next(
            (problem for problem in chain(error) if isinstance(problem, OSError) and problem.errno),
            None,
        )
        if refused is None:
            raise
        about = refused.filename
        if about is not None and not (
            draft and any(part.startswith(draft) for part in Path(os.fsdecode(about)).parts)
        ):
            raise
        raise OSError(refused.errno, refused.strerror, str(path)) from error


def has_working_folder() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() asks the same
    except OSError:
        return False
    return True


def short(path: str) -> str:
    """On one line, without the middle of a very long path."""
    path = " ".join(path.split())
    half = LONGEST_PATH // 2
    return path if len(path) <= LONGEST_PATH else f"{path[:half]}...{path[-half:]}"


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are started inside never hear of Ctrl-C, which a terminal sends to all of
    them: this one does, and ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # what came meanwhile is heard now


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Inside, SIGTERM, which Docker, systemd and Kubernetes send, and SIGHUP, of a terminal that is
    closed, raise KeyboardInterrupt. Whoever takes SIGTERM meanwhile gets both. A signal that is
    ignored stays so, as under nohup. Only a main thread can listen to signals: in another, nothing
    changes."""
    handlers: dict[str, Handler] = {
        "SIGTERM": signal.default_int_handler,
        "SIGHUP": pass_on_as_sigterm,
    }
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name, handler in handlers.items():
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


def pass_on_as_sigterm(*_: object) -> None:
    signal.raise_signal(signal.SIGTERM)


def carry_out(program: Callable[[], None]) -> NoReturn:
    """Run a program to its SystemExit. What people can mend is one line on standard error and exit
    code 2; other errors pass."""
    try:
        try:
            program()
        except SystemExit:
            with named("standard output"):
                sys.stdout.flush()
            raise
    except BaseException as error:
        if any(isinstance(problem, KeyboardInterrupt) for problem in chain(error)):
            say("stopped")
            raise SystemExit(STOPPED) from error
        if any(isinstance(problem, BrokenPipeError) for problem in chain(error)):
            raise SystemExit(NOBODY_LISTENS) from error
        description = None if isinstance(error, SystemExit) else describe_error(error)
        if description is None:
            raise
        say(f"error: {description}")
        raise SystemExit(WRONG) from error
    raise SystemExit(0)


def say(text: str) -> None:
    with suppress(OSError):  # else nobody can be told
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201
