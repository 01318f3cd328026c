"""What can be browsed: a finished run, perhaps with another gallery, or files of embeddings."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.browse.embedding_images import EmbeddedImages
from dml_bench.browse.images import BrowseTable
from dml_bench.browse.run_images import read_browse_table
from dml_bench.data.images import photo_file
from dml_bench.runs import layout
from dml_bench.runs.folder import digests
from dml_bench.runs.run import Run, SplitImage

__all__ = ["Browsable", "BrowsedEmbeddings", "BrowsedRun"]

LOOKED_FOR = 8
"""Images, evenly spaced, by which a folder is known for that of a table of labels."""


class Browsable(ABC):
    """What is shown, and under which name."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of its dataset in FiftyOne; unlike those of others."""

    @property
    @abstractmethod
    def facts(self) -> list[Any]:
        """All that its dataset is made of, for JSON."""

    @property
    @abstractmethod
    def described(self) -> str:
        """How a person names it on the command line."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The folder of its images."""

    @property
    @abstractmethod
    def images(self) -> list[tuple[str, SplitImage]]:
        """Each image with the path of its file."""

    @property
    @abstractmethod
    def class_names(self) -> dict[int, str]:
        """By class id."""

    @abstractmethod
    def table(self) -> BrowseTable:
        """Everything that is known of its images."""

    @abstractmethod
    def require_images(self) -> None:
        """Raises ValueError where its images are not found."""

    @abstractmethod
    def changed(self, cache_dir: Path) -> list[str]:
        """Images that are gone or were changed since. Raises ValueError where none is found."""

    def state(self, form: int) -> str:
        """A digest of all that the dataset is made of, in this version of its form. Near-duplicates
        and small copies are of the files of the images as they are now."""
        files = [size_and_time(photo_file(Path(file))) for file, _ in self.images]
        text = json.dumps([form, *self.facts, files], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def size_and_time(file: Path) -> tuple[int, int] | None:
    """Of a file, in bytes and nanoseconds; None where it can't be looked at."""
    try:
        about = file.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


@dataclass(frozen=True)
class BrowsedRun(Browsable):
    """A run, with its own changed galleries or those of another folder."""

    run: Run
    gallery: Path | None = None

    @property
    def name(self) -> str:
        """The experiment, the data set and the seed, told apart from those of other folders."""
        places = [self.run.folder] if self.gallery is None else [self.run.folder, self.gallery]
        folders = "\n".join(str(place.resolve()) for place in places)
        digest = hashlib.sha256(folders.encode()).hexdigest()[:6]
        run = self.run
        return f"{run.experiment.name}-{run.dataset_name}-seed-{run.seed}-{digest}"

    @property
    def facts(self) -> list[Any]:
        """The files of the run and of its galleries, and where its images lie."""
        folder = self.gallery or layout.gallery(self.run.folder)
        files = [*folder.glob("*.safetensors"), *folder.glob("*.journal")]
        changed = digests(folder, sorted(files))
        return [self.run.summary["files"], changed, str(self.run.images.known_root)]

    @property
    def described(self) -> str:
        """As a person names it on the command line."""
        return str(self.run.folder)

    @property
    def root(self) -> Path:
        """The folder of the run's images."""
        return self.run.images.known_root

    @property
    def images(self) -> list[tuple[str, SplitImage]]:
        """Each image of the data set with the path of its file."""
        files = self.run.images
        return [
            (str(files.located(files.recorded(at))), image)
            for at, image in enumerate(self.run.split)
        ]

    @property
    def class_names(self) -> dict[int, str]:
        """By class id."""
        return self.run.class_names_looked_up

    def table(self) -> BrowseTable:
        """Everything that is known of its images."""
        return read_browse_table(self.run, self.gallery)

    def require_images(self) -> None:
        """Raises ValueError where its images are not found."""
        self.run.images.require()

    def changed(self, cache_dir: Path) -> list[str]:
        """Images that are gone or were changed since."""
        return self.run.images.changed(cache_dir)


@dataclass(frozen=True)
class BrowsedEmbeddings(Browsable):
    """Files of embeddings, and the images that they are of."""

    embedded: EmbeddedImages
    labels: Path
    maps: Path
    """A folder in which maps are kept."""
    data_dir: Path | None = None
    """The folder of the images; by default that of the table of labels."""

    @property
    def name(self) -> str:
        """The names of the files, told apart from files of other folders."""
        files = [*self.embedded.files.values(), self.labels]
        text = "\n".join(str(file.resolve()) for file in files)
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        return f"{'-'.join(file.stem for file in files)}-{digest}"

    @property
    def facts(self) -> list[Any]:
        """The files of the run and of its galleries, and where its images lie."""
        contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
        queries = hashlib.sha256(self.embedded.queries.query.tobytes()).hexdigest()
        return [contents, queries, list(self.embedded.unseen), str(self.root)]

    @property
    def files(self) -> list[Path]:
        """The embeddings, then the labels."""
        return [*self.embedded.files.values(), self.labels]

    @property
    def described(self) -> str:
        """As a person names it on the command line."""
        return f"{self.files[0]} --labels {self.labels}"

    @property
    def root(self) -> Path:
        """The folder of the images."""
        return (self.data_dir or self.labels.parent).absolute()

    @property
    def images(self) -> list[tuple[str, SplitImage]]:
        """Each image of the data set with the path of its file."""
        queries = self.embedded.queries
        dataset = queries.dataset
        drawn = np.full(len(dataset), "train", object)
        drawn[queries.query] = "test"
        parts = dataset.parts or drawn.tolist()
        images = []
        for path, label, part in zip(dataset.paths, dataset.labels.tolist(), parts, strict=True):
            image = SplitImage(path, dataset.class_names[label], part, "")
            images.append((str(self.root / path), image))
        return images

    @property
    def class_names(self) -> dict[int, str]:
        """By class id."""
        return dict(enumerate(self.embedded.queries.dataset.class_names))

    def table(self) -> BrowseTable:
        """Everything that is known of its images."""
        return self.embedded.table(self.root, self.maps)

    def changed(self, cache_dir: Path) -> list[str]:
        """Those that are gone: of changes nothing is known."""
        self.require_images()
        paths = self.embedded.queries.dataset.paths
        return [path for path in paths if not photo_file(self.root / path).is_file()]

    def require_images(self) -> None:
        """Raises ValueError where its images are not found."""
        paths = self.embedded.queries.dataset.paths
        places = np.linspace(0, len(paths) - 1, min(LOOKED_FOR, len(paths))).round().astype(int)
        if not any(photo_file(self.root / paths[place]).is_file() for place in places):
            raise ValueError(
                f"{self.root} must have the images of {self.labels}, got none, e.g. {paths[0]}: say"
                " where they are with --data-dir DIR"
            )
