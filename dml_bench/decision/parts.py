"""How photos are divided before anything is trained: a final test part that no row ever sees, and
the photos on which rows are trained and compared."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dml_bench.config.experiments import resolve
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.split import make_split
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import read_csv, read_json, write_csv, write_json

__all__ = ["Parts", "divide"]

FINAL_FRACTION, TEST_FRACTION, VALID_FRACTION = 0.2, 0.2, 0.15
FEWEST_PHOTOS = 5
"""A class needs one final photo, one test photo, one validation photo and two to train on."""
FEWEST_CLASSES = 4
SEED = 42
DEVELOPMENT, FINAL, FACTS = "development", "final.csv", "parts.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The photos of one decision."""

    photos: Path
    out: Path
    class_names: tuple[str, ...]
    """Those that have photos enough."""
    left_out: tuple[str, ...]
    """Classes with too few photos."""
    num_photos: int
    """Of the classes that have photos enough."""

    @property
    def development(self) -> Path:
        """The folder of a data set without any final photo: rows are trained and compared on it."""
        return self.out / DEVELOPMENT

    @property
    def holdouts(self) -> str:
        """The rotated hold-outs: a fifth of the classes at a time."""
        count = max(1, len(self.class_names) // 5)
        return f"random:{count}:0 x {min(4, len(self.class_names) // count)}"

    def development_photos(self) -> list[Path]:
        """The files of the photos that rows are trained and compared on."""
        rows = read_csv(self.development / "train.csv")
        return [self.photos / row["path"] for row in rows]

    def final(self) -> tuple[list[Path], list[str]]:
        """The files of the final part and their classes. To be opened once, after the choice."""
        rows = read_csv(self.out / FINAL)
        return [self.photos / row["path"] for row in rows], [row["class"] for row in rows]


def divide(photos: Path, out: Path, cache_dir: Path, callback: Callback) -> Parts:
    """Divide the photos of a folder with one folder for each class, or read how they were divided.

    Raises ValueError where there are too few photos, or where they changed since they were divided.
    """
    dataset = open_dataset(
        resolve("frozen_efficientnet_lite0", overrides=["data.dataset=folder"]).data.dataset,
        photos,
        cache_dir,
        callback.progress,
    )
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    few = np.flatnonzero(counts < FEWEST_PHOTOS)
    enough = np.flatnonzero(counts >= FEWEST_PHOTOS)
    if len(enough) < FEWEST_CLASSES:
        missing = FEWEST_CLASSES * FEWEST_PHOTOS
        raise ValueError(
            f"no answer: {photos} must have at least {FEWEST_CLASSES} classes of"
            f" {FEWEST_PHOTOS} photos, got {len(enough)} such classes: you need about"
            f" {missing:,} photos, better 30 of each class"
        )
    usable = dataset.without(set(np.flatnonzero(np.isin(dataset.labels, few)).tolist()))
    parts = Parts(
        photos=photos.resolve(),
        out=out,
        class_names=tuple(dataset.class_names[label] for label in enough),
        left_out=tuple(dataset.class_names[label] for label in few),
        num_photos=len(usable),
    )
    facts = {"photos": digest_of_names(dataset), "seed": SEED}
    file = out / FACTS
    if file.exists():
        if read_json(file) != facts:
            raise ValueError(
                f"{out} holds a decision about other photos than {photos} has now: choose another"
                " folder with --out"
            )
        return parts
    write_parts(parts, compact(usable, enough))
    write_json(file, facts)
    return parts


def digest_of_names(dataset: Dataset) -> str:
    """SHA-256 over the paths of the photos, which say their classes."""
    return hashlib.sha256("\n".join(dataset.paths).encode()).hexdigest()


def compact(dataset: Dataset, classes: np.ndarray) -> Dataset:
    """The data set with only these classes, numbered from 0."""
    from dataclasses import replace

    return replace(
        dataset,
        labels=np.searchsorted(classes, dataset.labels),
        class_names=tuple(dataset.class_names[label] for label in classes),
    )


def write_parts(parts: Parts, dataset: Dataset) -> None:
    """The final part goes into a list of its own, and all others into a data set of their own."""
    final = make_split(
        dataset, method="stratified", test_fraction=FINAL_FRACTION, seed=SEED
    ).test.tolist()
    rest = dataset.without(set(final))
    split = make_split(
        rest,
        method="stratified",
        test_fraction=TEST_FRACTION,
        valid_fraction=VALID_FRACTION,
        seed=SEED,
    )
    part = np.full(len(rest), "train", object)
    part[split.test], part[split.valid] = "test", "valid"
    names = dataset.class_names
    parts.development.mkdir(parents=True, exist_ok=True)
    images = parts.development / "images"
    if not images.is_symlink():
        images.symlink_to(parts.photos, target_is_directory=True)
    listed = zip(rest.paths, rest.labels, part, strict=True)
    rows = [(path, names[label], name) for path, label, name in listed]
    write_csv(parts.development / "train.csv", ("path", "class", "split"), rows)
    last = [(dataset.paths[image], names[dataset.labels[image]]) for image in final]
    write_csv(parts.out / FINAL, ("path", "class"), last)
