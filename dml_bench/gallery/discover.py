"""New classes among photos: those that the threshold rejects are clustered, and each cluster is
proposed as a class.

Nothing is enrolled here. A person names, merges or drops what is proposed.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from dml_bench.data.images import Unreadable
from dml_bench.evaluation.discovery import (
    FEWEST,
    GRAPH_PURITY,
    LINKAGE_PURITY,
    Agreement,
    agreement_of,
    graph_clusters,
    hdbscan_clusters,
    link_similarity,
    linkage_clusters,
)
from dml_bench.gallery.calibration import HeldOutQueries, enrolled_queries, run_queries
from dml_bench.gallery.embedder import GalleryEmbedder
from dml_bench.gallery.index_store import exact_search
from dml_bench.gallery.predict import AppliedThreshold
from dml_bench.gallery.store import Gallery
from dml_bench.registry import UnknownName, near_miss
from dml_bench.registry.names import composed
from dml_bench.runs.run import Run

__all__ = [
    "METHODS",
    "ClusterMethod",
    "Clusterer",
    "Discovery",
    "LabelledPhotos",
    "NeverTrainedOn",
    "NoLink",
    "Proposal",
    "choose_clusterer",
    "chosen_link",
    "discover",
    "never_trained_on",
]

ClusterMethod = Literal["linkage", "graph", "hdbscan"]
METHODS: tuple[ClusterMethod, ...] = get_args(ClusterMethod)
PURITIES = {"linkage": LINKAGE_PURITY, "graph": GRAPH_PURITY}
FEWEST_PAIRS = 100
"""Pairs of one class on which the similarity of a link is chosen. On 24 such pairs of drawn birds
it changed from seed to seed, or there was none."""
COPY = 1e-6
"""By so much at most, the similarity of a copy is rounded below 1."""


class NoLink(ValueError):
    """No similarity of a link can be chosen."""


@dataclass(frozen=True, slots=True)
class NeverTrainedOn:
    """Images of classes in a gallery, on which a network was not trained."""

    images: HeldOutQueries
    are_queries: np.ndarray
    """(test images) bool: the run's test images that are among them."""


@dataclass(frozen=True, slots=True)
class Clusterer:
    """A way to cluster embeddings."""

    method: ClusterMethod
    link: float | None
    """The similarity from which on photos are linked; None for HDBSCAN, which has none."""
    source: str
    """How method and link were chosen, as a sentence."""
    fewest: int = FEWEST
    """Photos that make a cluster."""

    def clusters(self, embeddings: np.ndarray) -> np.ndarray:
        """(images) of (images, dim) unit vectors."""
        if self.link is None:
            return hdbscan_clusters(embeddings, self.fewest)
        cluster = linkage_clusters if self.method == "linkage" else graph_clusters
        return cluster(embeddings, self.link, self.fewest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Photos that may be of one new class."""

    photos: tuple[Path, ...]
    """The most typical first: the most similar to all others."""
    similarity: float
    """The mean similarity of two of them, -1 to 1."""
    closest_class: str
    """The class of the gallery that most of them are closest to."""
    closest_similarity: float
    """The mean similarity of a photo to the closest image of the gallery."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPhotos:
    """What became of photos whose classes are known."""

    new_photos: int
    """The photos of classes that the gallery lacks."""
    rejected: float
    """The share of these that the threshold rejects; nan without any."""
    new_share: float
    """Of all photos that it rejects, the share that are of such classes; nan without any."""
    agreement: Agreement | None
    """Of the clusters of the rejected photos; None where there are none, or they aren't
    clustered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Discovery:
    """What is proposed for photos."""

    proposals: tuple[Proposal, ...]
    """The largest first."""
    others: tuple[Path, ...]
    """Unknown photos that are in no proposal."""
    known: int
    """Photos that the gallery answers."""
    unreadable: tuple[Unreadable, ...]
    """Files that could not be read as images."""
    threshold: AppliedThreshold
    clusterer: Clusterer
    labelled: LabelledPhotos | None
    """None where the classes of the photos aren't known."""

    @property
    def photos(self) -> tuple[Path, ...]:
        """All unknown photos, those of proposals first."""
        proposed = [photo for proposal in self.proposals for photo in proposal.photos]
        return (*proposed, *self.others)


def choose_clusterer(
    run: Run,
    phase: str,
    gallery: Gallery,
    *,
    method: str = "",
    link: float | None = None,
    fewest: int = FEWEST,
) -> Clusterer:
    """The way to cluster that a person names. Without a method it is average linkage where the
    similarity of a link can be chosen, and HDBSCAN where it can't. Raises UnknownName, and
    ValueError where a link is needed and can't be chosen."""
    if method and method not in METHODS:
        raise UnknownName(
            f"--by {method}: there is no such way{near_miss(method, list(METHODS))}; there are:"
            f" {', '.join(METHODS)}"
        )
    if fewest < 2:
        raise ValueError(f"--fewest must be at least 2, got {fewest}: one photo makes no cluster")
    if method == "hdbscan":
        if link is not None:
            raise ValueError("--link is of linkage and graph: leave it out, or --by hdbscan")
        return Clusterer("hdbscan", None, "HDBSCAN was asked for", fewest)
    chosen: ClusterMethod = "graph" if method == "graph" else "linkage"
    if link is not None:
        return Clusterer(chosen, link, "the similarity of a link was set", fewest)
    images = never_trained_on(run, phase, gallery).images
    try:
        similarity = chosen_link(images, chosen)
    except NoLink as problem:
        if method:
            raise NoLink(
                f"--by {method} needs --link: {problem}; give --link, or use --by hdbscan"
            ) from None
        return Clusterer("hdbscan", None, f"HDBSCAN, because {problem}", fewest)
    classes = len(set(images.names.tolist()))
    source = (
        f"of pairs of {len(images.labels):,} images of {classes} classes that were not trained"
        f" on, {PURITIES[chosen]:.0%} of those at least so similar are of one class"
    )
    return Clusterer(chosen, similarity, source, fewest)


def never_trained_on(
    run: Run, phase: str, gallery: Gallery, *, half: bool = False
) -> NeverTrainedOn:
    """The run's validation images and the enrolled images, of classes in the gallery. Where these
    are too few to choose a link, and the run's test images of such classes make them enough, these
    too; with `half`, those of every second class."""
    embeddings = run.embeddings(phase)
    images = enrolled_queries(run, embeddings, gallery)
    if "valid" in embeddings.parts:
        images = run_queries(run, embeddings, "valid", gallery).concatenated(images)
    images = images.rows(images.labels >= 0)
    queries = run_queries(run, embeddings, "query", gallery)
    are_queries = np.zeros(len(queries.labels), bool)
    if pairs_of_one_class(images.labels) < FEWEST_PAIRS:
        chosen = (queries.labels >= 0) & (queries.labels % (2 if half else 1) == 0)
        with_queries = images.concatenated(queries.rows(chosen))
        if pairs_of_one_class(with_queries.labels) >= FEWEST_PAIRS:
            images, are_queries = with_queries, chosen
    return NeverTrainedOn(images.evenly_spaced(), are_queries)


def pairs_of_one_class(labels: np.ndarray) -> int:
    """How many pairs of (images) classes are equal."""
    sizes = np.unique(labels, return_counts=True)[1]
    return int((sizes * (sizes - 1) // 2).sum())


def chosen_link(images: HeldOutQueries, method: ClusterMethod) -> float:
    """The similarity from which on photos are linked. Raises NoLink where there are too few images,
    or where classes are too similar for any."""
    if pairs_of_one_class(images.labels) < FEWEST_PAIRS:
        raise NoLink(
            f"a link is chosen on at least {FEWEST_PAIRS} pairs of images of one class that were"
            " not trained on, and the run has fewer"
        )
    link = link_similarity(images.embeddings, images.labels, PURITIES[method])
    if np.isnan(link):
        raise NoLink(
            f"at no similarity are {PURITIES[method]:.0%} of the pairs of known images of one"
            " class, so similar are the classes to this network"
        )
    return link


def discover(
    gallery: Gallery,
    network: GalleryEmbedder,
    photos: Sequence[Path],
    *,
    threshold: AppliedThreshold,
    clusterer: Clusterer,
    labels: Mapping[Path, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Discovery:
    """Cluster the photos whose closest image does not reach the threshold. `labels` are the classes
    of all photos, where they are known."""
    embedded = network.embed(photos, lambda done: progress(done, len(photos)))
    closest_classes: list[str] = []
    similarity = np.empty(0, np.float32)
    if embedded.paths:
        nowhere = np.full(len(embedded.paths), -1)
        neighbours = exact_search(gallery, embedded.embeddings, nowhere, 1)
        closest_classes = [gallery.class_names[label] for label in neighbours.labels[:, 0]]
        similarity = neighbours.similarities[:, 0]
    least = threshold.value
    if 1 - COPY < least <= 1:
        least = 1 - COPY
    unknown = np.flatnonzero(similarity < least)
    clusters = clusterer.clusters(embedded.embeddings[unknown])
    proposals = []
    for cluster in range(clusters.max(initial=-1) + 1):
        rows = unknown[clusters == cluster]
        vectors = embedded.embeddings[rows]
        order = np.argsort(-(vectors @ vectors.mean(0)), kind="stable")
        names = Counter(closest_classes[row] for row in rows)
        proposals.append(
            Proposal(
                photos=tuple(embedded.paths[row] for row in rows[order]),
                similarity=mean_similarity(vectors),
                closest_class=names.most_common(1)[0][0],
                closest_similarity=float(similarity[rows].mean()),
            )
        )
    labelled = None
    if labels is not None:
        names_of_photos = np.array([composed(labels[path]) for path in embedded.paths], object)
        labelled = on_labelled(gallery, names_of_photos, unknown, clusters)
    return Discovery(
        proposals=tuple(sorted(proposals, key=lambda proposal: -len(proposal.photos))),
        others=tuple(embedded.paths[row] for row in unknown[clusters < 0]),
        known=len(embedded.paths) - len(unknown),
        unreadable=embedded.unreadable,
        threshold=threshold,
        clusterer=clusterer,
        labelled=labelled,
    )


def mean_similarity(vectors: np.ndarray) -> float:
    """Of two of (images, dim) unit vectors, by their sum: there are too many pairs to list."""
    count, total = len(vectors), vectors.sum(axis=0, dtype=float)
    return float((total @ total - count) / (count * (count - 1)))


def on_labelled(
    gallery: Gallery, names: np.ndarray, unknown: np.ndarray, clusters: np.ndarray | None = None
) -> LabelledPhotos:
    """What the threshold and the clusters made of (photos) classes, by the names that are compared;
    `unknown` are the places of the rejected photos, `clusters` those that they are in."""
    is_new = ~np.isin(names, [composed(name) for name in gallery.class_names])
    return LabelledPhotos(
        new_photos=int(is_new.sum()),
        rejected=float(is_new[unknown].sum() / is_new.sum()) if is_new.any() else np.nan,
        new_share=float(is_new[unknown].mean()) if len(unknown) else np.nan,
        agreement=(
            agreement_of(names[unknown], clusters)
            if clusters is not None and len(unknown)
            else None
        ),
    )
