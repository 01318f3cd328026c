"""What the readers of published data sets share: looking for the folder, and lists of one image a
line."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dml_bench.data.csv_table import visible
from dml_bench.data.datasets.dataset import NotThere
from dml_bench.registry import datasets

__all__ = ["after_header", "below", "has", "home", "lines_of", "seen_in"]


def home(name: str, data_dir: Path, holds: Callable[[Path], bool], lacking: str) -> Path:
    """`data_dir` if it holds the data set called `name`, else the one folder in it that does, else
    the one folder in those.

    Raises ValueError where several do, and where the folder above does; NotThere, with what is
    `lacking` and the way to get the data set, where none does.
    """
    for places in levels(data_dir):
        homes = [place for place in places if holds(place)]
        if len(homes) > 1:
            names = ", ".join(place.relative_to(data_dir).as_posix() for place in homes)
            raise ValueError(
                f"{data_dir} holds {name} {len(homes)} times ({names}): give the one that is meant"
                " with --data-dir"
            )
        if homes:
            return homes[0]
    above = data_dir.absolute().parent
    if holds(above):
        raise ValueError(f"{data_dir} is a part of {name}: give --data-dir {above}")
    raise NotThere(
        f"no {name} in {data_dir} ({lacking} is missing)", datasets[name].facts["obtain"]
    )


def levels(data_dir: Path) -> Iterator[list[Path]]:
    """The folder itself, the folders in it, and the folders in those, which unpackers and Kaggle
    add."""
    places = [data_dir]
    yield places
    for _ in range(2):
        entries = [entry for place in places for entry in seen_in(place)]
        places = [entry for entry in entries if os.path.isdir(entry)]  # noqa: PTH112
        yield places


def seen_in(place: Path) -> list[Path]:
    """What is visible in a folder; nothing where there is none, or it may not be looked into."""
    try:
        return visible(place)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def below(data_dir: Path) -> list[Path]:
    """All folders of `levels`, the outer ones first."""
    return [place for places in levels(data_dir) for place in places]


def has(folder: Path, *names: str) -> bool:
    """Whether any of these paths exists in `folder`; not where it may not be looked into."""
    # Path.exists raises where it may not look.
    return any(os.path.exists(folder / name) for name in names)  # noqa: PTH110


def lines_of(file: Path, remedy: str) -> list[tuple[int, str]]:
    """The lines of a list that are not blank, stripped, each with its number. Raises ValueError on
    a missing file."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: {remedy}")
    # Names that are not UTF-8 must still lead to their files, to be reported as such.
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [
        (number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()
    ]


def after_header(
    file: Path, lines: Sequence[tuple[int, str]], header: str
) -> Sequence[tuple[int, str]]:
    """The lines but for the first. Raises ValueError where that does not name the columns of
    `header`."""
    first = lines[0][1] if lines else ""
    if first.split() != header.split():
        raise ValueError(f"{file} must have the header {header!r}, got {first!r}: restore the list")
    return lines[1:]
