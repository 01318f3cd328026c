"""What a page decides: the family that a table's file declares, and the claims of its rows, by
intervals that hold together."""

from pathlib import Path

import numpy as np
import pytest
from handmade import BASELINE, experiment, finish

from dml_bench.analysis import decisions
from dml_bench.analysis.decisions import Contrast, DecidedRow, Decisions, Survival, decide
from dml_bench.analysis.verdicts import describe_needed
from dml_bench.config import Expectation
from dml_bench.config.experiments import names, resolve
from dml_bench.config.tables import ExperimentTable, Family, load_table, read_table, table_of
from dml_bench.config.variants import base_name
from dml_bench.evaluation.statistics import Interval
from dml_bench.registry import UnknownName
from dml_bench.report.decisions import decided_blocks, describe_verdict
from dml_bench.report.document import Table
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import Run

SEEDS = (42, 43, 44)
DROP = "precision_drop_unseen_classes"
WIDE, LARGE = "EPSHN_cosine_resnet18x512_sgd_aug", "EPSHN_cosine_resnet50_sgd_aug"
ALL = [[1] * 9 + [0]] * 8
LOSES_MOST = [[1] * 10] * 4 + [[1] * right + [0] * (10 - right) for right in (1, 2, 1, 3)]
LOSES_SOME = [[1] * 10] * 4 + [[1] * right + [0] * (10 - right) for right in (7, 6, 8, 7)]


def runs_of_one(out: Path, name: str, limited: list[list[int]], seeds=SEEDS) -> list[Run]:
    """Eight classes; the last four are unseen."""
    answers = {"all": ALL, "limited": limited}
    return [finish(out, experiment(name, seed=seed), answers, unseen=4) for seed in seeds]


@pytest.fixture
def family_of_drops(monkeypatch):
    """A table that declares the unseen drop of each row beside that of its parent."""
    family = Family(DROP, "parent")
    table = ExperimentTable("mine", "A table", (BASELINE, WIDE, LARGE), family)
    monkeypatch.setattr(decisions, "table_of", lambda experiments: table)


def decided(runs: dict[str, list[Run]], **claims: tuple[Expectation, ...]) -> Decisions:
    rows = []
    for name, finished in runs.items():
        rows.append(DecidedRow(experiment(name, expects=claims.get(name, ())), finished))
    return decide(rows, lambda name: runs.get(name, ()))


def test_each_row_of_the_family_is_compared_with_the_experiment_that_it_extends(
    tmp_path, family_of_drops
):
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_MOST),
        WIDE: runs_of_one(tmp_path, WIDE, LOSES_SOME),
        LARGE: runs_of_one(tmp_path, LARGE, LOSES_MOST[::-1][:4] + LOSES_MOST[4:]),
    }
    page = decided(runs)
    assert [(row.experiment, row.versus, row.seeds) for row in page.contrasts] == [
        (WIDE, BASELINE, 3),
    ], "without an interval, where two are equal on every query, there is nothing to decide"
    [wide] = page.contrasts
    assert wide.difference.estimate == pytest.approx((7 - 28) / 40)
    assert wide.verdict == "lower"


def test_a_difference_survives_tuning_where_both_pairs_show_it(tmp_path, family_of_drops):
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_MOST),
        WIDE: runs_of_one(tmp_path, WIDE, LOSES_SOME),
    }
    assert decided(runs).survivals == ()
    runs[f"{BASELINE}~tuned"] = runs_of_one(tmp_path, f"{BASELINE}~tuned", LOSES_MOST)
    runs[f"{WIDE}~tuned"] = runs_of_one(tmp_path, f"{WIDE}~tuned", LOSES_SOME)
    [survival] = decided(runs).survivals
    assert (survival.verdict, survival.tuned.versus) == ("survives", f"{BASELINE}~tuned")
    blocks = decided_blocks(decided(runs))
    [table] = [b for b in blocks if isinstance(b, Table) and "survive tuning" in b.title]
    assert [cell.text for cell in table.rows[0].cells][:3] == [WIDE, "survives", BASELINE]


@pytest.mark.parametrize(
    ("written", "tuned", "verdict"),
    [
        ((0.1, 0.3), (0.1, 0.2), "survives"),
        ((0.1, 0.3), (-0.3, -0.1), "reversed when tuned"),
        ((0.1, 0.3), (-0.1, 0.1), "not detectable when tuned"),
        ((-0.1, 0.3), (-0.3, -0.1), "lower only when tuned"),
        ((-0.1, 0.3), (-0.1, 0.1), "not detectable either way"),
    ],
)
def test_what_becomes_of_a_difference_is_read_from_both_intervals(written, tuned, verdict):
    def contrast(low: float, high: float) -> Contrast:
        measured = Interval((low + high) / 2, low, high, 0.95, 0.05, 7.0)
        named = {"experiment": WIDE, "versus": BASELINE, "metric": DROP, "head": "drop"}
        return Contrast(**named, lower_is_better=True, seeds=3, difference=measured)

    assert Survival(contrast(*written), contrast(*tuned)).verdict == verdict


def test_the_intervals_of_claims_and_family_are_widened_for_their_number(tmp_path, family_of_drops):
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_MOST),
        WIDE: runs_of_one(tmp_path, WIDE, LOSES_SOME),
    }
    alone = decided(runs)
    assert (alone.number, alone.level) == (1, 0.95)
    claim = Expectation(metric=DROP, source="a paper", change=-0.5, versus=BASELINE)
    page = decided(runs, **{WIDE: (claim,)})
    assert (page.number, page.level) == (2, 0.975)
    [tested], [row] = page.claims, page.contrasts
    assert tested.measured is not None
    assert tested.measured.level == row.difference.level == 0.975
    assert row.difference.low < alone.contrasts[0].difference.low
    assert "for all 2 comparisons (Bonferroni)" in page.standard


def test_a_row_with_under_three_seeds_and_a_variant_enter_no_family(tmp_path, family_of_drops):
    variant = f"{WIDE}~optimizer.lr=0.1"
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_MOST),
        WIDE: runs_of_one(tmp_path, WIDE, LOSES_SOME, seeds=(42, 43)),
        variant: runs_of_one(tmp_path, variant, LOSES_SOME),
    }
    page = decided(runs)
    assert page.contrasts == ()
    assert page.standard == "Nothing here has a verdict: all comparisons are exploratory."


def test_an_undecided_claim_says_whether_its_size_is_excluded_all_the_same(
    tmp_path, family_of_drops
):
    nearly = [row[:] for row in LOSES_SOME]
    nearly[5][6], nearly[6][7] = 1, 0
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_SOME),
        WIDE: runs_of_one(tmp_path, WIDE, nearly),
    }
    said = {}
    for change in (-0.9, -0.05):
        claim = Expectation(metric=DROP, source="a paper", change=change, versus=BASELINE)
        [tested] = decided(runs, **{WIDE: (claim,)}).claims
        said[change] = describe_verdict(tested)
    assert said[-0.9].startswith("undecided, but the claimed size is excluded (smallest detect")
    assert said[-0.05].startswith("undecided (smallest detectable: ")


def test_claims_that_are_not_tested_widen_nothing(tmp_path, family_of_drops):
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_MOST),
        WIDE: runs_of_one(tmp_path, WIDE, LOSES_SOME),
    }
    published = Expectation(metric=DROP, source="a paper", value=0.1, note="another split")
    page = decided(runs, **{WIDE: (published,)})
    assert (page.number, page.claims[0].verdict) == (1, "not tested")


def test_a_difference_that_is_not_detectable_says_which_would_have_been(tmp_path, family_of_drops):
    nearly = [row[:] for row in LOSES_SOME]
    nearly[5][6], nearly[6][7] = 1, 0
    runs = {
        BASELINE: runs_of_one(tmp_path, BASELINE, LOSES_SOME),
        WIDE: runs_of_one(tmp_path, WIDE, nearly),
    }
    [row] = decided(runs).contrasts
    assert row.verdict.startswith("no detectable difference (smallest detectable: ")
    assert row.verdict.endswith("; 2 points take more classes)")


@pytest.mark.parametrize(
    ("seeds", "expected"), [(12.0, "12 seeds"), (101.0, "over 100 seeds"), (np.inf, "more classes")]
)
def test_what_it_takes_to_find_a_small_difference_is_said_in_seeds_or_classes(seeds, expected):
    assert describe_needed(seeds) == expected


def test_runs_are_decided_by_the_family_of_the_table_that_has_the_most_of_them():
    mixup = f"{BASELINE}+mixup"
    assert getattr(table_of([BASELINE]), "name", "") == "study"
    assert getattr(table_of([BASELINE, mixup]), "name", "") == "techniques"
    assert table_of(["my_own"]) is None


@pytest.mark.parametrize(
    "name", ["study", "techniques", "field", "photographs", "finetuned", "characters"]
)
def test_the_family_of_a_table_is_of_a_metric_that_its_rows_measure(name):
    table = read_table(name)
    assert table.family is not None
    members = [row for row in table.rows if table.family.other(row) in table.rows]
    assert len(members) > 4
    trained = [row for row in members if resolve(base_name(row)).train.epochs]
    for row in trained:
        assert table.family.metric in metrics_of(resolve(base_name(row)))


def test_a_family_beside_an_experiment_that_is_none_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\nrows = []\n[family]\nmetric = "x"\nversus = "parents"\n')
    with pytest.raises(ValueError, match="family.versus must be 'parent' or the name of an exper"):
        load_table(path)
    with pytest.raises(UnknownName):
        Family("x", f"{names()[0]}s")


def test_a_row_is_compared_beside_the_plain_experiment_where_no_setting_is_left():
    family = Family("x", "EPSHN_cosine_head", without=("mixing.technique.alpha",))
    row = "crossentropy_head~mixing.technique.alpha=0.2"
    assert family.other(row) == "EPSHN_cosine_head"
    assert family.other(f"{row},data.per_class=5") == "EPSHN_cosine_head~data.per_class=5"
