"""compare: paired, exploratory, and without verdicts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from handmade import experiment, finish
from rich.console import Console
from steps import Steps
from tiny import dml_bench

import dml_bench as db
from dml_bench.analysis.compare import compare, q_values, read_sides
from dml_bench.config import Data, Train
from dml_bench.config.experiments import resolve
from dml_bench.report.tables import OWN_RULE
from dml_bench.runs.pairing import Side
from dml_bench.system.terminal import show_comparison

RIGHT, WRONG = [1] * 8, [0] * 8


def classes(*right: int) -> list[list[int]]:
    """8 queries for each class, of which the first `right` are answered right."""
    return [[1] * count + [0] * (8 - count) for count in right]


def side(
    tmp_path,
    name: str,
    all_classes: list[list[int]],
    limited: list[list[int]] | None = None,
    seeds=(42,),
    split: str = "",
) -> Side:
    by_phase = {"all": all_classes, "limited": limited or all_classes}
    return Side(
        name,
        tuple(
            finish(tmp_path, experiment(name, seed=seed), by_phase, split=split) for seed in seeds
        ),
    )


SEEDS = (42, 43, 44)


def test_q_is_the_smallest_share_of_false_discoveries_with_which_a_difference_is_one():
    """Benjamini and Hochberg 1995: p times the number of tests over its rank, never falling."""
    assert q_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert q_values([0.6, 0.7]) == pytest.approx([0.7, 0.7])


def test_what_is_undefined_does_not_count_as_a_test():
    q = q_values([0.02, np.nan, 0.01])
    assert [q[0], q[2]] == pytest.approx([0.02, 0.02])
    assert np.isnan(q[1])
    assert q_values([]) == []


def test_a_side_that_is_right_more_often_in_every_class_has_an_interval_without_zero(tmp_path):
    strong = side(tmp_path, "strong", classes(8, 7, 8, 7, 8, 7, 8, 7, 8, 8), seeds=SEEDS)
    weak = side(tmp_path, "weak", classes(2, 1, 3, 2, 1, 2, 3, 2, 1, 2), seeds=SEEDS)
    (comparison,) = compare([weak, strong])
    at = {row.metric: row for row in comparison.overall}["precision_at_1_macro"]
    assert at.difference.estimate == pytest.approx((19 - 76) / 80)
    assert at.difference.high < 0
    assert at.q < 0.001
    assert 0 < at.smallest_detectable < abs(at.difference.estimate)


def test_of_a_drop_the_smaller_is_better(tmp_path):
    full = classes(*[8] * 10)
    robust = side(tmp_path, "robust", full, classes(8, 8, 8, 8, 8, 7, 8, 8, 7, 8))
    fragile = side(tmp_path, "fragile", full, classes(2, 1, 3, 2, 1, 2, 3, 2, 1, 2))
    (comparison,) = compare([robust, fragile])
    drop = next(row for row in comparison.overall if row.metric == "precision_drop_seen_classes")
    assert drop.difference.high < 0
    assert drop.lower_is_better


def test_under_three_seeds_an_interval_is_about_these_networks_and_there_is_no_q(tmp_path, capsys):
    sides = [
        side(tmp_path, name, classes(*counts), seeds=SEEDS)
        for name, counts in (("a", (8, 7, 8, 8)), ("b", (7, 5, 8, 6)))
    ]
    two = [Side(some.name, some.runs[:2]) for some in sides]
    [comparison] = compare(two)
    assert comparison.these_networks_only
    assert all(np.isnan(row.q) for row in comparison.overall)
    show_comparison(Console(width=120), comparison)
    shown = capsys.readouterr().out
    assert "these networks only" in shown
    assert "smallest detectable" not in shown
    show_comparison(Console(width=120), compare(sides)[0])
    shown = capsys.readouterr().out
    assert "these networks only" not in shown
    assert "smallest detectable" in shown
    assert "more classes" in shown


def test_no_comparison_has_a_verdict(tmp_path, capsys):
    first = side(tmp_path, "first", classes(8, 2, 7, 3, 6, 4), seeds=SEEDS)
    second = side(tmp_path, "second", classes(8, 8, 8, 7, 8, 6), seeds=SEEDS)
    show_comparison(Console(width=120), compare([first, second])[0])
    shown = capsys.readouterr().out.lower()
    assert not [word for word in ("better", "worse", "significant") if word in shown]


def test_equal_runs_are_said_to_be_equal_and_their_comparison_is_valid_json(
    tmp_path, monkeypatch, capsys
):
    right = classes(8, 7, 3, 7, 8, 7, 8, 7, 8, 8)
    first, second = side(tmp_path, "one", right), side(tmp_path, "other", right)
    (comparison,) = compare([first, second])
    assert comparison.equal
    show_comparison(Console(width=120), comparison)
    assert "the two are equal on every query" in capsys.readouterr().out
    assert (
        dml_bench(monkeypatch, "compare", first.runs[0].folder, second.runs[0].folder, "--json")
        == 0
    )
    [report] = json.loads(
        capsys.readouterr().out,
        parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"),
    )
    assert report["equal"] is True
    assert report["overall"][0]["q"] is None


def test_runs_that_differ_on_one_query_are_not_equal(tmp_path, capsys):
    first, second = (
        side(tmp_path, "one", classes(8, 7, 3)),
        side(tmp_path, "other", classes(8, 7, 4)),
    )
    (comparison,) = compare([first, second])
    assert not comparison.equal
    show_comparison(Console(width=120), comparison)
    assert "equal on every query" not in capsys.readouterr().out


def test_a_class_is_described_by_its_difference_with_each_seed(tmp_path):
    first = Side(
        "first",
        (
            *side(tmp_path, "first", [RIGHT, RIGHT, classes(4)[0]], seeds=(42,)).runs,
            *side(tmp_path, "first", [RIGHT, RIGHT, classes(6)[0]], seeds=(43,)).runs,
        ),
    )
    second = side(tmp_path, "second", [WRONG, RIGHT, classes(5)[0]], seeds=(42, 43))
    (comparison,) = compare([first, second])
    gains, same, mixed = comparison.classes
    assert comparison.seeds == (42, 43)
    assert (gains.name, gains.by_seed, gains.difference) == ("class 0", (1.0, 1.0), 1.0)
    assert (same.name, mixed.name) == ("class 1", "class 2"), "equal gains are in order of name"
    assert mixed.by_seed == pytest.approx((-1 / 8, 1 / 8))
    assert (mixed.first, mixed.second) == pytest.approx((5 / 8, 5 / 8))


def test_only_seeds_that_both_have_are_compared(tmp_path):
    first = side(tmp_path, "first", classes(8, 4, 2), seeds=(42, 43))
    second = side(tmp_path, "second", classes(4, 4, 2), seeds=(43, 44))
    assert compare([first, second])[0].seeds == (43,)
    third = side(tmp_path, "third", classes(4, 4, 2), seeds=(45,))
    with pytest.raises(
        ValueError, match="first and third can't be compared: they have no seed in common"
    ):
        compare([first, third])


def test_three_sides_are_three_pairs_with_q_values_over_all(tmp_path):
    sides = [
        side(tmp_path, name, classes(*counts), seeds=SEEDS)
        for name, counts in (("a", (8, 7, 8, 8)), ("b", (7, 6, 8, 6)), ("c", (1, 2, 1, 3)))
    ]
    comparisons = compare(sides)
    assert [(pair.first, pair.second) for pair in comparisons] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    rows = [row for pair in comparisons for row in pair.overall]
    together = q_values([row.difference.p for row in rows])
    assert [row.q for row in rows] == pytest.approx(together, nan_ok=True)


def test_other_queries_of_the_same_seed_are_refused(tmp_path):
    first = side(tmp_path, "first", classes(8, 4, 2))
    second = side(tmp_path, "second", classes(8, 4, 2), split="another")
    with pytest.raises(ValueError, match="the same seed divided their images differently"):
        compare([first, second])


def test_runs_of_two_kinds_of_split_are_refused_with_both_names(tmp_path):
    first = side(tmp_path, "first", classes(8, 4, 2))
    grouped = side(tmp_path, "second", classes(8, 4, 2))
    data = Data(split="grouped", group="session")
    runs = [replace(run, experiment=replace(run.experiment, data=data)) for run in grouped.runs]
    with pytest.raises(ValueError, match="splits are stratified and grouped by session, which ask"):
        compare([first, Side("second", tuple(runs))])


def test_a_folder_is_read_with_all_of_its_seeds_and_several_experiments_are_refused(tmp_path):
    side(tmp_path, "first", classes(8, 4, 2), seeds=(42, 43))
    side(tmp_path, "second", classes(8, 4, 2))
    (read,) = read_sides([tmp_path / "first"])
    assert (read.name, [run.seed for run in read.runs]) == ("first", [42, 43])
    with pytest.raises(
        ValueError,
        match=(
            r"holds runs of several experiments or data sets \(first, second\): name the folder"
            r" of one"
        ),
    ):
        read_sides([tmp_path])
    with pytest.raises(ValueError, match="nowhere does not exist: name a run folder"):
        read_sides([tmp_path / "nowhere"])
    same = read_sides(
        [tmp_path / "first" / "cub" / "seed-42", tmp_path / "first" / "cub" / "seed-43"]
    )
    assert same[0].name != same[1].name, "the same experiment twice is named by its paths"
    steps = Steps()
    overall = db.compare(tmp_path / "first", tmp_path / "second", callback=steps)[0].overall
    assert steps.last == {"reading runs": (3, 3), "differences": (len(overall), len(overall))}


def test_drops_of_other_hold_outs_are_not_compared_even_where_the_same_classes_are_ever_unseen(
    tmp_path,
):
    """One holds out classes 2 and 3, then 4 and 5; the other 2 and 4, then 3 and 5."""
    right = {
        "all": classes(8, 8, 8, 8, 8, 8),
        "limited-1": classes(8, 8, 4, 4, 8, 8),
        "limited-2": classes(8, 8, 8, 8, 4, 4),
    }
    sides = [
        Side(
            name,
            (
                finish(
                    tmp_path,
                    experiment(name),
                    right,
                    unseen=4,
                    holdouts={"limited-1": first, "limited-2": second},
                ),
            ),
        )
        for name, first, second in (
            ("one", [2, 3], [4, 5]),
            ("other", [2, 4], [3, 5]),
            ("same", [2, 3], [4, 5]),
        )
    ]
    assert [row.metric for row in compare(sides[:2])[0].overall] == ["precision_at_1_macro"]
    drops = {"precision_drop_unseen_classes", "precision_drop_seen_classes"}
    drops |= {"cost_of_being_unseen"}
    drops |= {"precision_at_1_macro_seen_limited", "precision_at_1_macro_unseen_limited"}
    assert {row.metric for row in compare(sides[::2])[0].overall} == {
        "precision_at_1_macro"
    } | drops


def test_other_images_are_refused_and_told_apart_by_their_fingerprints(tmp_path):
    first, second = (
        side(tmp_path, "first", classes(8, 4, 2)),
        side(tmp_path, "second", classes(8, 4, 2)),
    )
    second.runs[0].summary["dataset"]["fingerprint"] = "e" * 64
    with pytest.raises(
        ValueError,
        match=(
            "they ran on other images, cub with fingerprint dddddd and cub with fingerprint eeeeee"
        ),
    ):
        compare([first, second])


def test_two_runs_with_one_seed_in_a_folder_are_refused(tmp_path):
    for folder in ("plain", "rotated"):
        side(tmp_path / folder, "first", classes(8, 4, 2))
    with pytest.raises(
        ValueError, match="holds several runs of first with seed 42: name the folder of one"
    ):
        read_sides([tmp_path])


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"train": Train(epochs=3)}, "train.epochs"), ({"unseen": "last:2"}, "unseen")],
)
def test_seeds_with_other_settings_in_a_folder_are_refused(tmp_path, changes, key):
    """A report leaves them out; their mean was compared in silence."""
    right = classes(8, 4, 2)
    answers = {"all": right, "limited": right}
    finish(tmp_path, experiment("first", seed=42), answers)
    finish(tmp_path, experiment("first", seed=43, **changes), answers)
    with pytest.raises(ValueError, match=rf"runs of first with other settings \({key}\): name"):
        read_sides([tmp_path])


def test_a_side_whose_loss_pairs_mixed_images_says_by_whose_rule_they_count(tmp_path):
    mixing = resolve("EPSHN_cosine_resnet18_sgd_aug+mixup").mixing
    for name, changed in (("plain", {}), ("mixed", {"mixing": mixing})):
        answers = classes(8, 6, 4, 6, 8, 2)
        phases = {"all": answers, "limited": answers}
        finish(tmp_path, replace(experiment(name), **changed), phases)
    heard: list[str] = []
    callback = db.Callback()
    callback.note = heard.append
    db.compare(tmp_path / "plain", tmp_path / "mixed", callback=callback)
    assert heard == [f"mixed: {OWN_RULE}"]
