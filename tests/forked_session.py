"""One session of tests by several processes, forked after all tests are collected: importing and
collecting takes 13 seconds of a core, which each process would else need for itself.

The tests of a file stay in one process, so that what they share is made once. A process that is
free takes the next file of the list, which had better begin with the files that take longest.
Warnings are not reported: they are errors here.
"""

import atexit
import os
import signal
import sys
import time
import traceback
from collections import deque
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

IN_FORK = "TESTS_IN_FORK"
"""The variable of the environment that names a forked process of the session."""
WAIT_SECONDS = 30
"""For processes to end that were told to."""


class Worker:
    """A process that runs tests, as the session sees it."""

    def __init__(self, session: pytest.Session, name: str, others: list["Worker"]) -> None:
        self.name = name
        self.waiting: deque[int] = deque()
        """Of the file that it has taken, the tests not begun."""
        self.file = ""
        self.at_work: int | None = None
        self.connection, end = Pipe()
        self.pid = os.fork()
        if not self.pid:
            for connection in (self.connection, *(other.connection for other in others)):
                connection.close()  # else an end would not be seen by the session
            WorkerSession(session, name, end).run()
        end.close()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.connection.close()


class WorkerSession:
    """The session of tests in a forked process: takes files and reports tests."""

    def __init__(self, session: pytest.Session, name: str, connection: Connection) -> None:
        self.session, self.connection = session, connection
        self.config = config = session.config
        os.environ[IN_FORK] = name
        plugins = config.pluginmanager
        reporter = plugins.unregister(name="terminalreporter")
        plugins.register(SilentReporter(reporter), "terminalreporter")
        captured = plugins.get_plugin("capturemanager")
        captured.stop_global_capturing()  # into a file that all processes would share
        captured.start_global_capturing()
        folders = session.config._tmp_path_factory  # where a thousand folders are listed sooner
        folders._basetemp = folders.getbasetemp() / name
        folders._basetemp.mkdir(mode=0o700)
        plugins.register(self)

    def run(self) -> None:
        """All that there is to do, and end."""
        code = 1
        try:
            item = None
            while numbers := self.next_file():
                items = [self.session.items[number] for number in numbers]
                after = [*items[1:], self.of_another_file(items[-1])]
                for item, following in zip(items, after, strict=True):
                    self.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if item is not None:
                self.remove_what_is_left(item)
            save_coverage()
            self.connection.send(("end", None))
            code = 0
        except KeyboardInterrupt:
            with suppress(BaseException):
                self.session._setupstate.teardown_exact(None)
        except BaseException:
            self.config.pluginmanager.get_plugin("capturemanager").stop_global_capturing()
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def next_file(self) -> list[int]:
        """The tests of the next file, by their numbers; none when all files are taken."""
        self.connection.send(("next", None))
        numbers: list[int] = self.connection.recv()
        return numbers

    def of_another_file(self, item: pytest.Item) -> pytest.Item | None:
        """A test of another folder, or of another file where there is one folder. Named as what
        comes next, it leaves what all files share."""
        items = self.session.items
        for other in items:
            if other.path.parent != item.path.parent:
                return other
        return next((other for other in items if other.path != item.path), None)

    def remove_what_is_left(self, item: pytest.Item) -> None:
        """Tear down what all tests share; `item` is the last one, of which it is reported."""
        call = pytest.CallInfo.from_call(
            lambda: self.session._setupstate.teardown_exact(None),
            when="teardown",
            reraise=(KeyboardInterrupt,),
        )
        if call.excinfo:
            report = self.config.hook.pytest_runtest_makereport(item=item, call=call)
            self.config.hook.pytest_runtest_logreport(report=report)

    def pytest_runtest_logstart(self) -> None:
        self.connection.send(("begin", None))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        self.connection.send(("report", data))

    def pytest_runtest_logfinish(self) -> None:
        self.connection.send(("finish", None))


class SilentReporter:
    """In place of the reporter of a process that reports to the session."""

    def __init__(self, reporter: Any) -> None:
        self._tw = reporter._tw  # where pytest-timeout shows the threads of a test


class ForkedSession:
    """Hands files of tests out to processes and says what they report."""

    def __init__(self, session: pytest.Session, count: int) -> None:
        self.session, self.config = session, session.config
        files: dict[Any, list[int]] = {}
        for number, item in enumerate(session.items):
            files.setdefault(item.path, []).append(number)
        self.files = deque(files.values())
        self.begun = 0
        self.workers: list[Worker] = []
        self.no_file_left_at: float | None = None
        self.last_file = ""
        self.config._tmp_path_factory.getbasetemp()  # which all processes are to share
        # Not before coverage is measured.
        from dml_bench.system.fork_server import say_no_more

        atexit.register(say_no_more)
        for _ in range(min(count, len(self.files))):
            self.begin_worker()

    def begin_worker(self) -> None:
        self.workers.append(Worker(self.session, f"worker-{self.begun}", self.workers))
        self.begun += 1

    def run(self) -> None:
        """Until all tests are reported, or `--maxfail` of them have failed."""
        try:
            while self.workers:
                for connection in wait([worker.connection for worker in self.workers]):
                    (worker,) = (w for w in self.workers if w.connection is connection)
                    self.hear(worker)
                if self.session.shouldfail:
                    raise self.session.Failed(self.session.shouldfail)
                if self.session.shouldstop:
                    raise self.session.Interrupted(self.session.shouldstop)
        except KeyboardInterrupt:
            self.wait_for_workers()
            raise
        finally:
            for worker in self.workers:
                worker.end()

    def hear(self, worker: Worker) -> None:
        hook = self.config.hook
        try:
            kind, data = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            self.replace(worker)
            return
        if kind == "next":
            self.give_file(worker)
        elif kind == "begin":
            worker.at_work = worker.waiting.popleft()
            item = self.session.items[worker.at_work]
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        elif kind == "finish":
            item = self.session.items[worker.at_work]
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            worker.at_work = None
        elif kind == "report":
            report = hook.pytest_report_from_serializable(config=self.config, data=data)
            hook.pytest_runtest_logreport(report=report)
        else:
            self.workers.remove(worker)
            os.waitpid(worker.pid, 0)
            worker.connection.close()

    def give_file(self, worker: Worker) -> None:
        """The next file of the list, or an empty one where there is none."""
        file = self.files.popleft() if self.files else []
        if file:
            worker.file = self.session.items[file[0]].path.stem
        else:
            self.last_file = worker.file
            self.no_file_left_at = self.no_file_left_at or time.monotonic()
        worker.waiting.extend(file)
        worker.connection.send(file)

    def said_of_the_end(self) -> str:
        """How long processes had nothing to do, and for which file they waited."""
        if self.no_file_left_at is None:
            return ""
        seconds = time.monotonic() - self.no_file_left_at
        return f"No file was left for the last {seconds:.0f} s; {self.last_file} ended last"

    def replace(self, worker: Worker) -> None:
        """A test has ended its process: it has failed, and another process goes on."""
        self.workers.remove(worker)
        _, status = os.waitpid(worker.pid, 0)
        worker.connection.close()
        code = os.waitstatus_to_exitcode(status)
        if worker.at_work is None:
            raise RuntimeError(f"{worker.name} ended between two tests with exit code {code}")
        item = self.session.items[worker.at_work]
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=f"its process ended with exit code {code} while this test ran",
            when="call",
        )
        self.config.hook.pytest_runtest_logreport(report=report)
        if worker.waiting:
            self.files.appendleft(list(worker.waiting))
        if self.files:
            self.begin_worker()

    def wait_for_workers(self) -> None:
        """After Ctrl-C, which all processes hear: each ends what its tests have begun."""
        end = time.monotonic() + WAIT_SECONDS
        while self.workers and time.monotonic() < end:
            for worker in list(self.workers):
                if os.waitpid(worker.pid, os.WNOHANG)[0]:
                    self.workers.remove(worker)
            time.sleep(0.05)


def save_coverage() -> None:
    """What this process has run, where that is measured; pytest-cov reads it at the end."""
    if "coverage" in sys.modules:
        from coverage import Coverage

        if measured := Coverage.current():
            measured.stop()
            measured.save()
