"""Which experiments a suite runs: the rows of a table, with which seeds, resolved before anything
is run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dml_bench.config import Experiment, experiments
from dml_bench.config.tables import ExperimentTable, PlannedRow, choose, read_table
from dml_bench.config.variants import (
    Sweep,
    base_name,
    refuse_twice,
    setting_of,
    sweep_overrides,
    variant_name,
)

__all__ = [
    "Job",
    "chosen_rows",
    "in_order",
    "resolved_rows",
    "without_seed",
]


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One run: a row with one seed. Equal only to itself."""

    experiment: Experiment
    named_as: str = ""
    """What a command calls the row, where that is not its name."""
    swept: tuple[str, ...] = ()
    """What a command adds to the suite's own settings, its name included."""

    def __str__(self) -> str:
        return f"{self.experiment.name} seed {self.experiment.seed}"

    @property
    def key(self) -> tuple[str, int]:
        """The experiment's name and the seed."""
        return self.experiment.name, self.experiment.seed


def chosen_rows(
    names: list[str],
    table: str,
    only: list[str],
    *,
    profile: str,
    overrides: list[str],
    seeds: list[int],
    sweeps: Sequence[str] = (),
) -> tuple[str, str, tuple[PlannedRow, ...]]:
    """Name and title of the table, and its rows: those of `table` (`study` where nothing is named),
    or the experiments `names`. Where neither `seeds` nor an override names a seed, those of the
    table's file are used."""
    if names and table:
        raise ValueError(
            f"--table {table} brings its own rows: leave it out, or name no experiments"
        )
    every = (
        ExperimentTable("own", "Own experiments", tuple(names))
        if names
        else read_table(table or "study")
    )
    if every.data:
        raise ValueError(
            f"the table {table} is of several data sets: plan it by plan_suites, or choose another"
        )
    chosen = choose(every, only)
    sweep = [Sweep.parse(text) for text in sweeps]
    if seeds:
        refuse_twice(overrides, "seed", "--seeds")
    elif without_seed(overrides) == overrides:
        seeds = list(chosen.seeds)
    rows = resolved_rows(chosen, profile, overrides, seeds, sweep)
    return chosen.name, chosen.title, rows


def without_seed(overrides: Sequence[str]) -> list[str]:
    """The overrides that do not name the seed: for a command that names it by --seeds."""
    return [override for override in overrides if setting_of(override) != "seed"]


def resolved_rows(
    table: ExperimentTable,
    profile: str,
    overrides: list[str],
    seeds: list[int],
    sweep: Sequence[Sweep] = (),
) -> tuple[PlannedRow, ...]:
    """The rows of a table, each once for each combination of swept values. Raises ValueError,
    naming the row."""
    rows = []
    for row in table.rows:
        settings = table.variants.get(row, ())
        require_own_values(row, settings, overrides)
        name = base_name(row) if settings else row
        for combination in sweep_overrides(sweep, [*overrides, *settings]):
            swept = [*settings, *combination]
            called = row if settings and not combination else ""
            rows.append(resolve_row(name, profile, overrides, seeds, swept, called))
    return tuple(rows)


def require_own_values(row: str, settings: Sequence[str], overrides: Sequence[str]) -> None:
    """Raises ValueError where a command sets what tells the rows of a table apart."""
    keys = {setting_of(setting): setting.partition("=")[0] for setting in settings}
    for override in overrides:
        key = keys.get(setting_of(override))
        if key is not None:
            raise ValueError(
                f"--set {override}: the table has {row} for a value of its own of {key}: choose"
                " rows with --only"
            )


def resolve_row(
    name: str,
    profile: str,
    overrides: list[str],
    seeds: list[int],
    swept: Sequence[str] = (),
    called: str = "",
) -> PlannedRow:
    """The experiment called `name` once per seed; its own seed where none is given. With `swept`
    settings it has a name of its own: `called`, or one that says all settings. Raises ValueError,
    naming the row."""
    seed_overrides = [[f"seed={seed}"] for seed in dict.fromkeys(seeds)] or [[]]
    experiments.find(name)
    try:
        written = experiments.resolve(name)
        if swept:
            variant = called or variant_name(written.name, [*overrides, *swept])
            written = replace(written, name=variant)
            swept = (*swept, f"name={variant}")
        resolved = [
            experiments.resolve(name, profile=profile, overrides=[*overrides, *swept, *seed])
            for seed in seed_overrides
        ]
        return PlannedRow(written, tuple(resolved), name, tuple(swept))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def in_order(rows: list[PlannedRow]) -> list[Job]:
    """All runs, seed by seed, so that a suite that is stopped leaves whole tables. Raises
    ValueError where two would share a folder."""
    most_seeds = max(len(row.seeds) for row in rows)
    jobs = [
        Job(row.seeds[i], row.named_as, row.settings_of(i))
        for i in range(most_seeds)
        for row in rows
        if i < len(row.seeds)  # without training one seed may be enough
    ]
    keys = [job.key for job in jobs]
    twice = [job for i, job in enumerate(jobs) if job.key in keys[:i]]
    if twice:
        raise ValueError(f"{twice[0]} is in the table twice: give each experiment its own name")
    return jobs
