"""Numbers and comparisons as text, in cells and in sentences: proportions in percent, differences
in percentage points, one digit."""

import math

from dml_bench.analysis.study import certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.analysis.verdicts import FEWEST_SEEDS
from dml_bench.evaluation.statistics import Interval, smallest_detectable
from dml_bench.system.counted import counted
from dml_bench.system.terminal import duration

__all__ = [
    "band_cell",
    "compared",
    "cost_cell",
    "cost_points",
    "detected",
    "hundred",
    "interval_cell",
    "number",
    "percent",
    "points",
    "seeds_of",
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


def band_cell(mean: float, low: float, high: float) -> str:
    """`61.2 [56.0, 66.1]`; without brackets where the band has no width."""
    text = number(mean, is_signed=False)
    if high - low < 0.0005:
        return text
    return f"{text} [{number(low, is_signed=False)}, {number(high, is_signed=False)}]"


def cost_cell(key: str, value: float | None) -> str:
    """Seconds as a duration, bytes as GiB."""
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return duration(value) if key.endswith("_seconds") else f"{value:.0f}"


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


def detected(value: Interval, seeds: int) -> str:
    """What stands behind a difference from zero whose interval holds zero: ` (not detectable;
    smallest detectable: 4.1)`. Nothing where it does not, or where seeds are too few to
    say."""
    if seeds < FEWEST_SEEDS or certain_sign(value):
        return ""
    return f" (not detectable; {smallest(value)})"


def compared(value: Interval | None, seeds: int) -> str:
    """`a difference of +3.1 points [+1.0, +5.2]`, or, from 3 seeds on, that none is detectable."""
    if value is None:
        return "no seed and split in common"
    if seeds < FEWEST_SEEDS or certain_sign(value):
        return f"a difference of {points(value)}"
    return f"no detectable difference ({points(value)}; {smallest(value)})"


def smallest(value: Interval) -> str:
    size = smallest_detectable(value)
    if math.isnan(size):
        return "no interval"
    return f"smallest detectable: {number(size, is_signed=False)}"


def seeds_of(line: TableRow) -> str:
    """`3 seeds`"""
    return counted(len(line.runs), "seed")
