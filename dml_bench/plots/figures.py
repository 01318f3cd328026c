"""The figures. Only this module and `lettering` import matplotlib, and inside functions, so that
nothing else waits for it.

Each figure is drawn once: ink that is neither data nor a colour is written as INK, which the inline
SVG of the page turns into the text colour of the page, light or dark; the PNG has a white ground.
"""

import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from dml_bench.analysis.ablation import Ablation
from dml_bench.analysis.diagnostics import Diagnostics, class_drop
from dml_bench.analysis.study import Study
from dml_bench.analysis.table import COST, TableRow
from dml_bench.evaluation.statistics import Interval
from dml_bench.runs.run import read_experiment
from dml_bench.system.failures import named
from dml_bench.system.lettering import literal, shortened, text_style

if TYPE_CHECKING:
    from dml_bench.browse.images import BrowseTable
    from dml_bench.training.lr_finder import RateSweep

__all__ = ["ReportFigure", "draw", "embedding_maps", "learning_rates"]

Axes: TypeAlias = Any  # matplotlib's, which is not imported for types either
Figure: TypeAlias = Any

INK = "#010203"
BLUE, ORANGE, GREEN, PINK, SKY, GOLD = (
    "#2f7fc1",
    "#d9662b",
    "#1f9e77",
    "#c06a9f",
    "#5aa9dd",
    "#b8860b",
)
"""Told apart by people who see no red or green, and readable on white and on near black."""
WIDTH = 9.0
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "dml-bench",
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    ),
}


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """One figure."""

    name: str
    title: str
    caption: str
    svg: str
    """For the page: its neutral ink is the colour of the text around it."""
    png: bytes


def draw(section: Study, closer: dict[str, Diagnostics]) -> list[ReportFigure]:
    """All figures for which there are numbers; what there are none for is added to
    `section.missing`."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE | text_style()):
        return [drawn for drawn in (each(section, closer) for each in FIGURES) if drawn is not None]


def saved(figure: Figure, name: str, title: str, caption: str) -> ReportFigure:
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    figure.set_layout_engine("none")  # it stays as it was laid out
    figure.savefig(png, format="png", dpi=130, facecolor="white")
    return ReportFigure(name, title, caption, inline(svg.getvalue(), name, title), png.getvalue())


def inline(svg: str, name: str, title: str) -> str:
    """The <svg> element alone, in the page's colour; its ids carry the figure's name, so that many
    fit into one page."""
    text = re.sub(r'style="[^"]*"', lambda found: of_page(found[0]), svg[svg.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*">', "<g>", text)
    for known in set(re.findall(r' id="([^"]+)"', text)):
        text = text.replace(f'id="{known}"', f'id="{name}-{known}"').replace(
            f"#{known}", f"#{name}-{known}"
        )
    text = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', r'\1 style="width:\2pt"', text
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def of_page(style: str) -> str:
    """A style attribute with the page's colour for ink, and without the fonts of the PNG, which a
    browser finds itself."""
    return re.sub(
        r"font-family: [^;\"]*",
        "font-family: 'DejaVu Sans', Verdana, sans-serif",
        style.replace(INK, "currentColor"),
    )


def standalone(svg: str) -> str:
    """The same as a file of its own: it needs a colour, and follows the viewer's light or dark
    mode."""
    style = "<style>svg{color:#222;background:#fff}@media(prefers-color-scheme:dark){svg{color:#ddd;background:#16181c}}</style>"
    head, found, rest = svg.partition(">")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{head}{found}{style}{rest}'


def write(folder: Path, drawn: Iterable[ReportFigure]) -> None:
    for each in drawn:
        for ending, picture in (("svg", standalone(each.svg).encode()), ("png", each.png)):
            with named(path := folder / f"{each.name}.{ending}"):
                path.write_bytes(picture)


def canvas(height: float, columns: int = 1, rows: int = 1, **how: Any) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    figure.set_layout_engine(
        "constrained", w_pad=0.12
    )  # room for fonts that are wider than matplotlib's
    return figure, figure.subplots(rows, columns, squeeze=False, **how)


def as_error(intervals: Sequence[Interval | None]) -> np.ndarray:
    """(2, n) lengths of the error bars; 0 where there is no interval."""
    low = [i.estimate - i.low if i else 0.0 for i in intervals]
    high = [i.high - i.estimate if i else 0.0 for i in intervals]
    return np.maximum(np.nan_to_num(np.array([low, high])), 0)


# Precision drop


def drop_bars(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    if not section.has_drop:
        section.missing.append("precision-drop figures: this protocol has no second model")
        return None
    lines = section.finished
    figure, [[axes]] = canvas(1.1 + 0.5 * len(lines))
    rows = np.arange(len(lines))
    for shift, group, colour in (
        (-0.27, "unseen", ORANGE),
        (0.0, "seen", BLUE),
        (0.27, "all", GREEN),
    ):
        values = [section.measure(line, f"drop_{group}") for line in lines]
        estimates = [value.estimate if value else np.nan for value in values]
        error = {
            "xerr": as_error(values),
            "error_kw": {"elinewidth": 1, "ecolor": INK, "capsize": 2},
        }
        axes.barh(rows + shift, estimates, 0.25, color=colour, label=f"{group} classes", **error)
    finish_rows(
        axes,
        [line.name for line in lines],
        "precision drop: P@1 trained on all classes minus P@1 trained without the unseen",
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    cut = cut_to_estimates(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3)
    caption = (
        "Mean over classes and seeds, with 95% intervals. To the right of zero precision is lost."
        + cut
    )
    return saved(figure, f"{section.slug}-drop", "Precision drop per experiment", caption)


def cut_to_estimates(axes: Axes) -> str:
    """Keep intervals that say next to nothing from pressing the bars together; returns what the
    caption has to say of it."""
    low, high = axes.get_xlim()
    limit = max(
        0.2,
        2.5 * max(abs(bar.get_width()) for bar in axes.patches if not np.isnan(bar.get_width())),
    )
    axes.set_xlim(max(low, -limit), min(high, limit))
    return " Intervals that reach the edge go on beyond it." if low < -limit or high > limit else ""


def finish_rows(axes: Axes, names: Sequence[str], label: str) -> None:
    axes.set_yticks(range(len(names)), [shortened(name) for name in names])
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(label)


def holdout_dots(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    """What the drop on the unseen classes owes to which classes are held out, where there are
    several hold-outs."""
    if len(section.holdouts) < 2:
        return None
    lines = section.finished
    figure, [[axes]] = canvas(1.1 + 0.32 * len(lines))
    rows = np.arange(len(lines))
    drops = [section.holdout_drops(line).mean(1) for line in lines]
    for row, each in zip(rows, drops, strict=True):
        axes.plot(
            each,
            np.full(len(each), row),
            "o",
            color=ORANGE,
            markersize=5,
            alpha=0.75,
            markeredgewidth=0,
        )
    means = [section.measure(line, "drop_unseen") for line in lines]
    centres = [mean.estimate if mean else np.nan for mean in means]
    axes.errorbar(
        centres,
        rows,
        xerr=as_error(means),
        fmt="|",
        color=INK,
        markersize=11,
        elinewidth=1,
        capsize=2,
    )
    names = [
        f"{line.name} (± {100 * each.std(ddof=1):.1f})"
        for line, each in zip(lines, drops, strict=True)
    ]
    finish_rows(axes, names, "precision drop of the unseen classes")
    axes.axvline(0, color=INK, linewidth=0.8)
    handles = [
        key_line("one hold-out", ORANGE, marker="o", linestyle=""),
        key_line("all together", INK, marker="|", linestyle="", markersize=11),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    caption = (
        f"Each of the {len(section.holdouts)} hold-outs, mean over seeds, and all together with"
        " their 95% interval. In brackets the standard deviation between hold-outs in points,"
        " which holds the noise of the queries too."
    )
    return saved(figure, f"{section.slug}-holdouts", "Precision drop per hold-out", caption)


# Curves


def accuracy_curves(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    return curves(
        section,
        "test_accuracy",
        "P@1",
        "Test accuracy per epoch",
        ("test_accuracy", "valid_accuracy"),
        shared=True,
    )


def loss_curves(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    return curves(
        section, "loss", "training loss", "Training loss per epoch", ("train_loss",), shared=False
    )


Curves = dict[str, list[tuple[list[int], list[float]]]]
"""By phase, one curve per seed."""


def curves_of(line: TableRow, names: tuple[str, ...]) -> Curves:
    found: Curves = {}
    for run in line.runs:
        records = read_experiment(run.folder)[1].records()
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
    section: Study, name: str, label: str, title: str, names: tuple[str, ...], *, shared: bool
) -> ReportFigure | None:
    """A small panel for each experiment; where all share an axis, the others lie behind it in
    grey."""
    from matplotlib.ticker import MaxNLocator

    try:
        found = {line.name: curves_of(line, names) for line in section.finished}
    except (OSError, ValueError) as error:
        section.missing.append(f"{title.lower()}: {error}")
        return None
    if not any(found.values()):
        section.missing.append(f"{title.lower()}: none was recorded")
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
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(label, fontsize=9)
    keys = (
        [("trained on all classes", BLUE), ("trained without the unseen", ORANGE)]
        if section.has_drop
        else [("validation classes", BLUE)]
    )
    figure.legend(
        handles=[key_line(text, colour) for text, colour in keys], loc="outside upper left", ncols=2
    )
    said = one_line(
        section, folds=any("-fold-" in phase for curve in found.values() for phase in curve)
    )
    said += (
        " Grey: the other experiments, trained on all classes." if shared and len(found) > 1 else ""
    )
    if shared and section.has_drop:
        said += (
            " The model trained without the unseen classes is watched on the classes that it knows."
        )
    if not shared:
        said += " Losses of different kinds have different scales: each panel has its own."
    return saved(figure, f"{section.slug}-{name}", title, said)


def one_line(section: Study, folds: bool = False) -> str:
    parts = ["seed", *["hold-out"] * (len(section.holdouts) > 1), *["fold"] * folds]
    return f"One line per {' and '.join(parts)}."


def draw_curves(axes: Axes, found: Curves, colours: dict[str, str], **how: Any) -> None:
    for phase, colour in colours.items():
        for epochs, values in found.get(phase, []):
            axes.plot(epochs, values, color=colour, **({"linewidth": 1.2, "markersize": 4} | how))


def key_line(label: str, colour: str, **how: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, label=shortened(label), **how)


# Per class


MOST_NAMES = 60


def class_bars(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    """The drop of every class of the best and of the baseline."""
    lines = [line for line in (section.best, section.baseline) if line is not None]
    lines = list({line.name: line for line in lines}.values())
    if not section.has_drop or not lines:
        return None
    drops = [class_drop(line) for line in lines]
    count = max(len(each.drop) for each in drops)
    is_named = count <= MOST_NAMES
    figure, grid = canvas(
        0.9 + 0.155 * count if is_named else 6.0,
        *((len(lines), 1) if is_named else (1, len(lines))),
    )
    for axes, line, each in zip(grid.flat, lines, drops, strict=True):
        order = np.argsort(-each.drop, kind="stable")
        colours = np.where(each.unseen[order], ORANGE, BLUE)
        places = np.arange(len(order))
        if is_named:
            axes.barh(places, each.drop[order], 0.75, color=colours)
            axes.set_yticks(places, [shortened(each.names[i], 40) for i in order], fontsize=6)
            for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
                label.set_color(colour if colour == ORANGE else INK)
            axes.set_ylim(len(order) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
            axes.axvline(0, color=INK, linewidth=0.8)
        else:
            axes.bar(places, each.drop[order], 1.0, color=colours)
            axes.set_xlabel("classes, largest drop first")
            axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_title(wrapped(line.name))
    for axes in grid[-1] if is_named else grid[:, 0]:
        (axes.set_xlabel if is_named else axes.set_ylabel)("precision drop")
    handles = [
        key_line("unseen classes", ORANGE, linewidth=6),
        key_line("seen classes", BLUE, linewidth=6),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    several = (
        ", and over the hold-outs in which a class is unseen" if len(section.holdouts) > 1 else ""
    )
    caption = f"Mean over seeds{several}; largest drop first."
    return saved(figure, f"{section.slug}-classes", "Precision drop per class", caption)


def wrapped(name: str, width: int = 36) -> str:
    """A long name in several lines, broken after underscores."""
    lines = [""]
    for part in re.findall(r"[^_]*_|[^_]+$", literal(name)):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


# Closer looks


def enrolment(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    looks = [look for look in closer.values() if look.enrolment]
    if not looks:
        return None
    figure, grid = canvas(3.3, len(looks), sharey=True)
    for axes, look in zip(grid[0], looks, strict=True):
        for group, colour in (("unseen", ORANGE), ("seen", BLUE)):
            for by, style in (("images", "-"), ("centroids", "--")):
                curve = look.enrolment[by]  # type: ignore[index]
                mean, low, high = curve.band(group)  # type: ignore[arg-type]
                places = np.arange(len(curve.ks))
                axes.plot(places, mean, style, color=colour, marker="." if by == "images" else None)
                if by == "images":
                    axes.fill_between(places, low, high, color=colour, alpha=0.22, linewidth=0)
        axes.set_xticks(places, [*map(str, curve.ks[:-1]), "all"])
        axes.set_title(wrapped(look.line.name, 30))
    figure.supxlabel("images enrolled per unseen class", fontsize=9)
    grid[0, 0].set_ylabel("P@1, mean over classes")
    names = [
        ("unseen classes", ORANGE, "-"),
        ("old classes", BLUE, "-"),
        ("by images", INK, "-"),
        ("by class centroids", INK, "--"),
    ]
    figure.legend(
        handles=[key_line(text, colour, linestyle=style) for text, colour, style in names],
        loc="outside upper left",
        ncols=4,
    )
    caption = (
        "What the model trained without the unseen classes makes of them as their images are put"
        " into the gallery, without training. Bands hold 95% of the random choices of images, over"
        " all seeds."
    )
    return saved(figure, f"{section.slug}-enrolment", "Enrolment curves", caption)


def open_set(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    looks = [look for look in closer.values() if look.open_set]
    if not looks:
        return None
    figure, [[roc, oscr]] = canvas(4.2, 2)
    for look, colour in zip(looks, (ORANGE, BLUE, GREEN), strict=False):
        for each in look.open_set:
            roc.plot(
                each.curves.false_positive_rate,
                each.curves.true_positive_rate,
                color=colour,
                linewidth=1,
                alpha=0.8,
            )
            oscr.plot(
                each.curves.false_positive_rate,
                each.curves.correct_rate,
                color=colour,
                linewidth=1,
                alpha=0.8,
            )
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
        f"{look.line.name}: AUROC {look.mean('auroc'):.3f}, OSCR {look.mean('oscr'):.3f}"
        for look in looks
    ]
    handles = [
        key_line(name, colour) for name, colour in zip(names, (ORANGE, BLUE, GREEN), strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper left")
    caption = (
        "Queries of the unseen classes while these are not in the gallery, told from known ones by"
        " the nearest similarity. "
    )
    caption += one_line(section)
    return saved(
        figure, f"{section.slug}-open-set", "Telling unknown classes from known ones", caption
    )


def votes(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    if not closer:
        return None
    figure, grid = canvas(3.0, len(closer), sharey=True)
    for axes, look in zip(grid[0], closer.values(), strict=True):
        places = np.arange(len(look.votes.ks))
        axes.plot(places, look.votes.majority, color=BLUE, marker=".")
        axes.plot(places, look.votes.distance, "--", color=ORANGE, marker=".")
        axes.set_xticks(places, list(map(str, look.votes.ks)))
        axes.set_title(wrapped(look.line.name, 30))
    figure.supxlabel("neighbours that vote", fontsize=9)
    grid[0, 0].set_ylabel("accuracy, mean over classes")
    handles = [
        key_line("one vote each", BLUE),
        key_line("votes weighted by nearness", ORANGE, linestyle="--"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return saved(
        figure,
        f"{section.slug}-votes",
        "The vote of the nearest",
        "Trained on all classes it may; mean over seeds.",
    )


def reliability(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    """Accuracy against the share of votes, which would be its confidence if it were a
    probability."""
    if not closer:
        return None
    figure, grid = canvas(4.0, len(closer), sharex=True, sharey=True)
    for axes, look in zip(grid[0], closer.values(), strict=True):
        share, accuracy, part = look.reliability
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        axes.vlines(share, share, accuracy, color=ORANGE, linewidth=1.2)
        axes.plot(share, accuracy, color=BLUE, linewidth=1, alpha=0.6)
        axes.scatter(share, accuracy, 12 + 300 * part, color=BLUE, zorder=3)
        axes.set(
            title=f"{wrapped(look.line.name, 30)}\nECE {look.calibration_error:.3f}",
            xlim=(-0.04, 1.06),
            ylim=(-0.04, 1.06),
        )
    figure.supxlabel("share of the ten nearest that vote for the elected class", fontsize=9)
    grid[0, 0].set_ylabel("share of the queries that are right")
    handles = [
        key_line("queries with that share; area: how many", BLUE, marker="o"),
        key_line("gap", ORANGE),
        key_line("a share that is a probability", INK, linestyle=":"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    caption = (
        "Points below the dotted line promise too much, points above it too little. ECE: expected"
        " calibration error, the mean length of the gap over queries (Guo et al. 2017), mean over"
        " seeds; the points are of all seeds together. Trained on all classes it may."
    )
    return saved(figure, f"{section.slug}-reliability", "Calibration of the vote", caption)


# Cost


def effect_dots(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    """Differences from the experiment that is extended, the best for unseen classes on top."""
    if not section.effects:
        return None
    found = sorted(section.effects, key=lambda effect: -effect.unseen.difference.estimate)
    figure, [[axes]] = canvas(1.2 + 0.34 * len(found))
    groups = (
        ("known classes", BLUE, -0.17, [effect.seen for effect in found]),
        ("classes never trained on", ORANGE, 0.17, [effect.unseen for effect in found]),
    )
    for _, colour, shift, parts in groups:
        for row, part in enumerate(parts):
            face = colour if part.better != -1 else "none"
            how: Any = {
                "fmt": "o",
                "markersize": 4,
                "color": colour,
                "markerfacecolor": face,
                "elinewidth": 1,
            }
            axes.errorbar(
                [part.difference.estimate], [row + shift], xerr=as_error([part.difference]), **how
            )
    finish_rows(
        axes, [effect_name(effect) for effect in found], "P@1 with the change minus P@1 without"
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    largest = max(abs(part.difference.estimate) for *_, parts in groups for part in parts)
    low, high = axes.get_xlim()
    limit = max(0.2, 1.6 * largest)
    axes.set_xlim(max(low, -limit), min(high, limit))
    keys = [key_line(name, colour, marker="o", linewidth=1) for name, colour, *_ in groups]
    figure.legend(handles=keys, loc="outside upper left", ncols=2)
    caption = (
        "By the model that never saw the unseen classes; mean over classes and seeds, with 95%"
        " intervals, which may go on beyond the edge. Filled: beyond doubt after the correction for"
        " all that is compared."
    )
    return saved(
        figure,
        f"changes-{section.slug}",
        "What each change does to known and to unseen classes",
        caption,
    )


def effect_name(effect: Ablation) -> str:
    return f"{effect.changed}  {'to ' if len(effect.to) == 1 else ''}{effect.without_in_short}"


def cost_scatter(section: Study, closer: dict[str, Diagnostics]) -> ReportFigure | None:
    lines = section.finished
    figure, [[axes, legend]] = canvas(max(3.6, 0.8 + 0.2 * len(lines)), 2, width_ratios=(3, 2))
    at = [line.cost[0] for line in lines]
    assert COST[0].key == "train_seconds"
    if not all(at):
        section.missing.append("accuracy against cost: training seconds were not recorded")
        return None
    values = [section.measure(line, "known") for line in lines]
    for i, (line, seconds, value) in enumerate(zip(lines, at, values, strict=True), start=1):
        assert value is not None and seconds is not None
        colour = GREEN if line in section.rivals else BLUE
        axes.errorbar(
            seconds,
            value.estimate,
            as_error([value]),
            color=colour,
            marker="o",
            markersize=5,
            elinewidth=0.8,
            alpha=0.85,
        )
        axes.annotate(
            str(i), (seconds, value.estimate), xytext=(5, 4), textcoords="offset points", fontsize=8
        )
        legend.text(
            0,
            1 - (i - 0.5) / len(lines),
            f"{i}  {shortened(line.name)}",
            fontsize=8,
            color=colour,
            va="center",
        )
    legend.set(xlim=(0, 1), ylim=(0, 1))
    legend.set_axis_off()
    axes.set_xscale("log")
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(plain_number)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="seconds of training, all phases (log scale)", ylabel="P@1, mean over classes")
    caption = (
        "95% intervals; green: softmax classifiers, by their features. Times are of runs that may"
        " have shared a machine."
    )
    return saved(figure, f"{section.slug}-cost", "Accuracy against cost", caption)


def plain_number(value: float, _: int) -> str:
    """For a logarithmic axis, whose own labels are formulas."""
    return f"{value:g}"


# Learning rates


def learning_rates(found: "RateSweep") -> ReportFigure:
    """The losses of a sweep over learning rates, and the two rates that it suggests."""
    import matplotlib as mpl

    from dml_bench.training.lr_finder import smoothed

    with mpl.rc_context(STYLE | text_style()):
        figure, [[axes]] = canvas(4.0)
        rates, losses = found.rates[: found.finite], found.losses[: found.finite]
        curve = smoothed(losses)
        axes.plot(rates, losses, color=BLUE, linewidth=0.8, alpha=0.45, label="loss of each batch")
        axes.plot(rates, curve, color=BLUE, label="smoothed")
        for step, colour, name in (
            (found.steepest, GREEN, "falls fastest"),
            (found.lowest, ORANGE, "lowest"),
        ):
            if step is not None:
                axes.plot(
                    rates[step], curve[step], "o", color=colour, label=f"{name}: {rates[step]:.2g}"
                )
        if found.lowest is not None:
            axes.axvline(
                rates[found.lowest] / 10,
                color=ORANGE,
                linestyle=":",
                label=f"a tenth of that: {rates[found.lowest] / 10:.2g}",
            )
        room = 0.05 * max(float(np.ptp(curve)), 1e-6)
        axes.set(xscale="log", xlabel="learning rate (log scale)", ylabel="training loss")
        axes.xaxis.set_major_formatter(plain_number)
        axes.set_ylim(
            min(curve.min(), np.quantile(losses, 0.02)) - room,
            min(curve.max(), 1.5 * curve[0]) + 2 * room,
        )
        figure.legend(loc="outside upper left", ncols=5)
        caption = (
            "One step at each rate, from the lowest to the highest; smoothed over neighbouring"
            " steps."
        )
        return saved(figure, "learning-rates", f"Learning rates of {found.experiment}", caption)


# Maps of embeddings


MOST_COLOURS = 20
MOST_MARKS = 4000
"""Beyond it a picture of dots is smaller than their coordinates."""


def embedding_maps(
    images: "BrowseTable", maps: dict[str, np.ndarray], chosen: Sequence[int]
) -> ReportFigure:
    """A map for each phase: dots are gallery images, triangles queries. The chosen classes, or all
    of them where they are few, have colours of their own; else classes are told apart by whether a
    model was trained without them."""
    import matplotlib as mpl

    from dml_bench.browse.plotly_traces import distinct

    coloured = list(chosen) or [
        label for label in sorted(images.class_names) if len(images.class_names) <= MOST_COLOURS
    ]
    groups = [
        (images.class_names[label], images.labels == label, c)
        for label, c in zip(coloured, distinct(len(coloured)), strict=True)
    ]
    if not coloured:
        groups = [("seen classes", ~images.unseen, BLUE), ("unseen classes", images.unseen, ORANGE)]
    others = ~np.any([rows for _, rows, _ in groups], axis=0)
    with mpl.rc_context(STYLE | text_style()):
        columns = min(2, len(maps))
        figure, grid = canvas(
            0.9 + 4.1 * -(-len(maps) // columns), columns, -(-len(maps) // columns)
        )
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (phase, points) in zip(grid.flat, maps.items(), strict=False):
            draw_map(axes, images, points, [("", others, INK), *groups])
            axes.set_title(map_title(images, phase), fontsize=8)
        keys = [
            key_line(name, colour, marker="o", linestyle="", markersize=4)
            for name, rows, colour in groups
            if rows.any()
        ]
        shapes = [
            key_line(part, INK, marker=m, linestyle="", markersize=4)
            for part, m in (("gallery image", "."), ("query", "^"))
        ]
        figure.legend(
            handles=[*shapes, *keys],
            loc="outside lower left",
            ncols=3 if coloured else 4,
            fontsize=7,
        )
        caption = (
            "UMAP; each map is turned to lie like the first. Alike: mean cosine similarity of a"
            " class's images."
        )
        return saved(figure, "map", f"Embeddings of {images.run.experiment.name}", caption)


def draw_map(
    axes: Axes,
    images: "BrowseTable",
    points: np.ndarray,
    groups: Sequence[tuple[str, np.ndarray, str]],
) -> None:
    """(name, rows, colour) groups of images; one without a name is drawn as ground for the
    others."""
    area = float(np.clip(6000 / len(points), 2, 16))
    there, many = np.isfinite(points).all(1), len(points) > MOST_MARKS
    for is_asked in (False, True):
        how: Any = (
            {"marker": "^", "s": 1.8 * area, "edgecolors": INK, "linewidths": 0.3}
            if is_asked
            else {"marker": "o", "s": area}
        )
        for name, rows, colour in groups:
            of = points[there & rows & (images.asked == is_asked)]
            ground = {"alpha": 0.12, "edgecolors": "none"} if not name else {}
            axes.scatter(
                *of.T,
                color=colour,
                **({"alpha": 0.85, "linewidths": 0, "rasterized": many} | how | ground),
            )
    axes.set_aspect("equal", "datalim")


def map_title(images: "BrowseTable", phase: str) -> str:
    """What the model knew, and how near test images stay to their class's gallery images, which
    training has pulled together."""
    from dml_bench.browse.html_map import phase_words

    among, between = images.closeness(phase)
    unseen = np.isin(sorted(images.class_names), images.labels[images.unseen])
    lines = [literal(phase_words(images, phase))]
    for name, classes in (("seen", ~unseen), ("unseen", unseen)):
        if np.isfinite(among[classes]).any() and np.isfinite(between[classes]).any():
            within, to = np.nanmean(among[classes]), np.nanmean(between[classes])
            lines.append(
                f"{name} classes: gallery images {within:.2f} alike, queries {to:.2f} like them"
            )
    return "\n".join(lines)


FIGURES: tuple[Callable[[Study, dict[str, Diagnostics]], ReportFigure | None], ...] = (
    effect_dots,
    drop_bars,
    holdout_dots,
    accuracy_curves,
    loss_curves,
    class_bars,
    enrolment,
    open_set,
    votes,
    reliability,
    cost_scatter,
)
