"""A submission's configuration beside what its run recorded as it went: epochs, images, times."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dml_bench.board.submission import Finding, Submission, refused
from dml_bench.data.datasets.drawn import num_drawn
from dml_bench.data.publications import published_as
from dml_bench.evaluation import collapse
from dml_bench.registry import datasets
from dml_bench.runs.session import total_seconds

__all__ = ["costs_are_possible", "is_of_the_configured_images", "trained_as_configured"]

ROUNDED = 0.01
"""Share by which the times of the epochs, which are rounded, may differ from those of the phase."""
LARGEST_COST = 2.0**60
"""Of a cost in whatever unit: sums of some are still numbers."""
CLOCKS = 1.05
"""How much more CPU time than cores had may be measured: two clocks are not read at once."""
OF_ANY_NAME = ("folder", "csv")
"""Data sets that are called as their folder is."""


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
        epochs: dict[str, list[int]] = {}
        for record in epochs_of(submission, phase):
            epochs.setdefault(record["phase"], []).append(record["epoch"])
        if train.epochs and not epochs:
            epochs = {phase: []}
        for model, of_model in epochs.items():
            if sorted(of_model) != list(range(1, train.epochs + 1)):
                count = max(of_model, default=0)
                several = f"{count:,} epochs" if count != train.epochs else "some of these epochs"
                yield refused(
                    "settings",
                    f"its train.epochs is {train.epochs:,}, and {model} was trained for {several}",
                )
        folds = sum(model.startswith(f"{phase}-fold-") for model in epochs)
        if folds != train.folds:
            yield refused(
                "settings",
                f"its train.folds is {train.folds}, and phase {phase} has the epochs of {folds}",
            )


def is_of_the_configured_images(submission: Submission) -> Iterator[Finding]:
    """A drawn set has as many images as its options say, and no parts of its own; the publisher's
    parts of a published set are those that were published."""
    record, data = submission.record, submission.run.experiment.data
    yield from has_the_configured_name(submission)
    yield from is_divided_as_configured(submission)
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


def has_the_configured_name(submission: Submission) -> Iterator[Finding]:
    """A data set of this package has its own name."""
    component, name = submission.run.experiment.data.dataset, submission.record.dataset.name
    is_of_package = component.stand_in is None and component.name in datasets.names()
    if is_of_package and component.name not in OF_ANY_NAME and component.name != name:
        yield refused("settings", f"its data.dataset is {component.name}, and it is of {name}")


def is_divided_as_configured(submission: Submission) -> Iterator[Finding]:
    """As many images are queries and validate as the fractions say, up to one more in each class;
    and a gallery that is thinned is as thin."""
    record, data = submission.record, submission.run.experiment.data
    split, most = record.split, record.dataset.num_classes
    counts = submission.run.content.arrays["gallery_counts"]
    is_trained_on = submission.run.protocol.has_drop and split.gallery_images is None
    if is_trained_on and data.per_class and counts.max() > data.per_class:
        yield refused(
            "settings",
            f"its data.per_class is {data.per_class}, and a class of the gallery has"
            f" {counts.max():,} images",
        )
    if data.split == "given":
        return
    if split.valid_images and not data.valid_fraction:
        yield refused(
            "settings", f"its data.valid_fraction is 0, and {split.valid_images:,} images validate"
        )
    if data.split != "stratified" or data.per_class or split.gallery_images is not None:
        return
    rest = split.train_images + split.valid_images
    for name, fraction, images, of in (
        ("test_fraction", data.test_fraction, split.test_images, split.test_images + rest),
        ("valid_fraction", data.valid_fraction, split.valid_images, rest),
    ):
        if not -1 <= images - fraction * of <= most + 1:
            yield refused(
                "settings",
                f"its data.{name} is {fraction:g}, and has {images:,} of {of:,} images",
            )


def costs_are_possible(submission: Submission) -> Iterator[Finding]:
    """Costs are numbers that add up, and what a run doubts of itself can be read: a board shows
    them."""
    run = submission.run
    for phase, costs in run.costs.items():
        for name, value in dict[str, Any](costs).items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0 <= value < LARGEST_COST):
                yield refused("cost", f"{name} of phase {phase} must be a number, got {value!r}")
                return
        yield from costs_are_those_of_epochs(submission, phase, dict[str, Any](costs))
        yield from costs_are_of_the_machine(submission, phase, dict[str, Any](costs))
    total = total_seconds(run.costs.values())
    if not math.isclose(run.summary["cost"]["total_seconds"], total, rel_tol=ROUNDED):
        yield refused(
            "cost",
            f"total_seconds is {run.summary['cost']['total_seconds']:.4g}, its phases took"
            f" {total:.4g}",
        )
    list(collapse.describe_doubts(run.summary))  # an error is a refusal


def costs_are_those_of_epochs(
    submission: Submission, phase: str, costs: Mapping[str, Any]
) -> Iterator[Finding]:
    """Each epoch has its times, whose sums are those of the phase, as its images are those that it
    trained on a second."""
    epochs = epochs_of(submission, phase)
    if not epochs:
        return
    stated = {name: costs.get(name) for name in ("train_seconds", "train_cpu_seconds")}
    if not stated["train_seconds"]:
        yield refused("cost", f"phase {phase} was trained, and its train_seconds are 0")
        return
    rate = costs.get("train_images_per_second")
    stated["train_images"] = None if rate is None else rate * stated["train_seconds"]
    for name, value in stated.items():
        of_epochs: list[Any] = [epoch.get(name) for epoch in epochs]
        if value is not None and None in of_epochs:
            yield refused("cost", f"{name} of phase {phase} is stated, and not of each epoch")
        elif value is not None and not math.isclose(value, sum(of_epochs), rel_tol=ROUNDED):
            yield refused(
                "cost",
                f"{name} of phase {phase} is {value:.4g}, its epochs took {sum(of_epochs):.4g}",
            )


def costs_are_of_the_machine(
    submission: Submission, phase: str, costs: Mapping[str, Any]
) -> Iterator[Finding]:
    """A machine gives no more CPU time than its cores have, and holds at least the network."""
    session = submission.record.session
    stated: list[Any] = [session.cores, *(earlier.get("cores") for earlier in session.earlier)]
    cores = list(filter(None, stated))
    if cores and session.processes == 1:
        most = CLOCKS * max(cores) * costs["train_seconds"] + 1
        if costs.get("train_cpu_seconds", 0) > most:
            yield refused(
                "cost",
                f"train_cpu_seconds of phase {phase} is {costs['train_cpu_seconds']:.4g}, and"
                f" {max(cores)} cores had {most:.4g}",
            )
    least = costs.get("parameter_bytes", 0) if session.device == "cpu" else 0
    if costs.get("peak_memory_bytes", least) < least:
        yield refused(
            "cost",
            f"peak_memory_bytes of phase {phase} is {costs['peak_memory_bytes']:,}, and its"
            f" network has {least:,}",
        )
