"""The two files of a recorded run: what is said of it as JSON, and its answers as a few bytes for
each query.

    results/<data set>/<split and hold-outs>/<experiment>/seed-<n>.json
    results/<data set>/<split and hold-outs>/<experiment>/seed-<n>.safetensors.xz

The second is a safetensors file, compressed by xz. Its metadata hold the summary and the epochs as
JSON under `run`; its arrays hold the answers. The JSON is sealed and holds the SHA-256 of the
second, so a changed file is refused; it alone holds the configuration. The same run is always
written as the same bytes.

Answers are stored as what is rare: 0 is the expected class, and any other number one more than a
class id. Similarities have some steps between the lowest and the highest of their phase; of a run
with several hold-outs only phase `all` has any. What the phases say of one query is alike, so it
stands side by side: one array has the classes of all phases, another the similarities, and the name
of each is the names of its columns. Where that takes more, each column is an array. Names of
classes that the JSON lists are in the JSON alone.
"""

import hashlib
import itertools
import json
import lzma
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.runs import layout
from dml_bench.system.files import (
    UNSEALED,
    Damaged,
    Shape,
    json_text,
    read_json,
    write_atomically,
    write_sealed,
)

__all__ = [
    "ANSWERS_SUFFIX",
    "COST_DIGITS",
    "DESCRIPTION",
    "LARGEST_ANSWERS",
    "LARGEST_PACKED",
    "VERSION",
    "Content",
    "answers_file",
    "canonical_text",
    "decoded_classes",
    "decoded_fractions",
    "decoded_similarities",
    "encoded_classes",
    "encoded_fractions",
    "encoded_similarities",
    "is_record",
    "keeps_similarities",
    "read_content",
    "read_description",
    "rounded",
    "write_content",
    "write_description",
]

VERSION = 5
"""The first lacks the configuration, intervals, single classes and digests of weights; the second
holds the configuration in both files, and its epochs are larger; the third has an array for each
column of answers; the fourth has the similarities of all phases, and class names in both files."""
READABLE = (1, 2, 3, 4, VERSION)
SIDE_BY_SIDE = (("nearest", "elected", "logits"), ("similarity",))
"""Answers of all phases that are the columns of one array."""
NO_VALUE = ""
"""In a column of epochs, where an epoch lacks the value: null is one that is undefined."""
COST_DIGITS = 8
"""Of seconds and rates; the clock's others say nothing, and take space."""
LARGEST_ANSWERS = 2**26
"""Bytes that the second file may unpack to: it may come from anybody."""
LARGEST_PACKED = 2**25
"""Bytes that it may have itself."""
MOST_MEMORY = 2**27
"""Bytes that unpacking may take, twice what it takes: a file says itself how much it wants."""
ANSWERS_SUFFIX = ".safetensors.xz"
UNDEFINED_FRACTION = 255
DESCRIPTION: Shape = {
    "record_version": int,
    "experiment": str,
    "seed": int,
    "dataset": {"name": str, "fingerprint": str},
    "split": {"fingerprint": str},
    "session": dict,
    "answers_sha256": str,
}
"""What the JSON has at least."""
XZ = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 0, "pb": 0}]
REMEDY = "restore it, or record the run again with `dml-bench record RUN`"
LIST_OF_NUMBERS = re.compile(
    r"\[\n\s*((?:-?[\d.eE+-]+|null)(?:,\n\s*(?:-?[\d.eE+-]+|null))*)\n\s*\]"
)
"""As `json_text` writes it, a number a line. Texts hold no line ends."""


@dataclass(frozen=True, slots=True)
class Content:
    """What the second file holds."""

    facts: dict[str, Any]
    """Values of JSON: `experiment`, which is the JSON's `configuration`, `summary`, `records`,
    `class_names` and others."""
    arrays: dict[str, np.ndarray]


def is_record(path: Path) -> bool:
    """Whether a file is the JSON of a recorded run, by its name or that of its neighbour. One whose
    neighbour is missing is a record too, which can't be read, and is not passed over."""
    if path.suffix != ".json":
        return False
    is_named_so = layout.is_seed_name(path.stem) and path.is_file()
    return answers_file(path).is_file() or is_named_so


def answers_file(path: Path) -> Path:
    """The second file of a record, by the first."""
    return path.with_suffix(ANSWERS_SUFFIX)


def write_content(path: Path, description: Mapping[str, Any], content: Content) -> None:
    """Write both files. The JSON is last, so that it never stands beside older answers unseen."""
    answers = packed(content, listed_classes(description))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(answers_file(path), lambda file: file.write(answers))
    write_description(path, description, hashlib.sha256(answers).hexdigest())


def write_description(path: Path, description: Mapping[str, Any], answers_sha256: str) -> None:
    """Write the JSON anew, beside answers of this digest."""
    text = canonical_text(
        {"record_version": VERSION, **description, "answers_sha256": answers_sha256}
    )
    write_sealed(path, lambda file: file.write(text.encode()))


def canonical_text(description: Mapping[str, Any]) -> str:
    """The JSON before it is sealed: the only way to write it, with a list of numbers in a line."""

    def in_a_line(numbers: re.Match[str]) -> str:
        return f"[{', '.join(numbers[1].replace(',', ' ').split())}]"

    text = json_text({"digest": UNSEALED, **description})
    return LIST_OF_NUMBERS.sub(in_a_line, text) + "\n"


def listed_classes(description: Mapping[str, Any]) -> list[str]:
    """The names that stand in the JSON, in the order of class ids; none of more classes than it
    lists."""
    return list(description.get("classes", {}).get("rows", ()))


def packed(content: Content, listed: Sequence[str]) -> bytes:
    """The bytes of the second file, the same for the same content; `listed` are the names of
    classes that the JSON has."""
    from safetensors.numpy import save

    facts = {name: value for name, value in content.facts.items() if name != "experiment"}
    if facts.get("class_names") == listed:
        del facts["class_names"]
    if "records" in facts:
        facts["records"] = columns_of(facts["records"])
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    ways = []
    # Without training all phases answer the same, and whole columns repeat each other.
    for arrays in (side_by_side(content.arrays), contiguous(content.arrays)):
        data = save(arrays, {"run": text})
        ways.append(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=XZ))
    return min(ways, key=len)


def read_description(path: Path) -> dict[str, Any]:
    """The JSON of a record. Raises ValueError where it was changed or is of another version."""
    try:
        description: dict[str, Any] = read_json(path, DESCRIPTION, sealed=True)
    except Damaged as problem:
        raise ValueError(f"{problem}; {REMEDY}") from None
    except OSError as problem:
        raise ValueError(f"{path} can't be read: {problem.strerror}; {REMEDY}") from None
    version = description["record_version"]
    if version not in READABLE:
        raise ValueError(f"{path}: record_version must be {VERSION}, got {version}; {REMEDY}")
    return description


def read_content(path: Path, description: Mapping[str, Any]) -> Content:
    """The answers that belong to a JSON. Raises ValueError where they are missing or were
    changed."""
    from safetensors.numpy import load

    answers = answers_file(path)
    try:
        data = answers.read_bytes()
    except OSError as problem:
        raise ValueError(f"{answers} can't be read: {problem.strerror}; {REMEDY}") from None
    if hashlib.sha256(data).hexdigest() != description["answers_sha256"]:
        raise ValueError(f"{answers} was changed after it was written; {REMEDY}")
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, MOST_MEMORY)
    plain = unpacker.decompress(data, LARGEST_ANSWERS)
    if len(plain) >= LARGEST_ANSWERS:
        raise ValueError(f"{answers} must hold under {LARGEST_ANSWERS:,} bytes; {REMEDY}")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError(f"{answers} is cut off, or holds more than the answers; {REMEDY}")
    length = int.from_bytes(plain[:8], "little")
    header = json.loads(plain[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["run"])
    if isinstance(facts.get("records"), dict):
        facts["records"] = rows_of(facts["records"])
    said = {
        "experiment": description.get("configuration"),
        "class_names": listed_classes(description),
    }
    return Content({**said, **facts}, apart(load(plain)))


def side_by_side(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same answers as columns of fewer arrays, as `SIDE_BY_SIDE` says, each called by the names
    of its columns; as they are where phases answer other numbers of queries, and other arrays."""
    stored = {name: arrays[name] for name in sorted(arrays)}
    for kinds in SIDE_BY_SIDE:
        columns = [name for name in stored if name.rpartition(".")[2] in kinds]
        if len(columns) > 1 and len({stored[name].shape for name in columns}) == 1:
            stored[" ".join(columns)] = np.stack([stored.pop(name) for name in columns], axis=1)
    return contiguous(stored)


def contiguous(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as they are stored, by name."""
    return {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}


def apart(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of which `side_by_side` made columns. Raises ValueError where an array has not as
    many columns as names."""
    arrays = {}
    for names, array in stored.items():
        columns = names.split(" ")
        if len(columns) == 1:
            arrays[names] = array
            continue
        if array.ndim != 2 or array.shape[1] != len(columns):
            raise ValueError(f"answers {names!r} must be {len(columns)} columns, got {array.shape}")
        for name, column in zip(columns, array.T, strict=True):
            arrays[name] = np.ascontiguousarray(column)
    return arrays


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """By name, the value of each row: numbers that are alike stand beside each other, and names
    once."""
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(rows)):
        columns[name] = [row.get(name, NO_VALUE) for row in rows]
    return columns


def rows_of(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The rows of which `columns_of` made the columns. Raises ValueError where columns have
    different lengths."""
    rows = []
    for values in zip(*columns.values(), strict=True):
        row = zip(columns, values, strict=True)
        rows.append({name: value for name, value in row if value != NO_VALUE})
    return rows


def rounded(value: Any, digits: int = 6) -> Any:
    """The same with so many significant digits for each fraction."""
    if isinstance(value, Mapping):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def encoded_classes(classes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(query) class ids as what is rare: 0 where a class is the expected one, else one more than
    the id; in the smallest unsigned integers that hold the ids."""
    codes = np.where(classes == expected, 0, classes.astype(np.int64) + 1)
    return codes.astype(np.min_scalar_type(int(codes.max(initial=0))))


def decoded_classes(codes: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(query) int64 class ids."""
    return np.where(codes == 0, expected, codes.astype(np.int64) - 1)


def keeps_similarities(phase: str, main_phase: str, num_phases: int) -> bool:
    """Whether a record has the similarities of a phase: of a run with one hold-out, of both."""
    return phase == main_phase or num_phases <= 2


def encoded_similarities(values: np.ndarray, last_step: int) -> tuple[np.ndarray, list[float]]:
    """(query) steps from 0 to the last, and the lowest and the highest similarity."""
    if not len(values):
        return np.empty(0, np.uint8), [0.0, 0.0]
    low, high = float(values.min()), float(values.max())
    width = high - low or 1.0
    return np.round((values - low) / width * last_step).astype(np.uint8), [low, high]


def decoded_similarities(steps: np.ndarray, ends: list[float], last_step: int) -> np.ndarray:
    """(query) float32 similarities."""
    low, high = ends
    return (low + steps / last_step * (high - low)).astype(np.float32)


def encoded_fractions(values: np.ndarray) -> np.ndarray:
    """Numbers from 0 to 1 as 0 to 254; 255 for what is undefined."""
    steps = np.round(np.nan_to_num(values) * (UNDEFINED_FRACTION - 1))
    return np.where(np.isnan(values), UNDEFINED_FRACTION, steps).astype(np.uint8)


def decoded_fractions(steps: np.ndarray) -> np.ndarray:
    """float64 numbers from 0 to 1, nan where undefined."""
    values = steps.astype(float) / (UNDEFINED_FRACTION - 1)
    return np.where(steps == UNDEFINED_FRACTION, np.nan, values)
