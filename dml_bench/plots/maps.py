"""Maps of embeddings in the plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.plots.canvas import INK, Axes, ReportFigure, canvas, key_line, saved, style
from dml_bench.system.lettering import shortened

__all__ = ["EmbeddingMap", "MapGroup", "embedding_maps"]

MOST_MARKS = 4000
"""Beyond it a picture of dots is smaller than their coordinates."""
GROUND = {"alpha": 0.12, "edgecolors": "none"}
"""How images of no group are drawn, behind the others."""
MARKS: tuple[dict[str, Any], ...] = (
    {"marker": "o", "s": 1.0, "linewidths": 0},
    {"marker": "D", "s": 1.1, "edgecolors": INK, "linewidths": 0.15},
    {"marker": "^", "s": 1.8, "edgecolors": INK, "linewidths": 0.15},
)
"""How the parts of a data set are drawn, as in `browse`: the gallery, queries, and enrolled images.
Their areas are multiples of a dot's."""
CAPTION = (
    "UMAP. Numbers: mean distance of two images of one class, 1 minus the cosine similarity: 0 is"
    " the same, 1 is unrelated."
)


@dataclass(frozen=True, slots=True)
class MapGroup:
    """Images that share a colour."""

    name: str
    rows: np.ndarray
    """(images) bool"""
    colour: str


@dataclass(frozen=True, slots=True)
class EmbeddingMap:
    """The embeddings of one phase."""

    title: str
    points: np.ndarray
    """(images, 2); nan where an image is not on the map."""
    groups: Sequence[MapGroup]
    """Of the same names and colours on each map; images in none are drawn behind the others."""


def embedding_maps(
    title: str,
    maps: Sequence[EmbeddingMap],
    parts: Mapping[str, np.ndarray],
    legend_columns: int,
) -> ReportFigure:
    """The maps side by side. `parts` are (images) bool by what such images are called: the gallery,
    the queries and the enrolled images, in the order of their MARKS."""
    columns = min(2, len(maps))
    rows = -(-len(maps) // columns)
    with style():
        figure, grid = canvas(1.3 + 4.1 * rows, columns, rows)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, embedding_map in zip(grid.flat, maps, strict=False):
            in_no_group = ~np.any([group.rows for group in embedding_map.groups], axis=0)
            drawn_groups = [MapGroup("", in_no_group, INK), *embedding_map.groups]
            draw_map(axes, embedding_map.points, list(parts.values()), drawn_groups)
            axes.set_title(embedding_map.title, fontsize=7.5)
        handles = [
            key_line(name, INK, marker=mark["marker"], linestyle="", markersize=3)
            for (name, rows_of_part), mark in zip(parts.items(), MARKS, strict=True)
            if rows_of_part.any()
        ]
        handles += [
            key_line(group.name, group.colour, marker="o", linestyle="", markersize=4)
            for group in maps[0].groups
            if group.rows.any()
        ]
        figure.suptitle(f"{shortened(title, 90)}\n{CAPTION}", x=0.013, ha="left", fontsize=8)
        figure.legend(handles=handles, loc="outside lower left", ncols=legend_columns, fontsize=7)
        return saved(figure, "map", title, CAPTION)


def draw_map(
    axes: Axes, points: np.ndarray, parts: Sequence[np.ndarray], groups: Sequence[MapGroup]
) -> None:
    """A group without a name is drawn as ground for the others."""
    area = float(np.clip(6000 / len(points), 2, 16))
    on_map = np.isfinite(points).all(1)
    plain: dict[str, Any] = {"alpha": 0.85, "rasterized": len(points) > MOST_MARKS}
    for of_part, mark in zip(parts, MARKS, strict=True):
        for group in groups:
            x, y = points[on_map & group.rows & of_part].T
            ground = {} if group.name else GROUND
            marked = plain | mark | {"s": area * mark["s"]} | ground
            axes.scatter(x, y, color=group.colour, **marked)
    axes.set_aspect("equal", "datalim")
