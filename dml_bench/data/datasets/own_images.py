"""Images of one's own: a folder per class, or a table of files and classes."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath

from dml_bench.data.csv_table import (
    IMAGE_SUFFIXES,
    PARTS,
    CsvTable,
    Roles,
    describe_alike,
    fault,
    inside,
    read_table,
    visible,
)
from dml_bench.data.datasets.dataset import (
    Dataset,
    Disk,
    ImageRow,
    NotThere,
    Where,
    assemble,
    names_in,
)
from dml_bench.data.datasets.layouts import published_in
from dml_bench.data.image_files import describe_left_out, files_below, sorted_out, unread_faults
from dml_bench.data.images import box_of, boxed, photo_file
from dml_bench.data.label_sets import label_sets_of
from dml_bench.registry import datasets, near_miss
from dml_bench.registry.names import composed, one_spelling

__all__ = ["class_folders_in"]


@datasets.register(
    "folder",
    summary="one folder of images per class, also inside train/, valid/ and test/",
    source="your own images",
)
def folder(where: Where, *, parts: str = "") -> Dataset:
    """Classes are the folders of `data_dir`, or of its folders train, valid and test (also
    training, val, query, gallery, ...), which then give the parts. `parts` says so where it is
    unclear: `none`, or the part of each folder, e.g. `one:train,two:test`.

    Images may lie deeper. What is an image is decided by the endings of photographs, else by a
    file's first bytes; other files are counted and named. Faults are images outside of a class
    folder, formats that can't be read, empty classes and links that lead nowhere.
    """
    data_dir = where.data_dir
    tops = top_folders(data_dir, parts)
    class_folders: dict[Path, str | None] = {}
    faults: list[str] = []
    for top, part in tops.items():
        places, stray = class_folders_in(top)
        class_folders |= dict.fromkeys(places, part)
        faults += stray
    require_classes(data_dir, class_folders, faults)
    shown = one_spelling(place.name for place in class_folders)
    class_names = sorted(set(shown.values()))
    label_of = {name: label for label, name in enumerate(class_names)}
    listed: list[ImageRow] = []
    unread: list[Path] = []
    others: list[Path] = []
    others_of: dict[str, list[Path]] = defaultdict(list)
    for place, part in class_folders.items():
        files = sorted_out(files_below(place))
        others_of[shown[place.name]] += files.others
        listed += [
            ImageRow(file.relative_to(data_dir).as_posix(), label_of[shown[place.name]], part)
            for file in files.images
        ]
        unread += files.unread
        others += files.others
    rows, missing = Disk(data_dir).present(
        listed, str(data_dir), "remove the links that lead nowhere"
    )
    notes = [
        *describe_left_out(others, data_dir),
        *describe_unnamed(data_dir, tops),
        *describe_inner(class_folders),
        *describe_published(data_dir),
    ]
    faults += unread_faults(unread, data_dir) + missing
    filled = {row.label for row in rows}
    empty = [name for label, name in enumerate(class_names) if label not in filled]
    theirs = list(chain.from_iterable(others_of[name] for name in empty))
    remedy = "; ".join(["add images to them or remove them", *describe_left_out(theirs, data_dir)])
    if len(class_names) - len(empty) < 2 and not faults:
        raise NotThere(
            *fault(empty, f"classes without images in {data_dir}", remedy)[0].split("; ", 1)
        )
    return assemble(folder_name(data_dir), data_dir, class_names, rows, faults, notes, remedy)


def require_classes(
    data_dir: Path, class_folders: dict[Path, str | None], faults: Sequence[str]
) -> None:
    """Raises NotThere where there are fewer than two classes, ValueError where images lie about
    instead."""
    names = {composed(place.name) for place in class_folders}
    if len(names) > 1:
        return
    if not names and faults:
        raise NotThere(*faults[0].rsplit("; ", 1))
    if not names:
        raise NotThere(
            f"{data_dir} has no class folders",
            "put the images of each class into a folder of its own",
        )
    only = next(iter(class_folders))
    raise NotThere(
        f"{data_dir} must have at least 2 class folders, got {only.name} alone",
        f"add another, or give --data-dir {only} for those in it",
    )


def top_folders(data_dir: Path, parts: str) -> dict[Path, str | None]:
    """The folders whose folders are classes, each with its part of the data set: `data_dir` itself,
    without a part, or folders in it.

    Raises ValueError where it is unclear which, and where `parts` names a folder or a part that is
    not there.
    """
    folders = [entry for entry in visible(data_dir) if entry.is_dir()]
    if parts and parts != "none":
        return named_parts(folders, parts)
    known: dict[Path, str | None] = {
        entry: PARTS[entry.name.lower()] for entry in folders if entry.name.lower() in PARTS
    }
    if parts == "none" or len(folders) < 2:
        return {data_dir: None}
    first = folders_in(folders[0])
    # The others are looked into only where that can tell: it takes as long as reading the whole
    # data set.
    if not known and len(first) < 2:
        return {data_dir: None}
    inner = {entry: folders_in(entry) for entry in folders}
    deep = [entry for entry in known if inner[entry]]
    if len(known) == len(folders):
        lone = [entry for entry in deep if is_lone(entry, known, inner)]
        if lone:
            raise ValueError(
                f"{unclear(folders)}: is the only folder of {lone[0].name} ({inner[lone[0]][0]}) a"
                f" class? {ways_out(known)}"
            )
        return known
    if deep:
        others = [str(entry) for entry in folders if entry not in known]
        names = ", ".join(entry.name for entry in known)
        raise ValueError(
            *fault(
                others,
                f"folders beside the parts {names} of {data_dir}",
                f"move them elsewhere, or {ways_out(known, folders)}",
            )
        )
    if (
        len(first) > 1
        and all(names == first for names in inner.values())
        and not set(map(str.lower, first)) <= set(PARTS)
    ):
        raise ValueError(
            f"{unclear(folders)}: each holds the folders {shortened(first)}: are they classes or"
            f" parts? {ways_out(known, folders)}"
        )
    return {data_dir: None}


def folders_in(place: Path) -> list[str]:
    """The sorted names of the folders in a folder, in the form in which names are compared."""
    return sorted(composed(entry.name) for entry in visible(place) if entry.is_dir())


def is_lone(entry: Path, known: dict[Path, str | None], inner: dict[Path, list[str]]) -> bool:
    """Whether a part holds a single folder that no training image lies in: `images` rather than a
    class."""
    trained = {name for place, part in known.items() if part == "train" for name in inner[place]}
    return len(inner[entry]) == 1 and len(trained) > 1 and inner[entry][0] not in trained


def unclear(folders: Sequence[Path]) -> str:
    return f"{folders[0].parent} holds {shortened([entry.name for entry in folders])}"


def ways_out(known: dict[Path, str | None], folders: Sequence[Path] = ()) -> str:
    """The two settings that say what folders are."""
    named = ",".join(f"{entry.name}:{known.get(entry) or 'train'}" for entry in folders or known)
    return (
        f"--set data.dataset.parts={named} says the part of each, --set data.dataset.parts=none"
        " that they are classes"
    )


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def named_parts(folders: Sequence[Path], parts: str) -> dict[Path, str | None]:
    """The folders that FOLDER:PART,FOLDER:PART names, with their parts. Raises ValueError."""
    by_name = {composed(entry.name): entry for entry in folders}
    chosen: dict[Path, str | None] = {}
    for text in parts.split(","):
        name, _, part = text.rpartition(":")
        if part.lower() not in PARTS or not name:
            raise ValueError(
                f"data.dataset.parts must be none or FOLDER:PART,FOLDER:PART, got {text!r}: choose"
                f" parts from {', '.join(sorted(set(PARTS.values())))}"
            )
        if composed(name) not in by_name:
            raise ValueError(
                f"data.dataset.parts names the folder {name!r}, which is not"
                f" there{near_miss(name, list(by_name))}: correct it"
            )
        chosen[by_name[composed(name)]] = PARTS[part.lower()]
    return chosen


def describe_unnamed(data_dir: Path, tops: dict[Path, str | None]) -> list[str]:
    """A sentence about folders beside the parts that were named."""
    left = (
        []
        if data_dir in tops
        else [entry.name for entry in visible(data_dir) if entry.is_dir() and entry not in tops]
    )
    return (
        [
            f"{data_dir}: data.dataset.parts does not name {shortened(left)}, so the images in"
            " there are left out"
        ]
        if left
        else []
    )


def describe_inner(class_folders: dict[Path, str | None]) -> list[str]:
    """A sentence where each class holds the parts, in place of each part the classes."""
    names: list[str] = []
    for place in class_folders:
        names = folders_in(place)
        if len(names) < 2 or not set(map(str.lower, names)) <= set(PARTS):
            return []
    return [
        f"the folders {shortened(names)} in each class are not taken as parts: put the classes into"
        " the parts for data.split=given"
    ]


def describe_published(data_dir: Path) -> list[str]:
    """A sentence where the folders are those of a published data set, whose classes are written
    elsewhere."""
    name = published_in([data_dir])
    return (
        [
            f"{data_dir} has the layout of {name}, whose classes are not its folders: --dataset"
            f" {name} reads them"
        ]
        if name
        else []
    )


def class_folders_in(top: Path) -> tuple[list[Path], list[str]]:
    """The visible folders of `top`, and a fault where there are images beside them."""
    entries = visible(top)
    folders = [entry for entry in entries if entry.is_dir()]
    beside = sorted_out(entry for entry in entries if not entry.is_dir())
    stray = [str(file) for file in (*beside.images, *beside.unread)]
    return folders, fault(
        stray,
        f"images in {top} outside of any class folder",
        "move each into the folder of its class",
    )


@datasets.register(
    "csv",
    summary="images listed in a table, with a class column or one-hot columns",
    source="your own images",
)
def csv_table(
    where: Where,
    *,
    table: str = "train.csv",
    file_column: str = "",
    label_column: str = "",
    split_column: str = "",
    folder: str = "images",
    suffix: str = "",
    encoding: str = "",
    boxes: bool = True,
    separator: str = "",
) -> Dataset:
    """A table with a header, under `data_dir`, with commas, semicolons, tabs or bars between its
    values, in UTF-8 or in `encoding`.

    Unnamed columns are known by their names (path, label, split, ...); else the first is the file,
    the next the class, or all one-hot columns where it is one (two or more of 0 and 1). Files lie
    in `folder`, or are named relative to `data_dir`; `suffix` is appended to file names without an
    image's extension. The cells of all other columns are kept, for `data.group` and `data.time`.
    Columns x0, y0, x1 and y1, or one column box with all four, are the corners of a box in pixels:
    a photo may stand in several rows, each with the box of another product. With `separator` an
    image has several labels, and the cell of its class lists them, e.g. `beach;dog`. Raises
    ValueError on anything that contradicts this.
    """
    data_dir = where.data_dir
    if not inside(folder):
        raise ValueError(f"option folder must be a folder under {data_dir}, got {folder!r}")
    if not (data_dir / table).is_file() and not any(
        entry.suffix.lower() in (".csv", ".tsv") for entry in visible(data_dir)
    ):
        raise NotThere(
            f"{data_dir / table} does not exist; there is no .csv file", "set the option table"
        )
    listing = read_table(data_dir, table, encoding)
    files = Files(Disk(data_dir), folder, suffix)
    roles = listing.roles(file_column, label_column, split_column, boxes=boxes)
    require_header(listing, roles.file, files)
    one_hot = len(roles.classes) > 1
    if separator:
        listing = listing.with_label_sets(roles.classes, separator)
    if one_hot:
        class_names, labels = (
            [listing.header[at] for at in roles.classes],
            listing.one_hot_labels(roles.classes),
        )
        faults = [*listing.faults, *listing.not_one_hot(labels)]
    else:
        class_names, labels = listing.named_classes(roles.classes[0])
        faults = [*listing.faults, *listing.nameless(roles.classes[0], labels)]
    rows, unfound = files.rows(listing, roles, labels)
    dataset = assemble(
        folder_name(data_dir), data_dir, class_names, rows, [*faults, *unfound], roles.notes
    )
    if not separator:
        return dataset
    sets = label_sets_of(class_names)
    notes = (*dataset.notes, *describe_alike(sets.names, "labels"))
    return replace(dataset, label_sets=sets, notes=notes)


def require_header(listing: CsvTable, file_at: int, files: "Files") -> None:
    """Raises ValueError where the first line already lists an image."""
    name = listing.header[file_at]
    if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES or files.find(name):
        raise ValueError(
            f"{listing.file} begins with an image ({name}) and not with the names of its columns:"
            " add a first line, e.g. path,label"
        )


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of a table are looked for."""

    disk: Disk
    folder: str
    suffix: str

    def named(self, name: str) -> str:
        """With the ending that names without one are given."""
        ending = f".{self.suffix.removeprefix('.')}" if self.suffix else ""
        return name + ending * (PurePosixPath(name).suffix.lower() not in IMAGE_SUFFIXES)

    def find(self, name: str) -> str:
        """The path of a listed file relative to `data_dir`: in the folder, else in `data_dir`
        itself; '' where there is none. A box behind the name stays there."""
        corners = box_of(name)
        if corners is not None:
            photo = self.find(str(photo_file(Path(name))))
            return boxed(photo, corners) if photo else ""
        named = self.named(name)
        if not named or not inside(named):
            return ""
        return self.disk.spelled(str(PurePosixPath(self.folder, named))) or self.disk.spelled(
            str(PurePosixPath(named))
        )

    def relative(self, cell: str) -> str:
        """A file name as it stands in a table, with slashes; an absolute one below `data_dir` is
        made relative to that."""
        name = cell.strip().replace("\\", "/")
        for root in (self.disk.root.absolute(), self.disk.root.resolve()):
            name = name.removeprefix(f"{root.as_posix().rstrip('/')}/")
        return name

    def rows(
        self, listing: CsvTable, roles: Roles, labels: Sequence[int | None]
    ) -> tuple[list[ImageRow], list[str]]:
        """The rows that have a class and a file, and faults about files of others."""
        parts, others = listing.parts(roles), roles.others(len(listing.header))
        boxes = listing.boxes(roles.box)
        rows, outside, missing, no_boxes = [], [], [], []
        listed = zip(listing.rows, labels, parts, boxes, listing.line_numbers, strict=True)
        for cells, label, part, box, line in listed:
            name = self.relative(cells[roles.file])
            if not name or not inside(name):
                outside.append(name)
                continue
            path = self.find(name)
            if not path:
                missing.append(name)
                continue
            if box:
                try:
                    path = boxed(path, box)
                except ValueError:
                    no_boxes.append(f"line {line}")
                    continue
            if label is not None:
                others_of_row = tuple((listing.header[at], cells[at]) for at in others)
                rows.append(ImageRow(path, label, part, cells=others_of_row))
        faults = fault(
            outside,
            f"file names in {listing.file} that are empty or lead out of {self.folder!r}",
            "correct them, relative to the option folder",
        )
        faults += fault(
            no_boxes,
            f"rows of {listing.file} whose box is not left, top, right, bottom in pixels",
            "correct them, or leave their boxes empty for the whole photo",
        )
        has_folder = (self.disk.root / self.folder).is_dir()
        files = self if has_folder or not rows else replace(self, folder=".")
        return rows, faults + files.unfound(listing, missing)

    def unfound(self, listing: CsvTable, missing: Sequence[str]) -> list[str]:
        """A fault about files that are not there, with what is there instead."""
        if not missing:
            return []
        place = self.disk.root / self.folder
        if not place.is_dir():
            near = near_miss(
                self.folder, [entry.name for entry in visible(self.disk.root) if entry.is_dir()]
            )
            return [
                f"{place} is not a folder{near}: set the option folder to where the files of"
                f" {listing.file.name} lie"
            ]
        paths = [str(PurePosixPath(self.folder, self.named(name))) for name in missing]
        remedy = (
            f"restore them, remove their lines from {listing.file.name}, or {self.remedy(paths[0])}"
        )
        return fault(paths, f"images that do not exist in {self.disk.root}", remedy)

    def remedy(self, path: str) -> str:
        """What to set or correct, by the file that is there under almost the same name."""
        wanted = self.disk.root / path
        beside = names_in(wanted.parent)
        near = next((name for name in beside if key(name) == key(wanted.name)), "")
        bare = next(
            (
                name
                for name in beside
                if Path(name).stem == wanted.name and Path(name).suffix.lower() in IMAGE_SUFFIXES
            ),
            "",
        )
        if bare or not (wanted.suffix or near):
            return f"--set data.dataset.suffix={Path(bare).suffix or '.jpg'}"
        if near.casefold() == wanted.name.casefold():
            return f"write {near} as the disk has it"
        if near:
            return (
                f"write {near} with its zeros, which programs cut off where they take names for"
                " numbers"
            )
        return "set the option folder"


def key(name: str) -> str:
    """A name without its case, its ending, and zeros at its beginning."""
    file = PurePosixPath(name.casefold())
    return (file.stem if file.suffix in IMAGE_SUFFIXES else file.name).lstrip("0")


def folder_name(folder: Path) -> str:
    """The folder's own name with only letters, digits, `.`, `_` and `-`: safe as one component of
    another path."""
    return re.sub(r"[^\w.-]+", "-", folder.resolve().name).strip("-.") or "images"
