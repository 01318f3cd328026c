"""Images of one's own: a folder per class, or a table of files and classes."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dml_bench.data.datasets.dataset import Dataset, Row, Where, assemble, require_files
from dml_bench.data.labelled_table import IMAGE_SUFFIXES, read_table, require_none, visible
from dml_bench.registry import datasets, near_miss

UNREAD_SUFFIXES = {".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".dng", ".cr2", ".nef", ".arw", ".ppm", ".pgm", ".tga"}
PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


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
    named = all(PurePosixPath(path).suffix for path in paths)
    remedy = "set the option folder" if named else f"--set data.dataset.suffix={suffix_of(data_dir / paths[0])}"
    require_files(data_dir, paths, f"restore them, remove their lines from {table}, or {remedy}")
    rows = [Row(path, label) for path, label in zip(paths, labels, strict=True)]
    return assemble(folder_name(data_dir), data_dir, class_names, rows)


def suffix_of(bare: Path) -> str:
    """The ending that the file beside has, where one of an image is there."""
    return next((suffix for suffix in sorted(IMAGE_SUFFIXES) if bare.with_name(bare.name + suffix).is_file()), ".jpg")


def folder_name(folder: Path) -> str:
    """The folder's own name with only letters, digits, `.`, `_` and `-`: safe as one component of another path."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "images"
