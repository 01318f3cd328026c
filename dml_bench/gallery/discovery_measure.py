"""How well new classes are discovered, measured on classes that the network never trained on and
that are taken out of the gallery.

The photos are the run's test images. Threshold and links are chosen on images of other classes.
Where some of these are test images, they are not clustered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from dml_bench.data.datasets import Progress
from dml_bench.evaluation.discovery import (
    Agreement,
    agreement_of,
    estimated_number,
    graph_clusters,
    hdbscan_clusters,
    linkage_clusters,
    ward_clusters,
)
from dml_bench.gallery.discover import (
    ClusterMethod,
    LabelledPhotos,
    NoLink,
    chosen_link,
    never_trained_on,
    on_labelled,
)
from dml_bench.gallery.index_store import exact_search
from dml_bench.gallery.predict import threshold_of
from dml_bench.gallery.store import Gallery, GalleryFile, run_gallery

__all__ = [
    "LINKED",
    "WAYS",
    "ClusteredWays",
    "DiscoveryMeasure",
    "clusters_by_way",
    "measure_discovery",
    "test_images",
]

WAYS = {
    "linkage": "average linkage",
    "graph": "threshold graph",
    "hdbscan": "HDBSCAN",
    "ward_estimated": "Ward, number of classes estimated",
    "ward_known": "Ward, number of classes known",
}
"""Ways to cluster. The last is what can't be done on new photos: nobody knows the number."""
LINKED: tuple[ClusterMethod, ...] = ("linkage", "graph")
"""The ways that need the similarity of a link."""


@dataclass(frozen=True, slots=True)
class ClusteredWays:
    """What each way made of some images."""

    images: int
    agreements: dict[str, Agreement]
    """By the name in `WAYS`; those that need a link are missing where none can be chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscoveryMeasure:
    """What would be discovered of the held-out classes of a phase."""

    phase: str
    held_out: tuple[str, ...]
    links: dict[ClusterMethod, float]
    """The similarity of a link, by linkage and by graph; without those that can't be chosen."""
    without_link: dict[ClusterMethod, str]
    """Why the others can't be."""
    alone: ClusteredWays
    """Of the images of held-out classes, as if a threshold rejected these and no other."""
    threshold: float | None
    """None where no threshold was asked for."""
    labelled: LabelledPhotos | None
    """What the threshold rejects of all test images; None without one."""
    rejected: ClusteredWays | None
    """Of all images that the threshold rejects, without those on which a link was chosen."""


def measure_discovery(
    gallery_file: GalleryFile,
    *,
    threshold: float | None = None,
    precision: float | None = None,
    progress: Progress = lambda message, done, total: None,
) -> DiscoveryMeasure:
    """Take the held-out classes of the phase out of the run's own gallery and discover them.

    Raises ValueError where the phase has none, NoPromise where the precision can't be promised.
    """
    run, phase = gallery_file.run, gallery_file.phase
    held_out = run.protocol.held_out(run.summary).get(phase, [])
    if not held_out:
        names = ", ".join(run.protocol.held_out(run.summary))
        advice = f"use --phase, one of: {names}" if names else "train one with --set unseen=last:20"
        raise ValueError(f"phase {phase} of {run.folder} has no held-out classes: {advice}")
    gallery = without(run_gallery(run, phase), held_out)
    vectors, labels = test_images(gallery_file)
    chosen_on = never_trained_on(run, phase, gallery, half=True)
    links: dict[ClusterMethod, float] = {}
    without_link: dict[ClusterMethod, str] = {}
    for number, method in enumerate(LINKED):
        progress("choosing links", number, len(LINKED))
        try:
            links[method] = chosen_link(chosen_on.images, method)
        except NoLink as problem:
            without_link[method] = str(problem)
    progress("choosing links", len(LINKED), len(LINKED))
    is_new = np.isin(labels, held_out)
    alone = clusters_by_way(
        vectors[is_new], labels[is_new], links, partial(progress, "clustering held-out classes")
    )
    similarity, labelled, rejected = None, None, None
    if threshold is not None or precision is not None:
        applied = threshold_of(gallery_file, gallery, threshold=threshold, precision=precision)
        similarity = applied.value
        nearest = exact_search(gallery, vectors, np.full(len(labels), -1), 1).similarities[:, 0]
        unknown = np.flatnonzero(nearest < similarity)
        labelled = on_labelled(gallery, labels, unknown)
        unknown = unknown[~chosen_on.are_queries[unknown]]
        rejected = clusters_by_way(
            vectors[unknown],
            labels[unknown],
            links,
            partial(progress, "clustering what is unknown"),
        )
    return DiscoveryMeasure(
        phase=phase,
        held_out=tuple(held_out),
        links=links,
        without_link=without_link,
        alone=alone,
        threshold=similarity,
        labelled=labelled,
        rejected=rejected,
    )


def without(gallery: Gallery, class_names: list[str]) -> Gallery:
    """The gallery without some classes. Raises ValueError where none is left."""
    kept = [row for row, entry in enumerate(gallery.entries) if entry.class_name not in class_names]
    if not kept:
        raise ValueError(
            "the gallery has no class beside the held-out ones: measure a run of a protocol with"
            " known and unseen classes"
        )
    return Gallery(tuple(gallery.entries[row] for row in kept), gallery.embeddings[kept])


def test_images(gallery_file: GalleryFile) -> tuple[np.ndarray, np.ndarray]:
    """(images, dim) embeddings of the run's test images, and (images) their classes."""
    embeddings = gallery_file.run.embeddings(gallery_file.phase)
    split = gallery_file.run.split
    names = [split[image].class_name for image in embeddings.query_images]
    return embeddings.query, np.array(names, object)


def clusters_by_way(
    vectors: np.ndarray,
    labels: np.ndarray,
    links: dict[ClusterMethod, float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClusteredWays:
    """Of (images, dim) unit vectors with (images) classes, of which only the last way uses the
    number."""
    ways: dict[str, Callable[[], np.ndarray]] = {}
    if "linkage" in links:
        ways["linkage"] = lambda: linkage_clusters(vectors, links["linkage"])
    if "graph" in links:
        ways["graph"] = lambda: graph_clusters(vectors, links["graph"])
    ways["hdbscan"] = lambda: hdbscan_clusters(vectors)
    ways["ward_estimated"] = lambda: ward_clusters(vectors, estimated_number(vectors))
    ways["ward_known"] = lambda: ward_clusters(vectors, len(np.unique(labels)))
    agreements: dict[str, Agreement] = {}
    if len(labels) > 1:
        for name, clusters in ways.items():
            progress(len(agreements), len(ways))
            agreements[name] = agreement_of(labels, clusters())
        progress(len(ways), len(ways))
    return ClusteredWays(len(labels), agreements)
