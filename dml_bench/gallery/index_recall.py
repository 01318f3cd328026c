"""What an approximate index misses, and what it costs, beside the exact search of the same
gallery."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dml_bench.gallery.indexes import one_thread
from dml_bench.system.seeding import permutation

__all__ = [
    "IndexRecall",
    "Proportion",
    "RecallQueries",
    "asked_of_itself",
    "exactly",
    "measure",
    "recalls",
    "wilson",
]

MOST = 1000
"""Queries that recall is measured on."""
SINGLE, BATCH, TIMES = 50, 100, 3
"""Look-ups that are timed one by one, in one call, and how many such calls."""
SAME = 1e-6
"""Similarities that differ by less are of equally near images."""
Z = 1.959964
"""Of a 95% interval."""

Find = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(query, dim) and k to (query, k) similarities and rows of the gallery."""


@dataclass(frozen=True, slots=True)
class Proportion:
    value: float
    low: float
    high: float

    def words(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class RecallQueries:
    """Queries that recall is measured on."""

    embeddings: np.ndarray
    """(query, dim)"""
    own_rows: np.ndarray
    """(query) each one's own row in the gallery, which is left out of its look-up; -1 where it is
    not in it."""
    words: str

    def some(self) -> "RecallQueries":
        chosen = np.unique(
            np.linspace(0, max(len(self.own_rows) - 1, 0), min(len(self.own_rows), MOST))
            .round()
            .astype(int)
        )
        return RecallQueries(self.embeddings[chosen], self.own_rows[chosen], self.words)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRecall:
    """An index held against the exact search, on one thread."""

    queries: int
    asked: str
    """Whose they are."""
    recall_at_1: Proportion
    recall_at_10: Proportion
    similarity_max_error: float
    """Of what it says of an image from its inner product with the query."""
    milliseconds: float
    """Per look-up of the ten nearest, one at a time."""
    milliseconds_batched: float
    """Per look-up, 100 in one call."""
    exact_milliseconds: float
    exact_milliseconds_batched: float
    bytes: int
    exact_bytes: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "IndexRecall":
        shares = {name: Proportion(**stored[name]) for name in ("recall_at_1", "recall_at_10")}
        return cls(**{**stored, **shares})

    def words(self) -> str:
        error = (
            f"; similarities are off by up to {self.similarity_max_error:.4f}"
            if self.similarity_max_error > 10 * SAME
            else ""
        )
        return (
            f"recall@1 {self.recall_at_1.words()}, recall@10 {self.recall_at_10.words()} on"
            f" {self.queries:,} {self.asked}; {self.milliseconds:.2f} ms a look-up,"
            f" {self.milliseconds_batched:.2f} in batches of {BATCH} (exact:"
            f" {self.exact_milliseconds:.2f}, {self.exact_milliseconds_batched:.2f});"
            f" {self.bytes / 1e6:,.2f} MB (exact: {self.exact_bytes / 1e6:,.2f} MB){error}"
        )


def wilson(share: float, trials: int) -> Proportion:
    """95% score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22). Of a mean of
    shares, one per query, it is at least as wide as it need be: such a mean varies no more than one
    of zeros and ones."""
    if not trials:
        return Proportion(math.nan, math.nan, math.nan)
    middle, scale = share + Z**2 / (2 * trials), 1 + Z**2 / trials
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return Proportion(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def asked_of_itself(embeddings: np.ndarray) -> RecallQueries:
    """A sample of a gallery's own images, each left out of its own look-up; drawn by the gallery's
    size alone."""
    rows = np.sort(permutation("recall", len(embeddings), items=np.arange(len(embeddings)))[:MOST])
    return RecallQueries(
        embeddings[rows], rows, "images of the gallery, each left out of its own look-up"
    )


def exactly(embeddings: np.ndarray) -> Find:
    """The exact search of (images, dim) float32, which makes no copy of them."""
    import faiss

    def find(query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        similarities, rows = faiss.knn(query, embeddings, k, metric=faiss.METRIC_INNER_PRODUCT)
        return similarities, rows

    return find


def recalls(
    embeddings: np.ndarray, query: np.ndarray, truth: np.ndarray, found: np.ndarray, k: int
) -> np.ndarray:
    """(query) the share of the k found that are as near as the k exactly nearest, so that copies of
    an image count as each other (as in ANN-Benchmarks, Aumueller et al. 2020; the recall@k of Jegou
    et al. 2011 asks only whether the nearest one is among them).

    `truth` and `found` are (query, k or more) rows of the gallery, nearest first.
    """
    farthest = (embeddings[truth[:, k - 1]] * query).sum(1)
    similarity = inner(embeddings, query, found[:, :k])
    return (similarity >= farthest[:, None] - SAME).mean(1)


def inner(embeddings: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(query, k) inner products of each query with the images in its rows."""
    return np.einsum("qkd,qd->qk", embeddings[rows], query)


def others(find: Find, query: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and rows, asked as a photo is asked; of queries in the gallery one
    more is asked for, and each itself, or else the last, is left out."""
    if (own < 0).all():
        return find(query, k)
    similarities, rows = find(query, k + 1)
    itself = rows == own[:, None]
    itself[~itself.any(1), -1] = True
    return similarities[~itself].reshape(-1, k), rows[~itself].reshape(-1, k)


def measure(find: Find, embeddings: np.ndarray, asked: RecallQueries, size: int) -> IndexRecall:
    """Hold `find` against the exact search of `embeddings` (images, dim). `size` is the bytes of
    its file."""
    asked = asked.some()
    query = np.ascontiguousarray(asked.embeddings, np.float32)
    exact = exactly(embeddings)
    k = min(10, len(embeddings) - 1)
    with one_thread():
        truth, found = (others(way, query, asked.own_rows, k) for way in (exact, find))
        times = [milliseconds(way, query, k) for way in (find, exact)]
    at_1, at_10 = (
        float(recalls(embeddings, query, truth[1], found[1], depth).mean()) for depth in (1, k)
    )
    return IndexRecall(
        queries=len(query),
        asked=asked.words,
        recall_at_1=wilson(at_1, len(query)),
        recall_at_10=wilson(at_10, len(query)),
        similarity_max_error=float(np.abs(found[0] - inner(embeddings, query, found[1])).max()),
        milliseconds=times[0][0],
        milliseconds_batched=times[0][1],
        exact_milliseconds=times[1][0],
        exact_milliseconds_batched=times[1][1],
        bytes=size,
        exact_bytes=embeddings.shape[0] * embeddings.shape[1] * 4,
    )


def milliseconds(find: Find, query: np.ndarray, k: int) -> tuple[float, float]:
    """Per look-up, medians: one at a time, and in batches."""
    batch = np.resize(query, (BATCH, query.shape[1]))
    single = [seconds(find, batch[row : row + 1], k) for row in range(SINGLE)]
    batched = [seconds(find, batch, k) / BATCH for _ in range(TIMES)]
    return 1000 * statistics.median(single), 1000 * statistics.median(batched)


def seconds(find: Find, query: np.ndarray, k: int) -> float:
    start = time.perf_counter()
    find(query, k)
    return time.perf_counter() - start
