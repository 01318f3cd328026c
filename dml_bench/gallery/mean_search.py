"""A search by class means: the class whose mean embedding is the nearest, in place of that of the
nearest photo."""

import numpy as np

from dml_bench.evaluation.class_means import class_means
from dml_bench.evaluation.few_shot import sums, unit
from dml_bench.evaluation.search import Neighbours, search
from dml_bench.gallery.store import Gallery

__all__ = ["mean_search", "means_without_query"]


def mean_search(gallery: Gallery, query: np.ndarray, labels: np.ndarray, k: int) -> Neighbours:
    """The k nearest classes of each query, all of them where there are fewer. A class stands in the
    indices as its photo that is nearest to its mean; similarities are those of the means."""
    means, classes = class_means(np.asarray(gallery.embeddings), gallery.labels)
    to_own_mean = np.einsum("id,id->i", gallery.embeddings, means[gallery.labels])
    order = np.lexsort((-to_own_mean, gallery.labels))
    _, first = np.unique(gallery.labels[order], return_index=True)
    nearest = search(means, query, classes, labels, min(k, len(classes)))
    return Neighbours(
        indices=order[first][nearest.indices],
        similarities=nearest.similarities,
        gallery_labels=gallery.labels,
        query_labels=nearest.query_labels,
    )


def means_without_query(
    gallery: Gallery, query: np.ndarray, own_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(query) the similarity and (query) the class of the nearest class mean, where the mean of a
    query's own class is that of its other images, as if the query were not enrolled.

    Args: query: (query, dim) unit vectors. own_rows: (query) their rows in the gallery, -1 for
    those that are not in it.
    """
    nearest = mean_search(gallery, query, np.full(len(query), -1), 2)
    own = np.where(own_rows >= 0, gallery.labels[own_rows], -1)
    totals = sums(np.asarray(gallery.embeddings), gallery.labels, len(gallery.class_names))
    of_others = unit(totals[own] - gallery.embeddings[own_rows])
    has_others = (own_rows >= 0) & (np.bincount(gallery.labels)[own] > 1)
    to_own = np.where(has_others, np.einsum("qd,qd->q", query, of_others), -np.inf)
    rows = np.arange(len(query))
    to_others = np.where(nearest.labels == own[:, None], -np.inf, nearest.similarities)
    place = to_others.argmax(axis=1)
    to_other, other = to_others[rows, place], nearest.labels[rows, place]
    own_is_nearer = (to_own > to_other) | ((to_own == to_other) & (own < other))
    labels = np.where(own_is_nearer, own, other)
    return np.where(own_is_nearer, to_own, to_other).astype(np.float32), labels
