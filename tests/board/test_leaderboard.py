"""The site ranks what can be compared, says "not comparable" where nothing can, and shows for each
row what it rests on, from the disk alone."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from chromium import CHROMIUM, PATIENCE, needs_chromium
from forgery import answer_otherwise, hand_in, row_of_its_own, say_otherwise
from tiny import dml_bench, refusal

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.board.over_data_sets import (
    Aggregate,
    DataSet,
    Pair,
    aggregate_of,
    aggregates_of,
    aggregates_of_table,
    data_set_of,
)
from dml_bench.board.over_data_sets_page import (
    aggregate_blocks,
    beside_classifier,
    cost_of_new,
    methods_table,
    of_best,
    rank_lines,
    trade_off,
)
from dml_bench.board.page import Board, index_page
from dml_bench.board.table_mates import recorded_again
from dml_bench.board.tables import BoardTable, table_of
from dml_bench.config.tables import read_table
from dml_bench.report.answers import STUDY_QUESTIONS
from dml_bench.report.tables import OWN_RULE
from dml_bench.runs import record_format
from dml_bench.runs.layout import records_below

RESULTS = Path(__file__).parents[2] / "results"
BIRDS, GROCERY = "demo/stratified-last-10", "grocery/given-random-20-x-4"
BASELINE = "EPSHN_cosine_resnet18_sgd"
CLASSIFIER = "crossentropy_resnet18_sgd_aug"
FORGED = f"{BIRDS}/{CLASSIFIER}/seed-44.json"
ROWS = {
    BIRDS: {
        "ArcFace_cosine_resnet18_sgd_aug": (42, 43, 44),
        "ProxyNCA_cosine_resnet18_sgd_aug": (42, 43, 44),
        "crossentropy_resnet18_sgd_aug": (42, 43, 44),
        "EPSHN_cosine_resnet18_sgd": (42, 43, 44),
    },
    GROCERY: {
        "ProxyAnchor_cosine_head~model.backbone.name=efficientnet_lite0": (42, 43, 44),
        "crossentropy_head~model.backbone.name=efficientnet_lite0": (42, 43, 44),
        "EPSHN_cosine_head~model.backbone.name=efficientnet_lite0": (42,),
        "frozen_efficientnet_lite0": (42,),
    },
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Some of the repository's records, one of which is forged."""
    folder = tmp_path_factory.mktemp("board") / "results"
    for division, experiments in ROWS.items():
        for experiment, seeds in experiments.items():
            (folder / division / experiment).mkdir(parents=True)
            for seed in seeds:
                for suffix in (".json", record_format.ANSWERS_SUFFIX):
                    name = f"{division}/{experiment}/seed-{seed}{suffix}"
                    shutil.copyfile(RESULTS / name, folder / name)
    say_otherwise(folder / FORGED, lambda said: said["numbers"].__setitem__("test_accuracy", 0.99))
    return folder


@pytest.fixture(scope="module")
def warnings() -> list[str]:
    return []


@pytest.fixture(scope="module")
def site(results, warnings) -> Path:
    class Listener(db.Callback):
        def warn(self, text: str) -> None:
            warnings.append(text)

    out = results.parent / "site"
    db.write_leaderboard(results, out, callback=Listener())
    return out


@pytest.fixture(scope="module")
def index(site) -> str:
    return (site / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tables(results) -> dict[str, BoardTable]:
    """By data set."""
    sound = [path for path in sorted(results.rglob("seed-*.json")) if path != results / FORGED]
    studies = studies_of(collect(sound))
    return {study.group.dataset: table_of(study, {}) for study in studies}


def test_a_row_whose_loss_pairs_mixed_images_says_by_whose_rule_they_count():
    records = RESULTS / "techniques" / GROCERY
    mixing = ("EPSHN_cosine_head+featuremixup", "ArcFace_cosine_head+featuremixup")
    paths = [records / name / "seed-42.json" for name in mixing]
    [study] = studies_of(collect(paths))
    flags = {row.name: row.flags for row in table_of(study, {}).rows}
    assert flags == {mixing[0]: (OWN_RULE,), mixing[1]: ()}


class Links(HTMLParser):
    """What a page leads to or loads."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if name in ("href", "src") and value]


def links_of(page: Path) -> Iterator[str]:
    reader = Links()
    reader.feed(page.read_text(encoding="utf-8"))
    yield from (target for target in reader.targets if not target.startswith("data:"))


def text_of(html: str) -> str:
    """Without tags and scripts, white space joined."""
    plain = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).split())


def row_of(index: str, search: str) -> str:
    """The text of the first row of a table whose names hold `search`."""
    rows = re.findall(r"<tr data-search=.*?</tr>", index, re.DOTALL)
    return text_of(next(row for row in rows if search.lower() in row.split('"')[1]))


def test_data_sets_never_share_a_table(index):
    heads = re.findall(r"<h2>(.*?)</h2>", index)
    assert set(heads) == {"demo, split stratified", "grocery, split given"}
    assert index.count('<section class="table"') == 2


def test_a_link_to_a_table_says_what_distinguishes_it(tmp_path):
    for unseen in ("last-10", "random-10-x-4"):
        place = f"demo/stratified-{unseen}/EPSHN_cosine_resnet18_sgd_aug"
        shutil.copytree(RESULTS / place, tmp_path / "results" / place)
    page = db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    links = re.findall(r'<li><a href="#precision.*?">(.*?)</a>', page.read_text(encoding="utf-8"))
    assert sorted(links) == [
        "demo, split stratified, unseen last:10",
        "demo, split stratified, unseen random:10 x 4",
    ]


def test_a_forged_submission_is_left_out_and_named(index, warnings, results):
    assert "refused: 1 ." in text_of(index)
    assert f"<code>{results / FORGED}</code>: refused: metric: test_accuracy is 0.99" in index
    assert any("is left out: refused: metric" in warning for warning in warnings)
    row = row_of(index, "crossentropy_resnet18")
    assert "not comparable 2 of 3 seeds" in row


def test_a_row_with_one_seed_is_not_comparable(index):
    assert "not comparable 1 of 3 seeds" in row_of(index, "EPSHN_cosine_head")


def test_a_row_without_training_is_ranked_beside_the_others_by_each_seed(tables):
    table = tables["grocery"]
    ranges = table.rankings["precision_at_1_macro"].ranges
    frozen = "frozen_efficientnet_lite0"
    assert ranges[frozen] == (3, 3)
    contrasts = table.rankings["precision_at_1_macro_unseen_limited"].of(frozen)
    assert {contrast.seeds for contrast in contrasts} == {3}


def test_a_row_without_training_has_no_cost_of_being_unseen(tables):
    ranking = tables["grocery"].rankings["cost_of_being_unseen"]
    assert ranking.not_comparable["frozen_efficientnet_lite0"] == "no training"


def test_ranges_of_ranks_are_read_from_the_differences(tables):
    for table in tables.values():
        for name, ranking in table.rankings.items():
            lower = table.metric(name).lower_is_better
            for row, (best, worst) in ranking.ranges.items():
                signs = [one.sign * (-1 if lower else 1) for one in ranking.of(row)]
                assert best == 1 + signs.count(-1)
                assert worst == len(ranking.ranges) - signs.count(1)


def test_rows_beat_the_classifier_on_their_own_backbone_with_a_probability(tables):
    rows = {row.line.name.partition("_")[0]: row for row in tables["grocery"].rows}
    assert rows["ProxyAnchor"].rivals["precision_at_1_macro"] == 1.0
    assert rows["frozen"].rivals["precision_at_1_macro"] == 0.0
    assert rows["crossentropy"].rivals["precision_at_1_macro"] is None
    assert (rows["crossentropy"].kind, rows["frozen"].kind) == ("classifier", "no training")


def test_what_a_name_does_not_say_stands_beside_it(tmp_path):
    """An ensemble, or a row on wrong labels, looked like any other."""
    record = RESULTS / BIRDS / CLASSIFIER / "seed-42.json"
    settings = {"data__label_noise": 0.2, "evaluate__tta": "mirror"}
    row_of_its_own(record, tmp_path / "results", "mine", "me", **settings)
    row_of_its_own(record, tmp_path / "results", CLASSIFIER, "me", **settings)
    row_of_its_own(record, tmp_path / "results", f"{CLASSIFIER}~data.label_noise=0.2", "me")
    [study] = studies_of(collect([tmp_path / "results"]))
    rows = {row.name: row for row in table_of(study, {}).rows}
    noise = ["test-time augmentation mirror", "20% wrong training labels"]
    assert rows["mine"].techniques == rows[CLASSIFIER].techniques == noise
    assert rows["mine"].flags == ()
    unlike = f"other settings than {CLASSIFIER}: data.label_noise, evaluate.tta"
    assert rows[CLASSIFIER].flags == (unlike,)
    db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    assert f"classifier, {', '.join(noise)}</span>" in page
    assert unlike in page


def test_a_row_that_is_not_comparable_beats_no_classifier(tables):
    """Of a single seed the probability is 0 or 1."""
    [row] = [row for row in tables["grocery"].rows if row.name.startswith("EPSHN")]
    assert tables["grocery"].rankings["precision_at_1_macro"].not_comparable[row.name] == (
        "1 of 3 seeds"
    )
    assert set(row.rivals.values()) == {None}


@pytest.mark.parametrize(
    "patterns", [("(a+b)", "(a*b)"), (f"({'a' * 260})",)], ids=["alike", "long"]
)
def test_tables_of_patterns_have_pages_each(patterns, tmp_path):
    """Their names are those of folders, in which signs are left out and 255 bytes have room."""
    for pattern in patterns:
        rule = {"data__split": "grouped", "data__group": f"regex:{pattern}"}
        record = RESULTS / BIRDS / BASELINE / "seed-42.json"
        row_of_its_own(record, tmp_path / "results", "mine", "me", **rule)
    db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    pages = list((tmp_path / "site" / "rows").rglob("mine.html"))
    assert len(pages) == len(patterns)
    for page in pages:
        assert page.parent.name in (tmp_path / "site" / "index.html").read_text()


def test_every_link_of_the_site_leads_to_a_file_of_the_site(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 1 + 8
    for page in pages:
        for target in links_of(page):
            path, _, anchor = unquote(target).partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), f"{page}: {target}"
            assert file.is_relative_to(site.resolve())
            if anchor:
                assert f'id="{anchor}"' in file.read_text(encoding="utf-8")


def test_the_links_of_a_site_of_one_submission_lead_to_its_files(results, tmp_path):
    """Its JSON was copied beside the folder of evidence, which the link led to."""
    [first, *_] = records_below(results / BIRDS / BASELINE)
    page = db.write_leaderboard(first, tmp_path / "site")
    [row] = (page.parent / "rows").rglob("*.html")
    for target in filter(lambda link: "evidence" in link, links_of(row)):
        assert (row.parent / unquote(target)).is_file()
    assert (page.parent / "evidence" / first.name).read_bytes() == first.read_bytes()


def test_nothing_is_loaded_from_a_network(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"(?:src|href)=\"?https?:|@import|url\(", text) == []


def test_the_evidence_of_a_row_are_its_submissions_its_classes_and_the_other_rows(site, results):
    [page] = site.rglob("ProxyAnchor*.html")
    text = text_of(page.read_text(encoding="utf-8"))
    for part in ("seed 42", "seed 44", "Royal-Gala", "no training", "configuration", "torch"):
        assert part in text
    copies = [target for target in links_of(page) if target.endswith(".json")]
    assert len(copies) == 3
    first = (page.parent / unquote(copies[0])).resolve()
    assert (
        first.read_bytes()
        == (results / first.relative_to(site.resolve() / "evidence")).read_bytes()
    )
    assert db.verify_submissions(site / "evidence").is_sound


def test_the_evidence_says_in_what_the_seeds_of_a_row_differ(tmp_path):
    """Where each seed has a search of its own, that is more than the seed."""
    names = ("EPSHN_cosine_resnet18_sgd_aug", "EPSHN_cosine_resnet18_sgd_aug~tuned")
    for name in names:
        folder = Path("tuned/demo/stratified-random-10-1-x-2", name)
        shutil.copytree(RESULTS / folder, tmp_path / "results" / folder)
    db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    pages = {page.stem: page.read_text() for page in (tmp_path / "site" / "rows").rglob("*.html")}
    plain, tuned = (pages[name] for name in names)
    assert "Of seed 42; the others differ in seed." in plain
    assert "Of seed 42; the others differ in optimizer.lr, seed, " in tuned


def test_the_numbers_are_those_of_a_report_on_the_same_runs(tables, index):
    table = tables["grocery"]
    line = next(line for line in table.study.group.lines if line.name.startswith("ProxyAnchor"))
    keys = [column.key for column in table.study.group.columns]
    value: Any = line.values[keys.index("precision_at_1_macro")]
    assert f"{100 * value.estimate:.1f} [{100 * value.low:.1f}," in row_of(index, "ProxyAnchor")


def test_names_that_people_gave_are_no_markup(results, tmp_path):
    shutil.copytree(results / BIRDS, tmp_path / "results" / BIRDS)
    for path in sorted((tmp_path / "results").rglob("seed-*.json")):
        hand_in(path, "<script>alert(1)")
    page = db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    for file in (page, *page.parent.rglob("*.html")):
        assert "<script>alert" not in file.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page.read_text(encoding="utf-8")


def test_another_protocol_ranks_by_its_own_metrics(trained, tmp_path):
    settings = ("protocol=class_disjoint", "data.split=half", "unseen=", "evaluate.nmi=true")
    folder = trained("train.epochs=1", *settings).folder
    db.submit_run(folder, tmp_path / "results", by="Jane Doe", revision="drawn")
    page = db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'<button type="button" data-metric="(\w+)"', text) == [
        "recall_at_1",
        "map_at_r",
    ]
    row = row_of(text, "epshn")
    assert "not comparable 1 of 3 seeds" in row
    assert row.endswith("Jane Doe")


def test_an_experiment_that_was_recorded_under_two_names_stands_once():
    first = RESULTS / GROCERY / "EPSHN_cosine_head~model.backbone.name=efficientnet_lite0"
    again = RESULTS / "techniques" / GROCERY / "EPSHN_cosine_head"
    other = RESULTS / "techniques" / GROCERY / "EPSHN_cosine_head+featuremixup"
    paths = [path for folder in (again, other, first) for path in folder.glob("seed-*.json")]
    assert recorded_again(paths) == {again: first}


def test_it_stands_once_in_a_table_that_has_both_names(tmp_path):
    folder = tmp_path / BIRDS
    shutil.copytree(RESULTS / BIRDS / BASELINE, folder / BASELINE)
    shutil.copytree(RESULTS / BIRDS / BASELINE, folder / "mine")
    for path in records_below(folder / "mine"):
        answer_otherwise(path, lambda content: content.facts["experiment"].update(name="mine"))
    assert recorded_again(records_below(folder)) == {folder / "mine": folder / BASELINE}
    text = str(db.verify_submissions(folder / "mine"))
    assert f"review: same answers: {BASELINE}/seed-42.json is the same run" in text
    for path in records_below(folder / "mine"):
        say_otherwise(path, lambda said: said.update(submitted_by="me"))
    assert recorded_again(records_below(folder)) == {}


def call_it(name: str, content: record_format.Content) -> None:
    content.facts["experiment"].update(name=name)


def test_rows_whose_names_differ_in_a_sign_have_a_page_each(tmp_path):
    """The page of one was written over that of the other, and both links led to it."""
    names = ("my method", "my-method", "my~tuned", "my-tuned")
    folder = tmp_path / "results" / BIRDS
    for name, seed in zip(names, (42, 43, 44, 45), strict=True):
        copy_records(tmp_path / "results", BIRDS, BASELINE, (seed,))
        (folder / BASELINE).rename(folder / name)
        for path in records_below(folder / name):
            answer_otherwise(path, partial(call_it, name))
    page = db.write_leaderboard(tmp_path / "results", tmp_path / "site")
    links = {target for target in links_of(page) if target.startswith("rows/")}
    shown = set()
    for link in links:
        text = text_of((page.parent / unquote(link)).read_text(encoding="utf-8"))
        shown.add(re.search(r"experiment (my.\w+) kind", text)[1])
    assert shown == set(names)


def test_a_folder_of_other_files_is_not_written_into(results, tmp_path, monkeypatch, capsys):
    (tmp_path / "index.html").write_text("<title>My thesis</title>")
    line = refusal(monkeypatch, capsys, "leaderboard", results / BIRDS, "--out", tmp_path)
    assert line.endswith("holds other files than a scoreboard: choose an empty --out DIR")
    assert (tmp_path / "index.html").read_text() == "<title>My thesis</title>"


def test_a_site_among_the_submissions_is_refused(tmp_path, monkeypatch, capsys):
    """Its copies were submissions of the next one, which ended in a FileNotFoundError, and stayed
    on the board when the submissions themselves were taken away."""
    copy_records(tmp_path, BIRDS, BASELINE, (42,))
    line = refusal(monkeypatch, capsys, "leaderboard", tmp_path, "--out", tmp_path / "a_site")
    assert line.endswith("taken for submissions: choose an --out DIR beside it")
    assert not (tmp_path / "a_site").exists()


def over(table: BoardTable, count: int, metric: str = "") -> Aggregate:
    """The rows of a table as methods over so many data sets, which are all that table."""
    rows = {row.name: row for row in table.rows}
    data_sets = [DataSet(table, rows)] * count
    aggregate = aggregate_of("precision drop", metric or table.main_metric, data_sets, BASELINE)
    assert aggregate is not None
    return aggregate


def test_methods_of_several_data_sets_have_a_mean_rank_and_from_five_on_a_profile(tables):
    """The same table stands for several data sets: what is averaged then doesn't change."""
    table = tables["demo"]
    metric, two, five = table.main_metric, over(table, 2), over(table, 5)
    ranked = table.in_order(metric)[:3]
    assert [method.name for method in two.methods] == [row.name for row in ranked]
    assert [method.mean_rank for method in two.methods] == [1, 2, 3]
    ranges = table.rankings[metric].ranges
    assert [(m.best, m.worst) for m in two.methods] == [ranges[m.name] for m in two.methods]
    assert two.methods[0].interquartile_mean is None
    best = five.methods[0]
    assert best.interquartile_mean == pytest.approx(ranked[0].values[metric].estimate, abs=0.02)
    assert best.profile is not None
    assert (best.profile[0], best.profile[-1]) == (1, 0)
    rows = {row.name: row for row in table.rows}
    assert aggregate_of("precision drop", metric, [DataSet(table, rows)], BASELINE) is None


def table_as(
    table: BoardTable, dataset: str, unseen: str = "last:10", kept: tuple[str, ...] = ()
) -> BoardTable:
    """The rows of one table, or some of them, as if they were of this data set and these
    hold-outs."""
    lines = []
    for line in table.study.group.lines:
        runs = []
        for run in line.runs:
            facts = {**run.summary, "dataset": {**run.summary["dataset"], "name": dataset}}
            changed = replace(run.experiment, unseen=unseen)
            runs.append(replace(run, summary=facts, experiment=changed))
        if not kept or line.name in kept:
            lines.append(replace(line, runs=tuple(runs)))
    group = replace(table.study.group, lines=tuple(lines))
    return table_of(replace(table.study, group=group), {})


def test_a_data_set_without_the_rows_of_two_others_takes_nothing_from_them(tables):
    """One submission on images of one's own would take the methods over data sets off the board."""
    table = tables["demo"]
    two = [table_as(table, "demo"), table_as(table, "other")]
    (aggregate,) = aggregates_of(two)
    assert len(aggregate.methods) == 3
    (with_another,) = aggregates_of([*two, table_as(table, "mine", kept=(BASELINE,))])
    assert [one.name for one in with_another.data_sets] == ["demo", "other"]
    assert [m.mean_rank for m in with_another.methods] == [m.mean_rank for m in aggregate.methods]


def test_rotated_hold_outs_of_one_data_set_are_not_averaged_with_a_single_one_of_another(tables):
    """A data set with both has a table of each, and the larger stood for either."""
    of = partial(table_as, tables["demo"])
    rotated, single = "random:10 x 4", "last:10"
    assert aggregates_of([of("demo", single), of("other", rotated)]) == []
    both = [of("demo", single), of("demo", rotated), of("other", single), of("other", rotated)]
    first, second = aggregates_of(both)
    for aggregate in (first, second):
        assert [one.name for one in aggregate.data_sets] == ["demo", "other"]
    assert second.title == "precision drop, split stratified, rotated hold-outs"


def test_a_method_beside_the_rival_has_the_probability_of_its_seeds_within_its_bounds(tables):
    table = tables["demo"]
    rows = {row.name: row for row in table.rows}
    rival = rows[BASELINE].seeds[table.main_metric]
    for method in over(table, 2).methods:
        if method.name == BASELINE:
            assert method.improvement is None
            continue
        assert method.improvement is not None
        share, low, high = method.improvement
        own = rows[method.name].seeds[table.main_metric]
        above, equal = own[:, None] > rival[None, :], own[:, None] == rival[None, :]
        assert share == pytest.approx((above + 0.5 * equal).mean())
        assert 0 <= low <= share <= high <= 1


def test_a_data_set_that_ranks_few_methods_enters_no_mean_rank(tables):
    table = tables["demo"]
    metric = table.main_metric
    all_rows = DataSet(table, {row.name: row for row in table.rows})
    few = DataSet(table, {row.name: row for row in table.in_order(metric)[2:3]})
    aggregate = aggregate_of("precision drop", metric, [all_rows, few, all_rows], BASELINE)
    assert aggregate is not None and aggregate.ranked_on == (all_rows, all_rows)
    assert [method.mean_rank for method in aggregate.methods] == [1, 2, 3]
    lines = list(rank_lines(replace(aggregate, data_sets=(all_rows, few))))
    assert lines == ["demo ranks 1 of 3 methods and enters no mean rank."]
    alone = aggregate_of("precision drop", metric, [all_rows, few], BASELINE)
    assert alone is not None and alone.ranked_on == ()
    assert {method.mean_rank for method in alone.methods} == {None}
    assert "mean rank" not in [column.head for column in methods_table(alone).columns]
    [line] = rank_lines(alone)
    assert line.startswith("There are no mean ranks: they need two data sets that rank the same 3")


@pytest.mark.parametrize(
    ("signs", "survives", "is_reversed"),
    [
        ((1, 1, 1), True, False),
        ((-1, None, -1), True, False),
        ((1, 0, 1), False, False),
        ((1, None), False, False),
        ((1, -1, 0), False, True),
    ],
)
def test_a_difference_survives_where_all_data_sets_agree(signs, survives, is_reversed):
    pair = Pair("one", "other", signs)
    assert (pair.survives, pair.is_reversed) == (survives, is_reversed)


def test_the_page_shows_aggregates_with_profiles_from_five_data_sets_on(tables):
    table = tables["demo"]
    pages = [
        index_page(Board([table], [over(table, count)], {}, [], [], "dml-bench leaderboard"))
        for count in (2, 5)
    ]
    assert "11 runs in 1 table. Every" in text_of(pages[0])
    assert "Interquartile means and performance profiles need 5 data sets." in pages[0]
    assert ["profiles-" in page for page in pages] == [False, True]
    assert "mean rank better than the classifier" in text_of(pages[0])
    assert "mean rank interquartile mean better than the classifier" in text_of(pages[1])


def test_a_profile_says_on_which_side_it_is_better_and_in_which_unit(tables):
    """Of the cost of being unseen, in points, the page said that farther right is better."""
    table = tables["demo"]
    [cost] = [name for name in table.rankings if table.metric(name).lower_is_better][:1]
    text = str(list(aggregate_blocks([over(table, 5), over(table, 5, cost)])))
    assert text.count("farther right is better") == text.count("farther left is better") == 1
    assert f"{table.metric(cost).column}, points" in text


REALITY = {
    "grocery/given-random-20-x-4": (
        "ProxyNCA_cosine_head~model.backbone.name=efficientnet_lite0",
        "crossentropy_head~model.backbone.name=efficientnet_lite0",
    ),
    "demo/stratified-random-10-x-4": (
        "ProxyNCA_cosine_resnet18_sgd_aug",
        "crossentropy_resnet18_sgd_aug",
    ),
}


def test_a_table_over_data_sets_has_one_revision_of_each(tmp_path):
    folder = tmp_path / "demo" / "stratified-random-10-x-4"
    experiments = ("EPSHN_cosine_resnet18_sgd_aug", CLASSIFIER, "ArcFace_cosine_resnet18_sgd_aug")
    for experiment in experiments:
        (folder / experiment).mkdir(parents=True)
        for suffix in (".json", record_format.ANSWERS_SUFFIX):
            name = f"{experiment}/seed-42{suffix}"
            shutil.copyfile(RESULTS / folder.relative_to(tmp_path) / name, folder / name)

    def revise(content):
        content.facts["summary"]["dataset"]["fingerprint"] = "e" * 64

    answer_otherwise(folder / experiments[0] / "seed-42.json", revise)
    [entry] = [entry for entry in read_table("reality").data if entry.dataset == "demo"]
    data_set = data_set_of(entry, tmp_path, None, tuned=False)
    assert {row.name for row in data_set.rows.values()} == set(experiments[1:])


def copy_records(results: Path, division: str, row: str, seeds: tuple[int, ...]) -> None:
    (results / division / row).mkdir(parents=True)
    for seed in seeds:
        for suffix in (".json", record_format.ANSWERS_SUFFIX):
            name = f"{division}/{row}/seed-{seed}{suffix}"
            shutil.copyfile(RESULTS / name, results / name)


def test_a_data_set_with_one_seed_is_named_and_not_counted(tmp_path):
    """It was counted among those on which a method was not surely better."""
    for division, rows in REALITY.items():
        for row in rows:
            copy_records(tmp_path, division, row, (42, 43, 44))
    for row in ("EPSHN_cosine_characters", "crossentropy_characters"):
        copy_records(tmp_path, "omniglot/grouped-by-drawer-random-60-x-2", row, (42,))
    _, studies = aggregates_of_table("reality", tmp_path)
    assert list(studies) == ["grocery", "omniglot", "demo"]
    ending = " omniglot has 1 seed and says nothing yet."
    for sentence in (beside_classifier(studies), cost_of_new(studies), trade_off(studies)):
        assert sentence.endswith(f"of 2 data sets.{ending}")
    assert beside_classifier({"omniglot": studies["omniglot"]}) == ending.strip()


def test_a_data_set_whose_rows_train_nothing_is_compared_by_what_it_has(tmp_path):
    """Its table has no cost of being unseen, and the board ended with a KeyError."""
    for division, rows in REALITY.items():
        for row in rows:
            copy_records(tmp_path, division, row, (42, 43, 44))
    drawers = "omniglot/grouped-by-drawer-random-60-x-2"
    copy_records(tmp_path, drawers, "frozen_efficientnet_lite0", (42,))
    with_frozen, _ = aggregates_of_table("reality", tmp_path)
    by_metric = {aggregate.metric.name: aggregate for aggregate in with_frozen}
    cost = by_metric["cost_of_being_unseen"]
    assert [one.name for one in cost.data_sets] == ["grocery", "omniglot", "demo"]
    assert {method.name for method in cost.methods} == {"ProxyNCA", "classifier"}
    assert {method.values[1] for method in cost.methods} == {None}
    assert cost.data_sets[1].why_not("no training", cost.metric.name) == "no training"
    right = by_metric["precision_at_1_macro"].methods
    assert "no training" in {method.name for method in right}
    shutil.rmtree(tmp_path / "grocery")  # the first data set has no cost now
    again, _ = aggregates_of_table("reality", tmp_path)
    assert [aggregate.metric.name for aggregate in again] == list(by_metric)


def test_a_best_method_is_surely_better_where_that_holds_for_all_it_was_picked_from():
    record = RESULTS / "demo" / "stratified-last-10"
    names = ("EPSHN_cosine_resnet18_sgd_aug", "ProxyNCA_cosine_resnet18_sgd_aug")
    [study] = studies_of(collect([record / name for name in (*names, CLASSIFIER)]))
    plain = study.beside_rival(study.best, "known")
    together = of_best(study, plain)
    assert (plain.level, together.level) == (0.95, 0.975)
    assert together.low < plain.low


def test_where_no_training_finds_more_of_new_classes_the_answer_over_data_sets_says_so():
    record = RESULTS / "flowers102_part" / "stratified-random-22-x-4"
    names = (
        f"{head}~model.backbone.name=efficientnet_lite0"
        for head in ("ProxyNCA_cosine_head", "SupCon_cosine_head")
    )
    folders = [record / name for name in (*names, "frozen_efficientnet_lite0")]
    [study] = studies_of(collect(folders))
    assert cost_of_new({"flowers102_part": study}).endswith(
        " On such classes the best method is surely better than no training on 0 of 1 data set,"
        " surely worse on 1 of 1 data set."
    )


def test_a_row_without_training_stands_beside_all_seeds_of_the_same_queries():
    """It said of grocery, where no training was recorded once, that one seed says nothing."""
    record = RESULTS / GROCERY
    names = ("ProxyAnchor_cosine_head", "SupCon_cosine_head")
    folders = [record / f"{name}~model.backbone.name=efficientnet_lite0" for name in names]
    [study] = studies_of(collect([*folders, record / "frozen_efficientnet_lite0"]))
    assert len(study.no_training.runs) == 1 and len(study.best_unseen.runs) >= 5
    assert "seed" not in cost_of_new({"grocery": study})


def test_a_table_over_data_sets_says_which_differences_survive(tmp_path, monkeypatch, capsys):
    for division, rows in REALITY.items():
        for row in rows:
            copy_records(tmp_path / "results", division, row, (42, 43, 44))
    typed = ("report", tmp_path / "results", "--table", "reality", "--out", tmp_path / "page")
    assert dml_bench(monkeypatch, *typed) == 0
    page = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    assert "ProxyNCA better than classifier" in page
    assert page.count("on all: ") >= 1
    for question in STUDY_QUESTIONS:
        assert f"{question}\n" in page
    assert "surely costs something on 2 of 2 data sets" in page
    shutil.rmtree(tmp_path / "results" / "demo")
    assert dml_bench(monkeypatch, *typed) == 0
    page = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    assert "Too few data sets have records to compare methods over them: grocery." in page
    line = refusal(monkeypatch, capsys, "report", tmp_path, "--table", "realty")
    assert "unknown table 'realty' (did you mean reality?)" in line


def test_the_page_over_data_sets_has_the_figures_that_were_asked_for(tmp_path):
    """All were drawn, whatever --figures said."""
    pattern = "profiles-*_unseen_limited"
    db.write_report(RESULTS, tmp_path, table="reality", figures=pattern)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    drawn = sorted(file.stem for file in (tmp_path / "figures").glob("*.png"))
    assert drawn == ["profiles-precision_at_1_macro_unseen_limited"]
    assert page.count("![") == 1


def test_a_record_that_can_t_be_read_is_named_on_the_page_over_data_sets(tmp_path):
    """The methods were compared without it, and nothing was said."""
    for division, rows in REALITY.items():
        for row in rows:
            copy_records(tmp_path / "results", division, row, (42, 43, 44))
    drawers = "omniglot/grouped-by-drawer-random-60-x-2"
    copy_records(tmp_path / "results", drawers, "EPSHN_cosine_characters", (42,))
    first = tmp_path / "results" / GROCERY / REALITY[GROCERY][0] / "seed-42.json"
    [alone] = (tmp_path / "results" / drawers).rglob("*.json")
    for path in (first, alone):
        path.write_text(path.read_text().replace('"seed": 42', '"seed": 41'))
    said: list[str] = []

    class Listener(db.Callback):
        def note(self, text: str) -> None:
            said.append(text)

    out = tmp_path / "page"
    db.write_report(tmp_path / "results", out, table="reality", callback=Listener())
    lost, left_out = said
    assert lost.startswith(f"{first} can't be read: it was changed after")
    assert left_out.startswith(f"omniglot is left out: there is nothing to report on: {alone} ")
    page = (out / "report.md").read_text(encoding="utf-8")
    assert "Problems with these runs: 2" in page
    assert "(grocery, demo)" in page


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_filters_and_ranks_by_another_metric_in_a_browser(site, width):
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=PATIENCE
        )
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.set_default_timeout(PATIENCE)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "index.html").as_uri())
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
        page.fill("#text", "proxy")
        assert page.locator("tbody tr:visible").count() == 2
        assert page.inner_text("#count") == "2 of 8 rows"
        page.fill("#text", "")
        page.select_option("#kind", "no training")
        assert page.locator("tbody tr:visible").count() == 1
        page.select_option("#kind", "")
        page.check("#ranked")
        assert page.locator("tbody tr:visible").count() == 6
        page.click("section >> nth=0 >> text=P@1 all")
        ranks = page.locator("section >> nth=0 >> td.rank:visible").all_inner_texts()
        assert ranks == sorted(ranks)
        page.click("section >> nth=0 >> tbody th a >> nth=0")
        assert "Beside the other rows" in page.inner_text("main")
        assert errors == []
        browser.close()
