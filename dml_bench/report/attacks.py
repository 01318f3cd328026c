"""How right the logits are of test images that were changed against them."""

from collections.abc import Iterator
from typing import Any

from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.report.document import Block, Cell, Column, Data, Details, Row, Table, Text
from dml_bench.report.format import number
from dml_bench.report.tables import name_cell

__all__ = ["attacks_blocks"]

ACCURACIES = ("logits_accuracy_clean", "logits_accuracy_fgsm", "logits_accuracy_pgd")
HEADS = ("unchanged", "one step (FGSM)", "several steps (PGD)")
EXPLANATION = (
    "The part of the test images of trained classes whose class the logits choose: as the images"
    " are, and after each value of a pixel was changed by at most so many of its 255 levels,"
    " so that the loss grows. Means over phases and seeds, without intervals: they decide nothing."
)


def attacks_blocks(study: Study) -> Iterator[Block]:
    """A folded table with a row for each experiment, and a CSV file with one for each phase of each
    run; nothing where no image was attacked."""
    lines = [line for line in study.finished if attacked_phases(line)]
    if not lines:
        return
    columns = [Column("experiment", numeric=False), *map(Column, ("seeds", "levels", *HEADS))]
    table = Table("Accuracy under attack", tuple(columns), tuple(row_of(line) for line in lines))
    yield Details(
        f"Accuracy under attack: {len(lines)} experiments", (Text(EXPLANATION, "soft"), table)
    )
    numbers: list[list[Any]] = []
    for line in lines:
        for seed, phase, attacked in attacked_phases(line):
            accuracies = [attacked[key] for key in ACCURACIES]
            numbers.append(
                [line.name, seed, phase, attacked["epsilon"], attacked["steps"], *accuracies]
            )
    heads = ["experiment", "seed", "phase", "epsilon", "steps", *ACCURACIES]
    yield Data("attacks", heads, numbers)


def attacked_phases(line: TableRow) -> list[tuple[int, str, dict[str, Any]]]:
    """Of each run and phase its seed, its name and what the attacks left right."""
    phases = []
    for run in line.runs:
        for phase, summary in run.summary.get("phases", {}).items():
            if "attacked" in summary:
                phases.append((run.seed, phase, summary["attacked"]))
    return phases


def row_of(line: TableRow) -> Row:
    """The means over phases and seeds."""
    phases = attacked_phases(line)
    seeds = len({seed for seed, _, _ in phases})
    epsilon = phases[0][2]["epsilon"]
    cells = [name_cell(line), Cell(str(seeds), seeds), Cell(f"{epsilon:g}", epsilon)]
    for key in ACCURACIES:
        mean = sum(attacked[key] for _, _, attacked in phases) / len(phases)
        cells.append(Cell(number(mean, is_signed=False), mean))
    return Row(tuple(cells))
