"""Rows from which nothing can be concluded under their profile: they stand in the table, and in
nothing that is concluded from it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from handmade import BASELINE, finish

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.study import Study
from dml_bench.board.cost_picture import cost_picture
from dml_bench.board.page import Board, index_page
from dml_bench.board.tables import BoardTable, table_of
from dml_bench.config.experiments import resolve, why_untested
from dml_bench.report.compose import report

RESNET50, SIMCLR = "EPSHN_cosine_resnet50_sgd_aug", "EPSHN_cosine_simclr_resnet18_sgd_aug"
ARCFACE = "ArcFace_cosine_resnet18_sgd_aug"
ROWS = (BASELINE, RESNET50, "ProxyNCA_cosine_resnet18_sgd_aug", ARCFACE, SIMCLR)
RECORDS = Path(__file__).parents[2] / "results" / "demo" / "stratified-last-10"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Three seeds of each row, the untested ones the best by far."""
    folder = tmp_path_factory.mktemp("runs")
    chance = np.random.default_rng(0)
    for name in ROWS:
        share = 0.95 if name in (RESNET50, SIMCLR) else 0.5
        for seed in (42, 43, 44):
            run = resolve(name, profile="demo", overrides=[f"seed={seed}"])
            right = (chance.random((2, 6, 8)) < share).astype(int).tolist()
            finish(folder, run, dict(zip(("all", "limited"), right, strict=True)))
    return folder


@pytest.fixture(scope="module")
def study(runs) -> Study:
    [study] = studies_of(collect([runs]))
    return study


def lines_with(page: str, *parts: str) -> list[str]:
    lines = page.splitlines()
    for part in parts:
        lines = [line for line in lines if part in line]
    return lines


def test_whether_a_row_is_untested_is_asked_of_its_settings_under_the_profile():
    assert "ResNet-50 learns little" in why_untested(resolve(RESNET50, profile="demo"))
    assert why_untested(resolve(RESNET50)) == ""
    backbone = ["model.backbone.name=resnet50"]
    assert resolve(BASELINE, profile="demo").expects
    assert why_untested(resolve(BASELINE, profile="demo", overrides=backbone))
    assert resolve(BASELINE, profile="demo", overrides=backbone).expects == ()


def test_claims_that_a_profile_does_not_test_have_a_reason_and_neither_number_nor_verdict(study):
    own = [claim for claim in study.decisions.claims if claim.experiment in (RESNET50, SIMCLR)]
    assert len(own) == len(resolve(RESNET50).expects) + len(resolve(SIMCLR).expects)
    for claim in own:
        assert claim.reason.startswith("untested under profile demo: ")
        assert (claim.verdict, claim.measured, claim.is_decided) == ("not tested", None, False)


def test_no_other_claim_and_no_member_of_the_family_is_beside_an_untested_row(study):
    [highest] = [
        claim
        for claim in study.decisions.claims
        if claim.experiment == ARCFACE and claim.expectation.above
    ]
    assert RESNET50 in highest.expectation.above
    assert len(highest.differences) == 1, "of EPSHN"
    beside = {(contrast.experiment, contrast.versus) for contrast in study.decisions.contrasts}
    assert beside == {(name, BASELINE) for name in (ROWS[2], ARCFACE)}


@pytest.mark.usefixtures("blank_figures")
def test_the_page_names_untested_rows_under_the_table_and_says_nothing_else_of_them(runs, tmp_path):
    report([runs], tmp_path, ["dml-bench", "report"])
    pages = (tmp_path / "report.md").read_text(encoding="utf-8")
    [note] = lines_with(pages, "from which nothing can be concluded")
    assert note.startswith(
        "2 rows from which nothing can be concluded under the profile demo are left out of means,"
        " ranks and comparisons: EPSHN, resnet50 (ResNet-50 learns little"
    )
    assert "best of 3" in pages
    [mean] = lines_with(pages, "Mean of the 3 methods")
    assert re.search(r"any number of seeds a method's interval would keep \d\d% of its width", mean)
    for name in ("EPSHN, resnet50", "EPSHN, SimCLR first"):
        assert lines_with(pages, f"| {name} |", "untested under profile demo")
        for verdict in ("contradicted", "undecided", "same direction", "no detectable difference"):
            assert not lines_with(pages, f"| {name} |", verdict)
    assert "7 untested under profile demo" in pages
    assert "highest of 7 (2 tested)" in pages
    changes = pages.partition("What each change does")[2].partition("</details>")[0]
    assert "ProxyNCA" in changes and "resnet50" not in changes and "SimCLR" not in changes


def test_untested_rows_do_not_say_how_much_seeds_usually_differ(study):
    names = {runs[0].experiment.name for runs in study.group.priors.rows}
    assert names == set(ROWS) - {RESNET50, SIMCLR}


def test_where_the_profile_leaves_no_row_the_report_still_shows_what_there_is(tmp_path):
    run = resolve(RESNET50, profile="demo")
    finish(tmp_path, run, {"all": [[1, 0]] * 6, "limited": [[1, 0]] * 6})
    [study] = studies_of(collect([tmp_path]))
    assert [line.name for line in study.methods] == [RESNET50]
    assert study.group.untested


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> BoardTable:
    """Of records of the repository."""
    folder = tmp_path_factory.mktemp("results")
    for name in (*ROWS, "crossentropy_resnet18_sgd_aug"):
        shutil.copytree(RECORDS / name, folder / name)
    [study] = studies_of(collect([folder]))
    return table_of(study, {})


def test_the_board_ranks_no_untested_row(board):
    for metric, ranking in board.rankings.items():
        assert set(ranking.not_comparable) == {RESNET50, SIMCLR}
        assert set(ranking.not_comparable.values()) == {"untested under its profile"}
        assert max(worst for _, worst in ranking.ranges.values()) == 4
        picture = cost_picture(board, metric)
        assert picture is not None
        drawn = {dot.row.line.short for dot in picture.dots}
        assert drawn | {*picture.absent} == {"EPSHN", "ProxyNCA", "ArcFace", "classifier"}
    rows = {row.name: row for row in board.rows}
    assert set(rows[SIMCLR].rivals.values()) == {None}
    text = re.sub(r"\s+", " ", index_page(Board([board], [], {}, [], [], "")))
    assert "2 rows from which nothing can be concluded under the profile demo are left out" in text


def test_a_comparison_with_an_untested_row_begins_with_a_warning(runs):
    warnings: list[str] = []

    class Listener(db.Callback):
        def warn(self, text: str) -> None:
            warnings.append(text)

    db.compare(runs / BASELINE, runs / RESNET50, callback=Listener())
    [warning] = warnings
    assert warning.startswith(
        f"nothing can be concluded from {RESNET50} under the profile demo: ResNet-50 learns"
    )
