"""Which images, labels and division a result is of: kept beside it, and compared before it is used
again."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from dml_bench.config import Data, Experiment
from dml_bench.data.csv_table import describe_alike
from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, split_of
from dml_bench.system.counted import counted

__all__ = [
    "OtherData",
    "copies_in_gallery",
    "copies_of",
    "copies_trained_on",
    "data_facts",
    "describe_alike_groups",
    "describe_copies",
    "differing_data",
]

OF_FILES = ("photo", "runs", "numbers", "series")
"""Rules of `data.group` whose groups have names that no person wrote."""


class DatasetFacts(TypedDict):
    """The images and labels that a result is of."""

    name: str
    root: str
    root_from_run: NotRequired[str]
    """The folder of images as seen from the run folder, for when both are moved together."""
    fingerprint: str
    num_images: int
    num_classes: int
    left_out: NotRequired[list[str]]
    """Images that could not be read."""
    opened_fingerprint: NotRequired[str]
    """Of all images, where some were left out."""


class SplitFacts(TypedDict):
    """How a result divided its images."""

    fingerprint: str
    kind: NotRequired[str]
    """`data.split` with its rule for groups or times (`Data.described_split`). Numbers of two kinds
    can't be compared."""
    train_images: int
    valid_images: int
    test_images: int
    gallery_images: NotRequired[int]
    """Where the gallery holds neither training images nor queries."""


class DataFacts(TypedDict):
    """What a run keeps of its data."""

    dataset: DatasetFacts
    split: SplitFacts


class TrainedCopies(TypedDict, total=False):
    """Images that a phase must not train on and that are an image that it trains on; empty where
    there are none."""

    trained_on: int
    """How many there are."""
    trained_example: list[str]
    """The paths of such an image and of the one that is trained on."""


class Copies(TrainedCopies):
    """Queries that are an image of the gallery other than themselves."""

    queries: int
    of: int
    """How many queries there are."""
    example: list[str]
    """The paths of such a query and of the gallery image; empty where there is none."""


class OtherData(ValueError):
    """Something that exists already is of other images, labels or parts than those at hand."""


def data_facts(dataset: Dataset, split: Split, folder: Path, kind: str) -> DataFacts:
    """What a run in `folder` keeps of its data, under `dataset` and `split`, which is of a `kind`
    (`Data.described_split`)."""
    root = Path(os.path.abspath(dataset.root))  # noqa: PTH100 - links stay links, and `..` goes
    images: DatasetFacts = {
        "name": dataset.name,
        "root": str(root),
        "root_from_run": os.path.relpath(root.resolve(), folder.resolve()),
        "fingerprint": dataset.fingerprint,
        "num_images": len(dataset),
        "num_classes": dataset.num_classes,
        "left_out": list(dataset.left_out),
    }
    if dataset.left_out:
        images["opened_fingerprint"] = dataset.opened_fingerprint
    division: SplitFacts = {
        "fingerprint": split.fingerprint,
        "kind": kind,
        "train_images": len(split.train),
        "valid_images": len(split.valid),
        "test_images": len(split.test),
    }
    if split.has_own_gallery:
        division["gallery_images"] = len(split.gallery)
    return {"dataset": images, "split": division}


def differing_data(recorded: DataFacts, experiment: Experiment, dataset: Dataset) -> str:
    """How the data that were recorded differ from `dataset`, in words; empty where they are the
    same.

    Images that were left out as unreadable may still lie there, unreadable, or be gone.
    """
    before = recorded["dataset"]
    left_out = {
        image for image, path in enumerate(dataset.paths) if path in set(before.get("left_out", ()))
    }
    kept = dataset.without(left_out) if left_out else dataset
    here = (dataset if "opened_fingerprint" in before else kept).fingerprint
    if here not in (before["fingerprint"], before.get("opened_fingerprint")):
        return (
            f"other images or labels (fingerprint {before['fingerprint'][:12]}; {dataset.root} has"
            f" {here[:12]})"
        )
    # Else it follows from images, labels and experiment.
    if experiment.data.split in ("given", "grouped", "time") or has_catalogue(recorded, dataset):
        mine = split_of(experiment, kept).fingerprint
        if mine != recorded["split"]["fingerprint"]:
            return (
                f"other parts of the images (fingerprint {recorded['split']['fingerprint'][:12]};"
                f" {dataset.root} has {mine[:12]})"
            )
    return ""


def has_catalogue(recorded: DataFacts, dataset: Dataset) -> bool:
    """Whether images are in no part of the division, or were: which ones is not said by images and
    labels."""
    if "catalogue" in (dataset.parts or ()):
        return True
    split = recorded["split"]
    counts = [split.get("train_images"), split.get("valid_images"), split.get("test_images")]
    divided = [count for count in counts if count is not None]
    return divided == counts and sum(divided) < recorded["dataset"]["num_images"]


def copies_of(
    dataset: Dataset, split: Split, phases: Sequence[Phase], digests: Sequence[str]
) -> Copies:
    """Both counts below, of the same images."""
    return {
        **copies_in_gallery(dataset, split, digests),
        **copies_trained_on(dataset, split, phases, digests),
    }


def copies_in_gallery(dataset: Dataset, split: Split, digests: Sequence[str]) -> Copies:
    """How many queries are an image of the gallery other than themselves, with one such pair of
    paths, query first. `digests` (images) are of their bytes, or of the pixels that the network
    sees of them, which also finds what was saved again."""
    at: dict[str, list[int]] = {}
    for image in split.gallery.tolist():
        at.setdefault(digests[image], []).append(image)
    pairs = [
        (query, other)
        for query in split.test.tolist()
        for other in at.get(digests[query], ())[:2]
        if other != query
    ]
    queries = dict(reversed(pairs))
    example = [dataset.paths[image] for image in pairs[0]] if pairs else []
    return {"queries": len(queries), "of": len(split.test), "example": example}


def copies_trained_on(
    dataset: Dataset, split: Split, phases: Sequence[Phase], digests: Sequence[str]
) -> TrainedCopies:
    """How many images of classes that a phase holds out are an image that it trains on, under the
    name of another class; and how many queries are, where the gallery is not what is trained on.
    Arguments and counts are those of `copies_in_gallery`."""
    used = np.unique(np.concatenate([split.train, split.test, split.gallery, split.valid]))
    copied: dict[int, int] = {}
    for phase in phases:
        trained = {digests[image]: image for image in phase.trains_on(dataset, split)[::-1]}
        kept_apart = used[np.isin(dataset.labels[used], phase.held_out_classes)]
        if split.gallery is not split.train:
            kept_apart = np.union1d(kept_apart, split.test)
        for image in kept_apart.tolist():
            if digests[image] in trained:
                copied.setdefault(image, int(trained[digests[image]]))
    if not copied:
        return {}
    example = [dataset.paths[image] for image in min(copied.items())]
    return {"trained_on": len(copied), "trained_example": example}


def describe_copies(copies: Copies | None) -> Iterator[str]:
    """A line for each kind of them."""
    if not copies:
        return
    remedy = "`dml-bench data check` lists them"
    if copies["queries"]:
        query, other = copies["example"]
        yield (
            f"{copies['queries']} of {copies['of']} queries have the same pixels as a gallery"
            f" image, e.g. {query} and {other}: they are found whatever was learnt; {remedy}"
        )
    if copies.get("trained_on"):
        image, other = copies["trained_example"]
        yield (
            f"the pixels of {counted(copies['trained_on'], 'image')} that must stay unseen are"
            f" trained on, e.g. {image} as {other}; {remedy}"
        )


def describe_alike_groups(data: Data, split: Split) -> list[str]:
    """Sentences about groups whose names may mean one: its images may be on both sides."""
    rule = data.group
    if split.groups is None or not rule or rule in OF_FILES or rule.startswith("exif:"):
        return []
    return describe_alike(dict.fromkeys(split.groups.tolist()), f"groups of data.group = {rule}")
