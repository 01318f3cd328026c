"""Processes that begin warm: forks of one that has imported what they need.

Importing PyTorch takes seconds, and more than a tiny run. A fork begins with it in milliseconds,
and with what a new process has otherwise: the server computes nothing, so no number drawn and no
thread of a pool is there to be forked. What a job imports, changes or breaks stays in its fork.
"""

import atexit
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import IO, Any

from dml_bench.system.memory import collect_garbage_rarely

__all__ = ["Fork", "ForkServer", "say_no_more"]

PACKAGE = Path(__file__).parent.parent


class ForkServer:
    """Starts modules as programs, each in a fork of one process. That process is begun anew where a
    file of the package, the working folder or the environment is not what it was."""

    def __init__(self) -> None:
        self._made_for: tuple[object, ...] = ()
        self._servers: list[subprocess.Popen[bytes]] = []
        """The last one takes requests; those before it end with their forks."""
        self._requests: socket.socket | None = None

    def popen(self, program: Sequence[str], *, stderr: IO[str], env: dict[str, str]) -> "Fork":
        """As `subprocess.Popen`, of `python -m MODULE`. The module must have a function `main` that
        returns the exit code, and `prepare`, which is called once, before the first fork. Standard
        input and output are pipes."""
        made_for = (*program, env, Path.cwd(), code_stamp())
        if made_for != self._made_for or self._servers[-1].poll() is not None:
            self._begin(program, stderr, env)
            self._made_for = made_for
        assert self._requests
        return Fork(self._requests, self._servers[-1], stderr)

    def _begin(self, program: Sequence[str], stderr: IO[str], env: dict[str, str]) -> None:
        self._close_requests()
        self._requests, requests = socket.socketpair()
        with requests:
            command = [program[0], "-m", __name__, str(requests.fileno()), program[-1]]
            self._servers.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    env=env,
                    pass_fds=[requests.fileno()],
                )
            )

    def _close_requests(self) -> None:
        if self._requests:
            self._requests.close()

    def __enter__(self) -> "ForkServer":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends when all forks have ended."""
        self._close_requests()
        for server in self._servers:
            server.wait()
        self._made_for = ()


class Fork:
    """A forked process, with the methods of subprocess.Popen that its starter needs."""

    def __init__(
        self, requests: socket.socket, server: "subprocess.Popen[bytes]", stderr: IO[str]
    ) -> None:
        self.returncode: int | None = None
        """The exit code, or minus the signal that ended it; -9 where the server was killed before
        it could say."""
        self.pid: int | None = None
        """None until it is forked."""
        self._server = server
        self._facts, facts = Pipe(duplex=False)
        stdin, to_stdin = os.pipe()
        from_stdout, stdout = os.pipe()
        self.stdin = os.fdopen(to_stdin, "w", encoding="utf-8")
        self.stdout = os.fdopen(from_stdout, encoding="utf-8")
        with facts, suppress(BrokenPipeError, ConnectionResetError):
            descriptors = [stdin, stdout, stderr.fileno(), facts.fileno()]
            socket.send_fds(requests, [b"\0"], descriptors)
        os.close(stdin)
        os.close(stdout)

    def _hear(self, timeout: float | None) -> bool:
        """Whether the server said something within so many seconds: first the process's number,
        then its exit code."""
        if not self._facts.poll(timeout):
            return False
        try:
            fact = self._facts.recv()
        except (EOFError, ConnectionResetError):
            self._server.wait()  # so that the next start sees that it has ended
            self.returncode = -signal.SIGKILL
            return True
        if self.pid is None:
            self.pid = fact
        else:
            self.returncode = fact
        return True

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        while self.returncode is None and self._hear(0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        while self.returncode is None:
            if not self._hear(timeout):
                raise subprocess.TimeoutExpired("fork", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Kill it; before it is forked, the server, which is still importing."""
        if self.poll() is not None:
            return
        if self.pid is None:
            self._server.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def code_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of each module of the package: a fork must not run other code than lies
    there when its job begins, and is recorded."""
    stamp = []
    for path in sorted(PACKAGE.rglob("*.py")):
        facts = path.stat()
        stamp.append((str(path), facts.st_mtime_ns, facts.st_size))
    return tuple(stamp)


def fork_for_requests(requests: socket.socket) -> bool:
    """Fork once for each request, until nobody can make one. Returns True in each fork, with its
    standard streams, and False in the server, when all forks have ended."""
    forks: dict[int, tuple[int, Connection]] = {}
    """By the process descriptor, which is readable when the fork has ended."""
    open_requests = [requests]
    while open_requests or forks:
        for ready in wait([*open_requests, *forks]):
            if isinstance(ready, int):
                report_ended(ready, *forks.pop(ready))
                continue
            _, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
            if not descriptors:
                open_requests.clear()
                continue
            *streams, number = descriptors
            facts = Connection(number, readable=False)
            pid = os.fork()
            if not pid:
                for place, stream in enumerate(streams):
                    os.dup2(stream, place)
                    os.close(stream)
                leave_to_server(requests, facts, forks)
                return True
            for stream in streams:
                os.close(stream)
            forks[os.pidfd_open(pid)] = pid, facts
            tell(facts, pid)
    return False


def leave_to_server(
    requests: socket.socket, facts: Connection, forks: dict[int, tuple[int, Connection]]
) -> None:
    """In a fork, close what is the server's, and don't remove at the end what modules made when the
    server imported them, such as W&B's temporary folder: later forks need it too."""
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False
    requests.close()
    facts.close()
    for descriptor, (_, connection) in forks.items():
        os.close(descriptor)
        connection.close()


def report_ended(descriptor: int, pid: int, facts: Connection) -> None:
    """Tell the exit code of a fork that has ended to whoever asked for it."""
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    with facts:
        tell(facts, os.waitstatus_to_exitcode(status))


def tell(facts: Connection, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever asked has ended
        facts.send(number)


def say_no_more() -> None:
    """At the very end of a process: what importing Triton leaves would fill a screen of its log."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def main(number: str, module: str) -> Any:
    """The server, and then each fork. What can't be imported or prepared here is the fork's to
    report, in its own log."""
    collect_garbage_rarely()
    atexit.register(say_no_more)  # the first to be registered is the last to be called
    requests = socket.socket(fileno=int(number))
    with suppress(Exception):
        importlib.import_module(module).prepare()
    gc.freeze()  # a collection in a fork would copy each page that it looks at
    if fork_for_requests(requests):
        return importlib.import_module(module).main()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
