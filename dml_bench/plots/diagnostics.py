"""Enrolment, unknown classes, votes and their calibration, of a few experiments."""

import numpy as np

from dml_bench.analysis.diagnostics import GOALS, By, Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.plots.canvas import INK, ReportFigure, canvas, key_line, saved, wrapped
from dml_bench.plots.colours import BLUE, GOLD, GREEN, ORANGE, PINK
from dml_bench.plots.curves import one_line

__all__ = ["coverage_precision", "enrolment", "open_set", "reliability", "votes"]

WAYS: dict[By, str] = {"images": "-", "centroids": "--", "refit": ":"}
"""Lines of the ways in which a new class is answered."""
COLOURS = (ORANGE, BLUE, GREEN, PINK, GOLD)
"""Of the experiments that have diagnostics, of which there are at most so many."""
MARKERS = ("s", "o", "^")
"""Of thresholds for each of GOALS."""


def enrolment(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """P@1 against the number of images that are enrolled."""
    shown = [measured for measured in diagnostics.values() if measured.enrolment]
    if not shown:
        return None
    figure, grid = canvas(3.3, len(shown), sharey=True)
    for axes, measured in zip(grid[0], shown, strict=True):
        for group, colour in (("unseen", ORANGE), ("seen", BLUE)):
            for by, style in WAYS.items():
                curve = measured.enrolment.get(by)
                if curve is None:
                    continue
                band = 100 * np.stack(curve.band(group))  # type: ignore[arg-type]
                mean, low, high = band
                places = np.arange(len(curve.ks))
                axes.plot(places, mean, style, color=colour, marker="." if by == "images" else None)
                if by == "images":
                    axes.fill_between(places, low, high, color=colour, alpha=0.22, linewidth=0)
        ks = measured.enrolment["images"].ks
        axes.set_xticks(np.arange(len(ks)), [*map(str, ks[:-1]), "all"])
        axes.set_title(wrapped(measured.line.short, len(grid[0])))
    figure.supxlabel("images enrolled per unseen class", fontsize=9)
    grid[0, 0].set_ylabel("P@1, mean over classes, %")
    names = [
        ("unseen classes", ORANGE, "-"),
        ("old classes", BLUE, "-"),
        ("by images", INK, "-"),
        ("by class centroids", INK, "--"),
    ]
    if any("refit" in measured.enrolment for measured in shown):
        names.append(("last layer refitted", INK, ":"))
    figure.legend(
        handles=[key_line(text, colour, linestyle=style) for text, colour, style in names],
        loc="outside upper left",
        ncols=len(names),
    )
    caption = (
        "P@1 of the model trained without the unseen classes, as their images are added to the"
        " gallery, without training. Bands hold 95% of the random choices of images, over all"
        " seeds."
    )
    return saved(figure, f"{study.slug}-enrolment", "Enrolment curves", caption)


def open_set(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """ROC and OSCR curves (Dhamija et al. 2018) of unknown against known queries."""
    shown = [measured for measured in diagnostics.values() if measured.open_set]
    if not shown:
        return None
    figure, [[roc, oscr]] = canvas(4.2, 2)
    for measured, colour in zip(shown, COLOURS, strict=False):
        style = {"color": colour, "linewidth": 1, "alpha": 0.8}
        for part in measured.open_set:
            curves = part.curves
            roc.plot(curves.false_positive_rate, curves.true_positive_rate, **style)
            oscr.plot(curves.false_positive_rate, curves.correct_rate, **style)
    roc.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
    for axes, title, label in (
        (roc, "ROC", "known queries accepted"),
        (oscr, "OSCR", "known queries accepted and right"),
    ):
        axes.set(
            title=title,
            ylabel=label,
            xlabel="unknown queries accepted",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
    names = [
        f"{measured.line.short}: AUROC {measured.mean('auroc'):.3f}, OSCR"
        f" {measured.mean('oscr'):.3f}"
        for measured in shown
    ]
    handles = [key_line(name, colour) for name, colour in zip(names, COLOURS, strict=False)]
    figure.legend(handles=handles, loc="outside upper left")
    caption = (
        "The unseen classes are not in the gallery. The similarity of the nearest image separates"
        " their queries from known ones. "
    )
    caption += one_line(study)
    return saved(figure, f"{study.slug}-open-set", "Separating unknown from known classes", caption)


def coverage_precision(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """Precision against the share of the queries that are answered, as the threshold falls."""
    shown = [measured for measured in diagnostics.values() if measured.open_set]
    if not shown:
        return None
    figure, grid = canvas(3.6, len(shown), sharex=True, sharey=True)
    for axes, measured in zip(grid[0], shown, strict=True):
        for part in measured.open_set:
            style = {"linewidth": 1, "alpha": 0.7}
            axes.plot(part.chosen.coverage, part.chosen.precision, "--", color=ORANGE, **style)
            axes.plot(part.tested.coverage, part.tested.precision, color=BLUE, **style)
            for goal, marker in zip(GOALS, MARKERS, strict=True):
                tested = part.threshold(goal, 0.0)
                axes.plot(tested.coverage, tested.precision, marker, color=INK, markersize=5)
        for goal in GOALS:
            axes.axhline(goal, color=INK, linewidth=0.6, linestyle=":")
        axes.set_title(wrapped(measured.line.short, len(grid[0])))
    figure.supxlabel("share of the queries of known classes that is answered", fontsize=9)
    precisions = np.concatenate(
        [part.tested.precision for measured in shown for part in measured.open_set]
    )
    lowest = min(precisions.min(initial=1.0), GOALS[0])
    grid[0, 0].set(
        ylabel="precision of the answers",
        xlim=(-0.02, 1.02),
        ylim=(np.floor(10 * lowest) / 10 - 0.02, 1.02),
    )
    handles = [
        key_line("queries that test thresholds", BLUE),
        key_line("images that choose thresholds", ORANGE, linestyle="--"),
    ]
    for goal, marker in zip(GOALS, MARKERS, strict=True):
        handles.append(key_line(f"threshold for {goal:.0%}", INK, marker=marker, linestyle="none"))
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    caption = (
        "The more similar its nearest image, the surer a query is answered right. Marks: thresholds"
        " that promise a precision with 95% confidence, at what they do on queries that had no part"
        " in their choice. A precision without a mark can't be promised. "
    )
    caption += one_line(study)
    return saved(figure, f"{study.slug}-coverage-precision", "Precision against coverage", caption)


def votes(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """Accuracy against the number of neighbours that vote."""
    if not diagnostics:
        return None
    figure, grid = canvas(3.0, len(diagnostics), sharey=True)
    for axes, measured in zip(grid[0], diagnostics.values(), strict=True):
        places = np.arange(len(measured.votes.ks))
        axes.plot(places, measured.votes.majority, color=BLUE, marker=".")
        axes.plot(places, measured.votes.distance, "--", color=ORANGE, marker=".")
        axes.set_xticks(places, list(map(str, measured.votes.ks)))
        axes.set_title(wrapped(measured.line.short, len(grid[0])))
    figure.supxlabel("neighbours that vote", fontsize=9)
    grid[0, 0].set_ylabel("accuracy, mean over classes")
    handles = [
        key_line("one vote each", BLUE),
        key_line("votes weighted by nearness", ORANGE, linestyle="--"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return saved(
        figure,
        f"{study.slug}-votes",
        "The vote of the nearest",
        "By the model trained on all training classes; mean over seeds.",
    )


def reliability(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """Accuracy against the share of votes, which would be its confidence if it were a
    probability."""
    if not diagnostics:
        return None
    figure, grid = canvas(4.0, len(diagnostics), sharex=True, sharey=True)
    for axes, measured in zip(grid[0], diagnostics.values(), strict=True):
        share, accuracy, part = measured.reliability
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        axes.vlines(share, share, accuracy, color=ORANGE, linewidth=1.2)
        axes.plot(share, accuracy, color=BLUE, linewidth=1, alpha=0.6)
        axes.scatter(share, accuracy, 12 + 300 * part, color=BLUE, zorder=3)
        name = wrapped(measured.line.short, len(grid[0]))
        axes.set(
            title=f"{name}\nECE {measured.calibration_error:.3f}",
            xlim=(-0.04, 1.06),
            ylim=(-0.04, 1.06),
        )
    figure.supxlabel("share of the ten nearest that vote for the elected class", fontsize=9)
    grid[0, 0].set_ylabel("share of the queries that are right")
    handles = [
        key_line("queries with that share (area: how many)", BLUE, marker="o"),
        key_line("gap", ORANGE),
        key_line("perfect calibration", INK, linestyle=":"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    caption = (
        "Points below the dotted line are overconfident, points above it underconfident. ECE:"
        " expected calibration error, the mean gap over queries (Guo et al. 2017), mean over seeds."
        " The points are of all seeds together, by the model trained on all training classes."
    )
    return saved(figure, f"{study.slug}-reliability", "Calibration of the vote", caption)
