"""A catalogue as the gallery of field photos, as a table and as numbers; it is measured by
`dml_bench.analysis.catalogue`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dml_bench.analysis.catalogue import CatalogueRow, catalogue_rows, has_catalogue
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.catalogue import KS
from dml_bench.evaluation.statistics import Interval
from dml_bench.report.document import Cell, Column, Data, Items, Row, Table
from dml_bench.report.format import hundred, interval_cell

__all__ = ["catalogue_data", "catalogue_table", "catalogues_of", "explanation"]

Catalogues = Mapping[str, Sequence[CatalogueRow]]
"""By the name of the experiment."""


def catalogues_of(lines: Sequence[TableRow]) -> dict[str, list[CatalogueRow]]:
    """The rows of the experiments whose runs have a catalogue."""
    rows = {}
    for line in lines:
        if line.runs and all(map(has_catalogue, line.runs)):
            rows[line.name] = catalogue_rows(line.runs)
    return rows


def explanation() -> Items:
    """What the numbers mean."""
    return Items(
        (
            "P@1 of the test photos, averaged over classes, by the gallery: all training photos;"
            " the studio photos of the catalogue alone; these and k random training photos of each"
            " class; these k photos alone.",
            "Centred: from each embedding the mean of its domain is taken, of studio photos or of"
            " training photos of trained classes. No test photo has a part in it.",
            "The model `limited` was never trained on the unseen classes. The catalogue is never"
            " trained on.",
        ),
        "soft",
    )


def catalogue_table(catalogues: Catalogues, names: Mapping[str, str]) -> Table:
    """A row for each model and group of classes; `names` are the short ones."""
    columns = [Column(head, numeric=False) for head in ("experiment", "model", "classes")]
    columns += [Column("training photos"), Column("catalogue"), Column("catalogue, centred")]
    columns += [Column(f"and {k}, centred") for k in KS[1:]]
    columns += [Column(f"{k} alone") for k in KS[1:]]
    rows = []
    for name, of_experiment in catalogues.items():
        short = names.get(name, name)
        for row in of_experiment:
            cells = [Cell(short, short, hover=name), Cell(row.model), Cell(row.classes)]
            cells += map(precision_cell, (row.field, row.catalogue, row.centred))
            for curve in (row.beside_centred, row.field_only):
                cells += [Cell(hundred(curve[k]), curve[k]) for k in KS[1:]]
            rows.append(Row(tuple(cells)))
    return Table("The catalogue as gallery", tuple(columns), tuple(rows))


def precision_cell(value: Interval) -> Cell:
    return Cell(interval_cell(value, is_signed=False), value.estimate)


def catalogue_data(catalogues: Catalogues) -> Data:
    """One number a row; `k` is empty for all training photos."""
    rows: list[list[Any]] = []
    for name, of_experiment in catalogues.items():
        for row in of_experiment:
            key = [name, row.model, row.classes]
            rows.append([*key, "training photos", "", row.field.estimate, *bounds(row.field)])
            rows.append([*key, "catalogue", 0, row.catalogue.estimate, *bounds(row.catalogue)])
            centred = [row.centred.estimate, *bounds(row.centred)]
            rows.append([*key, "catalogue, centred", 0, *centred])
            for k in KS[1:]:
                rows.append([*key, "catalogue", k, row.beside[k], "", ""])
                rows.append([*key, "catalogue, centred", k, row.beside_centred[k], "", ""])
                rows.append([*key, "field photos alone", k, row.field_only[k], "", ""])
    heads = ("experiment", "model", "classes", "gallery", "k", "precision_at_1", "low", "high")
    return Data("catalogue", heads, rows)


def bounds(value: Interval) -> tuple[float | str, float | str]:
    """Empty where there are none."""
    if math.isnan(value.low):
        return "", ""
    return value.low, value.high
