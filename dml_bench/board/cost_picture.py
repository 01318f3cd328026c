"""Accuracy against cost as a picture: where each row lies, in percent of the picture's width and
height. The page sets dots and text with these, so that they keep their size on a phone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dml_bench.board.tables import BoardRow, BoardTable
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.metrics import UNTRAINED
from dml_bench.system.terminal import duration

__all__ = ["CostPicture", "Dot", "Tick", "cost_picture"]

STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
TIMES = {
    1: "1 s",
    3: "3 s",
    10: "10 s",
    30: "30 s",
    60: "1 min",
    180: "3 min",
    600: "10 min",
    1800: "30 min",
    3600: "1 h",
    10_800: "3 h",
    36_000: "10 h",
    108_000: "30 h",
    360_000: "100 h",
}
"""By the seconds, what an axis says."""
UNTRAINED_PLACE = 4.0
"""Where rows without training lie, in percent."""
MOST_LABELS = 5
"""Rows that have their name beside their dot."""
LINE = 6.0
"""Percent of the height that a name takes, and of the width that its letters take, one each, on a
small screen. Phones show one name."""
NARROWEST = 10.0
"""Percent of the width between ticks of a phone's axis."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Dot:
    """One row."""

    row: BoardRow
    x: float
    y: float
    low: float
    high: float
    """Of the interval."""
    is_best: bool
    """No other row is better and cheaper."""
    text: str

    @property
    def is_left(self) -> bool:
        """Whether its name stands on its left."""
        return self.x > 50

    def overlaps(self, other: "Dot") -> bool:
        """Whether the names of the two would lie over one another."""
        ends = []
        for dot in (self, other):
            length = len(dot.row.line.short)
            ends.append((dot.x - length, dot.x) if dot.is_left else (dot.x, dot.x + length))
        (left, right), (begin, end) = ends
        return abs(self.y - other.y) < LINE and left < end and begin < right


@dataclass(frozen=True, slots=True)
class CostPicture:
    """Percent of width and height, from the lower left."""

    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    absent: tuple[str, ...] = ()
    """Rows whose cost can't be compared with that of these."""

    @property
    def best(self) -> list[Dot]:
        """The rows that no other row beats in both, the cheapest first."""
        return sorted((dot for dot in self.dots if dot.is_best), key=lambda dot: dot.x)

    @property
    def labelled(self) -> list[Dot]:
        """Of these, what has its name beside it: the dearest first, where there is room."""
        labelled: list[Dot] = []
        for dot in reversed(self.best):
            if len(labelled) < MOST_LABELS and not any(map(dot.overlaps, labelled)):
                labelled.append(dot)
        return labelled


def cost_picture(table: BoardTable, metric: str) -> CostPicture | None:
    """Of the tested rows with a CPU time of training; None where fewer than two have it and the
    metric."""
    tested = [row for row in table.rows if not row.line.untested]
    measured = [row for row in tested if isinstance(row.values.get(metric), Interval)]
    rows = [row for row in measured if row.line.cpu_seconds is not None]
    if len(rows) < 2:
        return None
    absent = tuple(row.line.short for row in measured if row.line.cpu_seconds is None)
    costs = [row.line.cpu_seconds or 0.0 for row in rows]
    seconds = [time if time >= UNTRAINED else 0.0 for time in costs]
    values = [value for row in rows if (value := row.values[metric]) is not None]
    ends = [end for value in values for end in bounds(value)]
    bottom, top, step = nice_range(min(ends), max(ends))
    left, right = log_range([time for time in seconds if time >= UNTRAINED])

    def across(time: float) -> float:
        if time < UNTRAINED:
            return UNTRAINED_PLACE
        return 12 + 82 * (math.log10(time) - left) / (right - left)

    def up(value: float) -> float:
        return 100 * (value - bottom) / (top - bottom)

    lower = table.metric(metric).lower_is_better
    sizes = [-value.estimate if lower else value.estimate for value in values]
    dots = []
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        low, high = bounds(value)
        beaten = any(
            size > sizes[place] and time <= seconds[place]
            for size, time in zip(sizes, seconds, strict=True)
        )
        cost = duration(seconds[place]) if seconds[place] >= UNTRAINED else "no training"
        text = f"{row.line.short}: {100 * value.estimate:.1f}, {cost}"
        dot = Dot(
            row, across(seconds[place]), up(value.estimate), up(low), up(high), not beaten, text
        )
        dots.append(dot)
    ticks = [Tick(up(bottom + step * n), f"{100 * (bottom + step * n):.3g}") for n in range(20)]
    x_ticks = [Tick(across(time), text) for time, text in TIMES.items()]
    inside = apart([tick for tick in x_ticks if 12 <= tick.at <= 94])
    if len(inside) < 2:
        inside = apart([Tick(across(time), duration(time)) for time in even_times(left, right)])
    if any(time < UNTRAINED for time in seconds):
        inside = (Tick(UNTRAINED_PLACE, "none"), *inside)
    y_ticks = tuple(tick for tick in ticks if tick.at <= 100.01)
    return CostPicture(tuple(dots), inside, y_ticks, absent)


def apart(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Those that have room for their text."""
    kept: list[Tick] = []
    for tick in ticks:
        if not kept or tick.at - kept[-1].at >= NARROWEST:
            kept.append(tick)
    return tuple(kept)


def bounds(value: Interval) -> tuple[float, float]:
    """The ends of the interval; the estimate where it has none."""
    if math.isnan(value.low):
        return value.estimate, value.estimate
    return value.low, value.high


def nice_range(low: float, high: float) -> tuple[float, float, float]:
    """Round bounds, and the step between ticks, of which there are at most seven."""
    step = next((step for step in STEPS if (high - low) / step <= 5), STEPS[-1])
    below, above = math.floor(low / step), math.ceil(high / step)
    if below == above:  # all rows have this very value, as 1 where none makes an error
        below, above = (below - 1, above) if below > 0 else (below, above + 1)
    return below * step, above * step, step


def log_range(times: Sequence[float]) -> tuple[float, float]:
    """Powers of ten that hold these times."""
    if not times:
        return 0.0, 1.0
    low, high = math.log10(min(times)), math.log10(max(times))
    room = max(0.08 * (high - low), 0.05)
    return low - room, high + room


def even_times(left: float, right: float) -> list[float]:
    """A few round times within powers of ten that lie close together."""
    low, high = 10**left, 10**right
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
    step = next((step for step in steps if (high - low) / step <= 5), 10_800)
    return [float(step * n) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
