"""Files that are either whole or not there, and that are what was written when they are read back.

A sealed file has a seal among its first bytes: `xxh3_128:` and the digest of the whole file, in
which the digest's own digits count as zeros. In JSON it is the first key, `digest`, in lines of
JSON that of the first line, in safetensors metadata. It is part of the file, so that a crash can't
part them. What a finished run holds has SHA-256 digests besides, in its summary.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import EllipsisType, UnionType
from typing import Any, BinaryIO, TypeAlias

from dml_bench.system.drafts import drafted

__all__ = [
    "UNSEALED",
    "Damaged",
    "Shape",
    "as_written",
    "check",
    "defined",
    "digest_of",
    "flush_folder",
    "from_json",
    "is_whole",
    "json_line",
    "json_text",
    "read_csv",
    "read_json",
    "read_json_lines",
    "seal_of",
    "sha256_of",
    "short_name",
    "writable",
    "write_atomically",
    "write_csv",
    "write_json",
    "write_json_lines",
    "write_sealed",
    "write_tensors",
    "write_text",
]

SEAL = b"xxh3_128:"
ZEROS = b"0" * 32
UNSEALED = (SEAL + ZEROS).decode()
"""What stands in place of the seal while a file is written."""
HEAD_BYTES = 4096
"""In which the seal lies."""
CHUNK_BYTES = 1 << 20

Shape: TypeAlias = "type | UnionType | dict[str | EllipsisType, Shape] | list[Shape]"
"""What a value of JSON has to be: a type; a table with at least these keys, where `...` stands for
all others; a list of such values."""
FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a text begins that a spreadsheet takes for a formula, or that stands for such a text with an
apostrophe before it."""


class Damaged(ValueError):
    """A file that is not what was written. Its text names the file and says what is wrong; a next
    step is the reader's to add."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} can't be read: {reason}")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a draft of the file, flush it to the disk, and give it its name. Raises
    OSError that names `path`."""
    with drafted(path) as draft, open(draft, "w+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk: without it, a power cut may take a new name
    back. Systems that open no folders, as Windows, need none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def short_name(text: str, most: int = 80) -> str:
    """The beginning of a file's name, of at most so many bytes: a file system allows 255."""
    return text.encode("utf-8", "surrogateescape")[:most].decode("utf-8", "ignore")


def defined(value: Any) -> Any:
    """The same with null for every number that is not finite: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: defined(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [defined(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: Any) -> str:
    """Valid JSON for people to read; what is undefined is null."""
    return writable(json.dumps(defined(value), indent=1, ensure_ascii=False, allow_nan=False))


def writable(text: str) -> str:
    """The same where UTF-8 can write it; else what it can't, as bytes of a file name that are no
    text, as escapes. JSON has the same ones, so that it reads them back."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_line(value: Any) -> str:
    """Valid JSON in one line of ASCII, for logs and pipes; what is undefined is null."""
    return json.dumps(defined(value), allow_nan=False) + "\n"


def write_sealed(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """As `write_atomically`; the `UNSEALED` that `write` puts among the first bytes becomes the
    seal."""

    def fill(file: BinaryIO) -> None:
        write(file)
        seal = examine(file)
        assert seal is not None
        file.seek(seal[0])
        file.write(seal[2])

    write_atomically(path, fill)


def check(path: Path) -> None:
    """Raises Damaged where a sealed file is not what was written, or has no seal."""
    with open(path, "rb") as file:
        if not is_sealed(path, file):
            raise Damaged(path, "it has no digest, so it is damaged or of an earlier version")


def is_whole(path: Path) -> bool:
    """Whether a sealed file is there, and is what was written: a cache makes anew what is not."""
    try:
        check(path)
    except (Damaged, OSError):
        return False
    return True


def is_sealed(path: Path, file: BinaryIO) -> bool:
    """Whether there is a seal. Raises Damaged where it does not fit what is there."""
    seal = examine(file)
    if seal is not None and seal[1] != seal[2]:
        raise Damaged(path, "it was changed after it was written")
    return seal is not None


def seal_of(path: Path) -> str:
    """The seal that a file bears, unchecked. Empty where it has
    none. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    start = head.find(SEAL) + len(SEAL)
    return "" if SEAL not in head else head[start : start + len(ZEROS)].decode()


def examine(file: BinaryIO) -> tuple[int, bytes, bytes] | None:
    """Where the digits of the seal begin, what they are and what they have to be; None without a
    seal."""
    import xxhash

    file.seek(0)
    head = file.read(HEAD_BYTES)
    if SEAL not in head:
        return None
    start = head.index(SEAL) + len(SEAL)
    digits = head[start : start + len(ZEROS)]
    state = xxhash.xxh3_128(head[:start] + ZEROS + head[start + len(ZEROS) :])
    while chunk := file.read(CHUNK_BYTES):
        state.update(chunk)
    return start, digits, state.hexdigest().encode()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, which are not in memory together. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """XXH3 of a file's bytes, for a list of digests that is itself sealed."""
    import xxhash

    state = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8, completely or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a table as JSON that holds its own checksum."""
    text = json_text(with_seal(value)) + "\n"
    write_sealed(path, lambda file: file.write(text.encode()))


def write_json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """One line for each of at least one record."""
    text = "".join(map(json_line, [with_seal(records[0]), *records[1:]]))
    write_sealed(path, lambda file: file.write(text.encode()))


def with_seal(value: Mapping[str, Any]) -> dict[str, Any]:
    assert "digest" not in value
    return {"digest": UNSEALED, **value}


def read_json(path: Path, shape: Shape = dict, *, sealed: bool = False) -> Any:
    """The value in a file of JSON, without its seal. Raises Damaged where it was changed, is no
    JSON or not of the shape.

    Files of earlier versions have no seal; they are read unless it has to be `sealed`.
    """
    [value] = read_values(path, lambda data: [data], shape, sealed)
    return value


def read_json_lines(path: Path, shape: Shape = dict) -> list[Any]:
    """The values in a file with one on each line, as `read_json` reads one."""
    return read_values(
        path, lambda data: data.removesuffix(b"\n").split(b"\n"), shape, sealed=False
    )


def read_values(
    path: Path, parts: Callable[[bytes], list[bytes]], shape: Shape, sealed: bool
) -> list[Any]:
    data = path.read_bytes()
    has_seal = is_sealed(path, io.BytesIO(data))
    values = [from_json(path, part) for part in parts(data)]
    if isinstance(values[0], dict) and bool(values[0].pop("digest", "")) != has_seal:
        raise Damaged(path, "its digest is damaged")
    if sealed and not has_seal:
        raise Damaged(path, "it has no digest, so it is damaged or of an earlier version")
    for value in values:
        if wrong := misfit(value, shape):
            raise Damaged(path, wrong)
    return values


def from_json(path: Path, data: bytes) -> Any:
    """Raises Damaged, in words for people."""
    if not data.strip():
        raise Damaged(path, "it is empty")
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Damaged(path, "it is not text in UTF-8") from None
    except json.JSONDecodeError as error:
        raise Damaged(path, f"it is not JSON (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise Damaged(path, "it is nested too deeply") from None
    except ValueError:  # a number of thousands of digits
        raise Damaged(path, "it holds a number that is too long") from None


def misfit(value: Any, shape: Any, place: str = "it") -> str:
    """In what a value is not of a shape; empty where it is."""
    kind = shape if isinstance(shape, type | UnionType) else type(shape)
    fits = isinstance(value, kind)
    if not fits:
        return f"{place} must be {named(kind)}, got {named(type(value))}"
    inner: list[tuple[Any, Any, str]] = []
    if isinstance(shape, list):
        inner = [(part, shape[0], f"a value in {place}") for part in value]
    if isinstance(shape, dict):
        lacking = [key for key in shape if key is not ... and key not in value]
        if lacking:
            return f"{place} has no {lacking[0]!r}"
        wanted = {**(dict.fromkeys(value, shape[...]) if ... in shape else {}), **shape}
        inner = [(value[key], wanted[key], repr(key)) for key in wanted if key is not ...]
    return next(filter(None, (misfit(*part) for part in inner)), "")


def named(kind: Any) -> str:
    """A type in words."""
    nouns = {
        dict: "a table",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number with a decimal point",
        type(None): "null",
    }
    return nouns.get(kind, "a number")


def write_tensors(path: Path, data: bytes, **facts: str) -> None:
    """A sealed safetensors file: `data` as the library's `save` made it, with `facts` as its
    metadata in the order given."""
    length = int.from_bytes(data[:8], "little")
    header = {"__metadata__": {"digest": UNSEALED, **facts}, **json.loads(data[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned to 8 bytes
    parts = (len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :])
    write_sealed(path, lambda file: file.writelines(parts))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A text that a spreadsheet would take for a formula gets an apostrophe in front, which
    `read_csv` takes away; numbers stay. What UTF-8 can't write becomes escapes, as `writable` has
    it."""

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(
            file, "utf-8", errors="backslashreplace", newline="", write_through=True
        )
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(as_text, row) for row in rows)
        text.detach()

    write_atomically(path, write)


def as_text(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def as_written(cell: str) -> str:
    """A cell of a table without the apostrophe that `write_csv` puts before it."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, by column."""
    # An exported model has this function and none of its neighbours.
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for column, cell in row.items():
            if cell and cell[0] == "'" and FORMULA.match(cell):
                row[column] = cell[1:]
    return rows
