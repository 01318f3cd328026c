"""Names beside points, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dml_bench.plots.canvas import INK, Axes
from dml_bench.system.lettering import families_for, shortened

__all__ = ["write_labels"]

SIZE = 7.5
CLOSE, FAR = 6.0, 60.0
"""Points between a dot and its name; from further than LEADING a line leads to it."""
LEADING = 13.0
LINE_ENDS = 3.0
"""Points before a dot at which the line to its name has not ended yet; matplotlib ends it at 2."""


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

    def is_free(box: Any) -> bool:
        is_inside = inside.x0 <= box.x0 and box.x1 <= inside.x1
        is_inside = is_inside and inside.y0 <= box.y0 and box.y1 <= inside.y1
        return (
            is_inside
            and not box.padded(4).count_contains(obstacles)
            and not box.count_overlaps(taken)
        )

    label = written(axes, point, name, (0, 0), "left")
    at_point = label.get_window_extent()
    label.remove()
    for offset, align in offsets():
        if not is_free(smallest_box(axes, point, at_point, offset, align)):
            continue  # where making a text and its line to measure them would change nothing
        label = written(axes, point, name, offset, align)
        if is_free(label.get_window_extent().padded(1)):
            return label
        label.remove()
    return None


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
        arrowprops=leader(offset),
    )
    label.set_in_layout(False)
    return label


def smallest_box(
    axes: Axes,
    point: tuple[float, float],
    at_point: Any,
    offset: tuple[float, float],
    align: str,
) -> Any:
    """A box in pixels that a name and its line cover at least, half a pixel less than all of it,
    where the name written at the point itself, to its right, takes the box `at_point`."""
    pixels = axes.figure.dpi / 72
    part = {"left": 0.0, "center": 0.5, "right": 1.0}[align]
    text = at_point.translated(
        offset[0] * pixels - part * at_point.width, offset[1] * pixels
    ).padded(0.5)
    if leader(offset) is None:
        return text
    dot = axes.transData.transform(point)
    middle = np.array([text.x0 + text.x1, text.y0 + text.y1]) / 2
    end = dot + LINE_ENDS * pixels * (middle - dot) / np.linalg.norm(middle - dot)
    low, high = np.minimum(text.min, end), np.maximum(text.max, end)
    return type(text).from_extents(*low, *high)


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
