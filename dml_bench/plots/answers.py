"""The small pictures beside the answers of a report: accuracy, the cost of being unseen, enrolment,
and accuracy against cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.plots.canvas import (
    INK,
    Axes,
    Figure,
    ReportFigure,
    canvas,
    finish_rows,
    key_line,
    log_ticks,
    percents,
    plain_number,
    saved,
    style,
)
from dml_bench.plots.colours import BLUE, GREEN, ORANGE
from dml_bench.plots.label_places import write_labels
from dml_bench.runs.metrics import COST

__all__ = ["AnswerFigures", "draw_answers"]

WIDTH = 5.2
"""Inches: two or four stand side by side."""
MOST_ROWS = 16
LONG = 180.0
"""Seconds from which on times are in minutes."""


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """None where there are no numbers."""

    accuracy: ReportFigure
    unseen_cost: ReportFigure | None
    enrolment: ReportFigure | None
    training: ReportFigure | None


def draw_answers(study: Study, diagnostics: Mapping[str, Diagnostics]) -> AnswerFigures:
    """All four."""
    with style():
        return AnswerFigures(
            accuracy_dots(study),
            unseen_cost_dots(study) if study.has_drop and study.trained else None,
            enrolment_lines(study, diagnostics),
            training_scatter(study),
        )


def rows_by(
    study: Study, quantity: str, lines: Sequence[TableRow], *, lowest_first: bool = False
) -> list[TableRow]:
    """The first lines in the order of a quantity; the classifiers, the baseline and what trains
    nothing in any case."""

    def size(line: TableRow) -> float:
        value = study.measure(line, quantity)
        if value is None:
            return np.inf
        return value.estimate if lowest_first else -value.estimate

    ordered = sorted(lines, key=size)
    kept = [*study.rivals]
    kept += [line for line in (study.baseline, study.no_training) if line is not None]
    others = [line for line in ordered if line not in kept][: max(0, MOST_ROWS - len(kept))]
    return [line for line in ordered if line in kept or line in others]


def row_canvas(rows: int) -> tuple[Figure, Axes]:
    figure, [[axes]] = canvas(1.0 + 0.185 * max(rows, 4), width=WIDTH)
    return figure, axes


def accuracy_dots(study: Study) -> ReportFigure:
    """P@1 of every experiment with intervals, on seen and on unseen classes by the same model."""
    if study.has_drop:
        groups = [
            ("seen_limited", "classes trained on", BLUE, "o", -0.13),
            ("unseen_limited", "classes never trained on", ORANGE, "D", 0.13),
        ]
    else:
        groups = [("known", "classes never trained on", ORANGE, "D", 0.0)]
    lines = rows_by(study, groups[0][0], study.tested)
    figure, axes = row_canvas(len(lines))
    places = np.arange(len(lines))
    for quantity, _, colour, marker, shift in groups:
        estimates, error = percents([study.measure(line, quantity) for line in lines])
        axes.errorbar(estimates, places + shift, xerr=error, **dots(colour, marker))
    finish_rows(axes, [name_of(study, line) for line in lines], "P@1, %")
    handles = [
        key_line(label, colour, marker=marker, markersize=5)
        for _, label, colour, marker, _ in groups
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return saved(figure, f"{study.slug}-answer-accuracy", "P@1 of each method", "")


def dots(colour: str, marker: str) -> dict[str, Any]:
    return {
        "fmt": marker,
        "color": colour,
        "markersize": 4.5,
        "elinewidth": 1.1,
        "linestyle": "",
    }


def name_of(study: Study, line: TableRow) -> str:
    """A classifier is asked by its features here, not by its logits."""
    is_classifier = line in study.rivals or line in study.linear_probes
    return f"{line.short} (features)" if is_classifier else line.short


def unseen_cost_dots(study: Study) -> ReportFigure:
    """The cost of being unseen of every experiment, the lowest on top."""
    lines = rows_by(study, "cost", study.trained, lowest_first=True)
    figure, axes = row_canvas(len(lines))
    places = np.arange(len(lines))
    estimates, error = percents([study.measure(line, "cost") for line in lines])
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.errorbar(estimates, places, xerr=error, **dots(ORANGE, "D"))
    finish_rows(axes, [name_of(study, line) for line in lines], "cost of being unseen, points")
    low, high = axes.get_xlim()
    limit = max(20.0, 2.5 * float(np.nanmax(np.abs(estimates))))
    axes.set_xlim(max(low, -limit), min(high, limit))
    return saved(figure, f"{study.slug}-answer-unseen", "Cost of being unseen", "")


Look: TypeAlias = tuple[str, str, str]
"""Colour, dashes and marker of a line."""
LOOKS: tuple[Look, ...] = ((ORANGE, "-", "o"), (BLUE, "--", "s"), (GREEN, ":", "^"))
"""Of the best on unseen classes, the baseline and the classifier."""


def enrolment_lines(study: Study, diagnostics: Mapping[str, Diagnostics]) -> ReportFigure | None:
    """P@1 of unseen classes against the images that are enrolled of each; the band is of the
    first."""
    shown: dict[str, tuple[Diagnostics, Look]] = {}
    for line, look in zip((study.best_unseen, study.baseline, study.rival), LOOKS, strict=True):
        measured = diagnostics.get(line.name) if line is not None else None
        if measured is not None and measured.enrolment:
            shown.setdefault(measured.line.name, (measured, look))
    if not shown:
        return None
    figure, [[axes]] = canvas(3.2, width=WIDTH)
    handles = []
    most = 0
    for place, (measured, (colour, dash, marker)) in enumerate(shown.values()):
        curve = measured.enrolment["images"]
        mean, low, high = 100 * np.stack(curve.band("unseen"))
        axes.plot(curve.ks, mean, dash, color=colour, marker=marker, markersize=4)
        if place == 0:
            axes.fill_between(curve.ks, low, high, color=colour, alpha=0.2, linewidth=0)
        handles.append(
            key_line(name_of(study, measured.line), colour, linestyle=dash, marker=marker)
        )
        most = max(most, curve.ks[-1])
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = [k for k in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= most]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set(xlabel="images enrolled of each unseen class", ylabel="P@1 of them, %", ylim=(0, None))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2)
    return saved(figure, f"{study.slug}-answer-enrolment", "P@1 by images enrolled", "")


def training_scatter(study: Study) -> ReportFigure | None:
    """P@1 against training time; the names that have room."""
    lines = [line for line in study.tested if line.cost[0]]
    assert COST[0].key == "train_seconds"
    if not lines:
        study.missing.append("accuracy against cost: training seconds were not recorded")
        return None
    figure, [[axes]] = canvas(3.2, width=WIDTH)
    times = np.array([line.cost[0] or 0.0 for line in lines])
    unit = "seconds" if times.max() < LONG else "minutes"
    times = times if unit == "seconds" else times / 60
    accuracy, error = percents([study.measure(line, "known") for line in lines])
    is_rival = np.array([line in study.rivals for line in lines])
    for chosen, colour, marker in ((~is_rival, BLUE, "o"), (is_rival, GREEN, "^")):
        if chosen.any():
            axes.errorbar(
                times[chosen],
                accuracy[chosen],
                error[:, chosen],
                **(dots(colour, marker) | {"alpha": 0.9, "elinewidth": 0.7}),
            )
    axes.margins(x=0.25)
    log_ticks(axes)
    axes.xaxis.set_major_formatter(plain_number)
    axes.set(xlabel=f"{unit} of training, all phases", ylabel="P@1, %")
    first = [study.best, study.rival, study.baseline, study.best_unseen]
    ranks = [rank(line, first, float(value)) for line, value in zip(lines, accuracy, strict=True)]
    order = sorted(range(len(lines)), key=lambda place: ranks[place])
    names = [name_of(study, line) for line in lines]
    write_labels(axes, times, accuracy, error, names, order)
    return saved(figure, f"{study.slug}-answer-training", "P@1 against training time", "")


def rank(line: TableRow, first: Sequence[TableRow | None], accuracy: float) -> tuple[int, float]:
    """In which order names look for room."""
    return (first.index(line) if line in first else len(first), -accuracy)
