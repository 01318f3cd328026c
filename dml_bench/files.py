"""Files that are either whole or not there."""

import csv
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dml_bench.drafts import drafted

__all__ = ["defined", "json_line", "json_text", "read_csv", "write_atomically", "write_csv", "write_json"]

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a text begins that a spreadsheet takes for a formula, or that stands for such a text with an apostrophe before it."""


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a draft of the file, flush it to the disk, and give it its name. Raises OSError that names `path`."""
    with drafted(path) as draft, open(draft, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def defined(value: Any) -> Any:
    """The same with null for every number that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: defined(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [defined(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Valid JSON for people to read; what is undefined is null."""
    return json.dumps(defined(value), indent=1, ensure_ascii=False, allow_nan=False)


def json_line(value: Any) -> str:
    """Valid JSON in one line of ASCII, for logs and pipes; what is undefined is null."""
    return json.dumps(defined(value), allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    text = json_text(value) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front, which `read_csv` takes away; numbers stay."""

    def write(file: BinaryIO) -> None:
        import io

        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([as_text(cell) for cell in row] for row in rows)
        text.detach()

    write_atomically(path, write)


def as_text(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, by column."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{column: cell[1:] if cell and cell[0] == "'" and FORMULA.match(cell) else cell for column, cell in row.items()} for row in rows]
