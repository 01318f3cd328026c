"""How far test images scatter against training images, as a table and as numbers; it is measured by
`dml_bench.analysis.scatter`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dml_bench.analysis.scatter import (
    DIFFERENCE,
    RunScatter,
    ScatterRow,
    can_scatter,
    class_rows,
    scatter_in,
    scatter_rows,
)
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.scatter import MEASURES
from dml_bench.evaluation.statistics import Interval
from dml_bench.report.document import (
    Block,
    Cell,
    Column,
    Data,
    Document,
    Heading,
    Items,
    Row,
    Table,
)
from dml_bench.system.counted import counted

__all__ = [
    "compose_scatter",
    "distance_cell",
    "explanation",
    "scatter_data",
    "scatter_table",
    "scatters_of",
]

HEADS = {
    "train_dispersion": "training",
    "test_dispersion": "test",
    "test_to_train": "test to training",
    "mean_shift": "of the means",
    "train_margin": "margin training",
    "test_margin": "margin test",
}

MODELS = {"all": "all", "limited": "limited", DIFFERENCE: "difference"}


class ExperimentScatter(NamedTuple):
    """Of one experiment."""

    rows: list[ScatterRow]
    runs: list[RunScatter]


Scatters = Mapping[str, ExperimentScatter]
"""By the name of the experiment."""


def scatters_of(lines: Sequence[TableRow], missing: list[str]) -> dict[str, ExperimentScatter]:
    """The scatter of the experiments whose runs kept their embeddings; `missing` gets a line for
    all others."""
    scatters, without = {}, []
    for line in lines:
        lacking = [run for run in line.runs if not can_scatter(run)]
        if lacking:
            without.append(lacking[0].folder)
        else:
            runs = [scatter_in(run) for run in line.runs]
            scatters[line.name] = ExperimentScatter(scatter_rows(runs), runs)
    if without:
        more = f" and {counted(len(without) - 1, 'experiment')} more" if len(without) > 1 else ""
        missing.append(
            f"scatter: {without[0]}{more} has no stored embeddings; `dml-bench scatter` measures"
            " run folders"
        )
    return scatters


def explanation() -> Items:
    """What the numbers mean."""
    return Items(
        (
            "Training, test, test to training: mean distance of two such images of one class. It is"
            " one minus the cosine similarity: 0 is the same, 1 is unrelated.",
            "Of the means: half the squared distance from the mean of a class's test images to that"
            " of its training images.",
            "Margin: similarity to the nearest training image of the class, minus that to the"
            " nearest of another. Above 0, a test image is answered rightly.",
            "Training images are the gallery. The limited model never trained on those of the"
            " unseen classes.",
            "Seen and unseen are classes that the limited model did and did not train on."
            " Difference: limited minus all. Means over classes and seeds; ± reaches to the ends"
            " of the 95% interval.",
        ),
        "soft",
    )


def scatter_table(scatters: Scatters, names: Mapping[str, str]) -> Table:
    """Three rows for each experiment and group of classes; `names` are the short ones."""
    texts = ("experiment", "classes", "model")
    columns = [Column(head, numeric=False) for head in texts]
    columns += [Column(head) for head in HEADS.values()]
    rows = []
    for name, of_experiment in scatters.items():
        for row in of_experiment.rows:
            short = names.get(name, name)
            cells = [Cell(short, short, hover=name), Cell(row.classes, row.classes)]
            cells.append(Cell(MODELS[row.model], row.model))
            is_signed = row.model == DIFFERENCE
            values = [row.values.get(measure) for measure in MEASURES]
            cells += [distance_cell(value, is_signed=is_signed) for value in values]
            rows.append(Row(tuple(cells)))
    return Table("Test images against training images", tuple(columns), tuple(rows))


def distance_cell(value: Interval | None, *, is_signed: bool) -> Cell:
    """`.156 ±.014`, or `+.032 ±.007` for a difference; without `±` where there are no bounds."""
    if value is None:
        return Cell("-")
    text = thousandths(value.estimate, sign="+" if is_signed else "")
    if not math.isnan(value.low):
        text += f" ±{thousandths((value.high - value.low) / 2)}"
    return Cell(text, value.estimate)


def thousandths(value: float, sign: str = "") -> str:
    """Three digits without the zero before the point: eight columns fit into a terminal."""
    rounded = round(value, 3) + 0.0  # no -0.0
    return f"{rounded:{sign}.3f}".replace("0.", ".", 1) if abs(rounded) < 1 else f"{rounded:.3f}"


def scatter_data(scatters: Scatters) -> Data:
    """One number a row."""
    rows: list[list[Any]] = []
    for name, of_experiment in scatters.items():
        for row in of_experiment.rows:
            for measure, value in row.values.items():
                bounds = [value.estimate, *map(without_nan, (value.low, value.high))]
                rows.append([name, row.classes, row.model, measure, *bounds])
    heads = ("experiment", "classes", "model", "measure", "value", "low", "high")
    return Data("scatter", heads, rows)


def without_nan(value: float) -> float | str:
    return "" if math.isnan(value) else value


def class_data(scatters: Scatters) -> Data:
    """A row for each class, phase and seed."""
    rows: list[list[Any]] = []
    for experiment, of_experiment in scatters.items():
        for measured in of_experiment.runs:
            for phase, name, is_unseen, means in class_rows(measured):
                numbers = map(without_nan, means)
                rows.append([experiment, measured.run.seed, phase, name, is_unseen, *numbers])
    heads = ("experiment", "seed", "phase", "class", "unseen", *MEASURES)
    return Data("scatter_classes", heads, rows)


def compose_scatter(studies: Sequence[Study], end: Sequence[Block] = ()) -> Document:
    """A document on all experiments of all studies. Raises ValueError where no run has two phases
    with embeddings."""
    blocks: list[Block] = [explanation()]
    missing: list[str] = []
    for study in studies:
        if study.has_drop:
            blocks += blocks_of(study, f"-{study.slug}" if len(studies) > 1 else "", missing)
    if missing:
        blocks.append(Items(tuple(missing), "notice"))
    if not any(isinstance(block, Table) for block in blocks):
        raise ValueError(
            "no run here has embeddings of two phases: name run folders that trained with and"
            " without the unseen classes, not records"
        )
    return Document("How test images scatter against training images", (*blocks, *end))


def blocks_of(study: Study, suffix: str, missing: list[str]) -> Iterator[Block]:
    scatters = scatters_of(study.finished, missing)
    if not scatters:
        return
    yield Heading(study.title)
    yield scatter_table(scatters, study.names)
    for data in (scatter_data(scatters), class_data(scatters)):
        named = Data(data.name + suffix, data.heads, data.rows)
        yield named.beside_split(study.group.split)
