"""Grocery Store Dataset: phone photos of fruit, vegetables and cartons, taken in shops."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from dml_bench.data.csv_table import require_none
from dml_bench.data.datasets.dataset import Dataset, Disk, ImageRow, Where, assemble
from dml_bench.data.datasets.published import after_header, has, home, lines_of
from dml_bench.registry import datasets

__all__ = ["holds"]

LISTS = {"train": "train.txt", "valid": "val.txt", "test": "test.txt"}
CLASSES = "classes.csv"
HEADER = (
    "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image"
    " Path (str),Product Description Path (str)"
)


@dataclass(frozen=True, slots=True)
class GroceryClass:
    """A line of classes.csv."""

    name: str
    coarse_id: int
    coarse_name: str
    studio_photo: str
    """Path relative to the folder of the lists."""


@datasets.register(
    "grocery",
    summary=(
        "Grocery Store Dataset: 81 products of 43 kinds, 5,421 phone photos in shops; train, valid"
        " and test are of other shopping trips"
    ),
    source="Klasson et al. 2019, WACV, arXiv:1901.00711",
    obtain="dml-bench data fetch grocery --data-dir DIR downloads it",
    has_coarse_classes=True,
)
def grocery(where: Where, *, catalogue: bool = False) -> Dataset:
    """`data_dir` is the folder of train.txt, or a folder up to two levels above it.

    Classes are numbered as in classes.csv, and their kinds are the coarse classes. With
    `catalogue`, it also has one studio photo of each class, of the part `catalogue`. Raises
    ValueError on a list that is missing, malformed or at odds with classes.csv, and on images that
    don't exist.
    """
    root = home("grocery", where.data_dir, holds, CLASSES)
    classes = read_classes(root / CLASSES)
    listed = []
    for part, name in LISTS.items():
        listed += read_list(root / name, part, classes)
    if catalogue:
        listed += [
            ImageRow(grocery_class.studio_photo, label, "catalogue")
            for label, grocery_class in enumerate(classes)
        ]
    rows, faults = Disk(root).present(
        listed, f"the lists of {root}", "restore them, or remove their lines from the lists"
    )
    names = [grocery_class.name for grocery_class in classes]
    return replace(
        assemble("grocery", root, names, rows, faults),
        coarse_classes=tuple(grocery_class.coarse_name for grocery_class in classes),
    )


def holds(folder: Path) -> bool:
    """Whether the folder has this data set's list of classes."""
    if not has(folder, CLASSES):
        return False
    return [line for _, line in lines_of(folder / CLASSES, "")[:1]] == [HEADER]


def read_classes(file: Path) -> list[GroceryClass]:
    """The classes in the order of their ids, which count from 0. Raises ValueError on a malformed
    line, and on ids that are not those of the lines."""
    classes: list[GroceryClass] = []
    kinds: dict[int, str] = {}
    for number, line in after_header(file, lines_of(file, "restore it"), HEADER):
        cells = line.split(",")
        try:
            name, class_id, coarse_name, coarse_id, studio_photo, _ = cells
            grocery_class = GroceryClass(
                name, int(coarse_id), coarse_name, studio_photo.removeprefix("/")
            )
            as_expected = int(class_id) == len(classes)
        except ValueError:
            as_expected = False
        if not as_expected or kinds.setdefault(int(coarse_id), coarse_name) != coarse_name:
            raise ValueError(
                f"{file} line {number} must be of class id {len(classes)}, with 6 values and one"
                f" name for each coarse class, got {line!r}: restore the file"
            )
        classes.append(grocery_class)
    return classes


def read_list(file: Path, part: str, classes: list[GroceryClass]) -> list[ImageRow]:
    """The images of a part. Raises ValueError on a missing list, a malformed line or classes that
    classes.csv has not."""
    rows, at_odds = [], []
    remedy = f"restore it, or {datasets['grocery'].facts['obtain']}"
    for number, line in lines_of(file, remedy):
        try:
            path, class_id, coarse_id = line.rsplit(",", 2)
            label, kind = int(class_id), int(coarse_id)
        except ValueError:
            raise ValueError(
                f"{file} line {number} must be 'path, class id, coarse class id', got {line!r}:"
                " correct the line"
            ) from None
        if not 0 <= label < len(classes) or classes[label].coarse_id != kind:
            at_odds.append(f"line {number}: {line}")
        rows.append(ImageRow(str(PurePosixPath(path)), label, part))
    require_none(at_odds, f"classes in {file} that {CLASSES} has not", "restore the lists")
    return rows
