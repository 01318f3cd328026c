"""A gallery exported into a vector store, and photos looked up there: for galleries beyond one
file, and for applications that search in a store of their own."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.data.datasets import Progress
from dml_bench.evaluation.search import Neighbours
from dml_bench.gallery.calibration import calibration_set, recall_queries
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.identity import embedder_digest
from dml_bench.gallery.index_recall import RecallQueries
from dml_bench.gallery.model_card import PRECISIONS
from dml_bench.gallery.predict import (
    USUAL_SHARES,
    AppliedThreshold,
    NoPromise,
    Predictions,
    predictions_of,
)
from dml_bench.gallery.store import Gallery, GalleryFile
from dml_bench.gallery.stores.base import StoreRecord, VectorStore
from dml_bench.gallery.stores.lance import LanceStore
from dml_bench.gallery.stores.parquet import ParquetStore
from dml_bench.gallery.stores.postgres import PostgresStore
from dml_bench.gallery.stores.qdrant import QdrantStore
from dml_bench.registry import UnknownName, near_miss
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.version import __version__

__all__ = [
    "STORES",
    "OpenStore",
    "export_to_store",
    "named_store",
    "open_store",
    "store_threshold",
]

STORES: dict[str, type[VectorStore]] = {
    "lancedb": LanceStore,
    "parquet": ParquetStore,
    "pgvector": PostgresStore,
    "qdrant": QdrantStore,
}
"""By the name that `--to` and `--index` take."""
APPROXIMATE = "+approximate"
"""What stands behind such a name where the store's own index is to answer."""
TIE = 1e-5
"""Similarities that differ by less are equal: stores round otherwise."""


def named_store(text: str) -> VectorStore | None:
    """The store of NAME:PLACE; None where the text names no store."""
    name, colon, location = text.partition(":")
    kind = name.removesuffix(APPROXIMATE)
    if kind not in STORES:
        return None
    if not (colon and location):
        raise ValueError(f"index {text}: write where the store is, e.g. {name}:PLACE")
    store = STORES[kind](location, approximate=name.endswith(APPROXIMATE))
    if store.approximate and not store.indexes:
        raise ValueError(f"{kind} has no approximate index: write {kind}:{location}")
    return store


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store whose vectors are those of a run's network."""

    store: VectorStore
    record: StoreRecord

    @property
    def exact(self) -> bool:
        """Whether it misses nothing."""
        return not self.store.approximate

    def find(self, query: np.ndarray, k: int) -> tuple[Gallery, Neighbours]:
        """The neighbours of (query, dim) unit vectors, in a gallery that has no images but
        these."""
        hits = self.store.nearest(query, min(k, self.record.images))
        rows = np.unique(hits.rows)
        entries = tuple(hits.images[row] for row in rows.tolist())
        gallery = Gallery(entries, np.empty((len(rows), 0), np.float32))
        no_labels = np.full(len(query), -1)
        places = np.searchsorted(rows, hits.rows)
        return gallery, Neighbours(places, hits.similarities, gallery.labels, no_labels)

    def search(self, gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
        """The same where only similarities are looked at."""
        return self.find(query, k)[1]

    def describe(self) -> str:
        """What it is, and what it misses."""
        text = f"store {self.store.place}: {self.record.images:,} images"
        if self.exact:
            return f"{text}, exact"
        return f"{text}, {describe_differing(self.record.approximate)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        measured = self.record.approximate or None
        return {
            "name": self.store.place,
            "parameters": {},
            "exact": self.exact,
            "measured": None if self.exact else measured,
        }


def describe_differing(approximate: dict[str, Any]) -> str:
    """What an approximate index changes, in a clause."""
    return (
        f"index {approximate['index']}: {approximate['differing']:.1%} of"
        f" {approximate['queries']:,} {approximate['query_source']} get another class than by an"
        " exact search"
    )


def open_store(gallery_file: GalleryFile, store: VectorStore) -> OpenStore:
    """Raises ValueError where there is no store, where another model made its vectors, or where it
    was changed since."""
    record, run, phase = store.record(), gallery_file.run, gallery_file.phase
    if record.embedder != embedder_digest(run, phase):
        raise ValueError(
            f"{store.place} holds vectors of another model ({record.experiment}, seed"
            f" {record.seed}, phase {record.phase}) than {run.folder}, phase {phase}: name that"
            " run and phase, or export this one"
        )
    count = store.count()
    if count != record.images:
        raise ValueError(
            f"{store.place} has {count:,} images, and {record.images:,} were exported: its"
            " thresholds hold no more, so export it anew"
        )
    if store.approximate and not record.approximate:
        raise ValueError(
            f"{store.place} has no approximate index: leave {APPROXIMATE} out, or export it with"
            " --index"
        )
    return OpenStore(store, record)


def export_to_store(
    gallery_file: GalleryFile,
    gallery: Gallery,
    store: VectorStore,
    index: str,
    progress: Progress = lambda message, done, total: None,
) -> OpenStore:
    """Write a gallery into a store. Raises ValueError where the place is taken, or the store has no
    index of that name."""
    if index in ("flat", "auto"):
        index = ""
    if index and index not in store.indexes:
        known = ", ".join(("flat", *store.indexes))
        raise UnknownName(
            f"{store.place} can't have an index {index!r}{near_miss(index, list(store.indexes))}:"
            f" choose one of {known}"
        )
    if Path(store.location).exists():
        raise ValueError(f"{store.place} exists already: name a place that does not")
    run, phase = gallery_file.run, gallery_file.phase
    record = StoreRecord(
        embedder=embedder_digest(run, phase),
        experiment=run.experiment.name,
        seed=run.seed,
        phase=phase,
        dataset=run.summary["dataset"]["name"],
        images=len(gallery.entries),
        gallery=digest_of_gallery(gallery),
        dim=gallery.embeddings.shape[1],
        thresholds=thresholds_of(gallery_file, gallery),
        dml_bench=__version__,
    )
    store.write(gallery, record, index, partial(progress, "writing images"))
    if not index:
        return OpenStore(store, record)
    approximate = type(store)(store.location, approximate=True)
    queries = recall_queries(run, phase, gallery)
    differing = share_of_differing(
        OpenStore(store, record),
        OpenStore(approximate, record),
        queries,
        partial(progress, "measuring what the index misses"),
    )
    record = replace(record, approximate={"index": index, **differing})
    store.write_record(record)
    return OpenStore(approximate, record)


def digest_of_gallery(gallery: Gallery) -> str:
    """SHA-256 of vectors and classes."""
    parts = [
        embeddings_digest(gallery.embeddings),
        *(entry.class_name for entry in gallery.entries),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def share_of_differing(
    exact: OpenStore,
    approximate: OpenStore,
    queries: RecallQueries,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """How many queries get another class from an approximate search than from the exact one, where
    the similarities are no tie."""
    queries = queries.evenly_spaced()
    differing, count = 0, len(queries.own_rows)
    pairs = zip(queries.embeddings, queries.own_rows.tolist(), strict=True)
    for done, (vector, own_row) in enumerate(pairs, start=1):
        exactly = nearest_other(exact, vector, own_row)
        roughly = nearest_other(approximate, vector, own_row)
        tied = abs(exactly[1] - roughly[1]) < TIE
        differing += exactly[0] != roughly[0] and not tied
        progress(done, count)
    return {
        "differing": differing / count,
        "queries": count,
        "query_source": queries.description,
    }


def nearest_other(opened: OpenStore, vector: np.ndarray, own_row: int) -> tuple[str, float]:
    """The class and the similarity of the nearest image that is not in a row; none and -1 where
    nothing is found."""
    hits = opened.store.nearest(vector[None], 2)
    for row, similarity in zip(hits.rows[0].tolist(), hits.similarities[0].tolist(), strict=True):
        if row != own_row:
            return hits.images[row].class_name, similarity
    return "", -1.0


def thresholds_of(gallery_file: GalleryFile, gallery: Gallery) -> list[dict[str, Any]]:
    """The promises that are usually asked for."""
    images = calibration_set(gallery_file.run, gallery_file.phase, gallery)
    rows = []
    for share in USUAL_SHARES:
        for precision in PRECISIONS:
            promise = images.promise(precision, share)
            rows.append(
                {
                    "precision": precision,
                    "unknown_share": share,
                    "confidence": promise.confidence,
                    "threshold": promise.value if promise.promised else None,
                }
            )
    return rows


def store_threshold(
    opened: OpenStore, threshold: float | None, precision: float | None, unknown_share: float
) -> AppliedThreshold:
    """The threshold that a person has set, or the one that the store holds for a precision. Raises
    NoPromise where it holds none."""
    if threshold is not None:
        return AppliedThreshold(value=threshold)
    if precision is None:
        return AppliedThreshold(value=-math.inf)
    for row in opened.record.thresholds:
        if (row["precision"], row["unknown_share"]) == (precision, unknown_share):
            if row["threshold"] is None:
                raise NoPromise(
                    f"{opened.store.place} has no threshold for a precision of {precision:.0%}:"
                    " `dml-bench predict` without --index says what it lacks"
                )
            return AppliedThreshold(value=row["threshold"])
    known = ", ".join(
        f"{row['precision']:g} (unknown share {row['unknown_share']:g})"
        for row in opened.record.thresholds
    )
    raise ValueError(
        f"{opened.store.place} has no threshold for a precision of {precision:g} with an unknown"
        f" share of {unknown_share:g}: choose one of {known}, or give --threshold"
    )


def predict_in_store(
    opened: OpenStore,
    network: GalleryEmbedder,
    images: Sequence[Path],
    progress: Callable[[int], None] = lambda done: None,
    *,
    k: int,
    threshold: float,
) -> tuple[Gallery, Predictions]:
    """Predict the classes of image files, and the gallery of the images that were near them."""
    embedded = network.embed(images, progress)
    start = time.perf_counter()
    gallery, neighbours = opened.find(embedded.embeddings, k)
    seconds = time.perf_counter() - start
    predictions = predictions_of(gallery, embedded.paths, neighbours, threshold)
    return gallery, Predictions(
        predictions,
        embedded.unreadable,
        embedded.milliseconds,
        1000 * seconds / max(len(predictions), 1),
    )
