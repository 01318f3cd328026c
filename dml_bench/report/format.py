"""Numbers and comparisons as text, in cells and in sentences: proportions in percent, differences
in percentage points, one digit."""

import math

from dml_bench.analysis.study import certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.metrics import COST, CPU_TIME
from dml_bench.system.counted import counted
from dml_bench.system.terminal import duration

__all__ = [
    "compared",
    "cost_cell",
    "cost_points",
    "draws_cell",
    "hundred",
    "including_zero",
    "interval_cell",
    "number",
    "percent",
    "points",
    "seeds_of",
    "time_taken",
    "with_unit",
]

# In cells


def number(value: float, is_signed: bool) -> str:
    """`61.2`, or `+12.3` for a difference: 100 times as much with one digit."""
    scaled = 100 * round(value, 3) + 0.0  # no -0.0
    return f"{scaled:+.1f}" if is_signed else f"{scaled:.1f}"


def hundred(value: float, sign: str = "") -> str:
    """The same, with the sign `+` where it is asked for."""
    return number(value, is_signed=bool(sign))


def interval_cell(interval: Interval | None, *, is_signed: bool) -> str:
    """`61.2 [56.0, 66.1]`; without brackets where there are no bounds."""
    if interval is None:
        return "-"
    estimate = number(interval.estimate, is_signed)
    if math.isnan(interval.low):
        return estimate
    return f"{estimate} [{number(interval.low, is_signed)}, {number(interval.high, is_signed)}]"


def draws_cell(mean: float, low: float, high: float) -> str:
    """`61.2 (56.0 to 66.1)`: the spread of draws, which is no interval and thus stands in no
    brackets; the mean alone where they are all alike."""
    text = number(mean, is_signed=False)
    if high - low < 0.0005:
        return text
    return f"{text} ({number(low, is_signed=False)} to {number(high, is_signed=False)})"


def cost_cell(key: str, value: float | None) -> str:
    """Seconds as a duration, bytes as GiB."""
    if value is None:
        return "-"
    if key == COST[CPU_TIME].key:
        return time_taken(value)
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return duration(value) if key.endswith("_seconds") else f"{value:.0f}"


def time_taken(seconds: float) -> str:
    """`4:53`; under a minute `2.5 s`; `under 0.1 s` where that would be `0.0 s`."""
    if seconds >= 60:
        return duration(seconds)
    return "under 0.1 s" if seconds < 0.05 else f"{seconds:.1f} s"


# In sentences: the same text as in a cell, with its unit


def with_unit(text: str, unit: str) -> str:
    """The text of a cell with a unit behind the estimate."""
    estimate, bracket, bounds = text.partition(" [")
    return f"{estimate}{unit}{bracket}{bounds}"


def percent(value: Interval | float | None) -> str:
    """`61.2% [56.0, 66.1]`"""
    if value is None:
        return "an unknown share"
    if isinstance(value, Interval):
        return with_unit(interval_cell(value, is_signed=False), "%")
    return f"{number(value, is_signed=False)}%"


def points(value: Interval) -> str:
    """`+20.3 points [+12.1, +28.4]`"""
    return with_unit(interval_cell(value, is_signed=True), " points")


def cost_points(value: Interval) -> str:
    """`20.3 points [12.1, 28.4]`: of a cost that has its name beside it."""
    return with_unit(interval_cell(value, is_signed=False), " points")


def compared(value: Interval | None) -> str:
    """`a difference of +3.1 points [+1.0, +5.2]`, and whether its interval includes 0. No verdict:
    those are read from intervals that hold together."""
    if value is None:
        return "no seed and split in common"
    return f"a difference of {points(value)}{including_zero(value)}"


def including_zero(value: Interval) -> str:
    """What stands behind a difference whose interval includes 0; nothing where it does not."""
    if math.isnan(value.low) or certain_sign(value):
        return ""
    return ", which includes 0"


def seeds_of(line: TableRow) -> str:
    """`3 seeds`"""
    return counted(len(line.runs), "seed")
