"""One image: a bird placed in a scene, lit and photographed, with its ground truth."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops

from dml_bench.data.synthetic.bird import Figure, Portrait
from dml_bench.data.synthetic.families import Species
from dml_bench.data.synthetic.nuisance import NUISANCE
from dml_bench.data.synthetic.rng import Dice
from dml_bench.data.synthetic.scene import backdrop, chosen_perch, occluded, paint_perch
from dml_bench.data.synthetic.shapes import Bounds, Box, Canvas, blurred

__all__ = ["PARTS", "Drawing", "draw"]

PARTS = (
    "back",
    "bill",
    "belly",
    "breast",
    "crest",
    "crown",
    "eye",
    "legs",
    "tail",
    "throat",
    "wing",
)
"""Names of the parts that have a box, in the order of their ids (from 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One image and its ground truth; boxes are x, y, width, height in pixels."""

    image: Image.Image
    """RGB, size x size."""
    box: Box
    """What is visible of the bird."""
    parts: dict[str, Box]
    """The boxes of those `PARTS` that the species has and that can be seen, inside `box`."""


def draw(bird: Species, *, index: int, seed: int, size: int) -> Drawing:
    """Image `index` of a species: the same scene at every size, the same pixels on every machine.

    Raises ValueError if `size` is under 16.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels for a bird, got {size}")
    dice = Dice("drawing", seed, bird.name, index)
    fine = 3 if size <= 160 else 2
    side = size * fine
    perch = chosen_perch(dice)
    mirrored = dice.chance(0.5)
    grip = -perch.along.conjugate() if mirrored else perch.along
    figure = Figure(bird, dice, most_tilt=20 if perch.kind == "ground" else 75, grip=grip)
    place = _placed(figure.extent(bird), mirrored, dice)
    scene = backdrop(dice, side)
    paint_perch(Canvas(scene, unit=side), perch, place.of(figure.foot), dice)
    left, top, right, bottom = bounds = place.bounds(side)
    layer = Image.new("RGBA", (right - left, bottom - top))
    canvas = Canvas(
        layer,
        unit=place.unit * side,
        origin=place.origin * side - complex(left, top),
        mirrored=mirrored,
    )
    portrait = Portrait(bird, figure, canvas, dice)
    portrait.paint()
    portrait.shade()
    portrait.toes()
    scene.paste(layer, (left, top), layer)
    visible = _behind(occluded(scene, place.box, dice), layer, bounds)
    box, parts = _boxes(visible, portrait.areas, (left, top), fine)
    return Drawing(image=_exposed(scene, fine, dice), box=box, parts=parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a figure is in the image, in fractions of the image."""

    origin: complex
    unit: float
    mirrored: bool
    box: Box

    def of(self, point: complex) -> complex:
        return self.origin + self.unit * (-point.conjugate() if self.mirrored else point)

    def bounds(self, side: int) -> Bounds:
        """The figure's pixels with a little room, inside the image."""
        left, top, width, height = (value * side for value in self.box)
        return (
            max(0, round(left) - 3),
            max(0, round(top) - 3),
            min(side, round(left + width) + 3),
            min(side, round(top + height) + 3),
        )


def _placed(extent: Box, mirrored: bool, dice: Dice) -> Place:
    """Somewhere inside the image."""
    left, top, right, bottom = extent
    if mirrored:
        left, right = -right, -left
    width, height = right - left, bottom - top
    unit = dice.uniform(*NUISANCE.size_fraction) / max(width, height)
    x, y = (0.015 + dice.uniform(0, 1) * (0.97 - unit * length) for length in (width, height))
    return Place(
        origin=complex(x - left * unit, y - top * unit),
        unit=unit,
        mirrored=mirrored,
        box=(x, y, width * unit, height * unit),
    )


def _behind(occluder: Image.Image | None, layer: Image.Image, bounds: Bounds) -> Image.Image:
    """What of the bird's layer can be seen behind the occluder's opacity."""
    visible = layer.getchannel("A")
    return (
        visible
        if occluder is None
        else ImageChops.subtract(visible, occluder.crop(bounds).point(_HIDES))
    )


_HIDES = [0] * 160 + [255] * 96


def _boxes(
    visible: Image.Image, areas: dict[str, Bounds], corner: tuple[int, int], fine: int
) -> tuple[Box, dict[str, Box]]:
    """The visible bird's box and those of its visible parts, in pixels of the finished image."""
    bird = visible.getbbox()
    assert bird is not None, "nothing covers a whole bird"

    def finished(left: int, top: int, right: int, bottom: int) -> Box:
        return (
            (left + corner[0]) / fine,
            (top + corner[1]) / fine,
            (right - left) / fine,
            (bottom - top) / fine,
        )

    parts = {}
    for part in PARTS:
        if part in areas:
            left, top, right, bottom = areas[part]
            inside = (
                max(left, bird[0]),
                max(top, bird[1]),
                min(right, bird[2]),
                min(bottom, bird[3]),
            )
            if inside[0] < inside[2] and inside[1] < inside[3] and visible.crop(inside).getbbox():
                parts[part] = finished(*inside)
    return finished(*bird), parts


def _exposed(scene: Image.Image, fine: int, dice: Dice) -> Image.Image:
    """The scene in its light, through a lens and on a noisy sensor, at the final size."""
    if dice.chance(NUISANCE.blur_fraction):
        scene = blurred(scene, round(scene.width * dice.uniform(0.003, 0.010)), times=1)
    small = np.asarray(scene.reduce(fine))
    warmth = dice.around(NUISANCE.light_spread)
    level = (
        dice.uniform(0.6, 0.8) if dice.chance(NUISANCE.dim_fraction) else dice.uniform(0.92, 1.08)
    )
    lit = np.rint(small * (level * np.array([1 + warmth, 1 + warmth / 5, 1 - warmth]))).astype(
        np.int32
    )
    amplitude = round(dice.uniform(0, NUISANCE.noise_levels) * 16)
    bits = dice.bytes(2 * small.size).reshape(2, *small.shape).astype(np.int32)
    return Image.fromarray(
        (lit + ((bits[0] - bits[1]) * amplitude >> 12)).clip(0, 255).astype(np.uint8)
    )
