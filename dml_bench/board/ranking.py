"""Ranges of ranks: which rows of a table are surely better than which.

Rows answer the same queries, so they are compared query by query, and overlapping intervals of
single rows are no ties. All pairs of a table are one family: Holm's procedure decides them with an
error of 5% together. A row's range begins after all that are surely better, and ends before all
that are surely worse; so with 95% all true ranks lie in their ranges (Mogstad, Romano, Shaikh,
Wilhelm 2024, Review of Economic Studies 91:476).
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.evaluation.statistics import Average, Interval, Scores, SeedPrior, interval

__all__ = ["Contrast", "Ranking", "Scored", "rank"]

ERROR = 0.05


@dataclass(frozen=True, slots=True)
class Scored:
    """What one row scored."""

    by_key: Mapping[Any, Scores]
    """By seed, queries and hold-outs: two rows are compared where they share them."""
    is_fixed: bool = False
    """Without training no seed differs from another, so one is enough."""
    lacking: str = ""
    """Why it has no scores."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One row minus another."""

    first: str
    second: str
    difference: Interval
    """At the level at which Holm's procedure ended, so that it leaves out zero exactly where one of
    the two is surely better."""
    seeds: int

    @property
    def sign(self) -> int:
        """1 or -1 where the first is surely higher or lower, else 0."""
        if math.isnan(self.difference.low):
            return 0
        return int(self.difference.low > 0) - int(self.difference.high < 0)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranges of ranks of one metric in one table."""

    ranges: Mapping[str, tuple[int, int]]
    """By row, the best and the worst rank that it may have."""
    not_comparable: Mapping[str, str]
    """By row, why it has no rank."""
    contrasts: tuple[Contrast, ...]
    level: float
    """Of the intervals of the contrasts."""

    def of(self, row: str) -> list[Contrast]:
        """Those of one row, as this row minus the others."""
        turned = []
        for contrast in self.contrasts:
            if contrast.first == row:
                turned.append(contrast)
            elif contrast.second == row:
                difference = contrast.difference.negative()
                turned.append(Contrast(row, contrast.first, difference, contrast.seeds))
        return turned


def rank(
    rows: Mapping[str, Scored],
    *,
    average: Average = "macro",
    within: tuple[float, float] = (-1.0, 1.0),
    prior: SeedPrior | None = None,
    lower_is_better: bool = False,
) -> Ranking:
    """Rank the rows of one table by one metric.

    Args:
        within: the range of a difference.
        prior: what the table says of the seeds of differences.
    """
    not_comparable = {}
    for name, scored in rows.items():
        if scored.lacking:
            not_comparable[name] = scored.lacking
        elif len(scored.by_key) < FEWEST_SEEDS and not scored.is_fixed:
            not_comparable[name] = f"{len(scored.by_key)} of {FEWEST_SEEDS} seeds"
    ranked = [name for name in rows if name not in not_comparable]
    contrasts = []
    for first, second in combinations(ranked, 2):
        contrast = compared(first, rows[first], second, rows[second], average, within, prior)
        if contrast is not None:
            contrasts.append(contrast)
    paired = {name for contrast in contrasts for name in (contrast.first, contrast.second)}
    for name in ranked:
        if name not in paired and len(ranked) > 1:
            not_comparable[name] = f"shares queries with other rows on under {FEWEST_SEEDS} seeds"
    ranked = [name for name in ranked if name not in not_comparable]
    level = holm_level([contrast.difference.p for contrast in contrasts])
    at_level = tuple(
        Contrast(one.first, one.second, one.difference.at(level), one.seeds) for one in contrasts
    )
    return Ranking(ranges(ranked, at_level, lower_is_better), not_comparable, at_level, level)


def compared(
    first: str,
    ours: Scored,
    second: str,
    theirs: Scored,
    average: Average,
    within: tuple[float, float],
    prior: SeedPrior | None,
) -> Contrast | None:
    """One row minus another; None where they share too little."""
    shared = [key for key in ours.by_key if key in theirs.by_key]
    both_fixed = ours.is_fixed and theirs.is_fixed
    if len(shared) < (1 if both_fixed else FEWEST_SEEDS):
        return None
    if both_fixed:
        shared = without_repeats(shared, ours, theirs)
    differences = [ours.by_key[key].minus(theirs.by_key[key]) for key in shared]
    measured = interval(differences, average=average, within=within, prior=prior)
    return Contrast(first, second, measured, len(shared))


def without_repeats(keys: Sequence[Any], *rows: Scored) -> list[Any]:
    """Where the split is the same for all seeds, rows without training give the same answers again
    with each seed."""
    kept: dict[Hashable, Any] = {}
    for key in keys:
        scores = [row.by_key[key] for row in rows]
        answers = tuple((one.values.tobytes(), one.labels.tobytes()) for one in scores)
        kept.setdefault(answers, key)
    return list(kept.values())


def holm_level(p_values: Sequence[float]) -> float:
    """The level at which Holm's procedure ends (Holm 1979): intervals of that level leave out zero
    for what it decides, and for nothing else."""
    defined = sorted(p for p in p_values if not math.isnan(p))
    left = len(defined)
    for p in defined:
        if p > ERROR / left:
            break
        if left > 1:
            left -= 1
    return 1 - ERROR / max(left, 1)


def ranges(
    rows: Sequence[str], contrasts: Sequence[Contrast], lower_is_better: bool
) -> dict[str, tuple[int, int]]:
    """By row, one more than the surely better ones, and all but the surely worse ones."""
    better, worse = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    for contrast in contrasts:
        sign = -contrast.sign if lower_is_better else contrast.sign
        if sign > 0:
            worse[contrast.first] += 1
            better[contrast.second] += 1
        elif sign < 0:
            worse[contrast.second] += 1
            better[contrast.first] += 1
    return {name: (1 + better[name], len(rows) - worse[name]) for name in rows}
