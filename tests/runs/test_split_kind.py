"""The kind of split stands beside every number, as numbers of two kinds can't be compared."""

import csv
import json
from pathlib import Path

import pytest
from handmade import experiment, finish
from rich.console import Console
from tiny import train

import dml_bench as db
from dml_bench.analysis.table import grouped
from dml_bench.config import Data, Experiment, as_table
from dml_bench.config.tables import PlannedRow
from dml_bench.gallery.model_card import describe_data
from dml_bench.report.compose import report
from dml_bench.runs.mirror import Mirror, MirroredRun
from dml_bench.runs.run import Run
from dml_bench.suite import page
from dml_bench.suite.page import SuiteReport
from dml_bench.suite.run import Suite, SuiteSession

GROUPED = Data(split="grouped", group="shop")
ANSWERS = {"all": [[1, 1, 0]] * 6, "limited": [[1, 0, 0]] * 6}


class Seen(Mirror):
    """What W&B would get."""

    def start(self, run: MirroredRun) -> Mirror:
        self.config = as_table(run.experiment)
        return self

    def tables(self, tables):
        self.columns = {name: table.columns for name, table in tables.items()}

    def summary(self, values):
        self.values = values


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def run(birds, cache_dir, tmp_path_factory, seen) -> Run:
    """A run whose groups are the last digits of file names, over all classes."""
    out = tmp_path_factory.mktemp("grouped")
    settings = ("data.split=grouped", "data.group=regex:[0-9][.]jpg", "train.epochs=1")
    return db.load_run(train(birds, cache_dir, out, *settings, mirror=seen.start).folder)


KIND = "grouped by regex:[0-9][.]jpg"


def test_the_summary_says_it(run):
    assert json.loads((run.folder / "summary.json").read_text())["split"]["kind"] == KIND


def test_the_list_of_images_has_the_group_of_each(run):
    groups = {"train": set(), "test": set()}
    for image in run.split:
        assert image.path.endswith(f"{image.group}")
        groups[image.part].add(image.group)
    assert groups["train"] and groups["test"] and not groups["train"] & groups["test"]


def test_each_table_of_the_run_says_it(run):
    names = sorted(path.name for path in run.folder.glob("*metrics.csv"))
    assert len(names) == 4
    names += sorted(path.name for path in run.folder.glob("*report.csv"))
    for name in names:
        with open(run.folder / name, newline="", encoding="utf-8") as file:
            assert {row["split"] for row in csv.DictReader(file)} == {KIND}, name


def test_wandb_has_it_in_configuration_summary_and_tables(run, seen):
    assert (seen.config["data"]["split"], seen.config["data"]["group"]) == (
        "grouped",
        "regex:[0-9][.]jpg",
    )
    assert seen.values["split"] == KIND
    assert all(columns[-1] == "split" for columns in seen.columns.values())


def test_the_tables_in_the_terminal_say_it(run):
    first = run.protocol.outcome({**run.summary, **run.metrics})[0]
    assert first.title.endswith(f"on cub, seed 42, split {KIND}")


def test_load_runs_has_a_column_for_it(run):
    assert db.load_runs(run.folder)["split"].tolist() == [KIND]


def test_compare_says_it_in_the_terminal_and_in_json(run):
    comparisons = db.compare(run, run)
    assert f"split {KIND}, seed 42" in str(comparisons)
    assert json.loads(comparisons.as_json())[0]["split"] == KIND


def test_the_card_of_an_exported_network_says_it(run):
    assert f"are queries (split {KIND})." in describe_data(run, "all")


def test_a_report_says_it_on_its_page_and_in_each_table_of_numbers(tmp_path):
    for name in ("a", "b"):
        finish(tmp_path / "runs", experiment(name, data=GROUPED), ANSWERS)
    report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    assert "grouped by shop: " in (tmp_path / "out" / "report.md").read_text()
    tables = list((tmp_path / "out").glob("*.csv"))
    assert "table.csv" in {path.name for path in tables}
    for path in tables:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                assert row["split"] == "grouped by shop", path.name


# Suites


def planned(*experiments: Experiment) -> list[PlannedRow]:
    return [PlannedRow(one, (one,)) for one in experiments]


def test_a_suite_has_one_table_for_each_kind_and_one_line_says_so(tmp_path, capsys):
    random, by_shop = experiment("a"), experiment("b", data=GROUPED)
    rows = planned(random, by_shop)
    runs = {(e.name, e.seed): finish(tmp_path, e, ANSWERS) for e in (random, by_shop)}
    groups = grouped(rows, runs, {})
    assert [line.name for group in groups for line in group.lines] == ["a", "b"]
    assert [group.title_with_split for group in groups] == [
        "precision drop on cub, split stratified",
        "precision drop on cub, split grouped by shop",
    ]
    assert len({group.slug for group in groups}) == 2
    shown = SuiteReport(
        title="own",
        command=("dml-bench", "suite"),
        groups=groups,
        decisions=session_of(tmp_path, rows, runs).decisions(groups),
        runs=(),
        made_with=(),
    )
    page.show(Console(width=200), shown)
    out = capsys.readouterr().out
    assert "own: precision drop on cub, split stratified" in out
    assert "own: precision drop on cub, split grouped by shop" in out
    page.write(tmp_path / "page", shown)
    for slug, kind in (("", "stratified"), ("-grouped-by-shop", "grouped by shop")):
        path = tmp_path / "page" / f"table-precision_drop-cub{slug}.csv"
        with open(path, newline="", encoding="utf-8") as file:
            assert [row["split"] for row in csv.DictReader(file)] == [kind]


def test_a_suite_of_other_rows_leaves_no_table_of_the_earlier_ones(tmp_path):
    both = (experiment("a"), experiment("b", data=GROUPED))
    runs = {(e.name, e.seed): finish(tmp_path, e, ANSWERS) for e in both}
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "table-of-mine.csv").write_text("file,label\na.jpg,gull\n")
    (folder / "family.csv").write_text("experiment,versus\nb,a\n")
    for rows in (planned(*both), planned(both[0])):
        groups = grouped(rows, runs, {})
        decisions = session_of(tmp_path, rows, runs).decisions(groups)
        shown = SuiteReport(
            title="own",
            command=("dml-bench", "suite"),
            groups=groups,
            decisions=decisions,
            runs=(),
            made_with=(),
        )
        page.write(folder, shown)
    assert sorted(path.name for path in folder.glob("*.csv")) == [
        "expectations.csv",
        "runs.csv",
        "table-of-mine.csv",
        "table.csv",
    ]


def session_of(out: Path, rows: list[PlannedRow], runs: dict[tuple[str, int], Run]) -> SuiteSession:
    suite = Suite(
        name="own",
        title="own",
        rows=tuple(rows),
        profile="",
        overrides=(),
        data_dir=None,
        out=out,
        cache_dir=out,
        report=out / "page",
        wandb="disabled",
        command=("dml-bench", "suite"),
    )
    session = SuiteSession(suite, [], {})
    session.runs = runs
    return session
