"""An index kept beside a gallery: built once, opened memory-mapped, added to as images are
enrolled, built anew where it does not fit.

<gallery>/<phase>.index/ivf-nlist=64.faiss and .json, which holds the digests of the file and of the
embeddings it is of, and what it misses. Images that left the gallery stay in the file and are
passed over; their positions are in the .json.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.evaluation.search import Neighbours, ask, nearest, search
from dml_bench.gallery.index_recall import IndexRecall, RecallQueries, measure
from dml_bench.gallery.indexes import (
    CHUNK,
    IndexPlan,
    IndexSpec,
    build,
    library,
    narrowed,
    one_thread,
    open_mapped,
    tune,
)
from dml_bench.gallery.store import Gallery, GalleryFile, Step, digest_of
from dml_bench.system.drafts import drafted, sweep
from dml_bench.system.files import Damaged, Shape, read_json, write_atomically, write_json

__all__ = [
    "OpenIndex",
    "Search",
    "build_index",
    "catch_up",
    "opened",
    "search_all",
    "step_between",
    "update_indexes",
]

FORMAT = "2"
SHAPE: Shape = {
    "format": str,
    "name": str,
    "built": {...: int},
    "images": int,
    "vectors": int,
    "embeddings": str,
    "sha256": str,
    "removed": [int],
    "measured": {...: dict},
}
MOST_REMOVED = 0.25
"""Of the vectors in a kept file; with more it is built anew."""
MOST_GROWN = 2
"""Times the size for which cells, codes and edges were made."""

Search = Callable[[Gallery, np.ndarray, np.ndarray, int], Neighbours]
"""A gallery, (query, dim) unit vectors, (query) class ids and k to their neighbours in that
gallery."""


def search_all(gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
    """The exact search, of an index made for the moment."""
    return search(gallery.embeddings, query, gallery.labels, labels, k)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRecord:
    """What is written beside an index."""

    name: str
    built: dict[str, int]
    images: int
    """Of the gallery that it was built for."""
    vectors: int
    """In the file; those at the `removed` positions are no longer in the gallery, the others are
    it, in its order."""
    embeddings: str
    """Digest of the gallery's embeddings."""
    sha256: str
    """Of the file."""
    removed: tuple[int, ...] = ()
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By the parameters of a look-up, as `nprobe=8`."""

    @property
    def live(self) -> np.ndarray:
        """(vectors) bool"""
        live = np.ones(self.vectors, bool)
        live[list(self.removed)] = False
        return live


@dataclass(frozen=True)
class OpenIndex:
    """An opened index of a gallery."""

    choice: IndexSpec
    plan: IndexPlan
    index: Any
    live: np.ndarray
    """(vectors) bool, those that are in the gallery."""
    embeddings: np.ndarray
    """(images, dim) of the gallery."""
    measured: IndexRecall | None = None
    """None of an exact one."""

    @cached_property
    def positions(self) -> np.ndarray:
        """(images) where each image of the gallery is in the index, ascending."""
        return np.flatnonzero(self.live)

    def find(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(query, k) similarities and rows of the gallery, the nearest first. Queries for which too
        few are found are asked exactly."""
        k = min(k, len(self.positions))
        params = None if self.live.all() else narrowed(self.index, self.live)
        if self.choice.exact:
            similarities, found = nearest(self.index, query, k, len(self.positions), params)
        else:
            similarities, found = ask(
                self.index, np.ascontiguousarray(query, np.float32), k, params
            )
        short = np.flatnonzero((found < 0).any(1))
        rows = np.searchsorted(self.positions, found)
        if len(short):
            anything = np.full(len(short), -1)
            again = search(
                self.embeddings, query[short], np.full(len(self.positions), -1), anything, k
            )
            similarities[short], rows[short] = again.similarities, again.indices
        return np.clip(similarities, -1, 1) if self.choice.compresses else similarities, rows

    def search(self, gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
        """As `search_all`, of the gallery that this is the index of."""
        similarities, rows = self.find(query, k)
        return Neighbours(rows, similarities, gallery.labels, labels)

    def words(self) -> str:
        parameters = ", ".join(f"{key}={value}" for key, value in self.plan.parameters.items())
        name = f"index {self.choice.name}{f' ({parameters})' if parameters else ''}"
        return f"{name}: {self.measured.words() if self.measured else 'exact'}"

    def as_dict(self) -> dict[str, Any]:
        measured = self.measured.as_dict() if self.measured else None
        return {
            "name": self.choice.name,
            "parameters": self.plan.parameters,
            "exact": self.choice.exact,
            "measured": measured,
        }


def digest(embeddings: np.ndarray) -> str:
    found = hashlib.sha256(repr(embeddings.shape).encode())
    for first in range(0, len(embeddings), CHUNK):
        found.update(np.ascontiguousarray(embeddings[first : first + CHUNK], np.float32).data)
    return found.hexdigest()


def folder_of(place: GalleryFile) -> Path:
    return place.path.with_suffix(".index")


def file_of(place: GalleryFile, choice: IndexSpec) -> Path:
    """Its name has the parameters that were asked for and that the file depends on."""
    given = [
        f"{key}={value}"
        for key, value in sorted(choice.options.items())
        if key not in ("nprobe", "efSearch")
    ]
    return folder_of(place) / f"{'-'.join([choice.name, *given])}.faiss"


def opened(
    place: GalleryFile,
    gallery: Gallery,
    choice: IndexSpec,
    asked: Callable[[], RecallQueries],
    say: Callable[[str], None],
) -> OpenIndex:
    """The kept index of a gallery. One that is not there, damaged, or of another gallery is built,
    and `say` is told why.

    What an approximate one misses is measured with the queries that were `asked` wherever that is
    not known yet. Raises ValueError where the choice and the gallery do not go together.
    """
    path = file_of(place, choice)
    sweep(path.parent, place.path.parent)
    if is_behind(place, path):
        with place.lock():
            catch_up(place, gallery)
    record = read_record(path)
    wrong = "" if record is None else misfit(path, record, gallery)
    if record is None or wrong:
        plan = choice.plan(*gallery.embeddings.shape)
        say(
            f"building index {choice.name} of {len(gallery.entries):,}"
            f" images{f', because {wrong}' if wrong else ''}"
        )
        record = keep(path, gallery, choice, plan)
    else:
        plan = choice.plan(record.images, gallery.embeddings.shape[1], **record.built)
    index = open_mapped(path)
    tune(index, plan)
    look = OpenIndex(choice, plan, index, record.live, gallery.embeddings)
    if choice.exact:
        return look
    key = ",".join(f"{name}={value}" for name, value in plan.asked.items())
    if key not in record.measured:
        found = measure(look.find, gallery.embeddings, asked(), path.stat().st_size)
        record = replace(record, measured={**record.measured, key: found.as_dict()})
        write_record(path, record)
    return replace(look, measured=IndexRecall.from_dict(record.measured[key]))


def build_index(
    path: Path, gallery: Gallery, choice: IndexSpec, asked: Callable[[], RecallQueries]
) -> OpenIndex:
    """An index of a gallery in a file of its own, and what it misses. Raises ValueError where the
    choice and the gallery do not go together."""
    plan = choice.plan(*gallery.embeddings.shape)
    write_index(path, build(plan, gallery.embeddings))
    look = OpenIndex(
        choice, plan, open_mapped(path), np.ones(len(gallery.embeddings), bool), gallery.embeddings
    )
    return (
        look
        if choice.exact
        else replace(
            look, measured=measure(look.find, gallery.embeddings, asked(), path.stat().st_size)
        )
    )


def misfit(path: Path, record: IndexRecord, gallery: Gallery) -> str:
    """Why a kept index can't be used, empty where it can."""
    if record.embeddings != digest(gallery.embeddings):
        return f"{path.name} is of another gallery"
    if record.sha256 != digest_of(path):
        return f"{path.name} is damaged"
    return ""


def keep(path: Path, gallery: Gallery, choice: IndexSpec, plan: IndexPlan) -> IndexRecord:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = len(gallery.embeddings)
    sha256 = write_index(path, build(plan, gallery.embeddings))
    record = IndexRecord(
        name=choice.name,
        built=plan.built,
        images=images,
        vectors=images,
        embeddings=digest(gallery.embeddings),
        sha256=sha256,
    )
    write_record(path, record)
    return record


def write_index(path: Path, index: Any, before: Callable[[str], None] = lambda sha256: None) -> str:
    """The SHA-256 of the file, which `before` is told just before the file bears its name."""
    faiss = library()
    with drafted(path) as draft:
        write_atomically(
            draft, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        )
        sha256 = digest_of(draft)
        before(sha256)
    return sha256


def read_record(path: Path) -> IndexRecord | None:
    """None where there is none that can be read. After a crash between two writings it is that of
    the two that the file is of."""
    try:
        stored = read_json(path.with_suffix(".json"), SHAPE, sealed=True)
    except (OSError, Damaged):
        return None
    if stored.pop("format") != FORMAT:
        return None
    coming = stored.pop("coming", None)
    if coming is not None and coming["sha256"] == digest_of(path):
        stored = coming
    return IndexRecord(**{**stored, "removed": tuple(stored["removed"])})


def write_record(path: Path, record: IndexRecord, coming: IndexRecord | None = None) -> None:
    """`coming` is what holds from when the file is replaced."""
    values = asdict(record) | ({"coming": asdict(coming)} if coming else {})
    write_json(path.with_suffix(".json"), {"format": FORMAT, **values})


def is_behind(place: GalleryFile, path: Path) -> bool:
    """Whether an index waits to be taken along to the gallery as it is now."""
    record = read_record(path)
    step = None if record is None else place.step()
    return step is not None and record is not None and record.embeddings == step.embeddings


def step_between(
    place: GalleryFile, before: Gallery, kept: np.ndarray, after: Gallery
) -> Step | None:
    """Of `before`, the rows that are `kept` (entries) bool come first in `after`, and the rest of
    that is new. None where no index has to follow."""
    if not list(records(place)) or (kept.all() and len(after.embeddings) == len(before.embeddings)):
        return None
    return Step(
        embeddings=digest(before.embeddings), images=len(kept), left=np.flatnonzero(~kept).tolist()
    )


def update_indexes(place: GalleryFile, step: Step, after: Gallery) -> tuple[str, ...]:
    """Take the indexes that are kept of a gallery along to the next one. What does not fit is left,
    and built anew when it is next asked for. The names of those that went along."""
    found = list(records(place))
    return tuple(
        path.stem
        for path, record in found
        if record.embeddings == step.embeddings and changed(path, record, step.kept, after)
    )


def catch_up(place: GalleryFile, gallery: Gallery) -> None:
    """Do what a process that was stopped between a gallery and its indexes left to do, from the
    step that is written with the gallery: an index depends on all that its galleries have been, so
    that one that is built anew would be another."""
    if (step := place.step()) is not None:
        update_indexes(place, step, gallery)


def records(place: GalleryFile) -> Iterator[tuple[Path, IndexRecord]]:
    for path in sorted(folder_of(place).glob("*.faiss")):
        if (record := read_record(path)) is not None:
            yield path, record


def changed(path: Path, record: IndexRecord, kept: np.ndarray, after: Gallery) -> bool:
    """Whether the index went along."""
    import faiss

    added = after.embeddings[int(kept.sum()) :]
    removed = record.removed + tuple(np.flatnonzero(record.live)[~kept].tolist())
    vectors = record.vectors + len(added)
    if (
        len(removed) > MOST_REMOVED * vectors
        or len(after.embeddings) > MOST_GROWN * record.images
        or record.sha256 != digest_of(path)
    ):
        return False
    new = replace(
        record,
        vectors=vectors,
        embeddings=digest(after.embeddings),
        removed=tuple(sorted(removed)),
        measured={},
    )
    if len(added):
        index = faiss.read_index(str(path))
        with one_thread():
            index.add(np.ascontiguousarray(added, np.float32))
        sha256 = write_index(
            path,
            index,
            lambda sha256: write_record(path, record, coming=replace(new, sha256=sha256)),
        )
        new = replace(new, sha256=sha256)
    write_record(path, new)
    return True
