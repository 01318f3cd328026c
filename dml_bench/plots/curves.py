"""Test accuracy and training loss, epoch by epoch."""

import re
from collections.abc import Callable, Mapping, Sequence
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


Curve = tuple[list[int], list[float]]
"""Epochs, and what was recorded after them."""
Curves = dict[str, list[Curve]]
"""By phase, one curve for each seed."""


def accuracy_curves(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """The accuracy on test or validation images, epoch by epoch."""
    is_validated = study.first.protocol.validates_by_class
    title = f"{'Validation' if is_validated else 'Test'} accuracy per epoch"
    curves = all_curves(study, ("test_accuracy", "valid_accuracy"), title)
    if curves is None:
        return None
    caption = one_line(study, has_folds(curves))
    if len(curves) > 1:
        caption += " Grey: the other experiments, trained on all classes."
    if study.has_drop:
        caption += (
            " The model trained without the unseen classes is tested on the classes that it knows."
        )
    of = "validation classes" if is_validated else "test images"
    figure = draw_panels(study, curves, "P@1", of, shared=True)
    return saved(figure, f"{study.slug}-test_accuracy", title, caption)


def loss_curves(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """The training loss, epoch by epoch."""
    title = "Training loss per epoch"
    curves = all_curves(study, ("train_loss",), title)
    if curves is None:
        return None
    caption = one_line(study, has_folds(curves))
    caption += " Losses of different kinds have different scales: each panel has its own."
    figure = draw_panels(study, curves, "training loss", "training images", shared=False)
    return saved(figure, f"{study.slug}-loss", title, caption)


def all_curves(study: Study, names: tuple[str, ...], title: str) -> dict[str, Curves] | None:
    """By experiment; None where none was recorded, which is added to `study.missing`."""
    try:
        curves = {line.short: curves_of(line, names) for line in study.finished}
    except (OSError, ValueError) as error:
        study.missing.append(f"{title.lower()}: {error}")
        return None
    if not any(curves.values()):
        study.missing.append(f"{title.lower()}: none was recorded")
        return None
    return curves


def curves_of(line: TableRow, names: tuple[str, ...]) -> Curves:
    """What the runs of an experiment recorded under the first of `names` that they have."""
    curves: Curves = {}
    for run in line.runs:
        by_phase: dict[str, Curve] = {}
        for record in run.records:
            value = recorded(record, names)
            if value is not None:
                epochs, values = by_phase.setdefault(str(record["phase"]), ([], []))
                epochs.append(int(record["epoch"]))
                values.append(value)
        for phase, curve in by_phase.items():
            curves.setdefault(phase, []).append(curve)
    return curves


def recorded(record: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    """The first of `names` that a record has, perhaps with the number of its phase and of its fold
    after it."""
    by_name = {re.sub(r"\d*(_fold_\d+)?$", "", key): value for key, value in record.items()}
    return next((float(by_name[name]) for name in names if by_name.get(name) is not None), None)


def draw_panels(
    study: Study, curves: dict[str, Curves], label: str, of: str, *, shared: bool
) -> Any:
    """A small panel for each experiment; where all share an axis, the others lie behind it in
    grey. `of` names the images that the curves are of, where all are of one model."""
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure, grid = canvas(0.5 + 1.75 * rows, columns, rows, sharex=True, sharey=shared)
    panels = list(grid.flat)
    is_limited = study.first.protocol.is_limited
    for axes, (experiment, own_curves) in zip(panels, curves.items(), strict=False):
        if shared:
            draw_behind(axes, list(curves.values()), is_limited)
        colours = {phase: ORANGE if is_limited(phase) else BLUE for phase in own_curves}
        draw_curves(axes, own_curves, colours, marker="." if shared else None)
        axes.set_title(wrapped(experiment), fontsize=7)
    for axes in panels[len(curves) :]:
        axes.set_axis_off()
    for axes in panels[max(0, len(curves) - columns) : len(curves)]:
        axes.tick_params(labelbottom=True)
        integer_ticks(axes)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(label, fontsize=9)
    if study.has_drop:
        handles = [
            key_line("trained on all classes", BLUE),
            key_line("trained without the unseen", ORANGE),
        ]
    else:
        handles = [key_line(of, BLUE)]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def has_folds(curves: dict[str, Curves]) -> bool:
    """Whether some phase was trained in folds."""
    return any("-fold-" in phase for of_line in curves.values() for phase in of_line)


def one_line(study: Study, folds: bool = False) -> str:
    """What each line of a figure is of."""
    parts = ["seed"]
    if len(study.holdouts) > 1:
        parts.append("hold-out")
    if folds:
        parts.append("fold")
    return f"One line per {' and '.join(parts)}."


def draw_behind(
    axes: Axes, all_experiments: Sequence[Curves], is_limited: Callable[[str], bool]
) -> None:
    """The models that trained on all classes, in grey."""
    for curves in all_experiments:
        colours = {phase: INK for phase in curves if not is_limited(phase)}
        draw_curves(axes, curves, colours, alpha=0.15, linewidth=0.8)


def draw_curves(axes: Axes, curves: Curves, colours: dict[str, str], **options: Any) -> None:
    """Those of the phases that have a colour."""
    for phase, colour in colours.items():
        for epochs, values in curves.get(phase, []):
            plain = {"linewidth": 1.2, "markersize": 4}
            axes.plot(epochs, values, color=colour, **(plain | options))
