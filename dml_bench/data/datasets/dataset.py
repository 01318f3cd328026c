"""The value that every reader of images returns, and the checks that all readers share."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from dml_bench.data.csv_table import describe_alike, fault, inside, speakable, twice
from dml_bench.data.digests import digests_of
from dml_bench.data.exif import Capture, captures_of
from dml_bench.data.images import box_of
from dml_bench.data.label_sets import LabelSets
from dml_bench.registry.names import composed

__all__ = [
    "Dataset",
    "Disk",
    "ImageRow",
    "NotThere",
    "Progress",
    "Where",
    "assemble",
    "image_digest",
    "names_in",
]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Image files and their classes, in one fixed order: sorted by path, on every platform."""

    name: str
    root: Path
    paths: tuple[str, ...]
    """(images) POSIX paths relative to `root`, sorted as strings; of a part of a photo with its
    box (see `data.images`)."""
    labels: np.ndarray
    """(images) int64 class ids, 0 .. classes-1."""
    class_names: tuple[str, ...]
    """(classes) in class-id order."""
    boxes: np.ndarray | None = None
    """(images, 4) float x, y, width, height in pixels: cut out before anything else; None uses
    whole images."""
    parts: tuple[str, ...] | None = None
    """(images) the part that the data set itself assigns: `train`, `valid`, `test`, `query`,
    `gallery` or `catalogue` (studio photos); None where it has none. Where classes are disjoint,
    `test` images are looked up among each other (each is query and gallery at once), `query` images
    among those of `gallery`."""
    coarse_classes: tuple[str, ...] | None = None
    """(classes) the coarse class that each belongs to, e.g. `Apple` for Granny Smith; None where
    the data set has none."""
    label_sets: LabelSets | None = None
    """The labels of each class where an image has several: a class is one combination of them. None
    where an image has one class."""
    columns: Mapping[str, tuple[str, ...]] | None = None
    """(images) the cells of the other columns of its table, by the columns' names; None where it
    has no table."""
    left_out: tuple[str, ...] = ()
    """Paths that were skipped because they can't be decoded."""
    opened_fingerprint: str = ""
    """Of the data set with those that were skipped; empty where none were."""
    cache_dir: Path | None = None
    """Where the digests of its files are remembered; None: they are read each time."""
    notes: tuple[str, ...] = ()
    """Sentences about what was chosen or left out while reading."""
    faults: tuple[str, ...] = ()
    """Sentences about what is wrong, each with its remedy. The images that they are about are left
    left out."""
    empty_classes: str = ""
    """The one among the faults that says which classes have no images."""

    @property
    def num_classes(self) -> int:
        """How many classes there are, those without images included."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """(images) SHA-256 of each file's bytes. A file that can't be read has one like no other:
        decoding it reports the problem."""
        return digests_of(self.root, self.paths, self.cache_dir)

    @property
    def image_digests(self) -> tuple[str, ...]:
        """(images) the same for equal images only: parts of one photo are different ones."""
        return tuple(map(image_digest, self.digests, self.paths))

    @cached_property
    def captures(self) -> tuple[Capture, ...]:
        """(images) when and with what each photo was taken, as far as its file says it."""
        return captures_of(self.root, self.paths)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over paths, classes, boxes and file contents: equal only for the same data."""
        # A check looks at a data set whose names are no text as well.
        names = "\0".join(self.class_names).encode(errors="surrogatepass")
        state = hashlib.sha256(names)
        for path, label, digest in zip(self.paths, self.labels, self.digests, strict=True):
            state.update(f"\n{path}\0{label}\0{digest}".encode())
        if self.boxes is not None:
            state.update(self.boxes.astype("<f8").tobytes())
        return state.hexdigest()

    def sound(self, *, or_empty: bool = False) -> "Dataset":
        """The data set itself. Raises ValueError with the first fault where it has one; `or_empty`
        lets classes without images be."""
        faults = [fault for fault in self.faults if not or_empty or fault != self.empty_classes]
        if faults:
            more = (
                f" ({len(faults) - 1} more: dml-bench data check lists them)"
                if len(faults) > 1
                else ""
            )
            raise ValueError(f"{faults[0]}{more}")
        return self

    def without(self, images: set[int]) -> "Dataset":
        """The data set without these image indices; class ids stay as they are."""
        keep = [i for i in range(len(self)) if i not in images]
        columns = None
        if self.columns is not None:
            columns = {}
            for name, cells in self.columns.items():
                columns[name] = tuple(cells[i] for i in keep)
        return replace(
            self,
            paths=tuple(self.paths[i] for i in keep),
            labels=self.labels[keep],
            boxes=None if self.boxes is None else self.boxes[keep],
            parts=None if self.parts is None else tuple(self.parts[i] for i in keep),
            columns=columns,
            left_out=self.left_out + tuple(self.paths[i] for i in sorted(images)),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """What a reader is given: the folder of images, the folder for what is drawn, and whom to tell
    how far drawing is."""

    data_dir: Path
    cache_dir: Path
    progress: Progress


class NotThere(ValueError):
    """A folder does not hold the data set that is looked for: what is missing, and the advice of
    its reader."""

    def __init__(self, missing: str, advice: str):
        super().__init__(f"{missing}: {advice}")
        self.missing = missing


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as a reader found it, in whatever order."""

    path: str
    label: int
    part: str | None = None
    box: tuple[float, ...] | None = None
    cells: tuple[tuple[str, str], ...] = ()
    """The other columns of a table and what they say of it; of all rows the same columns."""


def assemble(
    name: str,
    root: Path,
    class_names: Iterable[str],
    rows: Iterable[ImageRow],
    faults: Iterable[str] = (),
    notes: Iterable[str] = (),
    remedy_of_empty: str = "add images to them or remove them",
) -> Dataset:
    """The rows as a Dataset, sorted by path. Faults are added for a path or class given twice, an
    empty class, under 2 classes, and names that can't be written. Raises ValueError where there is
    no image at all."""
    names, rows = tuple(class_names), sorted(rows, key=lambda row: row.path)
    problems = [*faults]
    if len(names) < 2:
        problems.append(
            f"{root} must have at least 2 classes, got {len(names)}: add images of another class"
        )
    paths = [row.path for row in rows]
    unspeakable = [text for text in (*names, *paths) if not speakable(text)]
    problems += fault(
        unspeakable, f"names in {root} that are not Unicode text on one line", "rename them"
    )
    problems += fault(
        twice(names), f"class names used twice in {root}", "give each class its own name"
    )
    problems += fault(
        twice(row.path for row in rows), f"images listed twice in {root}", "list each of them once"
    )
    require_same_fields(rows, root)
    filled = {row.label for row in rows}
    empty = [name for label, name in enumerate(names) if label not in filled]
    empty_classes = fault(empty, f"classes without images in {root}", remedy_of_empty)
    problems += empty_classes
    if not rows:
        raise ValueError(problems[0])
    if problems:
        by_path = {row.path: row for row in rows}
        rows = [row for row in by_path.values() if speakable(row.path)]
    return Dataset(
        name=name,
        root=root,
        paths=tuple(row.path for row in rows),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        class_names=names,
        boxes=(
            None if rows[0].box is None else np.array([row.box for row in rows], dtype=np.float64)
        ),
        parts=None if rows[0].part is None else tuple(str(row.part) for row in rows),
        columns=columns_of(rows),
        notes=(*notes, *describe_alike(names, "class names")),
        faults=tuple(problems),
        empty_classes="".join(empty_classes),
    )


def image_digest(file_digest: str, path: str) -> str:
    """The same for equal images only, of a file with this digest; `path` may name a part of it."""
    return f"{file_digest} {box_of(path) or ''}"


def require_same_fields(rows: Sequence[ImageRow], root: Path) -> None:
    """Raises ValueError where some images have a part, a box or other columns, and others have
    not: those of all would be lost."""
    fields: dict[str, list[bool]] = {
        "a part": [row.part is not None for row in rows],
        "a box": [row.box is not None for row in rows],
        "the columns of the first": [column_names(row) == column_names(rows[0]) for row in rows],
    }
    for field, has_it in fields.items():
        without = [row.path for row, has in zip(rows, has_it, strict=True) if not has]
        if 0 < len(without) < len(rows):
            raise ValueError(
                *fault(without, f"images in {root} without {field}", "give one to all or to none")
            )


def column_names(row: ImageRow) -> list[str]:
    """Of the other columns of its table."""
    return [name for name, _ in row.cells]


def columns_of(rows: Sequence[ImageRow]) -> dict[str, tuple[str, ...]] | None:
    """(images) the cells by their columns; None where there are none."""
    columns = {}
    for at, (name, _) in enumerate(rows[0].cells):
        columns[name] = tuple(row.cells[at][1] for row in rows)
    return columns or None


def names_in(place: Path) -> list[str]:
    """The sorted names of all that is in a folder; none where there is no such folder."""
    return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []


class Disk:
    """The files below a folder, found by names that are equal to people."""

    def __init__(self, root: Path):
        self.root = root
        self._names: dict[str, dict[str, str]] = {}

    def spelled(self, path: str) -> str:
        """`path`, relative to the folder, as the disk has it; '' where there is no such file."""
        # With 120,053 images of Stanford Online Products, joining and asking by Path takes 1.5 s,
        # by text .5 s.
        if os.path.isfile(f"{self.root}{os.sep}{path}"):  # noqa: PTH113
            return path
        place = ""
        for part in PurePosixPath(path).parts:
            name = self._in(place).get(composed(part))
            if name is None:
                return ""
            place = f"{place}/{name}" if place else name
        return place if (self.root / place).is_file() else ""

    def _in(self, folder: str) -> dict[str, str]:
        """Names in a folder by the form in which they are compared."""
        if folder not in self._names:
            self._names[folder] = {composed(name): name for name in names_in(self.root / folder)}
        return self._names[folder]

    def present(
        self, rows: Iterable[ImageRow], listing: str, remedy: str
    ) -> tuple[list[ImageRow], list[str]]:
        """Those of the rows whose files are there, and faults about paths that lead out of the
        folder or to no file."""
        drives, outside, missing, there = [], [], [], []
        for row in rows:
            if row.path[1:2] == ":":
                drives.append(row.path)
            elif not inside(row.path):
                outside.append(row.path)
            elif path := self.spelled(row.path):
                there.append(row if path == row.path else replace(row, path=path))
            else:
                missing.append(row.path)
        faults = fault(
            drives,
            f"paths in {listing} that begin like a drive of Windows, as C: does",
            "rename them, or name them relative to the folder",
        )
        faults += fault(outside, f"paths in {listing} that lead out of {self.root}", "correct them")
        return there, faults + fault(
            sorted(missing), f"images that do not exist in {self.root}", remedy
        )
