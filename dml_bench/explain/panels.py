"""One picture per image: a row for each phase, a column for each method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from dml_bench.explain.annotations import Box
from dml_bench.system.lettering import Pen

__all__ = ["PanelRow", "Tile", "coloured", "overlaid", "panel"]

SIDE = 168
"""Of a tile in pixels."""
GAP = 6
LINE = 16
INK, GREY, PAPER, GREEN, RED = (
    (20, 20, 24),
    (110, 110, 118),
    (255, 255, 255),
    (30, 130, 60),
    (190, 40, 40),
)
RAMP = np.array(
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]],
    float,
)
"""Colours from nothing to the highest, dark to light, so that the order is seen in grey too."""


@dataclass(frozen=True, slots=True)
class Tile:
    picture: np.ndarray
    """(size, size, 3) uint8"""
    caption: str = ""
    """Below it; a line break begins a second line."""
    good: bool | None = None
    """Colours the caption green or red."""


@dataclass(frozen=True, slots=True)
class PanelRow:
    label: str
    tiles: tuple[Tile, ...]


def coloured(heat: np.ndarray) -> np.ndarray:
    """(size, size) any values -> (size, size, 3) uint8: nothing up to 0, then in proportion to the
    99.5th percentile."""
    top = np.quantile(heat, 0.995)
    scaled = (heat / (top if top > 0 else max(heat.max(), 1e-12))).clip(0, 1)
    at = np.linspace(0, 1, len(RAMP))
    return (
        np.stack([np.interp(scaled, at, RAMP[:, channel]) for channel in range(3)], axis=-1)
        .round()
        .astype(np.uint8)
    )


def overlaid(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The heat over the image in grey."""
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"), float)
    return (0.45 * grey + 0.55 * coloured(heat)).round().astype(np.uint8)


def panel(
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
    for place, name in enumerate(columns):
        small.write(sheet, (left_of(place), GAP + LINE + GAP), small.fitted(name, SIDE), GREY)
    for number, row in enumerate(rows):
        top = 2 * LINE + 3 * GAP + number * height_of_row
        small.write(sheet, (GAP, top), small.fitted(row.label, width), INK)
        for place, tile in enumerate(row.tiles):
            put(sheet, tile, (left_of(place), top + LINE), small, boxes if place == 0 else ())
    return sheet


def left_of(place: int) -> int:
    return GAP + place * (SIDE + GAP)


def put(
    sheet: Image.Image, tile: Tile, corner: tuple[int, int], pen: Pen, boxes: Sequence[Box]
) -> None:
    draw = ImageDraw.Draw(sheet)
    sheet.paste(
        Image.fromarray(tile.picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC), corner
    )
    scale = SIDE / len(tile.picture)
    for left, top, width, height in boxes:
        ends = (left, top, left + width, top + height)
        placed = [value * scale + corner[axis % 2] for axis, value in enumerate(ends)]
        draw.rectangle(
            (placed[0], placed[1], max(placed[0], placed[2] - 1), max(placed[1], placed[3] - 1)),
            outline=(40, 160, 255),
            width=1,
        )
    ink = GREY if tile.good is None else GREEN if tile.good else RED
    for line, text in enumerate(tile.caption.split("\n")[:2]):
        pen.write(
            sheet, (corner[0], corner[1] + SIDE + 2 + line * LINE), pen.fitted(text, SIDE), ink
        )
