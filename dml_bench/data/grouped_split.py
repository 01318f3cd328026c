"""Splits that keep whole groups, or whole days, on one side."""

from collections.abc import Sequence

import numpy as np

from dml_bench.data.datasets import Dataset
from dml_bench.data.group_division import NotDivisible, divide_groups

__all__ = ["by_groups", "by_time", "grouped_folds", "not_validated"]


def by_groups(
    dataset: Dataset, groups: np.ndarray, test_fraction: float, valid_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(images) which are queries, and which validation images. A class whose groups allow no
    validation images beside training images has none. Raises ValueError where a class can't be on
    both sides of the queries."""
    labels, none = dataset.labels, np.zeros(len(dataset), bool)
    if lonely := classes_in_one(labels, np.unique(groups, return_inverse=True)[1]):
        raise ValueError(
            f"{len(lonely)} classes of {dataset.name} have all images in one group"
            f" ({shown_classes(dataset, lonely)}), and a group is never divided: add images of"
            " another group, choose another data.group, or remove these classes"
        )
    try:
        test = divide_groups(groups, labels, [1 - test_fraction, test_fraction], seed) == 1
    except NotDivisible as problem:
        raise ValueError(
            f"no choice of groups leaves every class of {dataset.name} on both sides of the split"
            f" ({shown_classes(dataset, problem.classes)} are on one): make groups smaller by"
            " another data.group, or remove these classes"
        ) from None
    if not valid_fraction:
        return test, none
    rest = np.flatnonzero(~test)
    shares = [1 - valid_fraction, valid_fraction]
    # Groups of classes that have no other group left must train.
    names = np.unique(groups[rest], return_inverse=True)[1]
    bound = np.isin(labels[rest], classes_in_one(labels[rest], names))
    free = ~np.isin(names, names[bound])
    valid = none.copy()
    if free.any():
        try:
            part = divide_groups(groups[rest[free]], labels[rest[free]], shares, f"{seed} valid")
        except NotDivisible as problem:
            raise ValueError(
                f"no choice of groups leaves every class of {dataset.name} training images beside"
                f" the validation images ({shown_classes(dataset, problem.classes)} have none):"
                " --set data.valid_fraction=0"
            ) from None
        valid[rest[free][part == 1]] = True
    return test, valid


def by_time(
    dataset: Dataset, days: np.ndarray, test_fraction: float, valid_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """(images) which are queries, and which validation images: in each class the newest, and the
    newest of the rest. Raises ValueError where a class has only one day."""
    test, valid = np.zeros(len(dataset), bool), np.zeros(len(dataset), bool)
    lonely = []
    for label in range(dataset.num_classes):
        images = np.flatnonzero(dataset.labels == label)
        first_query = cut(days[images], test_fraction)
        if first_query is None:
            lonely.append(label)
            continue
        newest = days[images] >= first_query
        test[images[newest]] = True
        rest = images[~newest]
        first_validated = cut(days[rest], valid_fraction) if valid_fraction else None
        if first_validated is not None:
            valid[rest[days[rest] >= first_validated]] = True
    if lonely:
        raise ValueError(
            f"{len(lonely)} classes of {dataset.name} have all images from one day"
            f" ({shown_classes(dataset, lonely)}), and a day is never divided: add images of"
            " another day, or remove these classes"
        )
    return test, valid


def cut(days: np.ndarray, fraction: float) -> float | None:
    """The first day of the newest part that comes nearest to `fraction`, of two the later one; None
    where there is only one day."""
    starts = np.unique(days)[1:]
    if not len(starts):
        return None
    newer = len(days) - np.searchsorted(np.sort(days), starts)
    off = np.abs(newer - fraction * len(days))
    return float(starts[np.flatnonzero(off == off.min())[-1]])


def not_validated(dataset: Dataset, valid: np.ndarray, unit: str) -> tuple[str, ...]:
    """A sentence about the classes without validation images, if others have some."""
    without = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[valid]).tolist()
    if not valid.any() or not without:
        return ()
    return (
        f"{len(without)} classes have too few {unit}s for validation images"
        f" ({shown_classes(dataset, without)})",
    )


def grouped_folds(
    dataset: Dataset,
    images: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    count: int,
    seed: int,
) -> np.ndarray:
    """(images) the part of each. Every class keeps images to train on, whichever part is
    withheld."""
    try:
        part = divide_groups(groups[images], labels[images], [1 / count] * count, f"{seed} folds")
    except NotDivisible as problem:
        lonely = problem.classes
    else:
        lonely = classes_in_one(labels[images], part)
    if lonely:
        raise ValueError(
            f"{count} folds, but the training images of {len(lonely)} classes can't be in two of"
            f" them ({shown_classes(dataset, lonely)}), as groups stay whole: --set train.folds=0,"
            " or add images of other groups"
        )
    return part


def classes_in_one(labels: np.ndarray, part: np.ndarray) -> tuple[int, ...]:
    """The class ids all of whose images are in the same part."""
    pairs = np.unique(np.stack([labels, part]), axis=1)
    classes, num_parts = np.unique(pairs[0], return_counts=True)
    return tuple(classes[num_parts == 1].tolist())


def shown_classes(dataset: Dataset, classes: Sequence[int]) -> str:
    """The first names of classes."""
    names = [dataset.class_names[label] for label in classes[:5]]
    return ", ".join(names) + ", ..." * (len(classes) > 5)
