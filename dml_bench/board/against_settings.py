"""A submission's configuration beside what its run recorded as it went: epochs, images, times."""

import math
from collections.abc import Iterator
from typing import Any

from dml_bench.board.submission import Finding, Submission, refused
from dml_bench.data.datasets.drawn import num_drawn
from dml_bench.data.publications import published_as
from dml_bench.evaluation import collapse
from dml_bench.runs.session import total_seconds

__all__ = ["costs_are_possible", "is_of_the_configured_images", "trained_as_configured"]

ROUNDED = 0.01
"""Share by which the times of the epochs, which are rounded, may differ from those of the phase."""


def epochs_of(submission: Submission, phase: str) -> list[dict[str, Any]]:
    """What was recorded of each epoch of a phase, of its model or of those of all its folds."""
    models = f"{phase}-fold-"
    records: list[dict[str, Any]] = submission.facts["records"]
    return [one for one in records if one["phase"] == phase or one["phase"].startswith(models)]


def trained_as_configured(submission: Submission) -> Iterator[Finding]:
    """Every model was trained for as many epochs as the settings say. Which of them was kept is
    another matter: training goes on to the last."""
    train = submission.run.experiment.train
    for phase in submission.run.neighbours:
        last: dict[str, int] = {}
        for record in epochs_of(submission, phase):
            last[record["phase"]] = max(record["epoch"], last.get(record["phase"], 0))
        if train.epochs and not last:
            last = {phase: 0}
        for model, epoch in last.items():
            if epoch != train.epochs:
                yield refused(
                    "settings",
                    f"its train.epochs is {train.epochs:,}, and {model} was trained for {epoch:,}"
                    " epochs",
                )
        folds = sum(model.startswith(f"{phase}-fold-") for model in last)
        if folds != train.folds:
            yield refused(
                "settings",
                f"its train.folds is {train.folds}, and phase {phase} has the epochs of {folds}",
            )


def is_of_the_configured_images(submission: Submission) -> Iterator[Finding]:
    """A drawn set has as many images as its options say, and no parts of its own; the publisher's
    parts of a published set are those that were published."""
    record, data = submission.record, submission.run.experiment.data
    drawn = num_drawn(data.dataset)
    if drawn is not None and drawn != record.dataset.num_images:
        yield refused(
            "settings",
            f"its data.dataset draws {drawn:,} images, and it is of {record.dataset.num_images:,}",
        )
    if drawn is not None and data.split == "given":
        yield refused("settings", "its data.split is given, and drawn images have no given parts")
    split = record.split
    divided = split.train_images + split.valid_images + split.test_images
    divided += split.gallery_images or 0
    if divided > record.dataset.num_images:
        yield refused(
            "split facts",
            f"it divides {divided:,} images, and the data set has {record.dataset.num_images:,}",
        )
    published = published_as(record.dataset.name, record.dataset.fingerprint)
    if published is None:
        return
    sizes = record.dataset.num_images, record.dataset.num_classes
    if sizes != (published.num_images, published.num_classes):
        yield refused(
            "data facts",
            f"{published.num_images:,} images of {published.num_classes:,} classes were published,"
            f" and it says {sizes[0]:,} of {sizes[1]:,}",
        )
    as_published = data.described_split == "given" and not data.per_class
    if as_published and published.split_fingerprint not in ("", split.fingerprint):
        yield refused(
            "split facts",
            f"its split is {split.fingerprint[:12]}, the published one"
            f" {published.split_fingerprint[:12]}",
        )


def costs_are_possible(submission: Submission) -> Iterator[Finding]:
    """Costs are numbers that add up, and what a run doubts of itself can be read: a board shows
    them."""
    run = submission.run
    for phase, costs in run.costs.items():
        for name, value in dict[str, Any](costs).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0 <= value < math.inf):
                yield refused("cost", f"{name} of phase {phase} must be a number, got {value!r}")
                return
        for name in ("train_seconds", "train_cpu_seconds"):
            times: list[Any] = [record.get(name) for record in epochs_of(submission, phase)]
            stated = dict[str, Any](costs).get(name)
            if not times or None in times or stated is None:
                continue
            if not math.isclose(stated, sum(times), rel_tol=ROUNDED):
                yield refused(
                    "cost",
                    f"{name} of phase {phase} is {stated:.4g}, its epochs took {sum(times):.4g}",
                )
    total = total_seconds(run.costs.values())
    if not math.isclose(run.summary["cost"]["total_seconds"], total, rel_tol=ROUNDED):
        yield refused(
            "cost",
            f"total_seconds is {run.summary['cost']['total_seconds']:.4g}, its phases took"
            f" {total:.4g}",
        )
    list(collapse.describe_doubts(run.summary))  # an error is a refusal
