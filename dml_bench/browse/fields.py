"""The fields of an image in FiftyOne, and the classes for which a view is saved, without
FiftyOne."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from dml_bench.browse.images import ENROLLED, GALLERY, QUERY, BrowseTable
from dml_bench.browse.thumbnails import ThumbnailFolder
from dml_bench.evaluation.knn_vote import confusions

__all__ = [
    "ANSWER_UNSEEN",
    "COARSE",
    "DOUBT",
    "DOUBTFUL",
    "NEAR_DUPLICATE",
    "SESSION",
    "THUMBNAIL",
    "VERDICTS",
    "Label",
    "confused_pairs",
    "field_values",
    "phase_key",
]

NEAR_DUPLICATE, SESSION, DOUBT = "near_duplicate", "session", "doubt"
COARSE, THUMBNAIL = "coarse_class", "thumbnail_path"
ANSWER_UNSEEN = "answer_unseen"
"""The field of the answer by the model that was trained without the image's class."""
DOUBTFUL = 0.5
"""The mistakenness above which the neighbours of an image contradict its label."""
VERDICTS = {"right": "#18794e", "wrong": "#b3261e", "unknown": "#8a5a00", "no query": "#4a5560"}
"""What is said of an answer, and the colour in which white text on it has a contrast of 4.5."""


@dataclass(frozen=True, slots=True)
class Label:
    """A class."""

    name: str
    confidence: float | None = None
    """How sure the class is, 0 to 1; None where that is not known."""
    verdict: str | None = None
    """One of VERDICTS for an answer; None for what is none."""


def field_values(
    table: BrowseTable,
    near_duplicates: list[tuple[int, int]],
    thumbnails: ThumbnailFolder | None = None,
) -> dict[str, list[Any]]:
    """By name of the field, a value for each image; None where it has none. `near_duplicates` are
    pairs of rows that show the same picture.

    A field without any value is left out, except for NEAR_DUPLICATE: it tells that there are none.
    """
    names = table.class_names
    split_names = {GALLERY: table.source.gallery_name, QUERY: "test", ENROLLED: "enrolled"}
    groups: dict[int, int] = {}
    for query, other in near_duplicates:
        groups[query] = groups.setdefault(other, len(set(groups.values())) + 1)
    fields: dict[str, list[Any]] = {
        "ground_truth": [Label(names[label]) for label in table.labels.tolist()],
        "class_id": table.labels.tolist(),
        "split": [split_names[part] for part in table.part],
        "class_group": np.where(table.unseen, "unseen", "seen").tolist(),
        COARSE: [table.source.coarse_classes.get(label) for label in table.labels.tolist()],
        "class_drop": numbers(table.drop),
        "outcome": [outcome or None for outcome in table.outcome],
        NEAR_DUPLICATE: [groups.get(row) for row in range(len(table.paths))],
    }
    if not table.source.neighbours[next(iter(table.phases))].leaves_one_out:
        fields[SESSION] = [number or None for number in table.session.tolist()]
    fields[DOUBT] = doubts(table)
    if thumbnails is not None:
        copies = [thumbnails.path_of(path) for path in table.paths]
        fields[THUMBNAIL] = [str(copy) if copy else None for copy in copies]
    for phase in table.phases:
        fields |= phase_values(table, phase)
    if table.outcome.any():
        without = table.phase_without.tolist()
        fields[ANSWER_UNSEEN] = [
            fields[f"answer_{phase_key(phase)}"][row] for row, phase in enumerate(without)
        ]
    for name, values in list(fields.items()):
        if name != NEAR_DUPLICATE and all(value is None for value in values):
            del fields[name]
    return fields


def phase_key(phase: str) -> str:
    """A phase as part of a field's name, which FiftyOne allows no hyphen."""
    return phase.replace("-", "_")


def phase_values(table: BrowseTable, phase: str) -> dict[str, list[Any]]:
    """The fields of one phase."""
    columns, names, key = table.phases[phase], table.class_names, phase_key(phase)
    predicted, nearest = table.predicted(phase).tolist(), columns.nearest.tolist()
    right, is_query = table.right(phase).tolist(), table.is_query.tolist()
    votes: list[Label | None] = []
    for label, share in zip(columns.elected.tolist(), columns.share.tolist(), strict=True):
        votes.append(Label(names[label], share) if label >= 0 else None)
    return {
        f"answer_{key}": answers(table, phase),
        f"prediction_{key}": [Label(names[id_]) if id_ >= 0 else None for id_ in predicted],
        f"correct_{key}": [
            value if query else None for value, query in zip(right, is_query, strict=True)
        ],
        f"similarity_{key}": numbers(columns.similarity),
        f"nearest_{key}": [table.paths[row] if row >= 0 else None for row in nearest],
        f"vote_{key}": votes,
        f"mistakenness_{key}": numbers(columns.mistakenness),
        f"hubness_{key}": numbers(table.hubness(phase)),
    }


def answers(table: BrowseTable, phase: str) -> list[Label]:
    """What stands on each image: of a mistaken query its class, an arrow, and the class of the
    nearest gallery image. Others have their class alone, after a check mark if it is right."""
    chips = []
    predicted, unknown = table.predicted(phase).tolist(), table.unknown[phase].tolist()
    for label, answer, rejected in zip(table.labels.tolist(), predicted, unknown, strict=True):
        name = short(table.class_names[label])
        if answer < 0:
            chips.append(Label(name, verdict="no query"))
        elif rejected:
            chips.append(Label(f"{name} \N{RIGHTWARDS ARROW} unknown", verdict="unknown"))
        elif answer == label:
            chips.append(Label(f"\N{CHECK MARK} {name}", verdict="right"))
        else:
            taken_for = short(table.class_names[answer])
            chips.append(Label(f"{name} \N{RIGHTWARDS ARROW} {taken_for}", verdict="wrong"))
    return chips


def doubts(table: BrowseTable) -> list[Label | None]:
    """On each image whose neighbours contradict its label, by the first phase: its class, an arrow,
    the class that they elect and how surely."""
    columns = next(iter(table.phases.values()))
    chips: list[Label | None] = [None] * len(table.paths)
    for row in np.flatnonzero(np.nan_to_num(columns.mistakenness) > DOUBTFUL).tolist():
        own = short(table.class_names[int(table.labels[row])])
        elected = short(table.class_names[int(columns.elected[row])])
        share = float(columns.share[row])
        text = f"{own} \N{RIGHTWARDS ARROW} {elected}? {share:.0%}"
        chips[row] = Label(text, share, verdict="unknown")
    return chips


def short(name: str) -> str:
    """A class name without the number before its dot and with spaces, at which a line may break."""
    return re.sub(r"^\d+\.", "", name).replace("_", " ")


def numbers(values: np.ndarray) -> list[float | None]:
    """Plain numbers, with None for nan."""
    return [None if np.isnan(value) else float(value) for value in values]


def confused_pairs(
    table: BrowseTable, phase: str, most: int = 5
) -> dict[tuple[str, str], list[int]]:
    """By class that is taken for another and the other class, the most frequent first: rows of each
    query that is, followed by its nearest image, the most similar pair first."""
    names, columns = table.class_names, table.phases[phase]
    neighbours = table.source.neighbours[phase]
    first_query = int(np.flatnonzero(table.is_query)[0])
    pairs: dict[tuple[str, str], list[int]] = {}
    for pair in confusions(neighbours, most):
        queries = np.array(pair.queries) + first_query
        queries = queries[np.argsort(-columns.similarity[queries], kind="stable")]
        beside = np.stack([queries, columns.nearest[queries]], 1)
        pairs[names[pair.of], names[pair.as_]] = list(dict.fromkeys(beside.ravel().tolist()))
    return pairs
