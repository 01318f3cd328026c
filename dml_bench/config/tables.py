"""Tables of experiments that belong side by side (`experiments/tables/`), and their rows."""

import tomllib
from dataclasses import dataclass

from dml_bench.config.experiment import Experiment
from dml_bench.config.experiments import EXPERIMENTS
from dml_bench.registry import UnknownName, near_miss

__all__ = ["ExperimentTable", "PlannedRow", "read_table", "table_names"]


@dataclass(frozen=True, slots=True)
class ExperimentTable:
    """A list of experiments that belong side by side: `experiments/tables/NAME.toml`, or what a
    person named."""

    name: str
    title: str
    rows: tuple[str, ...]
    """Names of experiments, or paths of files, in the order of the table."""


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One experiment of the table."""

    written: Experiment
    """As its file has it, without profile and overrides."""
    seeds: tuple[Experiment, ...]
    """As it is run, once per seed."""
    named_as: str = ""
    """What a command calls it, where that is not its name: the path of its file."""
    swept: tuple[str, ...] = ()
    """The settings that tell it from other rows of the same experiment, its name included."""

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.written.name


def table_names() -> list[str]:
    """The names of all tables that come with the package."""
    return sorted(path.stem for path in (EXPERIMENTS / "tables").glob("*.toml"))


def read_table(name: str) -> ExperimentTable:
    """Raises UnknownName for a table that is not there, and ValueError for a file that is none."""
    path = EXPERIMENTS / "tables" / f"{name}.toml"
    if name not in table_names():
        raise UnknownName(
            f"unknown table {name!r}{near_miss(name, table_names())}; there are:"
            f" {', '.join(table_names())}"
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return ExperimentTable(name, str(content["title"]), tuple(map(str, content["rows"])))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}); a table has a title and a list of rows"
        ) from None
