"""The process of one run (`worker.py`), as seen by the suite that starts it."""

import sys
from pathlib import Path
from typing import Any

from dml_bench.system.child_process import ChildProcess, start_new
from dml_bench.system.fork_server import ForkServer

__all__ = ["start_run"]

PROGRAM = (sys.executable, "-m", "dml_bench.suite.worker")


def start_run(
    job_spec: dict[str, Any], log: Path, threads: int, server: ForkServer
) -> ChildProcess:
    """On a CPU a fork of `server`; else a new process, as drivers of GPUs don't live on in a fork,
    and on other systems than Linux their own libraries don't. What it prints is appended to
    `log`."""
    forks = job_spec["device"] == "cpu" and sys.platform == "linux"
    return ChildProcess(PROGRAM, job_spec, log, threads, server.popen if forks else start_new)
