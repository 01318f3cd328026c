"""Stanford Cars (Cars196): photographs of cars, a class for each make, model and year."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dml_bench.data.csv_table import require_none
from dml_bench.data.datasets.dataset import Dataset, Disk, ImageRow, Where, assemble
from dml_bench.data.datasets.published import has, home, lines_of
from dml_bench.registry import datasets

CLASS_IDS = "train_perfect_preds.txt"
"""Of the training photos, in the order of their names. The devkit has it as an example of answers;
copies without annotations have it too."""
CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is written about one image. Each method raises ValueError where its fields make no
    sense."""

    place: str
    """The file, and the number of the annotation in it."""
    fields: dict[str, Any]

    def path(self, field: str, folder: str = "") -> str:
        """The image's path, below `folder`. Raises ValueError where there is none."""
        name = self.fields[field]
        if not isinstance(name, str) or not name:
            raise ValueError(f"{self.place} names no image: restore the file")
        return str(PurePosixPath(folder, name))

    def label(self, num_classes: int) -> int:
        """Class ids count from 1."""
        class_id = self.fields["class"]
        if not isinstance(class_id, int) or not 1 <= class_id <= num_classes:
            raise ValueError(
                f"{self.place}: class must be an id from 1 to {num_classes}, got {class_id!r}:"
                " restore the file"
            )
        return class_id - 1

    def part(self) -> str:
        """`test` or `train`. Raises ValueError where the annotation says neither."""
        test = self.fields["test"]
        if test not in (0, 1):
            raise ValueError(f"{self.place}: test must be 0 or 1, got {test!r}: restore the file")
        return "test" if test else "train"

    def box(self) -> tuple[float, ...]:
        """x, y, width and height; the corners are pixels that count from 1 and belong to the box
        themselves."""
        corners = [self.fields[corner] for corner in CORNERS]
        if not all(isinstance(corner, int | float) and math.isfinite(corner) for corner in corners):
            raise ValueError(
                f"{self.place}: the box must be four numbers, got {corners}: restore the file"
            )
        x1, y1, x2, y2 = map(float, corners)
        if x2 < x1 or y2 < y1:
            raise ValueError(
                f"{self.place} has a box from {x1:g}, {y1:g} to {x2:g}, {y2:g}, which is empty:"
                " restore the file"
            )
        return x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1


@datasets.register(
    "cars196",
    summary="Stanford Cars: 196 models of cars, 16,185 images",
    source="Krause et al. 2013, 3D Representation and Recognition workshop at ICCV",
    obtain=(
        "its page at Stanford is gone, https://github.com/pytorch/vision/issues/7545 says where"
        " there are copies"
    ),
)
def cars196(where: Where, *, crop_to_box: bool = False) -> Dataset:
    """`data_dir` is the folder of the unpacked archives, or the folder that it is in; `crop_to_box`
    cuts each car out.

    Either car_ims/ with cars_annos.mat, or cars_train/ and cars_test/ with cars_meta.mat,
    cars_train_annos.mat and cars_test_annos_withlabels.mat, these beside them or in devkit/. Both
    hold the same images under other names, so splits drawn from them differ. Classes are numbered
    in the order of their ids. Raises ValueError on a file that is missing or damaged, on
    annotations that make no sense, and on images that don't exist.
    """
    root = home("cars196", where.data_dir, holds, "car_ims or cars_test")
    in_one_folder = has(root, "car_ims") and (
        has(root, "cars_annos.mat") or not has(root, "cars_train")
    )
    names, listed = (
        one_folder(root, crop_to_box) if in_one_folder else two_folders(root, crop_to_box)
    )
    remedy = "restore them; they lie directly in car_ims, or in cars_train and cars_test"
    rows, faults = Disk(root).present(listed, "its .mat files", remedy)
    return assemble("cars196", root, names, rows, faults)


def holds(folder: Path) -> bool:
    """Whether the folder has one of the folders of images that `cars196_train` does without."""
    return has(folder, "car_ims", "cars_test")


@datasets.register(
    "cars196_train",
    summary="Stanford Cars, the training photos alone: 196 models of cars, 8,144 images",
    source="Krause et al. 2013, 3D Representation and Recognition workshop at ICCV",
    obtain="dml-bench data fetch cars196_train --data-dir DIR downloads a copy",
)
def cars196_train(where: Where) -> Dataset:
    """`data_dir` is the folder of cars_train/, or a folder up to two levels above it; cars_meta.mat
    and train_perfect_preds.txt, with a class id for each photo, are beside cars_train/ or in
    devkit/.

    The publisher's photos are whole; of the copy that can be fetched, each is cut to the box of its
    car. There are no parts. Raises ValueError on a file that is missing or damaged, on ids that
    make no sense, and on photos that don't exist.
    """
    root = home("cars196_train", where.data_dir, holds_train, "cars_train without cars_test")
    names = class_names(devkit_file(root, "cars_meta.mat", "cars196_train"))
    ids = devkit_file(root, CLASS_IDS, "cars196_train")
    listed = []
    for number, line in lines_of(ids, "restore it"):
        class_id = int(line) if line.isdecimal() else line
        photo = Annotation(f"{ids} line {number}", {"class": class_id})
        listed.append(ImageRow(f"cars_train/{number:05d}.jpg", photo.label(len(names))))
    rows, faults = Disk(root).present(listed, str(ids), "restore them, or the file")
    return assemble("cars196_train", root, names, rows, faults)


def holds_train(folder: Path) -> bool:
    """Whether the folder has the training photos alone."""
    return has(folder, "cars_train") and not holds(folder)


def one_folder(root: Path, crop_to_box: bool) -> tuple[list[str], list[ImageRow]]:
    """Class names and images of the layout with car_ims/."""
    file = devkit_file(root, "cars_annos.mat")
    names = class_names(file)
    rows = [
        ImageRow(
            image.path("relative_im_path"),
            image.label(len(names)),
            image.part(),
            image.box() if crop_to_box else None,
        )
        for image in annotations(file, ("relative_im_path", "test"), crop_to_box)
    ]
    return names, rows


def two_folders(root: Path, crop_to_box: bool) -> tuple[list[str], list[ImageRow]]:
    """Class names and images of the layout with cars_train/ and cars_test/."""
    names = class_names(devkit_file(root, "cars_meta.mat"))
    files = {
        "train": devkit_file(root, "cars_train_annos.mat"),
        "test": devkit_file(root, "cars_test_annos_withlabels.mat"),
    }
    rows = [
        ImageRow(
            image.path("fname", f"cars_{part}"),
            image.label(len(names)),
            part,
            image.box() if crop_to_box else None,
        )
        for part, file in files.items()
        for image in annotations(file, ("fname",), crop_to_box)
    ]
    return names, rows


def devkit_file(root: Path, name: str, dataset: str = "cars196") -> Path:
    """The file called `name` in `root` or devkit/. Raises ValueError where there is none."""
    files = [folder / name for folder in (root, root / "devkit") if (folder / name).is_file()]
    if not files:
        raise ValueError(
            f"{root} lacks {name}, also in devkit: restore it; {datasets[dataset].facts['obtain']}"
        )
    return files[0]


def variable(file: Path, name: str) -> np.ndarray:
    """The variable called `name` of a MATLAB file, with at least one dimension. Raises ValueError
    where it can't be read."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, squeeze_me=True, variable_names=[name])
    # Damaged files raise almost anything.
    except Exception as error:
        raise ValueError(
            f"{file} can't be read as a MATLAB file ({' '.join(str(error).split())}): restore it"
        ) from error
    if name not in content:
        raise ValueError(f"{file} has no variable {name}: restore it")
    return np.atleast_1d(content[name])


def class_names(file: Path) -> list[str]:
    """The names in the order of the class ids, which count from 1."""
    names = variable(file, "class_names").tolist()
    nameless = [
        f"class id {class_id}"
        for class_id, name in enumerate(names, 1)
        if not isinstance(name, str) or not name.strip()
    ]
    require_none(nameless, f"classes of {file} without a name", "restore it")
    return [name.strip() for name in names]


def annotations(file: Path, fields: tuple[str, ...], with_box: bool) -> Iterator[Annotation]:
    """The annotations of a MATLAB file with these fields, the class and perhaps the box. Raises
    ValueError where one is lacking."""
    table = variable(file, "annotations")
    wanted = (*fields, "class")
    if with_box:
        wanted += CORNERS
    lacking = [field for field in wanted if field not in (table.dtype.names or ())]
    require_none(
        lacking,
        f"fields that annotations of {file} lack",
        "restore it (cars_test_annos.mat, without classes, is another file)",
    )
    for number, values in enumerate(
        zip(*(table[field].tolist() for field in wanted), strict=True), 1
    ):
        yield Annotation(f"{file} annotation {number}", dict(zip(wanted, values, strict=True)))
