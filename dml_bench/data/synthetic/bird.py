"""A bird in a pose, and its portrait."""

from itertools import chain

import numpy as np
from PIL import Image, ImageChops

from dml_bench.data.synthetic.families import PLUMAGE, Species, contrast
from dml_bench.data.synthetic.nuisance import NUISANCE
from dml_bench.data.synthetic.rng import Dice
from dml_bench.data.synthetic.shapes import (
    CIRCLE,
    DARK,
    LIGHT,
    Area,
    Bounds,
    Box,
    Canvas,
    Colour,
    Points,
    blade,
    blurred,
    box_of,
    ellipse,
    mixed,
    path,
    smooth,
    stroke,
    turn,
)

__all__ = ["Figure", "Portrait"]


class Figure:
    """A bird in a pose: where everything is, in trunk lengths around the trunk's middle, facing
    right."""

    def __init__(self, bird: Species, dice: Dice, *, most_tilt: float, grip: complex) -> None:
        """`grip` is the direction of what it sits on."""
        body = bird.body
        self.body = body
        tilt = min(body.tilt_degrees + dice.around(NUISANCE.tilt_degrees), most_tilt)
        self._upright = turn(-tilt)
        self._nod = turn(-tilt * 0.15 + dice.around(NUISANCE.nod_degrees))
        self.turned = dice.uniform(0.2, 1) if dice.chance(NUISANCE.turned_head_fraction) else 0.0
        self.looks_back = dice.chance(NUISANCE.looking_back_fraction)
        self._skull = complex(self.trunk(0.36 - 0.35j)[0]) + complex(
            0.09 + body.neck * 0.4, -0.12 - body.neck
        )
        self.outline = self._outline()
        self.tail = self._tail(
            bird.tail_shape, -tilt + body.tail_cock_degrees + dice.around(5), dice.uniform(0.8, 1.3)
        )
        self.hips = self.trunk(-0.06 + 0.78j, 0.07 + 0.80j)
        self.foot = complex(self.hips.mean()) + complex(
            dice.around(0.05), body.depth * 0.16 + body.legs
        )
        self.grip = grip
        self.feet = self.foot - 0.08 * grip, self.foot + 0.06 * grip

    def trunk(self, *points: complex) -> Points:
        """From the trunk's frame: x along its axis in trunk lengths, y across in half
        thicknesses."""
        frame = np.asarray(points, complex)
        return (frame.real + 1j * frame.imag * self.body.depth) * self._upright

    def head(self, *points: complex) -> Points:
        """From the head's frame: unit circle, x towards the bill."""
        frame = np.asarray(points, complex) * self._nod
        return self._skull + self.body.head * (-frame.conj() if self.looks_back else frame)

    def _outline(self) -> Points:
        skull = self._skull + self.body.head * np.exp(
            1j * np.radians([48, 0, -45, -90, -135, -182])
        )
        back = self.trunk(0.10 - 0.98j, -0.16 - 0.92j, -0.42 - 0.55j, -0.56 - 0.25j, -0.56 + 0.15j)
        front = self.trunk(-0.40 + 0.60j, -0.08 + 0.98j, 0.22 + 0.94j, 0.46 + 0.52j, 0.53)
        return smooth(np.concatenate([skull, back, front]))

    def _tail(self, shape: str, degrees: float, spread: float) -> Points:
        """(5, points) feathers, the outer ones first."""
        lengths = {
            "square": (0.97, 0.99, 1),
            "forked": (1.12, 0.9, 0.74),
            "pointed": (0.62, 0.82, 1.08),
            "fan": (0.84, 0.96, 1),
        }[shape]
        fan = {"square": 4.0, "forked": 8.0, "pointed": 5.0, "fan": 13.0}[shape] * spread
        base = complex(self.trunk(-0.44 - 0.08j)[0])
        tips = [
            base - turn(degrees + side * fan) * (self.body.tail_length + 0.08) * lengths[k]
            for k, side in ((0, -2), (0, 2), (1, -1), (1, 1), (2, 0))
        ]
        return blade(base, tips, self.body.tail_width * 0.8, widest=0.8)

    def bill(self) -> tuple[Points, Points]:
        """Upper and lower half; shorter when the head is turned."""
        length = self.body.bill_length * (1 - 0.5 * self.turned)
        depth, droop, base = self.body.bill_depth, self.body.bill_droop, 0.86 - 0.12 * self.turned

        def at(along: float, across: float, bend: float) -> complex:
            return complex(base + along * length, across + bend * droop)

        top, ridge, hook = (
            at(0, -0.30 * depth, 0) - 0.1,
            at(0.45, -0.20 * depth, 0),
            at(0.8, -0.04 * depth, 0.35),
        )
        upper = self.head(
            top, ridge, hook, at(1, 0.04, 1), at(0.5, 0.07, 0.3), at(0, 0.08, 0) - 0.12
        )
        keel, corner = at(0.4, 0.16 * depth + 0.04, 0.2), at(0, 0.28 * depth + 0.04, 0) - 0.1
        lower = self.head(
            at(0, 0.06, 0) - 0.12, at(0.5, 0.05, 0.3), at(0.9, 0.05, 0.7), keel, corner
        )
        return smooth(upper, 4), smooth(lower, 4)

    def crest(self, kind: str) -> list[Points]:
        """The outlines of a crest of this kind."""
        if kind == "peak":
            return [
                smooth(
                    self.head(
                        0.55 - 0.80j,
                        0.1 - 1.35j,
                        -0.55 - 1.85j,
                        -0.55 - 1.2j,
                        -0.98 - 0.35j,
                        -0.2 - 0.4j,
                    ),
                    4,
                )
            ]
        if kind == "swept":
            return [
                smooth(
                    self.head(
                        0.35 - 0.85j,
                        -0.5 - 1.25j,
                        -1.55 - 1.2j,
                        -1.2 - 0.75j,
                        -0.95 - 0.1j,
                        -0.3 - 0.4j,
                    ),
                    4,
                )
            ]
        if kind == "plume":
            ends = self.head(0.75 - 1.75j, 0.30 - 1.95j, -0.2 - 1.9j)
            return list(blade(self.head(0.1 - 0.75j), ends, self.body.head * 0.36, widest=0.78))
        return []

    def extent(self, bird: Species) -> Box:
        """Left, top, right, bottom."""
        points = np.concatenate(
            [
                self.outline,
                *self.tail,
                *self.bill(),
                *self.crest(bird.crest),
                self.feet,
                [self.foot + 0.09j],
            ]
        )
        return (
            float(points.real.min()),
            float(points.imag.min()),
            float(points.real.max()),
            float(points.imag.max()),
        )


class Portrait:
    """Paints one figure on a transparent canvas, part by part from back to front, and notes where
    each part is."""

    def __init__(self, bird: Species, figure: Figure, canvas: Canvas, dice: Dice) -> None:
        self.bird, self.figure, self.canvas = bird, figure, canvas
        self.areas: dict[str, Bounds] = {}
        """Pixel boxes left, top, right, bottom by part."""
        self._gain = dice.around(NUISANCE.plumage_spread)
        self._shift = [dice.around(NUISANCE.plumage_spread / 3) for _ in range(3)]

    def colour(self, name: str) -> Colour:
        """The plumage colour as this individual has it."""
        red, green, blue = (
            min(255, max(0, round(level * (1 + self._gain) + 255 * shift)))
            for level, shift in zip(PLUMAGE[name], self._shift, strict=True)
        )
        return red, green, blue

    def paint(self) -> None:
        """Draw the bird, from what lies behind to what lies in front."""
        self._legs()
        self._tail()
        self._crest()
        self._trunk()
        self._wing()
        self._head()
        self._bill()
        self._eye()

    def _note(self, part: str, box: Bounds | None) -> None:
        """Widens the part's box by another piece of it."""
        if box is None:
            return
        left, top, right, bottom = self.areas.get(part, box)
        self.areas[part] = (
            min(left, box[0]),
            min(top, box[1]),
            max(right, box[2]),
            max(bottom, box[3]),
        )

    def _piece(self, part: str, points: Points, colour: Colour) -> None:
        self._note(part, box_of(self.canvas.fill(points, colour)))

    def _patch(
        self, part: str | None, colour: Colour, *shapes: Points, within: Area, soft: float = 0.02
    ) -> None:
        area = self.canvas.area(*shapes, within=within, soft=soft)
        self.canvas.tint(area, colour)
        if part:
            self._note(part, area.bounds)

    def _legs(self) -> None:
        figure, colour = self.figure, self.colour(self.bird.legs)
        for hip, foot, tone in zip(figure.hips, figure.feet, (0.3, 0.0), strict=True):
            knee = hip + (foot - hip) * 0.5 - 0.045
            self.canvas.fill(
                stroke(path([hip, (hip + knee) / 2]), 0.16, 0.06),
                mixed(self.colour(self.bird.belly), DARK, 0.15 + tone / 2),
            )
            self._piece(
                "legs", stroke(path([hip, knee, foot]), 0.05, 0.04, 0.04), mixed(colour, DARK, tone)
            )

    def toes(self) -> None:
        """Over the perch, after the bird has its light and shadow."""
        grip = self.figure.grip
        toes = [
            (0, grip * reach * 0.6 - 0.01j, grip * reach + drop * 1j)
            for reach, drop in ((0.13, 0.035), (0.10, 0.07), (-0.09, 0.04))
        ]
        lines = np.reshape(self.figure.feet, (2, 1, 1)) + np.array(toes)
        self._piece("legs", stroke(lines, 0.045, 0.04, 0.02), self.colour(self.bird.legs))

    def _tail(self) -> None:
        colour = self.colour(self.bird.tail)
        shafts = stroke(self.figure.tail[:, :12:4], 0.012)
        for k, (feather, shaft) in enumerate(zip(self.figure.tail, shafts, strict=True)):
            outer = self.bird.tail_edge and k < 2
            tone = LIGHT if outer else mixed(colour, DARK, 0.30 - 0.07 * k)
            self._piece("tail", feather, tone)
            self.canvas.fill(shaft, mixed(tone, DARK, 0.25))

    def _crest(self) -> None:
        for shape in self.figure.crest(self.bird.crest):
            self._piece("crest", shape, mixed(self.colour(self.bird.crown), DARK, 0.1))

    def _trunk(self) -> None:
        bird, trunk = self.bird, self.figure.trunk
        self.outline = self.canvas.area(self.figure.outline)
        self.canvas.tint(self.outline, self.colour(bird.back))
        self._note("back", self.outline.bounds)
        under = smooth(
            trunk(
                0.75 - 0.75j,
                0.85 + 0.5j,
                0.3 + 1.5j,
                -0.5 + 1.4j,
                -0.75 + 0.45j,
                -0.30 + 0.25j,
                0.1 + 0.05j,
                0.32 - 0.25j,
            )
        )
        front = smooth(
            trunk(0.75 - 0.75j, 0.85 + 0.6j, 0.30 + 1.4j, 0.02 + 0.95j, 0.02 + 0.2j, 0.30 - 0.30j)
        )
        lower = smooth(
            trunk(
                0.10 + 1.35j,
                0.16 + 0.76j,
                -0.04 + 0.52j,
                -0.25 + 0.42j,
                -0.62 + 0.30j,
                -0.75 + 0.6j,
                -0.4 + 1.4j,
            )
        )
        self._patch("belly", self.colour(bird.breast), under, within=self.outline, soft=0.04)
        self._patch("belly", self.colour(bird.belly), lower, within=self.outline, soft=0.04)
        breast = self.canvas.area(front, within=self.outline, soft=0.02)
        self._note("breast", breast.bounds)
        self._breast_marking(self.canvas.area(under, within=self.outline))

    def _breast_marking(self, under: Area) -> None:
        marks = self._marks(self.bird.breast_marking)
        dark = contrast(self.bird.breast, "Black") > 0.35
        colour = mixed(self.colour("Chestnut"), DARK, 0.6) if dark else self.colour("Cream")
        if marks:
            self._patch(None, colour, *marks, within=under, soft=0)

    def _marks(self, kind: str) -> list[Points]:
        trunk = self.figure.trunk
        rows = np.linspace(-0.2, 0.9, 6)
        grid = (
            np.arange(-0.22, 0.5, 0.115) + 0.055 * (np.arange(6) % 2)[:, None] + 1j * rows[:, None]
        ).ravel()
        if kind == "streaks":
            ends = trunk(*(grid - 0.10j)), trunk(*(grid - 0.03 + 0.16j))
            return list(stroke(np.stack(ends, axis=-1), 0.03, 0.055, 0.02))
        if kind == "spots":
            return list(trunk(*grid)[:, None] + 0.034 * CIRCLE[::2])
        if kind == "bars":
            bar = (-0.3j, 0.05 + 0.1j, 0.05 + 0.5j, -0.02 + 1.1j)
            lines = np.add.outer(np.arange(-0.3, 0.56, 0.105), bar)
            return list(stroke(trunk(*lines.ravel()).reshape(lines.shape), 0.04))
        if kind == "band":
            return [
                stroke(
                    path(trunk(0.14 - 0.1j, 0.27 + 0.22j, 0.33 + 0.55j, 0.33 + 1.1j)),
                    0.12,
                    0.15,
                    0.13,
                )
            ]
        return []

    def _wing(self) -> None:
        trunk, reach, bird = self.figure.trunk, self.figure.body.wing_reach, self.bird
        colour = self.colour(bird.wing)
        pale, dark = mixed(colour, LIGHT, 0.28), mixed(colour, DARK, 0.35)
        tip = complex(-0.68 - reach, 0.02)
        shape = smooth(
            trunk(
                0.31 - 0.22j,
                0.27 + 0.18j,
                0.06 + 0.50j,
                -0.24 + 0.48j,
                -0.5 + 0.26j,
                tip,
                tip + 0.10 - 0.22j,
                -0.24 - 0.62j,
                0.12 - 0.66j,
            )
        )
        self._piece("wing", shape, dark)
        shares = np.linspace(0, 1, 7)
        starts = trunk(*(0.02 - 0.18 * shares + 1j * (0.40 - 0.85 * shares)))[:, None]
        ends = trunk(*((1 - shares) * (-0.30 + 0.44j) + shares * (tip + 0.04 - 0.02j)))[:, None]
        colours = [(pale, mixed(colour, DARK, 0.08 + 0.25 * share)) for share in shares.tolist()]
        self.canvas.fill(blade(starts, ends - (0, 0.01j), (0.13, 0.10)), *chain(*colours))
        self._coverts(
            0.00 + 0.44j,
            -0.26 - 0.50j,
            0.105,
            LIGHT if bird.wing_bars > 0 else pale,
            colour,
            bird.wing_bars > 0,
        )
        if bird.wing_patch:
            self.canvas.fill(
                smooth(trunk(-0.08 + 0.40j, -0.30 + 0.36j, -0.40 + 0.02j, -0.22 - 0.05j)), LIGHT
            )
        self._coverts(
            0.12 + 0.34j,
            -0.10 - 0.56j,
            0.095,
            LIGHT if bird.wing_bars > 1 else pale,
            mixed(colour, LIGHT, 0.06),
            bird.wing_bars > 1,
        )
        self.canvas.fill(
            smooth(
                trunk(
                    0.30 - 0.20j,
                    0.26 + 0.16j,
                    0.12 + 0.30j,
                    -0.02 - 0.1j,
                    -0.06 - 0.55j,
                    0.12 - 0.62j,
                )
            ),
            mixed(colour, LIGHT, 0.04),
        )

    def _coverts(
        self, first: complex, last: complex, size: float, edge: Colour, colour: Colour, bar: bool
    ) -> None:
        """A row of rounded feathers with an edge, which a wing bar makes broad and white."""
        trunk = self.figure.trunk
        centres = trunk(*(first + (last - first) * np.linspace(0, 1, 6)))[:, None]
        feathers = centres - trunk(-1) * (0, 0.055 if bar else 0.02)
        self.canvas.fill(ellipse(feathers, size, (size * 0.9, size * 0.86)), edge, colour)

    def _head(self) -> None:
        bird, head = self.bird, self.figure.head
        skull = ellipse(
            complex(head(0)[0]), self.figure.body.head * 1.05, self.figure.body.head * 1.05
        )
        self._patch(None, self.colour(bird.face), skull, within=self.outline, soft=0.03)
        throat = smooth(
            head(1.2 + 0.15j, 0.72 + 0.24j, 0.30 + 0.42j, 0.05 + 0.75j, 0.25 + 1.12j, 0.9 + 1.1j)
        )
        chin = (
            self.canvas.area(skull, within=self.outline) if self.figure.looks_back else self.outline
        )
        self._patch("throat", self.colour(bird.throat), throat, within=chin)
        if bird.cheek != "none":
            self._patch(
                None,
                self.colour(bird.cheek),
                smooth(
                    head(0.46 + 0.18j, 0.02 - 0.02j, -0.50 + 0.10j, -0.36 + 0.58j, 0.12 + 0.68j)
                ),
                within=self.outline,
            )
        crown = smooth(
            head(
                1.25 - 0.20j,
                0.66 - 0.34j,
                0.15 - 0.44j,
                -0.45 - 0.22j,
                -0.80 + 0.25j,
                -1.5 + 0.2j,
                -1.2 - 1.3j,
                0.2 - 1.7j,
                1.3 - 1.2j,
            )
        )
        self._patch("crown", self.colour(bird.crown), crown, within=self.outline)
        self._eye_marking()

    def _eye_marking(self) -> None:
        head, face = self.figure.head, self.bird.face
        dark = self.colour("Black" if contrast(face, "Black") > 0.2 else "White")
        if self.bird.eye_marking in ("stripe", "mask"):
            width = self.figure.body.head * (0.62 if self.bird.eye_marking == "mask" else 0.24)
            line = path(head(1.0 + 0.04j, 0.35 - 0.14j, -0.25 - 0.06j, -0.85 + 0.18j))
            self._patch(
                None,
                dark,
                stroke(line, width * 0.8, width, width * 0.9, width * 0.3),
                within=self.outline,
            )
        elif self.bird.eye_marking == "brow":
            pale = self.colour("White" if contrast(self.bird.crown, "White") > 0.25 else "Black")
            line = path(head(0.95 - 0.20j, 0.35 - 0.50j, -0.25 - 0.42j, -0.9 - 0.05j))
            self._patch(None, pale, stroke(line, 0.05, 0.07, 0.06, 0.02), within=self.outline)

    def _bill(self) -> None:
        upper, lower = self.figure.bill()
        colour = self.colour(self.bird.bill)
        self._piece("bill", lower, mixed(colour, DARK, 0.28))
        self._piece("bill", upper, colour)
        self.canvas.fill(stroke(path(upper[4:13:4]), 0.02, 0.012), mixed(colour, LIGHT, 0.35))

    def _eye(self) -> None:
        radius = self.figure.body.head
        middle = complex(self.figure.head(0.36 - 0.14 * 1j + 0.10 * self.figure.turned)[0])
        ring = self.colour(self.bird.eye_ring) if self.bird.eye_ring != "none" else None
        size = radius * (0.40 if ring else 0.25)
        self._piece(
            "eye",
            ellipse(middle, size, size),
            ring or mixed(self.colour(self.bird.face), LIGHT, 0.25),
        )
        self.canvas.fill(ellipse(middle, radius * 0.2, radius * 0.2), (26, 20, 20))
        self.canvas.fill(
            ellipse(middle + radius * complex(0.06, -0.07), radius * 0.07, radius * 0.07),
            (255, 255, 255),
        )

    def shade(self) -> None:
        """Roundness: what faces down gets darker and bluish, what faces up a little lighter."""
        image, unit = self.canvas.image, self.canvas.unit
        shape = image.getchannel("A")
        soft = blurred(shape, round(unit * 0.10))
        for lift, tone, scale in ((-0.13, (30, 26, 60), 2.5), (0.10, LIGHT, 4.0)):
            moved = Image.new("L", shape.size)
            moved.paste(soft, (0, round(lift * unit)))
            image.paste((*tone, 255), (0, 0), ImageChops.subtract(shape, moved, scale))
