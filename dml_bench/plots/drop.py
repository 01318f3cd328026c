"""The precision drop: per experiment, per hold-out, per class."""

import numpy as np

from dml_bench.analysis.diagnostics import ClassDrop, Diagnostics, class_drop
from dml_bench.analysis.study import Study
from dml_bench.plots.canvas import (
    INK,
    Axes,
    ReportFigure,
    canvas,
    finish_rows,
    key_line,
    percents,
    saved,
    wrapped,
)
from dml_bench.plots.colours import BLUE, GREEN, ORANGE
from dml_bench.system.lettering import shortened

__all__ = ["class_bars", "drop_bars", "holdout_dots"]


def drop_bars(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """The drop of every experiment on the unseen, the seen and all classes."""
    if not study.has_drop:
        study.missing.append("precision-drop figures: this protocol has no second model")
        return None
    lines = study.trained
    if not lines:
        return None
    figure, [[axes]] = canvas(1.1 + 0.5 * len(lines))
    rows = np.arange(len(lines))
    for shift, group, colour in (
        (-0.27, "unseen", ORANGE),
        (0.0, "seen", BLUE),
        (0.27, "all", GREEN),
    ):
        values = [study.measure(line, f"drop_{group}") for line in lines]
        estimates, lengths = percents(values)
        error = {
            "xerr": lengths,
            "error_kw": {"elinewidth": 1, "ecolor": INK, "capsize": 2},
        }
        axes.barh(rows + shift, estimates, 0.25, color=colour, label=f"{group} classes", **error)
    finish_rows(
        axes,
        [line.short for line in lines],
        "precision drop: P@1 trained on all classes minus P@1 trained without the unseen, points",
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    cut = cut_to_estimates(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    caption = "Mean over classes and seeds. To the right of zero precision is lost." + cut
    return saved(figure, f"{study.slug}-drop", "Precision drop per experiment", caption)


def cut_to_estimates(axes: Axes) -> str:
    """Keep intervals that say next to nothing from pressing the bars together; returns what the
    caption has to say of it."""
    low, high = axes.get_xlim()
    limit = max(
        20.0,
        2.5 * max(abs(bar.get_width()) for bar in axes.patches if not np.isnan(bar.get_width())),
    )
    axes.set_xlim(max(low, -limit), min(high, limit))
    return " Intervals that reach the edge go on beyond it." if low < -limit or high > limit else ""


def holdout_dots(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """What the drop on the unseen classes owes to which classes are held out, where there are
    several hold-outs."""
    if len(study.holdouts) < 2 or not study.trained:
        return None
    lines = study.trained
    figure, [[axes]] = canvas(1.1 + 0.32 * len(lines))
    rows = np.arange(len(lines))
    names = []
    for row, line in enumerate(lines):
        drops = 100 * study.holdout_drops(line).mean(1)
        names.append(f"{line.short} (± {drops.std(ddof=1):.1f})")
        axes.plot(
            drops,
            np.full(len(drops), row),
            "o",
            color=ORANGE,
            markersize=5,
            alpha=0.75,
            markeredgewidth=0,
        )
    centres, lengths = percents([study.measure(line, "drop_unseen") for line in lines])
    axes.errorbar(
        centres,
        rows,
        xerr=lengths,
        fmt="|",
        color=INK,
        markersize=11,
        elinewidth=1,
        capsize=2,
    )
    finish_rows(axes, names, "precision drop of the unseen classes, points")
    axes.axvline(0, color=INK, linewidth=0.8)
    handles = [
        key_line("one hold-out", ORANGE, marker="o", linestyle=""),
        key_line("all together", INK, marker="|", linestyle="", markersize=11),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    caption = (
        f"Each of the {len(study.holdouts)} hold-outs, mean over seeds, and all together with"
        " their interval. In brackets the standard deviation between hold-outs in points,"
        " which holds the noise of the queries too."
    )
    return saved(figure, f"{study.slug}-holdouts", "Precision drop per hold-out", caption)


MOST_NAMES = 60
"""Of more classes the bars have no names."""


def class_bars(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """The drop of every class of the best and of the baseline."""
    lines = {line.short: line for line in (study.best, study.baseline) if line is not None}
    if not study.has_drop or not lines:
        return None
    drops = {name: class_drop(line) for name, line in lines.items()}
    count = max(len(drop.drop) for drop in drops.values())
    if count <= MOST_NAMES:
        figure, grid = canvas(0.9 + 0.155 * count, len(drops), sharex=True)
        draw_classes, described = named_classes, grid[-1]
    else:
        figure, grid = canvas(6.0, rows=len(drops))
        draw_classes, described = nameless_classes, grid[:, 0]
    for axes, (name, drop) in zip(grid.flat, drops.items(), strict=True):
        draw_classes(axes, drop)
        axes.set_title(wrapped(name))
    for axes in described:
        (axes.set_xlabel if count <= MOST_NAMES else axes.set_ylabel)("precision drop, points")
    handles = [
        key_line("unseen classes", ORANGE, linewidth=6),
        key_line("seen classes", BLUE, linewidth=6),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    several = (
        ", and over the hold-outs in which a class is unseen" if len(study.holdouts) > 1 else ""
    )
    caption = f"Mean over seeds{several}; largest drop first. No class is tested by itself."
    if any(np.isfinite(drop.spread).any() for drop in drops.values()):
        caption += " Lines show the standard deviation over seeds."
    return saved(figure, f"{study.slug}-classes", "Precision drop per class", caption)


def named_classes(axes: Axes, drop: ClassDrop) -> None:
    """A bar beside the name of each class, largest drop first."""
    order = np.argsort(-drop.drop, kind="stable")
    colours = np.where(drop.unseen[order], ORANGE, BLUE)
    places = np.arange(len(order))
    spread = None if np.isnan(drop.spread).all() else 100 * drop.spread[order]
    whiskers = {"ecolor": INK, "elinewidth": 0.6}
    axes.barh(places, 100 * drop.drop[order], 0.75, color=colours, xerr=spread, error_kw=whiskers)
    axes.set_yticks(places, [shortened(drop.names[label], 40) for label in order], fontsize=6)
    for text, colour in zip(axes.get_yticklabels(), colours, strict=True):
        text.set_color(colour if colour == ORANGE else INK)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=INK, linewidth=0.8)


def nameless_classes(axes: Axes, drop: ClassDrop) -> None:
    """Many narrow bars, largest drop first."""
    order = np.argsort(-drop.drop, kind="stable")
    colours = np.where(drop.unseen[order], ORANGE, BLUE)
    spread = None if np.isnan(drop.spread).all() else 100 * drop.spread[order]
    whiskers = {"ecolor": INK, "elinewidth": 0.4}
    axes.bar(
        np.arange(len(order)),
        100 * drop.drop[order],
        1.0,
        color=colours,
        yerr=spread,
        error_kw=whiskers,
    )
    axes.set_xlabel("classes, largest drop first")
    axes.axhline(0, color=INK, linewidth=0.8)
