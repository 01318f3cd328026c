"""Whether what a submission says of a query besides its nearest image can stand beside that."""

from collections.abc import Iterator

import numpy as np

from dml_bench.board.submission import Finding, Submission, refused
from dml_bench.runs import record_format

__all__ = ["has_one_value_a_query", "logits_choose_trained_classes", "ranking_is_possible"]

STEP = 1 / (record_format.UNDEFINED_FRACTION - 1)
"""Fractions are stored in such steps."""


def has_one_value_a_query(submission: Submission) -> Iterator[Finding]:
    """What a phase may have besides is of the same queries: one row would be taken for all."""
    arrays = submission.run.content.arrays
    queries = len(arrays["query_labels"])
    wanted = {"logits": (queries,), "first_relevant": (queries,), "at_r": (queries, 2)}
    for name, array in arrays.items():
        kind = name.rpartition(".")[2]
        if kind in wanted and array.shape != wanted[kind]:
            yield refused(
                "query set", f"{name} must have the shape {wanted[kind]}, got {array.shape}"
            )


def logits_choose_trained_classes(submission: Submission) -> Iterator[Finding]:
    """A loss has logits of the classes that its phase trained on, and of no other."""
    run = submission.run
    num_classes = len(run.content.arrays["gallery_counts"])
    for phase in run.neighbours if run.protocol.has_drop else ():  # others ask no trained classes
        if f"{phase}.logits" not in run.content.arrays:
            continue
        predicted = run.logits(phase).predicted
        if predicted.min() < 0 or predicted.max() >= num_classes:
            yield refused("answers", f"logits of phase {phase} choose a class that there is not")
        elif np.isin(predicted, run.held_out.get(phase, ())).any():
            yield refused(
                "hold-outs", f"logits of phase {phase} choose a class that it did not train on"
            )


def ranking_is_possible(submission: Submission) -> Iterator[Finding]:
    """The first relevant image is the nearest exactly where that is right; R-precision and MAP@R
    are between the least and the most that this leaves, of R relevant images."""
    run = submission.run
    if not run.protocol.measures_ranking:
        return
    arrays = run.content.arrays
    labels = arrays["query_labels"].astype(np.int64)
    relevant = arrays["gallery_counts"].astype(np.int64)[labels]
    relevant -= bool(submission.facts["leaves_one_out"])
    for phase, neighbours in run.neighbours.items():
        if neighbours.first_relevant is None or neighbours.at_r is None:
            yield refused("answers", f"phase {phase} lacks first_relevant or at_r")
            continue
        right = neighbours.labels[:, 0] == labels
        if not np.array_equal(neighbours.first_relevant == 1, right):
            yield refused(
                "answers", f"first_relevant of phase {phase} is not that of its nearest images"
            )
        if not np.array_equal(np.isnan(neighbours.at_r).all(1), relevant == 0):
            yield refused(
                "answers", f"at_r of phase {phase} is undefined elsewhere than without such images"
            )
            continue
        has_relevant = relevant > 0
        precision, average = neighbours.at_r[has_relevant].T
        one = 1 / relevant[has_relevant]
        least, most = (
            np.where(right[has_relevant], one, 0),
            np.where(right[has_relevant], 1, 1 - one),
        )
        inside = (least - STEP <= average) & (average <= precision + STEP)
        if not (inside & (precision <= most + STEP)).all():
            yield refused(
                "answers", f"at_r of phase {phase} can't be, where its nearest images are these"
            )
