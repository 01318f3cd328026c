"""Unknown classes, votes and enrolment of a few experiments, as a table and as numbers; they are
measured by `dml_bench.analysis.diagnostics`."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dml_bench.analysis.diagnostics import WANTED_PRECISION, Diagnostics
from dml_bench.report.document import Cell, Column, Data, Row, Table

__all__ = ["describe", "diagnostics_data", "diagnostics_table"]

OPEN_SET = ("auroc", "aupr", "fpr_at_95_tpr", "oscr")
HEADS = (
    "AUROC",
    "AUPR",
    "FPR at 95% TPR",
    "OSCR",
    f"precision (target {WANTED_PRECISION:.0%})",
    "queries answered",
    "calibration error of ten votes",
)


def describe(diagnostics: Mapping[str, Diagnostics]) -> list[str]:
    """What the numbers are of."""
    sentences = ["The best method, the baseline and the classifier; means over seeds."]
    calibration_sets = dict.fromkeys(
        measured.chosen_on for measured in diagnostics.values() if measured.open_set
    )
    if calibration_sets:
        sentences += [
            (
                "All but the last number are of the model trained without the unseen classes, which"
                " are left out of the gallery too."
            ),
            (
                f"The threshold is chosen on {'; '.join(calibration_sets)}, and tested on the"
                " queries."
            ),
        ]
    return sentences


def diagnostics_table(diagnostics: Mapping[str, Diagnostics]) -> Table:
    """A row for each experiment."""
    columns = (Column("experiment", numeric=False), *map(Column, HEADS))
    rows = []
    for name, measured in diagnostics.items():
        cells = [Cell(name, name), *map(number_cell, numbers_of(measured))]
        rows.append(Row(tuple(cells)))
    return Table("Unknown classes and votes", columns, tuple(rows))


def numbers_of(measured: Diagnostics) -> list[float]:
    precision, coverage = measured.at_threshold if measured.open_set else (math.nan, math.nan)
    open_set = [measured.mean(name) for name in OPEN_SET]
    return [*open_set, precision, coverage, measured.calibration_error]


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


def open_set_rows(measured: Diagnostics) -> Iterator[list[Any]]:
    if not measured.open_set:
        return
    for name in OPEN_SET:
        yield [name, "", measured.mean(name), "", ""]
    precision, coverage = measured.at_threshold
    yield ["threshold_precision", "", precision, "", ""]
    yield ["threshold_coverage", "", coverage, "", ""]
    images = [part.validation_images for part in measured.open_set]
    yield ["threshold_validation_images", "", sum(images) / len(images), "", ""]


def vote_rows(measured: Diagnostics) -> Iterator[list[Any]]:
    votes = measured.votes
    for weight, accuracies in (("majority", votes.majority), ("distance", votes.distance)):
        for k, accuracy in zip(votes.ks, accuracies, strict=True):
            yield [f"vote_{weight}", k, accuracy, "", ""]
    yield ["vote_calibration_error", 10, measured.calibration_error, "", ""]
