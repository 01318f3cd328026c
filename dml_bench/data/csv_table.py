"""Tables that list images with their classes, and what every list of files and names has to
fulfil."""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath

from dml_bench.data.label_sets import JOINT, combined
from dml_bench.registry import near_miss
from dml_bench.registry.names import composed, one_spelling
from dml_bench.system.files import as_written

__all__ = [
    "CLASS_COLUMNS",
    "FILE_COLUMNS",
    "IMAGE_SUFFIXES",
    "PARTS",
    "SPLIT_COLUMNS",
    "CsvTable",
    "Roles",
    "describe_alike",
    "fault",
    "inside",
    "read_table",
    "require_none",
    "speakable",
    "twice",
    "visible",
]

IMAGE_SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".apng",
    ".bmp",
    ".dib",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".jp2",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".tga",
    ".psd",
}
PARTS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "query": "query",
    "queries": "query",
    "gallery": "gallery",
    "catalogue": "catalogue",
    "catalog": "catalogue",
}
"""What people call the parts of a data set, in lower case, and the part that is meant."""
FILE_COLUMNS = {
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_name",
    "image_id",
    "img",
    "img_path",
}
CLASS_COLUMNS = {
    "label",
    "labels",
    "class",
    "class_name",
    "class_id",
    "classname",
    "target",
    "category",
    "category_name",
    "category_id",
    "species",
}
SPLIT_COLUMNS = {"split", "part", "subset", "partition"}
BOX_COLUMNS = (
    ("x0", "y0", "x1", "y1"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
"""Names of the columns with the corners of a box, in pixels of the upright photo."""
ONE_BOX_COLUMN = "box"
"""The column with all four of these numbers."""
ONE_HOT = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
"""What stands in one-hot columns, in lower case; pandas writes True and False."""
ROLE_MARKS = ("is_query", "is_gallery")
"""Columns by which open-metric-learning says what a row that is not trained on is used for."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The bytes by which a file says its encoding. That of UTF-32 begins like that of UTF-16."""
DELIMITERS = ",;\t|"


@dataclass(frozen=True, slots=True)
class Roles:
    """What the columns of a table are, by their places."""

    file: int
    classes: tuple[int, ...]
    """The column of the class, or the one-hot columns."""
    split: int | None
    query: int | None
    gallery: int | None
    box: tuple[int, ...]
    """The columns of a box's corners, or the one with all of them; empty where there are none."""
    notes: tuple[str, ...]
    """What was chosen among several columns, and which others there are."""

    def others(self, num_columns: int) -> list[int]:
        """The places of the columns that say neither file nor class nor part."""
        used = {self.file, self.split, self.query, self.gallery, *self.classes, *self.box}
        return [at for at in range(num_columns) if at not in used]


@dataclass(frozen=True, slots=True)
class CsvTable:
    """A table of text, and the line of the file on which each of its rows ends."""

    file: Path
    header: list[str]
    rows: list[list[str]]
    line_numbers: list[int]
    faults: tuple[str, ...] = ()

    def roles(
        self, file_column: str, label_column: str, split_column: str, *, boxes: bool = True
    ) -> Roles:
        """The named columns, else those whose name says what they are, else the first for the file
        and the next for the class, or all that are one-hot where that is one of them. Columns of
        `boxes` are looked for unless that is false. Raises ValueError for a column that is not
        there or named twice."""
        named = [name for name in (file_column, label_column, split_column) if name]
        for name in named:
            if name not in self.header:
                raise ValueError(
                    f"{self.file} has no column {name!r}{near_miss(name, self.header)}; its"
                    f" columns: {', '.join(self.header)}"
                )
        if twice(named):
            raise ValueError(
                f"file_column, label_column and split_column of {self.file} are both"
                f" {twice(named)[0]!r}: name columns of {', '.join(self.header)}"
            )
        box = self.box_columns(named) if boxes else ()
        free = [at for at, name in enumerate(self.header) if name not in named and at not in box]
        known_file = self._first(free, FILE_COLUMNS)
        if file_column:
            file_at = self.header.index(file_column)
        elif known_file is None:
            file_at = free[0]
        else:
            file_at = known_file
        free = [at for at in free if at != file_at]
        split_at = (
            self.header.index(split_column) if split_column else self._first(free, SPLIT_COLUMNS)
        )
        notes = []
        if split_at is not None and not split_column:
            strange = self._no_part(split_at)
            if strange is not None:
                notes.append(
                    f"column {self.header[split_at]} of {self.file.name} is not used: {strange!r}"
                    f" is no part ({', '.join(PARTS)})"
                )
                split_at = None
        query, gallery = (self._first(free, {name}) for name in ROLE_MARKS)
        free = [at for at in free if at not in (split_at, query, gallery)]
        classes = self._classes(free, label_column)
        unused = [self.header[at] for at in free if at not in classes]
        if unused and not label_column:
            notes.append(
                f"the classes are column {self.header[classes[0]]} of {self.file.name}; other"
                f" columns: {', '.join(unused)}"
            )
        if box:
            columns = ", ".join(self.header[at] for at in box)
            notes.append(
                f"images are cut to the boxes in {columns} of {self.file.name};"
                " --set data.dataset.boxes=false takes whole photos"
            )
        return Roles(file_at, classes, split_at, query, gallery, box, tuple(notes))

    def file_and_class(self, needs_class: bool) -> tuple[int, int | None]:
        """The columns of files and, if that is needed, of classes, by their names, else the first
        ones. Raises ValueError where there is none."""
        free = [at for at in range(len(self.header)) if at not in self.box_columns()]
        if not needs_class:
            file_at = self._first(free, FILE_COLUMNS)
            return (free[0] if file_at is None else file_at), None
        roles = self.roles("", "", "")
        if len(roles.classes) > 1:
            raise ValueError(
                f"{self.file} must have one column of classes, got {len(roles.classes)}: name"
                " them in one column, e.g. class"
            )
        return roles.file, roles.classes[0]

    def box_columns(self, named: Sequence[str] = ()) -> tuple[int, ...]:
        """The places of the four columns of a box's corners, or of the one column with all of them;
        none where there are none."""
        places = {}
        for at, name in enumerate(self.header):
            if name not in named:
                places[name.lower()] = at
        for columns in BOX_COLUMNS:
            if all(name in places for name in columns):
                return tuple(places[name] for name in columns)
        return (places[ONE_BOX_COLUMN],) if ONE_BOX_COLUMN in places else ()

    def boxes(self, columns: Sequence[int]) -> list[tuple[float, ...] | None]:
        """(rows) the numbers in these columns, (left, top, right, bottom) where a row is as it
        should be; empty where its cells are; None without columns."""
        if not columns:
            return [None] * len(self.rows)
        corners: list[tuple[float, ...] | None] = []
        for row in self.rows:
            text = " ".join(row[at] for at in columns)
            corners.append(numbers_in(text))
        return corners

    def _classes(self, free: list[int], label_column: str) -> tuple[int, ...]:
        if label_column:
            return (self.header.index(label_column),)
        if not free:
            raise ValueError(
                f"{self.file} has no column for the class beside {', '.join(self.header)}: add one,"
                " or set the option label_column"
            )
        known = self._first(free, CLASS_COLUMNS)
        if known is not None:
            return (known,)
        marks = [at for at in free if self.mostly_marks(at)]
        if len(marks) > 1 and free[0] in marks and self.mostly_one_hot(marks):
            return tuple(marks)
        return (free[0],)

    def _first(self, free: Sequence[int], known: set[str]) -> int | None:
        """The first of these columns whose name is among the known ones."""
        return next(
            (at for at in free if re.sub(r"[\W_]+", "_", self.header[at].lower()) in known), None
        )

    def _no_part(self, split_at: int) -> str | None:
        """The first value that is no part of a data set, perhaps an empty one; None where all
        are."""
        values = (row[split_at].strip() for row in self.rows)
        return next((value for value in values if value.lower() not in PARTS), None)

    def with_label_sets(self, columns: Sequence[int], separator: str) -> "CsvTable":
        """The table whose cells in the class column name the labels in one order. Raises ValueError
        where there are several such columns, or a label holds what stands between labels."""
        if len(columns) > 1:
            raise ValueError(
                f"option separator needs one column of labels, and {self.file} has"
                f" {len(columns)}: name it with --set data.dataset.label_column=NAME"
            )
        rows = []
        for row, number in zip(self.rows, self.line_numbers, strict=True):
            labels = row[columns[0]].split(separator)
            if any(JOINT in label for label in labels):
                raise ValueError(
                    f"line {number} of {self.file} has a label with {JOINT!r}, which stands between"
                    f" labels: --set 'data.dataset.separator={JOINT}', or rename it"
                )
            rows.append([*row])
            rows[-1][columns[0]] = combined(labels)
        return replace(self, rows=rows)

    def named_classes(self, label_at: int) -> tuple[list[str], list[int | None]]:
        """The sorted class names, and each row's place among them; None where it has no class."""
        names = [self._class_name(row[label_at]) for row in self.rows]
        shown = one_number(one_spelling(name for name in names if name))
        class_names = sorted(set(shown.values()))
        label_of = {name: label for label, name in enumerate(class_names)}
        return class_names, [label_of[shown[name]] if name else None for name in names]

    @staticmethod
    def _class_name(cell: str) -> str:
        """What pandas writes for a missing value is none."""
        name = cell.strip()
        return "" if name.lower() in ("nan", "<na>") else name

    def nameless(self, label_at: int, labels: Sequence[int | None]) -> list[str]:
        """A fault where rows have no class; empty where all have one."""
        wrong = [
            f"line {number}"
            for number, label in zip(self.line_numbers, labels, strict=True)
            if label is None
        ]
        return fault(
            wrong,
            f"rows of {self.file} without a class in column {self.header[label_at]!r}",
            "fill them in or remove them",
        )

    def mostly_marks(self, at: int) -> bool:
        """Whether most cells of a column are 0 or 1."""
        return 2 * sum(row[at].strip().lower() in ONE_HOT for row in self.rows) > len(self.rows)

    def mostly_one_hot(self, columns: Sequence[int]) -> bool:
        """Whether these columns are meant as one-hot: a few wrong rows must be reported, not turn
        the others into names."""
        return 2 * sum(hot(row, columns) is not None for row in self.rows) > len(self.rows)

    def one_hot_labels(self, columns: Sequence[int]) -> list[int | None]:
        """(rows) the one of these columns that holds a 1; None where not exactly one does."""
        return [hot(row, columns) for row in self.rows]

    def not_one_hot(self, labels: Sequence[int | None]) -> list[str]:
        """A fault where rows have not exactly one 1; empty where all have."""
        wrong = [
            f"line {number}"
            for number, label in zip(self.line_numbers, labels, strict=True)
            if label is None
        ]
        return fault(
            wrong,
            f"rows of {self.file} without exactly one 1",
            "correct them, or name the class's column with label_column",
        )

    def parts(self, roles: Roles) -> Sequence[str | None]:
        """Each row's part of the data set; None where the table has none. Raises ValueError on a
        value that is no part."""
        if roles.split is None:
            return [None] * len(self.rows)
        strange = self._no_part(roles.split)
        if strange is not None:
            known = ", ".join(PARTS)
            raise ValueError(
                f"column {self.header[roles.split]} of {self.file} has the value {strange!r}; parts"
                f" are {known}: correct it"
            )
        parts = [PARTS[row[roles.split].strip().lower()] for row in self.rows]
        if roles.query is None or roles.gallery is None:
            return parts
        marks_of_rows = [(truth(row[roles.query]), truth(row[roles.gallery])) for row in self.rows]
        used = {(True, True): "test", (True, False): "query", (False, True): "gallery"}
        return [
            part if part == "train" else used.get(marks, part)
            for part, marks in zip(parts, marks_of_rows, strict=True)
        ]


def numbers_in(text: str) -> tuple[float, ...]:
    """All numbers of a text; none where anything else than brackets, commas, semicolons and spaces
    stands between them."""
    plain = re.sub(r"[][(),;\s]+", " ", text).split()
    try:
        return tuple(float(number) for number in plain)
    except ValueError:
        return (float("nan"),)


def truth(cell: str) -> bool:
    return cell.strip().lower() in ("true", "1", "1.0", "yes")


def hot(row: list[str], columns: Sequence[int]) -> int | None:
    """The place of the only 1 among these columns; None where they are anything but zeros and a
    single 1."""
    marks = [ONE_HOT.get(row[at].strip().lower(), 2) for at in columns]
    return marks.index(1) if sum(marks) == 1 else None


def one_number(shown: dict[str, str]) -> dict[str, str]:
    """The same spellings, but 1.0 is 1 where there is a 1: pandas writes whole numbers so in a
    column that lacks some."""
    plain = {
        name: re.sub(r"\.0+$", "", name) if re.fullmatch(r"-?\d+\.0+", name) else name
        for name in shown.values()
    }
    return {
        name: plain[spelled] if plain[spelled] in plain else spelled
        for name, spelled in shown.items()
    }


def read_table(data_dir: Path, table: str, encoding: str) -> CsvTable:
    """Raises ValueError on a table that is missing, empty, of another encoding, or without a
    header."""
    file = data_dir / table
    if not file.is_file():
        tables = [
            entry.name for entry in visible(data_dir) if entry.suffix.lower() in (".csv", ".tsv")
        ]
        there = f"there are: {', '.join(tables)}" if tables else "there is no .csv file"
        raise ValueError(
            f"{file} does not exist{near_miss(table, tables)}; {there}: set the option table"
        )
    lines = lines_of(file, text_of(file, encoding))
    header = [name.strip() for name in lines[0][1]] if lines else []
    if len(header) < 2 or len(lines) < 2:
        raise ValueError(
            f"{file} must have a header of at least 2 columns, with commas between, and rows, got"
            f" {len(header)} columns and {max(len(lines) - 1, 0)} rows: write them"
        )
    fits = [len(row) == len(header) for _, row in lines[1:]]
    ragged = [f"line {number}" for (number, _), fit in zip(lines[1:], fits, strict=True) if not fit]
    faults = fault(ragged, f"rows of {file} that have not {len(header)} values", "correct them")
    kept = [line for line, fit in zip(lines[1:], fits, strict=True) if fit]
    rows = [list(map(as_written, row)) for _, row in kept]
    parsed = without_index(
        CsvTable(file, header, rows, [number for number, _ in kept], tuple(faults))
    )
    require_none(twice(parsed.header), f"columns of {file} with the same name", "rename them")
    if len(parsed.header) < 2:
        raise ValueError(
            f"{file} must have at least 2 columns with names, got {parsed.header[0]} alone: name"
            " the column of the file and that of the class"
        )
    return parsed


def lines_of(file: Path, text: str) -> list[tuple[int, list[str]]]:
    """The rows of a table that are not empty, its header first, each with the line of the file on
    which it ends; without a first line `sep=;`, in which Excel says what is between cells. Raises
    ValueError where a quotation mark opens a cell that nothing closes before a comma: the rows up
    to the next such mark would be part of that cell."""
    # Else a lone mark, as in "5 inch, is read over line ends, and the rows on these are lost.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    lines = []
    begun = 1
    try:
        for row in reader:
            if any(map(str.strip, row)) and not (begun == 1 and row == ["sep=", ""]):
                lines.append((reader.line_num, row))
            begun = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{file} is not a table of text from line {begun} on ({error}): save it as"
            " comma-separated text, with each quotation mark that opens a cell closed"
        ) from error
    return lines


def without_index(table: CsvTable) -> CsvTable:
    """The table without columns that have no name and hold row numbers, as pandas writes, or
    nothing, as spreadsheets do."""

    def is_index(at: int, name: str) -> bool:
        return not re.sub(r"^Unnamed: \d+$", "", name) and all(
            not row[at].strip() or row[at].strip().isdecimal() for row in table.rows
        )

    kept = [at for at, name in enumerate(table.header) if not is_index(at, name)]

    def chosen(cells: list[str]) -> list[str]:
        return [cells[at] for at in kept]

    rows = list(map(chosen, table.rows))
    return CsvTable(table.file, chosen(table.header), rows, table.line_numbers, table.faults)


def text_of(file: Path, encoding: str) -> str:
    """The text in the given encoding, else in the one that the file's first bytes name, else UTF-8.
    Raises ValueError."""
    content = file.read_bytes()
    known = encoding or next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(known).removeprefix("\ufeff")  # which a named encoding leaves there
    except LookupError:
        raise ValueError(
            f"option encoding is {encoding!r}, which is none: write e.g. utf-8, utf-16 or cp1252"
        ) from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{file} line {line} is not {known} text: save the table as UTF-8, or set the option"
            " encoding, e.g. --set data.dataset.encoding=cp1252"
        ) from None


def delimiter_of(text: str) -> str:
    """Of comma, semicolon, tab and bar the one that cuts the first line into most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(
        DELIMITERS, key=lambda delimiter: len(next(csv.reader([first], delimiter=delimiter), []))
    )


def fault(wrong: Sequence[str], problem: str, remedy: str) -> list[str]:
    """A sentence that counts what is wrong and names the first; none where nothing is."""
    if not wrong:
        return []
    first = wrong[0] if speakable(wrong[0]) else ascii(wrong[0])
    return [f"{problem}: {len(wrong)} (first: {first}); {remedy}"]


def require_none(wrong: Sequence[str], problem: str, remedy: str) -> None:
    """Raises ValueError with the problem and its remedy where something is wrong."""
    for sentence in fault(wrong, problem, remedy):
        raise ValueError(sentence)


def twice(values: Iterable[str]) -> list[str]:
    """The values that occur more than once, each named once."""
    return [value for value, count in Counter(values).items() if count > 1]


def describe_alike(names: Iterable[str], what: str) -> list[str]:
    """Sentences about names that may be meant as one: they differ in case, or are one number
    written in two ways; or they look the same, but for blanks. `what` says what has them."""
    by_spelling: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_spelling[re.sub(r"^0+(?=\d+$)", "", composed(name).casefold())].append(name)
    by_look: dict[str, list[str]] = defaultdict(list)
    for spelled, of_spelling in by_spelling.items():
        by_look[as_seen(spelled)].append(of_spelling[0])
    remedy = "if they are meant as one, write them in one way"
    return [
        *fault(
            [" and ".join(group) for group in by_spelling.values() if len(group) > 1],
            f"{what} that differ only in case or in zeros",
            remedy,
        ),
        *fault(
            [" and ".join(map(repr, group)) for group in by_look.values() if len(group) > 1],
            f"{what} that differ only in blanks, or in characters that look the same",
            remedy,
        ),
    ]


def as_seen(name: str) -> str:
    """A name without what a person can't see in it: kinds and numbers of blanks, characters without
    a width, and characters in two widths."""
    wide = unicodedata.normalize("NFKC", name)
    shown = [letter for letter in wide if unicodedata.category(letter) != "Cf"]
    return " ".join("".join(shown).split())


def speakable(text: str) -> bool:
    """Whether `text` can be written as UTF-8 on one line: file names that can't would break
    fingerprints and lists."""
    return not re.search(r"[\0-\x1f\ud800-\udfff]", text)


def inside(path: str) -> bool:
    """Whether a listed path stays below the folder that it is relative to, on any platform."""
    parts = PureWindowsPath(path)
    return not (parts.drive or parts.root or ".." in parts.parts)


def visible(place: Path) -> list[Path]:
    """The entries of a folder without those that systems hide in it, sorted by name."""
    hidden = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "Icon\r")
    return sorted(
        entry
        for entry in place.iterdir()
        if not entry.name.startswith(".") and entry.name not in hidden
    )
