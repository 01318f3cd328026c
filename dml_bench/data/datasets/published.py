"""What the readers of published data sets share: looking for the folder, and lists of one image a line."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from dml_bench.data.labelled_table import visible
from dml_bench.registry import datasets

__all__ = ["after_header", "has", "home", "lines_of"]


def home(name: str, data_dir: Path, holds: Callable[[Path], bool], lacking: str) -> Path:
    """`data_dir` if it holds the data set called `name`, else the one folder in it that does.

    Raises ValueError where several do, and, with what is `lacking` and the way to get the data set, where none does.
    """
    if holds(data_dir):
        return data_dir
    found = [entry for entry in visible(data_dir) if entry.is_dir() and holds(entry)]
    if not found:
        raise ValueError(f"no {name} in {data_dir} ({lacking} is missing): {datasets[name].facts['obtain']}")
    if len(found) > 1:
        places = ", ".join(place.name for place in found)
        raise ValueError(f"{data_dir} holds {name} {len(found)} times ({places}): give the one that is meant with --data-dir")
    return found[0]


def has(folder: Path, *names: str) -> bool:
    """Whether any of these paths exists in `folder`; not where it may not be looked into."""
    return any(os.path.exists(folder / name) for name in names)  # noqa: PTH110 (Path.exists raises where it may not look)


def lines_of(file: Path, remedy: str) -> list[tuple[int, str]]:
    """The lines of a list that are not blank, stripped, each with its number. Raises ValueError on a missing file."""
    if not file.is_file():
        raise ValueError(f"{file} is missing: {remedy}")
    # Names that are not UTF-8 must still lead to their files, to be reported as such.
    text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def after_header(file: Path, lines: Sequence[tuple[int, str]], header: str) -> Sequence[tuple[int, str]]:
    """The lines but for the first. Raises ValueError where that does not name the columns of `header`."""
    first = lines[0][1] if lines else ""
    if first.split() != header.split():
        raise ValueError(f"{file} has {first!r} where the header {header!r} is wanted: restore the list")
    return lines[1:]
