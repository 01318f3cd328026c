"""Rows of a suite with the settings that searches chose, each beside the row of its file."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dml_bench.config import Experiment, as_table
from dml_bench.config.experiments import parent
from dml_bench.config.tables import PlannedRow
from dml_bench.config.variants import base_name, tuned_name, variant_name
from dml_bench.runs.folder import differing
from dml_bench.suite.plan import resolve_row
from dml_bench.training.tuning import SEARCHES, Search, read_search, search_files

__all__ = ["NoSearch", "with_tuned_rows"]

NOT_COMPARED = ("name", "summary", "expects", "seed", "unseen", "plugins", "evaluate")
"""In which a run may differ from the experiment that was searched. The run itself checks that it
holds out no class that the search knew."""


class NoSearch(ValueError):
    """A row has to be tuned, and nobody has searched for its settings."""


def with_tuned_rows(
    rows: Sequence[PlannedRow], places: Sequence[Path], profile: str, overrides: Sequence[str]
) -> tuple[PlannedRow, ...]:
    """Each row, followed by itself with the settings of its search, which is looked for in the
    first of these folders and then in the next. Raises NoSearch, and ValueError where searches
    differ in how much they tried."""
    both: list[PlannedRow] = []
    budgets: dict[tuple[str, int], str] = {}
    for row in rows:
        names = names_of(row, overrides)
        command = ["dml-bench", "tune", row.named_as, *(["--demo"] if profile else [])]
        for override in overrides:
            command += ["--set", override]
        searches = [
            search_of(row, names, experiment, places, shlex.join(command))
            for experiment in row.seeds
        ]
        for search in searches:
            budgets.setdefault((search.space, len(search.trials)), row.name)
        both += [row, tuned_row(row, searches, profile, overrides)]
    if len(budgets) > 1:
        said = ", ".join(f"{trials} in {space} ({row})" for (space, trials), row in budgets.items())
        raise ValueError(
            f"the searches must have as many trials for each row, got {said}: dml-bench tune with"
            " the larger --trials goes on with a search"
        )
    return tuple(both)


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
    row: PlannedRow,
    names: Sequence[str],
    experiment: Experiment,
    places: Sequence[Path],
    command: str,
) -> Search:
    """The search of an experiment, with its seed or, where seeds share the split, another; else the
    shared search of the nearest experiment that it extends. Raises NoSearch with the command that
    makes one."""
    for name in names:
        for path in files_of(places, name, experiment):
            search = read_search(path)
            is_own = base_name(name) == base_name(row.name)
            if (is_own or search.shared) and not other_settings(search, experiment):
                return search
    looked_in = " or ".join(str(place / SEARCHES) for place in places)
    raise NoSearch(
        f"{experiment.name} has no search with these settings for seed {experiment.seed} in"
        f" {looked_in}: {command} --seeds {experiment.seed} --out {places[0]} makes one"
    )


def files_of(places: Sequence[Path], name: str, experiment: Experiment) -> list[Path]:
    """The files of an experiment's searches, that of the same seed first. Those of other seeds
    count only where the split is the same for all."""
    files: list[Path] = []
    for place in places:
        files += search_files(place, name)
    own = [path for path in files if path.stem == str(experiment.seed)]
    is_shared = experiment.data.split in ("given", "half") and not experiment.data.per_class
    return [*own, *(path for path in files if is_shared and path not in own)]


def other_settings(search: Search, experiment: Experiment) -> list[str]:
    """In which settings a search and a run differ that have to be the same: all but a few, or of a
    shared search the data and the protocol."""
    theirs, mine = as_table(search.experiment), as_table(experiment)
    if search.shared:
        keys = ("data", "protocol", "profile")
        return differing({key: theirs[key] for key in keys}, {key: mine[key] for key in keys})
    for table in (theirs, mine):
        for key in NOT_COMPARED:
            table.pop(key, None)
    return differing(theirs, mine)


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
    return f'"{value}"' if isinstance(value, str) else repr(value)
