"""The images whose maps are made: queries of the run by class, by mistake or spread over all, or
photos of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dml_bench.data.cache import View
from dml_bench.data.images import decode
from dml_bench.registry.names import label_named
from dml_bench.runs.run import Run

__all__ = [
    "ExplainedImage",
    "RunImages",
    "chosen",
    "mistaken",
    "of_class",
    "own_photos",
    "spread_out",
]


@dataclass(frozen=True, slots=True)
class ExplainedImage:
    """An image to be explained."""

    file: Path
    path: str
    """Relative to the data set's root; empty for a photo that is not of the data set."""
    label: int
    """Class id, -1 where it is not known."""
    image: int
    """Index in the run's data set, -1 for other photos."""


class RunImages:
    """A run's images as files, and as pixels that its network sees."""

    def __init__(self, run: Run):
        self.run = run
        self.view = View(run.experiment.images.fit, run.experiment.images.size)
        self.paths = run.images.paths
        self.labels = run.images.labels

    @property
    def root(self) -> Path:
        """The folder of the images. Raises ValueError where they are not to be found."""
        return self.run.images.root

    def subject(self, image: int) -> ExplainedImage:
        return ExplainedImage(
            self.root / self.paths[image], self.paths[image], int(self.labels[image]), image
        )

    def pixels(self, subject: ExplainedImage) -> np.ndarray:
        """(size, size, 3) uint8. Raises Unreadable, and ValueError where the image is another than
        the run saw."""
        of_the_run = subject.image >= 0
        file = self.run.images.file(subject.image) if of_the_run else subject.file
        cut = self.run.images.boxes.get(subject.path) if of_the_run else None
        return self.view.apply(
            decode(file, cut)
        ).copy()  # what Pillow made is read-only, which torch warns of

    @cached_property
    def queries(self) -> np.ndarray:
        """Indices of the images that the run looked up."""
        phase = next(iter(self.run.neighbours))
        return self.run.embeddings(phase).query_images

    def gallery(self, phase: str) -> np.ndarray:
        """Indices of the images among which they were looked up."""
        return self.run.embeddings(phase).gallery_images


def chosen(
    material: RunImages, *, images: Sequence[Path] = (), class_name: str = "", mistakes: int = 0
) -> list[ExplainedImage]:
    """By files, by class or by mistake; empty where none of these is given. Raises ValueError where
    more than one is."""
    ways = {"--images": images, "--class": class_name, "--mistakes": mistakes}
    given = [option for option, value in ways.items() if value]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} choose images in different ways: give one of them")
    if images:
        return own_photos(material, images)
    if class_name:
        return of_class(material, class_name)
    return mistaken(material, mistakes) if mistakes else []


def of_class(material: RunImages, name: str) -> list[ExplainedImage]:
    """The queries of a class, which may be named without its number. Raises UnknownName."""
    label = label_named(name, material.run.class_names)
    return [
        material.subject(image)
        for image in material.queries[material.labels[material.queries] == label]
    ]


def mistaken(material: RunImages, count: int) -> list[ExplainedImage]:
    """The first `count` queries whose nearest image is of another class: first those that only the
    phase without their class gets wrong, then the surest mistakes. Raises ValueError where there is
    none."""
    found = material.run.neighbours
    wrong = np.stack([each.labels[:, 0] != each.query_labels for each in found.values()])
    sure = np.stack([each.similarities[:, 0] for each in found.values()]) * wrong
    lost = ~wrong[list(found).index("all")] if "all" in found else np.zeros(wrong.shape[1], bool)
    order = np.lexsort((-sure.max(axis=0), ~lost))
    chosen = [row for row in order if wrong[:, row].any()][:count]
    if not chosen:
        raise ValueError(f"{material.run.folder} has no mistaken query: leave --mistakes out")
    return [material.subject(material.queries[row]) for row in chosen]


def spread_out(material: RunImages, count: int) -> list[ExplainedImage]:
    """Queries of as many classes as possible: one of each, then a second one of each, and so on; of
    too many classes, evenly spaced ones."""
    labels = material.labels[material.queries]
    turn = np.array([np.sum(labels[:row] == label) for row, label in enumerate(labels)])
    order = np.lexsort((labels, turn))
    classes = int((turn == 0).sum())
    chosen = (
        order[:count]
        if count >= classes
        else order[np.linspace(0, classes - 1, count).round().astype(int)]
    )
    return [material.subject(int(image)) for image in material.queries[chosen]]


def own_photos(material: RunImages, files: Sequence[Path]) -> list[ExplainedImage]:
    """Image files; those of the run's data set are known by their place. Raises ValueError for one
    that does not exist."""
    known = {(material.root / path).resolve(): image for image, path in enumerate(material.paths)}
    subjects = []
    for file in files:
        inside = next(
            (candidate for candidate in (file, material.root / file) if candidate.is_file()), None
        )
        if inside is None:
            raise ValueError(
                f"{file} is not a file: give the path of an image, also relative to {material.root}"
            )
        image = known.get(inside.resolve(), -1)
        subjects.append(
            material.subject(image) if image >= 0 else ExplainedImage(inside, "", -1, -1)
        )
    return subjects
