"""Accuracy against the time that training took."""

from dml_bench.analysis.diagnostics import Diagnostics
from dml_bench.analysis.study import Study
from dml_bench.plots.canvas import ReportFigure, as_error, canvas, log_ticks, saved
from dml_bench.plots.colours import BLUE, GREEN
from dml_bench.runs.metrics import COST
from dml_bench.system.lettering import shortened

__all__ = ["cost_scatter"]


def cost_scatter(study: Study, diagnostics: dict[str, Diagnostics]) -> ReportFigure | None:
    """P@1 against training seconds, a numbered dot for each experiment."""
    lines = study.finished
    figure, [[axes, legend]] = canvas(max(3.6, 0.8 + 0.2 * len(lines)), 2, width_ratios=(3, 2))
    times = [line.cost[0] for line in lines]
    assert COST[0].key == "train_seconds"
    if not all(times):
        study.missing.append("accuracy against cost: training seconds were not recorded")
        return None
    values = [study.measure(line, "known") for line in lines]
    for number, (line, seconds, value) in enumerate(
        zip(lines, times, values, strict=True), start=1
    ):
        assert value is not None and seconds is not None
        colour = GREEN if line in study.rivals else BLUE
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
            str(number),
            (seconds, value.estimate),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
        )
        legend.text(
            0,
            1 - (number - 0.5) / len(lines),
            f"{number}  {shortened(line.name)}",
            fontsize=8,
            color=colour,
            va="center",
        )
    legend.set(xlim=(0, 1), ylim=(0, 1))
    legend.set_axis_off()
    log_ticks(axes)
    axes.set(xlabel="seconds of training, all phases (log scale)", ylabel="P@1, mean over classes")
    caption = (
        "95% intervals; green: softmax classifiers, by their features. Times are of runs that may"
        " have shared a machine."
    )
    return saved(figure, f"{study.slug}-cost", "Accuracy against cost", caption)
