"""Where the object and its parts are in an image as the network sees it, for data sets in CUB's
layout that say so."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dml_bench.config import Component
from dml_bench.data.cache import View
from dml_bench.data.datasets.cub import box, numbered
from dml_bench.data.images import size_of
from dml_bench.data.synthetic.families import MEMBERS_PER_FAMILY, Species, species

__all__ = [
    "Annotations",
    "Box",
    "box_in_view",
    "box_mask",
    "distinguishing_parts",
    "read_annotations",
]

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class Annotations:
    """Boxes in pixels of the files, by path relative to the data set's root; empty where the data
    set has none."""

    objects: dict[str, Box] = field(default_factory=dict)
    """The box of the object in each image."""
    parts: dict[str, dict[str, Box]] = field(default_factory=dict)
    """The boxes of visible parts in each image, by name of the part."""


def read_annotations(root: Path) -> Annotations:
    """The boxes in bounding_boxes.txt and parts/part_boxes.txt of a data set in CUB's layout; a
    missing file has none."""
    if not (root / "images.txt").is_file() or not (root / "bounding_boxes.txt").is_file():
        return Annotations()
    paths = {image: f"images/{path}" for image, path in numbered(root / "images.txt", str).items()}
    objects = {}
    for image, numbers in numbered(root / "bounding_boxes.txt", box).items():
        if image in paths:
            objects[paths[image]] = as_box(numbers)
    return Annotations(objects, read_parts(root, paths))


def read_parts(root: Path, paths: dict[int, str]) -> dict[str, dict[str, Box]]:
    """The boxes of parts by path of the image and name of the part."""
    if not (root / "parts" / "part_boxes.txt").is_file():
        return {}
    names = numbered(root / "parts" / "parts.txt", str)
    parts: dict[str, dict[str, Box]] = {}
    for line in (root / "parts" / "part_boxes.txt").read_text(encoding="utf-8").splitlines():
        image, part, *numbers = line.split()
        boxes = parts.setdefault(paths[int(image)], {})
        boxes[names[int(part)]] = as_box(tuple(map(float, numbers)))
    return parts


def as_box(numbers: tuple[float, ...]) -> Box:
    """Four numbers as a box."""
    left, top, width, height = numbers
    return left, top, width, height


def box_in_view(box: Box, view: View, file: Path) -> Box:
    """A box of a file, in pixels of the square that the network sees of it; what lies outside is
    cut off."""
    starts, ends = [], []
    sides = size_of(file)
    for axis, (side, scaled) in enumerate(zip(sides, view.scaled(*sides), strict=True)):
        cut = round((scaled - view.size) / 2) if view.fit == "crop" else 0
        starts.append(box[axis] * scaled / side - cut)
        ends.append(starts[axis] + box[2 + axis] * scaled / side)
    left, top = np.clip(starts, 0, view.size).tolist()
    right, bottom = np.clip(ends, 0, view.size).tolist()
    return left, top, right - left, bottom - top


def box_mask(boxes: list[Box], size: int) -> np.ndarray:
    """(size, size) bool: pixels whose centre is in any of the boxes."""
    centre = np.arange(size) + 0.5
    mask = np.zeros((size, size), bool)
    for left, top, width, height in boxes:
        rows = (centre >= top) & (centre < top + height)
        columns = (centre >= left) & (centre < left + width)
        mask |= rows[:, None] & columns
    return mask


TRAITS = {
    "crown": "crown",
    "throat": "throat",
    "back": "back",
    "breast": "breast",
    "belly": "belly",
    "wing": "wing",
    "bill": "bill",
    "eye_marking": "eye",
    "eye_ring": "eye",
    "breast_marking": "breast",
    "crest": "crest",
    "wing_bars": "wing",
    "wing_patch": "wing",
}
"""The part that shows each trait which a family's members vary; for a cheek there is no box."""
PROPORTIONS = {"bill_length": "bill", "tail_length": "tail"}
"""The part that shows each proportion."""


def distinguishing_parts(dataset: Component) -> dict[int, frozenset[str]]:
    """By class id, the parts of drawn birds that tell a species from all others of its family. The
    ancestor of a family, which has no trait of its own, and data sets of photos are left out."""
    own = dataset.options.get("classes", 0)
    counts = {"demo": own, "demo_unbalanced": own, "cub_shape": 200}
    if dataset.name not in counts:
        return {}
    birds = species(counts[dataset.name], seed=dataset.options["seed"])
    families = -(-len(birds) // MEMBERS_PER_FAMILY)
    parts_of_class = {}
    for label, bird in enumerate(birds):
        family = birds[label % families :: families]
        parts = unique_parts(bird, [other for other in family if other != bird])
        if parts:
            parts_of_class[label] = parts
    return parts_of_class


def unique_parts(bird: Species, siblings: list[Species]) -> frozenset[str]:
    """The parts in which a bird differs from all its siblings; none without siblings."""
    if not siblings:
        return frozenset()
    parts = set()
    for trait, part in TRAITS.items():
        if getattr(bird, trait) not in [getattr(other, trait) for other in siblings]:
            parts.add(part)
    for trait, part in PROPORTIONS.items():
        if getattr(bird.body, trait) not in [getattr(other.body, trait) for other in siblings]:
            parts.add(part)
    return frozenset(parts)
