"""Predictions and changes of a gallery as text, tables and JSON."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from dml_bench.data.check import describe_beyond
from dml_bench.data.images import box_of, photo_file
from dml_bench.evaluation.open_set import OpenSetResult
from dml_bench.evaluation.thresholds import (
    GuaranteedThreshold,
    PrecisionCurve,
    SearchOutcomes,
)
from dml_bench.gallery.calibration import CalibrationSet
from dml_bench.gallery.enrol import Enrolment
from dml_bench.gallery.index_store import OpenIndex
from dml_bench.gallery.indexes import advice
from dml_bench.gallery.predict import (
    AppliedThreshold,
    Prediction,
    Predictions,
    cuts_to_boxes,
    describe_lack,
)
from dml_bench.gallery.store import Gallery
from dml_bench.gallery.vector_stores import OpenStore
from dml_bench.runs.run import Run

__all__ = ["as_json", "as_table", "describe_enrolment", "describe_promise", "notes"]

SHOWN = 3
"""The number of closest images in the table; JSON has all."""
CURVE_POINTS = 100
"""The most thresholds of the coverage/precision curve in JSON, evenly spaced."""
KNOWN = {"validation": "validation image", "enrolled": "enrolled image"}
BOXES = (
    "the run saw its images cut to boxes, and whole photos were given: name boxes with --box, or in"
    " a table"
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
    if cuts_to_boxes(run) and any(box_of(entry.path) is None for entry in done.enrolled):
        parts.append(BOXES)
    parts += boxes_beyond([Path(entry.path) for entry in done.enrolled])
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


def describe_classifier(gallery: Gallery, known: Sequence[str]) -> str:
    """What the classifier can't answer, in a sentence or two."""
    others = tuple(name for name in gallery.class_names if name not in set(known))
    text = f"the classifier always names one of the {count(len(known), 'class')} it was trained on"
    if not others:
        return text
    return (
        f"{text}. It never names the other {count(len(others), 'class')} of the gallery"
        f" ({listed(others)}): --by photo and --by mean do"
    )


def describe_threshold(applied: AppliedThreshold) -> Iterator[str]:
    """What is promised, on which images that was measured, and what became of the test images."""
    images = applied.calibration_set
    if images is None:
        return
    if applied.chosen is None:
        yield "every photo is answered, because no --precision was asked for"
    for promise in applied.promises:
        yield describe_promise(promise, images)
    queries = len(images.queries.correct)
    if applied.chosen is not None and queries:
        yield f"of {count(queries, 'test image')}, {describe_outcome(applied.value, images)}"
    if len(images.unknown.correct):
        classes = count(images.unknown.num_groups, "class")
        yield describe_absent(
            f"{count(len(images.unknown.correct), 'image')} of {classes} that were never trained"
            " on, searched without their class",
            applied.value,
            images,
            images.unknown,
        )
    if applied.other is not None:
        photos = count(len(applied.other.correct), "photo")
        yield describe_absent(f"{photos} of --other", applied.value, images, applied.other)


def describe_promise(promise: GuaranteedThreshold, images: CalibrationSet) -> str:
    """What a threshold keeps on new photos, or what it lacks, in a sentence or two."""
    mix = "no photo is of another class than those of the gallery"
    if promise.unknown_share:
        mix = f"{promise.unknown_share:.0%} of the photos are of classes that are not enrolled"
    if not promise.promised:
        return describe_lack(promise, images)
    measured_on = count(promise.known, KNOWN[images.source])
    if promise.known_groups is not None:
        measured_on += f" of {count(promise.known_groups, 'group')}"
    if promise.unknown_share:
        measured_on += (
            f" and {count(promise.unknown, 'image')} of"
            f" {count(images.unknown.num_groups, 'class')} that were never trained on"
        )
    return (
        f"where {mix}: from a similarity of {promise.value:.4f} on, at least {promise.goal:.0%} of"
        f" the answers are right, with {promise.confidence:.0%} confidence. It answers"
        f" {promise.coverage:.0%} of {measured_on}; {promise.precision:.1%} of these answers are"
        f" right (lower bound {promise.bound:.1%})"
    )


def describe_outcome(threshold: float, images: CalibrationSet) -> str:
    """What a threshold does on the test images."""
    precision, coverage = images.on_queries(threshold)
    if math.isnan(precision):
        return "on which nothing was chosen, none is answered"
    return (
        f"on which nothing was chosen, {coverage:.0%} are answered and {precision:.1%} of these"
        " answers are right"
    )


def describe_absent(
    what: str, threshold: float, images: CalibrationSet, outcomes: SearchOutcomes
) -> str:
    """How similarity separates some images from known ones, and how many pass for known."""
    accepted = f"{np.mean(outcomes.similarity >= threshold):.0%}" if len(outcomes.correct) else "-"
    text = f"of {what}, {accepted} are answered, all wrongly"
    auroc = images.against(outcomes.similarity).auroc
    if math.isnan(auroc):
        return text
    return f"{text}; a known image is more similar than one of these with probability {auroc:.2f}"


def as_table(run: Run, predictions: Predictions) -> Table:
    """Each photo with its class, and below it the closest images. Paths of the run's images are
    relative to its folder of images."""
    root = Path(run.summary["dataset"]["root"])
    table = Table(
        box=None, pad_edge=False, caption=f"images of the run are in {root}", caption_justify="left"
    )
    table.add_column("similarity", justify="right")
    table.add_column("answer")  # in a column of its own, because a class may be called "unknown"
    table.add_column("class")
    table.add_column("photo, and the images closest to it")
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
    by_classifier = ""
    if prediction.probability is not None:
        by_classifier = f"classifier: {prediction.probability:.0%}; "
    photo = (
        f"{prediction.path}\n({by_classifier}vote: {prediction.vote_share:.0%} of"
        f" {len(prediction.closest)}{elected}{describe_tie(prediction)})"
    )
    if prediction.labels:
        named = ", ".join(f"{label} {share:.0%}" for label, share in prediction.labels)
        photo += f"\nlabels: {named}"
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
    run: Run,
    gallery: Gallery,
    applied: AppliedThreshold,
    open_index: OpenIndex | OpenStore | None,
    photos: Sequence[Path],
) -> Iterator[str]:
    """The sentences below the table of photos."""
    if open_index is not None:
        yield open_index.describe()
    if open_index is None or open_index.exact:
        slow = advice(*gallery.embeddings.shape)
        if slow:
            yield slow
    yield from describe_threshold(applied)
    if cuts_to_boxes(run) and any(box_of(photo) is None for photo in photos):
        yield BOXES
    yield from boxes_beyond(photos)


def boxes_beyond(photos: Sequence[Path]) -> list[str]:
    """A sentence where the boxes in the names of photos reach beyond these."""
    boxes = [(photo, box_of(photo)) for photo in photos]
    return describe_beyond([(str(photo), photo_file(photo), box) for photo, box in boxes if box])


def as_json(
    predictions: Predictions,
    applied: AppliedThreshold,
    open_index: OpenIndex | OpenStore | None = None,
) -> dict[str, Any]:
    """Plain values. `class` is null where a photo is unknown; `threshold.value` is null where every
    photo is answered; `index` is there where one was used."""
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
    """The threshold; unless a person set it, what is promised, on which images, and the curve of
    coverage and precision from which it was chosen."""
    values: dict[str, Any] = {"value": number(applied.value)}
    images = applied.calibration_set
    if images is None:
        return values
    unknown_share = 0.0 if applied.chosen is None else applied.chosen.unknown_share
    values |= {
        "promises": [promise_json(promise) for promise in applied.promises],
        "chosen_on": {
            "validation": len(images.known.correct) if images.source == "validation" else 0,
            "enrolled": len(images.known.correct) if images.source == "enrolled" else 0,
            "never_trained_on": len(images.unknown.correct),
            "classes_never_trained_on": images.unknown.num_groups,
        },
        "curve": {
            "unknown_share": unknown_share,
            "points": curve_json(images.curve(unknown_share)),
        },
    }
    if len(images.queries.correct):
        precision, coverage = images.on_queries(applied.value)
        values["on_queries"] = {
            "queries": len(images.queries.correct),
            "precision": number(precision),
            "coverage": coverage,
        }
    for name, outcomes in (("never_trained_on", images.unknown), ("other", applied.other)):
        if outcomes is not None and len(outcomes.correct):
            values[f"against_{name}"] = open_set_json(
                images.against(outcomes.similarity), applied.value, outcomes
            )
    return values


def promise_json(promise: GuaranteedThreshold) -> dict[str, Any]:
    """One promise; `value` is null where there is none."""
    return {
        "precision": promise.goal,
        "confidence": promise.confidence,
        "unknown_share": promise.unknown_share,
        "value": number(promise.value),
        "lower_bound": number(promise.bound),
        "precision_on_calibration_images": number(promise.precision),
        "coverage": promise.coverage,
        "known_images": promise.known,
        "known_groups": promise.known_groups,
        "unknown_images": promise.unknown,
        "known_images_needed": promise.known_needed,
        "unknown_images_needed": promise.unknown_needed,
    }


def curve_json(curve: PrecisionCurve) -> list[dict[str, float]]:
    """Evenly spaced points, from strict to loose."""
    last = len(curve.similarity) - 1
    places = np.unique(np.linspace(0, last, min(CURVE_POINTS, last + 1)).round().astype(int))
    columns = {
        "similarity": curve.similarity,
        "coverage": curve.coverage if curve.total else curve.answers,
        "precision": curve.precision,
        "lower_bound": curve.bound(),
    }
    points: list[dict[str, float]] = [{} for _ in places]
    for name, column in columns.items():
        for point, value in zip(points, column[places].tolist(), strict=True):
            point[name] = value
    return points


def open_set_json(
    result: OpenSetResult, threshold: float, outcomes: SearchOutcomes
) -> dict[str, Any]:
    """How well similarity separates images that are not of the gallery's classes."""
    return {
        "images": len(outcomes.correct),
        "auroc": number(result.auroc),
        "false_accepts": float(np.mean(outcomes.similarity >= threshold)),
    }


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
    probability = prediction.probability
    box = box_of(prediction.path)
    return {
        "image": str(photo_file(prediction.path)),
        **({} if box is None else {"box": list(box)}),
        "class": prediction.class_name if prediction.known else None,
        "closest_class": prediction.closest_class,
        **({} if probability is None else {"probability": probability}),
        "similarity": prediction.similarity,
        "as_close": list(prediction.as_close),
        "all_as_close": prediction.all_as_close,
        "vote": {
            "class": prediction.vote_class,
            "share": prediction.vote_share,
            "k": len(prediction.closest),
        },
        **({"labels": labels_json(prediction)} if prediction.labels else {}),
        "closest": closest,
    }


def labels_json(prediction: Prediction) -> list[dict[str, Any]]:
    """Each label of a photo that has several, with its share of the votes."""
    return [{"label": label, "share": share} for label, share in prediction.labels]


def number(value: float) -> float | None:
    """None for nan and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
