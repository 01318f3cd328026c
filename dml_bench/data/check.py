"""What could make the numbers of a data set wrong: images that can't be decoded, and copies of the same image."""

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dml_bench.data.datasets import Dataset, Progress
from dml_bench.data.images import Unreadable, decode

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Damage", "Report", "check", "render"]

SHOWN = 10
"""Most lines that `render` spends on one kind of finding."""

Copies = tuple[tuple[str, ...], ...]
"""Groups of paths whose files are equal byte for byte."""


class TrainTest(Protocol):
    """Image indices of the two sides of a split."""

    @property
    def train(self) -> np.ndarray: ...
    @property
    def test(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Damage:
    """An image that can't be decoded."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What `check` found; paths are those of the data set."""

    name: str
    num_images: int
    num_classes: int
    fewest: int
    """Images in the smallest class;"""
    median: float
    """in the middle one;"""
    most: int
    """in the largest."""
    unreadable: tuple[Damage, ...]
    duplicates: Copies
    """All groups of copies."""
    conflicting: Copies
    """Those with more than one class."""
    across_split: Copies | None
    """Those on both sides of the split; None where no split was given."""

    @property
    def problems(self) -> bool:
        """Whether results would be wrong: damaged images, copies with two classes or on both sides of the split, and any
        copies as long as the split is unknown."""
        return bool(self.unreadable or self.conflicting or (self.duplicates if self.across_split is None else self.across_split))


def check(dataset: Dataset, *, split: TrainTest | None = None, progress: Progress | None = None) -> Report:
    """Decode every image and compare all files by SHA-256."""
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    unreadable = damaged(dataset, progress or (lambda stage, done, total: None))
    duplicates = copies(dataset)
    label_of = dict(zip(dataset.paths, dataset.labels.tolist(), strict=True))
    return Report(
        name=dataset.name,
        num_images=len(dataset),
        num_classes=dataset.num_classes,
        fewest=int(counts.min()),
        median=float(np.median(counts)),
        most=int(counts.max()),
        unreadable=tuple(Damage(dataset.paths[image], reason) for image, reason in unreadable.items()),
        duplicates=duplicates,
        conflicting=tuple(group for group in duplicates if len({label_of[path] for path in group}) > 1),
        across_split=None if split is None else across(dataset, duplicates, split),
    )


def damaged(dataset: Dataset, report: Progress) -> dict[int, str]:
    """Reasons by image, of the images that can't be decoded."""

    def reason(image: int) -> str:
        try:
            decode(dataset.root / dataset.paths[image], None if dataset.boxes is None else dataset.boxes[image])
        except Unreadable as problem:
            return problem.reason
        return ""

    found: dict[int, str] = {}
    with ThreadPoolExecutor() as pool:
        for image, problem in enumerate(pool.map(reason, range(len(dataset)))):
            if problem:
                found[image] = problem
            report("decoding images", image + 1, len(dataset))
    return found


def copies(dataset: Dataset) -> Copies:
    groups: dict[str, list[str]] = defaultdict(list)
    for path, digest in zip(dataset.paths, dataset.digests, strict=True):
        groups[digest].append(path)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def across(dataset: Dataset, duplicates: Copies, split: TrainTest) -> Copies:
    train, test = ({dataset.paths[image] for image in side} for side in (split.train, split.test))
    return tuple(group for group in duplicates if not train.isdisjoint(group) and not test.isdisjoint(group))


def render(report: Report) -> "RenderableType":
    """The report for a terminal: sizes, then each kind of finding with its first cases."""
    from rich.console import Group
    from rich.text import Text

    per_class = f"{report.fewest} to {report.most} in a class, median {report.median:g}"
    heads = [Text(f"{report.name}: {report.num_images:,} images, {report.num_classes:,} classes, {per_class}", style="bold")]
    equal = [" = ".join(group) for group in report.duplicates]
    found = [
        *finding("images that can't be decoded", [f"{damage.path}: {damage.reason}" for damage in report.unreadable]),
        *finding("groups of exact copies", equal),
        *finding("of these with more than one class", [" = ".join(group) for group in report.conflicting]),
        *split_finding(report),
    ]
    verdict = Text("There are problems.", style="red") if report.problems else Text("No problems.", style="green")
    return Group(*heads, *(Text(line) for line in found), verdict)


def split_finding(report: Report) -> list[str]:
    if report.across_split is None:
        return ["of these on both sides of the split: not checked, no split given"]
    return finding("of these on both sides of the split", [" = ".join(group) for group in report.across_split])


def finding(what: str, cases: Iterable[str]) -> list[str]:
    """A line with the count, then the first cases."""
    listed = list(cases)
    more = [f"  and {len(listed) - SHOWN} more"] if len(listed) > SHOWN else []
    return [f"{what}: {len(listed)}", *(f"  {case}" for case in listed[:SHOWN]), *more]
