"""Tables that list images with their classes, and what every list of files and names has to fulfil."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from dml_bench.registry import near_miss

__all__ = ["IMAGE_SUFFIXES", "Table", "inside", "read_table", "require_none", "speakable", "twice", "visible"]

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text, and the line of the file on which each of its rows ends."""

    file: Path
    header: list[str]
    rows: list[list[str]]
    line_numbers: list[int]

    def columns(self, file_column: str, label_column: str) -> tuple[int, int]:
        """Where the file and the class are: at the named columns, else at the first and the next one."""
        named = [name for name in (file_column, label_column) if name]
        for name in named:
            if name not in self.header:
                raise ValueError(f"{self.file} has no column {name!r}{near_miss(name, self.header)}; its columns: {', '.join(self.header)}")
        if file_column and file_column == label_column:
            raise ValueError(f"file_column and label_column are both {file_column!r}: name two columns of {', '.join(self.header)}")
        free = [at for at, name in enumerate(self.header) if name not in named]
        file_at = self.header.index(file_column) if file_column else free.pop(0)
        return file_at, self.header.index(label_column) if label_column else free.pop(0)

    def named_classes(self, label_at: int) -> tuple[list[str], list[int]]:
        """The sorted class names, and each row's place among them."""
        names = [row[label_at].strip() for row in self.rows]
        nameless = [f"line {number}" for number, name in zip(self.line_numbers, names, strict=True) if not name]
        require_none(nameless, f"rows of {self.file} without a class in column {self.header[label_at]!r}", "fill them in or remove them")
        class_names = sorted(set(names))
        label_of = {name: label for label, name in enumerate(class_names)}
        return class_names, [label_of[name] for name in names]

    def mostly_one_hot(self, columns: list[int]) -> bool:
        """Whether these columns are meant as one-hot: a few wrong rows must be reported, not turn the others into names."""
        return 2 * sum(hot(row, columns) is not None for row in self.rows) > len(self.rows)

    def one_hot_classes(self, columns: list[int]) -> list[int]:
        labels = [hot(row, columns) for row in self.rows]
        wrong = [f"line {number}" for number, label in zip(self.line_numbers, labels, strict=True) if label is None]
        require_none(wrong, f"rows of {self.file} without exactly one 1", "correct them, or name the class's column with label_column")
        return [label for label in labels if label is not None]

    def paths(self, file_at: int, folder: str, suffix: str) -> list[str]:
        """Each row's image, relative to the folder of the data set."""
        names = [row[file_at].strip().replace("\\", "/") for row in self.rows]
        outside = [name for name in names if not name or not inside(name)]
        require_none(
            outside, f"file names in {self.file} that are empty or lead out of {folder!r}", "correct them, relative to the option folder"
        )
        if not inside(folder):
            raise ValueError(f"option folder is {folder!r}; a folder under {self.file.parent} is wanted")
        ending = f".{suffix.removeprefix('.')}" if suffix else ""
        bare = [PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES for name in names]
        return [str(PurePosixPath(folder, name + ending * is_bare)) for name, is_bare in zip(names, bare, strict=True)]


def hot(row: list[str], columns: list[int]) -> int | None:
    """The place of the only 1 among these columns; None where they are anything but zeros and a single 1."""
    marks = [{"0": 0, "0.0": 0, "1": 1, "1.0": 1}.get(row[at].strip(), 2) for at in columns]
    return marks.index(1) if sum(marks) == 1 else None


def read_table(data_dir: Path, table: str) -> Table:
    """Raises ValueError on a table that is missing, empty, not UTF-8, or has ragged rows."""
    file = data_dir / table
    if not file.is_file():
        tables = [entry.name for entry in visible(data_dir) if entry.suffix.lower() == ".csv"]
        there = f"there are: {', '.join(tables)}" if tables else "there is no .csv file"
        raise ValueError(f"{file} does not exist{near_miss(table, tables)}; {there}: set the option table")
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a table of comma-separated UTF-8 text ({error}): save it as one") from error
    header = [name.strip() for name in lines[0][1]] if lines else []
    if len(header) < 2 or len(lines) < 2:
        raise ValueError(
            f"{file} has {len(header)} columns and {max(len(lines) - 1, 0)} rows; a header of 2 columns, commas between, and rows are wanted"
        )
    require_none(twice(header), f"columns of {file} with the same name", "rename them")
    ragged = [f"line {number}" for number, row in lines[1:] if len(row) != len(header)]
    require_none(ragged, f"rows of {file} that have not {len(header)} values", "correct them")
    return Table(file, header, [row for _, row in lines[1:]], [number for number, _ in lines[1:]])


def require_none(wrong: Sequence[str], problem: str, remedy: str) -> None:
    if wrong:
        first = wrong[0] if speakable(wrong[0]) else ascii(wrong[0])
        raise ValueError(f"{problem}: {len(wrong)} (first: {first}); {remedy}")


def twice(values: Iterable[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def speakable(text: str) -> bool:
    """Whether `text` can be written as UTF-8 on one line: file names that can't would break fingerprints and lists."""
    return not re.search(r"[\0-\x1f\ud800-\udfff]", text)


def inside(path: str) -> bool:
    """Whether a listed path stays below the folder that it is relative to, on any platform."""
    parts = PureWindowsPath(path)
    return not (parts.drive or parts.root or ".." in parts.parts)


def visible(place: Path) -> list[Path]:
    """The entries of a folder without those that systems hide in it, sorted by name."""
    return sorted(entry for entry in place.iterdir() if not entry.name.startswith(".") and entry.name not in ("__MACOSX", "@eaDir"))
