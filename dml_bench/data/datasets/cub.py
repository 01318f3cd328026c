"""CUB-200-2011, and the layout that other sets share with it."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from dml_bench.data.csv_table import inside, require_none
from dml_bench.data.datasets.dataset import Dataset, Disk, ImageRow, Where, assemble
from dml_bench.data.datasets.published import has, home, levels, lines_of
from dml_bench.registry import datasets

__all__ = ["cub_folder", "read_cub_layout"]


@datasets.register(
    "cub",
    summary="CUB-200-2011, or any images in its layout",
    source="Wah et al. 2011, Caltech, doi:10.22002/D1.20098",
    obtain="dml-bench data fetch cub --data-dir DIR downloads it, --demo uses drawn birds instead",
)
def cub(where: Where, *, crop_to_box: bool = False) -> Dataset:
    """`data_dir` is the folder CUB_200_2011, its parent or the parent of that; `crop_to_box` cuts
    each bird out by bounding_boxes.txt."""
    # Other data sets have an images.txt too, so the folder's own name decides among several.
    named = where.data_dir / "CUB_200_2011"
    start = named if holds(named) and not holds(where.data_dir) else where.data_dir
    return read_cub_layout(home("cub", start, holds, "images.txt"), "cub", crop_to_box=crop_to_box)


def holds(folder: Path) -> bool:
    return has(folder, "images.txt")


def cub_folder(data_dir: Path) -> Path | None:
    """The first folder that holds images.txt: `data_dir` itself, CUB_200_2011 in it, or another up
    to two levels down."""
    usual = [data_dir, data_dir / "CUB_200_2011"]
    for folders in itertools.chain([usual], levels(data_dir)):
        for folder in folders:
            if holds(folder):
                return folder
    return None


def read_cub_layout(root: Path, name: str, *, crop_to_box: bool = False) -> Dataset:
    """Read images.txt, classes.txt, image_class_labels.txt and, where there is one,
    train_test_split.txt of `root`.

    Classes are numbered in the order of their ids in classes.txt. Raises ValueError on a list that
    is missing, malformed or at odds with another, and on images that don't exist.
    """
    classes, images = numbered(root / "classes.txt", str), numbered(root / "images.txt", str)
    class_ids = numbered(root / "image_class_labels.txt", int)
    splits = (
        numbered(root / "train_test_split.txt", is_train)
        if (root / "train_test_split.txt").exists()
        else None
    )
    boxes = numbered(root / "bounding_boxes.txt", box) if crop_to_box else None
    require_values(images, class_ids, root / "image_class_labels.txt", "class")
    require_values(images, splits, root / "train_test_split.txt", "part")
    require_values(images, boxes, root / "bounding_boxes.txt", "box")
    label_of = {class_id: label for label, class_id in enumerate(sorted(classes))}
    lost = [
        f"image {image}: {class_ids[image]}" for image in images if class_ids[image] not in label_of
    ]
    require_none(
        lost,
        f"class ids in {root / 'image_class_labels.txt'} that classes.txt lacks",
        "correct them",
    )
    require_none(
        [path for path in images.values() if not inside(path)],
        f"paths in images.txt that lead out of {root / 'images'}",
        "correct them",
    )
    listed = []
    for image, path in images.items():
        part = None
        if splits is not None:
            part = "train" if splits[image] else "test"
        bounds = None if boxes is None else boxes[image]
        place = str(PurePosixPath("images", path))
        listed.append(ImageRow(place, label_of[class_ids[image]], part, bounds))
    rows, faults = Disk(root).present(
        listed, "images.txt", "restore them, or remove their lines from images.txt"
    )
    return assemble(name, root, [classes[class_id] for class_id in sorted(classes)], rows, faults)


Value = TypeVar("Value")


def numbered(file: Path, parse: Callable[[str], Value]) -> dict[int, Value]:
    """The values of lines `id value` by id. Raises ValueError on a missing file, a malformed line
    or an id used twice."""
    values: dict[int, Value] = {}
    for number, line in lines_of(
        file, "restore it, or get the whole data set with dml-bench data fetch cub --data-dir DIR"
    ):
        try:
            identity, text = line.split(maxsplit=1)
            key, value = int(identity), parse(text)
        except ValueError:
            raise ValueError(
                f"{file} line {number} must be a number and its value, got {line!r}: correct the"
                " line"
            ) from None
        if key in values:
            raise ValueError(
                f"{file} line {number} uses the id {key} again: give each line its own id"
            )
        values[key] = value
    return values


def require_values(
    images: dict[int, str], values: dict[int, Value] | None, file: Path, what: str
) -> None:
    lacking = (
        [] if values is None else [path for image, path in images.items() if image not in values]
    )
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
