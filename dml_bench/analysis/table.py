"""The experiments side by side: the columns of their protocol, and the numbers in them over all
seeds."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from dml_bench.analysis.priors import SeedPriors
from dml_bench.analysis.seen_images import seen_in_pretraining
from dml_bench.analysis.short_names import short_names
from dml_bench.config.experiments import value_at as value_in_experiment
from dml_bench.config.experiments import why_untested
from dml_bench.config.tables import PlannedRow
from dml_bench.config.variants import settings_in
from dml_bench.evaluation import collapse
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols import protocol_named
from dml_bench.protocols.metric import Column, value_at
from dml_bench.runs.metrics import (
    COST,
    CPU_TIME,
    UNTRAINED,
    CostColumn,
    cpu_seconds,
    measure,
    metrics_of,
)
from dml_bench.runs.run import Run
from dml_bench.system.counted import counted
from dml_bench.system.provenance import says_generation

__all__ = ["Group", "TableRow", "grouped"]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table with its numbers, or why there are none."""

    name: str
    short: str
    """What it is called in tables, figures and sentences, see `dml_bench.analysis.short_names`."""
    settings: dict[str, Any]
    """What the name of a variant says, with its values."""
    runs: tuple[Run, ...]
    wanted: int
    """Number of seeds."""
    failures: tuple[str, ...]
    """Seeds without a result, and why."""
    doubts: tuple[str, ...]
    """Seeds whose numbers say nothing, and why."""
    values: tuple[Interval | float | None, ...]
    """One per column."""
    cost: tuple[float | None, ...]
    """One per entry of COST."""

    @property
    def untested(self) -> str:
        """Why nothing is concluded from it under its profile; empty where something is."""
        return why_untested(self.runs[0].experiment) if self.runs else ""

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time of training, by which rows of a table may be compared; None where it is not
        known on the processor of the table."""
        return self.cost[CPU_TIME]

    def times_the_training_of(self, other: "TableRow") -> float | None:
        """How many times its CPU time this row's is; None where the two can't be compared."""
        if self.cpu_seconds is None or not other.cpu_seconds:
            return None
        return self.cpu_seconds / other.cpu_seconds

    @property
    def no_drop_because(self) -> str:
        """Why there is neither drop nor cost of being unseen; empty where features are trained."""
        return self.runs[0].experiment.no_drop_because if self.runs else ""

    def setting(self, key: str) -> Any:
        """Its value of what distinguishes variants in this table; None where it has no such
        setting."""
        if key in self.settings or not self.runs:
            return self.settings.get(key)
        try:
            value = value_in_experiment(self.runs[0].experiment, key)
        except AttributeError:  # an option of a component that this experiment does not use
            return None
        return getattr(value, "name", value)

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that a reader of the numbers has to know."""
        notes = {seen_in_pretraining(run.experiment) for run in self.runs} - {""}
        return (*self.failures, *self.doubts, *sorted(notes))


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that may be compared: one protocol, data set, profile and kind of split."""

    protocol: str
    dataset: str
    profile: str
    split: str
    """How images are divided: `data.split`, with its rule for groups or times."""
    columns: tuple[Column, ...]
    lines: tuple[TableRow, ...]
    priors: SeedPriors
    """By how much seeds usually differ in these experiments; all intervals of this table use it."""
    processor: str
    """That of the CPU times of its rows; empty where no row has one."""

    @property
    def title(self) -> str:
        profile = f", profile {self.profile}" if self.profile else ""
        return f"{self.protocol.replace('_', ' ')} on {self.dataset}{profile}"

    @property
    def title_with_split(self) -> str:
        """`precision drop on cub, split stratified`"""
        return f"{self.title}, split {self.split}"

    @property
    def explanation(self) -> tuple[str, ...]:
        """Sentences below the table."""
        explanation = protocol_named(self.protocol).explanation
        return (*explanation, *self._explain_absent_drops(), *self._explain_priors())

    def _explain_absent_drops(self) -> Iterator[str]:
        """Why some rows have no drop."""
        reasons = dict.fromkeys(line.no_drop_because for line in self.lines)
        for reason in filter(None, reasons):
            yield (
                f"{reason.capitalize()}: both phases have the same features, so there is no drop."
            )

    def _explain_priors(self) -> Iterator[str]:
        """What the table adds to what an experiment's own seeds say."""
        counts = []
        for column in self.columns:
            prior = self.priors.of(column.key) if column.interval else None
            if prior is not None:
                counts.append(f"{prior.degrees_of_freedom:.2g} for {column.head}")
        if counts:
            yield (
                "Seeds: an interval also uses how much seeds differ in the trained experiments of"
                f" the table. In degrees of freedom this counts {', '.join(counts)}."
            )

    @property
    def untested(self) -> str:
        """The sentence on the rows from which nothing is concluded; empty where there are none."""
        reasons = [f"{line.short} ({line.untested})" for line in self.lines if line.untested]
        if not reasons:
            return ""
        are = "is" if len(reasons) == 1 else "are"
        return (
            f"{counted(len(reasons), 'row')} from which nothing can be concluded under the profile"
            f" {self.profile} {are} left out of means, ranks and comparisons: {'; '.join(reasons)}."
        )

    @property
    def slug(self) -> str:
        """For names of files. The usual split of the protocol is not named."""
        usual = protocol_named(self.protocol).splits[0]
        split = "" if self.split == usual else re.sub(r"[^\w.]+", "-", self.split).strip("-")
        return "-".join(part for part in (self.protocol, self.dataset, self.profile, split) if part)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings in which variants of this table differ from their experiments; of several
        rows, those in which the rows differ."""
        keys = {key for line in self.lines for key in line.settings}
        return tuple(sorted(key for key in keys if self._tells_rows_apart(key)))

    def _tells_rows_apart(self, key: str) -> bool:
        """Whether rows have several values of a setting, or there is a single row."""
        values = {line.setting(key) for line in self.lines}
        return len(values) > 1 or len(self.lines) == 1

    @property
    def runs(self) -> list[Run]:
        return [run for line in self.lines for run in line.runs]


def grouped(
    rows: Sequence[PlannedRow],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
    names: Mapping[str, str] = MappingProxyType({}),
    dataset_name: str = "",
) -> list[Group]:
    """The table, or one for each protocol, data set, profile and kind of split that the rows mix.

    Args:
        runs: finished runs by experiment and seed.
        failures: reasons of those that failed.
        names: short names of the experiments; by default those that this table needs.
        dataset_name: that of all rows, where it is known.
    """
    names = names or short_names([replace(row.seeds[0], name=row.name) for row in rows])
    members: dict[tuple[str, str, str, str], list[PlannedRow]] = {}
    known: dict[str, str] = {}  # by settings: a data set of photos has the name of its folder
    for run in runs.values():
        known.setdefault(repr(run.experiment.data.dataset), run.dataset_name)
    for row in rows:
        first, finished = row.seeds[0], finished_runs(row, runs)
        component = first.data.dataset
        own = finished[0].dataset_name if finished else known.get(repr(component), component.name)
        dataset = dataset_name or own
        key = (first.protocol, dataset, first.profile, first.data.described_split)
        members.setdefault(key, []).append(row)
    return [_group(key, chosen, runs, failures, names) for key, chosen in members.items()]


def _group(
    key: tuple[str, str, str, str],
    rows: list[PlannedRow],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
    names: Mapping[str, str],
) -> Group:
    experiments, trained = [], []
    for row in rows:
        finished = finished_runs(row, runs)
        experiments += [run.experiment for run in finished]
        trained.append(list(filter(says_how_seeds_differ, finished)))
    columns = protocol_named(key[0]).columns(experiments) if experiments else ()
    priors = SeedPriors(trained)
    processor = common_processor([finished_runs(row, runs) for row in rows])
    lines = tuple(
        _line(row, names[row.name], columns, runs, failures, priors, processor) for row in rows
    )
    return Group(*key, columns, lines, priors, processor)


def common_processor(rows: Sequence[Sequence[Run]]) -> str:
    """The one on which most rows have a CPU time, of those whose generation is known where there
    are any; empty where none has."""
    counts: Counter[str] = Counter()
    for runs in rows:
        counts.update({processor_of(run) for run in runs if cpu_seconds([*run.costs.values()])})
    del counts[""]
    return max(sorted(counts), key=lambda name: (says_generation(name), counts[name]), default="")


def processor_of(run: Run) -> str:
    """On which a run was trained; empty where that is not known, or was not one processor with one
    process, whose CPU time says what training took."""
    names = set()
    for session in map(dict, run.environment["sessions"]):
        is_alone = session.get("device") == "cpu" and session.get("processes", 1) == 1
        names.add(str(session.get("processor") or "") if is_alone else "")
    return names.pop() if len(names) == 1 else ""


def says_how_seeds_differ(run: Run) -> bool:
    """Whether it trained features, and is not in doubt: the others would draw the usual difference
    of seeds towards 0, or towards that of failures."""
    if run.experiment.no_drop_because or why_untested(run.experiment):
        return False
    return not collapse.is_no_result(run.summary)


def finished_runs(row: PlannedRow, runs: dict[tuple[str, int], Run]) -> tuple[Run, ...]:
    """Those of a row, in the order of its seeds."""
    keys = [(experiment.name, experiment.seed) for experiment in row.seeds]
    return tuple(runs[key] for key in keys if key in runs)


def _line(
    row: PlannedRow,
    short: str,
    columns: tuple[Column, ...],
    runs: dict[tuple[str, int], Run],
    failures: dict[tuple[str, int], str],
    priors: SeedPriors,
    processor: str,
) -> TableRow:
    finished = finished_runs(row, runs)
    failed = tuple(
        f"seed {e.seed}: {failures[e.name, e.seed]}"
        for e in row.seeds
        if (e.name, e.seed) in failures
    )
    values = tuple(_value(column, finished, priors) for column in columns)
    doubted = tuple(collapse.describe_together({run.seed: run.summary for run in finished}))
    return TableRow(
        row.name,
        short,
        settings_in(row.seeds[0]),
        finished,
        len(row.seeds),
        failed,
        doubted,
        values,
        tuple(_cost(cost, finished, processor) for cost in COST),
    )


def _value(column: Column, runs: Sequence[Run], priors: SeedPriors) -> Interval | float | None:
    if not runs:
        return None
    if column.interval:
        if column.key not in metrics_of(runs[0].experiment):
            return None
        return measure(runs, column.key, priors.of(column.key))
    values = [value_at(run.summary, column.place) for run in runs]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _cost(cost: CostColumn, runs: Sequence[Run], processor: str) -> float | None:
    """Of what compares rows, that of the runs on their common processor; what took next to no time
    took it on any."""
    values = []
    for run in runs:
        value = cost.of(list(run.costs.values()))
        if value is None:
            continue
        if cost.compares_rows and value >= UNTRAINED and processor_of(run) != processor:
            continue
        values.append(value)
    if not values:
        return None
    return max(values) if cost.worst else sum(values) / len(values)
