"""Ranges of ranks come of differences query by query, decided together, and hold the true ranks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from dml_bench.board.cost_picture import (
    CostPicture,
    Dot,
    Tick,
    apart,
    cost_picture,
    even_times,
    nice_range,
)
from dml_bench.board.ranking import Scored, holm_level, rank
from dml_bench.evaluation.statistics import Interval, Scores

CLASSES, QUERIES = 12, 10
LABELS = np.repeat(np.arange(CLASSES), QUERIES)


def answered(level: float, seed: int, *, classes: np.ndarray | None = None) -> Scores:
    """Right answers at this rate, the same queries hard for everyone."""
    hard = np.random.default_rng(7).random(len(LABELS))
    noise = np.random.default_rng((seed, round(1000 * level))).normal(0, 0.08, len(LABELS))
    shift = 0 if classes is None else classes[LABELS]
    return Scores((hard + noise < level + shift).astype(float), LABELS)


def row(level: float, seeds: int = 3, **options: object) -> Scored:
    return Scored({(seed, "queries"): answered(level, seed) for seed in range(seeds)}, **options)


def test_a_row_that_is_surely_better_than_all_others_is_first():
    ranking = rank({"best": row(0.9), "middle": row(0.6), "equal": row(0.605), "last": row(0.3)})
    assert ranking.ranges == {"best": (1, 1), "middle": (2, 3), "equal": (2, 3), "last": (4, 4)}
    assert ranking.not_comparable == {}


def test_where_lower_is_better_the_order_is_turned():
    rows = {"high": row(0.9), "low": row(0.3)}
    assert rank(rows, lower_is_better=True).ranges == {"high": (2, 2), "low": (1, 1)}


def test_rows_with_the_same_answers_share_their_ranks():
    assert rank({"one": row(0.5), "twin": row(0.5)}).ranges == {"one": (1, 2), "twin": (1, 2)}


def test_under_three_seeds_there_is_no_rank():
    ranking = rank({"one": row(0.9), "another": row(0.3), "few": row(0.6, seeds=2)})
    assert ranking.not_comparable == {"few": "2 of 3 seeds"}
    assert set(ranking.ranges) == {"one", "another"}


def test_rows_that_answered_other_queries_have_no_rank():
    other = Scored({(seed, "other queries"): answered(0.6, seed) for seed in range(3)})
    ranking = rank({"one": row(0.9), "another": row(0.3), "other": other})
    assert ranking.not_comparable == {"other": "shares queries with other rows on under 3 seeds"}


def test_a_row_that_lacks_the_metric_says_why():
    ranking = rank({"one": row(0.9), "frozen": Scored({}, lacking="no training")})
    assert ranking.not_comparable == {"frozen": "no training"}


def test_two_rows_without_training_are_compared_by_one_seed():
    fixed = {name: row(level, 1, is_fixed=True) for name, level in (("a", 0.9), ("b", 0.3))}
    assert rank(fixed).ranges == {"a": (1, 1), "b": (2, 2)}


def test_of_rows_without_training_every_split_counts_and_the_same_answers_once():
    """Where the seed draws the split, a pair was decided by that of the first seed alone."""
    rows, means = {}, {}
    for name, levels in {"a": (0.9, 0.5, 0.5), "b": (0.5, 0.5, 0.5)}.items():
        by_key = {(seed, f"split {seed}"): answered(p, seed) for seed, p in enumerate(levels)}
        rows[name] = Scored(by_key, is_fixed=True)
        means[name] = np.mean([scores.values.mean() for scores in by_key.values()])
    [contrast] = rank(rows).contrasts
    assert contrast.difference.estimate == pytest.approx(means["a"] - means["b"])
    assert rank(rows).ranges == {"a": (1, 2), "b": (1, 2)}, "one split of three says little"
    again = {name: row(level, 1, is_fixed=True) for name, level in (("a", 0.9), ("b", 0.3))}
    for scored in again.values():
        scored.by_key[1, "queries"] = scored.by_key[0, "queries"]
    [contrast] = rank(again).contrasts
    assert contrast.seeds == 1


def test_the_interval_of_a_pair_leaves_out_zero_exactly_where_one_is_surely_better():
    rows = {str(level): row(level) for level in (0.4, 0.45, 0.5, 0.52, 0.6, 0.8)}
    ranking = rank(rows)
    signs = {contrast.sign for contrast in ranking.contrasts}
    assert signs == {-1, 0}
    for contrast in ranking.contrasts:
        p = contrast.difference.p
        assert (contrast.sign != 0) == (p <= (1 - ranking.level) * (1 + 1e-9))
    turned = ranking.of("0.8")
    assert [contrast.first for contrast in turned] == ["0.8"] * 5
    assert all(contrast.difference.estimate > 0 for contrast in turned)


@pytest.mark.parametrize("seed", range(6))
def test_holm_decides_as_its_definition_says(seed):
    p_values = np.random.default_rng(seed).beta(0.2, 2, 12)
    rejected = set()
    for place, index in enumerate(np.argsort(p_values)):
        if p_values[index] > 0.05 / (len(p_values) - place):
            break
        rejected.add(int(index))
    error = 1 - holm_level([*p_values, math.nan])
    assert {n for n, p in enumerate(p_values) if p <= error * (1 + 1e-9)} == rejected


def test_the_true_ranks_lie_in_their_ranges():
    """Classes differ from method to method, and seeds from each other, as in real tables."""
    true = {"a": 0.5, "b": 0.5, "c": 0.56, "d": 0.62}
    ranks = {"a": (3, 4), "b": (3, 4), "c": (2, 2), "d": (1, 1)}
    covered = 0
    for draw in range(80):
        rng = np.random.default_rng(draw)
        rows = {}
        for name, level in true.items():
            classes = rng.normal(0, 0.1, CLASSES)
            by_key = {}
            for seed in range(3):
                shifted = level + rng.normal(0, 0.02)
                right = rng.random(len(LABELS)) < shifted + classes[LABELS]
                by_key[seed, "queries"] = Scores(right.astype(float), LABELS)
            rows[name] = Scored(by_key)
        ranges = rank(rows).ranges
        inside = [ranges[name][0] <= ranks[name][1] for name in true]
        inside += [ranks[name][0] <= ranges[name][1] for name in true]
        covered += all(inside)
    assert covered >= 0.9 * 80


def test_axes_have_a_few_round_ticks():
    assert nice_range(0.503, 0.664) == pytest.approx((0.5, 0.7, 0.05))
    assert even_times(math.log10(500), math.log10(730)) == [540, 600, 660, 720]


@pytest.mark.parametrize(("value", "ends"), [(1.0, (0.995, 1.0)), (0.0, (0.0, 0.005))])
def test_an_axis_of_rows_that_all_have_the_same_value_has_a_length(value, ends):
    """Where no row makes an error, none has an interval, and the board divided by zero."""
    assert nice_range(value, value)[:2] == pytest.approx(ends)

    def row(cpu_seconds: float) -> SimpleNamespace:
        line = SimpleNamespace(short="row", untested="", cpu_seconds=cpu_seconds)
        return SimpleNamespace(line=line, values={"p": Interval.around(value, 0.0, 9)})

    metric = SimpleNamespace(lower_is_better=False)
    table = SimpleNamespace(rows=[row(900.0), row(90.0)], metric=lambda name: metric)
    picture = cost_picture(table, "p")
    assert picture is not None
    assert {dot.y for dot in picture.dots} == {100.0 if value else 0.0}


def test_a_picture_of_costs_has_the_rows_whose_cpu_times_can_be_compared():
    def row(name: str, cpu_seconds: float | None) -> SimpleNamespace:
        line = SimpleNamespace(short=name, untested="", cpu_seconds=cpu_seconds)
        return SimpleNamespace(line=line, values={"p": Interval.around(0.5, 0.05, 9)})

    table = SimpleNamespace(
        rows=[row("slow", 900.0), row("fast", 90.0), row("untrained", 0.01), row("old", None)],
        metric=lambda name: SimpleNamespace(lower_is_better=False),
    )
    picture = cost_picture(table, "p")
    assert picture is not None
    assert [dot.text for dot in picture.dots] == [
        *("slow: 50.0, 15:00", "fast: 50.0, 1:30", "untrained: 50.0, no training"),
    ]
    assert picture.absent == ("old",)
    table.rows = table.rows[-2:]
    assert cost_picture(table, "p") is None


def test_names_in_a_picture_leave_one_another_room():
    def dot(x: float, y: float, name: str) -> Dot:
        row = SimpleNamespace(line=SimpleNamespace(short=name))
        return Dot(row, x, y, y, y, True, name)

    dots = (dot(30, 50, "a long name"), dot(33, 53, "another"), dot(70, 55, "far away"))
    assert [one.text for one in CostPicture(dots, (), ()).labelled] == ["far away", "another"]
    ticks = [Tick(10, "10 s"), Tick(18, "30 s"), Tick(24, "1 min")]
    assert apart(ticks) == (ticks[0], ticks[2])
