"""Whose layout a folder has, where the data set that was asked for is not in it."""

from collections.abc import Iterable
from pathlib import Path

from dml_bench.data.datasets import cars196, cub, flowers, grocery, inshop, omniglot, sop
from dml_bench.data.datasets.published import below, seen_in
from dml_bench.data.image_files import is_image

__all__ = ["layout_of", "published_in"]

PUBLISHED = (
    ("cub", cub.holds),
    ("sop", sop.holds),
    ("cars196", cars196.holds),
    ("cars196_train", cars196.holds_train),
    ("inshop", inshop.lists_items),
    ("grocery", grocery.holds),
    ("omniglot", omniglot.holds),
    ("flowers102_part", flowers.holds_train),
)


def published_in(places: Iterable[Path]) -> str:
    """The published data set that one of these folders holds; '' where none does."""
    folders = list(places)
    return next((name for name, holds in PUBLISHED if any(map(holds, folders))), "")


def layout_of(data_dir: Path) -> tuple[str, str] | None:
    """The data set that would be found in a folder, and in words what is there; None where none
    would."""
    if name := published_in(below(data_dir)):
        return name, f"the layout of {name}"
    entries = seen_in(data_dir)
    tables = [entry.name for entry in entries if entry.suffix.lower() in (".csv", ".tsv")]
    folders = [entry for entry in entries if entry.is_dir() and holds_images(entry)]
    if tables:
        return f"csv --set data.dataset.table={tables[0]}", "a table"
    if len(folders) > 1:
        names = [folder.name for folder in folders[:3]]
        if len(folders) > 3:
            names.append("...")
        return "folder", f"folders of images ({', '.join(names)})"
    return None


def holds_images(folder: Path, depth: int = 2) -> bool:
    """Whether there is an image in a folder, or in folders in it; the first files of each tell."""
    entries = seen_in(folder)
    files = [entry for entry in entries if not entry.is_dir()][:20]
    if any(is_image(file) for file in files):
        return True
    return depth > 0 and any(
        holds_images(entry, depth - 1) for entry in entries[:20] if entry.is_dir()
    )
