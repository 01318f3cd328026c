"""The value that every reader of images returns, the checks that all readers share, and the way to one by its name."""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dml_bench.config import Component
from dml_bench.data.digests import digests_of
from dml_bench.data.labelled_table import inside, require_none, speakable, twice
from dml_bench.registry import datasets

__all__ = ["Dataset", "Progress", "Row", "Where", "assemble", "open_dataset", "require_files", "require_inside"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Image files and their classes, in one fixed order: sorted by path, on every platform."""

    name: str
    root: Path
    paths: tuple[str, ...]
    """(images) POSIX paths relative to `root`, sorted as strings."""
    labels: np.ndarray
    """(images) int64 class ids, 0 .. classes-1."""
    class_names: tuple[str, ...]
    """(classes) in class-id order."""
    boxes: np.ndarray | None = None
    """(images, 4) float x, y, width, height in pixels: cut out before anything else; None uses whole images."""
    parts: tuple[str, ...] | None = None
    """(images) the part that the data set itself assigns: `train`, `valid`, `test`, `query` or `gallery`; None where it has none.
    `test` images are looked up among each other (each is query and gallery at once), `query` images among those of `gallery`."""
    left_out: tuple[str, ...] = ()
    """Paths that were skipped because they can't be decoded."""
    opened_fingerprint: str = ""
    """Of the data set with those that were skipped; empty where none were."""
    cache_dir: Path | None = None
    """Where the digests of its files are remembered; None: they are read each time."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """(images) SHA-256 of each file's bytes. A file that can't be read has one like no other: decoding it reports the problem."""
        return digests_of(self.root, self.paths, self.cache_dir)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, classes, boxes and file contents: equal only for the same data."""
        state = hashlib.sha256("\0".join(self.class_names).encode())
        for path, label, digest in zip(self.paths, self.labels, self.digests, strict=True):
            state.update(f"\n{path}\0{label}\0{digest}".encode())
        if self.boxes is not None:
            state.update(self.boxes.astype("<f8").tobytes())
        return state.hexdigest()

    def without(self, images: set[int]) -> "Dataset":
        """The data set without these image indices; class ids stay as they are."""
        keep = [i for i in range(len(self)) if i not in images]
        return replace(
            self,
            paths=tuple(self.paths[i] for i in keep),
            labels=self.labels[keep],
            boxes=None if self.boxes is None else self.boxes[keep],
            parts=None if self.parts is None else tuple(self.parts[i] for i in keep),
            left_out=self.left_out + tuple(self.paths[i] for i in sorted(images)),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """What a reader is given: the folder of images, the folder for what is drawn, and whom to tell how far drawing is."""

    data_dir: Path
    cache_dir: Path
    progress: Progress


def open_dataset(component: Component, data_dir: Path | None, cache_dir: Path, progress: Progress | None = None) -> Dataset:
    """Read the data set that `component` names. Raises ValueError where a folder of images is needed and missing, or given in vain."""
    entry = datasets[component.name]
    tell = progress or (lambda stage, done, total: None)
    if not entry.facts["needs_data_dir"]:
        if data_dir is not None:
            raise ValueError(f"dataset {entry.name} draws its own images, so --data-dir has no effect: leave it out")
        return replace(entry.build(Where(cache_dir, cache_dir, tell), **component.options), cache_dir=cache_dir)
    if data_dir is None:
        obtain = f"; {entry.facts['obtain']}" if entry.facts["obtain"] else ""
        raise ValueError(f"dataset {entry.name} needs a folder of images: give it with --data-dir DIR{obtain}")
    if not data_dir.is_dir():
        raise ValueError(
            f"{data_dir} {'is not a folder' if data_dir.exists() else 'does not exist'}: give the folder of images with --data-dir DIR"
        )
    return replace(entry.build(Where(data_dir, cache_dir, tell), **component.options), cache_dir=cache_dir)


@dataclass(frozen=True, slots=True)
class Row:
    """One image as a reader found it, in whatever order."""

    path: str
    label: int
    part: str | None = None
    box: tuple[float, ...] | None = None


def assemble(name: str, root: Path, class_names: Iterable[str], rows: Iterable[Row]) -> Dataset:
    """The rows as a Dataset, sorted by path. Raises ValueError on a path or class given twice, an empty class, or under 2 classes."""
    names, rows = tuple(class_names), sorted(rows, key=lambda row: row.path)
    if len(names) < 2:
        raise ValueError(
            f"{root} has {len(names)} {'class' if len(names) == 1 else 'classes'}; at least 2 are wanted: add images of another class"
        )
    unspeakable = [text for text in (*names, *(row.path for row in rows)) if not speakable(text)]
    require_none(unspeakable, f"names in {root} that are not Unicode text on one line", "rename them")
    require_none(twice(names), f"class names used twice in {root}", "give each class its own name")
    require_none(twice(row.path for row in rows), f"images listed twice in {root}", "list each of them once")
    filled = {row.label for row in rows}
    empty = [name for label, name in enumerate(names) if label not in filled]
    require_none(empty, f"classes without images in {root}", "add images to them or remove them")
    return Dataset(
        name=name,
        root=root,
        paths=tuple(row.path for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        class_names=names,
        boxes=None if rows[0].box is None else np.array([row.box for row in rows], dtype=np.float64),
        parts=None if rows[0].part is None else tuple(str(row.part) for row in rows),
    )


def require_inside(root: Path, paths: Iterable[str], listing: str) -> None:
    """Raises ValueError where one of `paths` in `listing`, relative to `root`, leads out of it."""
    require_none([path for path in paths if not inside(path)], f"paths in {listing} that lead out of {root}", "correct them")


def require_files(root: Path, paths: Iterable[str], remedy: str) -> None:
    """Raises ValueError where one of `paths`, relative to `root`, is not a file."""
    # With 120,053 images of Stanford Online Products, joining and asking by Path takes 1.5 s, by text .5 s.
    lacking = [path for path in paths if not os.path.isfile(f"{root}{os.sep}{path}")]  # noqa: PTH113
    require_none(lacking, f"images that do not exist in {root}", remedy)
