"""Who trains and who asks: one split per data set and seed, shared by all phases, and the classes held out of one of them."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from dml_bench.data.datasets import Dataset
from dml_bench.registry import UnknownName, near_miss
from dml_bench.seeding import draws

__all__ = ["Phase", "Split", "make_split", "phases", "unseen_classes"]


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint image indices, ascending. `train` is also the gallery, `test` the queries; neither holds a `valid` image."""

    train: np.ndarray
    test: np.ndarray
    fingerprint: str
    """SHA-256 over the paths of both parts."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One training: its name and the class ids that it never sees."""

    name: str
    excluded: tuple[int, ...] = ()

    def trains_on(self, dataset: Dataset, split: Split) -> np.ndarray:
        """(images) indices of the training images of this phase: the one split, less the excluded classes."""
        return split.train[~np.isin(dataset.labels[split.train], self.excluded)]

    def known(self, dataset: Dataset, images: np.ndarray) -> np.ndarray:
        """Those of `images` whose class this phase trains on."""
        return images[~np.isin(dataset.labels[images], self.excluded)]


def phases(unseen: tuple[int, ...]) -> tuple[Phase, ...]:
    return (Phase("all"), Phase("limited", unseen))


def make_split(dataset: Dataset, *, method: str, test_fraction: float, seed: int) -> Split:
    """Divide the images. `stratified`: in each class the images with the smallest SHA-256 of (seed, path) become queries, so
    the split does not depend on the platform, on library versions or on the order in which files were found.

    ceil(test_fraction * images) queries in all, shared among the classes in proportion (largest remainders first), but at
    least one query and one gallery image in each, which can make more where classes are tiny. Raises ValueError where a class has a single image.
    """
    if method == "given":
        if dataset.parts is None or "test" not in dataset.parts or "train" not in dataset.parts:
            raise ValueError(f"data.split = given, but {dataset.name} has no train and test parts of its own; --set data.split=stratified")
        parts = np.array(dataset.parts)
        test = parts == "test"
        train = parts == "train"
    else:
        test = _stratified(dataset, test_fraction, seed)
        train = ~test
    for what, part in (("training", train), ("test", test)):
        empty = np.setdiff1d(np.arange(dataset.num_classes), dataset.labels[part])
        if len(empty):
            names = ", ".join(dataset.class_names[i] for i in empty[:5])
            raise ValueError(f"{len(empty)} classes have no {what} image ({names}); add images or remove these classes")
    text = "\n".join(
        f"{path}\t{'test' if is_test else 'train'}" for path, is_test, used in zip(dataset.paths, test, test | train, strict=True) if used
    )
    return Split(np.flatnonzero(train), np.flatnonzero(test), hashlib.sha256(text.encode()).hexdigest())


def _stratified(dataset: Dataset, test_fraction: float, seed: int) -> np.ndarray:
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    if counts.min() < 2:
        few = [dataset.class_names[i] for i in np.flatnonzero(counts < 2)]
        raise ValueError(
            f"{len(few)} classes have fewer than 2 images ({', '.join(few[:5])}): one for the gallery and one query are the least; "
            "add images or remove these classes"
        )
    wanted = counts * test_fraction
    take = np.clip(np.floor(wanted).astype(int), 1, counts - 1)
    missing = math.ceil(round(test_fraction * len(dataset), 6)) - take.sum()
    for label in np.argsort(-(wanted - np.floor(wanted)), kind="stable"):
        if missing > 0 and take[label] < counts[label] - 1 and wanted[label] > take[label]:
            take[label] += 1
            missing -= 1
    while missing > 0 and (room := counts - 1 - take).max() > 0:
        take[np.argmax(room)] += 1
        missing -= 1
    ranks = [hashlib.sha256(f"{seed}\0{path}".encode()).digest() for path in dataset.paths]
    test = np.zeros(len(dataset), dtype=bool)
    for label in range(dataset.num_classes):
        images = sorted(np.flatnonzero(dataset.labels == label), key=lambda image: ranks[image])
        test[images[: take[label]]] = True
    return test


def unseen_classes(rule: str, dataset: Dataset) -> tuple[int, ...]:
    """Ascending class ids that `last:N`, `random:N:SEED` or `name,name,...` means. Raises ValueError unless 1 <= N <= classes - 2."""
    kind, _, rest = rule.partition(":")
    if kind in ("last", "random"):
        numbers = rest.split(":")
        if not all(n.isdecimal() for n in numbers) or len(numbers) != (1 if kind == "last" else 2):
            raise ValueError(f"unseen is {rule!r}; write last:N, random:N:SEED, or class names joined by commas")
        count = int(numbers[0])
        if not 1 <= count <= dataset.num_classes - 2:
            raise ValueError(
                f"unseen is {rule!r}, but {dataset.name} has {dataset.num_classes} classes: hold out 1 to {dataset.num_classes - 2}, "
                f"e.g. --set unseen=last:{max(1, dataset.num_classes // 10)}"
            )
        if kind == "last":
            return tuple(range(dataset.num_classes - count, dataset.num_classes))
        order = np.argsort(draws("unseen", numbers[1], rows=dataset.num_classes, columns=1)[:, 0], kind="stable")
        return tuple(sorted(int(label) for label in order[:count]))
    ids = {name: label for label, name in enumerate(dataset.class_names)}
    for name in rule.split(","):
        if name not in ids:
            raise UnknownName(f"unseen names the class {name!r}, which {dataset.name} has not{near_miss(name, list(ids))}")
    chosen = tuple(sorted({ids[name] for name in rule.split(",")}))
    if len(chosen) > dataset.num_classes - 2:
        raise ValueError(f"unseen names {len(chosen)} of {dataset.num_classes} classes: at least 2 must stay to train on")
    return chosen
