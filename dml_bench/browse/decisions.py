"""What a person decides about labels: tags of images in FiftyOne, and a table of the run's images
with these decisions, which the data set `csv` reads."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dml_bench.registry.names import label_named
from dml_bench.runs.run import SplitImage
from dml_bench.system.counted import counted
from dml_bench.system.files import write_csv

__all__ = [
    "KEPT",
    "LEFT_OUT",
    "RELABELLED",
    "DecidedTable",
    "at_new_place",
    "decision_tags",
    "write_decisions",
]

KEPT, LEFT_OUT, RELABELLED = "label is right", "leave out", "class:"
"""The tags of a decision; the name of a class follows the last."""

COLUMNS = ("path", "class", "split", "group", "class_before", "tags")
LOOKED_AT = 100
"""Images, evenly spaced, by which the folder is known in which all lay before."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DecidedTable:
    """What was written of a run's images."""

    images: int
    """The rows of the table."""
    relabelled: int
    """Of these, images with another class than before."""
    left_out: int
    """Images of the run that are not in the table."""

    def describe(self) -> str:
        """All of it in a sentence."""
        images = counted(self.images, "image")
        return f"{images}, {self.relabelled} relabelled; {self.left_out} left out"


def decision_tags(tags: Sequence[str]) -> list[str]:
    """Those that are decisions; others are a person's own."""
    return [tag for tag in tags if tag in (KEPT, LEFT_OUT) or tag.startswith(RELABELLED)]


def write_decisions(
    images: Sequence[SplitImage],
    class_names: dict[int, str],
    tags: Mapping[str, Sequence[str]],
    out: Path,
) -> DecidedTable:
    """Write a table of images with their decided classes. `tags` are by the path of an image.

    Raises ValueError where an image has several decisions, and UnknownName where one names none of
    the classes.
    """
    rows, relabelled, left_out = [], 0, 0
    for image in images:
        of_image = tags.get(image.path, ())
        name = decided_class(class_names, image, decision_tags(of_image))
        if name is None:
            left_out += 1
            continue
        relabelled += name != image.class_name
        cells = (image.path, name, image.part, image.group, image.class_name, "|".join(of_image))
        rows.append(cells)
    write_csv(out, COLUMNS, rows)
    return DecidedTable(len(rows), relabelled, left_out)


def decided_class(
    class_names: dict[int, str], image: SplitImage, decisions: Sequence[str]
) -> str | None:
    """The class of an image by its decisions; None where it is left out."""
    if len(decisions) > 1:
        raise ValueError(
            f"{image.path} must have one decision, got {' and '.join(decisions)}: remove the tags"
            " that don't hold"
        )
    if not decisions or decisions[0] == KEPT:
        return image.class_name
    if decisions[0] == LEFT_OUT:
        return None
    return class_names[label_named(decisions[0].removeprefix(RELABELLED).strip(), class_names)]


def at_new_place(known: Mapping[str, T], files: Sequence[str], root: str) -> dict[str, T]:
    """What is known of files, under the paths that these have now: the images of a folder may have
    been moved to `root`, where `files` are, since it was noted."""
    below = f"{root}{os.sep}"
    relative = [file.removeprefix(below) for file in files if file.startswith(below)]
    former = former_root(known, relative[:: max(1, len(relative) // LOOKED_AT)])
    if former in (None, root):
        return dict(known)
    before = f"{former}{os.sep}"
    places: dict[str, T] = {}
    for file, of_file in known.items():
        place = below + file.removeprefix(before) if file.startswith(before) else file
        places[file if place in known else place] = of_file
    return places


def former_root(known: Iterable[str], relative: Sequence[str]) -> str | None:
    """The folder in which most of these relative paths are known; None where there is none."""
    by_name = defaultdict(list)
    for file in known:
        by_name[file.rpartition(os.sep)[2]].append(file)
    roots: Counter[str] = Counter()
    for path in relative:
        ending = os.sep + path
        for file in by_name[path.rpartition(os.sep)[2]]:
            if file.endswith(ending):
                roots[file.removesuffix(ending)] += 1
    [(root, count)] = roots.most_common(1) or [("", 0)]
    return root if 2 * count > len(relative) else None
