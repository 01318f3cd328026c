"""What all vector stores share: the record of whose vectors they hold, and what a search finds."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np

from dml_bench.gallery.store import Gallery, GalleryImage

__all__ = [
    "SMALL_BATCH",
    "Hit",
    "Hits",
    "StoreRecord",
    "VectorStore",
    "batches_of",
    "columns",
    "require_package",
]

FORMAT = "1"
TABLE = "gallery"
"""The name of the table or collection."""
BATCH = 65_536
"""The number of images that are written at a time."""
SMALL_BATCH = 2048
"""The same where a store takes images one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreRecord:
    """Whose vectors a store holds, and the similarities from which on they are answers."""

    format: str = FORMAT
    embedder: str
    """The digest of all that makes an image a vector."""
    experiment: str
    seed: int
    phase: str
    dataset: str
    """The name of the data set that the run was trained on."""
    images: int
    """The number of vectors."""
    gallery: str = ""
    """The digest of the vectors and their classes; empty in stores of earlier versions."""
    dim: int
    """The number of their dimensions, of float32. They have unit length: an inner product is a
    cosine."""
    thresholds: list[dict[str, Any]]
    """By precision and share of photos of other classes, the threshold that keeps the precision;
    null where none does."""
    approximate: dict[str, Any] = field(default_factory=dict)
    """The store's own index, and the share of queries to which it gives another class; empty where
    every search is exact."""
    dml_bench: str

    def as_json(self) -> str:
        """The record as the store keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes | None, place: str) -> "StoreRecord":
        """Raises ValueError where `dml-bench export` did not write it."""
        try:
            values = json.loads(text or "")
            record = cls(**values)
        except (TypeError, ValueError):
            record = None
        if record is None or record.format != FORMAT:
            raise ValueError(
                f"{place} has no record of a gallery in format {FORMAT}: write it with `dml-bench"
                " export --to`"
            )
        return record


@dataclass(frozen=True, slots=True)
class Hits:
    """What a search of a store finds, the nearest first; equally near ones in gallery order."""

    rows: np.ndarray
    """(query, k) int64 rows of the gallery that was exported."""
    similarities: np.ndarray
    """(query, k) float32 cosines."""
    images: Mapping[int, GalleryImage]
    """The images in these rows."""


Hit: TypeAlias = tuple[int, float, GalleryImage]
"""A row, its similarity and the image in it."""


class VectorStore(ABC):
    """A place where a gallery lies as vectors with class, source, digest and origin."""

    indexes: tuple[str, ...] = ()
    """The kinds of approximate index that it can build."""
    on_disk: bool = True
    """Whether its place is a file or folder of this machine."""

    def __init__(self, location: str, *, approximate: bool = False):
        """Raises ValueError for an address where a path is needed, which would become a folder of
        that name. It isn't shown: it may hold a password."""
        scheme, is_address, _ = location.partition("://")
        if self.on_disk and is_address:
            raise ValueError(
                f"a place must be a path of this machine, got an address ({scheme}://...): export"
                " to a path, or for a server --to pgvector"
            )
        self.location = location
        self.approximate = approximate

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, in words that hold no password."""

    @abstractmethod
    def write(
        self,
        gallery: Gallery,
        record: StoreRecord,
        index: str,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Write a gallery, completely or not at all, with an approximate index where one is named.
        `progress` hears of images. Raises ValueError where the place is taken."""

    @abstractmethod
    def write_record(self, record: StoreRecord) -> None:
        """Replace the record."""

    @abstractmethod
    def record(self) -> StoreRecord:
        """Raises ValueError where there is no gallery."""

    @abstractmethod
    def count(self) -> int:
        """The number of vectors now."""

    @abstractmethod
    def search(self, query: np.ndarray, k: int, exact: bool) -> list[list[Hit]]:
        """The k nearest images of (query, dim) unit vectors, in any order; by an approximate index
        perhaps fewer."""

    def nearest(self, query: np.ndarray, k: int) -> Hits:
        """The k nearest images of (query, dim) unit vectors, by an exact search unless the store is
        `approximate`. Queries for which an index finds too few images are searched exactly."""
        query = np.asarray(query, np.float32)
        hits = self.search(query, k, exact=False) if self.approximate else self._exactly(query, k)
        short = [place for place, neighbours in enumerate(hits) if len(neighbours) < k]
        if short and self.approximate:
            for place, neighbours in zip(short, self._exactly(query[short], k), strict=True):
                hits[place] = neighbours
        rows = np.empty((len(query), k), np.int64)
        similarities = np.empty((len(query), k), np.float32)
        images = {}
        for place, neighbours in enumerate(hits):
            ordered = sorted(neighbours, key=lambda hit: (-hit[1], hit[0]))[:k]
            rows[place] = [row for row, _, _ in ordered]
            similarities[place] = [similarity for _, similarity, _ in ordered]
            images.update({row: image for row, _, image in ordered})
        return Hits(rows, similarities, images)

    def _exactly(self, query: np.ndarray, k: int) -> list[list[Hit]]:
        """The k nearest images, and more where others are as near as the k-th: a store keeps any of
        these, and the first in gallery order are wanted."""
        wanted = k + 1
        hits = self.search(query, wanted, exact=True)
        tied = [place for place, neighbours in enumerate(hits) if is_cut(neighbours, k, wanted)]
        while tied:
            wanted *= 2
            for place, neighbours in zip(tied, self.search(query[tied], wanted, True), strict=True):
                hits[place] = neighbours
            tied = [place for place in tied if is_cut(hits[place], k, wanted)]
        return hits


def is_cut(neighbours: Sequence[Hit], k: int, wanted: int) -> bool:
    """Whether images that were not found, beyond so many, may be as near as the k-th."""
    similarities = sorted((hit[1] for hit in neighbours), reverse=True)
    return len(similarities) >= wanted and similarities[-1] == similarities[k - 1]


def columns(gallery: Gallery, rows: slice) -> dict[str, list[Any]]:
    """The columns of some rows but for the vectors."""
    entries = gallery.entries[rows]
    return {
        "row": list(range(*rows.indices(len(gallery.entries)))),
        "class": [entry.class_name for entry in entries],
        "path": [entry.path for entry in entries],
        "sha256": [entry.sha256 for entry in entries],
        "origin": [entry.origin for entry in entries],
    }


def batches_of(
    gallery: Gallery, progress: Callable[[int, int], None], at_most: int = BATCH
) -> Iterator[slice]:
    """The rows of a gallery, so many at a time; `progress` hears of those that were taken."""
    count, size = len(gallery.entries), min(at_most, BATCH)
    for first in range(0, count, size):
        progress(first, count)
        yield slice(first, min(first + size, count))
    progress(count, count)


def require_package(name: str, wanted_for: str) -> None:
    """Raises ValueError where a package of the extra is missing."""
    if find_spec(name) is None:
        raise ValueError(
            f"{wanted_for} needs the package {name}, which is not installed: pip install"
            " 'dml-bench[stores]'"
        )
