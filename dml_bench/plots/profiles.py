"""Performance profiles of methods over data sets."""

from collections.abc import Mapping

import numpy as np

from dml_bench.plots.canvas import ReportFigure, canvas, saved, style
from dml_bench.plots.colours import distinct

__all__ = ["performance_profiles"]


def performance_profiles(
    name: str,
    thresholds: np.ndarray,
    profiles: Mapping[str, np.ndarray],
    label: str,
    *,
    lower_is_better: bool = False,
) -> ReportFigure:
    """(thresholds) the share of runs above each, by method; `label` is what the scores are."""
    least, most = np.min(list(profiles.values()), axis=0), np.max(list(profiles.values()), axis=0)
    first = max(int(np.argmax(least < 1)) - 1, 0)
    last = min(int(np.flatnonzero(most > 0)[-1]) + 1, len(thresholds) - 1)
    with style():
        figure, [[axes]] = canvas(4.0)
        for colour, (method, profile) in zip(
            distinct(len(profiles)), profiles.items(), strict=True
        ):
            axes.plot(100 * thresholds, 100 * profile, color=colour, label=method)
        axes.set_xlim(100 * thresholds[first], 100 * thresholds[last])
        axes.set_ylim(0, 101)
        axes.set(xlabel=label, ylabel="runs above it, percent")
        figure.legend(loc="outside upper left", ncols=5)
        side = "left" if lower_is_better else "right"
        caption = f"The share of runs that score above each value; farther {side} is better."
        return saved(figure, name, "Performance profiles", caption)
