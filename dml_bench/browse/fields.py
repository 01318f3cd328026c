"""The fields of an image in FiftyOne, and the classes for which a view is saved, without
FiftyOne."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.browse.images import ENROLLED, GALLERY, QUERY, BrowseTable
from dml_bench.evaluation.knn_vote import confusions

__all__ = ["NEAR_DUPLICATE", "Label", "confused_classes", "field_values"]

NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, slots=True)
class Label:
    """A class."""

    name: str
    confidence: float | None = None
    """How sure the class is, 0 to 1; None where that is not known."""


def field_values(
    table: BrowseTable, near_duplicates: list[tuple[int, int]]
) -> dict[str, list[Any]]:
    """By name of the field, a value for each image; None where it has none. `near_duplicates` are
    pairs of rows that show the same picture.

    A field without any value is left out, except for NEAR_DUPLICATE: it tells that there are none.
    """
    names = table.class_names
    gallery = "train" if table.run.protocol.gallery_is_trained_on else "gallery"
    split_names = {GALLERY: gallery, QUERY: "test", ENROLLED: "enrolled"}
    groups: dict[int, int] = {}
    for query, other in near_duplicates:
        groups[query] = groups.setdefault(other, len(set(groups.values())) + 1)
    fields: dict[str, list[Any]] = {
        "ground_truth": [Label(names[label]) for label in table.labels.tolist()],
        "class_id": table.labels.tolist(),
        "split": [split_names[part] for part in table.part],
        "class_group": np.where(table.unseen, "unseen", "seen").tolist(),
        "class_drop": numbers(table.drop),
        "outcome": [outcome or None for outcome in table.outcome],
        NEAR_DUPLICATE: [groups.get(row) for row in range(len(table.paths))],
    }
    for phase in table.phases:
        fields |= phase_values(table, phase)
    for name, values in list(fields.items()):
        if name != NEAR_DUPLICATE and all(value is None for value in values):
            del fields[name]
    return fields


def phase_values(table: BrowseTable, phase: str) -> dict[str, list[Any]]:
    """The fields of one phase."""
    columns, names = table.phases[phase], table.class_names
    predicted, nearest = table.predicted(phase).tolist(), columns.nearest.tolist()
    right, is_query = table.right(phase).tolist(), table.is_query.tolist()
    votes: list[Label | None] = []
    for label, share in zip(columns.elected.tolist(), columns.share.tolist(), strict=True):
        votes.append(Label(names[label], share) if label >= 0 else None)
    return {
        f"prediction_{phase}": [Label(names[id_]) if id_ >= 0 else None for id_ in predicted],
        f"correct_{phase}": [
            value if query else None for value, query in zip(right, is_query, strict=True)
        ],
        f"similarity_{phase}": numbers(columns.similarity),
        f"nearest_{phase}": [table.paths[row] if row >= 0 else None for row in nearest],
        f"vote_{phase}": votes,
        f"mistakenness_{phase}": numbers(columns.mistakenness),
    }


def numbers(values: np.ndarray) -> list[float | None]:
    """Plain numbers, with None for nan."""
    return [None if np.isnan(value) else float(value) for value in values]


def confused_classes(table: BrowseTable, phase: str, most: int = 5) -> list[tuple[str, str]]:
    """The classes that are taken for another most often, and the other class."""
    names = table.class_names
    pairs = confusions(table.run.neighbours[phase], most)
    return [(names[pair.of], names[pair.as_]) for pair in pairs]
