"""Which of several experiments is better, by how much, and how sure that is: over all classes and
class by class.

Every test is paired: both were asked the same queries with the same seeds. Overall differences have
the interval of `evaluation.statistics` and its p-value. A class has few queries: its p-value is the
exact sign test of those that one of the two gets right and the other wrong (McNemar 1947), pooled
over seeds. Several tests at a time are corrected by Holm's step-down method (Holm 1979), overall
and over the classes of a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.runs.metrics import Metric, metric_of, metrics_of
from dml_bench.runs.pairing import RunPair, Side, pair_runs
from dml_bench.runs.run import Run, read_folder, run_folders

__all__ = [
    "ClassDifference",
    "Comparison",
    "Difference",
    "compare",
    "difference_of",
    "holm",
    "read_sides",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One metric of the first minus that of the second."""

    metric: str
    head: str
    """The metric's short name."""
    signed: bool
    """Whether the metric itself is a difference, and is shown with its sign."""
    lower_is_better: bool
    first: Interval
    second: Interval
    difference: Interval
    p: float
    """Two-sided; nan where there is no interval."""
    p_holm: float
    """Corrected over all differences that are compared at a time."""

    @property
    def better(self) -> int:
        """0 or 1 for the side that is better beyond doubt at 5% after the correction, -1 where that
        there is no detectable difference."""
        if not self.p_holm < 0.05:
            return -1
        return int((self.difference.estimate > 0) == self.lower_is_better)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassDifference:
    """P@1 of one class by the models of phase `all` (or `disjoint`), mean over seeds."""

    name: str
    first: float
    second: float
    won: int
    """Queries that the first gets right and the second wrong."""
    lost: int
    p: float
    p_holm: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    first: str
    second: str
    seeds: tuple[int, ...]
    equal: bool
    """Whether every metric has the same value on every query."""
    overall: tuple[Difference, ...]
    classes: tuple[ClassDifference, ...]
    """Ascending by p."""


def read_sides(paths: Sequence[Path]) -> list[Side]:
    """One side per path: a run folder, or a folder with the runs of one experiment on one data set.
    Raises ValueError in words for people."""
    sides = []
    for path in paths:
        folders = run_folders(path)
        if not folders:
            raise ValueError(
                f"{path} holds no run: name a run folder (.../seed-42) or the folder of an"
                " experiment's runs"
            )
        runs = sorted((read_folder(folder) for folder in folders), key=lambda run: run.seed)
        kinds = {(run.experiment.name, run.dataset_fingerprint) for run in runs}
        if len(kinds) > 1:
            several = ", ".join(sorted({name for name, _ in kinds}))
            raise ValueError(
                f"{path} holds runs of several experiments or data sets ({several}): name the"
                " folder of one"
            )
        if twice := [run for run, before in pairwise(runs) if run.seed == before.seed]:
            raise ValueError(
                f"{path} holds several runs of {twice[0].experiment.name} with seed"
                f" {twice[0].seed}: name the folder of one"
            )
        sides.append(Side(runs[0].experiment.name, tuple(runs)))
    names = [side.name for side in sides]
    return [
        Side(str(path) if names.count(side.name) > 1 else side.name, side.runs)
        for path, side in zip(paths, sides, strict=True)
    ]


def compare(sides: Sequence[Side]) -> list[Comparison]:
    """Each pair of sides on the seeds and metrics that both have. Raises ValueError where a pair
    can't be compared."""
    names = [(first.name, second.name) for first, second in combinations(sides, 2)]
    paired = [pair_runs(first, second) for first, second in combinations(sides, 2)]
    overall = [differences(pairs) for pairs in paired]
    corrected = iter(holm(np.array([row.p for rows in overall for row in rows])))
    comparisons = []
    for (first, second), pairs, rows in zip(names, paired, overall, strict=True):
        comparisons.append(
            Comparison(
                first=first,
                second=second,
                seeds=tuple(pair.first.seed for pair in pairs),
                equal=are_equal(pairs, [row.metric for row in rows]),
                overall=tuple(replace(row, p_holm=float(next(corrected))) for row in rows),
                classes=class_differences(pairs),
            )
        )
    return comparisons


def differences(pairs: Sequence[RunPair]) -> list[Difference]:
    """Of the metrics that both have; what depends on the classes held out only where those are the
    same."""
    mine = metrics_of(pairs[0].first.experiment)
    theirs = metrics_of(pairs[0].second.experiment)
    compared = [metric for name, metric in mine.items() if name in theirs and metric.compared]
    runs = [run for pair in pairs for run in (pair.first, pair.second)]
    if len({held_out(run) for run in runs}) > 1:
        compared = [metric for metric in compared if not metric.depends_on_holdouts]
    return [one_difference(pairs, metric.name) for metric in compared]


def are_equal(pairs: Sequence[RunPair], names: Sequence[str]) -> bool:
    """Whether the metrics of these names have the same value on every query of every seed."""
    for name in names:
        metric = metric_of(pairs[0].first.experiment, name)
        for pair in pairs:
            first, second = metric.scores(pair.first).values, metric.scores(pair.second).values
            if not np.array_equal(first, second, equal_nan=True):
                return False
    return True


def held_out(run: Run) -> tuple[tuple[int, ...], ...]:
    """The ids of the classes of each hold-out."""
    return tuple(tuple(classes.tolist()) for classes in run.held_out.values())


def one_difference(pairs: Sequence[RunPair], name: str) -> Difference:
    metric = metric_of(pairs[0].first.experiment, name)
    first = [metric.scores(pair.first) for pair in pairs]
    second = [metric.scores(pair.second) for pair in pairs]
    return difference_of(name, metric, first, second)


def difference_of(
    name: str, metric: Metric, first: Sequence[Scores], second: Sequence[Scores]
) -> Difference:
    """Of what was measured on the same queries, once per seed."""
    per_query = [a.minus(b) for a, b in zip(first, second, strict=True)]
    difference = interval(per_query, average=metric.average, within=metric.of_differences)
    return Difference(
        metric=name,
        head=metric.head,
        signed=metric.signed,
        lower_is_better=metric.lower_is_better,
        first=interval(first, average=metric.average, within=metric.within),
        second=interval(second, average=metric.average, within=metric.within),
        difference=difference,
        p=difference.p,
        p_holm=float("nan"),
    )


def class_differences(pairs: Sequence[RunPair]) -> tuple[ClassDifference, ...]:
    from scipy.stats import binomtest

    metric = metric_of(pairs[0].first.experiment, "precision_at_1_macro")
    right = [
        [metric.scores(pair.first) for pair in pairs],
        [metric.scores(pair.second) for pair in pairs],
    ]
    rows = []
    for label, name in pairs[0].first.class_names.items():
        one = np.concatenate([scores.values[scores.labels == label] for scores in right[0]])
        other = np.concatenate([scores.values[scores.labels == label] for scores in right[1]])
        won, lost = int(((one == 1) & (other == 0)).sum()), int(((one == 0) & (other == 1)).sum())
        p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
        rows.append((name, float(one.mean()), float(other.mean()), won, lost, p))
    corrected = holm(np.array([row[-1] for row in rows]))
    differences_of_classes = [
        ClassDifference(
            name=name, first=a, second=b, won=won, lost=lost, p=p, p_holm=float(adjusted)
        )
        for (name, a, b, won, lost, p), adjusted in zip(rows, corrected, strict=True)
    ]
    return tuple(sorted(differences_of_classes, key=lambda row: (row.p, row.name)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """(tests) p-values corrected for their number by Holm's step-down method; nan where undefined,
    which does not count."""
    corrected = np.full(len(p_values), np.nan)
    defined = np.flatnonzero(~np.isnan(p_values))
    order = defined[np.argsort(p_values[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected
