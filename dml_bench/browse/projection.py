"""Embeddings as points in the plane, by UMAP (McInnes et al. 2018). The only module that imports
umap, and inside a function.

A map is fitted once: with a fixed seed and one thread it is the same bits on every call, and it is
kept in a file beside what the run sealed, with the SHA-256 of the embeddings that it is of. New
images are put into a map that stays as it is.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.evaluation.search import flat_index, search
from dml_bench.runs.arrays import embeddings_digest
from dml_bench.system.drafts import sweep
from dml_bench.system.files import Damaged, check, write_tensors

__all__ = ["aligned", "project"]

NEIGHBOURS = 15
FEWEST = 4
SETTINGS: dict[str, Any] = {
    "metric": "cosine",
    "min_dist": 0.1,
    "init": "pca",
    "random_state": 42,
    "n_jobs": 1,
}
"""A start from principal components keeps what is far apart apart (Kobak & Linderman 2021), and
needs no neighbours in common between classes, as UMAP's own start does."""
COPY = 1e-6
"""Distance up to which two embeddings are the same but for rounding."""


def project(embeddings: np.ndarray, new: np.ndarray, cache: Path) -> np.ndarray:
    """(images + new, 2) float32 places of (images, dim) unit vectors, which make the map, and of
    (new, dim) ones, which are put into it.

    Raises ValueError where there are too few images for a map, and where umap is missing and no map
    was kept.
    """
    if len(embeddings) < FEWEST:
        raise ValueError(
            f"a map must have at least {FEWEST} images, got {len(embeddings)}: use a run with more"
        )
    facts = {"fitted": embeddings_digest(embeddings), "put into it": embeddings_digest(new)}
    sweep(cache.parent)
    points, kept = read(cache)
    if kept.get("fitted") != facts["fitted"] or (len(new) and kept != facts):
        points = fit(embeddings, new)
        with suppress(OSError):  # a run folder that can't be written to
            write(cache, points, facts)
    return points[: len(embeddings) + len(new)]


def aligned(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """(points, 2) turned, mirrored and moved, but not stretched, to lie as near as can be to
    `onto`, of the same images in the same order (orthogonal Procrustes, Schönemann 1966). No
    direction of a map means anything, so two of them may be laid alike. Rows with nan in either
    don't count."""
    from scipy.linalg import orthogonal_procrustes

    both = np.isfinite(points).all(1) & np.isfinite(onto).all(1)
    centre, target = points[both].mean(0), onto[both].mean(0)
    turn, _ = orthogonal_procrustes(points[both] - centre, onto[both] - target)
    return (points - centre) @ turn + target


def fit(embeddings: np.ndarray, new: np.ndarray) -> np.ndarray:
    if np.ptp(embeddings, axis=0).max() < COPY:  # one point, of which UMAP's start makes nan
        return np.zeros((len(embeddings) + len(new), 2), np.float32)
    if embeddings.shape[1] == 1:  # of which there are no two principal components
        embeddings, new = (np.pad(vectors, ((0, 0), (0, 1))) for vectors in (embeddings, new))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of umap's imports, and that the search below is not its own
        try:
            from umap import UMAP
        except ImportError:
            raise ValueError(
                "a map of the embeddings needs umap-learn: pip install 'dml-bench[browse]'"
            ) from None
        k = min(NEIGHBOURS, len(embeddings) - 1)
        exact = ExactSearch(embeddings)
        mapping = UMAP(
            n_neighbors=k, precomputed_knn=(*exact.among_themselves(k), exact), **SETTINGS
        )
        with torch_threads_kept():
            points = mapping.fit_transform(embeddings)
            return np.concatenate([points, mapping.transform(new)]) if len(new) else points


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """PyTorch has the threads that it had, after what runs here.

    numba sets the number of threads of the OpenMP library that PyTorch uses too; a run that is
    trained after it in the same process would have other bits.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ExactSearch:
    """FAISS's search in place of UMAP's approximate one, which takes several times as long with its
    compilation."""

    _angular_trees = True
    """UMAP asks for it where it transforms."""

    def __init__(self, embeddings: np.ndarray):
        self.embeddings = embeddings

    def among_themselves(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(images, k) rows of the nearest, an image itself among them, and (images, k) cosine
        distances."""
        anything = np.zeros(len(self.embeddings), np.int64)
        neighbours = search(self.embeddings, self.embeddings, anything, anything, k)
        return neighbours.indices.astype(np.int32), distances(neighbours.similarities)

    def query(self, queries: np.ndarray, k: int, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
        similarities, rows = flat_index(self.embeddings).search(
            np.ascontiguousarray(queries, np.float32), k
        )
        return rows.astype(np.int32), distances(similarities)


def distances(similarities: np.ndarray) -> np.ndarray:
    """Cosine distances; UMAP takes the least one above zero for that of the nearest neighbour, so
    copies are at zero."""
    cosine = 1 - similarities
    return np.where(cosine < COPY, 0, cosine).astype(np.float32)


def read(path: Path) -> tuple[np.ndarray, dict[str, str]]:
    """A kept map and what it is of; nothing where there is none that can be read."""
    from safetensors import safe_open

    try:
        check(path)
        with safe_open(path, "numpy") as file:
            points, facts = file.get_tensor("points"), file.metadata()
        return points, {name: facts[name] for name in ("fitted", "put into it")}
    except (OSError, KeyError, Damaged):
        return np.empty((0, 2), np.float32), {}


def write(path: Path, points: np.ndarray, facts: dict[str, str]) -> None:
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, save({"points": np.ascontiguousarray(points, np.float32)}), **facts)
