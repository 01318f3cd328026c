"""Sessions of photos, estimated from embeddings: chains of photos of one class that are nearer to
each other than photos of that class which were taken one by one would be.

Inside a class, the number of photos within a distance r grows like r to the power of a dimension.
Its dimension comes from distances between those to the nearest quarter and to the nearest half of
the class, which few sessions reach. What that predicts near a photo is compared with what lies
there. Two photos are linked where each of them expects at most `LARGEST_EXPECTED` photos so near;
linked photos are of one session.

So sessions of more than a quarter of their class are not seen. `chance` is the same estimate of
photos without sessions: for each class as many as it has, from a normal distribution with its
covariance. Frozen features suit; training draws photos of one class together.
`benchmarks/session_chains.py` measures it.
"""

from collections.abc import Iterator

import numpy as np

from dml_bench.data.datasets import Dataset
from dml_bench.data.sessions import Sessions, share_beside
from dml_bench.runs.run import Run

__all__ = ["chains", "embeddings_in_order", "sessions_of_embeddings"]

LARGEST_EXPECTED = 0.25
"""Photos expected within the distance of two that are linked."""
SMALLEST_CLASS = 8
"""In smaller classes there are no distances to compare with."""


def embeddings_in_order(run: Run, dataset: Dataset) -> np.ndarray:
    """(images, dim) unit vectors of a run, in the order of the data set. Raises ValueError where
    the run is of other images."""
    if run.dataset_fingerprint != dataset.fingerprint:
        raise ValueError(
            f"{run.folder} is of other images (fingerprint {run.dataset_fingerprint[:12]},"
            f" {dataset.root} has {dataset.fingerprint[:12]}): name a run of this data set"
        )
    stored = run.embeddings(run.protocol.main_phase)
    vectors = np.full((len(dataset), stored.gallery.shape[1]), np.nan, np.float32)
    for part in stored.parts:
        vectors[stored.images(part)] = stored.vectors(part)
    if np.isnan(vectors).any():
        raise ValueError(
            f"{run.folder} has not embedded all images of {dataset.name}: name a run whose gallery"
            " and queries are all images, e.g. of frozen_efficientnet_lite0"
        )
    return vectors


def sessions_of_embeddings(
    embeddings: np.ndarray, labels: np.ndarray, test_fraction: float
) -> Sessions:
    """What a random split would do to chains of (images, dim) unit vectors."""
    alone = one_by_one(embeddings, labels)
    dimension = dimension_of(embeddings, labels)
    return Sessions(
        rule="",
        beside=share_beside(labels, chains(embeddings, labels), test_fraction),
        chance=share_beside(labels, chains(alone, labels, dimension), test_fraction),
    )


def chains(
    embeddings: np.ndarray, labels: np.ndarray, dimension: float | None = None
) -> np.ndarray:
    """(images) ids of chains, for (images, dim) unit vectors and (images) class ids. A photo that
    is linked to none has an id of its own; `dimension` is that of these vectors by default."""
    from scipy.sparse.csgraph import connected_components

    if dimension is None:
        dimension = dimension_of(embeddings, labels)
    ids = np.arange(len(labels))
    for images in large_classes(labels):
        apart = distances(embeddings[images])
        quarter = rank_of_quarter(len(images))
        radius = np.partition(apart, quarter - 1, axis=1)[:, [quarter - 1]]
        expected = quarter * (apart / radius) ** dimension
        linked = np.maximum(expected, expected.T) <= LARGEST_EXPECTED
        chain_of_image = connected_components(linked, directed=False)[1]
        first = np.unique(chain_of_image, return_index=True)[1]
        ids[images] = images[first[chain_of_image]]
    return ids


def large_classes(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The image indices of each class that is large enough."""
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        if len(images) >= SMALLEST_CLASS:
            yield images


def rank_of_quarter(count: int) -> int:
    return max(count // 4, 3)


def dimension_of(embeddings: np.ndarray, labels: np.ndarray) -> float:
    """The power with which the number of photos of a class grows with the distance; the middle one
    of the classes, 1 where no class is large enough."""
    growths = []
    for images in large_classes(labels):
        near, far = rank_of_quarter(len(images)), len(images) // 2
        ranked = np.sort(distances(embeddings[images]), axis=1)
        logs = np.log(ranked[:, far - 1] / ranked[:, near - 1])
        growths.append(np.log(far / near) / max(float(logs.mean()), 1e-6))
    return float(np.median(growths)) if growths else 1.0


def distances(vectors: np.ndarray) -> np.ndarray:
    """(images, images) Euclidean, of unit vectors; infinite from an image to itself."""
    squares = 2 - 2 * np.asarray(vectors, float) @ np.asarray(vectors, float).T
    apart: np.ndarray = np.sqrt(np.maximum(squares, 1e-12))
    np.fill_diagonal(apart, np.inf)
    return apart


def one_by_one(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(images, dim) unit vectors without sessions, with the means and covariances of the
    classes."""
    rng = np.random.default_rng(0)
    drawn = np.array(embeddings, float)
    for images in large_classes(labels):
        mean = drawn[images].mean(axis=0)
        mixed = rng.normal(size=(len(images), len(images))) @ (drawn[images] - mean)
        drawn[images] = mean + mixed / np.sqrt(len(images) - 1)
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit
