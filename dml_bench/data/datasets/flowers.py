"""Oxford 102 Flowers: photographs of flowers that are common in the United Kingdom."""

from pathlib import Path

from dml_bench.data.csv_table import require_none, visible
from dml_bench.data.datasets.dataset import Dataset, ImageRow, Where, assemble
from dml_bench.data.datasets.published import has, home
from dml_bench.registry import datasets
from dml_bench.system.files import Damaged, read_json

__all__ = ["holds_train"]

NAMES = "cat_to_name.json"
PHOTOS = "flowers/train"


@datasets.register(
    "flowers102_part",
    summary="Oxford 102 Flowers, a part: 89 of its flowers, 5,543 photos",
    source="Nilsback and Zisserman 2008, ICVGIP",
    obtain="dml-bench data fetch flowers102_part --data-dir DIR downloads a copy",
)
def flowers102_part(where: Where) -> Dataset:
    """`data_dir` is the folder of flowers/train and cat_to_name.json, or a folder up to two levels
    above it.

    Each folder in flowers/train is a class, called by its id; classes are numbered in the order of
    these. A class of a single photo is left out, as its others are missing. Raises ValueError where
    the list of names is damaged, or has no name for a class.
    """
    root = home("flowers102_part", where.data_dir, holds_train, PHOTOS)
    try:
        flower_of = read_json(root / NAMES, {...: str})
    except (OSError, Damaged) as error:
        raise ValueError(f"{error}: restore it") from error
    photos = {folder.name: visible(folder) for folder in visible(root / PHOTOS) if folder.is_dir()}
    unnamed = [class_id for class_id in photos if class_id not in flower_of]
    require_none(unnamed, f"classes without a name in {root / NAMES}", "restore it")
    several = [class_id for class_id in photos if len(photos[class_id]) > 1]
    kept = sorted(several, key=lambda class_id: (len(class_id), class_id))
    rows = [
        ImageRow(photo.relative_to(root).as_posix(), label)
        for label, class_id in enumerate(kept)
        for photo in photos[class_id]
    ]
    return assemble("flowers102_part", root, [flower_of[class_id] for class_id in kept], rows)


def holds_train(folder: Path) -> bool:
    """Whether the folder has the photos and the names of their classes."""
    return has(folder, PHOTOS) and has(folder, NAMES)
