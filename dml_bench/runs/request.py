"""What to run, and what came of it."""

from dataclasses import dataclass, field
from pathlib import Path

from dml_bench.config import Experiment
from dml_bench.runs.mirror import StartMirror, no_mirror
from dml_bench.runs.schema import Summary
from dml_bench.system.callbacks import Callback

__all__ = ["Outcome", "RunRequest"]


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What to run and where; nothing here changes the numbers, except the device and its
    precision."""

    experiment: Experiment
    variant: str = ""
    """The name to run under, unless the folder of the experiment's own name holds these very
    settings; empty: its own."""
    data_dir: Path | None = None
    out: Path = Path("runs")
    cache_dir: Path
    device: str = "auto"
    mirror: StartMirror = no_mirror
    """Starts what shows the run elsewhere, as in W&B."""
    force: bool = False
    phases_at_once: int = 0
    """How many phases train beside each other on a CPU; 0: as many as the program chooses."""
    is_beside: bool = False
    """Whether this process trains phases of a run that another one keeps."""
    callback: Callback = field(default_factory=Callback)


@dataclass(frozen=True)
class Outcome:
    folder: Path
    summary: Summary
    already_finished: bool
