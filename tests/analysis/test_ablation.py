"""What a change does to known and to unseen classes, from runs written by hand."""

import math
from pathlib import Path

import pytest
from handmade import BASELINE, experiment, finish

from dml_bench.analysis.ablation import ablations, changed
from dml_bench.analysis.compare import q_values
from dml_bench.analysis.short_names import short_names
from dml_bench.config import experiments
from dml_bench.config.experiments import resolve
from dml_bench.plots.ablation import change_name
from dml_bench.report.changes import changes_table
from dml_bench.report.short import with_short_names

MIXUP = f"{BASELINE}+mixup"


def run(out: Path, name: str, seen: float, unseen: float, seed: int = 42):
    """Ten classes of 20 queries; the last three are unseen. The share of the queries of each that
    the limited model gets right; the other model gets all right."""

    def right(share: float, shift: int) -> list[int]:
        count = round(share * 20)
        return [int((i + shift) % 20 < count) for i in range(20)]

    limited = [right(seen, label) for label in range(7)] + [
        right(unseen, label) for label in range(3)
    ]
    return finish(
        out / name,
        experiment(name, seed=seed),
        {"all": [[1] * 20] * 10, "limited": limited},
        unseen=3,
    )


def two_seeds(out: Path, shares: dict[str, tuple[float, float]]):
    """Two runs of each experiment, from its shares of seen and of unseen queries."""
    runs = {}
    for name, (seen, unseen) in shares.items():
        runs[name] = [run(out, name, seen, unseen, seed=seed) for seed in (42, 43)]
    return runs


def test_an_effect_is_the_difference_from_the_experiment_that_is_extended(tmp_path):
    runs = two_seeds(tmp_path, {BASELINE: (0.5, 0.9), MIXUP: (0.8, 0.3)})
    [effect] = ablations(runs)
    assert (effect.name, effect.without, effect.seeds) == (MIXUP, BASELINE, (42, 43))
    assert effect.seen.difference.estimate == pytest.approx(0.3)
    assert effect.unseen.difference.estimate == pytest.approx(-0.6)
    assert effect.cost.difference.estimate == pytest.approx(0.6 - -0.3)
    assert effect.seen.difference.low > 0 > effect.unseen.difference.high


def test_a_change_to_several_experiments_is_averaged_over_them_query_by_query(tmp_path):
    shares = {
        BASELINE: (0.5, 0.5),
        MIXUP: (0.8, 0.3),
        "ArcFace_cosine_resnet18_sgd_aug": (0.6, 0.6),
        "ArcFace_cosine_resnet18_sgd_aug+mixup": (0.7, 0.7),
    }
    runs = two_seeds(tmp_path, shares)
    *_, last = effects = ablations(runs)
    assert [effect.name for effect in effects] == [
        MIXUP,
        "ArcFace_cosine_resnet18_sgd_aug",
        "ArcFace_cosine_resnet18_sgd_aug+mixup",
        "+mixup",
    ]
    assert (last.to, last.without) == (
        (BASELINE, "ArcFace_cosine_resnet18_sgd_aug"),
        f"mean of {BASELINE}, ArcFace_cosine_resnet18_sgd_aug",
    )
    assert last.seen.difference.estimate == pytest.approx((0.3 + 0.1) / 2)
    assert last.unseen.difference.estimate == pytest.approx((-0.2 + 0.1) / 2)
    assert last.seen.first.estimate == pytest.approx(0.75)
    width = [effect.unseen.difference.high - effect.unseen.difference.low for effect in effects]
    assert width[3] < max(width)


def test_a_mean_is_taken_over_the_same_queries_only(tmp_path):
    arc = "ArcFace_cosine_resnet18_sgd_aug"
    runs = {name: [run(tmp_path, name, 0.5, 0.5, seed=42)] for name in (BASELINE, MIXUP)}
    runs |= {name: [run(tmp_path, name, 0.5, 0.5, seed=43)] for name in (arc, f"{arc}+mixup")}
    assert [effect.name for effect in ablations(runs)] == [MIXUP, f"{arc}+mixup"]


def test_the_q_values_are_over_all_differences_of_all_changes(tmp_path):
    arc = "ArcFace_cosine_resnet18_sgd_aug"
    shares = {BASELINE: (0.5, 0.5), MIXUP: (0.8, 0.3), arc: (0.6, 0.65)}
    runs = {}
    for name, (seen, unseen) in shares.items():
        runs[name] = [run(tmp_path, name, seen, unseen, seed=seed) for seed in (42, 43, 44)]
    effects = ablations(runs)
    parts = [part for effect in effects for part in (effect.seen, effect.unseen, effect.cost)]
    together = q_values([part.difference.p for part in parts])
    assert [part.q for part in parts] == pytest.approx(together, nan_ok=True)


def test_under_three_seeds_a_change_has_no_q_value(tmp_path):
    [effect] = ablations(two_seeds(tmp_path, {BASELINE: (0.5, 0.9), MIXUP: (0.8, 0.3)}))
    assert math.isnan(effect.seen.q)


def test_an_experiment_whose_parent_has_no_run_here_has_no_effect(tmp_path):
    assert ablations({MIXUP: [run(tmp_path, MIXUP, 0.5, 0.5)]}) == ()


def test_the_parent_of_an_experiment_is_what_its_file_extends():
    assert experiments.parent(MIXUP) == BASELINE
    assert experiments.parent("EPSHN_euclidean_resnet18") is None
    assert experiments.parent("no such experiment") is None


def test_what_changed_is_what_one_name_has_and_the_other_has_not():
    assert changed(MIXUP, BASELINE) == "+mixup"
    assert (
        changed("crossentropy_resnet18_camhead_sgd_aug", "crossentropy_resnet18_sgd_aug")
        == "camhead"
    )
    assert (
        changed(
            "EPSHN_cosine_xresnet18+mish_scratch_sgd_aug", "EPSHN_cosine_xresnet18_scratch_sgd_aug"
        )
        == "+mish"
    )


def test_table_and_figure_call_both_experiments_as_the_rest_of_the_page_does(tmp_path):
    added = "crossentropy_resnet18_sgd_aug", "EPSHN_cosine_resnet18_classifier_sgd_aug"
    both = ("EPSHN_cosine_resnet18", "EPSHN_cosine_resnet18_sgd", BASELINE, *added)
    several = (MIXUP, "ArcFace_cosine_resnet18_sgd_aug", "ArcFace_cosine_resnet18_sgd_aug+mixup")
    runs = {}
    for name in (*both, *several):
        answers = {phase: [[1, 0]] * 6 for phase in ("all", "limited")}
        runs[name] = [finish(tmp_path, resolve(name), answers)]
    names = short_names([resolve(name) for name in runs])
    changes = ablations(runs)
    [table] = with_short_names([changes_table(changes, names)], names)
    rows = {row.cells[0].text: row.cells[1].text for row in table.rows}
    assert rows == {
        "EPSHN, no aug.": "EPSHN, Adam, no aug.",
        "EPSHN": "EPSHN, no aug.",
        "EPSHN, classifier first": "EPSHN",
        "classifier": "EPSHN",
        "ArcFace": "EPSHN",
        "EPSHN + mixup": "EPSHN",
        "ArcFace + mixup": "ArcFace",
        "+ mixup": "mean of EPSHN, ArcFace",
    }
    assert change_name(changes[0], names) == "EPSHN, no aug.\nbeside EPSHN, Adam, no aug."
    assert change_name(changes[-1], names) == "+ mixup\nbeside mean of 2"


def test_the_report_shows_what_each_change_does_as_words_table_figure_and_csv(tmp_path):
    from dml_bench.report.compose import report

    for name, shares in {BASELINE: (0.2, 0.2), MIXUP: (0.9, 0.3)}.items():
        run(tmp_path / "runs", name, *shares)
    report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    markdown, page = ((tmp_path / "out" / file).read_text() for file in ("report.md", "index.html"))
    assert "All this is exploratory." in markdown and "All this is exploratory." in page
    assert not [word for word in ("helps", "hurts") if word in markdown.lower()]
    assert "| EPSHN + mixup | EPSHN | +70.0 [" in markdown
    assert (tmp_path / "out" / "changes.csv").read_text().count("\n") == 4
    assert len(list((tmp_path / "out" / "figures").glob("changes-*.svg"))) == 1
