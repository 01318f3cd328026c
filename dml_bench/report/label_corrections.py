"""How many corrections of labels were right, where the true labels are known."""

from collections.abc import Iterator
from typing import Any

from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.report.document import Block, Cell, Row
from dml_bench.report.format import number
from dml_bench.report.phase_tables import PhaseFacts, folded_table, of_phases, phase_data
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
    rows = [row_of(line) for line in lines]
    heads = (*HEADS, *PARTS, "memorised", "seen through")
    yield folded_table("Corrections of labels", EXPLANATION, heads, rows)
    facts = {line.name: phases_of(line) for line in lines}
    yield phase_data("label_corrections", (*COUNTS, *PARTS, *OF_LOGITS), facts, numbers_of)


def phases_of(line: TableRow) -> PhaseFacts:
    """What became of labels, where some were made wrong and the version counted them."""
    counted = []
    for seed, phase, labels in of_phases(line, "labels"):
        if labels.get("wrong_labels") and "replaced_rightly" in labels:
            counted.append((seed, phase, labels))
    return counted


def numbers_of(labels: dict[str, Any]) -> list[Any]:
    """Of one phase, in the order of the file's columns."""
    counts = [labels[key] for key in COUNTS]
    return [*counts, *parts_of(*counts), *(labels.get(key, "") for key in OF_LOGITS)]


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


def sum_of(phases: PhaseFacts, key: str) -> int:
    """Of one count over phases and seeds."""
    return sum(labels[key] for _, _, labels in phases)


def parts_of(
    images: int, wrong: int, replaced: int, rightly: int, wrong_after: int
) -> tuple[float | None, float]:
    """Precision, None where nothing was replaced, and recall: only a label that was wrong can be
    replaced rightly."""
    return (rightly / replaced if replaced else None), rightly / wrong
