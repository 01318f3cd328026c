"""Stanford Online Products: photographs of things sold on eBay, a class for each offer."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dml_bench.data.csv_table import require_none
from dml_bench.data.datasets.dataset import Dataset, Disk, ImageRow, Where, assemble
from dml_bench.data.datasets.published import after_header, has, home, lines_of
from dml_bench.registry import datasets

LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
HEADER = "image_id class_id super_class_id path"


@dataclass(frozen=True, slots=True)
class Photo:
    """A line of one of the lists."""

    path: str
    class_id: int
    part: str


@datasets.register(
    "sop",
    summary=(
        "Stanford Online Products: 22,634 products, 120,053 images; no product is in both train and"
        " test"
    ),
    source="Song et al. 2016, arXiv:1511.06452",
    obtain=(
        "download Stanford_Online_Products.zip from"
        " https://cvgl.stanford.edu/projects/lifted_struct and unpack it"
    ),
)
def sop(where: Where) -> Dataset:
    """`data_dir` is the folder Stanford_Online_Products, or the folder that it is in.

    Classes are numbered in the order of their ids and called by id and kind, e.g. `00001.bicycle`.
    Raises ValueError on a list that is missing or malformed, on an image id used twice, on a class
    in both lists, and on images that don't exist.
    """
    root = home("sop", where.data_dir, holds, "Ebay_train.txt")
    photos: list[Photo] = []
    classes: dict[str, set[int]] = {}
    for part, name in LISTS.items():
        of_part = read_list(root / name, part)
        classes[part] = {photo.class_id for photo in of_part}
        photos += of_part
    train, test = classes.values()
    require_none(
        [str(class_id) for class_id in sorted(train & test)],
        f"classes in both lists of {root}",
        "restore the lists",
    )
    paths: dict[int, list[str]] = defaultdict(list)
    for photo in photos:
        paths[photo.class_id].append(photo.path)
    label_of = {class_id: label for label, class_id in enumerate(sorted(paths))}
    names = [class_name(class_id, min(paths[class_id])) for class_id in label_of]
    listed = [
        ImageRow(str(PurePosixPath(photo.path)), label_of[photo.class_id], photo.part)
        for photo in photos
    ]
    lists = " and ".join(LISTS.values())
    rows, faults = Disk(root).present(
        listed, lists, f"restore them, or remove their lines from {lists}"
    )
    return assemble("sop", root, names, rows, faults)


def holds(folder: Path) -> bool:
    """Whether the folder has one of the lists."""
    return has(folder, *LISTS.values())


def class_name(class_id: int, path: str) -> str:
    """The id, and the kind of product as the folder of its images says it."""
    kind = path.partition("/")[0].removesuffix("_final") if "/" in path else "product"
    return f"{class_id:05}.{kind}"


def read_list(file: Path, part: str) -> list[Photo]:
    """Raises ValueError on a missing list, a malformed line or an image id used twice."""
    photos: dict[int, Photo] = {}
    for number, line in after_header(
        file, lines_of(file, f"restore it, or {datasets['sop'].facts['obtain']}"), HEADER
    ):
        try:
            image_id, class_id, super_class_id, path = line.split(maxsplit=3)
            key, photo = int(image_id), Photo(path, int(class_id), part)
            int(super_class_id)
        except ValueError:
            raise ValueError(
                f"{file} line {number} must be {HEADER!r}, got {line!r}: correct the line"
            ) from None
        if key in photos:
            raise ValueError(
                f"{file} line {number} uses the image id {key} again: give each image its own id"
            )
        photos[key] = photo
    return list(photos.values())
