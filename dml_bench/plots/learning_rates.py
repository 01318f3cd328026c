"""The losses of a sweep over learning rates."""

from typing import TYPE_CHECKING

import numpy as np

from dml_bench.plots.canvas import ReportFigure, canvas, plain_number, saved, style
from dml_bench.plots.colours import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from dml_bench.training.lr_finder import RateSweep

__all__ = ["learning_rates"]


def learning_rates(sweep: "RateSweep") -> ReportFigure:
    """The losses of a sweep over learning rates, and the two rates that it suggests."""
    from dml_bench.training.lr_finder import smoothed

    with style():
        figure, [[axes]] = canvas(4.0)
        rates, losses = sweep.rates[: sweep.finite], sweep.losses[: sweep.finite]
        curve = smoothed(losses)
        axes.plot(rates, losses, color=BLUE, linewidth=0.8, alpha=0.45, label="loss of each batch")
        axes.plot(rates, curve, color=BLUE, label="smoothed")
        for step, colour, name in (
            (sweep.steepest, GREEN, "falls fastest"),
            (sweep.lowest, ORANGE, "lowest"),
        ):
            if step is not None:
                axes.plot(
                    rates[step], curve[step], "o", color=colour, label=f"{name}: {rates[step]:.2g}"
                )
        if sweep.lowest is not None:
            axes.axvline(
                rates[sweep.lowest] / 10,
                color=ORANGE,
                linestyle=":",
                label=f"a tenth of that: {rates[sweep.lowest] / 10:.2g}",
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
        return saved(figure, "learning-rates", f"Learning rates of {sweep.experiment}", caption)
