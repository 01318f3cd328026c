"""A table over several data sets: which are here, what is left to do and what that costs, and a
page over all of them."""

import shutil
from pathlib import Path

import pytest
from forked import fork_workers
from tiny import SETTINGS, dml_bench, refusal

import dml_bench as db
from dml_bench.board.over_data_sets import aggregates_of_table
from dml_bench.config.experiments import EXPERIMENTS
from dml_bench.config.tables import read_table
from dml_bench.runs.record import record_path, write_record
from dml_bench.runs.record_format import read_description, write_description
from dml_bench.runs.run import read_folder
from dml_bench.suite.cost import (
    MeasuredRun,
    core_seconds,
    estimate,
    measured_runs,
    rows_alike,
    search_lines,
)
from dml_bench.suite.over_data_sets import SuitesOverData, cost_lines, planned_rows
from dml_bench.suite.plan import in_order
from dml_bench.suite.tuned import missing_searches

RESULTS = Path(__file__).parents[2] / "results"


def test_data_sets_that_are_not_here_are_left_out_with_the_reason(tmp_path, cache_dir):
    (tmp_path / "Ebay_train.txt").touch()
    planned = db.plan_suites("reality", data_dir=tmp_path, cache_dir=cache_dir)
    assert list(planned.suites) == ["demo"]
    assert list(planned.absent) == [
        *("grocery", "omniglot", "cars196_train", "flowers102_part"),
        *("cub", "cars196", "sop", "inshop"),
    ]
    assert all(str(tmp_path) in reason for reason in planned.absent.values())
    advice = "dml-bench data fetch cub --data-dir DIR downloads it"
    assert advice in planned.absent["cub"], "not that another data set is there"


def test_each_data_set_has_eight_losses_with_five_seeds_and_rows_that_train_nothing(cache_dir):
    table = read_table("reality")
    assert len(table.seeds) == 5
    for entry in table.data:
        rows = entry.rows.rows
        trained = [row for row in rows if not row.startswith(("frozen_", "linearprobe_"))]
        assert (len(trained), len(rows) > 8) == (8, True), entry.dataset
    [drawn] = db.plan_suites("reality", cache_dir=cache_dir).suites.values()
    assert {len(row.seeds) for row in drawn.rows} == {5}


def test_records_of_the_repository_are_those_of_the_table():
    """What was recorded by earlier code counts: its settings are the same."""
    for entry in read_table("reality").data[:1]:
        [row, *_] = db.plan_suite(
            ["crossentropy_head"],
            overrides=[*entry.overrides(), "model.backbone.name=efficientnet_lite0"],
        ).rows
        path = record_path(RESULTS, row.seeds[0], entry.dataset)
        assert path.parents[1].name == "given-random-20-x-4"
        assert path.parents[1].is_dir()


def test_the_cost_of_a_run_is_that_of_other_seeds_else_of_other_rows_else_by_image():
    measured = [
        MeasuredRun("A", "here", 100, 10.0),
        MeasuredRun("A", "here", 100, 20.0),
        MeasuredRun("B", "here", 100, 60.0),
        MeasuredRun("C", "elsewhere", 50, 5.0),
    ]
    assert estimate("A", "here", 100, {"A", "B"}, measured) == 15
    assert estimate("new", "here", 100, {"A", "B", "new"}, measured) == 30
    assert estimate("C", "there", 200, {"C"}, measured) == 20
    assert estimate("D", "there", 200, {"D"}, measured) is None


def test_a_run_beside_other_work_costs_its_cpu_time():
    """On Omniglot two records said 33 core-hours of what takes six: they waited for the cores."""
    cost = {"total_seconds": 2717.0, "train_seconds": 2601.0}
    description = {"session": {"threads": 1, "processes": 1}, "cost": cost}
    assert core_seconds(description) == 2717
    description["cost"] = cost | {"train_cpu_seconds": 416.0}
    assert core_seconds(description) == 416 + 116


@pytest.mark.parametrize(
    ("settings", "trainings"),
    [(("protocol=class_disjoint", "data.split=half", "unseen="), 1), ((), 2)],
)
def test_a_run_is_of_as_many_trainings_as_it_has_phases(trained, tmp_path, settings, trainings):
    """Retrieval among other classes has one, which was taken for two: half of its cost was said."""
    run = trained("train.epochs=1", *settings)
    path = write_record(tmp_path, read_folder(run.folder))
    [measured] = measured_runs(tmp_path)
    assert measured.seconds == core_seconds(read_description(path)) / trainings


def test_a_record_that_can_t_be_read_stops_no_suite(tmp_path):
    """It may be of any row of any table, and only the cost that is said beforehand asks for it."""
    folder = RESULTS / "demo/stratified-last-10/EPSHN_cosine_resnet18"
    for seed in (42, 43, 44):
        shutil.copy(folder / f"seed-{seed}.json", tmp_path)
    damaged, earlier = tmp_path / "seed-42.json", tmp_path / "seed-43.json"
    damaged.write_text(damaged.read_text().replace("1600", "1601"))
    description = read_description(earlier)
    answers = description.pop("answers_sha256")
    del description["record_version"], description["cost"]
    write_description(earlier, description, answers)
    [measured] = measured_runs(tmp_path)
    assert measured.seconds == core_seconds(read_description(tmp_path / "seed-44.json")) / 2


def test_what_a_gpu_took_is_no_core_hour():
    assert measured_runs(RESULTS / "grocery_144px") == []


def test_a_row_that_trains_is_not_estimated_by_rows_that_train_nothing(cache_dir):
    """They take seconds, and the mean with them was a quarter too low on Omniglot."""
    [drawn] = db.plan_suites("reality", cache_dir=cache_dir).suites.values()
    untrained = {"frozen_resnet18", "linearprobe_resnet18"}
    names = {row.name for row in drawn.rows}
    for row in drawn.rows:
        alike = untrained if row.name in untrained else names - untrained
        assert rows_alike(row.seeds[0], drawn.rows) == alike


def test_a_sum_without_the_data_sets_that_are_left_out_says_so(tmp_path):
    absent = {"cub": "it needs --data-dir"}
    planned = SuitesOverData(
        name="reality",
        title="",
        suites={},
        absent=absent,
        searches={},
        results=tmp_path,
        report=tmp_path,
        tuned=False,
        command=(),
    )
    assert cost_lines({}, absent, planned)[-1].startswith("in all, of what is there, about 0.0")
    assert cost_lines({}, {}, planned)[-1].startswith("in all about 0.0")


def test_a_search_that_is_missing_is_named_with_its_command_and_cost(cache_dir, tmp_path):
    planned = db.plan_suites("reality", cache_dir=cache_dir, out=tmp_path, results=tmp_path)
    [search] = planned.searches["demo"]
    name = "EPSHN_cosine_resnet18_sgd_aug"
    assert name in search.rows and len(search.rows) == 8, "one for all whole networks"
    epochs = search.experiments[0].train.epochs
    hours = 5 * 8 * round(epochs / 3) / epochs  # five splits, and eight trials of some epochs
    cost = f"at most as long as {hours:.1f} trainings"
    [line, total] = search_lines([search], [MeasuredRun(name, "demo", 1920, 3600.0)])
    assert line == (
        f"to tune demo: 5 searches of 8 trials, {cost}, about {hours:.1f} core-hours: dml-bench"
        f" tune {name} --demo --set 'unseen=random:10:1 x 2' --seeds 42,43,44,45,46 --out"
        f" {tmp_path}"
    )
    assert total == f"all searches that --tuned waits for: {cost}, about {hours:.1f} core-hours"
    [line, _] = search_lines([search], [])
    assert f" trials, {cost}: dml-bench tune" in line, "no record says what one takes"


def test_each_head_of_photographs_has_a_search_of_its_own_and_a_given_split_needs_one(tmp_path):
    entry = read_table("reality").data[0]
    _, trained = planned_rows(entry, [42, 43], tuned=True)
    overrides = entry.overrides(tuned=True)
    missing = missing_searches(trained, [tmp_path], "", overrides, Path("photos"))
    assert [search.rows for search in missing] == [(row.name,) for row in trained]
    ending = "--set model.backbone.name=efficientnet_lite0 --seeds 42 --data-dir photos --out"
    assert all(ending in search.command for search in missing)


def test_of_a_tuned_suite_the_rows_that_train_nothing_wait_for_no_search(tmp_path):
    names = ["frozen_efficientnet_lite0", "crossentropy_head"]
    with pytest.raises(ValueError, match="^crossentropy_head has no search with these settings"):
        db.plan_suite(names, seeds=[42], tuned=True, out=tmp_path)
    [row] = db.plan_suite(names[:1], seeds=[42], tuned=True, out=tmp_path).rows
    assert row.name == names[0]


def test_options_for_one_data_set_are_refused(monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "suite", "--table", "reality", "--demo", "--only", "Arc*")
    assert "brings its own data sets, rows and settings: leave out --only and --demo" in line


def test_a_row_with_fewer_seeds_than_others_has_fewer_runs():
    rows = [
        *db.plan_suite(["frozen_mobilenet_v2"], seeds=[42]).rows,
        *db.plan_suite(["crossentropy_head"], seeds=[42, 43]).rows,
    ]
    assert [job.key for job in in_order(rows)] == [
        ("frozen_mobilenet_v2", 42),
        ("crossentropy_head", 42),
        ("crossentropy_head", 43),
    ]


TINY = """
title = "Two tiny data sets"
seeds = [42, 43, 44]

[[data]]
dataset = "cub"
tables = ["pair"]
holdouts = "last:2"
tuned_holdouts = "last:2"

[[data]]
dataset = "demo"
tables = ["pair"]
settings = ["data.dataset.classes=6", "data.dataset.per_class=8", "data.dataset.size=40"]
holdouts = "last:2"
tuned_holdouts = "last:2"
"""


@pytest.mark.slow
def test_a_table_over_two_data_sets_is_run_recorded_and_compared(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    shutil.copytree(EXPERIMENTS / "tables", tmp_path / "tables")
    (tmp_path / "tables" / "tiny.toml").write_text(TINY)
    rows = ["EPSHN_cosine_resnet18_sgd_aug", "crossentropy_resnet18_sgd_aug"]
    swept = ""
    for setting in SETTINGS:
        key, _, value = setting.partition("=")
        if key != "unseen":
            swept += f'"{key}" = [{number(value)}]\n'
    pair = f'title = "Pair"\nrows = []\n[sweep]\nrows = {rows}\n{swept}'
    (tmp_path / "tables" / "pair.toml").write_text(pair)
    monkeypatch.setattr("dml_bench.config.tables.EXPERIMENTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    fork_workers(monkeypatch)
    typed = ("suite", "--table", "tiny", "--data-dir", birds, "--cache-dir", cache_dir)
    typed += ("--device", "cpu", "--wandb", "disabled")
    assert dml_bench(monkeypatch, *typed, "--jobs", "2") == 0
    printed = capsys.readouterr().out
    assert "cub: 0 of 6 runs recorded or finished" in printed
    assert "12 runs of unknown cost" in printed
    aggregates, studies = aggregates_of_table("tiny", tmp_path / "results")
    assert list(studies) == ["cub", "demo"]
    assert {len(aggregate.data_sets) for aggregate in aggregates} == {2}
    page = (tmp_path / "runs" / "suite" / "tiny" / "report.md").read_text(encoding="utf-8")
    assert "Two tiny data sets (cub, demo)" in page
    assert dml_bench(monkeypatch, *typed, "--print-jobs") == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "demo: 6 of 6 runs recorded or finished" in err


def number(value: str) -> str:
    """A value of TOML."""
    return value if value.replace(".", "").isdecimal() else f'"{value}"'
