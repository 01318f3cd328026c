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

__all__ = ["Annotations", "Box", "inside", "read_annotations", "seen", "telling_parts"]

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class Annotations:
    """Boxes in pixels of the files, by path relative to the data set's root; empty where the data
    set has none."""

    objects: dict[str, Box] = field(default_factory=dict)
    parts: dict[str, dict[str, Box]] = field(default_factory=dict)
    """By path, then by name of the part; only parts that can be seen."""


def read_annotations(root: Path) -> Annotations:
    """bounding_boxes.txt and parts/part_boxes.txt of a data set in CUB's layout; what is not there
    is left out."""
    if not (root / "images.txt").is_file() or not (root / "bounding_boxes.txt").is_file():
        return Annotations()
    paths = {image: f"images/{path}" for image, path in numbered(root / "images.txt", str).items()}
    objects = {
        paths[image]: as_box(found)
        for image, found in numbered(root / "bounding_boxes.txt", box).items()
        if image in paths
    }
    return Annotations(objects, read_parts(root, paths))


def read_parts(root: Path, paths: dict[int, str]) -> dict[str, dict[str, Box]]:
    if not (root / "parts" / "part_boxes.txt").is_file():
        return {}
    names = numbered(root / "parts" / "parts.txt", str)
    parts: dict[str, dict[str, Box]] = {}
    for line in (root / "parts" / "part_boxes.txt").read_text(encoding="utf-8").splitlines():
        image, part, *numbers = line.split()
        parts.setdefault(paths[int(image)], {})[names[int(part)]] = as_box(
            tuple(map(float, numbers))
        )
    return parts


def as_box(numbers: tuple[float, ...]) -> Box:
    left, top, width, height = numbers
    return left, top, width, height


def seen(found: Box, view: View, file: Path) -> Box:
    """A box of a file, in pixels of the square that the network sees of it; what lies outside is
    cut off."""
    width, height = size_of(file)
    scaled = view.scaled(width, height)
    cut = tuple(round((side - view.size) / 2) if view.fit == "crop" else 0 for side in scaled)
    starts = [found[axis] * scaled[axis] / (width, height)[axis] - cut[axis] for axis in (0, 1)]
    ends = [
        start + found[2 + axis] * scaled[axis] / (width, height)[axis]
        for axis, start in enumerate(starts)
    ]
    (left, top), (right, bottom) = (
        np.clip(starts, 0, view.size).tolist(),
        np.clip(ends, 0, view.size).tolist(),
    )
    return left, top, right - left, bottom - top


def inside(boxes: list[Box], size: int) -> np.ndarray:
    """(size, size) bool: pixels whose centre is in any of the boxes."""
    at = np.arange(size) + 0.5
    mask = np.zeros((size, size), bool)
    for left, top, width, height in boxes:
        mask |= ((at >= top) & (at < top + height))[:, None] & ((at >= left) & (at < left + width))
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


def telling_parts(dataset: Component) -> dict[int, frozenset[str]]:
    """By class id, the parts of drawn birds in which a species is unlike all others of its family.
    The ancestor of a family has no trait of its own, and is left out, as is everything of data sets
    that are not drawn."""
    counts = {"demo": dataset.options.get("classes", 0), "cub_shape": 200}
    if dataset.name not in counts:
        return {}
    birds = species(counts[dataset.name], seed=dataset.options["seed"])
    families = -(-len(birds) // MEMBERS_PER_FAMILY)
    return {
        label: parts
        for label, bird in enumerate(birds)
        if (
            parts := own_parts(
                bird,
                [
                    other
                    for i, other in enumerate(birds)
                    if i % families == label % families and other != bird
                ],
            )
        )
    }


def own_parts(bird: Species, siblings: list[Species]) -> frozenset[str]:
    def alone(get: str, within: str = "") -> bool:
        value, *others = (
            getattr(getattr(one, within) if within else one, get) for one in (bird, *siblings)
        )
        return bool(others) and value not in others

    return frozenset(
        [part for trait, part in TRAITS.items() if alone(trait)]
        + [part for trait, part in PROPORTIONS.items() if alone(trait, "body")]
    )
