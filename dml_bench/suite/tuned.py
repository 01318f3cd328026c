"""Rows of a suite with the settings that searches chose, each beside the row of its file."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dml_bench.config import Experiment, as_table
from dml_bench.config.experiments import parent
from dml_bench.config.tables import PlannedRow
from dml_bench.config.tuning import TuningSpace, read_space, space_for
from dml_bench.config.variants import base_name, tuned_name, variant_name
from dml_bench.runs.folder import decisive, differing
from dml_bench.suite.plan import resolve_row, without_seed
from dml_bench.training.tuning import SEARCHES, Search, read_search, search_files

__all__ = [
    "MissingSearch",
    "NoSearch",
    "has_shared_split",
    "missing_searches",
    "trains",
    "with_tuned_rows",
]

NOT_COMPARED = ("name", "seed", "unseen", "evaluate")
"""In which a run may differ from the experiment that was searched. The run itself checks that it
holds out no class that the search knew."""
SHARED_SPLITS = ("given", "half")
"""Kinds of split that no seed changes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingSearch:
    """A search that nobody has made, and that rows of a suite wait for."""

    experiments: tuple[Experiment, ...]
    """What is searched, once for each seed whose split needs a search of its own."""
    space: TuningSpace
    rows: tuple[str, ...]
    """The names of the rows that wait for it."""
    command: str
    """The shell command that makes it for all seeds."""

    @property
    def trainings(self) -> float:
        """How many trainings of the experiment take as long as its trials for a seed at most. A
        trial trains on fewer classes, and may be stopped early."""
        experiment = self.experiments[0]
        return self.space.trials * self.space.epochs_of(experiment) / experiment.train.epochs


class NoSearch(ValueError):
    """Rows have to be tuned, and nobody has searched for their settings."""

    def __init__(self, missing: Sequence[MissingSearch], places: Sequence[Path]):
        self.missing = missing
        first = missing[0]
        looked_in = " or ".join(str(place / SEARCHES) for place in places)
        seeds = ", ".join(str(experiment.seed) for experiment in first.experiments)
        more = f" (1 of {len(missing)} that are missing)" if missing[1:] else ""
        super().__init__(
            f"{first.experiments[0].name} has no search with these settings for seed {seeds} in"
            f" {looked_in}{more}: {first.command} makes one"
        )


def with_tuned_rows(
    rows: Sequence[PlannedRow],
    places: Sequence[Path],
    profile: str,
    overrides: Sequence[str],
    data_dir: Path | None = None,
) -> tuple[PlannedRow, ...]:
    """Each row, followed by itself with the settings of its search where it trains. A search is
    looked for in the first of these folders and then in the next. Raises NoSearch, and ValueError
    where searches differ in how much they tried."""
    if missing := missing_searches(rows, places, profile, overrides, data_dir):
        raise NoSearch(missing, places)
    both: list[PlannedRow] = []
    budgets: dict[tuple[str, int], str] = {}
    for row in rows:
        both.append(row)
        if not trains(row):
            continue
        searches = list(filter(None, searches_of(row, places, overrides)))
        require_chosen(row, searches)
        for search in searches:
            budgets.setdefault((search.space, len(search.trials)), row.name)
        both.append(tuned_row(row, searches, profile, overrides))
    if len(budgets) > 1:
        said = ", ".join(f"{trials} in {space} ({row})" for (space, trials), row in budgets.items())
        raise ValueError(
            f"the searches must have as many trials for each row, got {said}: dml-bench tune with"
            " the larger --trials goes on with a search"
        )
    return tuple(both)


def require_chosen(row: PlannedRow, searches: Sequence[Search]) -> None:
    """Raises ValueError where no trial of a search came to its end: the row would be called tuned
    with settings that nothing chose."""
    for search in searches:
        if search.best.state != "complete":
            raise ValueError(
                f"no trial of {search.path}, the search of {row.name}, came to its end: delete it,"
                " and search anew with a lower optimizer.lr"
            )


def missing_searches(
    rows: Sequence[PlannedRow],
    places: Sequence[Path],
    profile: str,
    overrides: Sequence[str],
    data_dir: Path | None = None,
) -> tuple[MissingSearch, ...]:
    """The searches that would have to be made before all rows that train could be tuned: of each
    row, or of the experiment whose search it can share."""
    rows = list(filter(trains, rows))
    by_name = {row.name: row for row in rows}
    seeds: dict[str, set[int]] = {}
    waiting: dict[str, list[str]] = {}
    for row in rows:
        searches = searches_of(row, places, overrides)
        without = [seed for seed, search in zip(row.seeds, searches, strict=True) if search is None]
        if without:
            name = searched_for(row, by_name)
            seeds.setdefault(name, set()).update(experiment.seed for experiment in without)
            waiting.setdefault(name, []).append(row.name)
    missing = []
    for name, of_search in seeds.items():
        row = by_name[name]
        experiments = tuple(one for one in row.seeds if one.seed in of_search)
        if has_shared_split(experiments[0]):
            experiments = experiments[:1]
        missing.append(
            MissingSearch(
                experiments=experiments,
                space=read_space(space_for(row.seeds[0])),
                rows=tuple(waiting[name]),
                command=tune_command(row, experiments, places[0], profile, overrides, data_dir),
            )
        )
    return tuple(missing)


def trains(row: PlannedRow) -> bool:
    """Whether it trains a network or a head, whose settings can be searched for."""
    return not row.seeds[0].no_drop_because


def searched_for(row: PlannedRow, by_name: Mapping[str, PlannedRow]) -> str:
    """The row whose search a row takes: its own, or where searches are shared that of the furthest
    row that it extends with the same data and protocol."""
    experiment = row.seeds[0]
    if not read_space(space_for(experiment)).shared:
        return row.name
    extended = [by_name[name] for name in names_of(row, ()) if name in by_name]
    alike = [one.name for one in extended if not unshared(one.seeds[0], experiment)]
    return alike[-1]


def tune_command(
    row: PlannedRow,
    experiments: Sequence[Experiment],
    out: Path,
    profile: str,
    overrides: Sequence[str],
    data_dir: Path | None,
) -> str:
    """The shell command that searches for a row's settings, for each of these seeds."""
    command = ["dml-bench", "tune", row.named_as, *(["--demo"] if profile else [])]
    swept = (setting for setting in row.swept if not setting.startswith("name="))
    for setting in (*without_seed(overrides), *swept):
        command += ["--set", setting]
    command += ["--seeds", ",".join(str(experiment.seed) for experiment in experiments)]
    if data_dir is not None:
        command += ["--data-dir", str(data_dir)]
    return shlex.join([*command, "--out", str(out)])


def searches_of(
    row: PlannedRow, places: Sequence[Path], overrides: Sequence[str]
) -> list[Search | None]:
    """The search that holds for each seed of a row; None where there is none."""
    names = names_of(row, overrides)
    return [search_of(row, names, experiment, places) for experiment in row.seeds]


def names_of(row: PlannedRow, overrides: Sequence[str]) -> list[str]:
    """The names under which a search may be that holds for a row: its own, that of its experiment,
    and those of what this extends, each also as the variant that the suite's settings make of
    it."""
    names = []
    name: str | None = row.name
    while name is not None:
        base = base_name(name)
        names += [name, base, variant_name(base, overrides)]
        name = parent(base)
    return list(dict.fromkeys(names))


def search_of(
    row: PlannedRow, names: Sequence[str], experiment: Experiment, places: Sequence[Path]
) -> Search | None:
    """The search of an experiment, with its seed or, where seeds share the split, another; else the
    shared search of the nearest experiment that it extends; None where there is none."""
    for name in names:
        for path in files_of(places, name, experiment):
            search = read_search(path)
            is_own = base_name(name) == base_name(row.name)
            if (is_own or search.shared) and not other_settings(search, experiment):
                return search
    return None


def has_shared_split(experiment: Experiment) -> bool:
    """Whether all seeds divide the images in the same way."""
    return experiment.data.split in SHARED_SPLITS and not experiment.data.per_class


def files_of(places: Sequence[Path], name: str, experiment: Experiment) -> list[Path]:
    """The files of an experiment's searches, that of the same seed first. Those of other seeds
    count only where the split is the same for all."""
    files: list[Path] = []
    for place in places:
        files += search_files(place, name)
    own = [path for path in files if path.stem == str(experiment.seed)]
    others = [path for path in files if path not in own]
    return [*own, *others] if has_shared_split(experiment) else own


def other_settings(search: Search, experiment: Experiment) -> list[str]:
    """In which settings a search and a run differ that have to be the same: all but a few, or of a
    shared search the data and the protocol."""
    if search.shared:
        return unshared(search.experiment, experiment)
    theirs, mine = decisive(as_table(search.experiment)), decisive(as_table(experiment))
    for table in (theirs, mine):
        for key in NOT_COMPARED:
            table.pop(key, None)
    return differing(theirs, mine)


def unshared(searched: Experiment, experiment: Experiment) -> list[str]:
    """In which settings two experiments differ that have to be the same for a shared search."""
    theirs, mine = as_table(searched), as_table(experiment)
    keys = ("data", "protocol", "profile")
    return differing({key: theirs[key] for key in keys}, {key: mine[key] for key in keys})


def tuned_row(
    row: PlannedRow, searches: Sequence[Search], profile: str, overrides: Sequence[str]
) -> PlannedRow:
    """The row with the settings that the search of each seed chose, under a name of its own."""
    by_seed = []
    for experiment, search in zip(row.seeds, searches, strict=True):
        settings = [*row.swept, *tuned_settings(search, experiment)]
        seed, name = [experiment.seed], tuned_name(row.name)
        by_seed.append(
            resolve_row(row.named_as, profile, list(overrides), seed, settings, called=name)
        )
    return replace(
        by_seed[0],
        seeds=tuple(one.seeds[0] for one in by_seed),
        swept_by_seed=tuple(one.swept for one in by_seed),
    )


def tuned_settings(search: Search, experiment: Experiment) -> list[str]:
    """`key=value` of what the search chose, and of what the run says of the search."""
    chosen = search.chosen(experiment)
    return [*(f"{key}={value!r}" for key, value in chosen.items()), f"tuned={in_toml(search)}"]


def in_toml(search: Search) -> str:
    """What a run says of the search, as one value of TOML."""
    parts = [f"{key}={toml_value(value)}" for key, value in asdict(search.tuned()).items()]
    return "{" + ", ".join(parts) + "}"


def toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    # Quotes and backslashes of class names are written in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
