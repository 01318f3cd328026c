"""Numbers and comparisons as text, in cells and in sentences."""

import math
from collections.abc import Sequence

from dml_bench.analysis.study import certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.system.terminal import duration

__all__ = [
    "compared",
    "cost_cell",
    "counted",
    "enumerated",
    "hundred",
    "interval_cell",
    "number",
    "percent",
    "points",
    "seeds_of",
]

# In cells


def number(value: float, is_signed: bool) -> str:
    """`.612`, or `+.123` for a difference."""
    text = f"{value:+.3f}" if is_signed else f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def interval_cell(interval: Interval | None, *, is_signed: bool) -> str:
    """`.612 [.560, .661]`; without brackets where there are no bounds."""
    if interval is None:
        return "-"
    estimate = number(interval.estimate, is_signed)
    if math.isnan(interval.low):
        return estimate
    return f"{estimate} [{number(interval.low, is_signed)}, {number(interval.high, is_signed)}]"


def cost_cell(key: str, value: float | None) -> str:
    """Seconds as a duration, bytes as GiB."""
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return duration(value) if key.endswith("_seconds") else f"{value:.0f}"


# In sentences


def percent(value: Interval | float | None) -> str:
    """`61.2% [56.0, 66.1]`"""
    if value is None:
        return "unknown"
    if isinstance(value, Interval):
        return f"{hundred(value.estimate)}%{bounds(value)}"
    return f"{hundred(value)}%"


def hundred(value: float, sign: str = "") -> str:
    """100 times as much with one digit, rounded as the tables round it."""
    return f"{100 * round(value, 3):{sign}.1f}"


def bounds(value: Interval, sign: str = "") -> str:
    if math.isnan(value.low):
        return ""
    return f" [{hundred(value.low, sign)}, {hundred(value.high, sign)}]"


def points(value: Interval | None) -> str:
    """`20.3 points [12.1, 28.4]`"""
    if value is None:
        return "an unknown number of points"
    return f"{hundred(value.estimate)} points{bounds(value)}"


def compared(
    value: Interval | None, other: str, picked_from: int = 1, sign: int | None = None
) -> str:
    """`is 3.1 points [1.0, 5.2] above OTHER, beyond noise`, or that there is no detectable
    difference; `value` is ours minus OTHER.

    `sign` is what is left of the difference when it is allowed for that ours was picked from so
    many.
    """
    if value is None:
        return f"cannot be compared with {other} (no seed and split in common)"
    certain = "beyond noise"
    if sign == 0 and picked_from > 1:
        certain = f"but picking the best of {picked_from} may explain it"
    if certain_sign(value) > 0:
        return f"is {points(value)} above {other}, {certain}"
    if certain_sign(value) < 0:
        return f"is {points(value.negative())} below {other}, {certain}"
    difference = f"{hundred(value.estimate, '+')} points{bounds(value, '+')}"
    return f"shows no detectable difference from {other} ({difference})"


def enumerated(lines: Sequence[TableRow], most: int = 4) -> str:
    """`A`, `B` and `C`; those after `most` are counted."""
    names = [f"`{line.name}`" for line in lines[:most]]
    if len(lines) > most:
        names.append(f"{len(lines) - most} more")
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def counted(count: int, noun: str) -> str:
    """`1 class`, `20 classes`"""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def seeds_of(line: TableRow) -> str:
    """`3 seeds`"""
    return counted(len(line.runs), "seed")
