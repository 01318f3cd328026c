"""Unknown classes, votes and enrolment of a few experiments, as a table and as numbers; they are
measured by `dml_bench.analysis.diagnostics`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dml_bench.analysis.diagnostics import GOALS, UNKNOWN_SHARES, Diagnostics, ThresholdSummary
from dml_bench.evaluation.few_shot import RefitCurve
from dml_bench.report.document import Cell, Column, Data, Row, Table

__all__ = [
    "describe",
    "describe_thresholds",
    "diagnostics_data",
    "diagnostics_table",
    "thresholds_table",
]

OPEN_SET = ("auroc", "aupr", "fpr_at_95_tpr", "oscr")
HEADS = (
    "AUROC",
    "AUPR",
    "FPR at 95% TPR",
    "OSCR",
    "calibration error of ten votes",
)
THRESHOLD_HEADS = (
    "precision to keep",
    "unseen classes",
    "promised",
    "missed",
    "lower bound",
    "precision on the other half",
    "answered",
    "images that chose it",
)


def describe(diagnostics: Mapping[str, Diagnostics]) -> list[str]:
    """What the numbers are of."""
    sentences = ["The best method, the baseline and the classifier; means over seeds."]
    if any(measured.line.no_drop_because for measured in diagnostics.values()):
        sentences.append("Beside them stands what trains nothing.")
    if any(measured.open_set for measured in diagnostics.values()):
        sentences.append(
            "All but the last number are of the model trained without the unseen classes, which"
            " are left out of the gallery too."
        )
    return sentences


def describe_thresholds(diagnostics: Mapping[str, Diagnostics]) -> list[str]:
    """How thresholds are chosen and tested."""
    chosen_on = dict.fromkeys(
        measured.chosen_on for measured in diagnostics.values() if measured.open_set
    )
    return [
        (
            "Below a threshold of similarity the answer is `unknown`. It promises a precision on"
            " new images, with 95% confidence (learn then test, Angelopoulos et al. 2021)."
        ),
        f"Thresholds are chosen on {'; '.join(chosen_on)}, and tested on the other queries.",
        (
            "Images of unseen classes are added to some: half of these classes choose the"
            " threshold, and queries of the other half test it."
        ),
        (
            "Promised: models with a threshold. Missed: those whose precision on the other half"
            " lies below the goal even by its upper 95% bound; else a lower one may be chance."
        ),
    ]


def diagnostics_table(diagnostics: Mapping[str, Diagnostics]) -> Table:
    """A row for each experiment."""
    columns = (Column("experiment", numeric=False), *map(Column, HEADS))
    rows = []
    for name, measured in diagnostics.items():
        short = measured.line.short
        cells = [Cell(short, short, hover=name), *map(number_cell, numbers_of(measured))]
        rows.append(Row(tuple(cells)))
    return Table("Unknown classes and votes", columns, tuple(rows))


def numbers_of(measured: Diagnostics) -> list[float]:
    return [*(measured.mean(name) for name in OPEN_SET), measured.calibration_error]


def thresholds_table(diagnostics: Mapping[str, Diagnostics]) -> Table | None:
    """A row for each experiment, precision and share of unseen classes; None without any."""
    columns = (Column("experiment", numeric=False), *map(Column, THRESHOLD_HEADS))
    rows = []
    for name, measured in diagnostics.items():
        short = measured.line.short
        rows += [
            Row((Cell(short, short, hover=name), *threshold_cells(summary)))
            for summary in threshold_summaries(measured)
        ]
    return Table("Thresholds that keep a precision", columns, tuple(rows)) if rows else None


def threshold_summaries(measured: Diagnostics) -> list[ThresholdSummary]:
    """For each share of images of unseen classes, and each precision."""
    if not measured.open_set:
        return []
    return [measured.summary_of(goal, share) for share in UNKNOWN_SHARES for goal in GOALS]


def threshold_cells(summary: ThresholdSummary) -> list[Cell]:
    images = f"{summary.known:.0f}"
    if summary.unknown_share:
        images += f" + {summary.unknown:.0f}"
    missed = f"{summary.missed} of {summary.promised}" if summary.promised else "-"
    return [
        Cell(f"{summary.goal:.0%}", summary.goal),
        Cell(f"{summary.unknown_share:.0%}", summary.unknown_share),
        Cell(f"{summary.promised} of {summary.models}", summary.promised),
        Cell(missed, summary.missed),
        share_cell(summary.bound),
        share_cell(summary.precision),
        share_cell(summary.coverage),
        Cell(images, summary.known),
    ]


def share_cell(value: float) -> Cell:
    return Cell("-") if math.isnan(value) else Cell(f"{value:.1%}", value)


def number_cell(value: float) -> Cell:
    return Cell("-") if math.isnan(value) else Cell(f"{value:.3f}", value)


def diagnostics_data(diagnostics: Mapping[str, Diagnostics]) -> Data:
    """Long form: one number a row."""
    heads = ["experiment", "number", "k", "value", "low", "high"]
    rows: list[list[Any]] = []
    for name, measured in diagnostics.items():
        rows += [[name, *row] for row in enrolment_rows(measured)]
        rows += [[name, *row] for row in open_set_rows(measured)]
        rows += [[name, *row] for row in vote_rows(measured)]
    return Data("closer", heads, rows)


def enrolment_rows(measured: Diagnostics) -> Iterator[list[Any]]:
    for by, curve in measured.enrolment.items():
        for group in ("unseen", "seen"):
            for k, mean, low, high in zip(curve.ks, *curve.band(group), strict=True):
                yield [f"enrolment_{group}_by_{by}", k, mean, low, high]
        if isinstance(curve, RefitCurve):
            for k, seconds in zip(curve.ks, curve.seconds.mean(1).tolist(), strict=True):
                yield ["enrolment_refit_seconds", k, seconds, "", ""]


def open_set_rows(measured: Diagnostics) -> Iterator[list[Any]]:
    if not measured.open_set:
        return
    for name in OPEN_SET:
        yield [name, "", measured.mean(name), "", ""]
    for summary in threshold_summaries(measured):
        name = f"{summary.goal:.2f}_with_{summary.unknown_share:.1f}_unknown"
        yield [f"threshold_precision_{name}", "", summary.precision, "", ""]
        yield [f"threshold_coverage_{name}", "", summary.coverage, "", ""]
        yield [f"threshold_lower_bound_{name}", "", summary.bound, "", ""]
        yield [f"threshold_promised_{name}", "", summary.promised / summary.models, "", ""]
    images = [part.validation_images for part in measured.open_set]
    yield ["threshold_validation_images", "", sum(images) / len(images), "", ""]


def vote_rows(measured: Diagnostics) -> Iterator[list[Any]]:
    votes = measured.votes
    for weight, accuracies in (("majority", votes.majority), ("distance", votes.distance)):
        for k, accuracy in zip(votes.ks, accuracies, strict=True):
            yield [f"vote_{weight}", k, accuracy, "", ""]
    yield ["vote_calibration_error", 10, measured.calibration_error, "", ""]
