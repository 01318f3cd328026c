"""A finished run of drawn birds whose embeddings are set by hand, so that each view of `browse` has
something to show, and it is known what."""

import shutil
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from handmade import experiment, finish
from PIL import Image, ImageOps

from dml_bench.browse import projection
from dml_bench.data.digests import digest_of
from dml_bench.data.synthetic import write
from dml_bench.evaluation.search import search
from dml_bench.runs import layout
from dml_bench.runs.arrays import embeddings_digest, write_arrays, write_neighbours
from dml_bench.runs.folder import RunFolder
from dml_bench.system.files import write_csv

__all__ = ["PlantedRun", "plant"]

CLASSES, GALLERY, QUERIES, VALID = 5, 9, 5, 60
UNSEEN = CLASSES - 1
NOISE = 60
"""Dimensions in which images of a class differ."""


@dataclass
class PlantedRun:
    """Where the run and its images are, and the classes' names as `browse` shows them."""

    folder: Path
    images: Path
    names: tuple[str, ...]
    files: dict[str, list[str]] = field(default_factory=dict)
    """Of the gallery and of the queries, the files in their order, below `images`."""


class Vectors:
    """Unit vectors: one axis for each class, and dimensions of noise."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(4)

    def noise(self) -> np.ndarray:
        drawn = self.random.normal(size=NOISE)
        return np.concatenate([np.zeros(CLASSES), drawn / np.linalg.norm(drawn)])

    def of_class(self, label: int, noise: float = 0.5) -> np.ndarray:
        return unit(axis(label) + noise * self.noise())

    def of_classes(self, label: int, count: int) -> list[np.ndarray]:
        return [self.of_class(label) for _ in range(count)]

    def beside(
        self, other: np.ndarray, similarity: float, towards: np.ndarray | None = None
    ) -> np.ndarray:
        """Of this similarity to another, and for the rest of a direction of its own."""
        rest = self.noise() if towards is None else towards
        rest = unit(rest - (rest @ other) * other)
        return similarity * other + np.sqrt(1 - similarity**2) * rest


def axis(label: int) -> np.ndarray:
    return np.eye(CLASSES + NOISE)[label]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def plant(folder: Path, size: int = 96) -> PlantedRun:
    """Five classes, the last held out of `limited`, with nine gallery images and five queries each.

    Of class 0, query 1 is the mirrored picture of gallery image 0; 2, 3 and 4 are taken for class
    1, and the vote saves 4. Of class 1, the vote ruins query 3, and query 4 is of the session of
    gallery image 5. Gallery image 0 of class 2 lies among class 3. The last gallery image is near
    all queries. `limited` takes queries 0 and 1 of the unseen class for class 2, and knows none
    like query 2. Validation images of the classes and of strangers promise a threshold.
    """
    write(folder / "birds", counts=[GALLERY + QUERIES + 1] * CLASSES, size=size, seed=8)
    images = folder / "birds" / "images"
    names = tuple(sorted(path.name for path in images.iterdir()))
    files = [files_of(images, name) for name in names]
    vectors = Vectors()
    gallery = [vectors.of_classes(label, GALLERY) for label in range(CLASSES)]
    gallery[2][0] = vectors.of_class(3, 0.8)
    hub = unit(sum(axis(label) for label in range(CLASSES)))
    queries = [vectors.of_classes(label, QUERIES) for label in range(CLASSES)]
    queries[0][1] = vectors.beside(gallery[0][0], 0.999)
    queries[0][2] = vectors.beside(gallery[1][1], 0.9)
    queries[0][3] = vectors.beside(gallery[1][2], 0.8)
    queries[0][4] = vectors.beside(gallery[1][3], 0.72, axis(0))
    queries[1][3] = vectors.beside(gallery[1][4], 0.72, axis(2))
    queries[1][4] = vectors.beside(gallery[1][5], 0.995)
    of_limited = [list(of_class) for of_class in queries]
    of_limited[UNSEEN][0] = vectors.beside(gallery[2][1], 0.78)
    of_limited[UNSEEN][1] = vectors.beside(gallery[2][2], 0.75)
    of_limited[UNSEEN][2] = vectors.beside(gallery[UNSEEN][1], 0.5)
    valid_labels = [i % UNSEEN for i in range(VALID)]
    valid = [vectors.of_class(label, 0.8) for label in valid_labels]
    strangers = [vectors.noise() for _ in range(VALID)]

    mirrored = ImageOps.mirror(Image.open(images / files[0][0]))
    mirrored.save(images / files[0][GALLERY + 1], quality=92)
    labels = np.repeat(np.arange(CLASSES), GALLERY)
    parts = {
        "gallery": [*chain(*(of_class[:GALLERY] for of_class in files)), files[3][-1]],
        "query": [*chain(*(of_class[GALLERY:-1] for of_class in files))],
        "valid": [copy_of(images, files[0][0], f"valid {i}") for i in range(2 * VALID)],
    }
    part_labels = {
        "gallery": np.append(labels, 3),
        "query": np.repeat(np.arange(CLASSES), QUERIES),
    }
    named = np.array(names)
    classes = {part: named[labels].tolist() for part, labels in part_labels.items()}
    classes["valid"] = [*named[valid_labels].tolist(), *(f"stranger {i}" for i in range(VALID))]
    planned = experiment()
    right = [[1] * QUERIES] * CLASSES  # answers that are written over below
    run = finish(folder / "runs", planned, {"all": right, "limited": right}, 1, names=names)
    rows = []
    for part, name in (("gallery", "train"), ("query", "test"), ("valid", "valid")):
        for path, of_class in zip(parts[part], classes[part], strict=True):
            rows.append((path, of_class, name, digest_of(images / path)))
    write_csv(run.folder / layout.SPLIT, ("path", "class", "part", "sha256"), rows)
    for phase, of_phase in (("all", queries), ("limited", of_limited)):
        arrays = {
            "gallery": np.array([*np.concatenate(gallery), hub], np.float32),
            "query": np.concatenate(of_phase).astype(np.float32),
            "valid": np.array(valid + strangers, np.float32),
        }
        at = 0
        for part, paths in parts.items():
            arrays[f"{part}_images"] = np.arange(at, at + len(paths))
            at += len(paths)
        write_arrays(run.folder / phase / layout.EMBEDDINGS, arrays)
        neighbours = search(
            arrays["gallery"],
            arrays["query"],
            *(part_labels["gallery"], part_labels["query"], 10),
        )
        write_neighbours(run.folder / phase / layout.NEIGHBOURS, neighbours)
        keep_map(run.folder, phase, np.concatenate([arrays["gallery"], arrays["query"]]))
    RunFolder(folder / "runs", planned, "cub").write_summary(run.summary)
    return PlantedRun(run.folder, images, names, parts)


def files_of(images: Path, name: str) -> list[str]:
    return sorted(f"{name}/{path.name}" for path in (images / name).iterdir())


def copy_of(images: Path, path: str, name: str) -> str:
    copy = f"{Path(path).parent}/{name}.jpg"
    shutil.copy(images / path, images / copy)
    return copy


def keep_map(run: Path, phase: str, embeddings: np.ndarray) -> None:
    """A map with the classes on a circle, so that nothing waits for UMAP."""
    turns = np.linspace(0, 2 * np.pi, CLASSES, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], 1)
    spread = 0.25 * embeddings[:, CLASSES : CLASSES + 2]
    points = (embeddings[:, :CLASSES] @ circle + spread).astype(np.float32)
    facts = {
        "fitted": embeddings_digest(embeddings),
        "put into it": embeddings_digest(embeddings[:0]),
    }
    projection.write(layout.projection(run, phase), points, facts)
