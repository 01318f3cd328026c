"""Names beside points, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dml_bench.plots.canvas import INK, Axes
from dml_bench.system.lettering import shortened

__all__ = ["write_labels"]

SIZE = 7.5
CLOSE, FAR = 6.0, 60.0
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
    bars = np.linspace(y - error[0], y + error[1], 40)
    covered = axes.transData.transform(
        np.column_stack([np.tile(x, len(bars)), bars.ravel()])
    ).reshape(len(bars), len(x), 2)
    taken: list[Any] = []
    for place in order:
        others = np.delete(covered, place, 1).reshape(-1, 2)
        strict = np.concatenate([others, covered[:, place]])
        dots = np.delete(axes.transData.transform(np.column_stack([x, y])), place, 0)
        # A name may cross an error bar where there is no other room, but never a dot or a name.
        for obstacles in (strict, dots):
            label = free_label(axes, (x[place], y[place]), names[place], obstacles, taken)
            if label is not None:
                taken.append(label.get_window_extent().padded(1))
                break


def free_label(
    axes: Axes,
    point: tuple[float, float],
    name: str,
    obstacles: np.ndarray,
    taken: Sequence[Any],
) -> Any:
    """The name at the first place that covers none of the obstacles, (n, 2) in pixels, and none of
    the boxes; None without such a place."""
    inside = axes.get_window_extent()
    for offset, align in offsets():
        label = axes.annotate(
            shortened(name),
            point,
            xytext=offset,
            textcoords="offset points",
            fontsize=SIZE,
            ha=align,
            va="center",
            arrowprops=leader(offset),
        )
        label.set_in_layout(False)
        box = label.get_window_extent().padded(1)
        is_inside = inside.x0 <= box.x0 and box.x1 <= inside.x1
        is_inside = is_inside and inside.y0 <= box.y0 and box.y1 <= inside.y1
        if (
            is_inside
            and not box.padded(4).count_contains(obstacles)
            and not box.count_overlaps(taken)
        ):
            return label
        label.remove()
    return None


def offsets() -> Iterator[tuple[tuple[float, float], str]]:
    """Where a name may stand, the best place first: (right, up) in points, and its alignment."""
    for distance in np.arange(CLOSE, FAR, 4.0):
        for degrees in (0, 180, 45, 135, 315, 225, 90, 270, 22, 158, 338, 202):
            right, up = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            align = "center" if abs(right) < 0.5 else "left" if right > 0 else "right"
            yield (distance * right, distance * up), align


def leader(offset: tuple[float, float]) -> dict[str, object] | None:
    if np.hypot(*offset) < LEADING:
        return None
    return {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "alpha": 0.5, "shrinkA": 0}
