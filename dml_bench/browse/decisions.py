"""What a person decides about labels: tags of images in FiftyOne, and a table of the run's images
with these decisions, which the data set `csv` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dml_bench.registry.names import label_named
from dml_bench.runs.run import SplitImage
from dml_bench.system.counted import counted
from dml_bench.system.files import write_csv

__all__ = ["KEPT", "LEFT_OUT", "RELABELLED", "DecidedTable", "decision_tags", "write_decisions"]

KEPT, LEFT_OUT, RELABELLED = "label is right", "leave out", "class:"
"""The tags of a decision; the name of a class follows the last."""

COLUMNS = ("path", "class", "split", "group", "class_before", "tags")


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
