"""What a run hands over while it goes on, to be shown elsewhere, as in W&B. Nothing of it is read
back: the run folder is the record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dml_bench.config import Experiment
from dml_bench.system.tables import ResultTable

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Mirror", "MirroredRun", "StartMirror", "no_mirror"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MirroredRun:
    """A run that begins or goes on, as a mirror has to know it."""

    experiment: Experiment
    folder: Path
    run_id: str
    """The same each time that the run goes on."""
    notes: str = ""
    """What the names of its curves stand for."""
    warn: Callable[[str], None]
    """Takes one line on what went wrong. It may be called from another thread."""
    adds: bool = False
    """Whether something is added to a run that has ended: nothing is handed over again."""


class Mirror:
    """Takes everything and shows it nowhere. No method raises."""

    forgets = False
    """Whether a run that goes on has to hand over again what it logged before."""
    problem = ""
    """Why it takes nothing any more, in one line; empty where nothing failed."""

    @property
    def listening(self) -> bool:
        """Whether it is worth making a picture to hand over."""
        return False

    def log(self, record: Mapping[str, Any]) -> None:
        """The numbers of one epoch."""

    def tables(self, tables: Mapping[str, ResultTable]) -> None:
        """Tables by name."""

    def picture(self, name: str, picture: "Image") -> None:
        """A picture under its name."""

    def summary(self, values: Mapping[str, float | str]) -> None:
        """The numbers that stand for the whole run."""

    def finish(self, timeout_seconds: float = 30, *, failed: bool = False) -> None:
        """Wait until everything is handed over, but no longer than `timeout_seconds`."""


StartMirror: TypeAlias = Callable[[MirroredRun], Mirror]


def no_mirror(run: MirroredRun) -> Mirror:
    return Mirror()
