"""The one search of an evaluation, kept as one value from which every metric, vote, plot and report
is computed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from dml_bench.system.shapes import Float, Int, shaped

__all__ = [
    "ENTRIES",
    "Neighbours",
    "ask",
    "flat_index",
    "in_parts",
    "nearest",
    "queries_at_a_time",
    "search",
    "search_leaving_one_out",
    "search_nearest_on",
    "search_views",
    "without_itself",
]

ENTRIES = 2**24
"""Neighbours of all queries together that are held at a time, and kept: at most about 70 bytes each
while they are searched and measured."""

ROWS = 4096
"""Queries whose similarities to the whole gallery a device holds at a time; FAISS takes as many."""
ROUNDING = 1e-4
"""More than FAISS's two ways to compute an inner product of unit vectors, of one query and of many,
differ by."""


@shaped
@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest gallery images of each query, nearest first; equally near ones in gallery
    order."""

    indices: Annotated[np.ndarray, Int("query k")]
    """(query, k) int64 positions in the gallery."""
    similarities: Annotated[np.ndarray, Float("query k")]
    """(query, k) float32 inner products of unit vectors, -1 to 1, descending."""
    gallery_labels: Annotated[np.ndarray, Int("gallery")]
    """(gallery) int64 class ids."""
    query_labels: Annotated[np.ndarray, Int("query")]
    """(query) int64 class ids."""
    leaves_one_out: bool = False
    """Whether each query is itself in the gallery, and left out of its own neighbours."""
    at_r: Annotated[np.ndarray, Float("query 2")] | None = None
    """(query, 2) float64 R-precision and MAP@R, where they were taken of more neighbours than are
    kept here."""
    first_relevant: Annotated[np.ndarray, Int("query")] | None = None
    """(query) place of the first neighbour of the query's class, from 1, or 0 where none was found,
    where it was taken of more neighbours than are kept here."""

    def __post_init__(self) -> None:
        assert self.indices.shape == self.similarities.shape
        assert len(self.indices) == len(self.query_labels)
        assert self.indices.size == 0 or 0 <= self.indices.min() <= self.indices.max() < len(
            self.gallery_labels
        )
        assert bool((np.diff(self.similarities, axis=1) <= 0).all()), "similarities must not rise"

    @property
    def k(self) -> int:
        """How many neighbours each query has."""
        return self.indices.shape[1]

    @property
    def labels(self) -> np.ndarray:
        """(query, k) class ids of the neighbours."""
        return self.gallery_labels[self.indices]

    def of(self, queries: np.ndarray) -> "Neighbours":
        """The same for some of the queries: a boolean mask or positions."""
        return replace(
            self,
            indices=self.indices[queries],
            similarities=self.similarities[queries],
            query_labels=self.query_labels[queries],
            at_r=None if self.at_r is None else self.at_r[queries],
            first_relevant=None if self.first_relevant is None else self.first_relevant[queries],
        )


def queries_at_a_time(k: int) -> int:
    """So many that memory does not grow with queries times `k`."""
    return max(ENTRIES // max(k, 1), 1)


def in_parts(
    num_queries: int,
    size: int,
    searched: Callable[[slice], Neighbours],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """The neighbours of all queries, searched for `size` of them at a time; `progress` hears of
    those that are done. Of several parts, similarities may differ in their last digit from those of
    one search: FAISS rounds otherwise for other numbers of queries."""
    parts = []
    for start in range(0, max(1, num_queries), size):
        progress(start, num_queries)
        parts.append(searched(slice(start, min(start + size, num_queries))))
    progress(num_queries, num_queries)
    if len(parts) == 1:
        return parts[0]
    of_relevant = [part.at_r for part in parts if part.at_r is not None]
    return replace(
        parts[0],
        indices=np.concatenate([part.indices for part in parts]),
        similarities=np.concatenate([part.similarities for part in parts]),
        query_labels=np.concatenate([part.query_labels for part in parts]),
        at_r=np.concatenate(of_relevant) if of_relevant else None,
    )


@shaped
def search(
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    query: Annotated[np.ndarray, Float("query dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
    query_labels: Annotated[np.ndarray, Int("query")],
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """Exact inner-product search (FAISS IndexFlatIP) of (query, dim) in (gallery, dim), both
    float32 unit vectors.

    Ties are broken by gallery order, also where they reach over the k-th place. k is cut to the
    size of the gallery. `progress` hears of queries that are done.
    """
    for name, embeddings in (("gallery", gallery), ("query", query)):
        if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
            raise ValueError(f"{name} embeddings are not of unit length (or not finite)")
    index = flat_index(gallery)

    def searched(rows: slice) -> Neighbours:
        similarities, indices = nearest(index, query[rows], k, len(gallery))
        return Neighbours(indices, similarities, gallery_labels, query_labels[rows])

    return in_parts(len(query), ROWS, searched, progress)


def nearest(
    index: Any, query: np.ndarray, k: int, size: int, params: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and positions that a flat FAISS index finds, ties broken by position,
    also where they reach over the k-th place.

    `size` is how many vectors are looked at, which `params` may narrow; k is cut to it.
    """
    k = min(k, size)
    query = np.ascontiguousarray(query, np.float32)
    similarities, indices = _ordered(*ask(index, query, min(k + 1, size), params))
    if similarities.shape[1] > k:
        # One more than k was searched: where the next one is exactly as near, FAISS may have left
        # out others as near that stand before those it kept.
        for row in np.flatnonzero(similarities[:, k - 1] == similarities[:, -1]):
            furthest = float(similarities[row, -1])
            similarities[row, :k], indices[row, :k] = first_of_ties(
                index, query[row : row + 1], k, furthest, params
            )
    return np.ascontiguousarray(similarities[:, :k]), np.ascontiguousarray(indices[:, :k])


def first_of_ties(
    index: Any, query: np.ndarray, k: int, furthest: float, params: Any
) -> tuple[np.ndarray, np.ndarray]:
    """(k) similarities and positions for one (1, dim) query whose k-th nearest, about as near as
    `furthest`, is exactly as near as others: the first of these. Only what is kept is sorted: where
    all embeddings are one point, the whole gallery is a tie, for each query."""
    by_range = getattr(index, "range_search_numpy", index.range_search)
    _, similarities, indices = by_range(query, np.float32(furthest - ROUNDING), params=params)
    least = np.partition(similarities, len(similarities) - k)[len(similarities) - k]
    nearer, ties = np.flatnonzero(similarities > least), np.flatnonzero(similarities == least)
    if (np.diff(indices[ties]) < 0).any():
        ties = ties[np.argsort(indices[ties])]
    chosen = np.concatenate([nearer, ties[: k - len(nearer)]])
    order = np.lexsort((indices[chosen], -similarities[chosen]))
    return similarities[chosen][order], indices[chosen][order]


def ask(index: Any, query: np.ndarray, k: int, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and positions by FAISS's own search: `faiss.contrib.torch_utils`,
    which pytorch-metric-learning imports, puts one in its place that knows no parameters."""
    nearest: tuple[np.ndarray, np.ndarray] = getattr(index, "search_numpy", index.search)(
        query, k, params=params
    )
    return nearest


def flat_index(gallery: np.ndarray) -> Any:
    """The FAISS index that `search` uses, of (gallery, dim) float32 vectors."""
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery, np.float32))
    return index


@shaped
def search_nearest_on(
    device: Any,
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    query: Annotated[np.ndarray, Float("query dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
    query_labels: Annotated[np.ndarray, Int("query")],
    *,
    leaving_one_out: bool = False,
) -> Neighbours:
    """The nearest one of each query, as `search`, or `search_leaving_one_out`, finds it for k = 1,
    by matrix products on a device of PyTorch's. Similarities may differ from FAISS's in their last
    digits."""
    import torch

    vectors = torch.from_numpy(np.ascontiguousarray(gallery, np.float32)).to(device)
    queries = torch.from_numpy(np.ascontiguousarray(query, np.float32)).to(device)
    columns = torch.arange(len(vectors), device=device)
    indices, similarities = [], []
    for part, rows in zip(
        queries.split(ROWS), torch.arange(len(queries), device=device).split(ROWS), strict=True
    ):
        similarity = part @ vectors.T
        if leaving_one_out:
            similarity = similarity.masked_fill(columns == rows[:, None], -torch.inf)
        highest = similarity.amax(dim=1, keepdim=True)
        # The first of those that are as near: which one argmax returns is not said.
        places = torch.where(similarity == highest, columns, len(vectors)).amin(dim=1)
        indices.append(places)
        similarities.append(highest)
    return Neighbours(
        torch.cat(indices)[:, None].cpu().numpy(),
        torch.cat(similarities).cpu().numpy(),
        gallery_labels,
        query_labels,
        leaves_one_out=leaving_one_out,
    )


@shaped
def search_leaving_one_out(
    embeddings: Annotated[np.ndarray, Float("images dim")],
    labels: Annotated[np.ndarray, Int("images")],
    k: int,
) -> Neighbours:
    """As `search` of (images, dim) among themselves, without each image's finding itself. k is cut
    to the number of other images."""
    return without_itself(search(embeddings, embeddings, labels, labels, k + 1))


def without_itself(neighbours: Neighbours, first: int = 0) -> Neighbours:
    """The neighbours of the gallery's own images from the `first` on, less each image itself, or
    the last of k + 1 where it is not among them."""
    itself = neighbours.indices == np.arange(first, first + len(neighbours.indices))[:, None]
    itself[~itself.any(1), -1] = True  # more than k copies stand before it
    shape = (len(neighbours.indices), neighbours.k - 1)
    return replace(
        neighbours,
        indices=neighbours.indices[~itself].reshape(shape),
        similarities=neighbours.similarities[~itself].reshape(shape),
        leaves_one_out=True,
    )


@shaped
def search_views(
    views: Annotated[np.ndarray, Float("views query dim")],
    gallery: Annotated[np.ndarray, Float("gallery dim")],
    gallery_labels: Annotated[np.ndarray, Int("gallery")],
    query_labels: Annotated[np.ndarray, Int("query")],
    k: int,
) -> Neighbours:
    """As `search`, for queries of several views (views, query, dim): the similarity is that of the
    most similar view.

    Exact: what is among the k most similar by that is among the k most similar to the view by which
    it is.
    """
    by_view = [search(gallery, view, gallery_labels, query_labels, k) for view in views]
    similarities = np.concatenate([neighbours.similarities for neighbours in by_view], axis=1)
    indices = np.concatenate([neighbours.indices for neighbours in by_view], axis=1)
    # By gallery image, the most similar view first; the other views of an image then go to the end.
    order = np.lexsort((-similarities, indices), axis=1)
    similarities = np.take_along_axis(similarities, order, 1)
    indices = np.take_along_axis(indices, order, 1)
    similarities[:, 1:][indices[:, 1:] == indices[:, :-1]] = -np.inf
    similarities, indices = _ordered(similarities, indices)
    k = by_view[0].k
    return Neighbours(
        np.ascontiguousarray(indices[:, :k]),
        np.ascontiguousarray(similarities[:, :k]),
        gallery_labels,
        query_labels,
    )


def _ordered(similarities: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same, nearest first and ties by position. In place; rows that are so already are left
    alone."""
    # Most rows have neither a tie nor anything out of order: sorting only the others is what makes
    # a large search cheap.
    rows = np.flatnonzero((similarities[:, 1:] >= similarities[:, :-1]).any(axis=1))
    order = np.lexsort((indices[rows], -similarities[rows]), axis=1)
    similarities[rows] = np.take_along_axis(similarities[rows], order, 1)
    indices[rows] = np.take_along_axis(indices[rows], order, 1)
    return similarities, indices
