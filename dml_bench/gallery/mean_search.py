"""A search by class means: the class whose mean embedding is the nearest, in place of that of the
nearest photo."""

import numpy as np

from dml_bench.evaluation.class_means import class_means
from dml_bench.evaluation.search import Neighbours, search
from dml_bench.gallery.store import Gallery

__all__ = ["mean_search"]


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
