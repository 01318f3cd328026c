"""Names beside points, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from dml_bench.plots.canvas import INK, Axes
from dml_bench.system.lettering import families_for, shortened

__all__ = ["write_labels"]

SIZE = 7.5
CLOSE, FAR = 6.0, 80.0
"""Points between a dot and its name; from further than LEADING a line leads to it."""
LEADING = 13.0
LINE_ENDS = 3.0
"""Points before a dot at which the line to its name has not ended yet; matplotlib ends it at 2."""
ROOM, FROM_OTHERS = 4.0, 14.0
"""Pixels between a name and what it must not cover, and between one with a line and other dots, to
which it would seem to belong."""

LINE = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 0}

Place: TypeAlias = tuple[tuple[float, float], str]
"""(right, up) in points, and the alignment of the name there."""


def write_labels(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    error: np.ndarray,
    names: Sequence[str],
    order: Sequence[int],
) -> None:
    """Write the names of points where there is room, in this order; those without room stay away.

    Args:
        error: (2, points) how far the error bar of a point reaches down and up.
    """
    axes.figure.draw_without_rendering()
    bars = np.linspace(y - error[0], y + error[1], 40)
    covered = axes.transData.transform(
        np.column_stack([np.tile(x, len(bars)), bars.ravel()])
    ).reshape(len(bars), len(x), 2)
    dots = axes.transData.transform(np.column_stack([x, y]))
    room = Room(axes)
    for place in order:
        others = np.delete(dots, place, 0)
        with_bars = np.delete(covered, place, 1).reshape(-1, 2)
        label = written(axes, (x[place], y[place]), names[place], (0, 0), "left")
        at_point = label.get_window_extent()
        label.remove()
        # A name may cross an error bar where there is no other room, but never a dot or a name.
        for of_name in (np.concatenate([with_bars, covered[:, place]]), others):
            where = room.free_place(at_point, dots[place], of_name, others)
            if where is not None:
                written(axes, (x[place], y[place]), names[place], *where)
                break


class Room:
    """The part of the axes that no name and no line to a name has taken."""

    def __init__(self, axes: Axes):
        self.frame = axes.get_window_extent()
        self.pixels = axes.figure.dpi / 72
        self.names: list[Any] = []
        self.lines = np.empty((0, 2))

    def free_place(
        self, at_point: Any, dot: np.ndarray, of_name: np.ndarray, of_line: np.ndarray
    ) -> Place | None:
        """The first place where a name covers none of these pixels (n, 2), and the line to it comes
        near none of the others; it is taken from here on. None without such a place. At the dot,
        to its right, the name has the box `at_point`."""
        for where in offsets():
            name = self.box_of(at_point, where)
            line = self.line_to(name, dot) if has_line(where) else np.empty((0, 2))
            is_free = (
                self.frame.x0 <= name.x0
                and name.x1 <= self.frame.x1
                and self.frame.y0 <= name.y0
                and name.y1 <= self.frame.y1
                and not name.padded(ROOM).count_contains(of_name)
                and not name.padded(ROOM / 2).count_contains(self.lines)
                and not name.count_overlaps(self.names)
                and not any(other.count_contains(line) for other in self.names)
                and not is_near(line, of_line)
                and not (len(line) and name.padded(FROM_OTHERS).count_contains(of_line))
            )
            if is_free:
                self.names.append(name.padded(1))
                self.lines = np.concatenate([self.lines, line])
                return where
        return None

    def box_of(self, at_point: Any, where: Place) -> Any:
        """In pixels, of the name at a place."""
        (right, up), align = where
        part = {"left": 0.0, "center": 0.5, "right": 1.0}[align]
        moved = right * self.pixels - part * at_point.width, up * self.pixels
        return at_point.translated(*moved).padded(1)

    def line_to(self, name: Any, dot: np.ndarray) -> np.ndarray:
        """(n, 2) pixels of the line from a dot to the box of its name."""
        middle = np.array([name.x0 + name.x1, name.y0 + name.y1]) / 2
        start = LINE_ENDS * self.pixels / np.linalg.norm(middle - dot)
        points = dot + np.linspace(start, 1, 60)[:, None] * (middle - dot)
        inside = ((name.min < points) & (points < name.max)).all(axis=1)
        return points[~inside]


def is_near(line: np.ndarray, dots: np.ndarray) -> bool:
    """Whether a line touches one of the dots, all in pixels."""
    distances = np.linalg.norm(line[:, None] - dots[None], axis=2)
    return bool((distances < ROOM).any())


def written(
    axes: Axes, point: tuple[float, float], name: str, offset: tuple[float, float], align: str
) -> Any:
    """The name of a point, `offset` points away from it."""
    text = shortened(name)
    label = axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        fontsize=SIZE,
        fontfamily=families_for(text),
        ha=align,
        va="center",
        arrowprops=LINE if has_line((offset, align)) else None,
    )
    label.set_in_layout(False)
    return label


def offsets() -> Iterator[Place]:
    """Where a name may stand, the best place first."""
    for distance in np.arange(CLOSE, FAR, 4.0):
        for degrees in (0, 180, 45, 135, 315, 225, 90, 270, 22, 158, 338, 202):
            right, up = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            align = "center" if abs(right) < 0.5 else "left" if right > 0 else "right"
            yield (distance * right, distance * up), align


def has_line(where: Place) -> bool:
    """Whether a name is so far from its dot that a line must lead to it."""
    return bool(np.hypot(*where[0]) >= LEADING)
