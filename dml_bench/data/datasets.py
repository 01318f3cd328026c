"""Readers of image data sets: each turns a folder on disk into one `Dataset` value."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

import numpy as np

from dml_bench.config import Component
from dml_bench.data.labelled_table import IMAGE_SUFFIXES, inside, read_table, require_none, speakable, twice, visible
from dml_bench.registry import datasets, near_miss

__all__ = ["Dataset", "Progress", "cub_folder", "open_dataset", "read_cub_layout"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

UNREAD_SUFFIXES = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw", ".ppm", ".pgm", ".tga"}
PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


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
    """(images) the part that the data set itself assigns: `train`, `valid` or `test`; None where it has none."""
    left_out: tuple[str, ...] = ()
    """Paths that were skipped because they can't be decoded."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """(images) SHA-256 of each file's bytes."""

        def digest(path: str) -> str:
            with open(self.root / path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        with ThreadPoolExecutor() as pool:
            return tuple(pool.map(digest, self.paths))

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
        return entry.build(Where(cache_dir, cache_dir, tell), **component.options)
    if data_dir is None:
        by_name = "; dml-bench data fetch cub --data-dir DIR downloads it, --demo uses drawn birds instead" if entry.name == "cub" else ""
        raise ValueError(f"dataset {entry.name} needs a folder of images: give it with --data-dir DIR{by_name}")
    if not data_dir.is_dir():
        raise ValueError(
            f"{data_dir} {'is not a folder' if data_dir.exists() else 'does not exist'}: give the folder of images with --data-dir DIR"
        )
    return entry.build(Where(data_dir, cache_dir, tell), **component.options)


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


def require_files(root: Path, paths: Iterable[str], remedy: str) -> None:
    require_none([path for path in paths if not (root / path).is_file()], f"images that do not exist in {root}", remedy)


def folder_name(folder: Path) -> str:
    """The folder's own name with only letters, digits, `.`, `_` and `-`: safe as one component of another path."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "images"


@datasets.register("cub", summary="CUB-200-2011, or any images in its layout", source="Wah et al. 2011, Caltech, doi:10.22002/D1.20098")
def cub(where: Where, *, crop_to_box: bool = False) -> Dataset:
    """`data_dir` is the folder CUB_200_2011 or its parent; `crop_to_box` cuts each bird out by bounding_boxes.txt."""
    root = cub_folder(where.data_dir)
    if root is None:
        raise ValueError(
            f"no CUB-200-2011 in {where.data_dir} (images.txt is missing): get it with dml-bench data fetch cub --data-dir {where.data_dir}"
        )
    return read_cub_layout(root, "cub", crop_to_box=crop_to_box)


def cub_folder(data_dir: Path) -> Path | None:
    """The folder that holds images.txt: `data_dir` itself, or CUB_200_2011 in it."""
    return next((folder for folder in (data_dir, data_dir / "CUB_200_2011") if (folder / "images.txt").is_file()), None)


def read_cub_layout(root: Path, name: str, *, crop_to_box: bool = False) -> Dataset:
    """Read images.txt, classes.txt, image_class_labels.txt and, where there is one, train_test_split.txt of `root`.

    Classes are numbered in the order of their ids in classes.txt. Raises ValueError on a list that is missing, malformed
    or at odds with another, and on images that don't exist.
    """
    classes, images = numbered(root / "classes.txt", str), numbered(root / "images.txt", str)
    class_ids = numbered(root / "image_class_labels.txt", int)
    splits = numbered(root / "train_test_split.txt", is_train) if (root / "train_test_split.txt").exists() else None
    boxes = numbered(root / "bounding_boxes.txt", box) if crop_to_box else None
    require_values(images, class_ids, root / "image_class_labels.txt", "class")
    require_values(images, splits, root / "train_test_split.txt", "part")
    require_values(images, boxes, root / "bounding_boxes.txt", "box")
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes))}
    lost = [f"image {image}: {class_ids[image]}" for image in images if class_ids[image] not in label_of]
    require_none(lost, f"class ids in {root / 'image_class_labels.txt'} that classes.txt lacks", "correct them")
    outside = [path for path in images.values() if not inside(path)]
    require_none(outside, f"paths in {root / 'images.txt'} that lead out of {root / 'images'}", "correct them")
    rows = [
        Row(
            path=str(PurePosixPath("images", path)),
            label=label_of[class_ids[image]],
            part=None if splits is None else ("train" if splits[image] else "test"),
            box=None if boxes is None else boxes[image],
        )
        for image, path in images.items()
    ]
    dataset = assemble(name, root, [classes[class_id] for class_id in sorted(classes)], rows)
    require_files(root, dataset.paths, "restore them, or remove their lines from images.txt")
    return dataset


Value = TypeVar("Value")


def numbered(file: Path, parse: Callable[[str], Value]) -> dict[int, Value]:
    """The values of lines `id value` by id. Raises ValueError on a missing file, a malformed line or an id used twice."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: restore it, or get the whole data set with dml-bench data fetch cub --data-dir DIR")
    values: dict[int, Value] = {}
    # Names that are not UTF-8 must still lead to their files, to be reported as such.
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n"), 1):
        if not line.strip():
            continue
        try:
            identity, text = line.strip().split(maxsplit=1)
            key, value = int(identity), parse(text)
        except ValueError:
            raise ValueError(f"{file} line {number} is {line!r}; a number and its value are wanted: correct the line") from None
        if key in values:
            raise ValueError(f"{file} line {number} uses the id {key} again: give each line its own id")
        values[key] = value
    return values


def require_values(images: dict[int, str], values: dict[int, Value] | None, file: Path, what: str) -> None:
    lacking = [] if values is None else [path for image, path in images.items() if image not in values]
    require_none(lacking, f"images without a {what} in {file}", "add their lines")


def is_train(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


def box(text: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in text.split())
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)) or min(numbers[2:]) <= 0:
        raise ValueError(text)
    return numbers


@datasets.register("folder", summary="one folder of images per class, also inside train/, valid/ and test/", source="your own images")
def folder(where: Where) -> Dataset:
    """Classes are the folders of `data_dir`, or of its train/, valid/ (or val/) and test/, which then give the parts.

    Images may lie deeper; hidden files and files of other kinds are not looked at. Raises ValueError on images outside of
    a class folder and on image formats that can't be read, so that no image is left out unnoticed.
    """
    data_dir = where.data_dir
    tops = part_folders(data_dir) or {data_dir: None}
    class_folders = {place: part for top, part in tops.items() for place in class_folders_in(top)}
    class_names = sorted({place.name for place in class_folders})
    if class_names and len(class_names) < 2:
        only = next(iter(class_folders))
        raise ValueError(
            f"{data_dir} has one class folder ({only.name}); at least 2 are wanted: add another, or give --data-dir {only} for those in it"
        )
    files = [(file, place.name, part) for place, part in class_folders.items() for file in files_below(place)]
    unread = [str(file) for file, _, _ in files if file.suffix.lower() in UNREAD_SUFFIXES]
    require_none(unread, f"images in {data_dir} of a format that is not read", "convert them to JPEG or PNG")
    label_of = {name: label for label, name in enumerate(class_names)}
    rows = [
        Row(file.relative_to(data_dir).as_posix(), label_of[class_name], part)
        for file, class_name, part in files
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    dataset = assemble(folder_name(data_dir), data_dir, class_names, rows)
    require_files(data_dir, dataset.paths, "remove the links that lead nowhere")
    return dataset


def part_folders(data_dir: Path) -> dict[Path, str | None]:
    """The folders of `data_dir` that are parts of the data set, with the parts' names; empty where its folders are classes."""
    folders = [entry for entry in visible(data_dir) if entry.is_dir()]
    parts: dict[Path, str | None] = {entry: PARTS[entry.name.lower()] for entry in folders if entry.name.lower() in PARTS}
    train = next((entry for entry, part in parts.items() if part == "train"), None)
    if train is None or len(parts) < 2:
        return {}
    others = [str(entry) for entry in folders if entry not in parts]
    if others and not any(entry.is_dir() for entry in visible(train)):
        return {}
    require_none(others, f"folders beside the parts {', '.join(entry.name for entry in parts)} of {data_dir}", "move them elsewhere")
    return parts


def class_folders_in(top: Path) -> list[Path]:
    """The visible folders of `top`. Raises ValueError where there are none, or images beside them."""
    entries = visible(top)
    found = [entry for entry in entries if entry.is_dir()]
    stray = [str(entry) for entry in entries if not entry.is_dir() and entry.suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES]
    require_none(stray, f"images in {top} outside of any class folder", "move each into the folder of its class")
    if not found:
        raise ValueError(f"{top} has no class folders: put the images of each class into a folder of its own")
    return found


def files_below(place: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All visible files at any depth, through links too. Raises ValueError on a link to a folder that it lies in."""
    real = place.resolve()
    if real in above:
        raise ValueError(f"{place} links to a folder that it lies in: remove the link")
    for entry in visible(place):
        if entry.is_dir():
            yield from files_below(entry, (*above, real))
        else:
            yield entry


@datasets.register("csv", summary="images listed in a table, with a class column or one-hot columns", source="your own images")
def csv_table(
    where: Where,
    *,
    table: str = "train.csv",
    file_column: str = "",
    label_column: str = "",
    folder: str = "images",
    suffix: str = "",
) -> Dataset:
    """A table of comma-separated values with a header, under `data_dir`; its files lie in `folder`, also under `data_dir`.

    Unnamed columns: the first is the file, the next the class, unless all others are one-hot (two or more columns of 0 and 1).
    `suffix` is appended to file names without an image's extension. Raises ValueError on anything that contradicts this.
    """
    data_dir = where.data_dir
    listing = read_table(data_dir, table)
    file_at, label_at = listing.columns(file_column, label_column)
    one_hot = [at for at in range(len(listing.header)) if at != file_at]
    if label_column or len(one_hot) < 2 or not listing.mostly_one_hot(one_hot):
        class_names, labels = listing.named_classes(label_at)
    else:
        class_names, labels = [listing.header[at] for at in one_hot], listing.one_hot_classes(one_hot)
    paths = listing.paths(file_at, folder, suffix)
    if not (data_dir / folder).is_dir():
        near = near_miss(folder, [entry.name for entry in visible(data_dir) if entry.is_dir()])
        raise ValueError(f"{data_dir / folder} is not a folder{near}: set the option folder to where the files of {table} lie")
    remedy = "set the option folder" if all(PurePosixPath(path).suffix for path in paths) else "set the option suffix, e.g. .jpg"
    require_files(data_dir, paths, f"restore them, remove their lines from {table}, or {remedy}")
    rows = [Row(path, label) for path, label in zip(paths, labels, strict=True)]
    return assemble(folder_name(data_dir), data_dir, class_names, rows)


@datasets.register("demo", summary="drawn birds, a small set that needs no download", source="drawn by this package", needs_data_dir=False)
def demo(where: Where, *, classes: int = 40, per_class: int = 30, size: int = 96, seed: int = 7) -> Dataset:
    """Drawn once into `cache_dir`, in the layout of CUB-200-2011."""
    for option, value, least in (("classes", classes, 2), ("per_class", per_class, 2), ("size", size, 16)):
        if value < least:
            raise ValueError(f"option {option} of dataset demo is {value}; at least {least} is wanted")
    return drawn(where, f"demo-{classes}x{per_class}-{size}px-seed{seed}", "demo", [per_class] * classes, size, seed)


@datasets.register(
    "cub_shape",
    summary="drawn birds in the exact shape of CUB-200-2011: 200 classes, 11,788 images",
    source="drawn by this package",
    needs_data_dir=False,
)
def cub_shape(where: Where, *, size: int = 256, seed: int = 7) -> Dataset:
    """Drawn once into `cache_dir`, with CUB's number of images in each class."""
    from dml_bench.data.demo import cub_counts

    return drawn(where, f"cub-shape-{size}px-seed{seed}", "cub_shape", list(cub_counts().values()), size, seed)


@datasets.register(
    "source_species",
    summary="drawn birds of other families than demo's, to pretrain backbones on",
    source="drawn by this package",
    needs_data_dir=False,
)
def source_species(where: Where, *, classes: int = 48, per_class: int = 24, size: int = 72, seed: int = 1) -> Dataset:
    """Drawn once into `cache_dir`; no species is also in `demo` or `cub_shape`."""
    return drawn(where, f"source-{classes}x{per_class}-{size}px-seed{seed}", "source_species", [per_class] * classes, size, seed, "source")


def drawn(
    where: Where, folder: str, name: str, counts: list[int], size: int, seed: int, domain: Literal["benchmark", "source"] = "benchmark"
) -> Dataset:
    """The birds in `folder` of the cache, drawn if they are not there yet. Raises ValueError if something there was changed."""
    from dml_bench.data.demo import EDITION, write

    root = where.cache_dir / f"{folder}-edition{EDITION}"
    done = 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        where.progress(f"drawing {sum(counts):,} birds", done, sum(counts))

    try:
        if not root.exists():
            write(root, counts=counts, size=size, seed=seed, domain=domain, progress=tell)
    except OSError:
        # Another process may have drawn the same birds first.
        if not root.exists():
            raise
    try:
        return read_cub_layout(root, name)
    except ValueError as error:
        raise ValueError(f"the drawn birds were changed ({error}): delete {root} to have them drawn again") from error
