"""What a person at a terminal, or a program that reads JSON, is told of a gallery."""

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

__all__ = ["as_json", "as_table", "enrolment_words", "notes", "threshold_words"]

SHOWN = 3
"""Closest images in the table; JSON has all."""


OWN = {"valid": "validation image", "query": "query image"}
BOXES = (
    "the run saw its images cut to bounding boxes; photos are taken whole: cut out what they show"
)


def enrolment_words(run: Run, done: Enrolment) -> str:
    new = f" ({len(done.new_classes)} new: {listed(done.new_classes)})" if done.new_classes else ""
    classes = len({entry.class_name for entry in done.enrolled})
    parts = (
        [f"enrolled {count(len(done.enrolled), 'image')} of {count(classes, 'class')}{new}"]
        if done.enrolled
        else []
    )
    parts += [f"{count(done.already_there, 'image')} there already"] if done.already_there else []
    if done.not_compared:
        parts.append(
            f"{count(done.not_compared, 'image')} of the run no longer on the disk, so that copies"
            " of them are not recognised"
        )
    parts += (
        [f"added to the kept {count(len(done.indexes), 'index')} {', '.join(done.indexes)}"]
        if done.indexes
        else []
    )
    parts += [BOXES] if done.enrolled and cuts_to_boxes(run) else []
    parts.append(
        f"the gallery has {count(len(done.gallery.class_names), 'class')},"
        f" {count(len(done.gallery.entries), 'image')}"
    )
    return "; ".join(parts)


def listed(names: tuple[str, ...], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def count(number: int, noun: str) -> str:
    plural = "es" if noun.endswith(("s", "x")) else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def threshold_words(threshold: Threshold, evidence: CalibrationSet) -> str:
    """What the threshold was chosen on, and what it does there."""
    correct = evidence.look_ups.correct
    enrolled = len(correct) - evidence.own
    asked = f"{count(evidence.own, OWN[evidence.part])} of the run"
    asked += (
        f" and {count(enrolled, 'enrolled image')}, each left out of its own look-up"
        if enrolled
        else ""
    )
    if not len(correct):
        return "no threshold: there are no images to choose one on; give --threshold"
    if math.isnan(threshold.value):
        right = correct.mean()
        return (
            f"no threshold reaches a precision of {threshold.wanted_precision:.0%}, so all is"
            f" unknown: of {asked}, {right:.0%} are answered right, and not even the closest often"
            " enough; ask for less with --precision, or give --threshold"
        )
    return (
        f"threshold {threshold.value:.4f}: of {asked}, it answers {threshold.coverage:.0%} and"
        f" {threshold.precision:.0%} of the answers are right{realised_words(threshold, evidence)}."
        " None of them was trained on; all are of classes in the gallery, so expect more wrong"
        " answers where photos are not"
    )


def realised_words(threshold: Threshold, evidence: CalibrationSet) -> str:
    """What it does on the queries, if it was not chosen on them."""
    found = evidence.realised(threshold)
    if found is None or evidence.queries is None:
        return ""
    precision, coverage = found
    told = (
        "it answers none"
        if math.isnan(precision)
        else f"it answers {coverage:.0%} and {precision:.0%} of the answers are right"
    )
    return (
        f"; of {count(len(evidence.queries.correct), OWN['query'])}, on which it was not chosen,"
        f" {told}"
    )


def as_table(run: Run, answers: Predictions) -> Table:
    """Each photo with its answer, and below it the closest images; those of the run relative to its
    folder of images."""
    root = Path(run.summary["dataset"]["root"])
    table = Table(
        box=None, pad_edge=False, caption=f"images of the run are in {root}", caption_justify="left"
    )
    table.add_column("similarity", justify="right")
    table.add_column("answer")  # in a column of its own, for a class may be called "unknown"
    table.add_column("class", overflow="fold")
    table.add_column("photo, and the images closest to it", overflow="fold", ratio=1)
    for found in answers.answers:
        style = "bold green" if found.known else "bold yellow"
        elected = "" if found.vote_class == found.class_name else f" for {found.vote_class}"
        vote = (
            f"{found.path}\n(vote: {found.vote_share:.0%} of"
            f" {len(found.closest)}{elected}{tie_words(found)})"
        )
        answer, name = ("class", found.class_name) if found.known else ("unknown", "")
        table.add_row(
            f"{found.similarity:.4f}", *(Text(text, style=style) for text in (answer, name, vote))
        )
        for entry, similarity in found.closest[:SHOWN]:
            path = Path(entry.path)
            table.add_row(
                f"{similarity:.4f}",
                "",
                Text(entry.class_name),
                Text(str(path.relative_to(root) if entry.origin == "run" else path)),
            )
        table.add_row()
    return table


def tie_words(found: Prediction) -> str:
    """That the closest image is not the only one as close."""
    if found.all_as_close:
        return (
            f"; all {len(found.closest)} are exactly as close, and perhaps more: the order of the"
            " gallery decided"
        )
    if found.as_close:
        return f"; exactly as close: {listed(found.as_close)}"
    return ""


def notes(
    run: Run, gallery: Gallery, bar: AppliedThreshold, look: OpenIndex | None
) -> Iterator[str]:
    """What has to be said below the table."""
    if look is not None:
        yield look.words()
    if (look is None or look.choice.exact) and (told := advice(*gallery.embeddings.shape)):
        yield told
    if bar.chosen is not None and bar.evidence is not None:
        yield threshold_words(bar.chosen, bar.evidence)
    if cuts_to_boxes(run):
        yield BOXES


def as_json(
    answers: Predictions, bar: AppliedThreshold, look: OpenIndex | None = None
) -> dict[str, Any]:
    """`class` is null where the answer is unknown; `threshold.value` is null where none reaches the
    wanted precision; `index` is there where one was asked for."""
    threshold: dict[str, Any] = {"value": number(bar.value)}
    chosen, evidence = bar.chosen, bar.evidence
    if chosen is not None and evidence is not None:
        threshold |= {
            "wanted_precision": chosen.wanted_precision,
            "precision": number(chosen.precision),
            "coverage": number(chosen.coverage),
            "chosen_on": {
                "validation": evidence.own if evidence.part == "valid" else 0,
                "queries": evidence.own if evidence.part == "query" else 0,
                "enrolled": len(evidence.look_ups.correct) - evidence.own,
            },
        }
        if (found := evidence.realised(chosen)) is not None and evidence.queries is not None:
            threshold["on_queries"] = {
                "queries": len(evidence.queries.correct),
                "precision": number(found[0]),
                "coverage": found[1],
            }
    return {
        "threshold": threshold,
        "answers": [
            {
                "image": str(found.path),
                "class": found.class_name if found.known else None,
                "closest_class": found.class_name,
                "similarity": found.similarity,
                "as_close": list(found.as_close),
                "all_as_close": found.all_as_close,
                "vote": {
                    "class": found.vote_class,
                    "share": found.vote_share,
                    "k": len(found.closest),
                },
                "closest": [
                    {
                        "path": entry.path,
                        "class": entry.class_name,
                        "origin": entry.origin,
                        "similarity": similarity,
                    }
                    for entry, similarity in found.closest
                ],
            }
            for found in answers.answers
        ],
        "unreadable": [
            {"image": str(problem.path), "reason": problem.reason} for problem in answers.unreadable
        ],
        "milliseconds_per_image": {
            "embedding": answers.embed_milliseconds,
            "look_up": answers.look_up_milliseconds,
        },
    } | ({"index": look.as_dict()} if look else {})


def number(value: float) -> float | None:
    return None if math.isnan(value) else value
