"""Which images belong together, and when they were taken: by a column of a table, by paths, or by
what cameras write into files."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import numpy as np

from dml_bench.data.datasets import Dataset
from dml_bench.data.images import photo_file
from dml_bench.registry import near_miss
from dml_bench.registry.names import one_spelling

__all__ = ["days_of", "groups_of", "runs_of_names", "series_of_names"]

NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
RULES_FIRST = ("parent", "runs")
"""Rules that do not give way to a column of their name, as others do."""
PAUSE = timedelta(hours=1)
"""With `exif:hour`, so long a pause between two photos begins a new group."""


def groups_of(dataset: Dataset, rule: str) -> np.ndarray:
    """(images) the names of the groups that `data.group` means; those that look the same are one.
    Raises ValueError where an image has none."""
    kind, _, rest = rule.partition(":")
    is_column = rule in (dataset.columns or {})
    if is_column and rule in RULES_FIRST:
        raise ValueError(
            f"data.group is {rule!r}, which is a rule and a column of {dataset.name}: rename the"
            " column to group by it, or leave it out of the table"
        )
    if rule == "parent":
        names = [PurePosixPath(path).parent.name for path in dataset.paths]
    elif rule == "photo" and not is_column:
        names = [str(photo_file(Path(path))) for path in dataset.paths]
    elif rule == "series" and not is_column:
        names = series_of_names(dataset.paths)
    elif rule == "runs":
        names = runs_of_names(dataset.paths, dataset.labels)
    elif rule == "numbers" and not is_column:
        names = runs_of_names(dataset.paths)
    elif kind == "regex":
        names = [matched(rest, path) for path in dataset.paths]
    elif kind == "exif":
        names = by_camera(dataset) if rest == "camera" else by_time(dataset, rest)
    else:
        names = [cell.strip() for cell in column(dataset, "data.group", rule)]
    without = [path for path, name in zip(dataset.paths, names, strict=True) if not name]
    if without:
        raise ValueError(
            f"data.group is {rule!r}, which gives {len(without)} of {len(dataset)} images of"
            f" {dataset.name} no group (first: {without[0]}): complete them, or choose another rule"
        )
    shown = one_spelling(names)
    return np.array([shown[name] for name in names], object)


def matched(pattern: str, path: str) -> str:
    """What the groups of a regular expression match in a path, else all that it matches."""
    match = re.search(pattern, path)
    if match is None:
        return ""
    return "/".join(part or "" for part in match.groups()) or match.group()


def runs_of_names(paths: Sequence[str], labels: np.ndarray | None = None) -> list[str]:
    """(images) the first file name of the run: photos whose names end in consecutive numbers after
    the same text, and which are of one class where there are `labels`. Numbers that several photos
    have, as where they begin anew in each folder, part no run. '' for names without a number at
    their end."""
    names = [PurePosixPath(path).stem for path in paths]
    classes = [0] * len(names) if labels is None else labels.tolist()
    numbered = []
    for image, name in enumerate(names):
        match = re.fullmatch(r"(.*?)(\d+)", name)
        if match:
            numbered.append((match[1], classes[image], int(match[2]), image))
    runs = [""] * len(names)
    begun: Counter[str] = Counter()
    before = ("", -1, -2, -1)
    for text, label, number, image in sorted(numbered):
        if (text, label) == before[:2] and number - before[2] <= 1:
            runs[image] = runs[before[3]]
        else:
            runs[image] = names[image] + f" ({begun[names[image]]})" * (begun[names[image]] > 0)
            begun[names[image]] += 1
        before = (text, label, number, image)
    return runs


def series_of_names(paths: Sequence[str]) -> list[str]:
    """(images) what stands before the last of several numbers in a file's name: `00015_` of
    `00015_00007`, a frame of a video, or `IMG_20260531_` of a photo with its time. It follows the
    folder where names are not unique, as numbers begin anew in each then. '' for names with fewer
    numbers."""
    names = [PurePosixPath(path).stem for path in paths]
    if len(set(names)) < len(names):
        names = [str(PurePosixPath(path).with_suffix("")) for path in paths]
    matches = [re.fullmatch(r"((?:.*/)?[^/]*\d[^/\d]+)\d+", name) for name in names]
    return ["" if match is None else match[1] for match in matches]


def by_camera(dataset: Dataset) -> list[str]:
    return [capture.camera for capture in dataset.captures]


def by_time(dataset: Dataset, unit: str) -> list[str]:
    """By the day, or, for `hour`, by photos that were taken less than an hour apart."""
    times = [capture.time for capture in dataset.captures]
    if unit == "day":
        return ["" if time is None else time.date().isoformat() for time in times]
    began: dict[datetime, datetime] = {}
    last = first = datetime.min
    for time in sorted({time for time in times if time is not None}):
        if time - last >= PAUSE:
            first = time
        began[time] = first
        last = time
    return ["" if time is None else began[time].isoformat() for time in times]


def column(dataset: Dataset, setting: str, name: str) -> Sequence[str]:
    """(images) the cells of a table's column. Raises ValueError where there is none."""
    columns = dataset.columns or {}
    if name in columns:
        return columns[name]
    there = f"its columns are {', '.join(columns)}" if columns else "it has no table with columns"
    rules = "parent, photo, numbers, series, regex:PATTERN or exif:day"
    others = rules if setting == "data.group" else "exif"
    raise ValueError(
        f"{setting} is {name!r}, which is no column of"
        f" {dataset.name}{near_miss(name, list(columns))}: {there}; or set {others}"
    )


def days_of(dataset: Dataset, rule: str) -> np.ndarray:
    """(images) float: when images were taken, as `data.time` means it. Dates and times count by
    the day, numbers as they are. Raises ValueError where an image has none, or a class has dates
    and numbers."""
    if rule == "exif":
        days = [day_of(capture.time) for capture in dataset.captures]
    else:
        cells = [cell.strip() for cell in column(dataset, "data.time", rule)]
        days = [parsed(cell) for cell in cells]
    without = [path for path, day in zip(dataset.paths, days, strict=True) if day is None]
    if without:
        raise ValueError(
            f"data.time is {rule!r}, which gives {len(without)} of {len(dataset)} images of"
            f" {dataset.name} no time (first: {without[0]}): complete them as 2026-05-31 or as"
            " numbers, or choose another split"
        )
    if rule != "exif":
        require_one_order(dataset, rule, cells)
    return np.array(days, float)


def require_one_order(dataset: Dataset, rule: str, cells: Sequence[str]) -> None:
    """Raises ValueError where a class has dates and numbers: none comes before the other."""
    is_number = np.array([NUMBER.fullmatch(cell) is not None for cell in cells], bool)
    both = np.intersect1d(dataset.labels[is_number], dataset.labels[~is_number])
    if not len(both):
        return
    of_class = dataset.labels == both[0]
    number, date = (cells[np.flatnonzero(of_class & kind)[0]] for kind in (is_number, ~is_number))
    raise ValueError(
        f"data.time is {rule!r}, in which class {dataset.class_names[both[0]]} has a number"
        f" ({number}) and a date ({date}), and neither comes before the other: write all of them"
        " as 2026-05-31 or as numbers"
    )


def day_of(time: datetime | None) -> float | None:
    return None if time is None else float(time.toordinal())


def parsed(cell: str) -> float | None:
    """A number, or the day of a date in ISO 8601 or as EXIF writes it; None for anything else."""
    if NUMBER.fullmatch(cell):
        return float(cell)
    try:
        time = datetime.fromisoformat(re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", cell))
    except ValueError:
        return None
    return day_of(time.astimezone(UTC) if time.tzinfo else time)
