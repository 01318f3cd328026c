"""The process of one run (`worker.py`), as seen by the suite that starts it."""

import sys
from pathlib import Path
from typing import Any

from dml_bench.system.child_process import ChildProcess

__all__ = ["start_run"]

PROGRAM = (sys.executable, "-m", "dml_bench.suite.worker")


def start_run(job_spec: dict[str, Any], log: Path, threads: int) -> ChildProcess:
    """What the process prints is appended to `log`."""
    return ChildProcess(PROGRAM, job_spec, log, threads)
