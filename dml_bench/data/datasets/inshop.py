"""DeepFashion's In-Shop Clothes Retrieval: a shop's photographs of garments, a class for each
garment."""

from pathlib import Path, PurePosixPath

from dml_bench.data.csv_table import require_none
from dml_bench.data.datasets.dataset import Dataset, Disk, ImageRow, Where, assemble
from dml_bench.data.datasets.published import after_header, has, home, lines_of
from dml_bench.registry import datasets, near_miss

LISTS = ("Eval/list_eval_partition.txt", "list_eval_partition.txt", "Anno/list_eval_partition.txt")
HEADER = "image_name item_id evaluation_status"
PARTS = ("train", "query", "gallery")


@datasets.register(
    "inshop",
    summary=(
        "DeepFashion In-Shop Clothes Retrieval: 7,982 garments, 52,712 images; train, query and"
        " gallery as published"
    ),
    source="Liu et al. 2016, DeepFashion, CVPR",
    obtain=(
        "ask for it at https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html, and"
        " unpack Img/img.zip"
    ),
)
def inshop(where: Where) -> Dataset:
    """`data_dir` is the folder of the benchmark, or the folder that it is in; images lie in
    Img/img/ or img/ of it.

    Classes are numbered in the order of their item ids, which are also their names. `root` is the
    folder that holds img/, so paths are those of the list in either place. Raises ValueError on a
    list that is missing, malformed or at odds with its own count, on items both trained on and
    asked for, and on images that don't exist.
    """
    # The other benchmarks of DeepFashion, and CelebA, call their lists the same.
    root = (
        where.data_dir
        if has(where.data_dir, *LISTS)
        else home("inshop", where.data_dir, lists_items, LISTS[0])
    )
    file = list_of(root)
    images = read_list(file)
    trained = {item for _, item, part in images if part == "train"}
    tested = {item for _, item, part in images if part != "train"}
    require_none(
        sorted(trained & tested),
        f"items of {file} that are both in train and in query or gallery",
        "restore the list",
    )
    label_of = {item: label for label, item in enumerate(sorted(trained | tested))}
    listed = [
        ImageRow(str(PurePosixPath(path)), label_of[item], part) for path, item, part in images
    ]
    # Img first: where case doesn't count, it would be taken for img.
    folder = root / "Img" if has(root, "Img/img") else root
    rows, faults = Disk(folder).present(
        listed, file.name, f"unpack img.zip in {root / 'Img'}, or restore them"
    )
    return assemble("inshop", folder, label_of, rows, faults)


def list_of(folder: Path) -> Path:
    """The list of images and parts, at the place where it is or else should be."""
    return next((folder / name for name in LISTS if has(folder, name)), folder / LISTS[0])


def lists_items(folder: Path) -> bool:
    """Whether the list in `folder` has this benchmark's columns."""
    return has(folder, *LISTS) and [
        line.split() for _, line in lines_of(list_of(folder), "")[1:2]
    ] == [HEADER.split()]


def read_list(file: Path) -> list[tuple[str, str, str]]:
    """Path, item id and part of each image. Raises ValueError on a malformed line, and on a count
    that is not that of the lines."""
    lines = lines_of(file, f"restore it, or {datasets['inshop'].facts['obtain']}")
    count = lines[0][1] if lines else ""
    if not count.isdecimal():
        raise ValueError(
            f"{file} must start with the number of images, got {count!r}: restore the list"
        )
    images = []
    for number, line in after_header(file, lines[1:], HEADER):
        values = line.rsplit(maxsplit=2)
        if len(values) != 3:
            raise ValueError(
                f"{file} line {number} must be {HEADER!r}, got {line!r}: correct the line"
            )
        path, item, part = values
        if part not in PARTS:
            raise ValueError(
                f"{file} line {number} has the status {part!r}{near_miss(part, list(PARTS))};"
                f" {', '.join(PARTS)} are known: correct the line"
            )
        images.append((path, item, part))
    if len(images) != int(count):
        raise ValueError(
            f"{file} promises {count} images in its first line and lists {len(images)}: restore the"
            " list"
        )
    return images
