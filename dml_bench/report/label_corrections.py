"""How many corrections of labels were right, where the true labels are known."""

from collections.abc import Iterator
from typing import Any

from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.report.document import Block, Cell, Column, Data, Details, Row, Table, Text
from dml_bench.report.format import number
from dml_bench.report.tables import name_cell

__all__ = ["corrections_blocks"]

COUNTS = ("training_images", "wrong_labels", "replaced", "replaced_rightly", "wrong_labels_after")
HEADS = ("labels", "wrong at first", "replaced", "of them rightly", "wrong in the end")
PARTS = ("precision", "recall")
OF_LOGITS = ("memorised", "seen_through")
EXPLANATION = (
    "Labels of training images that were made wrong on purpose, over all phases and seeds."
    " Precision is the part of the replaced labels that is right afterwards, recall the part of the"
    " wrong labels that is. A strategy helps where fewer labels are wrong in the end than at first."
    " Memorised is the part of the wrong labels that the classifier's logits choose after training;"
    " seen through is the part whose true class they choose."
)


def corrections_blocks(study: Study) -> Iterator[Block]:
    """A folded table with a row for each experiment, and a CSV file with one for each phase of each
    run; nothing where no label was made wrong on purpose."""
    lines = [line for line in study.finished if phases_of(line)]
    if not lines:
        return
    columns = [Column("experiment", numeric=False)]
    columns += [Column(head) for head in (*HEADS, *PARTS, "memorised", "seen through")]
    table = Table("Corrections of labels", tuple(columns), tuple(row_of(line) for line in lines))
    yield Details(
        f"Corrections of labels: {len(lines)} experiments", (Text(EXPLANATION, "soft"), table)
    )
    numbers: list[list[Any]] = []
    for line in lines:
        for seed, phase, labels in phases_of(line):
            counts = [labels[key] for key in COUNTS]
            of_logits = [labels.get(key, "") for key in OF_LOGITS]
            numbers.append([line.name, seed, phase, *counts, *parts_of(*counts), *of_logits])
    heads = ["experiment", "seed", "phase", *COUNTS, *PARTS, *OF_LOGITS]
    yield Data("label_corrections", heads, numbers)


def phases_of(line: TableRow) -> list[tuple[int, str, dict[str, Any]]]:
    """Of each run and phase its seed, its name and what became of its labels, where some were made
    wrong and the version counted them."""
    known = []
    for run in line.runs:
        for phase, summary in run.summary.get("phases", {}).items():
            labels = summary.get("labels", {})
            if labels.get("wrong_labels") and "replaced_rightly" in labels:
                known.append((run.seed, phase, labels))
    return known


def row_of(line: TableRow) -> Row:
    """The sums over phases and seeds, and the parts of these."""
    phases = phases_of(line)
    counts = [sum_of(phases, key) for key in COUNTS]
    cells = [name_cell(line)]
    cells += [Cell(f"{count:,}", float(count)) for count in counts]
    for part in parts_of(*counts):
        cells.append(part_cell(part))
    for key in OF_LOGITS:
        known = [labels[key] for _, _, labels in phases if key in labels]
        cells.append(part_cell(sum(known) / len(known) if known else None))
    return Row(tuple(cells))


def part_cell(part: float | None) -> Cell:
    """A part of 1; empty where there is none."""
    return Cell("" if part is None else number(part, is_signed=False), part)


def sum_of(phases: list[tuple[int, str, dict[str, Any]]], key: str) -> int:
    """Of one count over phases and seeds."""
    return sum(labels[key] for _, _, labels in phases)


def parts_of(
    images: int, wrong: int, replaced: int, rightly: int, wrong_after: int
) -> tuple[float | None, float]:
    """Precision, None where nothing was replaced, and recall: only a label that was wrong can be
    replaced rightly."""
    return (rightly / replaced if replaced else None), rightly / wrong
