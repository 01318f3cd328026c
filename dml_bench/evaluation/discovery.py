"""Images that are of no known class, clustered into what may be new classes, and how well such
clusters agree with the true classes.

Clusters are an array of (images) ids from 0; -1 is an image in no cluster. Nothing here knows the
classes of the images that it clusters, but for `agreement_of`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dml_bench.evaluation.statistics import Interval

__all__ = [
    "FEWEST",
    "GRAPH_PURITY",
    "LINKAGE_PURITY",
    "MOST",
    "PURE",
    "Agreement",
    "agreement_of",
    "estimated_number",
    "graph_clusters",
    "hdbscan_clusters",
    "link_similarity",
    "linkage_clusters",
    "ward_clusters",
]

FEWEST = 3
"""Images that make a cluster; fewer are in none."""
LINKAGE_PURITY, GRAPH_PURITY = 0.5, 0.9
"""Of pairs of images that are similar enough to be linked, the share of one class. One wrong link
makes one cluster of two in the graph, and not by average linkage. These and HDBSCAN's options were
chosen on heads of MobileNetV2 on grocery; reports/discover is of other backbones."""
PURE = 0.8
"""A cluster is pure if at least so much of it is of one class."""
DENSE = 5
"""Images of a cluster that counts where the number of classes is estimated."""
MOST = 20_000
"""Images that are clustered: the similarities of all pairs take 1.6 GB of memory."""


def linkage_clusters(embeddings: np.ndarray, similarity: float, fewest: int = FEWEST) -> np.ndarray:
    """Average linkage of (images, dim) unit vectors: two clusters become one while the mean
    similarity of their pairs is at least `similarity`."""
    from sklearn.cluster import AgglomerativeClustering

    require_few(embeddings)
    if len(embeddings) < 2:
        return np.full(len(embeddings), -1)
    clusterer = AgglomerativeClustering(
        n_clusters=None,
        metric="cosine",
        linkage="average",
        # Of a distance that is not below the threshold, scikit-learn makes no cluster.
        distance_threshold=np.nextafter(1 - similarity, np.inf),
    )
    return without_small(clusterer.fit_predict(np.asarray(embeddings, float)), fewest)


def graph_clusters(embeddings: np.ndarray, similarity: float, fewest: int = FEWEST) -> np.ndarray:
    """The connected components of the threshold graph, which links (images, dim) unit vectors that
    are at least so similar."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import radius_neighbors_graph

    require_few(embeddings)
    if len(embeddings) < 2:
        return np.full(len(embeddings), -1)
    radius = np.sqrt(max(2 - 2 * similarity, 0.0))
    graph = radius_neighbors_graph(np.asarray(embeddings, float), radius)
    return without_small(connected_components(graph, directed=False)[1], fewest)


def hdbscan_clusters(embeddings: np.ndarray, fewest: int = FEWEST) -> np.ndarray:
    """HDBSCAN of (images, dim) unit vectors (Campello et al. 2013), which needs no similarity."""
    from sklearn.cluster import HDBSCAN

    require_few(embeddings)
    if len(embeddings) < fewest:
        return np.full(len(embeddings), -1)
    clusterer = HDBSCAN(min_cluster_size=fewest, min_samples=fewest, copy=True)
    return np.asarray(clusterer.fit_predict(np.asarray(embeddings, float)), np.int64)


def ward_clusters(embeddings: np.ndarray, num_clusters: int) -> np.ndarray:
    """Ward's clusters of (images, dim) unit vectors, as many as are wanted: every image is in
    one."""
    from sklearn.cluster import AgglomerativeClustering

    require_few(embeddings)
    clusterer = AgglomerativeClustering(n_clusters=num_clusters, linkage="ward")
    labels: np.ndarray = clusterer.fit_predict(np.asarray(embeddings, float))
    return labels


def estimated_number(embeddings: np.ndarray) -> int:
    """How many classes (images, dim) unit vectors are of, by the number of HDBSCAN's clusters of at
    least five images; at least 1."""
    from sklearn.cluster import HDBSCAN

    require_few(embeddings)
    if len(embeddings) < DENSE:
        return 1
    clusterer = HDBSCAN(min_cluster_size=DENSE, min_samples=3, copy=True)
    return max(int(clusterer.fit_predict(np.asarray(embeddings, float)).max()) + 1, 1)


def require_few(embeddings: np.ndarray) -> None:
    if len(embeddings) > MOST:
        raise ValueError(
            f"at most {MOST:,} unknown images can be clustered, got {len(embeddings):,}: give a"
            " part of them"
        )


def without_small(clusters: np.ndarray, fewest: int) -> np.ndarray:
    """The clusters that have enough images, numbered from 0, the largest first; -1 for all other
    images."""
    sizes = np.bincount(clusters)
    order = np.argsort(-sizes, kind="stable")
    numbers = np.full(len(sizes), -1)
    large = order[sizes[order] >= fewest]
    numbers[large] = np.arange(len(large))
    return numbers[clusters]


def link_similarity(embeddings: np.ndarray, labels: np.ndarray, purity: float) -> float:
    """The lowest similarity such that, of the pairs of images that are at least so similar, the
    share `purity` or more is of one class. nan where no similarity has that.

    `embeddings` are (images, dim) unit vectors that the network was not trained on, `labels`
    (images) their classes.
    """
    first, second = np.triu_indices(len(labels), 1)
    similarity = (embeddings @ embeddings.T)[first, second].astype(float)
    same = labels[first] == labels[second]
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order]
    last_of_equals = np.flatnonzero(np.append(falling[:-1] != falling[1:], len(falling) > 0))
    share = (np.cumsum(same[order]) / np.arange(1, len(order) + 1))[last_of_equals]
    pure = np.flatnonzero(share >= purity)
    return float(falling[last_of_equals[pure[-1]]]) if len(pure) else np.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well clusters are classes. An image in no cluster counts as a cluster of its own.

    The intervals are over classes: with others of the same kind, the numbers would lie there."""

    ari: Interval
    """Adjusted Rand index (Hubert & Arabie 1985): 1 is perfect, 0 is what chance gives."""
    ami: Interval
    """Adjusted mutual information (Vinh et al. 2010), by the arithmetic mean: 1 is perfect, 0 is
    what chance gives."""
    clusters: int
    """The clusters, those of single images not counted."""
    classes: int
    """The true classes."""
    clustered: float
    """The share of the images that are in a cluster."""
    pure: float
    """The share of the clusters that are `PURE`; nan without clusters."""
    covered: int
    """The classes that have a pure cluster."""


def agreement_of(labels: np.ndarray, clusters: np.ndarray) -> Agreement:
    """Of (images) true classes and (images) clusters. Raises ValueError without images."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    if not len(labels):
        raise ValueError("clusters without images agree with nothing: give images")
    classes, ids = np.unique(labels, return_inverse=True)
    single = alone_as_clusters(clusters)
    sizes, largest, of_class = [], [], []
    for cluster in np.unique(clusters[clusters >= 0]):
        counts = np.bincount(ids[clusters == cluster], minlength=len(classes))
        sizes.append(counts.sum())
        largest.append(counts.max())
        of_class.append(counts.argmax())
    is_pure = np.array(largest) >= PURE * np.array(sizes)
    return Agreement(
        ari=over_classes(adjusted_rand_score, ids, single),
        ami=over_classes(adjusted_mutual_info_score, ids, single),
        clusters=len(sizes),
        classes=len(classes),
        clustered=float((clusters >= 0).mean()),
        pure=float(is_pure.mean()) if sizes else np.nan,
        covered=len(set(np.array(of_class)[is_pure].tolist())) if sizes else 0,
    )


def alone_as_clusters(clusters: np.ndarray) -> np.ndarray:
    """Each image in no cluster becomes a cluster of its own."""
    clusters = clusters.copy()
    alone = clusters < 0
    first = clusters.max(initial=-1) + 1
    clusters[alone] = np.arange(first, first + alone.sum())
    return clusters


def over_classes(
    score: Callable[[np.ndarray, np.ndarray], float], ids: np.ndarray, clusters: np.ndarray
) -> Interval:
    """A score of agreement, at most 1, with the jackknife's 95% interval over classes (Tukey 1958):
    each class is left out once, and the clusters of all others stay.

    The interval is one of log(1 - score): a few mixed classes among pure ones make the score skew,
    and the plain jackknife held the mean of all draws in 83-93% of draws of 4 to 15 simulated
    classes with mean scores of 0.5 to 0.9, this one in 87-98%.
    """
    estimate = float(score(ids, clusters))
    count = int(ids.max()) + 1
    if count < 2:
        return Interval.around(estimate, 0.0, 1.0, within=(-1.0, 1.0))
    others = []
    for label in range(count):
        kept = ids != label
        others.append(score(ids[kept], clusters[kept]))
    deviations = np.array(others) - np.mean(others)
    error = float(np.sqrt((count - 1) / count * (deviations**2).sum()))
    plain = Interval.around(estimate, error, count - 1.0, within=(-1.0, 1.0))
    if not error or estimate >= 1:
        return plain
    missing = 1 - estimate
    of_log = Interval.around(math.log(missing), error / missing, count - 1.0)
    low, high = 1 - math.exp(of_log.high), 1 - math.exp(of_log.low)
    return replace(plain, low=max(low, -1.0), high=high)
