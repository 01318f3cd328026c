"""Methods that stand in tables of several data sets: the rows of a table over data sets
(`experiments/tables/reality.toml`), and rows of the same name."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import numpy as np

from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.short_names import method_of
from dml_bench.analysis.study import Study, paired_runs
from dml_bench.board.tables import BoardRow, BoardTable, table_of
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import TableOnData, read_table
from dml_bench.config.variants import base_name, tuned_name
from dml_bench.data.split import is_rotated
from dml_bench.evaluation.aggregates import (
    ClassMeans,
    improvement_bounds,
    interquartile_mean,
    mean_ranks,
    performance_profile,
    probability_of_improvement,
)
from dml_bench.evaluation.statistics import Interval
from dml_bench.protocols.metric import Metric
from dml_bench.runs.layout import records_below
from dml_bench.runs.record import record_path

__all__ = [
    "FEWEST_DATA_SETS",
    "FEWEST_METHODS",
    "THRESHOLDS",
    "Aggregate",
    "DataSet",
    "MethodOverall",
    "Pair",
    "aggregate_of",
    "aggregates_of",
    "aggregates_of_table",
]

FEWEST_DATA_SETS = 5
"""Interquartile means and profiles of fewer say too little."""
FEWEST_METHODS = 3
"""Mean ranks among fewer say too little."""
THRESHOLDS = np.linspace(0, 1, 101)
"""Scores at which profiles are taken."""
RIVAL = "classifier"


@dataclass(frozen=True, slots=True)
class DataSet:
    """One of several, with the rows that are methods of all."""

    table: BoardTable
    rows: Mapping[str, BoardRow]
    """By method."""

    @property
    def name(self) -> str:
        """The data set's."""
        return self.table.run.dataset_name

    def value(self, method: str, metric: str) -> Interval | None:
        """What a method measures; None where it has no such row, or no such number."""
        row = self.rows.get(method)
        return None if row is None else row.values.get(metric)

    def is_ranked(self, method: str, metric: str) -> bool:
        """Whether a method may be compared with others."""
        row, ranking = self.rows.get(method), self.table.rankings.get(metric)
        return row is not None and ranking is not None and row.name in ranking.ranges

    def ranked(self, methods: Sequence[str], metric: str) -> list[str]:
        """Those of the methods that may be compared with others."""
        return [method for method in methods if self.is_ranked(method, metric)]

    def why_not(self, method: str, metric: str) -> str:
        """Why it has no rank; empty where it has no such row."""
        row, ranking = self.rows.get(method), self.table.rankings.get(metric)
        if row is None:
            return ""
        if ranking is None:  # no row of the table has the metric
            return row.line.no_drop_because or "not measured"
        return ranking.not_comparable[row.name]

    def signs(self, method: str, metric: str) -> dict[str, int]:
        """By other method: 1 where this one is surely better, -1 where it is surely worse, else 0.
        Nothing of those with which it can't be compared."""
        if not self.is_ranked(method, metric):
            return {}
        by_row = {row.name: other for other, row in self.rows.items()}
        sign = -1 if self.table.metric(metric).lower_is_better else 1
        return {
            by_row[contrast.second]: sign * contrast.sign
            for contrast in self.table.rankings[metric].of(self.rows[method].name)
            if contrast.second in by_row
        }


@dataclass(frozen=True, slots=True)
class MethodOverall:
    """One method over data sets."""

    name: str
    values: tuple[Interval | None, ...]
    """One for each data set; None where it has no rank."""
    mean_rank: float | None
    """Over the data sets that enter mean ranks, among the methods that all of them rank; None for
    the others. The same holds for the numbers below."""
    best: float | None
    """The mean of the best ranks that it may have."""
    worst: float | None
    interquartile_mean: float | None
    """None also where fewer than `FEWEST_DATA_SETS` data sets enter."""
    profile: np.ndarray | None
    """(THRESHOLDS) the share of its runs above each; likewise."""
    improvement: tuple[float, float, float] | None
    """How likely a run of it is better than one of the classifier, on a data set at random, with
    the bounds of a 95% interval over classes and seeds. None where fewer than two data sets have
    both."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods that several data sets compare."""

    first: str
    second: str
    signs: tuple[int | None, ...]
    """One for each data set: 1 where the first is surely better, -1 where it is surely worse, 0
    where there is no telling, None where they were not compared."""

    @property
    def known(self) -> list[int]:
        """Those of the data sets that compare the two."""
        return [sign for sign in self.signs if sign is not None]

    @property
    def survives(self) -> bool:
        """Whether one is surely better on all data sets."""
        return len(self.known) > 1 and abs(sum(self.known)) == len(self.known)

    @property
    def is_reversed(self) -> bool:
        """Whether one is surely better here, and the other there."""
        return {1, -1} <= set(self.known)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Methods over data sets, by one metric."""

    title: str
    metric: Metric
    data_sets: tuple[DataSet, ...]
    methods: tuple[MethodOverall, ...]
    """The lowest mean rank first, then those without."""
    pairs: tuple[Pair, ...]
    ranked_on: tuple[DataSet, ...]
    """The data sets that enter mean ranks; none where there are no mean ranks."""


# Rows of the same name


def aggregates_of(tables: Sequence[BoardTable]) -> list[Aggregate]:
    """One for each protocol, kind of split and rotation of hold-outs that several data sets have;
    of a data set the table with most rows, and of methods those that two of them rank."""
    alike: dict[str, dict[str, BoardTable]] = {}
    for table in tables:
        group = table.study.group
        title = f"{group.protocol.replace('_', ' ')}, split {group.split}"
        if is_rotated(table.run.experiment.unseen):
            title += ", rotated hold-outs"
        of_data_sets = alike.setdefault(title, {})
        before = of_data_sets.get(table.run.dataset_name)
        if before is None or len(table.rows) > len(before.rows):
            of_data_sets[table.run.dataset_name] = table
    aggregates: list[Aggregate] = []
    for title, of_data_sets in alike.items():
        aggregates += of_same_names(title, list(of_data_sets.values()))
    return aggregates


def of_same_names(title: str, tables: Sequence[BoardTable]) -> list[Aggregate]:
    """By the main metric, the rows that at least two data sets rank; empty where fewer than two of
    them are ranked on two data sets."""
    metric = tables[0].main_metric
    ranked = [set(table.rankings[metric].ranges) for table in tables if metric in table.rankings]
    counts = Counter(chain.from_iterable(ranked))
    data_sets = []
    for table in tables:
        rows = {row.name: row for row in table.rows if counts[row.name] > 1}
        data_set = DataSet(table, rows)
        if len(data_set.ranked(list(rows), metric)) > 1:
            data_sets.append(data_set)
    every_row = {row.name: row for one in data_sets for row in one.rows.values()}
    rivals = [name for name, row in every_row.items() if row.kind == RIVAL]
    aggregate = aggregate_of(title, metric, data_sets, rivals[0] if rivals else "")
    return [] if aggregate is None else [aggregate]


# The rows of a table over data sets


def aggregates_of_table(
    name: str,
    results: Path,
    sound: Collection[Path] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[list[Aggregate], dict[str, Study]]:
    """By each ranked metric, the methods of a table over data sets, from the records in `results`;
    and by data set the study of its rows. `sound` are the records that may be used: all without
    it. There are no aggregates of fewer than two data sets. `say` gets a line on each record that
    can't be used."""
    table = read_table(name)
    aggregates: list[Aggregate] = []
    studies: dict[str, Study] = {}
    for tuned in (False, True):
        data_sets = []
        for entry in table.data:
            data_set = data_set_of(entry, results, sound, tuned=tuned, say=say)
            if data_set is not None:
                data_sets.append(data_set)
                studies.setdefault(entry.dataset, data_set.table.study)
        if len(data_sets) < 2:
            continue
        title = f"{table.title}, tuned" if tuned else table.title
        for metric in dict.fromkeys(name for one in data_sets for name in one.table.rankings):
            aggregate = aggregate_of(title, metric, data_sets, RIVAL)
            if aggregate is not None:
                aggregates.append(aggregate)
    return aggregates, studies


def data_set_of(
    entry: TableOnData,
    results: Path,
    sound: Collection[Path] | None,
    *,
    tuned: bool,
    say: Callable[[str], None] = lambda text: None,
) -> DataSet | None:
    """The recorded rows of one data set, of its revision with most rows; None where it has none, or
    none that is tuned, or none that can be read. `say` gets a line on each that can't."""
    paths = [
        path
        for path in recorded_rows(entry, results, tuned=tuned)
        if sound is None or path in sound
    ]
    if not paths:
        return None
    try:
        collection = collect(paths)
    except ValueError as problem:
        say(f"{entry.dataset} is left out: {problem}")
        return None
    for line in collection.problems:
        say(line)
    of_revisions = studies_of(collection)
    table = table_of(max(of_revisions, key=lambda study: len(study.group.lines)), {})
    rows: dict[str, BoardRow] = {}
    for row in table.rows:
        method = method_of(row.experiment)
        rows.setdefault(f"{method}, tuned" if row.experiment.tuned else method, row)
    return DataSet(table, rows)


def recorded_rows(entry: TableOnData, results: Path, *, tuned: bool) -> list[Path]:
    """The records of the rows of a table on one data set; with `tuned`, those of their hold-outs,
    where one of them is tuned."""
    names = entry.rows.rows
    any_row = resolve(
        base_name(names[0]), profile=entry.profile, overrides=entry.overrides(tuned=tuned)
    )
    folder = record_path(results, any_row, entry.dataset).parents[1]
    paths: list[Path] = []
    has_tuned = False
    for row in names:
        paths += records_below(folder / row)
        if tuned:
            of_search = records_below(folder / tuned_name(row))
            has_tuned |= bool(of_search)
            paths += of_search
    return [] if tuned and not has_tuned else paths


# By one metric


def aggregate_of(
    title: str, metric: str, data_sets: Sequence[DataSet], rival: str
) -> Aggregate | None:
    """None where fewer than two data sets rank anything."""
    ranked_by: dict[str, int] = {}
    for one in data_sets:
        for name in one.rows:
            if one.is_ranked(name, metric):
                ranked_by[name] = ranked_by.get(name, 0) + 1
    if len(data_sets) < 2 or not ranked_by:
        return None
    declared = next(one.table.metric(metric) for one in data_sets if metric in one.table.rankings)
    ranked_on, in_all = entering(list(ranked_by), metric, data_sets)
    ranks: dict[str, float] = {}
    if in_all:
        ranks |= zip(in_all, ranks_over(in_all, declared, ranked_on).tolist(), strict=True)
    overall = [overall_of(name, declared, data_sets, ranked_on, ranks, rival) for name in ranked_by]
    overall.sort(key=lambda method: np.inf if method.mean_rank is None else method.mean_rank)
    by_rank = [method.name for method in overall]
    pairs = [pair_of(*both, metric, data_sets) for both in combinations(by_rank, 2)]
    return Aggregate(
        title,
        declared,
        tuple(data_sets),
        tuple(overall),
        tuple(pair for pair in pairs if len(pair.known) > 1),
        tuple(ranked_on),
    )


def entering(
    methods: Sequence[str], metric: str, data_sets: Sequence[DataSet]
) -> tuple[list[DataSet], list[str]]:
    """The data sets over which mean ranks are taken, those that rank at least half of the methods,
    and the methods that all of them rank. Neither where that is fewer than two data sets or fewer
    than FEWEST_METHODS methods."""
    enough = max(FEWEST_METHODS, len(methods) / 2)
    ranked_on = [one for one in data_sets if len(one.ranked(methods, metric)) >= enough]
    in_all = list(methods)
    for one in ranked_on:
        in_all = one.ranked(in_all, metric)
    if len(ranked_on) < 2 or len(in_all) < FEWEST_METHODS:
        return [], []
    return ranked_on, in_all


def ranks_over(methods: Sequence[str], metric: Metric, data_sets: Sequence[DataSet]) -> np.ndarray:
    """(methods) the mean rank of methods that all these data sets rank."""
    means = np.empty((len(data_sets), len(methods)))
    for place, one in enumerate(data_sets):
        means[place] = [one.rows[name].seeds[metric.name].mean() for name in methods]
    return mean_ranks(-means if metric.lower_is_better else means)


def overall_of(
    name: str,
    metric: Metric,
    data_sets: Sequence[DataSet],
    ranked_on: Sequence[DataSet],
    ranks: Mapping[str, float],
    rival: str,
) -> MethodOverall:
    ranked = [one.is_ranked(name, metric.name) for one in data_sets]
    values = [
        one.value(name, metric.name) if is_ranked else None
        for one, is_ranked in zip(data_sets, ranked, strict=True)
    ]
    best: float | None = None
    worst: float | None = None
    middle: float | None = None
    profile: np.ndarray | None = None
    if name in ranks:
        bounds = [among(one, name, ranks, metric.name) for one in ranked_on]
        best, worst = (float(bound) for bound in np.mean(bounds, axis=0))
        if len(ranked_on) >= FEWEST_DATA_SETS:
            seeds = [one.rows[name].seeds[metric.name] for one in ranked_on]
            middle = interquartile_mean(seeds)
            profile = performance_profile(seeds, THRESHOLDS)
    return MethodOverall(
        name=name,
        values=tuple(values),
        mean_rank=float(ranks[name]) if name in ranks else None,
        best=best,
        worst=worst,
        interquartile_mean=middle,
        profile=profile,
        improvement=improvement_over(name, rival, metric, data_sets),
    )


def among(data_set: DataSet, name: str, methods: Collection[str], metric: str) -> tuple[int, int]:
    """The range of ranks of one method among those that have a mean rank."""
    signs = [sign for other, sign in data_set.signs(name, metric).items() if other in methods]
    return 1 + signs.count(-1), len(methods) - signs.count(1)


def pair_of(first: str, second: str, metric: str, data_sets: Sequence[DataSet]) -> Pair:
    return Pair(first, second, tuple(one.signs(first, metric).get(second) for one in data_sets))


def improvement_over(
    name: str, rival: str, metric: Metric, data_sets: Sequence[DataSet]
) -> tuple[float, float, float] | None:
    """Over the data sets that compare the two."""
    compared = [one for one in data_sets if rival in one.signs(name, metric.name)]
    if len(compared) < 2:
        return None
    ours, theirs = [], []
    for one in compared:
        first, second = zip(*paired_runs(one.rows[name].line, one.rows[rival].line), strict=True)
        ours.append(ClassMeans.of(list(map(metric.scores, first)), metric.average))
        theirs.append(ClassMeans.of(list(map(metric.scores, second)), metric.average))
    if metric.lower_is_better:
        ours, theirs = theirs, ours
    estimate = probability_of_improvement(
        list(map(seed_scores, ours)), list(map(seed_scores, theirs))
    )
    return (estimate, *improvement_bounds(ours, theirs))


def seed_scores(means: ClassMeans) -> np.ndarray:
    """(seed) what a table shows."""
    return means.scores(np.ones((1, len(means.means))))[0]
