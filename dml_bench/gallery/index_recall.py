"""What an approximate index misses, and what it costs, compared with the exact search of the same
gallery."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dml_bench.data.datasets import Progress
from dml_bench.gallery.indexes import one_thread
from dml_bench.system.seeding import permutation

__all__ = [
    "Finder",
    "IndexRecall",
    "K",
    "Proportion",
    "RecallQueries",
    "exact_finder",
    "measure_recall",
    "recalls",
    "sample_of_gallery",
    "tune_recall",
    "wilson",
]

MOST = 1000
"""The number of queries on which recall is measured."""
K = 10
"""The number of images that are searched for."""
GOAL = 0.95
"""The recall@1 that a search of cells is to reach, with 95% confidence."""
GROWTH = math.sqrt(2)
"""How many times more cells each try of a number of cells searches."""
GAIN = 0.002
"""The least gain of recall@1 for which that is worth it: the rest is lost to compression."""
SINGLE = 50
"""The number of searches that are timed one by one."""
BATCH, TIMES = 100, 3
"""The number of queries in one timed call, and of such calls."""
SAME = 1e-6
"""Similarities that differ by less are of equally near images."""
Z = 1.959964
"""The quantile of the normal distribution for a 95% interval."""

Finder = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(query, dim) and k to (query, k) similarities and rows of the gallery."""


@dataclass(frozen=True, slots=True)
class Proportion:
    """A share with its 95% interval."""

    value: float
    low: float
    high: float

    def describe(self) -> str:
        """The share and its interval as text."""
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class RecallQueries:
    """The queries on which recall is measured."""

    embeddings: np.ndarray
    """(query, dim)"""
    own_rows: np.ndarray
    """(query) the row of each query in the gallery, which its search leaves out; -1 where it is not
    in the gallery."""
    description: str
    """Which images the queries are."""

    def evenly_spaced(self) -> "RecallQueries":
        """At most `MOST` of the queries, evenly spaced."""
        count = len(self.own_rows)
        spaced = np.linspace(0, max(count - 1, 0), min(count, MOST))
        rows = np.unique(spaced.round().astype(int))
        return RecallQueries(self.embeddings[rows], self.own_rows[rows], self.description)


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexRecall:
    """An index compared with the exact search, on one thread."""

    queries: int
    """The number of queries."""
    query_source: str
    """A description of the queries."""
    recall_at_1: Proportion
    """The share of queries whose nearest image is found."""
    recall_at_10: Proportion
    """The share of the ten nearest images that is found."""
    similarity_max_error: float
    """The largest difference of a similarity from the exact one."""
    milliseconds: float
    """The time of one search for ten images."""
    milliseconds_batched: float
    """The time of one of 100 searches in one call."""
    exact_milliseconds: float
    """The time of one exact search."""
    exact_milliseconds_batched: float
    """The time of one of 100 exact searches in one call."""
    bytes: int
    """The size of the index."""
    exact_bytes: int
    """The size of the exact index."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as they are kept beside the index."""
        values = {}
        for name, value in asdict(self).items():
            values["asked" if name == "query_source" else name] = value
        return values

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "IndexRecall":
        """What `as_dict` has made plain values of."""
        values = dict(stored)
        values["query_source"] = values.pop("asked")
        for name in ("recall_at_1", "recall_at_10"):
            values[name] = Proportion(**values[name])
        return cls(**values)

    def describe(self) -> str:
        """Recall, time and size in a sentence."""
        error = ""
        if self.similarity_max_error > 10 * SAME:
            error = f"; similarities are off by up to {self.similarity_max_error:.4f}"
        return (
            f"recall@1 {self.recall_at_1.describe()}, recall@10 {self.recall_at_10.describe()} on"
            f" {self.queries:,} {self.query_source}; {self.milliseconds:.2f} ms a search,"
            f" {self.milliseconds_batched:.2f} in batches of {BATCH} (exact:"
            f" {self.exact_milliseconds:.2f}, {self.exact_milliseconds_batched:.2f});"
            f" {self.bytes / 1e6:,.2f} MB (exact: {self.exact_bytes / 1e6:,.2f} MB){error}"
        )


def wilson(share: float, trials: int) -> Proportion:
    """95% score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22). For a mean of
    shares, one per query, it is wide enough: such a mean varies no more than one of zeros and
    ones."""
    if not trials:
        return Proportion(math.nan, math.nan, math.nan)
    middle, scale = share + Z**2 / (2 * trials), 1 + Z**2 / trials
    half = Z * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return Proportion(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def sample_of_gallery(embeddings: np.ndarray, *, tuning: bool = False) -> RecallQueries:
    """A sample of a gallery's own images, each left out of its own search. It depends on the
    gallery's size alone. The one for `tuning` is another, and overlaps only in a gallery of fewer
    than 2,000 images."""
    order = permutation("recall", len(embeddings), items=np.arange(len(embeddings)))
    rows = np.sort(order[-MOST:] if tuning else order[:MOST])
    description = "images of the gallery, each left out of its own search"
    return RecallQueries(embeddings[rows], rows, description)


def exact_finder(embeddings: np.ndarray) -> Finder:
    """The exact search of (images, dim) float32, which makes no copy of them."""
    import faiss

    def find(query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        similarities, rows = faiss.knn(query, embeddings, k, metric=faiss.METRIC_INNER_PRODUCT)
        return similarities, rows

    return find


def recalls(
    embeddings: np.ndarray, query: np.ndarray, exact: np.ndarray, approximate: np.ndarray, k: int
) -> np.ndarray:
    """(query) the share of the k rows that an index returns which are as near as the k exactly
    nearest, so that copies of an image count as each other (as in ANN-Benchmarks, Aumueller et al.
    2020; the recall@k of Jegou et al. 2011 asks only whether the nearest one is among them).

    `exact` and `approximate` are (query, k or more) rows of the gallery, nearest first.
    """
    farthest = (embeddings[exact[:, k - 1]] * query).sum(1)
    similarity = inner(embeddings, query, approximate[:, :k])
    return (similarity >= farthest[:, None] - SAME).mean(1)


def inner(embeddings: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(query, k) inner products of each query with the images in its rows."""
    return np.einsum("qkd,qd->qk", embeddings[rows], query)


def search_without_self(
    find: Finder, query: np.ndarray, own: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and rows. For queries that are in the gallery one more row is
    searched for, and the query itself, or else the last row, is left out."""
    if (own < 0).all():
        return find(query, k)
    similarities, rows = find(query, k + 1)
    itself = rows == own[:, None]
    itself[~itself.any(1), -1] = True
    return similarities[~itself].reshape(-1, k), rows[~itself].reshape(-1, k)


def measure_recall(
    find: Finder,
    embeddings: np.ndarray,
    queries: RecallQueries,
    size: int,
    progress: Progress = lambda message, done, total: None,
) -> IndexRecall:
    """Compare `find` with the exact search of `embeddings` (images, dim). `size` is the number of
    bytes of its file."""
    queries = queries.evenly_spaced()
    query = np.ascontiguousarray(queries.embeddings, np.float32)
    find_exactly = exact_finder(embeddings)
    k = min(K, len(embeddings) - 1)
    progress("measuring what the index misses", 0, 1)
    with one_thread():
        _, exact_rows = search_without_self(find_exactly, query, queries.own_rows, k)
        similarities, rows = search_without_self(find, query, queries.own_rows, k)
        single, batched = milliseconds(find, query, k)
        exact_single, exact_batched = milliseconds(find_exactly, query, k)
    at_1 = float(recalls(embeddings, query, exact_rows, rows, 1).mean())
    at_k = float(recalls(embeddings, query, exact_rows, rows, k).mean())
    errors = np.abs(similarities - inner(embeddings, query, rows))
    progress("measuring what the index misses", 1, 1)
    return IndexRecall(
        queries=len(query),
        query_source=queries.description,
        recall_at_1=wilson(at_1, len(query)),
        recall_at_10=wilson(at_k, len(query)),
        similarity_max_error=float(errors.max()),
        milliseconds=single,
        milliseconds_batched=batched,
        exact_milliseconds=exact_single,
        exact_milliseconds_batched=exact_batched,
        bytes=size,
        exact_bytes=embeddings.shape[0] * embeddings.shape[1] * 4,
    )


def tune_recall(
    find_among: Callable[[int], Finder], first: int, cells: int, embeddings: np.ndarray
) -> int:
    """The number of cells to search: the least that is tried, from `first` to all `cells`, with
    which recall@1 on a sample of the gallery (images, dim) reaches 0.95 with 95% confidence, or
    beyond which more cells gain nothing.

    `find_among` gives the search among a number of cells.
    """
    queries = sample_of_gallery(embeddings, tuning=True)
    query = np.ascontiguousarray(queries.embeddings, np.float32)
    k = min(K, len(embeddings) - 1)

    def recall(find: Finder) -> float:
        rows = search_without_self(find, query, queries.own_rows, k)[1]
        return float(recalls(embeddings, query, exact_rows, rows, 1).mean())

    with one_thread():
        exact_rows = search_without_self(exact_finder(embeddings), query, queries.own_rows, k)[1]
        nprobe, reached = first, recall(find_among(first))
        while wilson(reached, len(query)).low < GOAL and nprobe < cells:
            more = min(cells, math.ceil(GROWTH * nprobe))
            with_more = recall(find_among(more))
            if with_more - reached < GAIN:
                break
            nprobe, reached = more, with_more
    return nprobe


def milliseconds(find: Finder, query: np.ndarray, k: int) -> tuple[float, float]:
    """The median time of one search: one at a time, and in batches."""
    batch = np.resize(query, (BATCH, query.shape[1]))
    single = [seconds(find, batch[row : row + 1], k) for row in range(SINGLE)]
    batched = [seconds(find, batch, k) / BATCH for _ in range(TIMES)]
    return 1000 * statistics.median(single), 1000 * statistics.median(batched)


def seconds(find: Finder, query: np.ndarray, k: int) -> float:
    """The time of one call."""
    start = time.perf_counter()
    find(query, k)
    return time.perf_counter() - start
