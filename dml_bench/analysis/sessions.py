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

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dml_bench.config.experiments import resolve
from dml_bench.data.cache import view_of
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.images import boxed
from dml_bench.data.photos import photo_batches
from dml_bench.data.sessions import Sessions, share_beside
from dml_bench.runs.run import Run
from dml_bench.system.seeding import callers_draws_kept

if TYPE_CHECKING:
    from scipy.sparse import coo_array

__all__ = [
    "chained_sessions",
    "chains",
    "embeddings_in_order",
    "embeddings_of_backbone",
    "sessions_of_embeddings",
]

BATCH = 32
ROWS = 1024
"""Images of which distances to all others of their class are in memory."""

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


@callers_draws_kept()
def embeddings_of_backbone(
    backbone: str,
    dataset: Dataset,
    progress: Progress,
    settings: Sequence[str] = (),
    device: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """(readable, dim) unit vectors of a backbone with its published weights, and (readable) the
    indices of the images that could be read. `settings`, as `images.size=112`, change those of
    frozen_efficientnet_lite0. Raises ValueError where there is no such backbone, its
    weights can't be had, or no image can be read."""
    import torch

    from dml_bench.models.embedder import build_embedder, fold_where_it_pays
    from dml_bench.models.precision import autocast, network_precision
    from dml_bench.system.devices import choose_device
    from dml_bench.system.memory import keep_freed_memory

    keep_freed_memory()
    settings = [f"model.backbone={backbone}", *settings]
    experiment = resolve("frozen_efficientnet_lite0", overrides=settings)
    embedder = build_embedder(experiment).eval()
    place = choose_device(device)
    precision = network_precision(experiment.train.precision, place, embedder)
    embedder = embedder.to(place)
    fold_where_it_pays(embedder, experiment, place, precision)
    files = []
    for image, path in enumerate(dataset.paths):
        part = path
        if dataset.boxes is not None:
            left, top, width, height = dataset.boxes[image].tolist()
            part = boxed(path, (left, top, left + width, top + height))
        files.append(dataset.root / part)
    image_of = {file: image for image, file in enumerate(files)}
    vectors, readable, done = [], [], 0
    for batch in photo_batches(view_of(experiment.images), files, BATCH):
        if batch.paths:
            with autocast(place, precision):
                of_batch = embedder.embed(torch.from_numpy(batch.pixels).to(place))
            vectors.append(of_batch.cpu().numpy())
        readable += [image_of[Path(path)] for path in batch.paths]
        done += len(batch.paths) + len(batch.problems)
        progress("embedding images", done, len(files))
    if not vectors:
        raise ValueError(
            f"none of the {len(files)} images of {dataset.name} can be read: restore them"
        )
    return np.concatenate(vectors), np.array(readable)


def sessions_of_embeddings(
    embeddings: np.ndarray, labels: np.ndarray, test_fraction: float
) -> Sessions:
    """What a random split would do to chains of (images, dim) unit vectors."""
    return chained_sessions(embeddings, labels, test_fraction)[0]


def chained_sessions(
    embeddings: np.ndarray, labels: np.ndarray, test_fraction: float
) -> tuple[Sessions, np.ndarray]:
    """The same, and the `chains`."""
    alone = one_by_one(embeddings, labels)
    dimension = dimension_of(embeddings, labels)
    linked = chains(embeddings, labels, dimension)
    sessions = Sessions(
        rule="",
        beside=share_beside(labels, linked, test_fraction),
        chance=share_beside(labels, chains(alone, labels, dimension), test_fraction),
    )
    return sessions, linked


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
        linked = links(embeddings[images], dimension)
        chain_of_image = connected_components(linked, directed=False)[1]
        first = np.unique(chain_of_image, return_index=True)[1]
        ids[images] = images[first[chain_of_image]]
    return ids


def links(vectors: np.ndarray, dimension: float) -> "coo_array":
    """(images, images) which of the (images, dim) unit vectors of a class are linked."""
    from scipy.sparse import coo_array

    quarter = rank_of_quarter(len(vectors))
    (radius,) = nearest_distances(vectors, (quarter,))
    # quarter * (distance / radius) ** dimension is what is expected so near.
    limit = radius * (LARGEST_EXPECTED / quarter) ** (1 / dimension)
    pairs = []
    for rows, apart in distances(vectors):
        one, other = np.nonzero(apart <= np.minimum(limit[rows, None], limit))
        pairs.append(np.stack([rows[one], other]))
    ends = np.concatenate(pairs, axis=1)
    return coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(len(vectors),) * 2)


def nearest_distances(vectors: np.ndarray, ranks: Sequence[int]) -> np.ndarray:
    """(ranks, images) from each unit vector to that of each rank among the others, from 1."""
    places = [rank - 1 for rank in ranks]
    parts = [np.partition(apart, places, axis=1)[:, places] for _, apart in distances(vectors)]
    return np.concatenate(parts).T


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
        to_near, to_far = nearest_distances(embeddings[images], (near, far))
        logs = np.log(to_far / to_near)
        growths.append(np.log(far / near) / max(float(logs.mean()), 1e-6))
    return float(np.median(growths)) if growths else 1.0


def distances(vectors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of some rows at a time: which, and their (rows, images) Euclidean distances to all unit
    vectors; infinite from an image to itself."""
    vectors = np.asarray(vectors, float)
    for rows in blocks(len(vectors)):
        squares = 2 - 2 * vectors[rows] @ vectors.T
        apart = np.sqrt(np.maximum(squares, 1e-12))
        apart[np.arange(len(rows)), rows] = np.inf
        yield rows, apart


def blocks(count: int) -> list[np.ndarray]:
    """The numbers below `count`, in parts that leave memory free."""
    return np.array_split(np.arange(count), -(-count // ROWS))


def one_by_one(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(images, dim) unit vectors without sessions, with the means and covariances of the
    classes."""
    rng = np.random.default_rng(0)
    drawn = np.array(embeddings, float)
    for images in large_classes(labels):
        mean = drawn[images].mean(axis=0)
        centred = drawn[images] - mean
        sizes = [(len(rows), len(images)) for rows in blocks(len(images))]
        mixed = np.concatenate([rng.normal(size=size) @ centred for size in sizes])
        drawn[images] = mean + mixed / np.sqrt(len(images) - 1)
    unit: np.ndarray = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit
