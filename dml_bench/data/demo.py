"""Fine-grained birds that the package draws itself: the embedded demo data, and the source domain for pretraining.

Species come in families. Members of a family share a body and most of their plumage and differ in one or two traits; an
image varies everything else (pose, place, light, what stands in front). Every pixel follows from (species, index, seed,
size): random bits come straight from PCG64 and each shape is a polygon with whole-number corners.
"""

import hashlib
import json
import os
import re
import shutil
from cmath import rect
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from itertools import product
from math import ceil, radians, sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

__all__ = ["NUISANCE", "PARTS", "Drawing", "Nuisance", "Species", "cub_counts", "draw", "species", "write"]

Domain = Literal["benchmark", "source"]
Item = TypeVar("Item")
Colour = tuple[int, int, int]
Box = tuple[float, float, float, float]
Bounds = tuple[int, int, int, int]
"""Left, top, right, bottom in whole pixels; the last two are outside."""
Points = NDArray[np.complex128]
"""Points of the plane as complex numbers, x to the right and y down: turning is a multiplication, moving an addition."""

PARTS = ("back", "bill", "belly", "breast", "crest", "crown", "eye", "legs", "tail", "throat", "wing")
"""Names of the parts that have a box, in the order of their ids (from 1)."""

MEMBERS_PER_FAMILY = 5
FEW_IMAGES = 200
"""Below this many images `write` draws in its own process: starting others takes longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nuisance:
    """How strongly images of one species vary; every field is a range or a probability, and 0 switches it off."""

    tilt_degrees: float = 8.0
    """Most that the body leans from its family's posture."""
    nod_degrees: float = 10.0
    turned_head_fraction: float = 0.3
    looking_back_fraction: float = 0.05
    size_fraction: tuple[float, float] = (0.72, 0.96)
    """Longer side of the bird as a fraction of the image's."""
    plumage_spread: float = 0.05
    """Most that one individual's colours differ from its species', as a fraction of the full range."""
    light_spread: float = 0.08
    """Most that warm or cold light raises or lowers a channel."""
    dim_fraction: float = 0.12
    occlusion_fraction: float = 0.2
    blur_fraction: float = 0.2
    noise_levels: float = 6.0
    """Largest noise amplitude, in grey levels of 0..255."""


NUISANCE = Nuisance()
"""The strength that `draw` uses. Changing it changes every image, and with them what a model can reach."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Proportions shared by a family, in lengths of the trunk unless said otherwise."""

    depth: float
    """Half the trunk's thickness."""
    tilt_degrees: float
    """How upright it sits."""
    head: float
    """Radius of the head."""
    neck: float
    bill_length: float
    """In head radii, as are the next two."""
    bill_depth: float
    bill_droop: float
    tail_length: float
    tail_width: float
    tail_cock_degrees: float
    legs: float
    wing_reach: float
    """How far the wing tip goes beyond the trunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Species:
    """What all images of one class share. Colours are names of `PLUMAGE`."""

    name: str
    family: int
    body: Body
    crown: str
    face: str
    throat: str
    back: str
    breast: str
    belly: str
    wing: str
    tail: str
    bill: str
    legs: str
    crest: Literal["none", "peak", "swept", "plume"] = "none"
    eye_marking: Literal["none", "stripe", "mask", "brow"] = "none"
    eye_ring: str = "none"
    cheek: str = "none"
    breast_marking: Literal["none", "streaks", "spots", "bars", "band"] = "none"
    wing_bars: int = 0
    wing_patch: bool = False
    tail_shape: Literal["square", "forked", "pointed", "fan"] = "square"
    tail_edge: bool = False
    """Pale outer tail feathers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One image and its ground truth; boxes are x, y, width, height in pixels."""

    image: Image.Image
    """RGB, size x size."""
    box: Box
    """What is visible of the bird."""
    parts: dict[str, Box]
    """The boxes of those `PARTS` that the species has and that can be seen, inside `box`."""


# ---------------------------------------------------------------------------------------------------------------- chance


class Dice:
    """Random numbers that are the same everywhere: NumPy promises a bit generator's raw stream, not what is made of it."""

    def __init__(self, *key: object) -> None:
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        self._raw = np.random.PCG64(int.from_bytes(digest)).random_raw

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * ((int(self._raw()) >> 11) * 2.0**-53)

    def around(self, spread: float) -> float:
        return self.uniform(-spread, spread)

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def whole(self, low: int, high: int) -> int:
        """An integer of low .. high, both included."""
        return low + int(self.uniform(0, 1) * (high - low + 1))

    def pick(self, options: Sequence[Item]) -> Item:
        return options[self.whole(0, len(options) - 1)]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        keys = [self.uniform(0, 1) for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]

    def bytes(self, count: int) -> NDArray[np.uint8]:
        return np.asarray(self._raw(ceil(count / 8)), dtype="<u8").view(np.uint8)[:count]


# --------------------------------------------------------------------------------------------------------------- species

PLUMAGE: dict[str, Colour] = {
    "Black": (38, 36, 42),
    "Slate": (88, 100, 118),
    "Gray": (156, 160, 164),
    "White": (244, 243, 238),
    "Cream": (240, 226, 190),
    "Buff": (216, 182, 132),
    "Yellow": (246, 208, 52),
    "Orange": (238, 136, 40),
    "Rufous": (182, 88, 44),
    "Chestnut": (120, 54, 38),
    "Brown": (126, 96, 70),
    "Olive": (132, 134, 62),
    "Green": (74, 146, 76),
    "Teal": (32, 138, 140),
    "Azure": (84, 164, 222),
    "Blue": (42, 84, 172),
    "Violet": (112, 76, 152),
    "Rose": (228, 126, 142),
    "Scarlet": (208, 44, 42),
    "Ivory": (232, 214, 168),
}
PALE = ("White", "Cream", "Buff", "Yellow", "Gray")
EARTHY = ("Black", "Slate", "Gray", "Brown", "Olive", "Chestnut", "Rufous", "Buff")
VIVID = ("Yellow", "Orange", "Rufous", "Green", "Teal", "Azure", "Blue", "Violet", "Rose", "Scarlet")
BILLS = ("Black", "Slate", "Orange", "Yellow", "Ivory", "Scarlet")
LEGS = ("Black", "Brown", "Orange", "Rose", "Slate")
AREAS = {"crown": "crowned", "throat": "throated", "back": "backed", "breast": "breasted", "belly": "bellied", "wing": "winged"}
"""The larger areas of colour, and what a bird is called for them."""
REGIONS = ("", "Mountain_", "Reed_", "Wood_", "River_", "Island_", "Desert_", "Marsh_", "Cloud_", "Coast_", "Heath_", "Garden_")

PLANS: dict[Domain, dict[tuple[str, ...], tuple[float, ...]]] = {
    "benchmark": {
        ("Finch", "Bunting", "Grosbeak"): (0.34, 24, 0.25, 0.02, 0.75, 1.30, 0.05, 0.52, 0.15, 0, 0.24, 0.02),
        ("Warbler", "Wagtail", "Vireo"): (0.29, 18, 0.22, 0.02, 0.75, 0.55, 0.02, 0.56, 0.12, 4, 0.28, 0.06),
        ("Jay", "Nutcracker", "Cuckoo"): (0.31, 28, 0.24, 0.06, 1.05, 0.85, 0.10, 0.82, 0.16, -4, 0.28, 0.00),
        ("Swallow", "Martin", "Swift"): (0.27, 30, 0.22, -0.02, 0.45, 0.50, 0.04, 0.60, 0.12, -3, 0.12, 0.32),
        ("Thrush", "Robin", "Redstart"): (0.35, 34, 0.24, 0.03, 0.95, 0.60, 0.04, 0.54, 0.15, 2, 0.36, 0.04),
        ("Kingfisher", "Halcyon", "Motmot"): (0.35, 44, 0.29, 0.02, 2.00, 0.95, 0.02, 0.36, 0.12, -4, 0.12, 0.00),
        ("Wren", "Babbler", "Gnatcatcher"): (0.39, 8, 0.26, 0.00, 0.95, 0.42, 0.12, 0.44, 0.13, 52, 0.30, -0.06),
        ("Tit", "Chickadee", "Nuthatch"): (0.40, 20, 0.29, -0.02, 0.55, 0.62, 0.00, 0.44, 0.12, 2, 0.20, 0.00),
    },
    "source": {
        ("Sandpiper", "Plover", "Godwit"): (0.31, 12, 0.20, 0.10, 2.20, 0.45, 0.06, 0.28, 0.12, 0, 0.66, 0.12),
        ("Parakeet", "Lorikeet", "Parrot"): (0.31, 46, 0.27, 0.02, 0.62, 1.50, 0.55, 0.90, 0.12, -6, 0.14, 0.06),
        ("Woodpecker", "Flicker", "Sapsucker"): (0.27, 58, 0.23, 0.06, 1.45, 0.75, 0.00, 0.46, 0.11, -12, 0.12, 0.04),
        ("Starling", "Mynah", "Oriole"): (0.31, 34, 0.22, 0.05, 1.25, 0.62, 0.00, 0.36, 0.13, -2, 0.34, 0.10),
        ("Quail", "Partridge", "Tinamou"): (0.45, 14, 0.21, 0.08, 0.55, 0.80, 0.25, 0.22, 0.14, -10, 0.30, -0.10),
        ("Magpie", "Treepie", "Drongo"): (0.30, 26, 0.22, 0.05, 0.95, 0.85, 0.12, 1.15, 0.15, 4, 0.36, 0.00),
        ("Honeyeater", "Sunbird", "Hummingbird"): (0.26, 36, 0.21, 0.04, 1.90, 0.32, 0.60, 0.40, 0.11, 0, 0.14, 0.10),
        ("Dove", "Pigeon", "Turtledove"): (0.38, 20, 0.19, 0.07, 0.75, 0.55, 0.12, 0.58, 0.16, -2, 0.20, 0.06),
    },
}
"""Body plans by the genera that have them; no plan and no genus is in both domains."""


def contrast(one: str, other: str) -> float:
    """How different two plumage colours look, 0 .. 1."""
    red, green, blue = (a - b for a, b in zip(PLUMAGE[one], PLUMAGE[other], strict=True))
    return sqrt(0.3 * red**2 + 0.5 * green**2 + 0.2 * blue**2) / 255


def species(count: int, *, seed: int, domain: Domain = "benchmark") -> tuple[Species, ...]:
    """`count` different species; species i is of family i % families, so that first and last ids share families.

    Raises ValueError if `count` is not positive or `domain` is unknown.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least one species is wanted")
    if domain not in PLANS:
        raise ValueError(f"domain is {domain!r}; choose one of {', '.join(map(repr, PLANS))}")
    num_families = ceil(count / MEMBERS_PER_FAMILY)
    ancestors: list[Species] = []
    families = []
    for family in range(num_families):
        dice = Dice("family", domain, seed, family)
        ancestors.append(_ancestor(dice, family, _genus(dice, domain, family), ancestors))
        families.append(_members(dice, ancestors[-1]))
    return tuple(families[i % num_families][i // num_families] for i in range(count))


def _genus(dice: Dice, domain: Domain, family: int) -> tuple[str, Body]:
    """The family's name, unlike every other's, and its proportions."""
    plans = list(PLANS[domain].items())
    genera, mean = plans[family % len(plans)]
    again = family // len(plans)
    region = REGIONS[again // len(genera) % len(REGIONS)]
    era = again // (len(genera) * len(REGIONS))
    proportions = dict(zip(Body.__dataclass_fields__, mean, strict=True))
    for field in ("depth", "head", "bill_length", "bill_depth", "tail_length", "legs"):
        proportions[field] *= dice.uniform(0.88, 1.12)
    return region + genera[again % len(genera)] + (f"_{era + 1}" if era else ""), Body(**proportions)


def _ancestor(dice: Dice, family: int, genus: tuple[str, Body], others: Sequence[Species]) -> Species:
    """The plumage that a family's members vary, unlike that of the families before it."""
    for _ in range(200):
        bird = _plumage(dice, family, *genus)
        if all(_unlike(bird, other) for other in others):
            return bird
    raise ValueError(f"only {family} families have colours of their own; ask for at most {family * MEMBERS_PER_FAMILY} species")


def _plumage(dice: Dice, family: int, genus: str, body: Body) -> Species:
    back = dice.pick(VIVID if dice.chance(0.45) else EARTHY)
    breast = dice.pick([c for c in (VIVID if dice.chance(0.55) else PALE) if contrast(c, back) > 0.18])
    belly = dice.pick([c for c in PALE if contrast(c, breast) > 0.1]) if dice.chance(0.6) else breast
    crown = back if dice.chance(0.4) else dice.pick([c for c in EARTHY + VIVID if contrast(c, back) > 0.2])
    wing = dice.pick([c for c in ("Black", "Slate", "Brown", "Gray", "Olive", "Blue") if contrast(c, back) > 0.1])
    return Species(
        name=genus,
        family=family,
        body=body,
        crown=crown,
        face=dice.pick((back, breast, crown, "White")),
        throat=dice.pick((breast, breast, "White", "Black")),
        back=back,
        breast=breast,
        belly=belly,
        wing=wing,
        tail=dice.pick((wing, back)),
        bill=dice.pick(BILLS),
        legs=dice.pick(LEGS),
        crest=dice.pick(("none", "none", "none", "peak", "swept", "plume")),
        eye_marking=dice.pick(("none", "none", "stripe", "mask", "brow")),
        breast_marking=dice.pick(("none", "none", "streaks", "spots", "bars", "band")),
        wing_bars=dice.pick((0, 0, 1, 2)),
        tail_shape=dice.pick(("square", "forked", "pointed", "fan")),
        tail_edge=dice.chance(0.25),
    )


def _unlike(one: Species, other: Species) -> bool:
    """Whether two families could not be taken for each other: at least two areas differ."""
    return sum(contrast(getattr(one, area), getattr(other, area)) > 0.15 for area in AREAS) >= 2


def _members(dice: Dice, ancestor: Species) -> list[Species]:
    """The family in random order: the ancestor, and others that each changed two traits of their own, the first of them a colour."""
    changes = _changes(dice, ancestor)
    colours, marks = dice.shuffled(changes[: len(AREAS)]), dice.shuffled(changes[len(AREAS) :])
    members = [replace(ancestor, name=f"{ancestor.breast}_breasted_{ancestor.name}")]
    for (colour, colour_change), (mark, mark_change) in zip(colours[: MEMBERS_PER_FAMILY - 1], marks, strict=False):
        members.append(replace(ancestor, name=f"{colour}_{mark.lower()}_{ancestor.name}", **colour_change, **mark_change))
    return dice.shuffled(members)


def _changes(dice: Dice, bird: Species) -> list[tuple[str, dict[str, Any]]]:
    """For every trait that can change visibly, one change and the epithet that a bird gets for it."""
    changes: list[tuple[str, dict[str, Any]]] = []
    for area, epithet in AREAS.items():
        other = dice.pick([c for c in (*VIVID, *EARTHY, "White") if contrast(c, getattr(bird, area)) > 0.22])
        changes.append((f"{other}_{epithet}", {area: other}))
    if bird.eye_marking != "mask":
        changes.append(("Masked", {"eye_marking": "mask"}))
    if bird.eye_marking == "none":
        changes.append(("Browed", {"eye_marking": "brow"}))
    if bird.breast_marking == "none":
        marking, epithet = dice.pick((("streaks", "Streaked"), ("spots", "Spotted"), ("bars", "Barred"), ("band", "Collared")))
        changes.append((epithet, {"breast_marking": marking}))
    else:
        changes.append(("Plain", {"breast_marking": "none"}))
    if bird.crest == "none":
        changes.append(("Crested", {"crest": dice.pick(("peak", "swept", "plume"))}))
    else:
        changes.append(("Smooth_headed", {"crest": "none"}))
    changes.append(("Bar_winged", {"wing_bars": 2}) if bird.wing_bars == 0 else ("Plain_winged", {"wing_bars": 0}))
    if not bird.wing_patch:
        changes.append(("Mirror_winged", {"wing_patch": True}))
    cheek = dice.pick([c for c in ("White", "Orange", "Yellow", "Scarlet", "Black") if contrast(c, bird.face) > 0.25])
    changes.append((f"{cheek}_cheeked", {"cheek": cheek}))
    ring = dice.pick([c for c in ("White", "Yellow", "Scarlet") if contrast(c, bird.face) > 0.25])
    changes.append(("Spectacled", {"eye_ring": ring}))
    if bird.body.bill_length > 0.7:
        bill = dice.pick([c for c in BILLS if contrast(c, bird.bill) > 0.3])
        changes.append((f"{bill}_billed", {"bill": bill}))
    changes.append(("Long_billed", {"body": replace(bird.body, bill_length=bird.body.bill_length * 1.6)}))
    changes.append(("Long_tailed", {"body": replace(bird.body, tail_length=bird.body.tail_length * 1.6)}))
    return changes


# ---------------------------------------------------------------------------------------------------------------- shapes


def turn(degrees: float) -> complex:
    """The factor that turns points clockwise on the screen."""
    return rect(1, radians(degrees))


def _spline_weights(steps: int) -> NDArray[np.float64]:
    """(steps, 4) weights of four neighbouring corners in a Catmull-Rom spline between the middle two."""
    t = np.arange(steps) / steps
    return 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], axis=1)


@cache
def _closed_spline(corners: int, steps: int) -> NDArray[np.float64]:
    """(corners * steps, corners) matrix from corners to points of the curve."""
    spline = np.zeros((corners, steps, corners))
    for corner, neighbour in product(range(corners), range(4)):
        spline[corner, :, (corner + neighbour - 1) % corners] += _spline_weights(steps)[:, neighbour]
    return spline.reshape(-1, corners)


@cache
def _open_spline(corners: int, steps: int) -> NDArray[np.float64]:
    """((corners - 1) * steps + 1, corners) matrix; the end corners count twice."""
    spline = np.zeros((corners - 1, steps, corners))
    for corner, neighbour in product(range(corners - 1), range(4)):
        spline[corner, :, min(max(corner + neighbour - 1, 0), corners - 1)] += _spline_weights(steps)[:, neighbour]
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
    """The outline of a pen along `line`, its width changing evenly from the first to the last of `widths`."""
    centre = np.asarray(line, complex)
    steps = centre[1:] - centre[:-1]
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    shares = _pen_widths(len(centre), tuple(round(width / widths[0], 3) for width in widths))
    side = 0.5j * widths[0] * shares * along / (np.abs(along) + 1e-9)
    return np.concatenate([centre + side, (centre - side)[::-1]])


_CIRCLE = np.exp(2j * np.pi * np.arange(18) / 18)


def ellipse(centre: complex, width: float, height: float, degrees: float = 0) -> Points:
    """`width` and `height` are half axes."""
    outline: Points = centre + turn(degrees) * (_CIRCLE.real * width + 1j * _CIRCLE.imag * height)
    return outline


def blade(start: complex, end: complex, width: float, *, widest: float = 0.65) -> Points:
    """A feather or leaf from `start` to a rounded `end`; `widest` says where along it, `width` how wide."""
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
    """A soft-edged piece of an image: how much of each pixel is in it (0..255), and where its corner lies."""

    mask: Image.Image
    left: int
    top: int

    @property
    def bounds(self) -> Bounds | None:
        """What it really covers; None if nothing."""
        inner = self.mask.getbbox()
        return inner and (inner[0] + self.left, inner[1] + self.top, inner[2] + self.left, inner[3] + self.top)


class Canvas:
    """An image with a coordinate system of its own: `unit` pixels per length, `origin` in pixels, maybe mirrored."""

    def __init__(self, image: Image.Image, *, unit: float, origin: complex = 0, mirrored: bool = False) -> None:
        self.image = image
        self.unit = unit
        self._scale = np.array((-unit if mirrored else unit, unit))
        self._origin = np.array((origin.real, origin.imag))
        self._pen = ImageDraw.Draw(image)

    def corners(self, points: Points) -> NDArray[np.float64]:
        """(points, 2) pixels: whole numbers, so that a last bit that differs between machines can't reach the image."""
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
        low, size = ((within.left, within.top), within.mask.size) if within else ((0, 0), self.image.size)
        left, top = (max(int(first) - radius, edge) for first, edge in zip(corners.min(axis=0), low, strict=True))
        right, bottom = (
            min(int(last) + radius + 1, edge + length) for last, edge, length in zip(corners.max(axis=0), low, size, strict=True)
        )
        mask = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
        pen = ImageDraw.Draw(mask)
        for outline in np.split(corners - (left, top), np.cumsum([len(shape) for shape in shapes[:-1]])):
            pen.polygon(outline.ravel().tolist(), fill=255)
        mask = blurred(mask, radius, times=1)
        if within:
            place = left - within.left, top - within.top
            mask = ImageChops.multiply(mask, within.mask.crop((*place, place[0] + mask.width, place[1] + mask.height)))
        return Area(mask=mask, left=left, top=top)

    def tint(self, area: Area, colour: Colour) -> None:
        opaque = (*colour, 255) if self.image.mode == "RGBA" else colour
        self.image.paste(opaque, (area.left, area.top, area.left + area.mask.width, area.top + area.mask.height), area.mask)


def blurred(image: Image.Image, radius: int, *, times: int = 2) -> Image.Image:
    """Box blurs of a whole number of pixels: integer arithmetic throughout, unlike Pillow's Gaussian."""
    if radius:
        for _ in range(times):
            image = image.filter(ImageFilter.BoxBlur(radius))
    return image


# ------------------------------------------------------------------------------------------------------------------ pose


class Figure:
    """A bird in a pose: where everything is, in trunk lengths around the trunk's middle, facing right."""

    def __init__(self, bird: Species, dice: Dice, *, most_tilt: float, grip: complex) -> None:
        """`grip` is the direction of what it sits on."""
        body = bird.body
        self.body = body
        tilt = min(body.tilt_degrees + dice.around(NUISANCE.tilt_degrees), most_tilt)
        self._upright = turn(-tilt)
        self._nod = turn(-tilt * 0.15 + dice.around(NUISANCE.nod_degrees))
        self.turned = dice.uniform(0.2, 1) if dice.chance(NUISANCE.turned_head_fraction) else 0.0
        self.looks_back = dice.chance(NUISANCE.looking_back_fraction)
        self._skull = complex(self.trunk(0.36 - 0.35j)[0]) + complex(0.09 + body.neck * 0.4, -0.12 - body.neck)
        self.outline = self._outline()
        self.tail = self._tail(bird.tail_shape, -tilt + body.tail_cock_degrees + dice.around(5), dice.uniform(0.8, 1.3))
        self.hips = self.trunk(-0.06 + 0.78j, 0.07 + 0.80j)
        self.foot = complex(self.hips.mean()) + complex(dice.around(0.05), body.depth * 0.16 + body.legs)
        self.grip = grip
        self.feet = self.foot - 0.08 * grip, self.foot + 0.06 * grip

    def trunk(self, *points: complex) -> Points:
        """From the trunk's frame: x along its axis in trunk lengths, y across in half thicknesses."""
        frame = np.asarray(points, complex)
        return (frame.real + 1j * frame.imag * self.body.depth) * self._upright

    def head(self, *points: complex) -> Points:
        """From the head's frame: unit circle, x towards the bill."""
        frame = np.asarray(points, complex) * self._nod
        return self._skull + self.body.head * (-frame.conj() if self.looks_back else frame)

    def _outline(self) -> Points:
        skull = self._skull + self.body.head * np.exp(1j * np.radians([48, 0, -45, -90, -135, -182]))
        back = self.trunk(0.10 - 0.98j, -0.16 - 0.92j, -0.42 - 0.55j, -0.56 - 0.25j, -0.56 + 0.15j)
        front = self.trunk(-0.40 + 0.60j, -0.08 + 0.98j, 0.22 + 0.94j, 0.46 + 0.52j, 0.53)
        return smooth(np.concatenate([skull, back, front]))

    def _tail(self, shape: str, degrees: float, spread: float) -> list[Points]:
        """Five feathers, the outer ones first."""
        lengths = {"square": (0.97, 0.99, 1), "forked": (1.12, 0.9, 0.74), "pointed": (0.62, 0.82, 1.08), "fan": (0.84, 0.96, 1)}[shape]
        fan = {"square": 4.0, "forked": 8.0, "pointed": 5.0, "fan": 13.0}[shape] * spread
        base = complex(self.trunk(-0.44 - 0.08j)[0])
        feathers = []
        for k, side in ((0, -2), (0, 2), (1, -1), (1, 1), (2, 0)):
            tip = base - turn(degrees + side * fan) * (self.body.tail_length + 0.08) * lengths[k]
            feathers.append(blade(base, tip, self.body.tail_width * 0.8, widest=0.8))
        return feathers

    def bill(self) -> tuple[Points, Points]:
        """Upper and lower half; shorter when the head is turned."""
        length = self.body.bill_length * (1 - 0.5 * self.turned)
        depth, droop, base = self.body.bill_depth, self.body.bill_droop, 0.86 - 0.12 * self.turned

        def at(along: float, across: float, bend: float) -> complex:
            return complex(base + along * length, across + bend * droop)

        top, ridge, hook = at(0, -0.30 * depth, 0) - 0.1, at(0.45, -0.20 * depth, 0), at(0.8, -0.04 * depth, 0.35)
        upper = self.head(top, ridge, hook, at(1, 0.04, 1), at(0.5, 0.07, 0.3), at(0, 0.08, 0) - 0.12)
        keel, corner = at(0.4, 0.16 * depth + 0.04, 0.2), at(0, 0.28 * depth + 0.04, 0) - 0.1
        lower = self.head(at(0, 0.06, 0) - 0.12, at(0.5, 0.05, 0.3), at(0.9, 0.05, 0.7), keel, corner)
        return smooth(upper, 4), smooth(lower, 4)

    def crest(self, kind: str) -> list[Points]:
        if kind == "peak":
            return [smooth(self.head(0.55 - 0.80j, 0.1 - 1.35j, -0.55 - 1.85j, -0.55 - 1.2j, -0.98 - 0.35j, -0.2 - 0.4j), 4)]
        if kind == "swept":
            return [smooth(self.head(0.35 - 0.85j, -0.5 - 1.25j, -1.55 - 1.2j, -1.2 - 0.75j, -0.95 - 0.1j, -0.3 - 0.4j), 4)]
        if kind == "plume":
            ends = self.head(0.75 - 1.75j, 0.30 - 1.95j, -0.2 - 1.9j)
            return [blade(complex(self.head(0.1 - 0.75j)[0]), complex(end), self.body.head * 0.36, widest=0.78) for end in ends]
        return []

    def extent(self, bird: Species) -> Box:
        """Left, top, right, bottom."""
        points = np.concatenate([self.outline, *self.tail, *self.bill(), *self.crest(bird.crest), self.feet, [self.foot + 0.09j]])
        return float(points.real.min()), float(points.imag.min()), float(points.real.max()), float(points.imag.max())


# --------------------------------------------------------------------------------------------------------------- plumage


class Portrait:
    """Paints one figure on a transparent canvas, part by part from back to front, and notes where each part is."""

    def __init__(self, bird: Species, figure: Figure, canvas: Canvas, dice: Dice) -> None:
        self.bird, self.figure, self.canvas = bird, figure, canvas
        self.areas: dict[str, Bounds] = {}
        """Pixel boxes left, top, right, bottom by part."""
        self._gain = dice.around(NUISANCE.plumage_spread)
        self._shift = [dice.around(NUISANCE.plumage_spread / 3) for _ in range(3)]

    def colour(self, name: str) -> Colour:
        """The plumage colour as this individual has it."""
        red, green, blue = (
            min(255, max(0, round(level * (1 + self._gain) + 255 * shift))) for level, shift in zip(PLUMAGE[name], self._shift, strict=True)
        )
        return red, green, blue

    def paint(self) -> None:
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
        self.areas[part] = min(left, box[0]), min(top, box[1]), max(right, box[2]), max(bottom, box[3])

    def _piece(self, part: str, points: Points, colour: Colour) -> None:
        corners = self.canvas.fill(points, colour)
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        self._note(part, (int(left), int(top), int(right) + 1, int(bottom) + 1))

    def _patch(self, part: str | None, colour: Colour, *shapes: Points, within: Area, soft: float = 0.02) -> None:
        area = self.canvas.area(*shapes, within=within, soft=soft)
        self.canvas.tint(area, colour)
        if part:
            self._note(part, area.bounds)

    def _legs(self) -> None:
        figure, colour = self.figure, self.colour(self.bird.legs)
        for hip, foot, tone in zip(figure.hips, figure.feet, (0.3, 0.0), strict=True):
            knee = hip + (foot - hip) * 0.5 - 0.045
            self.canvas.fill(stroke(path([hip, (hip + knee) / 2]), 0.16, 0.06), mixed(self.colour(self.bird.belly), DARK, 0.15 + tone / 2))
            self._piece("legs", stroke(path([hip, knee, foot]), 0.05, 0.04, 0.04), mixed(colour, DARK, tone))

    def toes(self) -> None:
        """Over the perch, after the bird has its light and shadow."""
        for foot in self.figure.feet:
            for reach, drop in ((0.13, 0.035), (0.10, 0.07), (-0.09, 0.04)):
                middle, end = self.figure.grip * reach * 0.6 - 0.01j, self.figure.grip * reach + drop * 1j
                self._piece("legs", stroke([foot, foot + middle, foot + end], 0.045, 0.04, 0.02), self.colour(self.bird.legs))

    def _tail(self) -> None:
        colour = self.colour(self.bird.tail)
        for k, feather in enumerate(self.figure.tail):
            outer = self.bird.tail_edge and k < 2
            tone = LIGHT if outer else mixed(colour, DARK, 0.30 - 0.07 * k)
            self._piece("tail", feather, tone)
            self.canvas.fill(stroke(feather[:12:4], 0.012), mixed(tone, DARK, 0.25))

    def _crest(self) -> None:
        for shape in self.figure.crest(self.bird.crest):
            self._piece("crest", shape, mixed(self.colour(self.bird.crown), DARK, 0.1))

    def _trunk(self) -> None:
        bird, trunk = self.bird, self.figure.trunk
        self.outline = self.canvas.area(self.figure.outline)
        self._patch("back", self.colour(bird.back), self.figure.outline, within=self.outline, soft=0)
        under = smooth(trunk(0.75 - 0.75j, 0.85 + 0.5j, 0.3 + 1.5j, -0.5 + 1.4j, -0.75 + 0.45j, -0.30 + 0.25j, 0.1 + 0.05j, 0.32 - 0.25j))
        front = smooth(trunk(0.75 - 0.75j, 0.85 + 0.6j, 0.30 + 1.4j, 0.02 + 0.95j, 0.02 + 0.2j, 0.30 - 0.30j))
        lower = smooth(trunk(0.10 + 1.35j, 0.16 + 0.76j, -0.04 + 0.52j, -0.25 + 0.42j, -0.62 + 0.30j, -0.75 + 0.6j, -0.4 + 1.4j))
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
        grid = (np.arange(-0.22, 0.5, 0.115) + 0.055 * (np.arange(6) % 2)[:, None] + 1j * rows[:, None]).ravel()
        if kind == "streaks":
            return [stroke(line, 0.03, 0.055, 0.02) for line in zip(trunk(*(grid - 0.10j)), trunk(*(grid - 0.03 + 0.16j)), strict=True)]
        if kind == "spots":
            return list(trunk(*grid)[:, None] + 0.034 * _CIRCLE[::2])
        if kind == "bars":
            bars = np.arange(-0.3, 0.56, 0.105)
            return [stroke(trunk(x - 0.3j, x + 0.05 + 0.1j, x + 0.05 + 0.5j, x - 0.02 + 1.1j), 0.04) for x in bars]
        if kind == "band":
            return [stroke(path(trunk(0.14 - 0.1j, 0.27 + 0.22j, 0.33 + 0.55j, 0.33 + 1.1j)), 0.12, 0.15, 0.13)]
        return []

    def _wing(self) -> None:
        trunk, reach, bird = self.figure.trunk, self.figure.body.wing_reach, self.bird
        colour = self.colour(bird.wing)
        pale, dark = mixed(colour, LIGHT, 0.28), mixed(colour, DARK, 0.35)
        tip = complex(-0.68 - reach, 0.02)
        shape = smooth(
            trunk(
                0.31 - 0.22j, 0.27 + 0.18j, 0.06 + 0.50j, -0.24 + 0.48j, -0.5 + 0.26j, tip, tip + 0.10 - 0.22j, -0.24 - 0.62j, 0.12 - 0.66j
            )
        )
        self._piece("wing", shape, dark)
        for share in np.linspace(0, 1, 7):
            start = trunk(complex(0.02 - 0.18 * share, 0.40 - 0.85 * share))[0]
            end = trunk((1 - share) * (-0.30 + 0.44j) + share * (tip + 0.04 - 0.02j))[0]
            self.canvas.fill(blade(complex(start), complex(end), 0.13), pale)
            self.canvas.fill(blade(complex(start), complex(end) - 0.01j, 0.10), mixed(colour, DARK, 0.08 + 0.25 * share))
        self._coverts(0.00 + 0.44j, -0.26 - 0.50j, 0.105, LIGHT if bird.wing_bars > 0 else pale, colour, bird.wing_bars > 0)
        if bird.wing_patch:
            self.canvas.fill(smooth(trunk(-0.08 + 0.40j, -0.30 + 0.36j, -0.40 + 0.02j, -0.22 - 0.05j)), LIGHT)
        self._coverts(
            0.12 + 0.34j, -0.10 - 0.56j, 0.095, LIGHT if bird.wing_bars > 1 else pale, mixed(colour, LIGHT, 0.06), bird.wing_bars > 1
        )
        self.canvas.fill(
            smooth(trunk(0.30 - 0.20j, 0.26 + 0.16j, 0.12 + 0.30j, -0.02 - 0.1j, -0.06 - 0.55j, 0.12 - 0.62j)), mixed(colour, LIGHT, 0.04)
        )

    def _coverts(self, first: complex, last: complex, size: float, edge: Colour, colour: Colour, bar: bool) -> None:
        """A row of rounded feathers with an edge, which a wing bar makes broad and white."""
        for share in np.linspace(0, 1, 6):
            centre = complex(self.figure.trunk(first + (last - first) * share)[0])
            backwards = complex(self.figure.trunk(-1)[0])
            self.canvas.fill(ellipse(centre, size, size * 0.9), edge)
            self.canvas.fill(ellipse(centre - backwards * (0.055 if bar else 0.02), size, size * 0.86), colour)

    def _head(self) -> None:
        bird, head = self.bird, self.figure.head
        skull = ellipse(complex(head(0)[0]), self.figure.body.head * 1.05, self.figure.body.head * 1.05)
        self._patch(None, self.colour(bird.face), skull, within=self.outline, soft=0.03)
        throat = smooth(head(1.2 + 0.15j, 0.72 + 0.24j, 0.30 + 0.42j, 0.05 + 0.75j, 0.25 + 1.12j, 0.9 + 1.1j))
        chin = self.canvas.area(skull, within=self.outline) if self.figure.looks_back else self.outline
        self._patch("throat", self.colour(bird.throat), throat, within=chin)
        if bird.cheek != "none":
            self._patch(
                None,
                self.colour(bird.cheek),
                smooth(head(0.46 + 0.18j, 0.02 - 0.02j, -0.50 + 0.10j, -0.36 + 0.58j, 0.12 + 0.68j)),
                within=self.outline,
            )
        crown = smooth(
            head(1.25 - 0.20j, 0.66 - 0.34j, 0.15 - 0.44j, -0.45 - 0.22j, -0.80 + 0.25j, -1.5 + 0.2j, -1.2 - 1.3j, 0.2 - 1.7j, 1.3 - 1.2j)
        )
        self._patch("crown", self.colour(bird.crown), crown, within=self.outline)
        self._eye_marking()

    def _eye_marking(self) -> None:
        head, face = self.figure.head, self.bird.face
        dark = self.colour("Black" if contrast(face, "Black") > 0.2 else "White")
        if self.bird.eye_marking in ("stripe", "mask"):
            width = self.figure.body.head * (0.62 if self.bird.eye_marking == "mask" else 0.24)
            line = path(head(1.0 + 0.04j, 0.35 - 0.14j, -0.25 - 0.06j, -0.85 + 0.18j))
            self._patch(None, dark, stroke(line, width * 0.8, width, width * 0.9, width * 0.3), within=self.outline)
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
        self._piece("eye", ellipse(middle, size, size), ring or mixed(self.colour(self.bird.face), LIGHT, 0.25))
        self.canvas.fill(ellipse(middle, radius * 0.2, radius * 0.2), (26, 20, 20))
        self.canvas.fill(ellipse(middle + radius * complex(0.06, -0.07), radius * 0.07, radius * 0.07), (255, 255, 255))

    def shade(self) -> None:
        """Roundness: what faces down gets darker and bluish, what faces up a little lighter."""
        image, unit = self.canvas.image, self.canvas.unit
        shape = image.getchannel("A")
        soft = blurred(shape, round(unit * 0.10))
        for lift, tone, scale in ((-0.13, (30, 26, 60), 2.5), (0.10, LIGHT, 4.0)):
            moved = Image.new("L", shape.size)
            moved.paste(soft, (0, round(lift * unit)))
            image.paste((*tone, 255), (0, 0), ImageChops.subtract(shape, moved, scale))


# ----------------------------------------------------------------------------------------------------------------- scene


@dataclass(frozen=True, kw_only=True, slots=True)
class Habitat:
    """The colours of a background: two ends of a vertical gradient, and the out-of-focus things in front of it."""

    top: Colour
    bottom: Colour
    blobs: tuple[Colour, ...]
    streaks: bool = False
    horizon: Colour | None = None
    """What the lower part is made of, where there is one."""


HABITATS = (
    Habitat(top=(132, 182, 224), bottom=(222, 236, 242), blobs=((250, 250, 250), (206, 226, 240), (236, 242, 246))),
    Habitat(top=(206, 212, 214), bottom=(176, 190, 192), blobs=((226, 228, 226), (160, 176, 172))),
    Habitat(top=(250, 214, 176), bottom=(226, 160, 138), blobs=((255, 236, 200), (206, 140, 140), (250, 196, 150))),
    Habitat(top=(136, 168, 96), bottom=(54, 90, 62), blobs=((176, 200, 110), (84, 128, 70), (208, 220, 140), (44, 80, 54))),
    Habitat(top=(84, 120, 84), bottom=(34, 58, 50), blobs=((120, 156, 96), (56, 92, 70), (28, 50, 44))),
    Habitat(top=(206, 178, 120), bottom=(134, 98, 62), blobs=((228, 190, 104), (170, 110, 60), (214, 140, 70), (110, 84, 60))),
    Habitat(
        top=(190, 218, 226),
        bottom=(200, 212, 150),
        blobs=((216, 196, 90), (226, 150, 160), (170, 190, 110), (240, 236, 210)),
        horizon=(148, 172, 92),
    ),
    Habitat(top=(216, 222, 220), bottom=(206, 186, 130), blobs=((196, 170, 104), (226, 206, 150), (150, 140, 90)), horizon=(186, 160, 96)),
    Habitat(top=(150, 190, 196), bottom=(84, 140, 156), blobs=((176, 212, 214), (70, 122, 142), (220, 234, 232)), streaks=True),
    Habitat(top=(196, 186, 196), bottom=(104, 122, 146), blobs=((226, 206, 196), (90, 108, 136), (160, 158, 176)), streaks=True),
)
BARK: tuple[Colour, ...] = ((112, 86, 66), (84, 68, 60), (140, 118, 96), (96, 98, 88))
SOIL: tuple[Colour, ...] = ((140, 120, 88), (112, 124, 76), (178, 160, 122), (120, 112, 104))
LEAF: tuple[Colour, ...] = ((84, 128, 58), (120, 152, 66), (58, 98, 60), (176, 146, 60), (150, 90, 52))
_BACKDROP = 80
"""Pixels of the backdrop before it is enlarged: it is out of focus at every size."""


def _backdrop(dice: Dice, side: int) -> Image.Image:
    habitat = dice.pick(HABITATS)
    place = np.linspace(0, 1, _BACKDROP)[:, None, None]
    rows = (1 - place) * np.asarray(habitat.top) + place * np.asarray(habitat.bottom) + dice.around(14)
    image = Image.fromarray(np.broadcast_to(np.rint(rows.clip(0, 255)), (_BACKDROP, _BACKDROP, 3)).astype(np.uint8))
    canvas = Canvas(image, unit=_BACKDROP)
    if habitat.horizon is not None:
        level = dice.uniform(0.5, 0.85)
        canvas.fill(np.array([level * 1j - 0.1, 1.1 + (level + dice.around(0.08)) * 1j, 1.1 + 1.1j, -0.1 + 1.1j]), habitat.horizon)
    blobs = Canvas(image.copy(), unit=_BACKDROP)
    for _ in range(dice.whole(9, 22)):
        centre, size = complex(dice.uniform(-0.1, 1.1), dice.uniform(-0.1, 1.1)), dice.uniform(0.03, 0.16)
        shape = ellipse(centre, size * 3, size * 0.25) if habitat.streaks else ellipse(centre, size, size)
        blobs.fill(shape, dice.pick(habitat.blobs))
    return blurred(Image.blend(image, blobs.image, 0.625), dice.whole(1, 4)).resize((side, side), Image.Resampling.BILINEAR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Perch:
    kind: Literal["branch", "wire", "reed", "ground"]
    degrees: float

    @property
    def along(self) -> complex:
        return turn(self.degrees)


def _chosen_perch(dice: Dice) -> Perch:
    kind: Literal["branch", "wire", "reed", "ground"] = dice.pick(("branch", "branch", "branch", "wire", "reed", "ground", "ground"))
    degrees = {"branch": 16.0, "wire": 6.0, "reed": 12.0, "ground": 0.0}[kind]
    return Perch(kind=kind, degrees=dice.around(degrees) - (62 if kind == "reed" else 0))


def _paint_perch(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    """Through `foot`, in fractions of the image."""
    if perch.kind == "ground":
        _ground(canvas, foot, dice)
    elif perch.kind == "wire":
        line = path([foot + perch.along * x + (0.008 + 0.03 * x * x) * 1j for x in (-1.6, -0.8, 0, 0.8, 1.6)])
        canvas.fill(stroke(line, 0.016), (58, 58, 64))
    elif perch.kind == "reed":
        _reeds(canvas, perch, foot, dice)
    else:
        _branch(canvas, perch, foot, dice)


def _branch(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    bark, thick = dice.pick(BARK), dice.uniform(0.035, 0.065)
    bend = [dice.around(0.03) for _ in range(5)]
    ends = (-1.5, -0.6, 0.0, 0.6, 1.5) if dice.chance(0.6) else (-1.5, -0.6, 0.0, 0.15, 0.34)
    line = path([foot + perch.along * (x + (thick / 2 + (b if x else 0)) * 1j) for x, b in zip(ends, bend, strict=True)], 8)
    for _ in range(dice.whole(0, 3)):
        start = complex(dice.pick(line[8:-4].tolist()))
        end = start + perch.along * turn(dice.pick((-1, 1)) * dice.uniform(25, 70)) * dice.uniform(0.12, 0.3)
        canvas.fill(stroke([start, end], thick * 0.4, thick * 0.15), mixed(bark, DARK, 0.2))
        _leaf(canvas, end, turn(dice.uniform(0, 360)) * dice.uniform(0.08, 0.16), dice)
    canvas.fill(stroke(line, thick * 1.1, thick, thick * 0.75), mixed(bark, DARK, 0.25))
    canvas.fill(stroke(line - 0.1j * thick, thick * 0.8, thick * 0.7, thick * 0.5), bark)
    canvas.fill(stroke(line - 0.28j * thick, thick * 0.3, thick * 0.25, thick * 0.15), mixed(bark, LIGHT, 0.25))
    for _ in range(dice.whole(2, 6)):
        start = complex(dice.pick(line[4:-4].tolist()))
        canvas.fill(stroke([start, start + perch.along * dice.uniform(0.03, 0.09)], 0.008, 0.004), mixed(bark, DARK, 0.45))


def _reeds(canvas: Canvas, perch: Perch, foot: complex, dice: Dice) -> None:
    colour = dice.pick(((150, 156, 82), (186, 164, 104), (112, 138, 74)))
    for _ in range(dice.whole(1, 4)):
        root = complex(dice.uniform(0, 1), 1.1)
        line = path(
            [root, root + complex(dice.around(0.12), -dice.uniform(0.3, 0.7)), root + complex(dice.around(0.3), -dice.uniform(0.8, 1.2))]
        )
        canvas.fill(stroke(line, 0.022, 0.012, 0.003), mixed(colour, DARK, dice.uniform(0, 0.35)))
    sway = dice.around(0.04)
    line = path([foot + perch.along * (x + sway * x * 1j) for x in (-1.4, -0.7, 0, 0.5, 0.9)])
    canvas.fill(stroke(line, 0.034, 0.026, 0.018), mixed(colour, DARK, 0.2))
    canvas.fill(stroke(line - 0.004, 0.018, 0.014, 0.008), mixed(colour, LIGHT, 0.2))
    if dice.chance(0.5):
        head = complex(line[-1])
        canvas.fill(blade(head - perch.along * 0.14, head + perch.along * 0.1, 0.07, widest=0.5), (104, 72, 50))


def _ground(canvas: Canvas, foot: complex, dice: Dice) -> None:
    soil = dice.pick(SOIL)
    level = foot.imag - 0.015
    top = path([complex(x, level + (dice.around(0.02) if abs(x - foot.real) > 0.25 else 0)) for x in (-0.1, 0.2, 0.5, 0.8, 1.1)])
    canvas.fill(np.concatenate([top, [1.1 + 1.2j, -0.1 + 1.2j]]), soil)
    canvas.fill(np.concatenate([top + 0.06j, [1.1 + 1.2j, -0.1 + 1.2j]]), mixed(soil, DARK, 0.1))
    for _ in range(dice.whole(6, 14)):
        stone = complex(dice.uniform(0, 1), dice.uniform(level + 0.03, 1))
        size = dice.uniform(0.006, 0.022)
        canvas.fill(ellipse(stone, size * 1.6, size), mixed(soil, dice.pick((DARK, LIGHT)), dice.uniform(0.1, 0.3)))
    canvas.fill(ellipse(foot + 0.012j, 0.2, 0.016), mixed(soil, DARK, 0.35))
    green = dice.pick(LEAF[:4])
    for _ in range(dice.whole(0, 5)):
        _tuft(canvas, complex(dice.uniform(0, 1), level + dice.uniform(0.005, 0.1)), green, dice)


def _tuft(canvas: Canvas, root: complex, green: Colour, dice: Dice) -> None:
    for _ in range(dice.whole(3, 6)):
        tip = root + complex(dice.around(0.07), -dice.uniform(0.05, 0.14))
        canvas.fill(
            stroke(path([root, (root + tip) / 2 + dice.around(0.01), tip], 3), 0.014, 0.010, 0.002),
            mixed(green, DARK, dice.uniform(0, 0.3)),
        )


def _leaf(canvas: Canvas, start: complex, along: complex, dice: Dice) -> None:
    green = dice.pick(LEAF)
    canvas.fill(blade(start, start + along, abs(along) * 0.45, widest=0.45), green)
    canvas.fill(stroke([start, start + along * 0.9], 0.008, 0.003), mixed(green, DARK, 0.3))


def _occluded(scene: Image.Image, bird: Box, dice: Dice) -> Image.Image | None:
    """Puts a leaf or twig, out of focus, in front of the bird; returns how opaque it is, or None where nothing is in the way."""
    if not dice.chance(NUISANCE.occlusion_fraction):
        return None
    layer = Image.new("RGBA", scene.size, (*dice.pick(LEAF), 0))
    canvas = Canvas(layer, unit=scene.width)
    left, top, width, height = bird
    goal = complex(left + width * dice.uniform(0, 1), top + height * dice.uniform(0.1, 1))
    if dice.chance(0.4):
        away = turn(dice.uniform(-40, 40)) * dice.pick((1j, 1, -1))
        canvas.fill(
            stroke(path([goal - away * 0.1, goal + away * 0.5 + dice.around(0.1), goal + away * 1.5]), 0.02, 0.035, 0.05), dice.pick(BARK)
        )
        goal -= away * 0.1
    away = turn(dice.uniform(0, 360))
    for _ in range(dice.whole(1, 2)):
        _leaf(canvas, goal + away * 0.06, away * turn(dice.around(50)) * dice.uniform(0.14, 0.28), dice)
    layer = blurred(layer, round(scene.width * 0.004 * dice.uniform(0.5, 2.5)), times=1)
    scene.paste(layer, (0, 0), layer)
    return layer.getchannel("A")


# --------------------------------------------------------------------------------------------------------------- drawing


def draw(bird: Species, *, index: int, seed: int, size: int) -> Drawing:
    """Image `index` of a species: the same scene at every size, the same pixels on every machine.

    Raises ValueError if `size` is under 16.
    """
    if size < 16:
        raise ValueError(f"size is {size}; a bird needs at least 16 pixels")
    dice = Dice("drawing", seed, bird.name, index)
    fine = 3 if size <= 160 else 2
    side = size * fine
    perch = _chosen_perch(dice)
    mirrored = dice.chance(0.5)
    grip = -perch.along.conjugate() if mirrored else perch.along
    figure = Figure(bird, dice, most_tilt=20 if perch.kind == "ground" else 75, grip=grip)
    place = _placed(figure.extent(bird), mirrored, dice)
    scene = _backdrop(dice, side)
    _paint_perch(Canvas(scene, unit=side), perch, place.of(figure.foot), dice)
    left, top, right, bottom = bounds = place.bounds(side)
    layer = Image.new("RGBA", (right - left, bottom - top))
    canvas = Canvas(layer, unit=place.unit * side, origin=place.origin * side - complex(left, top), mirrored=mirrored)
    portrait = Portrait(bird, figure, canvas, dice)
    portrait.paint()
    portrait.shade()
    portrait.toes()
    scene.paste(layer, (left, top), layer)
    visible = _behind(_occluded(scene, place.box, dice), layer, bounds)
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
        return max(0, round(left) - 3), max(0, round(top) - 3), min(side, round(left + width) + 3), min(side, round(top + height) + 3)


def _placed(extent: Box, mirrored: bool, dice: Dice) -> Place:
    """Somewhere inside the image."""
    left, top, right, bottom = extent
    if mirrored:
        left, right = -right, -left
    width, height = right - left, bottom - top
    unit = dice.uniform(*NUISANCE.size_fraction) / max(width, height)
    x, y = (0.015 + dice.uniform(0, 1) * (0.97 - unit * length) for length in (width, height))
    return Place(origin=complex(x - left * unit, y - top * unit), unit=unit, mirrored=mirrored, box=(x, y, width * unit, height * unit))


def _behind(occluder: Image.Image | None, layer: Image.Image, bounds: Bounds) -> Image.Image:
    """What of the bird's layer can be seen behind the occluder's opacity."""
    visible = layer.getchannel("A")
    return visible if occluder is None else ImageChops.subtract(visible, occluder.crop(bounds).point(_HIDES))


_HIDES = [0] * 160 + [255] * 96


def _boxes(visible: Image.Image, areas: dict[str, Bounds], corner: tuple[int, int], fine: int) -> tuple[Box, dict[str, Box]]:
    """The visible bird's box and those of its visible parts, in pixels of the finished image."""
    whole = visible.getbbox()
    assert whole is not None, "nothing covers a whole bird"

    def finished(left: int, top: int, right: int, bottom: int) -> Box:
        return (left + corner[0]) / fine, (top + corner[1]) / fine, (right - left) / fine, (bottom - top) / fine

    parts = {}
    for part in PARTS:
        if part in areas:
            left, top, right, bottom = areas[part]
            inside = max(left, whole[0]), max(top, whole[1]), min(right, whole[2]), min(bottom, whole[3])
            if inside[0] < inside[2] and inside[1] < inside[3] and visible.crop(inside).getbbox():
                parts[part] = finished(*inside)
    return finished(*whole), parts


def _exposed(scene: Image.Image, fine: int, dice: Dice) -> Image.Image:
    """The scene in its light, through a lens and on a noisy sensor, at the final size."""
    if dice.chance(NUISANCE.blur_fraction):
        scene = blurred(scene, round(scene.width * dice.uniform(0.003, 0.010)), times=1)
    small = np.asarray(scene.reduce(fine))
    warmth = dice.around(NUISANCE.light_spread)
    level = dice.uniform(0.6, 0.8) if dice.chance(NUISANCE.dim_fraction) else dice.uniform(0.92, 1.08)
    lit = np.rint(small * (level * np.array([1 + warmth, 1 + warmth / 5, 1 - warmth]))).astype(np.int32)
    amplitude = round(dice.uniform(0, NUISANCE.noise_levels) * 16)
    bits = dice.bytes(2 * small.size).reshape(2, *small.shape).astype(np.int32)
    return Image.fromarray((lit + ((bits[0] - bits[1]) * amplitude >> 12)).clip(0, 255).astype(np.uint8))


# --------------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    bird: Species
    index: int
    seed: int
    size: int
    file: Path


def _drawn(task: _Task) -> tuple[Box, dict[str, Box]]:
    drawing = draw(task.bird, index=task.index, seed=task.seed, size=task.size)
    drawing.image.save(task.file, quality=92)
    return drawing.box, drawing.parts


def write(
    root: Path,
    *,
    counts: Sequence[int],
    size: int,
    seed: int,
    domain: Domain = "benchmark",
    class_names: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draws a data set in CUB-200-2011's layout at `root`, with `counts[i]` images of class i, and returns `root`.

    Besides CUB's files there is `parts/part_boxes.txt` ("image part x y width height"): where each visible part is.
    `class_names` replaces the species' own; "001." is put before names that have no number. The folder appears only when
    it is complete. Raises FileExistsError if `root` exists, ValueError if names and counts don't match.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists already; remove it or choose another folder")
    birds = species(len(counts), seed=seed, domain=domain)
    names = [_numbered(i, name) for i, name in enumerate(class_names or [bird.name for bird in birds])]
    if len(names) != len(counts) or len(set(names)) != len(names):
        raise ValueError(f"{len(set(names))} different class names for {len(counts)} classes; one for each is wanted")
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.parent / f".{root.name}.{os.getpid()}.partial"
    try:
        files = [f"{name}/{name.split('.', 1)[1]}_{k + 1:04d}.jpg" for name, count in zip(names, counts, strict=True) for k in range(count)]
        for name in names:
            (partial / "images" / name).mkdir(parents=True)
        pairs = [(bird, k) for bird, count in zip(birds, counts, strict=True) for k in range(count)]
        tasks = [
            _Task(bird=bird, index=k, seed=seed, size=size, file=partial / "images" / file)
            for (bird, k), file in zip(pairs, files, strict=True)
        ]
        truth = []
        with closing(_all_drawn(tasks)) as drawings:
            for found in drawings:
                truth.append(found)
                if progress:
                    progress(1)
        _write_tables(partial, names, counts, files, truth)
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return root


def _numbered(position: int, name: str) -> str:
    return name if re.match(r"\d{3,}\.", name) else f"{position + 1:03d}.{name}"


def _all_drawn(tasks: Sequence[_Task]) -> Generator[tuple[Box, dict[str, Box]], None, None]:
    """In the order of `tasks`."""
    if len(tasks) < FEW_IMAGES or (os.cpu_count() or 1) == 1:
        yield from map(_drawn, tasks)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        yield from pool.map(_drawn, tasks, chunksize=16)


def _write_tables(
    root: Path, names: Sequence[str], counts: Sequence[int], files: Sequence[str], truth: Sequence[tuple[Box, dict[str, Box]]]
) -> None:
    labels = [label for label, count in enumerate(counts, 1) for _ in range(count)]
    part_boxes = [
        f"{image} {PARTS.index(part) + 1} {_written(box)}" for image, (_, parts) in enumerate(truth, 1) for part, box in parts.items()
    ]
    tables = {
        "images.txt": [f"{i} {file}" for i, file in enumerate(files, 1)],
        "classes.txt": [f"{i} {name}" for i, name in enumerate(names, 1)],
        "image_class_labels.txt": [f"{i} {label}" for i, label in enumerate(labels, 1)],
        "bounding_boxes.txt": [f"{i} {_written(box)}" for i, (box, _) in enumerate(truth, 1)],
        "parts/parts.txt": [f"{i} {part}" for i, part in enumerate(PARTS, 1)],
        "parts/part_boxes.txt": part_boxes,
    }
    (root / "parts").mkdir()
    for name, lines in tables.items():
        (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _written(box: Box) -> str:
    return " ".join(f"{value:.3f}" for value in box)


def cub_counts() -> dict[str, int]:
    """CUB-200-2011's 200 class names ("001.Black_footed_Albatross") and how many images each has, in id order."""
    counts: dict[str, int] = json.loads(resources.files("dml_bench.data").joinpath("cub_counts.json").read_text("utf-8"))
    return counts
