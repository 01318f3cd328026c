"""The fields of an image in FiftyOne, and what is worth a saved view, without FiftyOne."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.browse.images import ENROLLED, GALLERY, QUERY, BrowseTable
from dml_bench.evaluation.knn_vote import confusions

__all__ = ["NEAR_DUPLICATE", "Label", "columns", "confused"]

NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, slots=True)
class Label:
    """A class, and how sure that is, 0 to 1, where it can be said."""

    name: str
    confidence: float | None = None


def columns(images: BrowseTable, twins: list[tuple[int, int]]) -> dict[str, list[Any]]:
    """By name of the field, a value for each image; None where it has none. `twins` are pairs of
    rows that show the same picture.

    A field that says nothing of any image is left out, but for NEAR_DUPLICATE, for that there are
    none is worth knowing.
    """
    names, rows = images.class_names, range(len(images.paths))
    gallery = "train" if images.run.protocol.gallery_is_trained_on else "gallery"
    shown = {GALLERY: gallery, QUERY: "test", ENROLLED: "enrolled"}
    groups: dict[int, int] = {}
    for query, other in twins:
        groups[query] = groups.setdefault(other, len(set(groups.values())) + 1)
    found: dict[str, list[Any]] = {
        "ground_truth": [Label(names[label]) for label in images.labels.tolist()],
        "class_id": images.labels.tolist(),
        "split": [shown[part] for part in images.part],
        "class_group": np.where(images.unseen, "unseen", "seen").tolist(),
        "class_drop": numbers(images.drop),
        "outcome": [word or None for word in images.outcome],
        NEAR_DUPLICATE: [groups.get(row) for row in rows],
    }
    for phase, answered in images.phases.items():
        predicted, elected = images.predicted(phase).tolist(), answered.elected.tolist()
        found |= {
            f"prediction_{phase}": [
                Label(names[label]) if label >= 0 else None for label in predicted
            ],
            f"correct_{phase}": [
                right if asked else None
                for right, asked in zip(images.right(phase).tolist(), images.asked, strict=True)
            ],
            f"similarity_{phase}": numbers(answered.similarity),
            f"nearest_{phase}": [
                images.paths[row] if row >= 0 else None for row in answered.nearest.tolist()
            ],
            f"vote_{phase}": [
                Label(names[label], share) if label >= 0 else None
                for label, share in zip(elected, answered.share.tolist(), strict=True)
            ],
            f"mistakenness_{phase}": numbers(answered.mistakenness),
        }
    return {
        name: values
        for name, values in found.items()
        if name == NEAR_DUPLICATE or any(value is not None for value in values)
    }


def numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


def confused(images: BrowseTable, phase: str, most: int = 5) -> list[tuple[str, str]]:
    """The classes that are taken for another most often, and for which."""
    return [
        (images.class_names[each.of], images.class_names[each.as_])
        for each in confusions(images.run.neighbours[phase], most)
    ]
