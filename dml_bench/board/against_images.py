"""A submission beside the images that it says it is of."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from dml_bench.board.submission import Finding, Submission
from dml_bench.data.csv_table import inside
from dml_bench.data.datasets import Dataset, open_dataset
from dml_bench.data.datasets.drawn import num_drawn
from dml_bench.data.identity import DataFacts, differing_data
from dml_bench.data.split import Split, split_of
from dml_bench.runs.record import short_digests
from dml_bench.runs.run import digest_of_queries
from dml_bench.system.callbacks import Callback

__all__ = ["check_images", "needs_folder"]

DRAWN_AT_MOST = 1_000_000_000
"""Pixels that are drawn for a submission: those of CUB's shape at 256 px, and a quarter more."""
IMAGES_DRAWN_AT_MOST = 20_000
"""However small; a thousand of 54 px take some seven seconds of one core."""


def needs_folder(submission: Submission) -> bool:
    """Whether its images are in a folder, and aren't drawn."""
    from dml_bench.registry import datasets

    component = submission.run.experiment.data.dataset
    return bool(datasets.of(component).facts["needs_data_dir"])


def check_images(
    submission: Submission, data_dir: Path | None, cache_dir: Path, callback: Callback
) -> Iterator[Finding]:
    """Labels, split and gallery are drawn anew from the images, by the configuration."""
    experiment = submission.run.experiment
    if any(record.kind == "dataset" for record in experiment.plugin_records):
        yield Finding("unchecked", "images", "its data set is a plug-in, which is never imported")
        return
    table = str(experiment.data.dataset.options.get("table", ""))
    if not inside(table):
        text = f"its table {table} is outside of the folder of the images, where nothing is read"
        yield Finding("unchecked", "images", text)
        return
    if text := too_much_to_draw(submission):
        yield Finding("unchecked", "images", text)
        return
    folder = data_dir if needs_folder(submission) else None
    try:
        dataset = open_dataset(experiment.data.dataset, folder, cache_dir, callback.progress)
    except ValueError as problem:  # a folder of another data set, where several are verified
        yield Finding("unchecked", "images", str(problem))
        return
    summary = submission.run.summary
    if other := differing_data(cast(DataFacts, summary), experiment, dataset):
        yield Finding("refused", "data revision", f"it is of {other}")
        return
    if left_out := set(summary["dataset"].get("left_out", ())):
        dataset = dataset.without(
            {image for image, path in enumerate(dataset.paths) if path in left_out}
        )
    split = split_of(experiment, dataset)
    if split.fingerprint != submission.record.split.fingerprint:
        yield Finding("refused", "split facts", "its seed divides these images otherwise")
        return
    yield from labels_agree(submission, dataset, split)


def too_much_to_draw(submission: Submission) -> str:
    """Why its images are not drawn here: a file may name a set that takes days. Empty where they
    are, or lie in a folder."""
    component = submission.run.experiment.data.dataset
    count = num_drawn(component)
    if count is None:
        return ""
    size = int(component.options.get("size", 0))
    if count <= IMAGES_DRAWN_AT_MOST and count * size**2 <= DRAWN_AT_MOST:
        return ""
    return (
        f"its data set draws {count:,} images of {size} px; for a check at most"
        f" {IMAGES_DRAWN_AT_MOST:,} images and {DRAWN_AT_MOST:,} pixels are drawn"
    )


def labels_agree(submission: Submission, dataset: Dataset, split: Split) -> Iterator[Finding]:
    """Queries and gallery have the classes that the images have."""
    arrays = submission.run.content.arrays
    labels = dataset.labels[split.test]
    digest = digest_of_queries(dataset.paths[image] for image in split.test.tolist())
    if submission.record.queries_sha256 not in (digest, split.fingerprint):  # of earlier versions
        yield Finding("refused", "query set", "the digest of its queries is that of others")
    if not np.array_equal(arrays["query_labels"], labels):
        yield Finding("refused", "query set", "the images of its queries have other classes")
    names = dict(enumerate(dataset.class_names))
    if any(names.get(label) != name for label, name in submission.run.class_names.items()):
        yield Finding("refused", "query set", "the classes of its queries have other names")
    coarse = dict(enumerate(dataset.coarse_classes or ()))
    if any(coarse.get(label) != name for label, name in submission.run.coarse_classes.items()):
        yield Finding("refused", "query set", "the classes of its queries are of other coarse ones")
    counts = np.bincount(dataset.labels[split.gallery], minlength=len(arrays["gallery_counts"]))
    if not np.array_equal(arrays["gallery_counts"], counts):
        yield Finding(
            "refused", "query in the gallery", "its gallery is not that of the split of its seed"
        )
    images = (("query_images", split.test), ("gallery_images", split.gallery))
    for name, chosen in images:
        stated = arrays.get(name)
        if stated is None:
            continue
        digests = short_digests([dataset.image_digests[image] for image in chosen.tolist()])
        if not np.array_equal(stated, digests):
            yield Finding("refused", "query set", f"its {name.replace('_', ' ')} are other files")
