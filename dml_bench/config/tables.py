"""Tables of experiments that belong side by side (`experiments/tables/`), and their rows."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

from dml_bench.config.experiment import Experiment
from dml_bench.config.experiments import EXPERIMENTS, names, parent
from dml_bench.config.variants import SEPARATOR, base_name, suffix_of, variant_name
from dml_bench.registry import UnknownName, near_miss

__all__ = [
    "ExperimentTable",
    "Family",
    "PlannedRow",
    "TableOnData",
    "choose",
    "read_table",
    "table_names",
    "table_of",
    "tables_over_data",
]

PARENT = "parent"
LISTS = ("tables", "only", "settings")
"""Of an entry of a table over several data sets."""


@dataclass(frozen=True, slots=True)
class Family:
    """The comparisons of a table that are meant to be decided, written down before it is run: one
    metric of each row beside that of another experiment."""

    metric: str
    versus: str
    """`parent`, the experiment that a row extends, or the name of an experiment."""
    without: tuple[str, ...] = ()
    """Settings of a variant that the experiment beside it does not have."""

    def __post_init__(self) -> None:
        if self.versus != PARENT and self.versus not in names():
            raise UnknownName(
                f"family.versus must be 'parent' or the name of an experiment, got {self.versus!r}"
                f"{near_miss(self.versus, names())}"
            )

    def other(self, row: str) -> str | None:
        """The experiment beside which a row is compared, a variant beside the same variant; None
        where there is none."""
        other = parent(base_name(row)) if self.versus == PARENT else self.versus
        if other is None or other == base_name(row):
            return None
        suffix = suffix_of(row)
        if not self.without:
            return f"{other}{suffix}"
        settings = suffix.removeprefix(SEPARATOR).split(",")
        kept = [part for part in settings if part.partition("=")[0] not in self.without]
        return SEPARATOR.join(filter(None, (other, ",".join(kept))))


@dataclass(frozen=True, kw_only=True, slots=True)
class TableOnData:
    """Rows of other tables on one data set: an entry of a table over several data sets."""

    dataset: str
    tables: tuple[str, ...]
    holdouts: str
    tuned_holdouts: str
    """They leave classes to search by."""
    only: tuple[str, ...] = ()
    """Patterns of the rows; all where it is empty."""
    settings: tuple[str, ...] = ()
    """`key=value`, as `--set` takes them."""
    demo: bool = False
    """Whether the demo profile draws the data set and sizes the experiments."""

    @property
    def profile(self) -> str:
        """The name of the profile; empty without one."""
        return "demo" if self.demo else ""

    def overrides(self, *, tuned: bool = False) -> list[str]:
        """`key=value` of everything in which its runs differ from their files."""
        dataset = [] if self.demo else [f"data.dataset={self.dataset}"]
        return [*dataset, *self.settings, f"unseen={self.holdouts_of(tuned)}"]

    def holdouts_of(self, tuned: bool) -> str:
        """The rule by which classes are held out."""
        return self.tuned_holdouts if tuned else self.holdouts

    @property
    def rows(self) -> "ExperimentTable":
        """Its rows, as their own tables have them."""
        tables = [read_table(name) for name in self.tables]
        variants: dict[str, tuple[str, ...]] = {}
        for table in tables:
            variants |= table.variants
        rows = tuple(row for table in tables for row in table.rows)
        title = "; ".join(table.title for table in tables)
        return choose(
            ExperimentTable("+".join(self.tables), title, rows, None, variants), self.only
        )


@dataclass(frozen=True, slots=True)
class ExperimentTable:
    """A list of experiments that belong side by side: `experiments/tables/NAME.toml`, or what a
    person named."""

    name: str
    title: str
    rows: tuple[str, ...]
    """Names of experiments or of their variants, or paths of files, in the order of the table."""
    family: Family | None = None
    """None where nothing but the claims of its rows is to be decided."""
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The settings `key=value` of each row that is a variant of an experiment."""
    data: tuple[TableOnData, ...] = ()
    """Of a table over several data sets, which has no rows of its own."""
    seeds: tuple[int, ...] = ()
    """With which its rows are run where a command names none."""


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
    swept_by_seed: tuple[tuple[str, ...], ...] = ()
    """The same for each seed, where a search chose other settings for each split."""

    def settings_of(self, number: int) -> tuple[str, ...]:
        """What a command adds for the run with the seed of that number, counted from 0."""
        return self.swept_by_seed[number] if self.swept_by_seed else self.swept

    @property
    def name(self) -> str:
        """The experiment's name."""
        return self.written.name


def table_names() -> list[str]:
    """The names of all tables that come with the package."""
    return sorted(path.stem for path in (EXPERIMENTS / "tables").glob("*.toml"))


def tables_over_data() -> list[str]:
    """The names of those that are over several data sets."""
    return [name for name in table_names() if read_table(name).data]


def choose(table: ExperimentTable, patterns: Collection[str]) -> ExperimentTable:
    """The rows that match one of the patterns (`*`, `?`), in the table's order. Raises UnknownName
    for a pattern that matches none."""
    for pattern in patterns:
        if not any(fnmatchcase(row, pattern) for row in table.rows):
            raise UnknownName(
                f"--only {pattern}: no row of the table {table.name} is called"
                f" so{near_miss(pattern.strip('*'), list(table.rows))}; its rows:"
                f" {', '.join(table.rows)}"
            )
    chosen = []
    for row in table.rows:
        matches = any(fnmatchcase(row, pattern) for pattern in patterns)
        if matches or not patterns:
            chosen.append(row)
    return replace(table, rows=tuple(chosen))


def read_table(name: str) -> ExperimentTable:
    """Raises UnknownName for a table that is not there, and ValueError for a file that is none."""
    path = EXPERIMENTS / "tables" / f"{name}.toml"
    if name not in table_names():
        raise UnknownName(
            f"unknown table {name!r}{near_miss(name, table_names())}; there are:"
            f" {', '.join(table_names())}"
        )
    return load_table(path)


def load_table(path: Path) -> ExperimentTable:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        title = str(content["title"])
        seeds = tuple(map(int, content.get("seeds", ())))
        if "data" in content:
            return ExperimentTable(path.stem, title, (), data=data_in(content), seeds=seeds)
        variants = variants_in(content)
        rows = (*map(str, content["rows"]), *variants)
        return ExperimentTable(path.stem, title, rows, family_in(content), variants, seeds=seeds)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} can't be read ({error}); a table has a title and a list of rows, and may have"
            " seeds, a family with metric and versus, and a sweep with rows and a list of values"
            " for a setting; in place of rows it may have a data with dataset, tables and holdouts"
            " for each data set"
        ) from None


def data_in(content: dict[str, Any]) -> tuple[TableOnData, ...]:
    """Raises TypeError for an entry that is none."""
    entries = []
    for table in content["data"]:
        lists = {key: tuple(table[key]) for key in LISTS if key in table}
        entries.append(TableOnData(**table | lists))
    return tuple(entries)


def variants_in(content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """By name, the settings of the rows that `[sweep]`, or each `[[sweep]]`, makes: all its rows
    with the first values, then all with the next. Raises KeyError where it has no rows."""
    sweeps, variants = content.get("sweep", []), {}
    for table in sweeps if isinstance(sweeps, list) else [sweeps]:
        sweep = dict(table)
        swept_rows = sweep.pop("rows")
        for values in product(*sweep.values()):
            settings = tuple(f"{key}={value}" for key, value in zip(sweep, values, strict=True))
            for row in swept_rows:
                variants[variant_name(str(row), settings)] = settings
    return variants


def family_in(content: dict[str, Any]) -> Family | None:
    if "family" not in content:
        return None
    family = dict(content["family"])
    return Family(**family | {"without": tuple(family.get("without", ()))})


def table_of(experiments: Collection[str]) -> ExperimentTable | None:
    """The table that has the most of these experiments, the study's first among equals; None where
    no table has any."""
    tables = [read_table(name) for name in sorted(table_names(), key=lambda name: name != "study")]
    best = max(tables, key=lambda table: len(set(table.rows) & set(experiments)))
    return best if set(best.rows) & set(experiments) else None
