"""What each change does to seen and to unseen classes."""

from collections.abc import Mapping
from typing import Any

from dml_bench.analysis.ablation import Ablation
from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.plots.canvas import INK, ReportFigure, canvas, finish_rows, key_line, percents, saved
from dml_bench.plots.colours import BLUE, ORANGE

__all__ = ["change_dots"]


def change_dots(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """Differences from the experiment that is extended, the best for unseen classes on top."""
    if not study.changes:
        return None
    changes = sorted(study.changes, key=lambda change: -change.unseen.difference.estimate)
    figure, [[axes]] = canvas(1.2 + 0.38 * len(changes))
    groups = (
        ("known classes", BLUE, -0.17, [change.seen for change in changes]),
        ("classes never trained on", ORANGE, 0.17, [change.unseen for change in changes]),
    )
    for _, colour, shift, parts in groups:
        for row, part in enumerate(parts):
            face = colour if part.q < 0.05 else "none"
            how: Any = {
                "fmt": "o",
                "markersize": 4,
                "color": colour,
                "markerfacecolor": face,
                "elinewidth": 1,
            }
            estimate, lengths = percents([part.difference])
            axes.errorbar(estimate, [row + shift], xerr=lengths, **how)
    finish_rows(
        axes,
        [change_name(change, study.names) for change in changes],
        "P@1 with the change minus P@1 without, points",
    )
    axes.axvline(0, color=INK, linewidth=0.8)
    largest = 100 * max(abs(part.difference.estimate) for *_, parts in groups for part in parts)
    low, high = axes.get_xlim()
    limit = max(20.0, 1.6 * largest)
    axes.set_xlim(max(low, -limit), min(high, limit))
    keys = [key_line(name, colour, marker="o", linewidth=1) for name, colour, *_ in groups]
    figure.legend(handles=keys, loc="outside upper left", ncols=2)
    caption = (
        "P@1 of the model trained without the unseen classes, mean over classes and seeds. Lines"
        " are intervals and may go on beyond the edge. Filled dots: q is below 5%."
        " All of it is exploratory."
    )
    return saved(
        figure,
        f"changes-{study.slug}",
        "What each change does to known and to unseen classes",
        caption,
    )


def change_name(change: Ablation, names: Mapping[str, str]) -> str:
    """Two lines, as short names of both would be too long for one."""
    without = names[change.to[0]] if len(change.to) == 1 else f"mean of {len(change.to)}"
    return f"{change.name_in_short(names)}\nbeside {without}"
