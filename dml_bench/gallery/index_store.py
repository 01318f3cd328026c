"""An index kept beside a gallery: built once, opened memory-mapped, extended as images are
enrolled, and built anew where it does not fit.

<gallery>/<phase>.index/ivf-nlist=64.faiss and .json, which holds the digests of the file and of the
embeddings that it indexes, and what it misses. Images that left the gallery stay in the file and
are skipped; their positions are in the .json.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.data.datasets import Progress
from dml_bench.evaluation.search import Neighbours, ask, nearest, search
from dml_bench.gallery.index_recall import (
    Finder,
    IndexRecall,
    K,
    RecallQueries,
    measure_recall,
    tune_recall,
)
from dml_bench.gallery.indexes import (
    IndexPlan,
    IndexSpec,
    build,
    library,
    narrowed,
    one_thread,
    open_mapped,
    tune,
)
from dml_bench.gallery.store import Gallery, GalleryFile, GalleryIsBusy, Step, digest_of
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.system.drafts import drafted, sweep
from dml_bench.system.files import Damaged, Shape, read_json, write_atomically, write_json

__all__ = [
    "OpenIndex",
    "Search",
    "build_index",
    "catch_up",
    "exact_search",
    "open_or_build",
    "step_between",
    "tuned",
    "update_indexes",
]

FORMAT = "3"
SHAPE: Shape = {
    "format": str,
    "name": str,
    "built": {...: int},
    "images": int,
    "vectors": int,
    "embeddings": str,
    "sha256": str,
    "removed": [int],
    "chosen": {...: int},
    "measured": {...: dict},
}
PATIENCE_SECONDS = 10.0
"""In which another process that has changed a gallery updates its indexes."""
MOST_REMOVED = 0.25
"""The largest share of removed vectors; an index with more is built anew."""
MOST_GROWN = 2
"""How many times the size for which it was built an index may grow."""

Search = Callable[[Gallery, np.ndarray, np.ndarray, int], Neighbours]
"""A gallery, (query, dim) unit vectors, (query) class ids and k -> their neighbours in the
gallery."""


def exact_search(gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
    """The exact search, with an index that is made for this call."""
    return search(gallery.embeddings, query, gallery.labels, labels, k)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRecord:
    """What is written beside an index."""

    name: str
    """The kind of index."""
    built: dict[str, int]
    """The parameters with which it was built."""
    images: int
    """The number of images of the gallery for which it was built."""
    vectors: int
    """The number of vectors in the file. Without those at `removed` positions they are the gallery,
    in its order."""
    embeddings: str
    """The digest of the gallery's embeddings."""
    sha256: str
    """The digest of the file."""
    removed: tuple[int, ...] = ()
    """The positions of vectors that are no longer in the gallery."""
    chosen: dict[str, int] = field(default_factory=dict)
    """The parameters of a search that were chosen by what is found, for who sets none."""
    measured: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What it misses, by the parameters of a search, as `nprobe=8`."""

    @property
    def live(self) -> np.ndarray:
        """(vectors) bool: those that are in the gallery."""
        live = np.ones(self.vectors, bool)
        live[list(self.removed)] = False
        return live


@dataclass(frozen=True)
class OpenIndex:
    """An opened index of a gallery."""

    spec: IndexSpec
    """The index as a person named it."""
    plan: IndexPlan
    """The index with all parameters."""
    index: Any
    """FAISS's own object."""
    live: np.ndarray
    """(vectors) bool: those that are in the gallery."""
    embeddings: np.ndarray
    """(images, dim) the gallery's embeddings."""
    measured: IndexRecall | None = None
    """What it misses; None for an exact one."""

    @property
    def exact(self) -> bool:
        """Whether it misses nothing."""
        return self.spec.exact

    @cached_property
    def positions(self) -> np.ndarray:
        """(images) the position of each image of the gallery in the index, ascending."""
        return np.flatnonzero(self.live)

    def find(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(query, k) similarities and rows of the gallery, the nearest first. Queries for which the
        index finds too few images are searched exactly. An approximate index searches for ten
        images or more, as it was measured: product codes of fewer candidates miss more."""
        wanted = k
        k = min(k if self.exact else max(k, K), len(self.positions))
        params = None if self.live.all() else narrowed(self.index, self.live)
        if self.spec.exact:
            similarities, positions = nearest(self.index, query, k, len(self.positions), params)
        else:
            contiguous = np.ascontiguousarray(query, np.float32)
            similarities, positions = ask(self.index, contiguous, k, params)
        short = np.flatnonzero((positions < 0).any(1))
        rows = np.searchsorted(self.positions, positions)
        if len(short):
            # Labels play no part in a search, so any do.
            no_labels, no_query_labels = np.full(len(self.positions), -1), np.full(len(short), -1)
            exact = search(self.embeddings, query[short], no_labels, no_query_labels, k)
            similarities[short], rows[short] = exact.similarities, exact.indices
        if self.spec.compresses:
            similarities = np.clip(similarities, -1, 1)
        return similarities[:, :wanted], rows[:, :wanted]

    def search(self, gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
        """As `search_all`, of the gallery that this is the index of."""
        similarities, rows = self.find(query, k)
        return Neighbours(rows, similarities, gallery.labels, labels)

    def describe(self) -> str:
        """Its kind, its parameters and what it misses."""
        parameters = ", ".join(f"{key}={value}" for key, value in self.plan.parameters.items())
        name = f"{self.spec.name} ({parameters})" if parameters else self.spec.name
        recall = self.measured.describe() if self.measured else "exact"
        return f"index {name}: {recall}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        measured = self.measured.as_dict() if self.measured else None
        return {
            "name": self.spec.name,
            "parameters": self.plan.parameters,
            "exact": self.spec.exact,
            "measured": measured,
        }


def index_folder(gallery_file: GalleryFile) -> Path:
    """The folder of a gallery's indexes."""
    return gallery_file.path.with_suffix(".index")


def index_file(gallery_file: GalleryFile, spec: IndexSpec) -> Path:
    """The file of an index. Its name has the options on which the file depends."""
    parts = [spec.name]
    for key, value in sorted(spec.options.items()):
        if key not in ("nprobe", "efSearch"):
            parts.append(f"{key}={value}")
    return index_folder(gallery_file) / f"{'-'.join(parts)}.faiss"


def open_or_build(
    gallery_file: GalleryFile,
    gallery: Gallery,
    spec: IndexSpec,
    queries: Callable[[], RecallQueries],
    say: Callable[[str], None],
    progress: Progress = lambda message, done, total: None,
) -> OpenIndex:
    """The kept index of a gallery. An index that is missing, damaged or of another gallery is
    built, and `say` is called with the reason.

    What an approximate index misses is measured with `queries` unless it is known already. Raises
    ValueError where the index does not fit the gallery.
    """
    path = index_file(gallery_file, spec)
    sweep(path.parent, gallery_file.path.parent)
    bring_up_to_date(gallery_file, gallery, path)
    record = read_record(path)
    reason = "" if record is None else reason_to_rebuild(path, record, gallery)
    if record is None or reason:
        plan = spec.plan(*gallery.embeddings.shape)
        because = f", because {reason}" if reason else ""
        say(f"building index {spec.name} of {len(gallery.entries):,} images{because}")
        record = build_and_record(path, gallery, spec, plan, progress)
    else:
        size_then = record.images, gallery.embeddings.shape[1]
        plan = spec.plan(*size_then, chosen=record.chosen, **record.built)
    open_index = OpenIndex(spec, plan, open_mapped(path), record.live, gallery.embeddings)
    if spec.exact:
        return open_index
    if not record.chosen and spec.tunes:
        open_index = tuned(open_index, progress)
        plan = open_index.plan
        record = replace(record, chosen={"nprobe": plan.search_parameters["nprobe"]})
        write_record(path, record)
    tune(open_index.index, plan)
    key = ",".join(f"{name}={value}" for name, value in plan.search_parameters.items())
    if key not in record.measured:
        size = path.stat().st_size
        recall = measure_recall(open_index.find, gallery.embeddings, queries(), size, progress)
        record = replace(record, measured={**record.measured, key: recall.as_dict()})
        write_record(path, record)
    return replace(open_index, measured=IndexRecall.from_dict(record.measured[key]))


def build_index(
    path: Path,
    gallery: Gallery,
    spec: IndexSpec,
    queries: Callable[[], RecallQueries],
    progress: Progress = lambda message, done, total: None,
) -> OpenIndex:
    """An index of a gallery in a file of its own, with what it misses. Raises ValueError where the
    index does not fit the gallery."""
    plan = spec.plan(*gallery.embeddings.shape)
    live = np.ones(len(gallery.embeddings), bool)
    index = build(plan, gallery.embeddings, progress)
    built = tuned(OpenIndex(spec, plan, index, live, gallery.embeddings), progress)
    write_index(path, built.index)
    open_index = replace(built, index=open_mapped(path))
    if spec.exact:
        return open_index
    size = path.stat().st_size
    recall = measure_recall(open_index.find, gallery.embeddings, queries(), size, progress)
    return replace(open_index, measured=recall)


def tuned(
    open_index: OpenIndex, progress: Progress = lambda message, done, total: None
) -> OpenIndex:
    """The index with the number of cells that its gallery needs, where nobody has set one."""
    if not open_index.spec.tunes:
        return open_index
    plan = open_index.plan

    def among(cells: int) -> IndexPlan:
        return replace(plan, search_parameters={**plan.search_parameters, "nprobe": cells})

    def find_among(cells: int) -> Finder:
        tune(open_index.index, among(cells))
        return open_index.find

    first, cells = plan.search_parameters["nprobe"], plan.build_parameters["nlist"]
    progress("choosing the cells to search", 0, 1)
    chosen = among(tune_recall(find_among, first, cells, open_index.embeddings))
    progress("choosing the cells to search", 1, 1)
    tune(open_index.index, chosen)
    return replace(open_index, plan=chosen)


def reason_to_rebuild(path: Path, record: IndexRecord, gallery: Gallery) -> str:
    """Why a kept index can't be used; empty where it can."""
    if record.embeddings != embeddings_digest(gallery.embeddings):
        return f"{path.name} is of another gallery"
    if record.sha256 != digest_of(path):
        return f"{path.name} is damaged"
    return ""


def build_and_record(
    path: Path, gallery: Gallery, spec: IndexSpec, plan: IndexPlan, progress: Progress
) -> IndexRecord:
    """Build an index and keep it with its record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = len(gallery.embeddings)
    sha256 = write_index(path, build(plan, gallery.embeddings, progress))
    record = IndexRecord(
        name=spec.name,
        built=plan.build_parameters,
        images=images,
        vectors=images,
        embeddings=embeddings_digest(gallery.embeddings),
        sha256=sha256,
    )
    write_record(path, record)
    return record


def write_index(path: Path, index: Any, before: Callable[[str], None] = lambda sha256: None) -> str:
    """Write the file and return its SHA-256. `before` is called with it just before the file gets
    its name."""
    faiss = library()
    with drafted(path) as draft:
        write_atomically(
            draft, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        )
        sha256 = digest_of(draft)
        before(sha256)
    return sha256


def read_record(path: Path) -> IndexRecord | None:
    """The record of an index; None where there is none that can be read. After a crash between two
    writings, it is the one of the two that belongs to the file."""
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
    """Write the record of an index. `coming` is the record that holds once the file is replaced."""
    values = asdict(record) | ({"coming": asdict(coming)} if coming else {})
    write_json(path.with_suffix(".json"), {"format": FORMAT, **values})


def bring_up_to_date(gallery_file: GalleryFile, gallery: Gallery, path: Path) -> None:
    """Update an index that is of the gallery before its last change, where it can be, or wait until
    the process that is changing the gallery has. Raises GalleryIsBusy where that takes over
    PATIENCE_SECONDS."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waits_for_update(gallery_file, path):
        try:
            with gallery_file.lock():
                catch_up(gallery_file, gallery)
            return
        except GalleryIsBusy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def waits_for_update(gallery_file: GalleryFile, path: Path) -> bool:
    """Whether an index is still that of the gallery before its last change."""
    record = read_record(path)
    step = None if record is None else gallery_file.step()
    return step is not None and record is not None and record.embeddings == step.embeddings


def step_between(
    gallery_file: GalleryFile, before: Gallery, kept: np.ndarray, after: Gallery
) -> Step | None:
    """The step from one gallery to the next: the rows of `before` that are `kept` (entries) bool
    come first in `after`, and what follows is new. None where no index has to follow."""
    if not list(records(gallery_file)) or (
        kept.all() and len(after.embeddings) == len(before.embeddings)
    ):
        return None
    return Step(
        embeddings=embeddings_digest(before.embeddings),
        images=len(kept),
        left=np.flatnonzero(~kept).tolist(),
    )


def update_indexes(gallery_file: GalleryFile, step: Step, after: Gallery) -> tuple[str, ...]:
    """Bring the kept indexes of a gallery to the next one, and return their names. An index that
    does not fit is left as it is, and built anew when it is next needed."""
    names = []
    for path, record in list(records(gallery_file)):
        if record.embeddings == step.embeddings and update_index(path, record, step.kept, after):
            names.append(path.stem)
    return tuple(names)


def catch_up(gallery_file: GalleryFile, gallery: Gallery) -> None:
    """Update the indexes where a process was stopped between writing the gallery and its indexes.
    The step is written with the gallery. An index depends on all earlier galleries, so that one
    that is built anew would be another."""
    step = gallery_file.step()
    if step is not None:
        update_indexes(gallery_file, step, gallery)


def records(gallery_file: GalleryFile) -> Iterator[tuple[Path, IndexRecord]]:
    """The files of a gallery's kept indexes, and their records."""
    for path in sorted(index_folder(gallery_file).glob("*.faiss")):
        record = read_record(path)
        if record is not None:
            yield path, record


def update_index(path: Path, record: IndexRecord, kept: np.ndarray, after: Gallery) -> bool:
    """Bring an index to the next gallery; whether it could be."""
    import faiss

    added = after.embeddings[int(kept.sum()) :]
    removed = record.removed + tuple(np.flatnonzero(record.live)[~kept].tolist())
    vectors = record.vectors + len(added)
    too_sparse = len(removed) > MOST_REMOVED * vectors
    too_large = len(after.embeddings) > MOST_GROWN * record.images
    if too_sparse or too_large or record.sha256 != digest_of(path):
        return False
    new = replace(
        record,
        vectors=vectors,
        embeddings=embeddings_digest(after.embeddings),
        removed=tuple(sorted(removed)),
        chosen={},
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
