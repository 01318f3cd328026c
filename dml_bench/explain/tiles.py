"""Pictures in rows and columns, with titles, captions and boxes: what panels are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dml_bench.explain.annotations import Box
from dml_bench.system.lettering import Pen

__all__ = ["PanelRow", "Tile", "heat_colours", "heat_overlay", "tile_sheet"]

SIDE = 168
"""The side of a tile in pixels."""
GAP = 6
LINE = 16
INK = (20, 20, 24)
GREY = (110, 110, 118)
PAPER = (255, 255, 255)
GREEN = (30, 130, 60)
RED = (190, 40, 40)
BLUE = (40, 160, 255)
RAMP = np.array(
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]],
    float,
)
"""The colours of a map from nothing to the highest, dark to light: their order shows in grey
too."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a panel."""

    picture: np.ndarray
    """(size, size, 3) uint8 pixels."""
    caption: str = ""
    """The text below the picture; a line break begins a second line."""
    good: bool | None = None
    """Whether the caption is green or red; None leaves it grey."""


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One row of a panel."""

    label: str
    """The text above the row."""
    tiles: tuple[Tile, ...]


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """(size, size) any values -> (size, size, 3) uint8 colours: dark up to 0, then in proportion to
    the 99.5th percentile."""
    top = np.quantile(heat, 0.995)
    if top <= 0:
        top = max(heat.max(), 1e-12)
    scaled = (heat / top).clip(0, 1)
    steps = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(scaled, steps, RAMP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The colours of a map over the image in grey."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"), float)
    return (0.45 * grey + 0.55 * heat_colours(heat)).round().astype(np.uint8)


def tile_sheet(
    title: str, columns: Sequence[str], rows: Sequence[PanelRow], boxes: Sequence[Box] = ()
) -> Image.Image:
    """Tiles under the names of their columns. `boxes`, in pixels of the images, are drawn on the
    first tile of each row."""
    large, small = Pen(12), Pen(10)
    height_of_row = SIDE + 4 * LINE
    sheet = Image.new(
        "RGB",
        (GAP + len(columns) * (SIDE + GAP), 2 * LINE + 3 * GAP + len(rows) * height_of_row),
        PAPER,
    )
    width = sheet.width - 2 * GAP
    large.write(sheet, (GAP, GAP), large.fitted(title, width), INK)
    for column, name in enumerate(columns):
        small.write(sheet, (left_of(column), GAP + LINE + GAP), small.fitted(name, SIDE), GREY)
    for number, row in enumerate(rows):
        top = 2 * LINE + 3 * GAP + number * height_of_row
        small.write(sheet, (GAP, top), small.fitted(row.label, width), INK)
        for column, tile in enumerate(row.tiles):
            corner = (left_of(column), top + LINE)
            draw_tile(sheet, tile, corner, small, boxes if column == 0 else ())
    return sheet


def left_of(column: int) -> int:
    """The left edge of a column in pixels."""
    return GAP + column * (SIDE + GAP)


def draw_tile(
    sheet: Image.Image, tile: Tile, corner: tuple[int, int], pen: Pen, boxes: Sequence[Box]
) -> None:
    """Draw a tile with its boxes and its caption; `corner` is its left upper pixel."""
    draw = ImageDraw.Draw(sheet)
    picture = Image.fromarray(tile.picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    sheet.paste(picture, corner)
    scale = SIDE / len(tile.picture)
    for x, y, width, height in boxes:
        left, top = x * scale + corner[0], y * scale + corner[1]
        right, bottom = (x + width) * scale + corner[0], (y + height) * scale + corner[1]
        edges = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(edges, outline=BLUE, width=1)
    ink = GREY
    if tile.good is not None:
        ink = GREEN if tile.good else RED
    for line, text in enumerate(tile.caption.split("\n")[:2]):
        position = (corner[0], corner[1] + SIDE + 2 + line * LINE)
        pen.write(sheet, position, pen.fitted(text, SIDE), ink)
