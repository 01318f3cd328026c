"""Predictions and changes of a gallery as text, tables and JSON."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from dml_bench.evaluation.open_set import Threshold
from dml_bench.gallery.enrol import Enrolment
from dml_bench.gallery.index_store import OpenIndex
from dml_bench.gallery.indexes import advice
from dml_bench.gallery.predict import (
    AppliedThreshold,
    CalibrationSet,
    Prediction,
    Predictions,
    cuts_to_boxes,
)
from dml_bench.gallery.store import Gallery
from dml_bench.runs.run import Run

__all__ = ["as_json", "as_table", "describe_enrolment", "describe_threshold", "notes"]

SHOWN = 3
"""The number of closest images in the table; JSON has all."""


OWN = {"valid": "validation image", "query": "query image"}
BOXES = (
    "the run saw its images cut to bounding boxes, and photos are not cut: cut out the object first"
)


def describe_enrolment(run: Run, done: Enrolment) -> str:
    """What has been enrolled, and what the gallery has now, in a sentence."""
    parts = []
    if done.enrolled:
        classes = len({entry.class_name for entry in done.enrolled})
        text = f"enrolled {count(len(done.enrolled), 'image')} of {count(classes, 'class')}"
        if done.new_classes:
            text += f" ({len(done.new_classes)} new: {listed(done.new_classes)})"
        parts.append(text)
    if done.already_there:
        parts.append(f"{count(done.already_there, 'image')} there already")
    if done.not_compared:
        parts.append(
            f"{count(done.not_compared, 'image')} of the run no longer on the disk, so that copies"
            " of them are not recognised"
        )
    if done.indexes:
        indexes = count(len(done.indexes), "index")
        parts.append(f"added to the kept {indexes} {', '.join(done.indexes)}")
    if done.enrolled and cuts_to_boxes(run):
        parts.append(BOXES)
    parts.append(
        f"the gallery has {count(len(done.gallery.class_names), 'class')},"
        f" {count(len(done.gallery.entries), 'image')}"
    )
    return "; ".join(parts)


def listed(names: tuple[str, ...], shown: int = 5) -> str:
    """The first names, and whether there are more."""
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def count(number: int, noun: str) -> str:
    """1 image, 2 images, 3 classes"""
    if number == 1:
        return f"1 {noun}"
    plural = "es" if noun.endswith(("s", "x")) else "s"
    return f"{number:,} {noun}{plural}"


def describe_threshold(threshold: Threshold, calibration_set: CalibrationSet) -> str:
    """The images on which the threshold was chosen, and what it does there."""
    correct = calibration_set.outcomes.correct
    if not len(correct):
        return "no threshold: there are no images to choose one on; give --threshold"
    images = f"{count(calibration_set.num_run_images, OWN[calibration_set.part])} of the run"
    enrolled = len(correct) - calibration_set.num_run_images
    if enrolled:
        images += f" and {count(enrolled, 'enrolled image')}, each left out of its own search"
    if math.isnan(threshold.value):
        return (
            f"no threshold reaches a precision of {threshold.wanted_precision:.0%}, so all photos"
            f" are unknown. Of {images}, {correct.mean():.0%} are predicted right, and even the"
            " most similar ones not often enough. Lower the target with --precision, or give"
            " --threshold"
        )
    return (
        f"threshold {threshold.value:.4f}: of {images}, {threshold.coverage:.0%} are predicted and"
        f" {threshold.precision:.0%} of these predictions are"
        f" right{describe_on_queries(threshold, calibration_set)}. The network was not trained on"
        " any of them. All are of classes in the gallery: expect more wrong predictions where"
        " photos are of others"
    )


def describe_on_queries(threshold: Threshold, calibration_set: CalibrationSet) -> str:
    """What a threshold does on the queries, if it was not chosen on them."""
    realised = calibration_set.realised(threshold)
    if realised is None or calibration_set.queries is None:
        return ""
    precision, coverage = realised
    queries = count(len(calibration_set.queries.correct), OWN["query"])
    outcome = f"{coverage:.0%} are predicted and {precision:.0%} of these are right"
    if math.isnan(precision):
        outcome = "none is predicted"
    return f"; of {queries}, on which it was not chosen, {outcome}"


def as_table(run: Run, predictions: Predictions) -> Table:
    """Each photo with its class, and below it the closest images. Paths of the run's images are
    relative to its folder of images."""
    root = Path(run.summary["dataset"]["root"])
    table = Table(
        box=None, pad_edge=False, caption=f"images of the run are in {root}", caption_justify="left"
    )
    table.add_column("similarity", justify="right")
    table.add_column("answer")  # in a column of its own, because a class may be called "unknown"
    table.add_column("class", overflow="fold")
    table.add_column("photo, and the images closest to it", overflow="fold", ratio=1)
    for prediction in predictions.predictions:
        add_rows(table, prediction, root)
    return table


def add_rows(table: Table, prediction: Prediction, root: Path) -> None:
    """The rows of one photo."""
    style = "bold green" if prediction.known else "bold yellow"
    answer, name = ("class", prediction.class_name) if prediction.known else ("unknown", "")
    elected = ""
    if prediction.vote_class != prediction.class_name:
        elected = f" for {prediction.vote_class}"
    photo = (
        f"{prediction.path}\n(vote: {prediction.vote_share:.0%} of"
        f" {len(prediction.closest)}{elected}{describe_tie(prediction)})"
    )
    texts = [Text(text, style=style) for text in (answer, name, photo)]
    table.add_row(f"{prediction.similarity:.4f}", *texts)
    for image, similarity in prediction.closest[:SHOWN]:
        path = Path(image.path)
        shown = path.relative_to(root) if image.origin == "run" else path
        table.add_row(f"{similarity:.4f}", "", Text(image.class_name), Text(str(shown)))
    table.add_row()


def describe_tie(prediction: Prediction) -> str:
    """Whether other images are exactly as close as the closest one."""
    if prediction.all_as_close:
        return (
            f"; all {len(prediction.closest)} are exactly as close, and perhaps more: the order of"
            " the gallery decided"
        )
    if prediction.as_close:
        return f"; exactly as close: {listed(prediction.as_close)}"
    return ""


def notes(
    run: Run, gallery: Gallery, applied: AppliedThreshold, open_index: OpenIndex | None
) -> Iterator[str]:
    """The sentences below the table."""
    if open_index is not None:
        yield open_index.describe()
    if open_index is None or open_index.spec.exact:
        slow = advice(*gallery.embeddings.shape)
        if slow:
            yield slow
    if applied.chosen is not None and applied.calibration_set is not None:
        yield describe_threshold(applied.chosen, applied.calibration_set)
    if cuts_to_boxes(run):
        yield BOXES


def as_json(
    predictions: Predictions, applied: AppliedThreshold, open_index: OpenIndex | None = None
) -> dict[str, Any]:
    """Plain values. `class` is null where a photo is unknown; `threshold.value` is null where no
    threshold reaches the target precision; `index` is there where one was used."""
    values: dict[str, Any] = {
        "threshold": threshold_json(applied),
        "answers": [prediction_json(prediction) for prediction in predictions.predictions],
        "unreadable": [
            {"image": str(problem.path), "reason": problem.reason}
            for problem in predictions.unreadable
        ],
        "milliseconds_per_image": {
            "embedding": predictions.embed_milliseconds,
            "look_up": predictions.search_milliseconds,
        },
    }
    if open_index is not None:
        values["index"] = open_index.as_dict()
    return values


def threshold_json(applied: AppliedThreshold) -> dict[str, Any]:
    """The threshold, and on which images it was chosen."""
    values: dict[str, Any] = {"value": number(applied.value)}
    chosen, calibration_set = applied.chosen, applied.calibration_set
    if chosen is None or calibration_set is None:
        return values
    own = calibration_set.num_run_images
    values |= {
        "wanted_precision": chosen.wanted_precision,
        "precision": number(chosen.precision),
        "coverage": number(chosen.coverage),
        "chosen_on": {
            "validation": own if calibration_set.part == "valid" else 0,
            "queries": own if calibration_set.part == "query" else 0,
            "enrolled": len(calibration_set.outcomes.correct) - own,
        },
    }
    realised = calibration_set.realised(chosen)
    if realised is not None and calibration_set.queries is not None:
        precision, coverage = realised
        values["on_queries"] = {
            "queries": len(calibration_set.queries.correct),
            "precision": number(precision),
            "coverage": coverage,
        }
    return values


def prediction_json(prediction: Prediction) -> dict[str, Any]:
    """One photo."""
    closest = []
    for image, similarity in prediction.closest:
        closest.append(
            {
                "path": image.path,
                "class": image.class_name,
                "origin": image.origin,
                "similarity": similarity,
            }
        )
    return {
        "image": str(prediction.path),
        "class": prediction.class_name if prediction.known else None,
        "closest_class": prediction.class_name,
        "similarity": prediction.similarity,
        "as_close": list(prediction.as_close),
        "all_as_close": prediction.all_as_close,
        "vote": {
            "class": prediction.vote_class,
            "share": prediction.vote_share,
            "k": len(prediction.closest),
        },
        "closest": closest,
    }


def number(value: float) -> float | None:
    """None for nan, which JSON does not have."""
    return None if math.isnan(value) else value
