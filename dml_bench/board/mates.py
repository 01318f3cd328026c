"""What is ranked beside a submission, as far as it can be read."""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import numpy as np

from dml_bench.board.submission import Refused, read_answers
from dml_bench.runs import record_format, record_schema
from dml_bench.runs.layout import records_below
from dml_bench.runs.record_schema import Record

__all__ = [
    "Mate",
    "MateAnswers",
    "Tables",
    "answers_of",
    "are_copied",
    "of_files",
    "short_digest",
]

COPIED, COPIED_ERRORS = 0.99, 0.9
"""Shares of all answers, and of those where one of two is wrong, from which one is taken for a copy
of the other: trained rows of a table have at most .96 in common, as other seeds have."""


class Mate(NamedTuple):
    """A submission that can be read."""

    path: Path
    record: Record

    @property
    def name(self) -> str:
        """`EXPERIMENT/seed-42.json`"""
        return f"{self.path.parent.name}/{self.path.name}"


class Tables:
    """What is ranked in one table with a submission: what lies in its folder, and of `paths` what
    lies elsewhere and is of the same images, divided by the same rules."""

    def __init__(self, paths: Sequence[Path] = ()):
        self.elsewhere: dict[Hashable, list[Mate]] = {}
        self.by_folder: dict[str, list[Mate]] = {}
        for mate in of_files([path.absolute() for path in paths]):
            self.elsewhere.setdefault(rules_of(mate.record), []).append(mate)
            self.by_folder.setdefault(str(mate.path.parent).casefold(), []).append(mate)
        self.readable = cache(readable)  # a table of 300 would else be listed 300 times

    def mates(self, own: Mate) -> list[Mate]:
        """The others, those of its folder first."""
        mates = [*self.readable(own.path.parents[1]), *self.elsewhere.get(rules_of(own.record), ())]
        by_path = {mate.path: mate for mate in mates}
        by_path.pop(own.path, None)
        return list(by_path.values())

    def in_other_case(self, own: Mate) -> list[Mate]:
        """Those of folders whose names differ from its own in nothing but upper and lower case."""
        folder = str(own.path.parent).casefold()
        alike = [
            *self.by_folder.get(folder, ()),
            *(mate for mate in self.mates(own) if str(mate.path.parent).casefold() == folder),
        ]
        return [mate for mate in alike if mate.path.parent != own.path.parent]


def rules_of(record: Record) -> Hashable:
    """What the rows of a table have in common."""
    return (
        record.protocol,
        record.profile,
        record.unseen,
        record.dataset.name,
        record.dataset.fingerprint,
        record.split.kind,
    )


def are_copied(codes: np.ndarray, others: np.ndarray) -> bool:
    """Whether one of two is taken for a copy of the other; 0 is a right answer. Two that make no
    error share none."""
    same, wrong = codes == others, (codes != 0) | (others != 0)
    if not wrong.any():
        return False
    return bool(same.mean() >= COPIED and same[wrong].mean() >= COPIED_ERRORS)


@dataclass(frozen=True, slots=True)
class MateAnswers:
    """What was answered, and to what."""

    nearest: np.ndarray
    """What was answered to each query in each phase, 0 where it is right."""
    right: np.ndarray
    """By class and phase, how many are right."""
    gallery: str
    """A digest of how many images of each class it has."""
    queries: str
    """A digest of the class and the coarse class of each query."""
    class_names: dict[int, str]
    """By class id, of the classes of the queries."""

    @property
    def can_be_read(self) -> bool:
        """Whether there are any."""
        return bool(self.class_names)


UNREADABLE = MateAnswers(np.empty(0), np.empty(0), "", "", {})


def answers_of(mate: Mate) -> MateAnswers:
    """Those of a submission; `UNREADABLE` where they can't be read."""
    names = tuple(mate.record.classes.rows)
    return read_answers_once(mate.path, mate.record.answers_sha256, names)


@cache
def read_answers_once(path: Path, answers_sha256: str, names: tuple[str, ...]) -> MateAnswers:
    """`names` are those of the classes, where the JSON has them."""
    # The answers alone are read: of which configuration they are has no part in them.
    rows = {"rows": dict.fromkeys(names)}
    said = {"answers_sha256": answers_sha256, "configuration": {}, "classes": rows}
    try:
        content = read_answers(path, said)
        arrays = content.arrays
        labels = arrays["query_labels"].astype(np.int64)
        phases = sorted(name for name in arrays if name.endswith(".nearest"))
        nearest = [arrays[name].ravel() for name in phases]
        ids, places = np.unique(labels, return_inverse=True)
        right = [np.bincount(places, answers == 0) for answers in nearest]
        class_names = content.facts["class_names"]
        coarse = json.dumps(content.facts.get("coarse_classes", ()))
        counts = np.trim_zeros(arrays["gallery_counts"].astype(np.int64), "b")
        return MateAnswers(
            nearest=np.concatenate(nearest),
            right=np.concatenate(right),
            gallery=short_digest(counts.tobytes()),
            queries=short_digest(labels.tobytes() + coarse.encode()),
            class_names=dict(zip(ids.tolist(), class_names, strict=True)),
        )
    except (KeyError, RecursionError, Refused, TypeError, ValueError):
        return UNREADABLE


def short_digest(data: bytes) -> str:
    """12 digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:12]


def readable(folder: Path) -> list[Mate]:
    """The submissions of a table that can be read; what can't is refused by itself."""
    return of_files(records_below(folder))


def of_files(paths: Sequence[Path]) -> list[Mate]:
    """Those that can be read, and are no links."""
    mates = []
    for path in paths:
        stat = path.lstat()
        if not S_ISREG(stat.st_mode):
            continue
        record = read_once(path, stat.st_mtime_ns, stat.st_size)
        if record is not None:
            mates.append(Mate(path, record))
    return mates


@cache
def read_once(path: Path, modified: int, size: int) -> Record | None:
    """None where it can't be read. A table of 40 files would else be read 40 times."""
    if size > record_schema.LARGEST_BYTES:
        return None
    try:
        record = record_schema.read(record_format.read_description(path))
        return record if record.settings else None
    except (OverflowError, ValueError):
        return None
