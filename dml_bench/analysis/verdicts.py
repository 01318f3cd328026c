"""What becomes of a claim: one ordered rule, read from the interval of what was measured.

A claim has a size, and a tolerance within which a measured size counts as the same. The first case
that applies is the verdict, so exactly one does:

1. not testable: a model at the floor or at the ceiling can't show the claimed difference;
2. no effect: the inner interval lies within the tolerance of zero;
3. contradicted: the interval lies wholly on the other side of zero;
4. reproduced: the interval lies on the claim's side of zero, and the inner interval within the
   tolerance of the claimed size;
5. same direction, smaller or larger: the interval lies between zero and the claimed size, or beyond
   that size;
6. same direction, size undecided: the interval lies on the claim's side of zero;
7. undecided.

A claim that nothing changes is reproduced by case 2, and contradicted where the interval lies
wholly outside the tolerance. The inner interval allows twice the error of the interval, 90% beside
95%: two one-sided tests of equivalence (Schuirmann 1987) err as often as one two-sided test.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from dml_bench.evaluation.statistics import Interval, seeds_to_detect, smallest_detectable

__all__ = [
    "CEILING",
    "FEWEST_SEEDS",
    "TIMES_CHANCE",
    "Verdict",
    "describe_undetected",
    "has_room",
    "verdict_on_bound",
    "verdict_on_change",
    "verdict_on_order",
    "verdict_on_value",
]

FEWEST_SEEDS = 3
"""With fewer seeds an interval is about these networks only, and there is no verdict."""
TIMES_CHANCE = 3
"""A model whose P@1 is below so many times chance has no precision to lose."""
SMALL = 0.02
"""The difference that it is said of how many seeds it takes to find it."""
MANY_SEEDS = 100
CEILING = 0.97
"""A model whose P@1 is above this has none to gain."""


class Verdict(StrEnum):
    """What became of a claim."""

    reproduced = "reproduced"
    smaller = "same direction, smaller"
    larger = "same direction, larger"
    size_undecided = "same direction, size undecided"
    no_effect = "no effect"
    contradicted = "contradicted"
    undecided = "undecided"
    not_testable = "not testable"
    not_tested = "not tested"


def verdict_on_change(
    claimed: float, tolerance: float, measured: Interval, *, testable: bool = True
) -> Verdict:
    """Of a claimed difference from zero; 0 claims that nothing changes.

    `testable` is whether the models have room to show it (`has_room`).
    """
    if not testable:
        return Verdict.not_testable
    if math.isnan(measured.low):
        return Verdict.not_tested
    if claimed == 0:
        return verdict_on_no_change(tolerance, measured)
    if claimed < 0:
        claimed, measured = -claimed, measured.negative()
    in_order = (
        (Verdict.no_effect, is_inside(inner(measured), 0, tolerance)),
        (Verdict.contradicted, measured.high < 0),
        (Verdict.undecided, measured.low <= 0),
        (Verdict.reproduced, is_inside(inner(measured), claimed, tolerance)),
        (Verdict.smaller, measured.high < claimed),
        (Verdict.larger, measured.low > claimed),
        (Verdict.size_undecided, True),
    )
    return next(verdict for verdict, applies in in_order if applies)


def verdict_on_no_change(tolerance: float, measured: Interval) -> Verdict:
    if is_inside(inner(measured), 0, tolerance):
        return Verdict.reproduced
    if measured.low > tolerance or measured.high < -tolerance:
        return Verdict.contradicted
    return Verdict.undecided


def verdict_on_value(claimed: float, tolerance: float, measured: Interval) -> Verdict:
    """Of a claimed value that has no direction, such as an accuracy: that what was measured doesn't
    differ from it."""
    return verdict_on_change(0, tolerance, moved(measured, -claimed))


def verdict_on_bound(bound: float, measured: Interval, *, testable: bool = True) -> Verdict:
    """Of the claim that a value lies below `bound`; `testable` as in `verdict_on_change`."""
    if not testable:
        return Verdict.not_testable
    if math.isnan(measured.low):
        return Verdict.not_tested
    if measured.high < bound:
        return Verdict.reproduced
    return Verdict.contradicted if measured.low > bound else Verdict.undecided


def verdict_on_order(differences: Sequence[Interval]) -> tuple[Verdict, Interval]:
    """Of the claim that a value lies above several others, and the difference that it is read from.

    It is reproduced where all differences are above zero, each by its own interval: all of them
    have to err for the verdict to. It is contradicted where one is below zero by an interval that
    is widened for their number; else such an interval holds zero.
    """
    lowest = min(differences, key=lambda difference: difference.low)
    if any(math.isnan(difference.low) for difference in differences):
        return Verdict.not_tested, lowest
    if lowest.low > 0:
        return Verdict.reproduced, lowest
    level = 1 - (1 - lowest.level) / len(differences)
    widened = [difference.at(level) for difference in differences]
    least = min(widened, key=lambda difference: difference.high)
    if least.high < 0:
        return Verdict.contradicted, least
    return Verdict.undecided, lowest.at(level)


def has_room(claimed: float, precisions: Sequence[float], chance: float) -> bool:
    """Whether models of these P@1 can show a difference: a loss needs some precision, a gain needs
    some errors, and the claim that nothing changes needs both."""
    near_chance = min(precisions) < TIMES_CHANCE * chance
    near_one = max(precisions) > CEILING
    return not ((near_chance and claimed <= 0) or (near_one and claimed >= 0))


def describe_undetected(measured: Interval) -> str:
    """`no detectable difference (smallest detectable: 4.1 points; 2 points take 12 seeds)`"""
    smallest = smallest_detectable(measured)
    if math.isnan(smallest):
        return "no detectable difference"
    seeds = seeds_to_detect(measured, SMALL)
    take = "" if math.isnan(seeds) else f"; 2 points take {describe_needed(seeds)}"
    return f"no detectable difference (smallest detectable: {100 * smallest:.1f} points{take})"


def describe_needed(seeds: float) -> str:
    """`12 seeds`; `more classes` where no number of seeds is enough."""
    if math.isinf(seeds):
        return "more classes"
    return f"over {MANY_SEEDS} seeds" if seeds > MANY_SEEDS else f"{seeds:.0f} seeds"


def inner(measured: Interval) -> Interval:
    """The interval that errs twice as often: 90% of a 95% interval."""
    return measured.at(2 * measured.level - 1)


def is_inside(measured: Interval, centre: float, reach: float) -> bool:
    return measured.low >= centre - reach and measured.high <= centre + reach


def moved(measured: Interval, by: float) -> Interval:
    low, high = measured.within
    return replace(
        measured,
        estimate=measured.estimate + by,
        low=measured.low + by,
        high=measured.high + by,
        within=(low + by, high + by),
    )
