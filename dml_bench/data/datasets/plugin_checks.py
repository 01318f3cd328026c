"""What a data set that a plug-in made has to be. Readers of this package make theirs by `assemble`,
so that they are."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dml_bench.data.csv_table import PARTS, inside, speakable, twice
from dml_bench.data.datasets.dataset import Dataset
from dml_bench.registry.names import composed

__all__ = ["well_formed"]

REMEDY = "make it with dml_bench.data.datasets.assemble"


def well_formed(made: Any, reader: str) -> Dataset:
    """What the function of a plug-in returned, with labels as int64. Raises ValueError where that
    is no data set, or one whose fields don't fit together: its images would have other labels."""
    if not isinstance(made, Dataset):
        raise ValueError(
            f"data set {reader} must be a dml_bench.data.datasets.Dataset, got"
            f" {type(made).__name__}: {REMEDY}"
        )
    for problem in problems_of(made):
        raise ValueError(f"data set {reader}: {problem}: {REMEDY}")
    return replace(made, labels=made.labels.astype(np.int64))


def problems_of(dataset: Dataset) -> Iterator[str]:
    """Sentences about fields that are not what `Dataset` says of them; the later ones can be asked
    for only where the earlier fields are as they should be."""
    if not isinstance(dataset.root, Path):
        yield f"root must be a Path, got {dataset.root!r}"
    yield from problems_of_texts("paths", dataset.paths)
    yield from problems_of_texts("class_names", dataset.class_names)
    yield from problems_of_paths(dataset.paths)
    if len(dataset.class_names) < 2:
        yield f"class_names must have at least 2 names, got {len(dataset.class_names)}"
    yield from problems_of_labels(dataset.labels, len(dataset.paths), dataset.num_classes)
    yield from problems_of_lengths(dataset)
    parts = set(PARTS.values())
    if dataset.parts is not None and (strange := set(dataset.parts) - parts):
        first = min(strange, key=str)
        yield f"parts must be {', '.join(sorted(parts))}, got {first!r}"
    if dataset.boxes is not None and not np.isfinite(dataset.boxes).all():
        yield "boxes must be finite numbers"


def problems_of_texts(name: str, texts: Sequence[str]) -> Iterator[str]:
    """Of a field that names things, each once."""
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        yield f"{name} must be a tuple of texts"
        return
    for text in texts:
        if not speakable(text):
            yield f"{name} must be Unicode text on one line, got {text!r}"
    # Of one class there is one name; a disk may hold two files whose names look the same.
    if same := twice(map(composed, texts) if name == "class_names" else texts):
        yield f"{name} must differ from each other, got {same[0]!r} twice"


def problems_of_paths(paths: Sequence[str]) -> Iterator[str]:
    """Their order decides what is drawn by chance, so it must not be that in which a disk lists
    them."""
    for path in paths:
        if not path or not inside(path):
            yield f"paths must be relative to root, got {path!r}"
    if list(paths) != sorted(paths):
        yield "paths must be sorted, and labels in their order"


def problems_of_labels(labels: Any, num_images: int, num_classes: int) -> Iterator[str]:
    """A whole number from 0 on for each image."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        kind = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        yield f"labels must be an int64 array, got {kind}"
    elif labels.shape != (num_images,):
        yield f"labels must have the shape ({num_images},), one for each path, got {labels.shape}"
    elif len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        yield (
            f"labels must be from 0 to {num_classes - 1}, places in class_names, got"
            f" {labels.min()} to {labels.max()}"
        )


def problems_of_lengths(dataset: Dataset) -> Iterator[str]:
    """Fields that have something for each image, or for each class."""
    images, classes = len(dataset.paths), dataset.num_classes
    lengths: list[tuple[str, Sequence[Any] | None, int]] = [
        ("parts", dataset.parts, images),
        ("coarse_classes", dataset.coarse_classes, classes),
    ]
    for name, cells in (dataset.columns or {}).items():
        lengths.append((f"column {name}", cells, images))
    for name, values, wanted in lengths:
        if values is not None and len(values) != wanted:
            yield f"{name} must have {wanted} values, got {len(values)}"
    boxes, sets = dataset.boxes, dataset.label_sets
    if boxes is not None and np.shape(boxes) != (images, 4):
        yield f"boxes must have the shape ({images}, 4), got {np.shape(boxes)}"
    if sets is not None and sets.members.shape != (classes, len(sets.names)):
        wanted_shape = (classes, len(sets.names))
        yield f"label_sets.members must have the shape {wanted_shape}, got {sets.members.shape}"
