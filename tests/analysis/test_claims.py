"""Verdicts on claims, from numbers and runs made by hand; and that whatever can be measured of a
real run is what its summary says."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from handmade import experiment, finish, photographed

from dml_bench.analysis.claims import NO_ROOM, ClaimResult, RunsOf, describe_claim
from dml_bench.analysis.decisions import DecidedRow, decide
from dml_bench.config import Expectation, Experiment, Train
from dml_bench.config.experiments import names, resolve
from dml_bench.protocols.metric import value_at
from dml_bench.registry import UnknownName
from dml_bench.report.decisions import RULE
from dml_bench.runs.metrics import measure, metrics_of
from dml_bench.runs.run import Run, find_run, read_folder
from dml_bench.system.files import read_json_lines

MIXED = [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1]]
WRONG = [[0, 0, 0, 0]] * 6
RIGHT = [[1, 1, 1, 1]] * 6


SEEDS = (42, 43, 44)


def value(claimed: float, metric: str = "test_accuracy", note: str = "") -> Expectation:
    return Expectation(metric=metric, source="a paper", value=claimed, note=note)


def change(claimed: float, metric: str = "test_accuracy", versus: str = "other") -> Expectation:
    return Expectation(metric=metric, source="a paper", change=claimed, versus=versus)


def only_claim(
    written: Experiment, runs: Sequence[Run], runs_of: RunsOf = lambda name: ()
) -> ClaimResult:
    """The only claim of an experiment, with its verdict."""
    [claim] = decide([DecidedRow(written, runs)], runs_of).claims
    return claim


def judged(
    out: Path,
    claim: Expectation,
    *,
    others: dict[int, list[list[int]]] | None = None,
    split: str = "",
    **run: object,
) -> ClaimResult:
    """The verdict on a claim of the experiment `mine`, run with three seeds, and of `other`'s runs
    by seed."""
    written = experiment("mine", expects=(claim,))
    mine = [
        finish(out, experiment("mine", seed=seed, **run), {"all": MIXED, "limited": WRONG})
        for seed in SEEDS
    ]
    versus = [
        finish(out, experiment("other", seed=seed), {"all": right, "limited": WRONG}, split=split)
        for seed, right in (others or {}).items()
    ]
    return only_claim(written, mine, {"other": versus}.__getitem__)


def test_a_value_is_tested_on_the_data_and_the_settings_it_was_claimed_for(tmp_path):
    claim = judged(tmp_path, value(0.66))
    assert (claim.verdict, claim.reason, claim.seeds) == ("undecided", "", 3)
    assert claim.measured and claim.measured.estimate == pytest.approx(16 / 24)
    assert claim.smallest_detectable > 0.02
    assert judged(tmp_path / "far", value(0.99)).verdict == "contradicted"


def test_a_value_is_not_tested_under_a_profile(tmp_path):
    claim = judged(tmp_path, value(0.66), profile="demo")
    assert (claim.verdict, claim.reason) == ("not tested", "other data")
    assert claim.measured and claim.measured.estimate == pytest.approx(16 / 24), (
        "what was measured is told all the same"
    )


def test_a_value_is_not_tested_under_another_protocol_or_other_settings(tmp_path):
    claim = judged(tmp_path, value(0.66, note="200 classes, boxes cut out"))
    assert (claim.verdict, claim.reason) == (
        "not tested",
        "other protocol (200 classes, boxes cut out)",
    )
    claim = judged(tmp_path / "settings", value(0.66), train=Train(epochs=3))
    assert (claim.verdict, claim.reason) == ("not tested", "other settings (train.epochs)")


def test_what_is_said_of_an_experiment_is_no_setting(tmp_path):
    assert judged(tmp_path, value(0.66), summary="told anew, after it was run").reason == ""


def test_a_bound_is_tested_where_a_value_is(tmp_path):
    below = Expectation(metric="test_accuracy", source="a paper", below=0.2)
    assert judged(tmp_path, below).verdict == "contradicted"
    assert judged(tmp_path / "demo", below, profile="demo").reason == "other data"


def test_a_change_is_tested_query_by_query_on_the_same_seeds(tmp_path):
    others = {43: RIGHT, 44: RIGHT, 42: RIGHT, 45: MIXED}
    claim = judged(tmp_path, change(-0.2), others=others)
    assert claim.verdict == "same direction, size undecided"
    assert claim.measured and claim.measured.estimate == pytest.approx(16 / 24 - 1), (
        "seed 45 is not in both"
    )
    much = judged(tmp_path / "much", change(-0.9), others=others)
    assert much.verdict == "same direction, smaller"


def test_under_three_seeds_in_common_there_is_no_verdict(tmp_path):
    claim = judged(tmp_path, change(-0.2), others={43: RIGHT, 44: RIGHT})
    assert (claim.verdict, claim.reason) == (
        "not tested",
        "fewer than 3 seeds: these networks only",
    )
    assert claim.measured and claim.measured.estimate == pytest.approx(16 / 24 - 1)


def test_a_gain_over_a_model_that_is_always_right_is_not_testable(tmp_path):
    others = dict.fromkeys(SEEDS, RIGHT)
    claim = judged(tmp_path, change(0.2), others=others)
    assert (claim.verdict, claim.reason) == (
        "not testable",
        "P@1 is near chance or near 1: no room to show it",
    )
    assert judged(tmp_path / "loss", change(-0.1), others=others).verdict != "not testable"


def test_a_drop_beside_a_model_that_is_always_right_is_not_testable(tmp_path):
    claim = change(-0.2, "precision_drop_seen_classes")
    assert judged(tmp_path, claim, others=dict.fromkeys(SEEDS, RIGHT)).verdict == "not testable"


@pytest.mark.parametrize("size", [{"below": 0.2}, {"value": 0.0}])
def test_a_model_that_is_always_right_says_nothing_of_the_size_of_a_drop(tmp_path, size):
    """A drop below 20 points was reproduced, beside the reason why it can't be."""
    claim = Expectation(metric="precision_drop_seen_classes", source="a paper", **size)
    answers = {"all": RIGHT, "limited": MIXED}
    runs = [finish(tmp_path, experiment("mine", seed=seed), answers) for seed in SEEDS]
    result = only_claim(experiment("mine", expects=(claim,)), runs)
    assert (result.verdict, result.reason) == ("not testable", NO_ROOM)


def test_the_cost_of_being_unseen_stands_beside_each_claim(tmp_path):
    """Always wrong without the unseen classes: a class's drop is the P@1 that it had."""
    others = dict.fromkeys(SEEDS, [[1, 0, 0, 0]] * 6)
    compared = judged(tmp_path, change(0.3), others=others)
    unseen, seen = (2 + 3) / 8, (3 + 2 + 2 + 4) / 16
    assert compared.cost and compared.cost.estimate == pytest.approx(unseen - seen)
    alone = judged(tmp_path / "alone", value(0.66))
    assert alone.cost and alone.cost.estimate == pytest.approx(unseen - seen)


def test_the_change_of_a_drop_compares_the_drops(tmp_path):
    claim = change(-0.2, "precision_drop_seen_classes")
    judgement = judged(tmp_path, claim, others=dict.fromkeys(SEEDS, RIGHT))
    assert judgement.measured and judgement.measured.estimate == pytest.approx(11 / 16 - 1)


@pytest.mark.parametrize(
    ("others", "split", "reason"),
    [
        ({}, "", "other has no finished run"),
        ({45: MIXED}, "", "mine and other can't be compared: they have no seed in common"),
        (
            {42: MIXED},
            "elsewhere",
            "mine and other can't be compared: the same seed divided their images differently",
        ),
        ({42: MIXED}, "", "no interval: a single class, or queries that are all alike"),
    ],
)
def test_a_change_that_can_t_be_tested_says_why(tmp_path, others, split, reason):
    claim = judged(tmp_path, change(0.1), others=others, split=split)
    assert (claim.verdict, claim.reason) == ("not tested", reason)


def test_the_page_says_which_tolerance_a_claim_has_that_names_none():
    """It said 2 points, beside a claim of 3 with "(tolerance 1.5)"."""
    assert [change(size).margin for size in (0.03, -0.02, 0.155, 0)] == [0.015, 0.01, 0.02, 0.02]
    assert "2 points, or half of the size of a change where that is less" in RULE[0]


def test_an_order_is_tested_beside_those_that_have_runs(tmp_path):
    highest = Expectation(metric="test_accuracy", source="a paper", above=("low", "lower", "none"))
    mostly_right = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], RIGHT[0]]
    runs = {}
    for name, right in (("mine", mostly_right), ("low", MIXED), ("lower", WRONG)):
        answers = {"all": right, "limited": WRONG}
        runs[name] = [finish(tmp_path, experiment(name, seed=seed), answers) for seed in SEEDS]
    written = experiment("mine", expects=(highest,))
    claim = only_claim(written, runs["mine"], lambda name: runs.get(name, ()))
    assert (claim.verdict, len(claim.differences)) == ("reproduced", 2)
    assert claim.measured and claim.measured.estimate == pytest.approx(22 / 24 - 16 / 24), (
        "it is read from the closest"
    )
    turned = Expectation(metric="test_accuracy", source="a paper", above=("mine",))
    claim = only_claim(
        experiment("low", expects=(turned,)), runs["low"], lambda name: runs.get(name, ())
    )
    assert claim.verdict == "contradicted"


def test_experiments_that_held_out_other_classes_are_not_compared_on_them(tmp_path):
    claim = change(0.1, "precision_drop_unseen_classes")
    right = {"all": MIXED, "limited": WRONG}
    mine, theirs = (
        finish(tmp_path, experiment("mine"), right),
        finish(tmp_path, experiment("other"), right, unseen=3),
    )
    judgement = only_claim(experiment("mine", expects=(claim,)), [mine], lambda name: [theirs])
    assert (judgement.verdict, judgement.reason.partition(":")[0]) == (
        "not tested",
        "the two were evaluated on different queries",
    )


def test_of_several_hold_outs_each_class_counts_where_it_was_held_out(tmp_path):
    right = {
        "all": RIGHT,
        "limited-1": [[0] * 4] * 2 + MIXED[2:],
        "limited-2": [*MIXED[:3], [0] * 4, [1] * 4, [1] * 4],
    }
    run = finish(
        tmp_path, experiment("mine"), right, holdouts={"limited-1": [0, 1], "limited-2": [3]}
    )
    estimates = {
        group: measure([run], f"precision_drop_{group}_classes").estimate
        for group in ("unseen", "seen", "all")
    }
    first, second = [1, 1, 0.5, 0, 0.5, 0.25], [0.25, 0.5, 0.5, 1, 0, 0]
    seen = [
        second[0],
        second[1],
        (first[2] + second[2]) / 2,
        first[3],
        (first[4] + second[4]) / 2,
        (first[5] + second[5]) / 2,
    ]
    assert estimates["unseen"] == pytest.approx((first[0] + first[1] + second[3]) / 3)
    assert estimates["seen"] == pytest.approx(sum(seen) / 6)
    assert estimates["all"] == pytest.approx(sum(first + second) / 12)
    assert measure([run], "precision_at_1_macro_limited").estimate == pytest.approx(
        1 - sum(first + second) / 12
    )
    assert value_at(run.summary, "phases.limited*.precision_at_1_macro") == pytest.approx(
        1 - sum(first + second) / 12
    )


def test_an_experiment_without_runs_is_not_tested():
    claim = only_claim(experiment("mine", expects=(value(0.5),)), [])
    assert (claim.verdict, claim.reason) == ("not tested", "mine has no finished run")


def test_a_metric_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(
        UnknownName,
        match=(
            r"no metric 'test_acuracy' \(did you mean test_accuracy\?\);"
            " there are: cost_of_being_unseen, "
        ),
    ):
        describe_claim(experiment(), value(0.5, "test_acuracy"))
    with pytest.raises(UnknownName, match="no metric 'logits_accuracy'"):
        describe_claim(experiment(), value(0.5, "logits_accuracy"))


def test_a_claim_reads_as_a_sentence():
    assert (
        describe_claim(experiment(), value(0.677))
        == "P@1 on all classes (mean over images) is 67.7%"
    )
    drop = "precision_drop_unseen_classes"
    assert (
        describe_claim(experiment(), change(-0.07, drop))
        == "precision drop of the unseen classes is 7.0 points below that of other"
    )
    assert (
        describe_claim(experiment(), change(0.0, drop))
        == "precision drop of the unseen classes is that of other"
    )


@pytest.mark.parametrize("name", names())
def test_whatever_a_shipped_experiment_expects_can_be_tested(name):
    written = resolve(name)
    for expectation in written.expects:
        assert describe_claim(written, expectation)
        for other in (expectation.versus, *expectation.above):
            assert other == "" or expectation.metric in metrics_of(resolve(other)), (
                f"{other} has no {expectation.metric}"
            )


def test_a_run_of_another_configuration_or_an_unfinished_one_is_none(tmp_path):
    run = finish(tmp_path, experiment("mine"), {"all": MIXED, "limited": WRONG})
    existing = find_run(tmp_path, experiment("mine"), photographed())
    assert existing and (existing.folder, existing.seed, existing.summary["protocol"]) == (
        run.folder,
        42,
        "precision_drop",
    )
    assert find_run(tmp_path, experiment("mine", summary="said otherwise"), photographed())
    assert find_run(tmp_path, experiment("mine", unseen="last:3"), photographed()) is None
    assert find_run(tmp_path, experiment("mine", seed=43), photographed()) is None
    (run.folder / "summary.json").unlink()
    assert find_run(tmp_path, experiment("mine"), photographed()) is None


@pytest.fixture(scope="module")
def drops(trained) -> Run:
    settings = ("train.epochs=1", "loss=crossentropy", "miner=none")
    return read_folder(trained(*settings).folder)


def test_what_is_measured_per_query_averages_to_what_a_real_run_says(drops: Run):
    summary = json.loads((drops.folder / "summary.json").read_text())
    phases = summary["phases"]
    assert {
        name: measure([drops], name).estimate for name in metrics_of(drops.experiment)
    } == pytest.approx(
        {
            "test_accuracy": phases["all"]["precision_at_1_micro"],
            "precision_at_1_macro": phases["all"]["precision_at_1_macro"],
            "precision_at_1_macro_limited": phases["limited"]["precision_at_1_macro"],
            "precision_at_1_macro_unseen": phases["all"]["precision_at_1_macro_unseen"],
            "precision_at_1_macro_seen_limited": phases["limited"]["precision_at_1_macro_seen"],
            "precision_at_1_macro_unseen_limited": phases["limited"]["precision_at_1_macro_unseen"],
            "precision_drop_unseen_classes": summary["precision_drop_unseen_classes"],
            "precision_drop_seen_classes": summary["precision_drop_seen_classes"],
            "precision_drop_all_classes": summary["precision_drop_all_classes"],
            "cost_of_being_unseen": summary["cost_of_being_unseen"],
            "precision_drop_seen_to_unseen_classes": summary[
                "precision_drop_seen_to_unseen_classes"
            ],
            "precision_drop_seen_to_seen_classes": summary["precision_drop_seen_to_seen_classes"],
            "logits_accuracy": phases["all"]["logits_accuracy_micro_known"],
        }
    )


def test_the_last_recorded_test_accuracy_is_the_measured_one(drops: Run):
    records = read_json_lines(drops.folder / "metrics.jsonl")
    (last,) = [record for record in records if record["phase"] == "all"]
    assert measure([drops], "test_accuracy").estimate == pytest.approx(last["test_accuracy"])


def test_retrieval_is_measured_per_query_too(trained):
    settings = (
        "train.epochs=1",
        "protocol=class_disjoint",
        "data.split=half",
        "data.valid_fraction=0.0",
    )
    run = read_folder(trained(*settings).folder)
    retrieval = run.summary["retrieval"]
    wanted = (
        "recall_at_1",
        "recall_at_2",
        "recall_at_4",
        "recall_at_8",
        "r_precision",
        "map_at_r",
        "precision_at_1_macro",
    )
    measured = {name: measure([run], name).estimate for name in metrics_of(run.experiment)}
    assert measured == pytest.approx({name: retrieval[name] for name in wanted})
