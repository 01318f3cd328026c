"""A command in a process forked from this one: to signals, files and locks as real as any, without
the seconds that importing PyTorch takes."""

import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from tempfile import TemporaryFile

from dml_bench.__main__ import main


class ForkedCommand:
    """`dml-bench ARGUMENTS`, with the methods of subprocess.Popen that tests need."""

    def __init__(self, arguments: list[str]) -> None:
        self.returncode: int | None = None
        self._outputs = [TemporaryFile("w+") for _ in ("stdout", "stderr")]  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, output in enumerate(self._outputs, start=1):
                os.dup2(output.fileno(), number)
            self._become(arguments)

    @staticmethod
    def _become(arguments: list[str]) -> None:
        """Run the command as the program would, and end."""
        code: object = 1
        try:
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = ["dml-bench", *arguments]
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            warnings.resetwarnings()
            for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            main()
            code = 0
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

    def poll(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        """What it printed and what it said of errors, when it has ended."""
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired("dml-bench", timeout)
            time.sleep(0.02)
        texts = []
        for output in self._outputs:
            with output:
                output.seek(0)
                texts.append(output.read())
        return texts[0], texts[1]
