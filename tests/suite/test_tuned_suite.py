"""A table whose rows are tuned: which searches it waits for, and that its page says which
differences survive."""

import csv
from pathlib import Path

import pytest
from forked import fork_workers
from tiny import RECIPE_SETTINGS, dml_bench, places

from dml_bench.config.tables import read_table
from dml_bench.suite.plan import resolved_rows
from dml_bench.suite.tuned import missing_searches, trains, unshared

ROWS = ("ProxyAnchor_resnet50x512_disjoint", "MultiSimilarity_resnet50x512_disjoint")


@pytest.mark.parametrize("table", ["field", "study", "techniques", "losses", "finetuned"])
def test_each_row_waits_for_a_search_that_can_hold_for_it(table):
    trained = {row.name: row for row in resolved_rows(read_table(table), "", [], []) if trains(row)}
    searches = missing_searches([*trained.values()], [Path("nowhere")], "", [])
    waiting = [name for search in searches for name in search.rows]
    assert sorted(waiting) == sorted(trained)
    for search in searches:
        for name in search.rows:
            assert unshared(search.experiments[0], trained[name].seeds[0]) == []


def test_each_recipe_of_the_field_has_a_search_of_its_own():
    rows = resolved_rows(read_table("field"), "", [], [])
    searches = missing_searches(rows, [Path("nowhere")], "", [])
    assert [search.rows for search in searches] == [(row.name,) for row in rows]
    assert {search.space.trials for search in searches} == {8}


@pytest.mark.slow
def test_the_field_is_tuned_and_says_which_differences_survive(
    birds, cache_dir, tmp_path, monkeypatch, capsys
):
    fork_workers(monkeypatch)
    settings = [part for setting in RECIPE_SETTINGS for part in ("--set", setting)]
    where = places(birds, cache_dir, tmp_path / "runs")
    suite = ["suite", "--table", "field", "--tuned", *settings, *where, "--jobs", 1]
    for row in ROWS:
        suite += ["--only", row]
    page = tmp_path / "page"
    suite += ["--report", page, "--results", tmp_path]
    assert dml_bench(monkeypatch, *suite) == 2
    first, second, in_all, error = capsys.readouterr().err.splitlines()
    assert f": dml-bench tune {ROWS[0]} --set " in first and "8 trials, at most as long" in first
    assert f": dml-bench tune {ROWS[1]} --set " in second
    assert in_all == "all searches that --tuned waits for: at most as long as 16.0 trainings"
    assert f"error: {ROWS[0]} has no search" in error and "(1 of 2 that are missing)" in error
    for row in ROWS:
        assert dml_bench(monkeypatch, "tune", row, *settings, *where[:-2], "--trials", 2) == 0
    assert dml_bench(monkeypatch, *suite) == 0
    assert "Which differences in R@1 survive tuning" in capsys.readouterr().out
    with (page / "survival.csv").open(encoding="utf-8", newline="") as file:
        [difference] = csv.DictReader(file)
    assert [difference[key] for key in ("experiment", "versus")] == [ROWS[1], ROWS[0]]
    assert difference["metric"] == "recall_at_1" and difference["tuned_difference"]
    assert difference["verdict"] == "not detectable either way", "on 32 queries"
    columns = "| experiment | does it survive tuning? | beside |"
    assert columns in (page / "expectations.md").read_text(encoding="utf-8")
