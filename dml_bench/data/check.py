"""What could make the numbers of a data set wrong: faults of its files and labels, images that
can't be decoded, copies of one image."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import xxhash
from PIL import Image

from dml_bench.config import Data
from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.images import Unreadable, box_of, decode, photo_file, size_of
from dml_bench.data.same_picture import first_of_picture, small_copy
from dml_bench.data.sessions import Sessions
from dml_bench.data.split import (
    Split,
    make_disjoint_split,
    make_split,
    split_by_label_sets,
)
from dml_bench.registry import protocols
from dml_bench.system.threaded import threaded_map

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "Damage",
    "DataReport",
    "Sides",
    "check",
    "describe_beyond",
    "describe_boxes",
    "render",
    "sides",
]

SHOWN = 10
"""Most lines that `render` spends on one kind of finding."""
ROUNDING = 1.0
"""Pixels by which a box may reach beyond its photo without a word."""

Copies = tuple[tuple[str, ...], ...]
"""Groups of paths of one image."""


class TrainTest(Protocol):
    """Image indices of the two sides of a split."""

    @property
    def train(self) -> np.ndarray: ...
    @property
    def test(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Sides:
    """What is trained on or looked up, and what asks."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, slots=True)
class Damage:
    """An image that can't be decoded."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What `check` found; paths are those of the data set."""

    name: str
    num_images: int
    num_classes: int
    fewest: int
    """Images in the smallest class."""
    median: float
    """Images in the middle one of the classes by their sizes."""
    most: int
    """Images in the largest class."""
    unreadable: tuple[Damage, ...]
    duplicates: Copies
    """All groups of files that are equal byte for byte."""
    resaved: Copies = ()
    """All groups of the same picture, of which some were saved again in another format, quality or
    size."""
    conflicting: Copies
    """Groups of either kind with more than one class."""
    across_split: Copies | None
    """Those on both sides of the split; None where no split was given."""
    single: tuple[str, ...] = ()
    """Classes of one image."""
    faults: tuple[str, ...] = ()
    """What the reader refuses outside of a check."""
    refused: str = ""
    """Why the split of a run refuses the data set; '' where it does not."""
    notes: tuple[str, ...] = ()
    sessions: Sessions | None = None
    """Those that a random split would divide, or that embeddings were asked for; None where none
    are seen or looked for."""

    @property
    def copies(self) -> Copies:
        """The groups of either kind; one that is part of another is told only there."""
        return united(self.duplicates, self.resaved)

    @property
    def one_picture(self) -> bool:
        """Whether all images that can be decoded show the same picture."""
        return any(
            len(group) == self.num_images - len(self.unreadable) > 1 for group in self.copies
        )

    @property
    def problems(self) -> bool:
        """Whether results would be wrong or refused: faults, damaged images, copies with two
        classes or on both sides of the split, and any copies as long as the split is unknown."""
        crossing = self.copies if self.across_split is None else self.across_split
        return bool(
            self.faults
            or self.refused
            or self.unreadable
            or self.conflicting
            or crossing
            or self.one_picture
        )


def check(
    dataset: Dataset,
    *,
    split: TrainTest | None = None,
    refused: str = "",
    sessions: Sessions | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Decode every image; compare all files by SHA-256, and all images by their pixels and by small
    copies (`data.same_picture`). `refused` says why there is no split of the whole data set;
    `sessions` are reported as they are."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    unreadable, pictures = decoded(dataset, progress or (lambda stage, done, total: None))
    file_of = dict(zip(dataset.paths, dataset.image_digests, strict=True))
    duplicates = equal(file_of)
    resaved = tuple(group for group in equal(pictures) if differ(file_of, group))
    both = united(duplicates, resaved)
    label_of = dict(zip(dataset.paths, dataset.labels.tolist(), strict=True))
    return DataReport(
        name=dataset.name,
        num_images=len(dataset),
        num_classes=dataset.num_classes,
        fewest=int(counts.min()),
        median=float(np.median(counts)),
        most=int(counts.max()),
        unreadable=tuple(Damage(path, reason) for path, reason in unreadable.items()),
        duplicates=duplicates,
        resaved=resaved,
        conflicting=tuple(group for group in both if differ(label_of, group)),
        across_split=None if split is None else across(dataset, both, split),
        single=classes_of_one(dataset, counts),
        faults=dataset.faults,
        refused=refused,
        notes=(*dataset.notes, *describe_boxes(dataset, len(dataset))),
        sessions=sessions,
    )


def describe_boxes(dataset: Dataset, most: int) -> list[str]:
    """A sentence where boxes reach beyond their photos, as those of a photo of another size do: of
    so many images at most, by the heads of their files."""
    images = np.unique(np.linspace(0, len(dataset) - 1, min(most, len(dataset))).astype(int))
    corners = [corners_of(dataset, image) for image in images.tolist()]
    boxed = [(image, box) for image, box in zip(images.tolist(), corners, strict=True) if box]
    root, paths = dataset.root, dataset.paths
    return describe_beyond(
        [(paths[image], photo_file(root / paths[image]), box) for image, box in boxed]
    )


def describe_beyond(boxed: Sequence[tuple[str, Path, tuple[float, ...]]]) -> list[str]:
    """The same of parts of photos, by their names, files and corners."""
    beyond = [name for name, file, box in boxed if is_beyond(file, box)]
    if not beyond:
        return []
    return [
        f"{len(beyond):,} of {len(boxed):,} boxes that were looked at reach beyond their photo"
        f" (first: {beyond[0]}) and are cut there: write them in pixels of the photo as it is"
    ]


def corners_of(dataset: Dataset, image: int) -> tuple[float, ...]:
    """Left, top, right and bottom of the image's box; empty where it has none."""
    if dataset.boxes is None:
        return box_of(dataset.paths[image]) or ()
    left, top, width, height = dataset.boxes[image].tolist()
    return left, top, left + width, top + height


def is_beyond(file: Path, box: tuple[float, ...]) -> bool:
    """Whether a box reaches beyond a photo, as far as that can be read."""
    try:
        width, height = size_of(file)
    except Unreadable:
        return False
    left, top, right, bottom = box
    over = max(-left, -top, right - width, bottom - height)
    return over > ROUNDING


def classes_of_one(dataset: Dataset, counts: np.ndarray) -> tuple[str, ...]:
    """The classes of one image, where that is too few: not of a combination of labels, as images
    are looked up by each label."""
    if dataset.label_sets is not None:
        return ()
    return tuple(dataset.class_names[label] for label in np.flatnonzero(counts == 1))


def sides(dataset: Dataset, data: Data, seed: int) -> tuple[Sides | None, str]:
    """The two sides of a run's split, and why a run would refuse it. Where only classes of one
    image are refused, the others have sides."""
    images = np.arange(len(dataset))
    try:
        return both_sides(divided(dataset, data, seed), images), ""
    except ValueError as problem:
        refused = str(problem)
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    is_alone = counts[dataset.labels] == 1
    by_class = data.split == "stratified" and dataset.label_sets is None
    if not by_class or is_alone.all() or not is_alone.any():
        return None, refused
    rest = dataset.without(set(np.flatnonzero(is_alone).tolist()))
    kept, labels = np.unique(rest.labels, return_inverse=True)
    class_names = tuple(dataset.class_names[label] for label in kept)
    rest = replace(rest, labels=labels, class_names=class_names)
    try:
        return both_sides(divided(rest, data, seed), np.flatnonzero(~is_alone)), refused
    except ValueError:  # the others are refused for a reason of their own
        return None, refused


def divided(dataset: Dataset, data: Data, seed: int) -> Split:
    """By images; where the data set's own parts, or `half`, divide by class, by those; where images
    have several labels, by these. Raises ValueError as the splits do."""
    if dataset.label_sets is not None and data.split in ("stratified", "given"):
        return split_by_label_sets(
            dataset,
            method=data.split,
            test_fraction=data.test_fraction,
            valid_fraction=0,
            seed=seed,
        )
    if data.split in ("half", "given"):
        try:
            return make_disjoint_split(dataset, method=data.split, valid_fraction=0.0)
        except ValueError:
            if data.split == "half":
                raise
    return make_split(
        dataset,
        method=data.split,
        test_fraction=data.test_fraction,
        seed=seed,
        group=data.group,
        time=data.time,
    )


def both_sides(split: Split, images: np.ndarray) -> Sides:
    """Image indices of the data set, for a split of these of its images."""
    looked_up = split.train if split.leaves_one_out else np.union1d(split.train, split.gallery)
    return Sides(images[looked_up], images[split.test])


def decoded(dataset: Dataset, report: Progress) -> tuple[dict[str, str], dict[str, int]]:
    """By path, why an image can't be decoded, and of each a number for the picture it shows."""
    nothing = small_copy(Image.new("RGB", (1, 1)))

    def look(image: int) -> tuple[str, str, np.ndarray]:
        try:
            picture = decode(
                dataset.root / dataset.paths[image],
                None if dataset.boxes is None else dataset.boxes[image],
            )
        except Unreadable as problem:
            return problem.reason, dataset.paths[image], nothing
        digest = f"{picture.size} {xxhash.xxh3_128_hexdigest(picture.tobytes())}"
        return "", digest, small_copy(picture)

    reasons: dict[str, str] = {}
    digests: list[str] = []
    small = np.empty((len(dataset), *nothing.shape), np.uint8)
    for image, (reason, digest, copy) in enumerate(threaded_map(look, range(len(dataset)))):
        if reason:
            reasons[dataset.paths[image]] = reason
        digests.append(digest)
        small[image] = copy
        report("decoding images", image + 1, len(dataset))
    pictures = first_of_picture(digests, small).tolist()
    return reasons, dict(zip(dataset.paths, pictures, strict=True))


def equal(digests: Mapping[str, str | int]) -> Copies:
    """The groups of paths with one digest, or one picture."""
    groups: dict[str | int, list[str]] = defaultdict(list)
    for path, digest in digests.items():
        groups[digest].append(path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def united(duplicates: Copies, resaved: Copies) -> Copies:
    """Groups of either kind, by their first paths; a group of equal files is left out where it is
    part of one of equal pixels."""
    larger = {path: set(group) for group in resaved for path in group}
    alone = (group for group in duplicates if not set(group) <= larger.get(group[0], set()))
    return tuple(sorted((*alone, *resaved)))


def differ(values: Mapping[str, object], group: Sequence[str]) -> bool:
    """Whether the values of the paths in a group are not all the same."""
    return len({values[path] for path in group}) > 1


def across(dataset: Dataset, groups: Copies, split: TrainTest) -> Copies:
    """The groups with images of the training part and of the test part."""
    train = {dataset.paths[image] for image in split.train}
    test = {dataset.paths[image] for image in split.test}
    return tuple(
        group for group in groups if not train.isdisjoint(group) and not test.isdisjoint(group)
    )


def render(report: DataReport) -> "RenderableType":
    """The report for a terminal: sizes, then each kind of finding with its first cases."""
    from rich.console import Group
    from rich.text import Text

    per_class = f"{report.fewest} to {report.most} in a class, median {report.median:g}"
    heads = [
        Text(
            f"{report.name}: {report.num_images:,} images, {report.num_classes:,} classes,"
            f" {per_class}",
            style="bold",
        )
    ]
    lines = list(report.notes)
    if report.faults:
        lines += finding("faults, for which a run stops", report.faults, shown=len(report.faults))
    lines += single_finding(report)
    if report.refused:
        lines.append(f"a run refuses this split: {report.refused}")
    damages = [f"{damage.path}: {damage.reason}" for damage in report.unreadable]
    lines += finding("images that can't be decoded", damages)
    lines += finding("groups of exact copies", joined(report.duplicates))
    lines += finding("groups of the same picture, saved again", joined(report.resaved))
    if report.one_picture:
        lines.append("all images show the same picture: nothing can tell their classes apart")
    lines += finding("of these with more than one class", joined(report.conflicting))
    lines += split_finding(report)
    if report.sessions is not None and report.sessions.divides:
        lines.append(report.sessions.advice)
    elif report.sessions is not None:
        lines.append(
            f"embeddings show no sessions that a random split would divide:"
            f" {report.sessions.beside:.0%} of test photos (chance {report.sessions.chance:.0%})"
        )
    verdict = (
        Text("There are problems.", style="red")
        if report.problems
        else Text("No problems.", style="green")
    )
    return Group(*heads, *(Text(line) for line in lines), verdict)


def joined(groups: Copies) -> list[str]:
    """Each group on a line, with its first paths."""
    return [
        " = ".join(group[:SHOWN]) + (f" = {len(group) - SHOWN} more" if len(group) > SHOWN else "")
        for group in groups
    ]


def single_finding(report: DataReport) -> list[str]:
    """A class of one image can be looked up or ask, not both."""
    if not report.single:
        return []
    what = "classes of one image, which is either looked up or asks"
    by_class = [entry.name for entry in protocols if "half" in entry.facts["splits"]]
    return [
        *finding(what, report.single),
        f"  add images to them, or divide by class (protocol {' or '.join(by_class)})",
    ]


def split_finding(report: DataReport) -> list[str]:
    """Which copies are on both sides of the split."""
    what = "of these on both sides of the split"
    if report.across_split is None:
        return [f"{what}: not checked, no split given"]
    return finding(what, joined(report.across_split))


def finding(what: str, cases: Iterable[str], shown: int = SHOWN) -> list[str]:
    """A line with the count, then the first cases."""
    listed = list(cases)
    lines = [f"{what}: {len(listed)}"]
    lines += [f"  {case}" for case in listed[:shown]]
    if len(listed) > shown:
        lines.append(f"  and {len(listed) - shown} more")
    return lines
