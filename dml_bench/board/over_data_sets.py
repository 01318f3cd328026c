"""Rows that stand in tables of several data sets, with the same protocol and the same kind of
split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.board.tables import BoardTable
from dml_bench.evaluation.aggregates import (
    interquartile_mean,
    mean_ranks,
    performance_profile,
)

__all__ = ["FEWEST_DATA_SETS", "THRESHOLDS", "Aggregate", "MethodOverall", "aggregates_of"]

FEWEST_DATA_SETS = 5
"""Interquartile means and profiles of fewer say too little."""
THRESHOLDS = np.linspace(0, 1, 101)
"""Scores at which profiles are taken."""


@dataclass(frozen=True, slots=True)
class MethodOverall:
    """One method over data sets."""

    name: str
    mean_rank: float
    best: float
    """The mean of the best ranks that it may have."""
    worst: float
    interquartile_mean: float | None
    """None under `FEWEST_DATA_SETS` data sets."""
    profile: np.ndarray | None
    """(THRESHOLDS) the share of its runs above each; likewise."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The methods that are in all of these tables."""

    title: str
    metric: str
    tables: tuple[BoardTable, ...]
    methods: tuple[MethodOverall, ...]
    """The lowest mean rank first."""


def aggregates_of(tables: Sequence[BoardTable]) -> list[Aggregate]:
    """One for each protocol, kind of split and rotation of hold-outs that several data sets have;
    of a data set the table with most rows, and of methods those that all have."""
    alike: dict[tuple[str, str], dict[str, BoardTable]] = {}
    for table in tables:
        group = table.study.group
        of_data_sets = alike.setdefault((group.protocol, group.split), {})
        before = of_data_sets.get(table.run.dataset_name)
        if before is None or len(table.rows) > len(before.rows):
            of_data_sets[table.run.dataset_name] = table
    aggregates = []
    for (protocol, split), of_data_sets in alike.items():
        title = f"{protocol.replace('_', ' ')}, split {split}"
        aggregate = aggregate_of(title, list(of_data_sets.values()))
        if aggregate is not None:
            aggregates.append(aggregate)
    return aggregates


def aggregate_of(title: str, tables: Sequence[BoardTable]) -> Aggregate | None:
    """None where fewer than two methods are ranked on two data sets."""
    if len(tables) < 2:
        return None
    metric = tables[0].main_metric
    ranked = [set(table.rankings[metric].ranges) for table in tables]
    in_all = set.intersection(*ranked)
    names = [row.name for row in tables[0].rows if row.name in in_all]
    if len(names) < 2:
        return None
    seeds: dict[str, list[np.ndarray]] = {}
    means = np.empty((len(tables), len(names)))
    for column, name in enumerate(names):
        seeds[name] = [seeds_of(table, name, metric) for table in tables]
        means[:, column] = [values.mean() for values in seeds[name]]
    ranks = mean_ranks(-means if tables[0].metric(metric).lower_is_better else means)
    methods = []
    for place, name in enumerate(names):
        bounds = [among(table, name, names, metric) for table in tables]
        best, worst = np.mean(bounds, axis=0)
        enough = len(tables) >= FEWEST_DATA_SETS
        methods.append(
            MethodOverall(
                name=name,
                mean_rank=float(ranks[place]),
                best=float(best),
                worst=float(worst),
                interquartile_mean=interquartile_mean(seeds[name]) if enough else None,
                profile=performance_profile(seeds[name], THRESHOLDS) if enough else None,
            )
        )
    methods.sort(key=lambda method: method.mean_rank)
    return Aggregate(title, metric, tuple(tables), tuple(methods))


def seeds_of(table: BoardTable, name: str, metric: str) -> np.ndarray:
    return next(row.seeds[metric] for row in table.rows if row.name == name)


def among(table: BoardTable, name: str, names: Sequence[str], metric: str) -> tuple[int, int]:
    """The range of ranks of one method among those that all data sets have."""
    lower = table.metric(metric).lower_is_better
    better = worse = 0
    for contrast in table.rankings[metric].of(name):
        if contrast.second in names:
            sign = -contrast.sign if lower else contrast.sign
            worse += sign > 0
            better += sign < 0
    return 1 + better, len(names) - worse
