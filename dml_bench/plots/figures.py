"""All figures of a study, in the order in which a report shows them."""

from collections.abc import Callable

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.plots.ablation import change_dots
from dml_bench.plots.canvas import ReportFigure, style
from dml_bench.plots.curves import accuracy_curves, loss_curves
from dml_bench.plots.diagnostics import coverage_precision, enrolment, open_set, reliability, votes
from dml_bench.plots.drop import class_bars, drop_bars, holdout_dots

__all__ = ["FIGURES", "draw"]


def draw(study: Study, diagnostics: dict[str, Diagnostics]) -> list[ReportFigure]:
    """All figures for which there are numbers; what there are none for is added to
    `study.missing`."""
    with style():
        drawn = [figure_of(study, diagnostics) for figure_of in FIGURES]
    return [figure for figure in drawn if figure is not None]


FIGURES: tuple[Callable[[Study, dict[str, Diagnostics]], ReportFigure | None], ...] = (
    change_dots,
    drop_bars,
    holdout_dots,
    accuracy_curves,
    loss_curves,
    class_bars,
    enrolment,
    open_set,
    coverage_precision,
    votes,
    reliability,
)
