"""How right the logits are of test images that were changed against them."""

from collections.abc import Iterator

from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.report.document import Block, Cell, Row
from dml_bench.report.format import number
from dml_bench.report.phase_tables import folded_table, of_phases, phase_data
from dml_bench.report.tables import name_cell

__all__ = ["attacks_blocks"]

ACCURACIES = ("logits_accuracy_clean", "logits_accuracy_fgsm", "logits_accuracy_pgd")
NUMBERS = ("epsilon", "steps", *ACCURACIES)
HEADS = ("unchanged", "one step (FGSM)", "several steps (PGD)")
EXPLANATION = (
    "The part of the test images of trained classes whose class the logits choose: as the images"
    " are, and after each value of a pixel was changed by at most so many of its 255 levels,"
    " so that the loss grows. Means over phases and seeds, without intervals: they decide nothing."
)


def attacks_blocks(study: Study) -> Iterator[Block]:
    """A folded table with a row for each experiment, and a CSV file with one for each phase of each
    run; nothing where no image was attacked."""
    lines = [line for line in study.finished if of_phases(line, "attacked")]
    if not lines:
        return
    rows = [row_of(line) for line in lines]
    yield folded_table("Accuracy under attack", EXPLANATION, ("seeds", "levels", *HEADS), rows)
    facts = {line.name: of_phases(line, "attacked") for line in lines}
    yield phase_data("attacks", NUMBERS, facts, lambda attacked: [attacked[n] for n in NUMBERS])


def row_of(line: TableRow) -> Row:
    """The means over phases and seeds."""
    phases = of_phases(line, "attacked")
    seeds = len({seed for seed, _, _ in phases})
    epsilon = phases[0][2]["epsilon"]
    cells = [name_cell(line), Cell(str(seeds), seeds), Cell(f"{epsilon:g}", epsilon)]
    for key in ACCURACIES:
        mean = sum(attacked[key] for _, _, attacked in phases) / len(phases)
        cells.append(Cell(number(mean, is_signed=False), mean))
    return Row(tuple(cells))
