"""Curves through points of the plane, and the canvas that fills them.

Curves of one kind are made many at once where they can be: (..., points), for NumPy takes longer to
be called than to compute one of them.
"""

from cmath import rect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, product
from math import radians

import numpy as np
from numpy.typing import ArrayLike, NDArray
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
    "box_of",
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
def _closed_spline(corners: int, steps: int) -> Points:
    """(corners, corners * steps) matrix from corners to points of the curve."""
    spline = np.zeros((corners, steps, corners), complex)
    for corner, neighbour in product(range(corners), range(4)):
        spline[corner, :, (corner + neighbour - 1) % corners] += _spline_weights(steps)[
            :, neighbour
        ]
    return spline.reshape(-1, corners).T


@cache
def _open_spline(corners: int, steps: int) -> Points:
    """(corners, (corners - 1) * steps + 1) matrix; the end corners count twice."""
    spline = np.zeros((corners - 1, steps, corners), complex)
    for corner, neighbour in product(range(corners - 1), range(4)):
        spline[corner, :, min(max(corner + neighbour - 1, 0), corners - 1)] += _spline_weights(
            steps
        )[:, neighbour]
    return np.concatenate([spline.reshape(-1, corners), np.eye(corners)[-1:]]).T


def smooth(corners: Sequence[complex] | Points, steps: int = 6) -> Points:
    """(..., corners) -> (..., corners * steps): closed curves through `corners`."""
    through = np.asarray(corners, complex)
    curves: Points = through @ _closed_spline(through.shape[-1], steps)
    return curves


def path(corners: Sequence[complex] | Points, steps: int = 5) -> Points:
    """(..., corners) -> (..., (corners - 1) * steps + 1): open curves through `corners`."""
    through = np.asarray(corners, complex)
    curves: Points = through @ _open_spline(through.shape[-1], steps)
    return curves


@cache
def _pen_widths(points: int, widths: tuple[float, ...]) -> NDArray[np.float64]:
    return np.interp(np.linspace(0, 1, points), np.linspace(0, 1, len(widths)), widths)


def stroke(line: Sequence[complex] | Points, *widths: float) -> Points:
    """(..., points) -> (..., 2 * points): the outline of a pen along each `line`, its width
    changing evenly from the first to the last of `widths`."""
    centre = np.asarray(line, complex)
    steps = centre[..., 1:] - centre[..., :-1]
    along = np.empty_like(centre)
    along[..., :1], along[..., -1:] = steps[..., :1], steps[..., -1:]
    np.add(steps[..., :-1], steps[..., 1:], out=along[..., 1:-1])
    shares = _pen_widths(len(along.T), tuple(round(width / widths[0], 3) for width in widths))
    side = 0.5j * widths[0] * shares * along / (np.abs(along) + 1e-9)
    return np.concatenate([centre + side, (centre - side)[..., ::-1]], axis=-1)


CIRCLE = np.exp(2j * np.pi * np.arange(18) / 18)
_ACROSS, _DOWN = CIRCLE.real, 1j * CIRCLE.imag


def ellipse(centre: ArrayLike, width: ArrayLike, height: ArrayLike) -> Points:
    """(...) -> (..., points); `width` and `height` are half axes."""
    middle, across, down = (np.asarray(value)[..., None] for value in (centre, width, height))
    outlines: Points = middle + (_ACROSS * across + _DOWN * down)
    return outlines


def blade(start: ArrayLike, end: ArrayLike, width: ArrayLike, *, widest: float = 0.65) -> Points:
    """(...) -> (..., points): feathers or leaves from `start` to a rounded `end`; `widest` says
    where along it, `width` how wide."""
    base, tip = np.broadcast_arrays(start, end)
    along = tip - base
    side = 1j * along / np.maximum(np.abs(along), 1e-9) * width / 2
    half, most = base + along * widest / 2, base + along * widest
    corners = [base, half + side * 0.8, most + side, tip, most - side, half - side * 0.8]
    return smooth(np.stack(corners, axis=-1), 4)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """`one` with a `share` of `other`."""
    (red, green, blue), (to_red, to_green, to_blue) = one, other
    return (
        round(red + (to_red - red) * share),
        round(green + (to_green - green) * share),
        round(blue + (to_blue - blue) * share),
    )


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
        """(..., points) -> (..., points, 2) pixels: whole numbers, so that a last bit that differs
        between machines can't reach the image."""
        pixels: NDArray[np.float64] = points.view(np.float64).reshape(*points.shape, 2)
        pixels = pixels * self._scale
        pixels += self._origin
        return np.rint(pixels, out=pixels)

    def fill(self, points: Points, *colours: Colour) -> list[float]:
        """(..., points): paints the polygons one after another, each in the next of the colours,
        which begin anew after the last. Returns all corners in pixels: x, y, x, y ..."""
        flat = self.corners(points).ravel().tolist()
        step = 2 * points.shape[-1]
        for start, colour in zip(range(0, len(flat), step), cycle(colours), strict=False):
            self._pen.polygon(flat[start : start + step], fill=colour)
        return flat

    def area(self, *shapes: Points, within: Area | None = None, soft: float = 0) -> Area:
        """What the polygons cover, its edge blurred over `soft` lengths, cut to `within`."""
        corners = self.corners(np.concatenate(shapes) if len(shapes) > 1 else shapes[0])
        radius = round(soft * self.unit)
        edge_left, edge_top = (within.left, within.top) if within else (0, 0)
        width, height = (within.mask if within else self.image).size
        left, top, right, bottom = box_of(corners.ravel().tolist())
        left, right = max(left - radius, edge_left), min(right + radius, edge_left + width)
        top, bottom = max(top - radius, edge_top), min(bottom + radius, edge_top + height)
        mask = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
        pen = ImageDraw.Draw(mask)
        flat, start = (corners - (left, top)).ravel().tolist(), 0
        for shape in shapes:
            end = start + 2 * len(shape)
            pen.polygon(flat[start:end], fill=255)
            start = end
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


def box_of(flat: list[float]) -> Bounds:
    """The pixels from the first to the last of corners x, y, x, y ..."""
    across, down = flat[::2], flat[1::2]
    return int(min(across)), int(min(down)), int(max(across)) + 1, int(max(down)) + 1


def blurred(image: Image.Image, radius: int, *, times: int = 2) -> Image.Image:
    """Box blurs of a whole number of pixels: integer arithmetic throughout, unlike Pillow's
    Gaussian."""
    if radius:
        for _ in range(times):
            image = image.filter(ImageFilter.BoxBlur(radius))
    return image
