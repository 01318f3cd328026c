"""The images whose maps are made: queries of the run by class, by mistake or spread over the
classes, or a person's own photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dml_bench.data.cache import view_of
from dml_bench.data.images import decode, photo_file
from dml_bench.registry.names import label_named
from dml_bench.runs.run import Run

__all__ = [
    "ExplainedImage",
    "RunImages",
    "choose_images",
    "mistaken_queries",
    "own_photos",
    "queries_of_class",
    "spread_over_classes",
]


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """An image to be explained."""

    file: Path
    path: str
    """The path relative to the data set's root; empty for a photo that is not of the data set."""
    label: int
    """The class id, or -1 where it is not known."""
    index: int
    """The index in the run's data set, or -1 for other photos."""


class RunImages:
    """A run's images as files, and as pixels that its network sees."""

    def __init__(self, run: Run):
        self.run = run
        self.view = view_of(run.experiment.images)
        self.paths = run.images.paths
        self.class_names = run.class_names_looked_up
        """By class id, of the classes of the queries and of the gallery."""
        ids = {name: label for label, name in self.class_names.items()}
        self.labels = np.array([ids.get(image.class_name, -1) for image in run.split], np.int64)
        """(images) class ids, -1 for a class that has no part in the search."""

    @property
    def root(self) -> Path:
        """The folder of the images. Raises ValueError where they are not to be found."""
        return self.run.images.root

    def image(self, index: int) -> ExplainedImage:
        """The image with an index in the run's data set."""
        path = self.paths[index]
        return ExplainedImage(self.root / path, path, int(self.labels[index]), index)

    def pixels(self, image: ExplainedImage) -> np.ndarray:
        """(size, size, 3) uint8. Raises Unreadable, and ValueError where the image is another than
        the run saw."""
        if image.index >= 0:
            file = self.run.images.file(image.index)
            decoded = decode(file, self.run.images.boxes.get(image.path))
        else:
            decoded = decode(image.file)
        # A copy, because an array that Pillow made is read-only, of which torch warns.
        return self.view.apply(decoded).copy()

    @cached_property
    def queries(self) -> np.ndarray:
        """(queries) indices of the images that the run searched for."""
        phase = next(iter(self.run.neighbours))
        return self.run.embeddings(phase).query_images

    def gallery(self, phase: str) -> np.ndarray:
        """(gallery) indices of the images that it searched in a phase."""
        return self.run.embeddings(phase).gallery_images


def choose_images(
    run_images: RunImages, *, images: Sequence[Path] = (), class_name: str = "", mistakes: int = 0
) -> list[ExplainedImage]:
    """Images by file, by class or by mistake; none where none of these is set. Raises ValueError
    where more than one is."""
    ways = {"--images": images, "--class": class_name, "--mistakes": mistakes}
    options = [option for option, value in ways.items() if value]
    if len(options) > 1:
        raise ValueError(
            f"{' and '.join(options)} choose images in different ways: give one of them"
        )
    if images:
        return own_photos(run_images, images)
    if class_name:
        return queries_of_class(run_images, class_name)
    return mistaken_queries(run_images, mistakes) if mistakes else []


def queries_of_class(run_images: RunImages, name: str) -> list[ExplainedImage]:
    """The queries of a class, which may be named without its number. Raises UnknownName."""
    label = label_named(name, run_images.run.class_names)
    queries = run_images.queries
    return [run_images.image(index) for index in queries[run_images.labels[queries] == label]]


def mistaken_queries(run_images: RunImages, count: int) -> list[ExplainedImage]:
    """At most `count` queries whose nearest image is of another class: those that only a phase
    without their class gets wrong come first, then the most similar mistakes. Raises ValueError
    where there is none."""
    by_phase = run_images.run.neighbours
    wrong = np.stack([phase.labels[:, 0] != phase.query_labels for phase in by_phase.values()])
    similarity = np.stack([phase.similarities[:, 0] for phase in by_phase.values()])
    lost = ~wrong[list(by_phase).index(run_images.run.protocol.main_phase)]
    order = np.lexsort((-(similarity * wrong).max(axis=0), ~lost))
    rows = [row for row in order if wrong[:, row].any()][:count]
    if not rows:
        raise ValueError(f"{run_images.run.folder} has no mistaken query: leave --mistakes out")
    return [run_images.image(run_images.queries[row]) for row in rows]


def spread_over_classes(run_images: RunImages, count: int) -> list[ExplainedImage]:
    """Queries of as many classes as possible: one of each class, then a second one of each, and so
    on. Of more than `count` classes, evenly spaced ones are taken. Those of which the gallery has
    no other image are left out, as no map can be about their class, unless it is so of all."""
    queries = run_images.queries
    gallery = run_images.gallery(next(iter(run_images.run.neighbours)))
    sizes = np.bincount(run_images.labels[gallery], minlength=int(run_images.labels.max()) + 1)
    has_others = sizes[run_images.labels[queries]] > np.isin(queries, gallery)
    queries = queries[has_others] if has_others.any() else queries
    labels = run_images.labels[queries]
    turn = np.array([np.sum(labels[:row] == label) for row, label in enumerate(labels)])
    order = np.lexsort((labels, turn))
    classes = int((turn == 0).sum())
    rows = order[:count]
    if count < classes:
        rows = order[np.linspace(0, classes - 1, count).round().astype(int)]
    return [run_images.image(int(index)) for index in queries[rows]]


def own_photos(run_images: RunImages, files: Sequence[Path]) -> list[ExplainedImage]:
    """Image files. Those of the run's data set are recognised by their path. Raises ValueError for
    a file that does not exist."""
    root = run_images.root
    indices = {(root / path).resolve(): index for index, path in enumerate(run_images.paths)}
    images = []
    for file in files:
        existing = file if photo_file(file).is_file() else root / file
        if not photo_file(existing).is_file():
            raise ValueError(
                f"{file} is not a file: give the path of an image, also relative to {root}"
            )
        index = indices.get(existing.resolve(), -1)
        if index >= 0:
            images.append(run_images.image(index))
        else:
            images.append(ExplainedImage(existing, "", -1, -1))
    return images
