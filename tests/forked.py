"""Processes forked from this one: to signals, files and locks as real as any, without the seconds
that importing PyTorch takes."""

import math
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import IO, Any, ClassVar, NoReturn

import psutil
import pytest

from dml_bench.__main__ import main
from dml_bench.registry.origins import entry_points_of
from dml_bench.registry.plugins import PLUGGABLE
from dml_bench.runs import beside_worker
from dml_bench.suite import worker
from dml_bench.system import child_process
from dml_bench.system.fork_server import ForkServer


class ForkedProcess:
    """A process that runs `program`, with the methods of subprocess.Popen that tests need."""

    def __init__(
        self,
        program: Callable[[], object],
        streams: tuple[int, int, int],
        *,
        environment: Mapping[str, str] | None = None,
        new_session: bool = False,
        closed: Iterable[int] = (),
    ) -> None:
        """`streams` become its standard streams. Of what this process has open it closes `closed`;
        a new program would close all."""
        self.returncode: int | None = None
        prepare_once()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, from Python 3.12 on
            self.pid = os.fork()
        if not self.pid:
            try:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                for number in closed:
                    os.close(number)
                become(program, os.environ if environment is None else environment, new_session)
            finally:
                os._exit(1)  # where a signal comes before it has become another: it never goes on

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("dml-bench", timeout)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def in_fork(work: Callable[[], object]) -> int:
    """Exit code of a forked process, or minus the signal that ended it: 0 where the work went
    well."""
    if not (child := os.fork()):
        try:
            work()
        except BaseException as problem:
            os.write(2, f"{type(problem).__name__}: {problem}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


prepare_once = cache(worker.prepare)
"""What runs would do alike is done once, in the process of the tests."""


def become(
    program: Callable[[], object], environment: Mapping[str, str], new_session: bool
) -> NoReturn:
    """Run the program in this process, which is new, as Python would, and end."""
    code: object = 1
    try:
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        if new_session:
            os.setsid()
        variables = dict(environment)
        os.environ.clear()
        os.environ.update(variables)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        code = program() or 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code if isinstance(code, int) else 1)


class ForkedProgram(ForkedProcess):
    """A program in a folder, with variables of its own, that is heard when it has ended."""

    def __init__(
        self,
        program: Callable[[], object],
        *,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
        new_session: bool = False,
    ) -> None:
        def in_folder() -> object:
            if folder is not None:
                os.chdir(folder)
            return program()

        self._outputs = [TemporaryFile("w+") for _ in ("stdout", "stderr")]  # noqa: SIM115
        out, err = (output.fileno() for output in self._outputs)
        with open(os.devnull) as nothing:
            super().__init__(
                in_folder,
                (nothing.fileno(), out, err),
                environment=os.environ | (variables or {}),
                new_session=new_session,
            )

    def communicate(self) -> tuple[str, str]:
        """What it printed and what it said of errors, when it has ended. It is killed where the
        test that waits for it is ended."""
        try:
            self.wait()
        except BaseException:
            self.kill()
            raise
        texts = []
        for output in self._outputs:
            with output:
                output.seek(0)
                texts.append(output.read())
        return texts[0], texts[1]


class ForkedCommand(ForkedProgram):
    """`dml-bench ARGUMENTS`, with more folders to import from."""

    def __init__(
        self, arguments: Iterable[str], *, import_path: Iterable[Path] = (), **more: Any
    ) -> None:
        def program() -> None:
            sys.path[:0] = map(str, import_path)
            entry_points_of.cache_clear()  # which were read before there were more folders
            sys.argv = ["dml-bench", *arguments]
            main()

        super().__init__(program, **more)


class ForkedPython(ForkedProcess):
    """`python -u FILE ARGUMENTS`, or with `-m MODULE`; takes what torchrun gives to Popen."""

    def __init__(
        self, args: tuple[str, ...], *, env: dict[str, str], start_new_session: bool, **_none: None
    ) -> None:
        _, unbuffered, *arguments = args
        assert unbuffered == "-u"

        def program() -> None:
            if arguments[0] == "-m":
                sys.argv = arguments[1:]
                runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
            else:
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")

        super().__init__(program, (0, 1, 2), environment=env, new_session=start_new_session)


class ForkedWorker(ForkedProcess):
    """The process of a run of a suite, or of phases beside others; takes what ChildProcess gives to
    Popen."""

    opened: ClassVar[list[IO[str]]] = []
    """The suite's ends of the pipes of all workers: one that another worker had too would never
    be seen to end."""

    def __init__(
        self, program: tuple[str, ...], *, stderr: IO[str], env: dict[str, str], **_pipes: object
    ) -> None:
        stdin, from_suite = os.pipe()
        to_suite, stdout = os.pipe()
        self.stdin, self.stdout = os.fdopen(from_suite, "w"), os.fdopen(to_suite)
        self.opened[:] = [pipe for pipe in self.opened if not pipe.closed]
        self.opened += [self.stdin, self.stdout]
        super().__init__(
            partial(begin_worker, program[-1]),
            (stdin, stdout, stderr.fileno()),
            environment=env,
            closed=[stdin, stdout, *(pipe.fileno() for pipe in self.opened)],
        )
        os.close(stdin)
        os.close(stdout)


def begin_worker(module: str) -> int:
    """The program of a worker, which knows no more plug-ins than a new process does."""
    forget_plugins()
    return {"dml_bench.suite.worker": worker, "dml_bench.runs.beside_worker": beside_worker}[
        module
    ].main()


def forget_plugins() -> None:
    """Take all plug-ins out of the registries, which belong to the whole process."""
    for registry in PLUGGABLE.values():
        for entry in list(registry):
            if entry.origin is not None:
                registry.remove(entry.name)
                if entry.origin.module != "__main__":  # of what a notebook's cell registers
                    sys.modules.pop(entry.origin.module, None)


def fork_workers(patch: pytest.MonkeyPatch) -> None:
    """From now on, suites and runs of this process, and of those forked from it, fork their
    workers."""
    names = {"Popen": ForkedWorker, "PIPE": subprocess.PIPE}
    names["TimeoutExpired"] = subprocess.TimeoutExpired
    patch.setattr(child_process, "subprocess", SimpleNamespace(**names))
    patch.setattr(ForkServer, "popen", lambda _, program, **more: ForkedWorker(program, **more))


def still_running(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended within so many seconds. One that has, and that nobody has waited
    for, is none of them: whose parent was killed is waited for by the system, in its own time."""
    deadline = time.monotonic() + seconds
    running = list(processes)
    while running and time.monotonic() < deadline:
        running = [process for process in running if is_running(process)]
        time.sleep(0.05)
    return running


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
