"""Numbers and comparisons in words."""

import math
from collections.abc import Sequence

from dml_bench.analysis.study import certain_sign
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import Interval

__all__ = ["compared", "counted", "named", "percent", "points", "seeds_of"]


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
    return (
        ""
        if math.isnan(value.low)
        else f" [{hundred(value.low, sign)}, {hundred(value.high, sign)}]"
    )


def points(value: Interval | None) -> str:
    """`20.3 points [12.1, 28.4]`"""
    return (
        "an unknown number of points"
        if value is None
        else f"{hundred(value.estimate)} points{bounds(value)}"
    )


def compared(
    value: Interval | None, what: str, picked_from: int = 1, sign: int | None = None
) -> str:
    """`is 3.1 points [1.0, 5.2] above WHAT, beyond noise`, or that no difference can be told;
    `value` is ours minus WHAT.

    `sign` is what is left of the difference when it is allowed for that ours was picked from so
    many.
    """
    certain = "beyond noise"
    if sign == 0 and picked_from > 1:
        certain = f"which may be for being picked as the best of {picked_from}"
    if value is None:
        return f"can't be compared with {what} (no seed and split in common)"
    if certain_sign(value) > 0:
        return f"is {points(value)} above {what}, {certain}"
    if certain_sign(value) < 0:
        turned = Interval(-value.estimate, -value.high, -value.low, value.level, value.resamples)
        return f"is {points(turned)} below {what}, {certain}"
    return f"can't be told from {what} ({hundred(value.estimate, '+')} points{bounds(value, '+')})"


def named(lines: Sequence[TableRow], most: int = 4) -> str:
    """`A`, `B` and `C`; those after `most` are counted."""
    names = [f"`{line.name}`" for line in lines[:most]]
    if len(lines) > most:
        names.append(f"{len(lines) - most} more")
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(count: int, noun: str) -> str:
    """`1 class`, `20 classes`"""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def seeds_of(line: TableRow) -> str:
    return counted(len(line.runs), "seed")
