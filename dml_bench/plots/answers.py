"""The small pictures beside the answers of a report: accuracy, the cost of being unseen, enrolment,
and accuracy against cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import TableRow
from dml_bench.evaluation.statistics import Interval
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
    saved,
    style,
    untrained_place,
)
from dml_bench.plots.colours import BLUE, GREEN, ORANGE
from dml_bench.plots.label_places import write_labels
from dml_bench.runs.metrics import UNTRAINED

__all__ = ["AnswerFigures", "draw_answers"]

WIDTH = 5.2
"""Inches: two or four stand side by side."""
MOST_ROWS = 16
LIMITED = ("seen_limited", "unseen_limited")
"""What is measured of the model that was trained without the unseen classes."""
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
    study: Study,
    measure: Callable[[TableRow], Interval | None],
    lines: Sequence[TableRow],
    *,
    lowest_first: bool = False,
) -> list[TableRow]:
    """The first lines in the order of what is measured of them; the classifiers, the baseline and
    what trains nothing in any case."""

    def size(line: TableRow) -> float:
        value = measure(line)
        if value is None:
            return np.inf
        return value.estimate if lowest_first else -value.estimate

    ordered = sorted(lines, key=size)
    kept = [*study.rivals]
    kept += [line for line in (study.baseline, study.no_training) if line is not None]
    others = [line for line in ordered if line not in kept][: max(0, MOST_ROWS - len(kept))]
    return [line for line in ordered if line in kept or line in others]


def row_canvas(rows: int, height: float = 0.185) -> tuple[Figure, Axes]:
    figure, [[axes]] = canvas(1.0 + height * max(rows, 4), width=WIDTH)
    return figure, axes


@dataclass(frozen=True, slots=True)
class Dots:
    """One dot for each row."""

    label: str
    measure: Callable[[TableRow], Interval | None]
    colour: str
    marker: str
    shift: float
    """Below the middle of the row."""


def accuracy_dots(study: Study) -> ReportFigure:
    """P@1 of every experiment with intervals: the number of its answer, by which rows are sorted,
    and of the model trained on a part of the classes that on seen and on unseen ones."""
    if study.has_drop:
        seen, unseen = (partial(study.measure, quantity=key) for key in LIMITED)
        groups = [
            Dots("trained on all classes", study.right, INK, "s", -0.26),
            Dots("trained without the unseen classes, on seen ones", seen, BLUE, "o", 0.0),
            Dots("trained without the unseen classes, on unseen ones", unseen, ORANGE, "D", 0.26),
        ]
    else:
        of = "exactly the same labels" if study.has_label_sets else "classes never trained on"
        groups = [Dots(of, study.right, ORANGE, "D", 0.0)]
    lines = rows_by(study, groups[0].measure, study.tested)
    figure, axes = row_canvas(len(lines), 0.1 + 0.05 * len(groups))
    places = np.arange(len(lines))
    for group in groups:
        estimates, error = percents(list(map(group.measure, lines)))
        axes.errorbar(
            estimates, places + group.shift, xerr=error, **dots(group.colour, group.marker)
        )
    finish_rows(axes, [line.short for line in lines], "P@1, %")
    handles = [
        key_line(group.label, group.colour, marker=group.marker, markersize=5) for group in groups
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=1)
    caption = "Sorted by P@1."
    if study.has_drop:
        caption = "Sorted by P@1 of the model trained on all classes."
    if study.has_drop and any(map(study.answers_by_logits, lines)):
        caption += " There a classifier answers by its logits, else by its features."
    return saved(figure, f"{study.slug}-answer-accuracy", "P@1 of each method", caption)


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
    return f"{line.short} (features)" if study.answers_by_logits(line) else line.short


def unseen_cost_dots(study: Study) -> ReportFigure:
    """The cost of being unseen of every experiment, the lowest on top."""
    cost = partial(study.measure, quantity="cost")
    lines = rows_by(study, cost, study.trained, lowest_first=True)
    figure, axes = row_canvas(len(lines))
    places = np.arange(len(lines))
    estimates, error = percents(list(map(cost, lines)))
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.errorbar(estimates, places, xerr=error, **dots(ORANGE, "D"))
    finish_rows(axes, [name_of(study, line) for line in lines], "cost of being unseen, points")
    low, high = axes.get_xlim()
    limit = max(20.0, 2.5 * float(np.nanmax(np.abs(estimates))))
    axes.set_xlim(max(low, -limit), min(high, limit))
    caption = "Less is better."
    if np.nanmax(np.abs(estimates + error * [[-1], [1]])) > limit:
        caption += " Intervals that reach the edge go on beyond it."
    return saved(figure, f"{study.slug}-answer-unseen", "Cost of being unseen", caption)


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
    for place, (measured, (colour, dash, marker)) in enumerate(shown.values()):
        curve = measured.enrolment["images"]
        mean, low, high = 100 * np.stack(curve.band("unseen"))
        axes.plot(curve.ks, mean, dash, color=colour, marker=marker, markersize=4)
        if place == 0:
            axes.fill_between(curve.ks, low, high, color=colour, alpha=0.2, linewidth=0)
        handles.append(
            key_line(name_of(study, measured.line), colour, linestyle=dash, marker=marker)
        )
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    ticks = tick_counts([measured.enrolment["images"].ks for measured, _ in shown.values()])
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set(xlabel="images enrolled of each unseen class", ylabel="P@1 of them, %", ylim=(0, None))
    figure.legend(handles=handles, loc="outside upper left", ncols=3, columnspacing=1.2)
    first = next(measured.line.short for measured, _ in shown.values())
    caption = f"The band holds 95% of the draws of images of {first}, over all seeds."
    return saved(figure, f"{study.slug}-answer-enrolment", "P@1 by images enrolled", caption)


def tick_counts(curves: Sequence[Sequence[int]]) -> list[int]:
    """The counts of images that curves have points at, of two that lie close together the larger:
    the last count always has its tick."""
    ticks: list[int] = []
    for count in sorted({k for ks in curves for k in ks}):
        if ticks and 0 < count < 1.3 * ticks[-1]:
            ticks.pop()
        ticks.append(count)
    return ticks


def training_scatter(study: Study) -> ReportFigure | None:
    """P@1 against the CPU time of training; the names that have room. Rows without training stand
    in a place of their own."""
    lines = [line for line in study.tested if line.cpu_seconds is not None]
    seconds = np.array([line.cpu_seconds or 0.0 for line in lines])
    is_trained = seconds >= UNTRAINED
    if not is_trained.any():  # a table of tiny networks
        is_trained = seconds > 0
    if not is_trained.any():
        study.missing.append(
            "accuracy against cost: no CPU time of training is known, and clock times are not"
            " comparable"
        )
        return None
    figure, [[axes]] = canvas(3.2, width=WIDTH)
    unit = "seconds" if seconds.max() < LONG else "minutes"
    times = seconds if unit == "seconds" else seconds / 60
    accuracy, error = percents(list(map(study.right, lines)))
    is_classifier = np.array([study.answers_by_logits(line) for line in lines])

    def draw(chosen: np.ndarray) -> None:
        for kind, colour, marker in ((~is_classifier, BLUE, "o"), (is_classifier, GREEN, "^")):
            some = chosen & kind
            how = dots(colour, marker) | {"alpha": 0.9, "elinewidth": 0.7}
            axes.errorbar(times[some], accuracy[some], error[:, some], **how)

    draw(is_trained)
    axes.margins(x=0.25)
    log_ticks(axes)
    if not is_trained.all():
        times = np.where(is_trained, times, untrained_place(axes))
        draw(~is_trained)
    axes.set(xlabel=f"{unit} of CPU time for training, all phases", ylabel="P@1, %")
    first = [study.best, study.rival, study.baseline, study.best_unseen]
    ranks = [rank(line, first, float(value)) for line, value in zip(lines, accuracy, strict=True)]
    order = sorted(range(len(lines)), key=lambda place: ranks[place])
    write_labels(axes, times, accuracy, error, [line.short for line in lines], order)
    caption = f"CPU time on {study.group.processor}."
    if is_classifier.any():
        caption += " Triangles: classifiers, by their logits."
    absent = [line.short for line in study.tested if line.cpu_seconds is None]
    if absent:
        caption += f" Not shown, as their CPU time is not known there: {'; '.join(absent)}."
    title = "P@1 against CPU time of training"
    return saved(figure, f"{study.slug}-answer-training", title, caption)


def rank(line: TableRow, first: Sequence[TableRow | None], accuracy: float) -> tuple[int, float]:
    """In which order names look for room."""
    return (first.index(line) if line in first else len(first), -accuracy)
