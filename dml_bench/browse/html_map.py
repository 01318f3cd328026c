"""The maps of a run as one HTML file that needs no network and no server. Pointing at an image
shows it and its predictions."""

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.browse.images import BrowseTable, with_bounds
from dml_bench.browse.thumbnails import ThumbnailFolder
from dml_bench.data.digests import digest_of
from dml_bench.data.images import Unreadable, decode
from dml_bench.evaluation.scatter import MEASURES
from dml_bench.plots import colours
from dml_bench.system.files import write_text
from dml_bench.system.templates import script_data, templates

__all__ = ["write_html_map"]

SMALL, LARGE, MANY = 64, 96, 2000
"""The side of a thumbnail in pixels where there are more than MANY images, and where there are
fewer."""
NAMED_COLOURS = ("BLUE", "ORANGE", "GREEN", "GREY", "SKY", "GOLD")
"""Of outcomes and parts, as the script knows them."""
PER_ROW = 16
"""The number of thumbnails in a row, and of rows, of a sheet. One JPEG of many small images is half
the size of many small JPEGs."""


def write_html_map(
    path: Path,
    images: BrowseTable,
    maps: dict[str, np.ndarray],
    chosen: Sequence[int],
    progress: Callable[[int, int], None],
    copies: ThumbnailFolder | None = None,
) -> int:
    """Write the page; `chosen` are the class ids that it highlights at first, `copies` keeps small
    copies of its images. Returns how many images could not be read, or were changed."""
    import markupsafe

    side = LARGE if len(images.paths) <= MANY else SMALL
    sheets, unreadable = thumbnails(
        list(zip(images.paths, images.digests, strict=True)), side, progress, copies
    )
    data = {
        "side": side,
        "perRow": PER_ROW,
        "sheets": sheets,
        **facts(images, maps),
        "chosen": places(images, np.array(chosen, int)),
        "palette": {name: getattr(colours, name) for name in NAMED_COLOURS},
    }
    page = templates(Path(__file__).parent).get_template("html_map.html.jinja")
    text = page.render(
        title=images.source.title,
        data=script_data(data),
        colours=markupsafe.Markup(colours.style()),
    )
    write_text(path, text)
    return unreadable


def facts(images: BrowseTable, maps: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the page says of each image. Classes are numbered in the order of their ids."""
    order = sorted(images.class_names)
    names = [images.class_names[label] for label in order]
    coarse = images.source.coarse_classes
    kinds = sorted(set(coarse.values()))
    parts = list(images.part_names)
    return {
        "classes": names,
        "coarse": [coarse.get(label, "") for label in order] if kinds else [],
        "coarseColours": dict(zip(kinds, colours.distinct(len(kinds)), strict=True)),
        "colours": colours.distinct(len(names)),
        "unseenClasses": places(images, np.unique(images.labels[images.unseen])),
        "name": [Path(path).name for path in images.paths],
        "label": places(images, images.labels),
        "part": [parts.index(part) for part in images.part],
        "parts": list(images.part_names.values()),
        "outcome": images.outcome.tolist(),
        "phases": [phase_facts(images, phase, maps[phase]) for phase in images.phases],
    }


def phase_facts(images: BrowseTable, phase: str, points: np.ndarray) -> dict[str, Any]:
    """What the page says of each image in one phase."""
    columns = images.phases[phase]
    return {
        "words": images.source.phase_titles[phase],
        "unseenClasses": places(images, np.unique(images.labels[images.unseen_in(phase)])),
        "x": numbers(points[:, 0], 3),
        "y": numbers(points[:, 1], 3),
        "nearest": columns.nearest.tolist(),
        "similarity": numbers(columns.similarity, 4),
        "elected": places(images, columns.elected),
        "share": numbers(columns.share, 2),
        "scatter": scatter_lines(images, phase),
        "notes": images.notes(phase)[-1:],
    }


SHOWN = {
    "train_dispersion": "two training images",
    "test_dispersion": "two test images",
    "test_to_train": "test and training image",
    "test_margin": "margin",
}
"""Measures of `evaluation.scatter` beside a map, with their heads."""


def scatter_lines(images: BrowseTable, phase: str) -> list[dict[str, Any]]:
    """For each measure beside a map: its head, what it is, and its means over seen and over unseen
    classes with their intervals."""
    groups = images.scatter(phase, with_margins=True)
    lines: list[dict[str, Any]] = []
    for measure, head in SHOWN.items():
        means = [of_group.get(measure) for of_group in groups.values()]
        if any(means):
            texts = [mean and with_bounds(mean) for mean in means]
            lines.append({"head": head, "what": MEASURES[measure], "means": texts})
    return lines


def places(images: BrowseTable, labels: np.ndarray) -> list[int]:
    """The numbers of class ids on the page; -1 stays -1."""
    order = np.array(sorted(images.class_names))
    return np.where(labels >= 0, np.searchsorted(order, labels), -1).tolist()


def numbers(values: np.ndarray, digits: int) -> list[float | None]:
    """Rounded numbers, with None for nan."""
    return [None if np.isnan(value) else round(float(value), digits) for value in values]


def thumbnails(
    files: Sequence[tuple[str, str]],
    side: int,
    progress: Callable[[int, int], None],
    copies: ThumbnailFolder | None = None,
) -> tuple[list[str], int]:
    """Sheets of PER_ROW x PER_ROW images as data URIs, and the number of `files`, given with their
    digests, that could not be read or have changed since the run. These stay grey."""
    from PIL import Image

    sheets, unreadable, per_sheet = [], 0, PER_ROW**2
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), per_sheet):
            part = files[start : start + per_sheet]
            sheet = Image.new("RGB", (PER_ROW * side, -(-len(part) // PER_ROW) * side), "#888")
            for place, small in enumerate(
                pool.map(lambda file: thumbnail(file[0], file[1], side, copies), part)
            ):
                if small is None:
                    unreadable += 1
                else:
                    left, top = place % PER_ROW * side, place // PER_ROW * side
                    sheet.paste(
                        small, (left + (side - small.width) // 2, top + (side - small.height) // 2)
                    )
                progress(start + place + 1, len(files))
            file = io.BytesIO()
            sheet.save(file, "JPEG", quality=80)
            sheets.append(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")
    return sheets, unreadable


def thumbnail(path: str, digest: str, side: int, copies: ThumbnailFolder | None) -> Any:
    """A small copy; None where the file can't be read, or has another digest."""
    from PIL import ImageOps

    if digest and digest_of(Path(path)) != digest:
        return None
    try:
        image = decode(Path(path)) if copies is None else copies.small(path)
        return ImageOps.contain(image, (side, side))
    except Unreadable:
        return None
