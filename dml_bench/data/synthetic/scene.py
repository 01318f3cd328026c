"""What is around a bird: the backdrop, what it sits on, and what is in the way."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from dml_bench.data.synthetic.nuisance import NUISANCE
from dml_bench.data.synthetic.rng import Dice
from dml_bench.data.synthetic.shapes import (
    DARK,
    LIGHT,
    Box,
    Canvas,
    Colour,
    blade,
    blurred,
    ellipse,
    mixed,
    path,
    stroke,
    turn,
)

__all__ = ["Perch", "backdrop", "chosen_perch", "occluded", "paint_perch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Habitat:
    """The colours of a background: two ends of a vertical gradient, and the out-of-focus things in
    front of it."""

    top: Colour
    bottom: Colour
    blobs: tuple[Colour, ...]
    streaks: bool = False
    horizon: Colour | None = None
    """What the lower part is made of, where there is one."""


HABITATS = (
    Habitat(
        top=(132, 182, 224),
        bottom=(222, 236, 242),
        blobs=((250, 250, 250), (206, 226, 240), (236, 242, 246)),
    ),
    Habitat(top=(206, 212, 214), bottom=(176, 190, 192), blobs=((226, 228, 226), (160, 176, 172))),
    Habitat(
        top=(250, 214, 176),
        bottom=(226, 160, 138),
        blobs=((255, 236, 200), (206, 140, 140), (250, 196, 150)),
    ),
    Habitat(
        top=(136, 168, 96),
        bottom=(54, 90, 62),
        blobs=((176, 200, 110), (84, 128, 70), (208, 220, 140), (44, 80, 54)),
    ),
    Habitat(
        top=(84, 120, 84), bottom=(34, 58, 50), blobs=((120, 156, 96), (56, 92, 70), (28, 50, 44))
    ),
    Habitat(
        top=(206, 178, 120),
        bottom=(134, 98, 62),
        blobs=((228, 190, 104), (170, 110, 60), (214, 140, 70), (110, 84, 60)),
    ),
    Habitat(
        top=(190, 218, 226),
        bottom=(200, 212, 150),
        blobs=((216, 196, 90), (226, 150, 160), (170, 190, 110), (240, 236, 210)),
        horizon=(148, 172, 92),
    ),
    Habitat(
        top=(216, 222, 220),
        bottom=(206, 186, 130),
        blobs=((196, 170, 104), (226, 206, 150), (150, 140, 90)),
        horizon=(186, 160, 96),
    ),
    Habitat(
        top=(150, 190, 196),
        bottom=(84, 140, 156),
        blobs=((176, 212, 214), (70, 122, 142), (220, 234, 232)),
        streaks=True,
    ),
    Habitat(
        top=(196, 186, 196),
        bottom=(104, 122, 146),
        blobs=((226, 206, 196), (90, 108, 136), (160, 158, 176)),
        streaks=True,
    ),
)
BARK: tuple[Colour, ...] = ((112, 86, 66), (84, 68, 60), (140, 118, 96), (96, 98, 88))
SOIL: tuple[Colour, ...] = ((140, 120, 88), (112, 124, 76), (178, 160, 122), (120, 112, 104))
LEAF: tuple[Colour, ...] = (
    (84, 128, 58),
    (120, 152, 66),
    (58, 98, 60),
    (176, 146, 60),
    (150, 90, 52),
)
_BACKDROP = 80
"""Pixels of the backdrop before it is enlarged: it is out of focus at every size."""


def backdrop(dice: Dice, side: int) -> Image.Image:
    """A blurred habitat, `side` pixels wide and high."""
    habitat = dice.pick(HABITATS)
    place = np.linspace(0, 1, _BACKDROP)[:, None, None]
    rows = (
        (1 - place) * np.asarray(habitat.top) + place * np.asarray(habitat.bottom) + dice.around(14)
    )
    image = Image.fromarray(
        np.broadcast_to(np.rint(rows.clip(0, 255)), (_BACKDROP, _BACKDROP, 3)).astype(np.uint8)
    )
    canvas = Canvas(image, unit=_BACKDROP)
    if habitat.horizon is not None:
        level = dice.uniform(0.5, 0.85)
        canvas.fill(
            np.array(
                [level * 1j - 0.1, 1.1 + (level + dice.around(0.08)) * 1j, 1.1 + 1.1j, -0.1 + 1.1j]
            ),
            habitat.horizon,
        )
    blobs = Canvas(image.copy(), unit=_BACKDROP)
    places, sizes, colours = [], [], []
    for _ in range(dice.integer(9, 22)):
        places.append(complex(dice.uniform(-0.1, 1.1), dice.uniform(-0.1, 1.1)))
        sizes.append(dice.uniform(0.03, 0.16))
        colours.append(dice.pick(habitat.blobs))
    across, down = (3, 0.25) if habitat.streaks else (1, 1)
    radii = np.array(sizes)
    blobs.fill(ellipse(places, radii * across, radii * down), *colours)
    return blurred(Image.blend(image, blobs.image, 0.625), dice.integer(1, 4)).resize(
        (side, side), Image.Resampling.BILINEAR
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Perch:
    """What a bird sits on, and how steep it is."""

    kind: Literal["branch", "wire", "reed", "ground"]
    degrees: float

    @property
    def along(self) -> complex:
        """The direction of the perch as a unit vector."""
        return turn(self.degrees)


def chosen_perch(dice: Dice) -> Perch:
    """A random perch; branches are the most frequent."""
    kind: Literal["branch", "wire", "reed", "ground"] = dice.pick(
        ("branch", "branch", "branch", "wire", "reed", "ground", "ground")
    )
    degrees = {"branch": 16.0, "wire": 6.0, "reed": 12.0, "ground": 0.0}[kind]
    return Perch(kind=kind, degrees=dice.around(degrees) - (62 if kind == "reed" else 0))


def paint_perch(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    """Through `foot`, in fractions of the image."""
    if perch.kind == "ground":
        _ground(canvas, foot, dice)
    elif perch.kind == "wire":
        line = path(
            [
                foot + perch.along * x + (0.008 + 0.03 * x * x) * 1j
                for x in (-1.6, -0.8, 0, 0.8, 1.6)
            ]
        )
        canvas.fill(stroke(line, 0.016), (58, 58, 64))
    elif perch.kind == "reed":
        _reeds(canvas, perch, foot, dice)
    else:
        _branch(canvas, perch, foot, dice)


def _branch(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    bark, thick = dice.pick(BARK), dice.uniform(0.035, 0.065)
    bend = [dice.around(0.03) for _ in range(5)]
    ends = (-1.5, -0.6, 0.0, 0.6, 1.5) if dice.chance(0.6) else (-1.5, -0.6, 0.0, 0.15, 0.34)
    line = path(
        [
            foot + perch.along * (x + (thick / 2 + (b if x else 0)) * 1j)
            for x, b in zip(ends, bend, strict=True)
        ],
        8,
    )
    for _ in range(dice.integer(0, 3)):
        start = complex(dice.pick(line[8:-4].tolist()))
        end = start + perch.along * turn(dice.pick((-1, 1)) * dice.uniform(25, 70)) * dice.uniform(
            0.12, 0.3
        )
        canvas.fill(stroke([start, end], thick * 0.4, thick * 0.15), mixed(bark, DARK, 0.2))
        _leaf(canvas, end, turn(dice.uniform(0, 360)) * dice.uniform(0.08, 0.16), dice)
    canvas.fill(stroke(line, thick * 1.1, thick, thick * 0.75), mixed(bark, DARK, 0.25))
    canvas.fill(stroke(line - 0.1j * thick, thick * 0.8, thick * 0.7, thick * 0.5), bark)
    canvas.fill(
        stroke(line - 0.28j * thick, thick * 0.3, thick * 0.25, thick * 0.15),
        mixed(bark, LIGHT, 0.25),
    )
    for _ in range(dice.integer(2, 6)):
        start = complex(dice.pick(line[4:-4].tolist()))
        canvas.fill(
            stroke([start, start + perch.along * dice.uniform(0.03, 0.09)], 0.008, 0.004),
            mixed(bark, DARK, 0.45),
        )


def _reeds(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    colour = dice.pick(((150, 156, 82), (186, 164, 104), (112, 138, 74)))
    for _ in range(dice.integer(1, 4)):
        root = complex(dice.uniform(0, 1), 1.1)
        line = path(
            [
                root,
                root + complex(dice.around(0.12), -dice.uniform(0.3, 0.7)),
                root + complex(dice.around(0.3), -dice.uniform(0.8, 1.2)),
            ]
        )
        canvas.fill(stroke(line, 0.022, 0.012, 0.003), mixed(colour, DARK, dice.uniform(0, 0.35)))
    sway = dice.around(0.04)
    line = path([foot + perch.along * (x + sway * x * 1j) for x in (-1.4, -0.7, 0, 0.5, 0.9)])
    canvas.fill(stroke(line, 0.034, 0.026, 0.018), mixed(colour, DARK, 0.2))
    canvas.fill(stroke(line - 0.004, 0.018, 0.014, 0.008), mixed(colour, LIGHT, 0.2))
    if dice.chance(0.5):
        head = complex(line[-1])
        canvas.fill(
            blade(head - perch.along * 0.14, head + perch.along * 0.1, 0.07, widest=0.5),
            (104, 72, 50),
        )


def _ground(canvas: Canvas, foot: complex, dice: Dice) -> None:
    soil = dice.pick(SOIL)
    level = foot.imag - 0.015
    top = path(
        [
            complex(x, level + (dice.around(0.02) if abs(x - foot.real) > 0.25 else 0))
            for x in (-0.1, 0.2, 0.5, 0.8, 1.1)
        ]
    )
    canvas.fill(np.concatenate([top, [1.1 + 1.2j, -0.1 + 1.2j]]), soil)
    canvas.fill(np.concatenate([top + 0.06j, [1.1 + 1.2j, -0.1 + 1.2j]]), mixed(soil, DARK, 0.1))
    for _ in range(dice.integer(6, 14)):
        stone = complex(dice.uniform(0, 1), dice.uniform(level + 0.03, 1))
        size = dice.uniform(0.006, 0.022)
        canvas.fill(
            ellipse(stone, size * 1.6, size),
            mixed(soil, dice.pick((DARK, LIGHT)), dice.uniform(0.1, 0.3)),
        )
    canvas.fill(ellipse(foot + 0.012j, 0.2, 0.016), mixed(soil, DARK, 0.35))
    green = dice.pick(LEAF[:4])
    for _ in range(dice.integer(0, 5)):
        _tuft(canvas, complex(dice.uniform(0, 1), level + dice.uniform(0.005, 0.1)), green, dice)


def _tuft(canvas: Canvas, root: complex, green: Colour, dice: Dice) -> None:
    for _ in range(dice.integer(3, 6)):
        tip = root + complex(dice.around(0.07), -dice.uniform(0.05, 0.14))
        canvas.fill(
            stroke(path([root, (root + tip) / 2 + dice.around(0.01), tip], 3), 0.014, 0.010, 0.002),
            mixed(green, DARK, dice.uniform(0, 0.3)),
        )


def _leaf(canvas: Canvas, start: complex, along: complex, dice: Dice) -> None:
    green = dice.pick(LEAF)
    canvas.fill(blade(start, start + along, abs(along) * 0.45, widest=0.45), green)
    canvas.fill(stroke([start, start + along * 0.9], 0.008, 0.003), mixed(green, DARK, 0.3))


def occluded(scene: Image.Image, bird: Box, dice: Dice) -> Image.Image | None:
    """Puts a leaf or twig, out of focus, in front of the bird; returns how opaque it is, or None
    where nothing is in the way."""
    if not dice.chance(NUISANCE.occlusion_fraction):
        return None
    layer = Image.new("RGBA", scene.size, (*dice.pick(LEAF), 0))
    canvas = Canvas(layer, unit=scene.width)
    left, top, width, height = bird
    goal = complex(left + width * dice.uniform(0, 1), top + height * dice.uniform(0.1, 1))
    if dice.chance(0.4):
        away = turn(dice.uniform(-40, 40)) * dice.pick((1j, 1, -1))
        canvas.fill(
            stroke(
                path([goal - away * 0.1, goal + away * 0.5 + dice.around(0.1), goal + away * 1.5]),
                0.02,
                0.035,
                0.05,
            ),
            dice.pick(BARK),
        )
        goal -= away * 0.1
    away = turn(dice.uniform(0, 360))
    for _ in range(dice.integer(1, 2)):
        _leaf(
            canvas,
            goal + away * 0.06,
            away * turn(dice.around(50)) * dice.uniform(0.14, 0.28),
            dice,
        )
    layer = blurred(layer, round(scene.width * 0.004 * dice.uniform(0.5, 2.5)), times=1)
    scene.paste(layer, (0, 0), layer)
    return layer.getchannel("A")
