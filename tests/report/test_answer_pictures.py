"""The pictures beside the answers show what the sentences say, on axes that can be read."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from handmade import COST, experiment, finish
from test_page import overlapping, text_box
from test_report import made, made_rival, only_study, queries, uniform

from dml_bench.evaluation.statistics import Interval
from dml_bench.plots import answers
from dml_bench.plots.answers import (
    accuracy_dots,
    tick_counts,
    training_scatter,
    unseen_cost_dots,
)
from dml_bench.plots.canvas import RESOLUTION, canvas, log_ticks, style, untrained_place
from dml_bench.plots.label_places import write_labels


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """Each figure that is drawn with its caption, instead of its files."""
    figures: list[tuple[Any, str]] = []

    def keep(figure: Any, name: str, title: str, caption: str) -> None:
        figures.append((figure, caption))

    monkeypatch.setattr(answers, "saved", keep)
    return figures


def tick_texts(axes: Any) -> list[str]:
    low, high = axes.get_xlim()
    ticks = axes.xaxis.get_major_ticks()
    return [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e-5, 100), (0.02, 12), (1, 900), (0.5, 3000), (4.63, 4.96), (2, 3), (9, 44), (26.44, 26.59)],
)
@pytest.mark.parametrize("is_untrained", [False, True])
def test_the_labels_of_an_axis_of_times_can_be_read_wherever_it_lies(low, high, is_untrained):
    with style():
        figure, [[axes]] = canvas(3.2, width=5.2)
        axes.plot([low, high], [0.5, 0.6], "o")
        axes.margins(x=0.25)
        log_ticks(axes)
        if is_untrained:
            assert untrained_place(axes) < low
        figure.draw_without_rendering()
    assert overlapping(figure) == []
    assert len(tick_texts(axes)) >= 3
    assert ("no\ntraining" in tick_texts(axes)) == is_untrained


def test_a_name_has_the_width_for_which_room_was_found_at_any_resolution():
    with style():
        widths = [width_at(resolution) for resolution in (72, 100, 220)]
        with mpl.rc_context({"text.hinting": "default"}):
            in_png = width_at(RESOLUTION)
    assert widths == pytest.approx([widths[0]] * 3, rel=0.01)
    assert in_png <= widths[0]


def width_at(resolution: int) -> float:
    """Of a name, in inches."""
    figure, [[axes]] = canvas(3.2, width=5.2)
    figure.set_dpi(resolution)
    label = axes.text(0.1, 0.5, "SubCenterArcFace", fontsize=7.5)
    return float(label.get_window_extent().width / resolution)


def test_each_of_nearly_equal_points_has_its_name_and_no_line_to_one_crosses_another():
    """Two of the ten methods on flowers had none."""
    seconds = np.array([7.9, 4.4, 31, 8.6, 7.4, 9.1, 9.15, 5.9, 7.95])
    precision = np.array([94.7, 92.7, 94, 93.8, 93.5, 93.4, 92.1, 92.0, 93.1])
    names = [f"SubCenterArcFace {place}" for place in range(len(seconds))]
    with style():
        figure, [[axes]] = canvas(3.2, width=5.2)
        axes.plot(seconds, precision, "o")
        axes.set(xlim=(2, 50), ylim=(82, 97), xscale="log")
        write_labels(axes, seconds, precision, np.full((2, 9), 1.5), names, range(9))
        figure.draw_without_rendering()
    assert [label.get_text() for label in axes.texts] == names
    assert overlapping(figure) == []
    boxes = list(map(text_box, axes.texts))
    for label, own in zip(axes.texts, boxes, strict=True):
        if label.arrow_patch is not None:
            path = label.arrow_patch.get_path().transformed(label.arrow_patch.get_transform())
            line = path.interpolated(50).vertices
            assert all(box is own or not box.count_contains(line) for box in boxes)


def study_of_four(tmp_path: Path) -> Any:
    """A row that is right more often without the unseen classes, a classifier whose logits are
    better than its features, and a row that trains nothing."""
    seen = queries(*[4] * 20)
    made(tmp_path, "higher", uniform(3), uniform(1))
    finish(tmp_path, experiment("lower"), {"all": uniform(2), "limited": seen + uniform(1, 10)})
    made_rival(tmp_path, uniform(1), uniform(1), uniform(2))
    untrained = {"train_seconds": 0.01, "embed_images_per_second": 400.0}
    plain = {"all": uniform(1), "limited": uniform(1)}
    finish(tmp_path, experiment("untrained"), plain, cost=untrained)
    return only_study(tmp_path)


def test_the_picture_of_accuracies_shows_and_sorts_by_the_numbers_of_the_sentence(tmp_path, drawn):
    study = study_of_four(tmp_path)
    accuracy_dots(study)
    [(figure, caption)] = drawn
    [axes] = figure.axes
    points = axes.lines[0].get_xdata()
    names = [label.get_text() for label in axes.get_yticklabels()]
    shown = list(zip(names, np.round(points, 1).tolist(), strict=True))
    assert shown == [("higher", 87.5), ("lower", 62.5), ("rival", 62.5), ("untrained", 37.5)]
    assert "Sorted by P@1 of the model trained on all classes." in caption
    assert "There a classifier answers by its logits" in caption


def test_what_trains_nothing_stands_at_the_left_end_and_stretches_no_axis(tmp_path, drawn):
    study = study_of_four(tmp_path)
    training_scatter(study)
    [(figure, caption)] = drawn
    [axes] = figure.axes
    times = {float(x) for line in axes.lines for x in line.get_xdata() if len(line.get_xdata()) > 1}
    assert "no\ntraining" in tick_texts(axes)
    assert axes.get_xlim()[0] > 50, "the axis holds 100 seconds of CPU time"
    assert {100.0} <= times
    assert "CPU time on a processor" in caption


def test_a_row_without_a_cpu_time_is_named_and_not_drawn_by_the_clock(tmp_path, drawn):
    study_of_four(tmp_path)
    old = {key: value for key, value in COST.items() if key != "train_cpu_seconds"}
    finish(tmp_path, experiment("old"), {"all": uniform(3), "limited": uniform(1)}, cost=old)
    training_scatter(only_study(tmp_path))
    [(_, caption)] = drawn
    assert caption.endswith("Not shown, as their CPU time is not known there: old.")


def test_an_axis_of_counts_has_a_tick_at_its_last_one():
    assert tick_counts([(0, 1, 2, 5, 8)]) == [0, 1, 2, 5, 8]
    assert tick_counts([(0, 1, 2, 5, 10, 20, 46), (0, 1, 2, 5, 10, 20, 50)]) == [
        *(0, 1, 2, 5, 10, 20, 50),
    ]


@pytest.mark.parametrize(("error", "is_cut"), [(0.01, False), (0.2, True)])
def test_an_interval_of_the_cost_that_is_cut_at_the_edge_is_said(drawn, error, is_cut):
    line = SimpleNamespace(short="a", name="a")
    study: Any = SimpleNamespace(
        slug="s",
        trained=[line],
        rivals=[],
        baseline=None,
        no_training=None,
        measure=lambda line, quantity: Interval.around(0.05, error, 2),
        answers_by_logits=lambda line: False,
    )
    with style():
        unseen_cost_dots(study)
    [(figure, caption)] = drawn
    assert ("reach the edge" in caption) == is_cut
    assert figure.axes[0].get_xlim()[1] <= 20
