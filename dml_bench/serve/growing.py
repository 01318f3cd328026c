"""A gallery in memory that grows at the cost of what joins it: vectors lie in an array with room
for more, and are searched where they lie."""

from typing import Any

import numpy as np

from dml_bench.evaluation.search import flat_index
from dml_bench.gallery.store import Gallery, GalleryImage

__all__ = ["GrowingVectors", "SearchInPlace", "extended"]

ROOM = 1.25
"""How many times the room that is needed an array gets."""


class GrowingVectors:
    """Vectors in one array. Earlier views of it stay as they are: rows are only added behind."""

    def __init__(self, vectors: np.ndarray):
        self._array = np.ascontiguousarray(vectors, np.float32)
        self._count = len(vectors)

    def with_more(self, vectors: np.ndarray) -> np.ndarray:
        """(all, dim) with (more, dim) at the end."""
        count = self._count + len(vectors)
        if count > len(self._array):
            array = np.empty((int(ROOM * count), self._array.shape[1]), np.float32)
            array[: self._count] = self._array[: self._count]
            self._array = array
        self._array[self._count : count] = vectors
        self._count = count
        return self._array[:count]


def extended(
    gallery: Gallery, entries: tuple[GalleryImage, ...], embeddings: np.ndarray
) -> Gallery:
    """As `gallery.joined`, with `embeddings` of all images. Labels are not counted out again."""
    longer = Gallery(gallery.entries + entries, embeddings)
    names, ids, labels = gallery.class_names, gallery.class_ids, gallery.labels
    added = {entry.class_name for entry in entries} - ids.keys()
    if added:
        names = tuple(sorted((*names, *added)))
        ids = {name: label for label, name in enumerate(names)}
        labels = np.array([ids[name] for name in gallery.class_names], np.int64)[labels]
    more = np.array([ids[entry.class_name] for entry in entries], np.int64)
    labels = np.concatenate([labels, more])
    # in place of what its properties would compute
    vars(longer).update(class_names=names, class_ids=ids, labels=labels)
    return longer


class SearchInPlace:
    """Searches as FAISS's flat index does, without a copy of the vectors."""

    def __init__(self, vectors: np.ndarray):
        self.vectors = vectors

    def search(
        self, query: np.ndarray, k: int, params: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(query, k) similarities and positions."""
        import faiss

        similarities, positions = faiss.knn(
            query, self.vectors, k, metric=faiss.METRIC_INNER_PRODUCT
        )
        return similarities, positions

    def range_search(
        self, query: np.ndarray, radius: float, params: Any = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The first part, the similarities and the positions of vectors beyond a radius from a
        (1, dim) query; the first part is not used."""
        near = np.flatnonzero(self.vectors @ query[0] > radius)
        index = flat_index(self.vectors[near])
        by_range = getattr(index, "range_search_numpy", index.range_search)
        first, similarities, positions = by_range(query, np.float32(radius))
        return first, similarities, near[positions]
