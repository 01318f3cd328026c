"""Numbers of pages are those of the records, and a page says from which."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from handmade import BASELINE, experiment, finish

from dml_bench.runs.record import write_record

ROOT = Path(__file__).parents[2]
path = ROOT / "benchmarks" / "page_numbers.py"
spec = importlib.util.spec_from_file_location("page_numbers", path)
page_numbers = importlib.util.module_from_spec(spec)
sys.modules["page_numbers"] = page_numbers
spec.loader.exec_module(page_numbers)

OTHER = "ArcFace_cosine_resnet18_sgd_aug"
FOLDER = "results/cub/stratified-last-20"
RIGHT = {
    "all": [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1]],
    "limited": [[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0]],
}
ALL = [[1] * 4] * 3


@pytest.fixture
def place(tmp_path) -> Path:
    for name in (BASELINE, OTHER):
        for seed in (42, 43):
            run = finish(tmp_path / "runs", experiment(name, seed=seed), RIGHT)
            write_record(tmp_path / "results", run)
    return tmp_path


def number_of(experiment_name: str, metric: str, form: str, text: str = "old") -> str:
    marks = f"<!-- number of {FOLDER}: {experiment_name} {metric} {form} -->"
    return f"it finds {marks}{text}<!-- end --> of them"


@pytest.mark.parametrize(
    ("metric", "form", "text"),
    [
        ("precision_at_1_macro", "percent", "75.0%"),
        ("precision_drop_unseen_classes", "points", "50.0 points"),
        ("seeds", "percent", "2"),
        ("phases.limited.precision_at_1_macro", "percent", "33.3%"),
    ],
)
def test_a_number_in_a_sentence_is_written_as_it_was_measured(place, metric, form, text):
    page = number_of(BASELINE, metric, form)
    assert page_numbers.rewritten(page, place) == number_of(BASELINE, metric, form, text)


def test_a_number_with_an_interval_has_its_bounds(place):
    page = number_of(BASELINE, "precision_at_1_macro", "percent_interval")
    assert "75.0% [" in page_numbers.rewritten(page, place)


def test_a_table_has_the_named_rows_and_columns(place):
    marks = f"""<!-- numbers of {FOLDER}
columns = {{ "P@1 `all`" = "precision_at_1_macro", "seeds" = "seeds" }}
rows = {{ "the baseline" = "{BASELINE}", "ArcFace" = "{OTHER}" }}
-->
"""
    page = page_numbers.rewritten(f"before\n\n{marks}<!-- end -->\n\nafter", place)
    assert page_numbers.rewritten(page, place) == page
    lines = page.splitlines()
    assert lines[6:8] == ["| experiment | P@1 `all` | seeds |", "| --- | --: | --: |"]
    assert [line.split(" | ")[0] for line in lines[8:10]] == ["| the baseline", "| ArcFace"]
    assert lines[8].endswith("| 2 |")
    assert lines[10:] == ["<!-- end -->", "", "after"]


def test_a_column_may_be_of_other_records(place):
    write_record(
        place / "random",
        finish(place / "runs2", experiment(BASELINE, seed=7), RIGHT | {"all": ALL}),
    )
    marks = f"""<!-- numbers of {FOLDER}
columns = {{ "here" = "seeds", "there" = "precision_at_1_macro of random" }}
rows = {{ "the baseline" = "{BASELINE}" }}
-->
"""
    page = page_numbers.rewritten(f"{marks}<!-- end -->\n", place)
    assert page.splitlines()[6].startswith("| the baseline | 2 | 100.0")


def test_a_place_in_a_summary_has_no_interval_in_a_table(place):
    marks = f"""<!-- numbers of {FOLDER}
columns = {{ "limited" = "phases.limited.precision_at_1_macro" }}
rows = {{ "the baseline" = "{BASELINE}" }}
-->
"""
    page = page_numbers.rewritten(f"{marks}<!-- end -->\n", place)
    assert page.splitlines()[6] == "| the baseline | 33.3 |"
    with pytest.raises(ValueError, match="seed 42 has no number at phases.all.attacked.pgd"):
        page_numbers.rewritten(number_of(BASELINE, "phases.all.attacked.pgd", "percent"), place)


def test_what_is_not_recorded_is_said_with_what_is(place):
    with pytest.raises(ValueError, match=f"no record of ProxyNCA; there are {BASELINE}, {OTHER}"):
        page_numbers.rewritten(number_of("ProxyNCA", "seeds", "percent"), place)
    with pytest.raises(ValueError, match="form of a number must be one of percent, .*, got words"):
        page_numbers.rewritten(number_of(BASELINE, "precision_at_1_macro", "words"), place)


def marked(folder: str = "") -> list[re.Match[str]]:
    """The numbers and tables on pages that are those of a folder of records, or of any."""
    matches = []
    for page in page_numbers.pages():
        text = page.read_text(encoding="utf-8")
        for kind in (page_numbers.NUMBER, page_numbers.TABLE):
            matches += [match for match in kind.finditer(text) if folder in ("", match[2])]
    return matches


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted({match[2] for match in marked()}))
def test_the_numbers_of_all_pages_are_those_of_the_records(folder):
    for match in marked(folder):
        assert page_numbers.rewritten(match[0]) == match[0], "`make reports` writes it anew"


FAMILY = """experiment,versus,metric,difference,low,high
+mixup,base,cost_of_being_unseen,-0.038,-0.067,-0.009
+mixup,base,logits_accuracy,0.01,0.002,0.018
"""
CORRECTIONS = """experiment,seed,phase,wrong_labels,replaced,replaced_rightly
+plc,42,all,1064,600,540
+plc,43,all,1000,400,390
"""


def of_csv(folder: Path, text: str, name: str, metric: str, form: str) -> str:
    (folder / "table.csv").write_text(text, encoding="utf-8")
    mark = f"<!-- number of table.csv: {name} {metric} {form} -->"
    written = page_numbers.rewritten(f"by {mark}old<!-- end -->.", folder)
    return written.removeprefix(f"by {mark}").removesuffix("<!-- end -->.")


@pytest.mark.parametrize(
    ("metric", "form", "text"),
    [
        ("cost_of_being_unseen", "points_interval", "-3.8 points [-6.7, -0.9]"),
        ("cost_of_being_unseen", "less_points", "3.8 points [0.9, 6.7]"),
        ("cost_of_being_unseen", "less", "3.8 [0.9, 6.7]"),
        ("logits_accuracy", "more", "1.0 [0.2, 1.8]"),
        ("logits_accuracy", "more_points", "1.0 points [0.2, 1.8]"),
        ("logits_accuracy.high", "more", "1.8"),
    ],
)
def test_a_difference_is_that_of_a_report(tmp_path, metric, form, text):
    assert of_csv(tmp_path, FAMILY, "+mixup", metric, form) == text


@pytest.mark.parametrize(
    ("metric", "form", "text"),
    [
        ("wrong_labels", "count", "2,064"),
        ("replaced_rightly/replaced", "percent", "93.0%"),
    ],
)
def test_what_has_a_row_for_each_seed_is_summed(tmp_path, metric, form, text):
    assert of_csv(tmp_path, CORRECTIONS, "+plc", metric, form) == text


@pytest.mark.parametrize(
    ("name", "metric", "why"),
    [
        ("+mixup", "test_accuracy", "must have one row of +mixup test_accuracy, has 0"),
        ("+cutmix", "logits_accuracy", "has no row of +cutmix"),
    ],
)
def test_what_a_report_lacks_is_refused(tmp_path, name, metric, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        of_csv(tmp_path, FAMILY, name, metric, "more")


DECIDED = {"sets": [{"set": "other birds", "photos": 240, "minutes": {"used": 7.234}}]}


@pytest.mark.parametrize(
    ("place", "form", "text"),
    [("photos", "count", "240"), ("minutes.used", "round", "7")],
)
def test_what_the_benchmark_of_decisions_measured_is_read_from_its_json(
    tmp_path, place, form, text
):
    (tmp_path / "decide.json").write_text(json.dumps(DECIDED), encoding="utf-8")
    mark = f"<!-- number of decide.json: other_birds {place} {form} -->"
    assert page_numbers.rewritten(f"{mark}old<!-- end -->", tmp_path) == f"{mark}{text}<!-- end -->"
    with pytest.raises(ValueError, match="has no number of other_birds at minutes.allowed"):
        page_numbers.rewritten(f"{mark.replace(place, 'minutes.allowed')}old<!-- end -->", tmp_path)
