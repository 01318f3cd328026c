"""The one search of an evaluation, kept as one value from which every metric, vote, plot and report is computed."""

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Neighbours", "ask", "flat_index", "nearest", "search", "search_leaving_one_out", "search_views", "without_itself"]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest gallery images of each query, nearest first; equally near ones in gallery order."""

    indices: np.ndarray
    """(query, k) int64 positions in the gallery."""
    similarities: np.ndarray
    """(query, k) float32 inner products of unit vectors, -1 to 1, descending."""
    gallery_labels: np.ndarray
    """(gallery) int64 class ids."""
    query_labels: np.ndarray
    """(query) int64 class ids."""
    leaves_one_out: bool = False
    """Whether each query is itself in the gallery, and left out of its own neighbours."""

    def __post_init__(self) -> None:
        assert self.indices.shape == self.similarities.shape
        assert len(self.indices) == len(self.query_labels)
        assert self.indices.size == 0 or 0 <= self.indices.min() <= self.indices.max() < len(self.gallery_labels)
        assert bool((np.diff(self.similarities, axis=1) <= 0).all()), "similarities must not rise"

    @property
    def k(self) -> int:
        return self.indices.shape[1]

    @property
    def labels(self) -> np.ndarray:
        """(query, k) class ids of the neighbours."""
        return self.gallery_labels[self.indices]

    def of(self, queries: np.ndarray) -> "Neighbours":
        """The same for some of the queries: a boolean mask or positions."""
        return Neighbours(
            self.indices[queries], self.similarities[queries], self.gallery_labels, self.query_labels[queries], self.leaves_one_out
        )


def search(gallery: np.ndarray, query: np.ndarray, gallery_labels: np.ndarray, query_labels: np.ndarray, k: int) -> Neighbours:
    """Exact inner-product search (FAISS IndexFlatIP) of (query, dim) in (gallery, dim), both float32 unit vectors.

    Ties are broken by gallery order, also where they reach over the k-th place. k is cut to the size of the gallery.
    """
    for name, embeddings in (("gallery", gallery), ("query", query)):
        if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
            raise ValueError(f"{name} embeddings are not of unit length (or not finite)")
    similarities, indices = nearest(flat_index(gallery), query, k, len(gallery))
    return Neighbours(indices, similarities, gallery_labels, query_labels)


def nearest(index: Any, query: np.ndarray, k: int, size: int, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and positions that a flat FAISS index finds, ties broken by position, also where they reach over the k-th place.

    `size` is how many vectors are looked at, which `params` may narrow; k is cut to it.
    """
    k = min(k, size)
    query = np.ascontiguousarray(query, np.float32)
    similarities, indices = _ordered(*ask(index, query, min(k + 1, size), params))
    for row in np.flatnonzero(similarities[:, k - 1] == similarities[:, -1]) if similarities.shape[1] > k else ():
        everything = _ordered(*ask(index, query[row : row + 1], size, params))
        similarities[row], indices[row] = everything[0][0, : k + 1], everything[1][0, : k + 1]
    return np.ascontiguousarray(similarities[:, :k]), np.ascontiguousarray(indices[:, :k])


def ask(index: Any, query: np.ndarray, k: int, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """(query, k) similarities and positions by FAISS's own search: `faiss.contrib.torch_utils`, which pytorch-metric-learning imports, puts one in
    its place that knows no parameters."""
    found: tuple[np.ndarray, np.ndarray] = getattr(index, "search_numpy", index.search)(query, k, params=params)
    return found


def flat_index(gallery: np.ndarray) -> Any:
    """The FAISS index that `search` uses, of (gallery, dim) float32 vectors."""
    import faiss

    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(np.ascontiguousarray(gallery, np.float32))
    return index


def search_leaving_one_out(embeddings: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
    """As `search` of (images, dim) among themselves, without each image's finding itself. k is cut to the number of other images."""
    return without_itself(search(embeddings, embeddings, labels, labels, k + 1))


def without_itself(found: Neighbours) -> Neighbours:
    """The neighbours of the gallery's own images, less each image itself, or the last of k + 1 where it is not among them."""
    itself = found.indices == np.arange(len(found.indices))[:, None]
    itself[~itself.any(1), -1] = True  # more than k copies stand before it
    shape = (len(found.indices), found.k - 1)
    labels = found.gallery_labels
    return Neighbours(
        found.indices[~itself].reshape(shape), found.similarities[~itself].reshape(shape), labels, labels, leaves_one_out=True
    )


def search_views(views: np.ndarray, gallery: np.ndarray, gallery_labels: np.ndarray, query_labels: np.ndarray, k: int) -> Neighbours:
    """As `search`, for queries of several views (views, query, dim): the similarity is that of the most similar view.

    Exact: what is among the k most similar by that is among the k most similar to the view by which it is.
    """
    found = [search(gallery, view, gallery_labels, query_labels, k) for view in views]
    similarities = np.concatenate([each.similarities for each in found], axis=1)
    indices = np.concatenate([each.indices for each in found], axis=1)
    order = np.lexsort((-similarities, indices), axis=1)  # by gallery image, the most similar view first
    similarities, indices = np.take_along_axis(similarities, order, 1), np.take_along_axis(indices, order, 1)
    similarities[:, 1:][indices[:, 1:] == indices[:, :-1]] = -np.inf
    similarities, indices = _ordered(similarities, indices)
    k = found[0].k
    return Neighbours(np.ascontiguousarray(indices[:, :k]), np.ascontiguousarray(similarities[:, :k]), gallery_labels, query_labels)


def _ordered(similarities: np.ndarray, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((indices, -similarities), axis=1)
    return np.take_along_axis(similarities, order, 1), np.take_along_axis(indices, order, 1)
