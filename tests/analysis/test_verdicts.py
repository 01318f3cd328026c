"""The rule that says what became of a claim: over a grid of claims and results, exactly one case
applies, and the interval that is printed beside it can't contradict it."""

import math
from itertools import product

import pytest

from dml_bench.analysis.verdicts import (
    Verdict,
    has_room,
    verdict_on_bound,
    verdict_on_change,
    verdict_on_order,
    verdict_on_value,
)
from dml_bench.evaluation.statistics import Interval

ESTIMATES = [step / 100 for step in range(-24, 25)] + [0.0049, 0.0951, -0.0199]
ERRORS = (0.0005, 0.004, 0.01, 0.03, 0.1)
DEGREES = (2.0, 8.0, 200.0)
LEVELS = (0.95, 1 - 0.05 / 30)
CLAIMS = (-0.14, -0.03, 0.0, 0.03, 0.095)
TOLERANCES = (0.005, 0.015, 0.02)
GRID = list(product(ESTIMATES, ERRORS, DEGREES, LEVELS, CLAIMS, TOLERANCES))


def around(low: float, high: float, *, level: float = 0.95) -> Interval:
    """Of a normal mean."""
    quantile = 1.959964 if level == 0.95 else math.nan
    return Interval.around((low + high) / 2, (high - low) / 2 / quantile, 1e9, level)


def cases(claimed: float, tolerance: float, measured: Interval) -> dict[Verdict, bool]:
    """Which verdicts the text's own words allow, each by itself, for a claim of more than 0."""
    inner = measured.at(2 * measured.level - 1)
    near_zero = -tolerance <= inner.low and inner.high <= tolerance
    near_claim = claimed - tolerance <= inner.low and inner.high <= claimed + tolerance
    above, below = measured.low > 0, measured.high < 0
    same = above and not near_zero
    return {
        Verdict.no_effect: near_zero,
        Verdict.contradicted: below and not near_zero,
        Verdict.reproduced: same and near_claim,
        Verdict.smaller: same and not near_claim and measured.high < claimed,
        Verdict.larger: same and not near_claim and measured.low > claimed,
        Verdict.size_undecided: same
        and not near_claim
        and measured.low <= claimed <= measured.high,
        Verdict.undecided: not near_zero and not above and not below,
    }


def cases_of_no_change(tolerance: float, measured: Interval) -> dict[Verdict, bool]:
    inner = measured.at(2 * measured.level - 1)
    near_zero = -tolerance <= inner.low and inner.high <= tolerance
    outside = measured.low > tolerance or measured.high < -tolerance
    return {
        Verdict.reproduced: near_zero,
        Verdict.contradicted: outside,
        Verdict.undecided: not near_zero and not outside,
    }


def allowed(claimed: float, tolerance: float, measured: Interval) -> list[Verdict]:
    if claimed == 0:
        by_verdict = cases_of_no_change(tolerance, measured)
    elif claimed < 0:
        by_verdict = cases(-claimed, tolerance, measured.negative())
    else:
        by_verdict = cases(claimed, tolerance, measured)
    return [verdict for verdict, holds in by_verdict.items() if holds]


def test_exactly_one_verdict_applies_everywhere_and_it_is_the_one_that_is_given():
    seen = set()
    for estimate, error, degrees, level, claimed, tolerance in GRID:
        measured = Interval.around(estimate, error, degrees, level)
        verdict = verdict_on_change(claimed, tolerance, measured)
        assert allowed(claimed, tolerance, measured) == [verdict], (claimed, tolerance, measured)
        seen.add(verdict)
    assert seen == set(Verdict) - {Verdict.not_testable, Verdict.not_tested}


def test_the_printed_interval_never_contradicts_the_verdict():
    for estimate, error, degrees, level, claimed, tolerance in GRID:
        if claimed <= 0:  # a claimed loss is the mirror of a gain
            continue
        measured = Interval.around(estimate, error, degrees, level)
        verdict = verdict_on_change(claimed, tolerance, measured)
        low, high = measured.low, measured.high
        if verdict in (Verdict.reproduced, Verdict.size_undecided):
            assert low > 0
        elif verdict is Verdict.smaller:
            assert low > 0 and high < claimed
        elif verdict is Verdict.larger:
            assert low > claimed
        elif verdict is Verdict.contradicted:
            assert high < 0
        elif verdict is Verdict.undecided:
            assert low <= 0 <= high
        else:
            assert abs(measured.estimate) < tolerance


def test_a_claim_and_its_mirror_have_the_same_verdict():
    for estimate, error, degrees, level, claimed, tolerance in GRID[::7]:
        measured = Interval.around(estimate, error, degrees, level)
        mirrored = verdict_on_change(-claimed, tolerance, measured.negative())
        assert verdict_on_change(claimed, tolerance, measured) is mirrored


@pytest.mark.parametrize(
    ("claimed", "low", "high", "verdict"),
    [
        (0.10, 0.09, 0.11, "reproduced"),
        (0.10, 0.02, 0.05, "same direction, smaller"),
        (0.10, 0.12, 0.30, "same direction, larger"),
        (0.10, 0.01, 0.30, "same direction, size undecided"),
        (0.10, -0.01, 0.01, "no effect"),
        (0.10, 0.004, 0.012, "no effect"),
        (0.10, -0.30, -0.01, "contradicted"),
        (0.10, -0.01, 0.30, "undecided"),
        (-0.10, -0.11, -0.09, "reproduced"),
        (-0.10, 0.01, 0.30, "contradicted"),
        (0.0, -0.01, 0.01, "reproduced"),
        (0.0, 0.03, 0.05, "contradicted"),
        (0.0, 0.01, 0.05, "undecided"),
    ],
)
def test_a_claimed_change_by_hand(claimed, low, high, verdict):
    assert verdict_on_change(claimed, 0.02, around(low, high)) == verdict


def test_a_wide_interval_confirms_no_size():
    """Until now an interval confirmed whatever it held, and a wide one holds everything."""
    wide = around(0.001, 0.6)
    assert {verdict_on_change(c, 0.02, wide) for c in (0.05, 0.2, 0.5)} == {Verdict.size_undecided}
    assert verdict_on_value(0.3, 0.02, around(0.0, 0.6)) is Verdict.undecided


def test_without_room_or_without_an_interval_there_is_nothing_to_read():
    assert verdict_on_change(0.1, 0.02, around(0.09, 0.11), testable=False) == "not testable"
    single = Interval.around(0.1, math.nan, math.nan)
    assert verdict_on_change(0.1, 0.02, single) == "not tested"
    assert verdict_on_bound(0.2, single) == "not tested"
    assert verdict_on_order([single, around(0.1, 0.2)])[0] == "not tested"


@pytest.mark.parametrize(
    ("claimed", "precisions", "room"),
    [
        (-0.1, [0.5, 0.6], True),
        (-0.1, [0.02, 0.6], False),
        (0.1, [0.02], True),
        (0.1, [0.98], False),
        (-0.1, [0.98], True),
        (0.0, [0.98], False),
        (0.0, [0.02], False),
        (0.0, [0.03, 0.97], True),
    ],
)
def test_a_model_at_the_floor_can_t_lose_and_one_at_the_ceiling_can_t_gain(
    claimed, precisions, room
):
    assert has_room(claimed, precisions, chance=0.01) is room


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.66, 0.69, "reproduced"), (0.50, 0.60, "contradicted"), (0.60, 0.70, "undecided")],
)
def test_a_claimed_value_is_reproduced_where_the_measured_one_differs_by_less_than_the_tolerance(
    low, high, verdict
):
    assert verdict_on_value(0.677, 0.02, around(low, high)) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.10, 0.19, "reproduced"), (0.21, 0.30, "contradicted"), (0.10, 0.21, "undecided")],
)
def test_a_value_lies_below_a_bound_where_its_interval_does(low, high, verdict):
    assert verdict_on_bound(0.2, around(low, high)) == verdict


def test_a_value_is_highest_where_it_lies_above_every_other():
    above, close, below = around(0.1, 0.2), around(0.01, 0.03), around(-0.30, -0.10)
    assert verdict_on_order([above, close]) == ("reproduced", close)
    assert verdict_on_order([above, around(-0.01, 0.03)])[0] == "undecided"
    verdict, read_from = verdict_on_order([above, close, below])
    assert verdict == "contradicted"
    assert read_from.low < below.low, "the interval is widened for three differences"


def test_one_of_many_differences_that_is_barely_below_zero_contradicts_nothing():
    barely = around(-0.10, -0.001)
    assert verdict_on_order([barely])[0] == "contradicted"
    verdict, read_from = verdict_on_order([barely] * 8)
    assert verdict == "undecided"
    assert read_from.low < 0 < read_from.high
