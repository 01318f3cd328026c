"""Names beside points, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dml_bench.plots.canvas import INK, Axes
from dml_bench.system.lettering import shortened

__all__ = ["write_labels"]

SIZE = 7.5
CLOSE, FAR = 6.0, 46.0
"""Points between a dot and its name; from further than LEADING a line leads to it."""
LEADING = 13.0


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
    figure = axes.figure
    figure.draw_without_rendering()
    inside = axes.get_window_extent()
    bars = np.linspace(y - error[0], y + error[1], 9)
    covered = axes.transData.transform(
        np.column_stack([np.tile(x, len(bars)), bars.ravel()])
    ).reshape(len(bars), len(x), 2)
    taken: list[Any] = []
    for place in order:
        for offset, align in offsets():
            label = axes.annotate(
                shortened(names[place]),
                (x[place], y[place]),
                xytext=offset,
                textcoords="offset points",
                fontsize=SIZE,
                ha=align,
                va="center",
                arrowprops=leader(offset),
            )
            label.set_in_layout(False)
            box = label.get_window_extent().padded(1)
            others = np.delete(covered, place, 1).reshape(-1, 2)
            own = covered[:, place]
            is_free = inside.x0 <= box.x0 and box.x1 <= inside.x1
            is_free = is_free and inside.y0 <= box.y0 and box.y1 <= inside.y1
            is_free = is_free and box.padded(2).count_contains(others) == 0
            is_free = is_free and box.count_contains(own) == 0
            if is_free and not box.count_overlaps(taken):
                taken.append(box)
                break
            label.remove()


def offsets() -> Iterator[tuple[tuple[float, float], str]]:
    """Where a name may stand, the best place first: (right, up) in points, and its alignment."""
    for distance in np.arange(CLOSE, FAR, 4.0):
        for degrees in (0, 180, 45, 135, 315, 225, 90, 270):
            right, up = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            align = "center" if abs(right) < 0.5 else "left" if right > 0 else "right"
            yield (distance * right, distance * up), align


def leader(offset: tuple[float, float]) -> dict[str, object] | None:
    if np.hypot(*offset) < LEADING:
        return None
    return {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 0}
