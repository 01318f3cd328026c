"""Test accuracy and training loss, epoch by epoch."""

import re
from typing import Any

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.plots.canvas import (
    INK,
    Axes,
    ReportFigure,
    canvas,
    integer_ticks,
    key_line,
    saved,
    wrapped,
)
from dml_bench.plots.colours import BLUE, ORANGE

__all__ = ["accuracy_curves", "loss_curves", "one_line"]


def accuracy_curves(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    return curves(
        study,
        "test_accuracy",
        "P@1",
        "Test accuracy per epoch",
        ("test_accuracy", "valid_accuracy"),
        shared=True,
    )


def loss_curves(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    return curves(
        study, "loss", "training loss", "Training loss per epoch", ("train_loss",), shared=False
    )


Curves = dict[str, list[tuple[list[int], list[float]]]]
"""By phase, one curve per seed."""


def curves_of(line: TableRow, names: tuple[str, ...]) -> Curves:
    found: Curves = {}
    for run in line.runs:
        records = run.records
        for phase in dict.fromkeys(str(record["phase"]) for record in records):
            of_phase = [record for record in records if record["phase"] == phase]
            at = [(int(record["epoch"]), recorded(record, names)) for record in of_phase]
            pairs = [(epoch, value) for epoch, value in at if value is not None]
            if pairs:
                found.setdefault(phase, []).append(
                    ([epoch for epoch, _ in pairs], [value for _, value in pairs])
                )
    return found


def recorded(record: dict[str, Any], names: tuple[str, ...]) -> float | None:
    """The first of `names` that a record has, perhaps with the number of its phase and of its fold
    after it."""
    by_name = {re.sub(r"\d*(_fold_\d+)?$", "", key): value for key, value in record.items()}
    return next((float(by_name[name]) for name in names if by_name.get(name) is not None), None)


def curves(
    study: Study, name: str, label: str, title: str, names: tuple[str, ...], *, shared: bool
) -> ReportFigure | None:
    """A small panel for each experiment; where all share an axis, the others lie behind it in
    grey."""
    try:
        found = {line.name: curves_of(line, names) for line in study.finished}
    except (OSError, ValueError) as error:
        study.missing.append(f"{title.lower()}: {error}")
        return None
    if not any(found.values()):
        study.missing.append(f"{title.lower()}: none was recorded")
        return None
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, grid = canvas(0.5 + 1.75 * rows, columns, rows, sharex=True, sharey=shared)
    for axes, (experiment, curve) in zip(grid.flat, found.items(), strict=False):
        if shared:
            for other in found.values():
                draw_curves(
                    axes,
                    other,
                    {phase: INK for phase in other if not phase.startswith("limited")},
                    alpha=0.15,
                    linewidth=0.8,
                )
        colours = {phase: ORANGE if phase.startswith("limited") else BLUE for phase in curve}
        draw_curves(axes, curve, colours, marker="." if shared else None)
        axes.set_title(wrapped(experiment, 30), fontsize=7)
    for axes in list(grid.flat)[len(found) :]:
        axes.set_axis_off()
    for axes in list(grid.flat)[max(0, len(found) - columns) : len(found)]:
        axes.tick_params(labelbottom=True)
        integer_ticks(axes)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(label, fontsize=9)
    keys = (
        [("trained on all classes", BLUE), ("trained without the unseen", ORANGE)]
        if study.has_drop
        else [("validation classes", BLUE)]
    )
    figure.legend(
        handles=[key_line(text, colour) for text, colour in keys], loc="outside upper left", ncols=2
    )
    said = one_line(
        study, folds=any("-fold-" in phase for curve in found.values() for phase in curve)
    )
    said += (
        " Grey: the other experiments, trained on all classes." if shared and len(found) > 1 else ""
    )
    if shared and study.has_drop:
        said += (
            " The model trained without the unseen classes is tested on the classes that it knows."
        )
    if not shared:
        said += " Losses of different kinds have different scales: each panel has its own."
    return saved(figure, f"{study.slug}-{name}", title, said)


def one_line(study: Study, folds: bool = False) -> str:
    parts = ["seed", *["hold-out"] * (len(study.holdouts) > 1), *["fold"] * folds]
    return f"One line per {' and '.join(parts)}."


def draw_curves(axes: Axes, found: Curves, colours: dict[str, str], **how: Any) -> None:
    for phase, colour in colours.items():
        for epochs, values in found.get(phase, []):
            axes.plot(epochs, values, color=colour, **({"linewidth": 1.2, "markersize": 4} | how))
