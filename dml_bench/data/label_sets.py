"""Images of several labels: a class is then one combination of labels, and its name lists them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.registry.names import composed

__all__ = ["JOINT", "LIKELY", "LabelSets", "combined", "label_sets_of", "strata"]

JOINT = ";"
"""Stands between the labels in the name of a class."""
LIKELY = 0.5
"""The share of votes, or the probability, from which on an image is said to have a label."""


@dataclass(frozen=True, slots=True)
class LabelSets:
    """The labels of each class."""

    names: tuple[str, ...]
    """(labels) sorted."""
    members: np.ndarray
    """(classes, labels) bool: which labels the images of a class have."""


def combined(labels: Iterable[str]) -> str:
    """The name of the class of these labels, in whatever order and however often they are given;
    empty where there are none."""
    return JOINT.join(sorted({composed(label.strip()) for label in labels} - {""}))


def label_sets_of(class_names: Sequence[str]) -> LabelSets:
    """The labels of classes whose names are `combined`."""
    names: set[str] = set()
    for name in class_names:
        names.update(name.split(JOINT))
    ordered = tuple(sorted(names))
    members = np.zeros((len(class_names), len(ordered)), bool)
    for row, name in enumerate(class_names):
        members[row, [ordered.index(label) for label in name.split(JOINT)]] = True
    return LabelSets(ordered, members)


def strata(labels: np.ndarray, label_sets: LabelSets) -> np.ndarray:
    """(images) class ids -> (images) the rarest label of each, by which images are divided, so that
    rare labels are on both sides. An image that would stand alone goes with the commonest label."""
    of_images = label_sets.members[labels]
    counts = of_images.sum(axis=0)
    rarest = np.where(of_images, counts, len(labels) + 1).argmin(axis=1)
    alone = np.bincount(rarest, minlength=len(counts)) == 1
    return np.where(alone[rarest], counts.argmax(), rarest)
