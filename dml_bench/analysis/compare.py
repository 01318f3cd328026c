"""Several experiments side by side: each difference with its interval, over all classes and class
by class.

All of it is exploratory. Both of a pair were asked the same queries with the same seeds; the
interval is that of `evaluation.statistics`. The q-value is the share of false discoveries among the
differences whose q is at most as large (Benjamini & Hochberg 1995), over all that are compared at a
time. With under three common seeds an interval is about these networks only, and there is no
q-value. What single classes gain or lose is described, not tested: the tests of so many classes
would take the differences of seeds for effects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, pairwise
from pathlib import Path

import numpy as np

from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.config import as_table
from dml_bench.data.datasets import Progress
from dml_bench.evaluation.statistics import (
    Interval,
    Scores,
    SeedPrior,
    interval,
    seeds_to_detect,
    smallest_detectable,
)
from dml_bench.runs.folder import decisive, differing_in_a_row
from dml_bench.runs.metrics import Metric, metric_of, metrics_of
from dml_bench.runs.pairing import RunPair, Side, pair_runs
from dml_bench.runs.run import Run, read_folder, run_folders

__all__ = [
    "ClassDifference",
    "Comparison",
    "Difference",
    "compare",
    "difference_of",
    "q_values",
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
    smallest_detectable: float
    """The smallest true difference that such runs would find; nan where there is no interval."""
    seeds_for_2_points: float
    """How many seeds would find a true difference of 2 points; inf where it takes more classes, nan
    where it can't be known."""
    q: float
    """Of this difference among all that are compared at a time; nan where there is no interval, or
    under three seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassDifference:
    """P@1 of one class by the models of phase `all` (or `disjoint`)."""

    name: str
    first: float
    """Mean over seeds."""
    second: float
    by_seed: tuple[float, ...]
    """The first minus the second with each seed."""

    @property
    def difference(self) -> float:
        """Mean over seeds."""
        return self.first - self.second


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    first: str
    second: str
    split: str
    """How both divided their images: `data.split`, with its rule for groups or times."""
    seeds: tuple[int, ...]
    equal: bool
    """Whether every metric has the same value on every query."""
    overall: tuple[Difference, ...]
    classes: tuple[ClassDifference, ...]
    """Those that gain most first."""

    @property
    def these_networks_only(self) -> bool:
        """Whether there are too few seeds for an interval to cover other ones."""
        return len(self.seeds) < FEWEST_SEEDS


def read_sides(
    paths: Sequence[Path], progress: Progress = lambda message, done, total: None
) -> list[Side]:
    """One side per path: a run folder, or a folder with the runs of one experiment on one data set.
    Raises ValueError in words for people."""
    below = [run_folders(path) for path in paths]
    total = sum(map(len, below))
    sides: list[Side] = []
    done = 0
    for path, folders in zip(paths, below, strict=True):
        if not folders:
            problem = "holds no run" if path.exists() else "does not exist"
            raise ValueError(
                f"{path} {problem}: name a run folder (.../seed-42) or the folder of an"
                " experiment's runs"
            )
        runs = []
        for folder in folders:
            runs.append(read_folder(folder))
            done += 1
            progress("reading runs", done, total)
        runs.sort(key=lambda run: run.seed)
        kinds = {(run.experiment.name, run.dataset_fingerprint) for run in runs}
        if len(kinds) > 1:
            several = ", ".join(sorted({name for name, _ in kinds}))
            raise ValueError(
                f"{path} holds runs of several experiments or data sets ({several}): name the"
                " folder of one"
            )
        if changed := settings_apart(runs):
            raise ValueError(
                f"{path} holds runs of {runs[0].experiment.name} with other settings"
                f" ({', '.join(changed[:3])}): name the folder of one"
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


def settings_apart(runs: Sequence[Run]) -> list[str]:
    """Dotted keys in which a run differs from the first, but for those that a seed may change: a
    mean over both is of no experiment."""
    first = decisive(as_table(runs[0].experiment))
    for run in runs[1:]:
        if changed := differing_in_a_row(first, decisive(as_table(run.experiment))):
            return changed
    return []


def compare(
    sides: Sequence[Side], progress: Progress = lambda message, done, total: None
) -> list[Comparison]:
    """Each pair of sides on the seeds and metrics that both have. Raises ValueError where a pair
    can't be compared."""
    names = [(first.name, second.name) for first, second in combinations(sides, 2)]
    paired = [pair_runs(first, second) for first, second in combinations(sides, 2)]
    compared = [metrics_of_both(pairs) for pairs in paired]
    total = sum(map(len, compared))
    measured: list[list[Difference]] = []
    done = 0
    for pairs, metrics in zip(paired, compared, strict=True):
        measured.append([])
        for metric in metrics:
            progress("differences", done, total)
            measured[-1].append(one_difference(pairs, metric.name))
            done += 1
    progress("differences", total, total)
    overall = with_q_values(measured)
    comparisons = []
    for (first, second), pairs, rows in zip(names, paired, overall, strict=True):
        comparisons.append(
            Comparison(
                first=first,
                second=second,
                split=pairs[0].first.experiment.data.described_split,
                seeds=tuple(pair.first.seed for pair in pairs),
                equal=are_equal(pairs, [row.metric for row in rows]),
                overall=tuple(rows),
                classes=class_differences(pairs),
            )
        )
    return comparisons


def metrics_of_both(pairs: Sequence[RunPair]) -> list[Metric]:
    """The metrics that both have; what depends on the classes held out only where those are the
    same."""
    mine = metrics_of(pairs[0].first.experiment)
    theirs = metrics_of(pairs[0].second.experiment)
    compared = [metric for name, metric in mine.items() if name in theirs and metric.compared]
    runs = [run for pair in pairs for run in (pair.first, pair.second)]
    if len({held_out(run) for run in runs}) > 1:
        compared = [metric for metric in compared if not metric.depends_on_holdouts]
    return compared


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
    name: str,
    metric: Metric,
    first: Sequence[Scores],
    second: Sequence[Scores],
    prior: SeedPrior | None = None,
) -> Difference:
    """Of what was measured on the same queries, once per seed. `prior` is what a table says of the
    seeds of such differences."""
    per_query = [a.minus(b) for a, b in zip(first, second, strict=True)]
    difference = interval(
        per_query, average=metric.average, within=metric.of_differences, prior=prior
    )
    return Difference(
        metric=name,
        head=metric.head,
        signed=metric.signed,
        lower_is_better=metric.lower_is_better,
        first=interval(first, average=metric.average, within=metric.within),
        second=interval(second, average=metric.average, within=metric.within),
        difference=difference,
        smallest_detectable=smallest_detectable(difference),
        seeds_for_2_points=seeds_to_detect(difference, 0.02),
        q=difference.p if len(per_query) >= FEWEST_SEEDS else math.nan,
    )


def with_q_values(groups: Sequence[Sequence[Difference]]) -> list[list[Difference]]:
    """The same groups, whose differences come with p-values in place of q."""
    q = iter(q_values([row.q for row in chain.from_iterable(groups)]))

    def with_q(rows: Sequence[Difference]) -> list[Difference]:
        return [replace(row, q=next(q)) for row in rows]

    return list(map(with_q, groups))


def q_values(p_values: Sequence[float]) -> list[float]:
    """By Benjamini and Hochberg; nan where p is undefined, which doesn't count as a test."""
    from scipy.stats import false_discovery_control

    p = np.array(p_values, float)
    q = np.full(len(p), math.nan)
    defined = ~np.isnan(p)
    if defined.any():
        q[defined] = false_discovery_control(p[defined])
    return q.tolist()


def class_differences(pairs: Sequence[RunPair]) -> tuple[ClassDifference, ...]:
    metric = metric_of(pairs[0].first.experiment, "precision_at_1_macro")
    first = [metric.scores(pair.first) for pair in pairs]
    second = [metric.scores(pair.second) for pair in pairs]
    rows = []
    for label, name in pairs[0].first.class_names.items():
        one = [mean_of_class(scores, label) for scores in first]
        other = [mean_of_class(scores, label) for scores in second]
        by_seed = tuple(a - b for a, b in zip(one, other, strict=True))
        rows.append(
            ClassDifference(
                name=name, first=float(np.mean(one)), second=float(np.mean(other)), by_seed=by_seed
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.difference, row.name)))


def mean_of_class(scores: Scores, label: int) -> float:
    return float(scores.values[scores.labels == label].mean())
