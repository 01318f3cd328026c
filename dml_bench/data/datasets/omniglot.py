"""Omniglot: handwritten characters, a class for each character of an alphabet."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from dml_bench.data.csv_table import visible
from dml_bench.data.datasets.dataset import Dataset, ImageRow, Where, assemble
from dml_bench.data.datasets.published import has, home
from dml_bench.registry import datasets

__all__ = ["holds"]

FOLDERS = ("images_background_small1", "images_background_small2")


@datasets.register(
    "omniglot",
    summary=(
        "Omniglot's two small background sets: 242 characters of 8 alphabets, each drawn by 20"
        " people; 4,840 images"
    ),
    source="Lake et al. 2015, Science 350:1332",
    obtain="dml-bench data fetch omniglot --data-dir DIR downloads it",
    has_coarse_classes=True,
)
def omniglot(where: Where) -> Dataset:
    """`data_dir` is the folder of images_background_small1 and images_background_small2, or a
    folder up to two levels above it.

    Classes are called `Greek.character01`, and are numbered by name; alphabets are the coarse
    classes. The column `drawer` numbers the 20 people who drew an alphabet, 01 to 20. An alphabet
    that both folders have is read from the first. Raises ValueError where one of the two folders is
    missing.
    """
    root = home("omniglot", where.data_dir, holds, FOLDERS[0])
    lacking = [name for name in FOLDERS if not (root / name).is_dir()]
    if lacking:
        raise ValueError(f"{root} lacks {lacking[0]}: {datasets['omniglot'].facts['obtain']}")
    # Greek and Latin are the same files in both folders.
    alphabets: dict[str, Path] = {}
    for folder in FOLDERS:
        for alphabet in folders_in(root / folder):
            alphabets.setdefault(alphabet.name, alphabet)
    characters = {
        f"{name}.{character.name}": character
        for name, alphabet in alphabets.items()
        for character in folders_in(alphabet)
    }
    names = sorted(characters)
    rows: list[ImageRow] = []
    for label, name in enumerate(names):
        images = [file for file in visible(characters[name]) if file.suffix == ".png"]
        rows += [ImageRow(image.relative_to(root).as_posix(), label) for image in images]
    coarse_classes = tuple(name.rpartition(".")[0] for name in names)
    dataset = assemble("omniglot", root, names, rows)
    # `0709_13.png` is the 13th person's drawing.
    drawers = tuple(PurePosixPath(path).stem.rpartition("_")[2] for path in dataset.paths)
    return replace(dataset, coarse_classes=coarse_classes, columns={"drawer": drawers})


def folders_in(place: Path) -> list[Path]:
    """The visible folders in a folder."""
    return [entry for entry in visible(place) if entry.is_dir()]


def holds(folder: Path) -> bool:
    """Whether the folder has one of the two folders of images."""
    return has(folder, *FOLDERS)
