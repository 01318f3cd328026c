"""Embeddings that any program computed, and the table that says of what class each one is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.data.csv_table import (
    CLASS_COLUMNS,
    FILE_COLUMNS,
    SPLIT_COLUMNS,
    read_table,
    require_none,
    twice,
)
from dml_bench.data.datasets import Dataset

__all__ = ["LabelTable", "read_embeddings", "read_labels"]

NAMES_OF_VECTORS = ("embeddings", "embedding", "features", "vectors")
SQUARABLE = (1e-15, 1e15)
"""Numbers between these have squares, and sums of squares, that float32 can hold."""
NAMES_OF_FILES = ("paths", "path", "files", "file", "names", "name", "images", "image", "ids", "id")


@dataclass(frozen=True, slots=True)
class LabelTable:
    """The images of a table as a data set, of which no file is opened."""

    file: Path
    dataset: Dataset
    rows: np.ndarray
    """(images) the row of the table that each image is."""


@dataclass(frozen=True, slots=True)
class NamedVectors:
    """What a file of embeddings holds."""

    vectors: np.ndarray
    """(rows, dim)"""
    names: list[str] | None
    """(rows) what the rows are of; None where the file does not say it."""
    classes: np.ndarray | None
    """(rows) the class of each row; None where the file does not say it."""


def read_labels(file: Path) -> LabelTable:
    """A .csv with a column for the file or name, one for the class, and perhaps one for the part
    (train or gallery; test or query). Raises ValueError where it is not such a table."""
    if not file.is_file():
        raise ValueError(f"{file} does not exist: name a table of classes with --labels FILE.csv")
    table = read_table(file.parent, file.name, "utf-8")
    roles = table.roles("", "", "")
    if len(roles.classes) > 1:
        class_names = [table.header[at] for at in roles.classes]
        labels = table.one_hot_labels(roles.classes)
        faults = table.not_one_hot(labels)
    else:
        class_names, labels = table.named_classes(roles.classes[0])
        faults = table.nameless(roles.classes[0], labels)
    if problems := [*table.faults, *faults]:
        raise ValueError(problems[0])
    names = [row[roles.file].strip() for row in table.rows]
    require_none(
        twice(names), f"rows of {file} with the same {table.header[roles.file]}", "keep one"
    )
    order = np.array(sorted(range(len(names)), key=names.__getitem__))
    parts = table.parts(roles)
    has_parts = parts[0] is not None
    dataset = Dataset(
        name=file.stem,
        root=file.parent,
        paths=tuple(names[row] for row in order),
        labels=np.array(labels, np.int64)[order],
        class_names=tuple(class_names),
        parts=tuple(str(parts[row]) for row in order) if has_parts else None,
        notes=roles.notes[:-1] if roles.box else roles.notes,  # no image is cut to a box here
    )
    return LabelTable(file, dataset, order)


def read_embeddings(file: Path, table: LabelTable) -> np.ndarray:
    """(images, dim) float32 unit vectors in the order of the table's data set.

    A file with names has the vectors of all images of the table, and perhaps of others; one
    without has as many as the table has rows, in its order. Whole numbers are names where the
    table's own are. Raises ValueError where that is not so, where the classes in a file without
    names show that its order is another, and where a vector is not finite or all 0.
    """
    if not file.is_file():
        raise ValueError(f"{file} does not exist: name a file of embeddings, .npz or .parquet")
    readers = {".npz": read_npz, ".parquet": read_parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file} must be .npz or .parquet: save the embeddings as one of these")
    paths = table.dataset.paths
    are_numbers = all(path.isdecimal() for path in paths)
    content = reader(file, are_numbers)
    count = len(content.vectors)
    if count == 0:
        raise ValueError(f"{file} holds no embedding: save one for each image")
    if content.names is not None:
        if len(content.names) != count:
            raise ValueError(
                f"{file} must have one name for each of its {count:,} embeddings, got"
                f" {len(content.names):,}: save them row by row"
            )
        chosen = rows_named(file, content.names, table)
    else:
        if count != len(paths):
            raise ValueError(
                f"{file} must have one embedding for each of the {len(paths):,} rows of"
                f" {table.file}, got {count:,}: save names beside them, as array `paths`"
            )
        chosen = table.rows
        if content.classes is not None:
            require_order(file, content.classes[chosen], table)
    return unit_vectors(file, content.vectors[chosen], paths)


def require_order(file: Path, classes: np.ndarray, table: LabelTable) -> None:
    """Raises ValueError where the classes that a file gives its rows are not those of the table's
    rows. They may have other names, or be coarser or finer."""
    in_file = [str(name) for name in classes]
    in_table = [table.dataset.class_names[label] for label in table.dataset.labels]
    pairs = len(set(zip(in_file, in_table, strict=True)))
    is_other = pairs > max(len(set(in_file)), len(set(in_table)))
    if is_other or (set(in_file) == set(in_table) and in_file != in_table):
        raise ValueError(
            f"{file} has no names, and its classes are not those of the rows of {table.file}: save"
            " names beside the embeddings, as array `paths`"
        )


def rows_named(file: Path, names: list[str], table: LabelTable) -> np.ndarray:
    require_none(twice(names), f"embeddings of {file} with the same name", "keep one")
    row_of = {name: row for row, name in enumerate(names)}
    paths = table.dataset.paths
    missing = [path for path in paths if path not in row_of]
    if missing:
        raise ValueError(
            f"{file} has no embedding of {len(missing):,} of the {len(paths):,} images of"
            f" {table.file}, e.g. {missing[0]}; it names e.g. {names[0]}: write the same names"
        )
    return np.array([row_of[path] for path in paths])


def unit_vectors(file: Path, vectors: np.ndarray, paths: tuple[str, ...]) -> np.ndarray:
    largest = np.maximum(
        vectors.max(axis=1, initial=0).astype(np.float64),
        -vectors.min(axis=1, initial=0).astype(np.float64),
    )
    wrong = np.flatnonzero(~np.isfinite(largest) | (largest == 0))
    if len(wrong):
        raise ValueError(
            f"{file} has {len(wrong):,} embeddings that are all 0 or not finite, e.g. that of"
            f" {paths[wrong[0]]}: compute them again"
        )
    is_extreme = (largest < SQUARABLE[0]) | (largest > SQUARABLE[1])
    if is_extreme.any():
        vectors = vectors / np.where(is_extreme, largest, 1.0)[:, None]
    vectors = np.ascontiguousarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1)[:, None]


def read_npz(file: Path, are_numbers: bool) -> NamedVectors:
    """The arrays of a file; `are_numbers` says whether whole numbers can be names."""
    try:
        with open(file, "rb") as opened:
            archive = np.load(opened, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds one array, as a .npy does")
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # a damaged file raises almost anything
        raise ValueError(
            f"{file} can't be read ({first_line(error)}): save arrays of numbers and"
            " of text, e.g. paths.astype(str), by numpy.savez"
        ) from None
    tables = [key for key, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiu"]
    key = the_one(file, tables, NAMES_OF_VECTORS, "2-D arrays of numbers")
    columns = {key: array for key, array in arrays.items() if array.ndim == 1}
    texts = [key for key, column in columns.items() if column.dtype.kind in "US"]
    numbers = [key for key, column in columns.items() if column.dtype.kind in "iu"]
    named_by = naming(file, texts, numbers if are_numbers else [], "1-D arrays of text")
    names = [str(name) for name in columns[named_by].astype(str)] if named_by else None
    rows = len(arrays[key])
    of_classes = [name for name in (*texts, *numbers) if name.lower() in CLASS_COLUMNS]
    full = [columns[name] for name in of_classes if len(columns[name]) == rows]
    return NamedVectors(arrays[key], names, full[0] if full else None)


def read_parquet(file: Path, are_numbers: bool) -> NamedVectors:
    """The same."""
    import pandas

    try:
        frame = pandas.read_parquet(file)
    except ImportError:
        raise ValueError(
            f"{file}: reading .parquet needs a package that is not installed: pip install pyarrow,"
            " or save an .npz"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{file} can't be read as .parquet ({first_line(error)}): write it again"
        ) from None
    index = frame.index
    is_named = any(frame.index.names) or not pandas.api.types.is_numeric_dtype(frame.index)
    if is_named and not {*frame.index.names} & {*frame.columns}:
        frame = frame.reset_index()  # names, as pandas keeps them; plain row numbers say nothing
    vectors, texts, numbers = kinds_of_columns(frame)
    named_by = naming(file, texts, numbers if are_numbers else [], "columns of text")
    if vectors:
        column = the_one(file, vectors, NAMES_OF_VECTORS, "columns of lists")
        try:
            table = np.stack(frame[column]).astype(np.float64)
        except (ValueError, TypeError):
            raise ValueError(
                f"column {column} of {file} must have a list of as many numbers in each row: write"
                " it again, without rows that lack one"
            ) from None
    else:
        table = frame[dimensions(file, frame)].to_numpy(np.float64)
    names = [str(name) for name in frame[named_by].fillna("")] if named_by else None
    if names is None:
        require_rising(file, index)
    of_classes = [name for name in (*texts, *numbers) if str(name).lower() in CLASS_COLUMNS]
    classes = frame[of_classes[0]].fillna("").to_numpy() if of_classes else None
    return NamedVectors(table, names, classes)


def kinds_of_columns(frame: Any) -> tuple[list[str], list[str], list[str]]:
    """The columns of lists, those of text, and those of whole numbers."""
    import pandas

    vectors, texts, numbers = [], [], []
    for column in frame.columns:
        filled = frame[column].dropna()
        first: Any = filled.iloc[0] if len(filled) else None
        if isinstance(first, np.ndarray | list | tuple):
            vectors.append(column)
        elif isinstance(first, str):
            texts.append(column)
        elif pandas.api.types.is_integer_dtype(frame[column]) and len(filled) == len(frame):
            numbers.append(column)
    return vectors, texts, numbers


def require_rising(file: Path, index: Any) -> None:
    """Raises ValueError where each row has a number of its own and they do not rise: who shuffled
    or sorted the rows would else get the classes of others. Joined frames repeat numbers."""
    import pandas

    is_number = pandas.api.types.is_integer_dtype(index)
    if is_number and index.is_unique and not index.is_monotonic_increasing:
        raise ValueError(
            f"{file} has no names, and its rows are numbered in another order, {index[0]} first:"
            " save names beside them, as column `path`; or call sort_index() where these are the"
            " numbers of the table's rows, reset_index(drop=True) where the rows have its order"
        )


def dimensions(file: Path, frame: Any) -> list[str]:
    """The columns of numbers that are dimensions of vectors: not those whose name says that they
    are file, class or part. Raises ValueError where some end in a number, as dimensions do, and
    others don't: who reads a score or a fold as a dimension gets other neighbours."""
    others = CLASS_COLUMNS | FILE_COLUMNS | SPLIT_COLUMNS | {*NAMES_OF_FILES}
    numeric = frame.select_dtypes("number").columns
    columns = [column for column in numeric if str(column).lower() not in others]
    strange = [column for column in columns if not str(column)[-1:].isdecimal()]
    if strange and len(strange) < len(columns):
        raise ValueError(
            f"{file} has columns of numbers that are no dimensions by their names"
            f" ({', '.join(map(str, strange[:5]))}) beside others that are, e.g."
            f" {next(column for column in columns if column not in strange)}: save it without them"
        )
    return columns


def naming(file: Path, texts: list[str], numbers: list[str], what: str) -> str:
    """The one of `texts` that names the rows; one of the whole `numbers` where its name is a usual
    one and that of no text is; '' where there is none. Texts that are classes or parts by their
    name name no row."""
    names = [text for text in texts if text.lower() not in CLASS_COLUMNS | SPLIT_COLUMNS]
    if not set(names) & set(NAMES_OF_FILES):
        for usual in NAMES_OF_FILES:
            if usual in numbers:
                return usual
    return the_one(file, names, NAMES_OF_FILES, what) if names else ""


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:80]


def the_one(file: Path, names: list[str], usual: tuple[str, ...], what: str) -> str:
    """The first of the usual names, or the only name there is."""
    chosen = next((name for name in usual if name in names), "")
    if chosen:
        return chosen
    if len(names) != 1:
        there = f": {', '.join(names)}" if names else ""
        raise ValueError(
            f"{file} has {len(names)} {what}{there}; the one that is meant must be called"
            f" {usual[0]}: save it under that name"
        )
    return names[0]
