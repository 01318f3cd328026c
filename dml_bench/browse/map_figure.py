"""The maps of a run's images as a picture."""

from collections.abc import Sequence

import numpy as np

from dml_bench.browse.images import BrowseTable
from dml_bench.plots.canvas import ReportFigure
from dml_bench.plots.colours import BLUE, ORANGE, distinct
from dml_bench.plots.maps import EmbeddingMap, MapGroup, embedding_maps
from dml_bench.system.lettering import literal

__all__ = ["map_figure"]

MOST_COLOURS = 20
"""Of more classes only the chosen ones have colours of their own."""


def map_figure(
    images: BrowseTable, maps: dict[str, np.ndarray], chosen: Sequence[int]
) -> ReportFigure:
    """A map for each phase. The chosen classes, or all of them where they are few, have colours of
    their own; else seen and unseen classes have one each."""
    coloured = list(chosen)
    if not coloured and len(images.class_names) <= MOST_COLOURS:
        coloured = sorted(images.class_names)
    of_classes = []
    for label, colour in zip(coloured, distinct(len(coloured)), strict=True):
        of_classes.append(MapGroup(images.class_names[label], images.labels == label, colour))
    drawn_maps = []
    for phase, points in maps.items():
        groups = of_classes or seen_and_unseen(images, phase)
        drawn_maps.append(EmbeddingMap(map_title(images, phase), points, groups))
    title = f"Embeddings of {images.source.title}"
    parts = {name: images.part == part for part, name in images.part_names.items()}
    return embedding_maps(title, drawn_maps, parts, 3 if coloured else 5)


def seen_and_unseen(images: BrowseTable, phase: str) -> list[MapGroup]:
    """The classes that the model of a phase was trained on, and the others."""
    unseen = images.unseen_in(phase)
    return [
        MapGroup("seen classes", ~unseen, BLUE),
        MapGroup("unseen classes", unseen, ORANGE),
    ]


def map_title(images: BrowseTable, phase: str) -> str:
    """Which classes the model was trained on, how far test images of a class lie from its training
    images, beside how far these lie from each other, and hubness."""
    return "\n".join([literal(images.source.phase_titles[phase]), *images.notes(phase)])
