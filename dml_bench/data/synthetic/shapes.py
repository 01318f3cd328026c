"""Curves through points of the plane, and the canvas that fills them."""

from cmath import rect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import radians

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = [
    "CIRCLE",
    "DARK",
    "LIGHT",
    "Area",
    "Bounds",
    "Box",
    "Canvas",
    "Colour",
    "Points",
    "blade",
    "blurred",
    "ellipse",
    "mixed",
    "path",
    "smooth",
    "stroke",
    "turn",
]

Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Bounds = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; the last two are outside."""
Points = NDArray[np.complex128]
"""Points of the plane as complex numbers, x to the right and y down: turning is a multiplication,
moving an addition."""


def turn(degrees: float) -> complex:
    """The factor that turns points clockwise on the screen."""
    return rect(1, radians(degrees))


def _spline_weights(steps: int) -> NDArray[np.float64]:
    """(steps, 4) weights of four neighbouring corners in a Catmull-Rom spline between the middle
    two."""
    t = np.arange(steps) / steps
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2],
        axis=1,
    )


@cache
def _closed_spline(corners: int, steps: int) -> NDArray[np.float64]:
    """(corners * steps, corners) matrix from corners to points of the curve."""
    spline = np.zeros((corners, steps, corners))
    for corner, neighbour in product(range(corners), range(4)):
        spline[corner, :, (corner + neighbour - 1) % corners] += _spline_weights(steps)[
            :, neighbour
        ]
    return spline.reshape(-1, corners)


@cache
def _open_spline(corners: int, steps: int) -> NDArray[np.float64]:
    """((corners - 1) * steps + 1, corners) matrix; the end corners count twice."""
    spline = np.zeros((corners - 1, steps, corners))
    for corner, neighbour in product(range(corners - 1), range(4)):
        spline[corner, :, min(max(corner + neighbour - 1, 0), corners - 1)] += _spline_weights(
            steps
        )[:, neighbour]
    return np.concatenate([spline.reshape(-1, corners), np.eye(corners)[-1:]])


def smooth(corners: Sequence[complex] | Points, steps: int = 6) -> Points:
    """A closed curve through `corners`."""
    curve: Points = _closed_spline(len(corners), steps) @ np.asarray(corners, complex)
    return curve


def path(corners: Sequence[complex] | Points, steps: int = 5) -> Points:
    """An open curve through `corners`."""
    curve: Points = _open_spline(len(corners), steps) @ np.asarray(corners, complex)
    return curve


@cache
def _pen_widths(points: int, widths: tuple[float, ...]) -> NDArray[np.float64]:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(widths)), widths)


def stroke(line: Sequence[complex] | Points, *widths: float) -> Points:
    """The outline of a pen along `line`, its width changing evenly from the first to the last of
    `widths`."""
    centre = np.asarray(line, complex)
    steps = centre[1:] - centre[:-1]
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    shares = _pen_widths(len(centre), tuple(round(width / widths[0], 3) for width in widths))
    side = 0.5j * widths[0] * shares * along / (np.abs(along) + 1e-9)
    return np.concatenate([centre + side, (centre - side)[::-1]])


CIRCLE = np.exp(2j * np.pi * np.arange(18) / 18)


def ellipse(centre: complex, width: float, height: float, degrees: float = 0) -> Points:
    """`width` and `height` are half axes."""
    outline: Points = centre + turn(degrees) * (CIRCLE.real * width + 1j * CIRCLE.imag * height)
    return outline


def blade(start: complex, end: complex, width: float, *, widest: float = 0.65) -> Points:
    """A feather or leaf from `start` to a rounded `end`; `widest` says where along it, `width` how
    wide."""
    along = end - start
    side = 1j * along / max(abs(along), 1e-9) * width / 2
    return smooth(
        [
            start,
            start + along * widest / 2 + side * 0.8,
            start + along * widest + side,
            end,
            start + along * widest - side,
            start + along * widest / 2 - side * 0.8,
        ],
        4,
    )


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with a `share` of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


DARK: Colour = (22, 20, 30)
LIGHT: Colour = (255, 252, 244)


@dataclass(frozen=True, kw_only=True, slots=True)
class Area:
    """A soft-edged piece of an image: how much of each pixel is in it (0..255), and where its
    corner lies."""

    mask: Image.Image
    left: int
    top: int

    @property
    def bounds(self) -> Bounds | None:
        """What it really covers; None if nothing."""
        inner = self.mask.getbbox()
        return inner and (
            inner[0] + self.left,
            inner[1] + self.top,
            inner[2] + self.left,
            inner[3] + self.top,
        )


class Canvas:
    """An image with a coordinate system of its own: `unit` pixels per length, `origin` in pixels,
    maybe mirrored."""

    def __init__(
        self, image: Image.Image, *, unit: float, origin: complex = 0, mirrored: bool = False
    ) -> None:
        self.image = image
        self.unit = unit
        self._scale = np.array((-unit if mirrored else unit, unit))
        self._origin = np.array((origin.real, origin.imag))
        self._pen = ImageDraw.Draw(image)

    def corners(self, points: Points) -> NDArray[np.float64]:
        """(points, 2) pixels: whole numbers, so that a last bit that differs between machines can't
        reach the image."""
        scaled: NDArray[np.float64] = points.view(np.float64).reshape(-1, 2) * self._scale
        corners: NDArray[np.float64] = np.rint(scaled + self._origin)
        return corners

    def fill(self, points: Points, colour: Colour) -> NDArray[np.float64]:
        """Paints the polygon and returns its corners in pixels."""
        corners = self.corners(points)
        self._pen.polygon(corners.ravel().tolist(), fill=colour)
        return corners

    def area(self, *shapes: Points, within: Area | None = None, soft: float = 0) -> Area:
        """What the polygons cover, its edge blurred over `soft` lengths, cut to `within`."""
        corners = self.corners(np.concatenate(shapes))
        radius = round(soft * self.unit)
        low, size = (
            ((within.left, within.top), within.mask.size) if within else ((0, 0), self.image.size)
        )
        left, top = (
            max(int(first) - radius, edge)
            for first, edge in zip(corners.min(axis=0), low, strict=True)
        )
        right, bottom = (
            min(int(last) + radius + 1, edge + length)
            for last, edge, length in zip(corners.max(axis=0), low, size, strict=True)
        )
        mask = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
        pen = ImageDraw.Draw(mask)
        for outline in np.split(
            corners - (left, top), np.cumsum([len(shape) for shape in shapes[:-1]])
        ):
            pen.polygon(outline.ravel().tolist(), fill=255)
        mask = blurred(mask, radius, times=1)
        if within:
            place = left - within.left, top - within.top
            mask = ImageChops.multiply(
                mask, within.mask.crop((*place, place[0] + mask.width, place[1] + mask.height))
            )
        return Area(mask=mask, left=left, top=top)

    def tint(self, area: Area, colour: Colour) -> None:
        """Fill an area with a colour."""
        opaque = (*colour, 255) if self.image.mode == "RGBA" else colour
        self.image.paste(
            opaque,
            (area.left, area.top, area.left + area.mask.width, area.top + area.mask.height),
            area.mask,
        )


def blurred(image: Image.Image, radius: int, *, times: int = 2) -> Image.Image:
    """Box blurs of a whole number of pixels: integer arithmetic throughout, unlike Pillow's
    Gaussian."""
    if radius:
        for _ in range(times):
            image = image.filter(ImageFilter.BoxBlur(radius))
    return image
