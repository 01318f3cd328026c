"""A submission beside those of its table: what the same queries, the same split and the same images
decide is the same for all, wherever in a folder of results they lie."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from forgery import answers_of_its_own, row_of_its_own, say_otherwise

from dml_bench.analysis.collect import collect
from dml_bench.board.leaderboard import write_site
from dml_bench.board.verify import VerifyRequest, verify_all
from dml_bench.system.callbacks import Callback

RESULTS = Path(__file__).parents[2] / "results"
TABLE = "demo/stratified-last-10"
EPSHN, ARCFACE = "EPSHN_cosine_resnet18_sgd_aug", "ArcFace_cosine_resnet18_sgd_aug"
FROZEN = RESULTS / "demo/stratified-random-10-x-4/frozen_resnet18/seed-42.json"
SEEDS = (42, 43, 44)


def record_of(seed: int, name: str = EPSHN) -> Path:
    return RESULTS / TABLE / name / f"seed-{seed}.json"


@pytest.fixture
def results(tmp_path) -> Path:
    """Three seeds of a row of the repository."""
    folder = tmp_path / "results"
    shutil.copytree(RESULTS / TABLE / EPSHN, folder / TABLE / EPSHN)
    for path in (folder / TABLE / EPSHN).iterdir():
        if not path.name.startswith(tuple(f"seed-{seed}." for seed in SEEDS)):
            path.unlink()
    return folder


def said_of(path: Path, results: Path, verdict: str = "refused") -> set[tuple[str, str]]:
    """Names and texts of the findings of a submission among all of a folder."""
    verified = verify_all([results], VerifyRequest(cache_dir=results))
    [findings] = [one.of(verdict) for one in verified if one.path == path]
    return {(finding.name, finding.text) for finding in findings}


def names_of(findings: set[tuple[str, str]]) -> set[str]:
    return {name for name, _ in findings}


def other_labels(content):
    answers_of_its_own(content)
    labels = content.arrays["query_labels"]
    first, second = labels == 0, labels == 1
    labels[first], labels[second] = 1, 0


def another_gallery(content):
    answers_of_its_own(content)
    content.arrays["gallery_counts"][:2] += np.array([1, -1], np.int8).astype(np.uint8)


def other_names(content):
    answers_of_its_own(content)
    names = content.facts["class_names"]
    names[0], names[1] = names[1], names[0]


def fewer_queries(content):
    answers_of_its_own(content)
    queries = len(content.arrays["query_labels"])
    for name, array in content.arrays.items():
        if array.shape == (queries,):
            content.arrays[name] = array[np.arange(queries) % 7 != 0]
    content.facts["summary"]["split"]["test_images"] = len(content.arrays["query_labels"])


@pytest.mark.parametrize(
    ("change", "refused_for"),
    [
        (answers_of_its_own, set()),
        (other_labels, {"query set"}),
        (another_gallery, {"split facts"}),
        (other_names, {"query set"}),
        (fewer_queries, {"query set", "settings", "split facts"}),
    ],
)
def test_the_same_queries_have_the_same_classes_and_the_same_split_the_same_gallery(
    change, refused_for, results
):
    """Who says that they are the same, by their digests, is compared with others query by query."""
    path = row_of_its_own(record_of(42), results, "mine", "somebody", change)
    assert names_of(said_of(path, results)) == refused_for


def test_a_row_in_another_folder_does_not_take_the_place_of_a_row_of_its_name(results):
    for seed in SEEDS:
        path = row_of_its_own(
            record_of(seed), results / "a_first", EPSHN, "somebody", answers_of_its_own
        )
        ((name, text),) = said_of(path, results)
        assert name == "place"
        assert text.endswith("another row of this name, of the repository: give it another name")
    own = results / TABLE / EPSHN / "seed-42.json"
    assert said_of(own, results) == set()
    index = write_site(
        results, results.parent / "site", VerifyRequest(cache_dir=results), "me", Callback()
    )
    assert "somebody" not in index.read_text().partition('id="refused"')[0]


def test_a_name_that_differs_in_case_alone_is_no_name_of_its_own(results):
    """Where file systems make no difference, one of the two would be written over the other."""
    own = results / TABLE / EPSHN
    path = row_of_its_own(record_of(45), results, EPSHN.upper(), "somebody", answers_of_its_own)
    text = f"its folder and {own} differ in upper and lower case alone: give it another name"
    assert said_of(path, results) == {("place", text)}
    assert said_of(own / "seed-42.json", results) == set()


def test_seeds_in_another_folder_are_no_seeds_of_a_row_with_other_settings(results):
    """The first of the two would be shown, and the other one left out."""
    path = row_of_its_own(
        record_of(42),
        results / "a_first",
        EPSHN,
        "somebody",
        answers_of_its_own,
        seed=45,
        optimizer__lr=0.3,
    )
    assert names_of(said_of(path, results)) == {"place"}
    assert said_of(results / TABLE / EPSHN / "seed-42.json", results) == set()


def test_nobody_adds_seeds_to_a_row_of_others(results):
    """Bad ones would make a rival look worse, and good ones would be another's."""
    path = row_of_its_own(record_of(45), results, EPSHN, "somebody", answers_of_its_own)
    assert names_of(said_of(path, results)) == {"place"}
    assert said_of(results / TABLE / EPSHN / "seed-42.json", results) == set()
    mine = row_of_its_own(record_of(42), results, "mine", "me", answers_of_its_own)
    more = row_of_its_own(record_of(43), results, "mine", "somebody", answers_of_its_own)
    for one in (mine, more):
        assert said_of(one, results) == set()
        assert "place" in names_of(said_of(one, results, "review"))


def test_a_run_that_somebody_else_hands_in_again_elsewhere_is_for_review(results):
    path = row_of_its_own(record_of(42), results / "a_first", "mine", "somebody")
    assert (
        "same answers",
        f"{results / TABLE / EPSHN / 'seed-42.json'} has the same, by other people",
    ) in (said_of(path, results, "review"))


@pytest.mark.parametrize("record", [record_of(43), FROZEN], ids=["settings", "submitted once"])
def test_a_run_that_says_it_began_earlier_gets_no_other_one_refused(record, tmp_path):
    """The time of its beginning is one more thing that a submission says of itself."""
    results = tmp_path / "results"
    settings = {} if record == FROZEN else {"seed": 43, "optimizer__lr": 0.3}
    honest = row_of_its_own(record.with_name("seed-42.json"), results, "mine", "somebody")
    later = row_of_its_own(record, results, "mine" if settings else "copied", "mallory", **settings)
    say_otherwise(later, lambda said: said["session"].update(started_at="1999-01-01"))
    for path in (honest, later):
        assert said_of(path, results) == set()
        assert {"settings", "submitted once"} & names_of(said_of(path, results, "review"))


def test_a_row_in_another_folder_is_compared_with_those_of_its_table(results):
    path = row_of_its_own(record_of(42), results / "a_first", "mine", "somebody", other_labels)
    assert names_of(said_of(path, results)) == {"query set"}


def test_rows_that_contradict_each_other_are_both_shown_and_never_paired(results):
    """Nobody knows whose classes are those of the images."""
    shutil.rmtree(results / TABLE / EPSHN)
    for seed in SEEDS:
        for name, change in (("one", answers_of_its_own), ("two", other_labels)):
            row_of_its_own(record_of(seed), results, name, name, change)
    path = results / TABLE / "one" / "seed-42.json"
    assert said_of(path, results) == set()
    assert "query set" in names_of(said_of(path, results, "review"))
    index = write_site(
        results, results.parent / "site", VerifyRequest(cache_dir=results), "me", Callback()
    )
    assert "shares queries with other rows on under 3 seeds" in index.read_text()


def test_seeds_on_queries_of_other_classes_are_no_row(results):
    """Their mean would be over other classes with each seed."""

    def another_id(content):
        answers_of_its_own(content)
        for name, array in content.arrays.items():
            if name.endswith((".nearest", ".elected")):
                array[array == 1] = 41
        content.arrays["query_labels"][content.arrays["query_labels"] == 0] = 40
        first, *counts = content.arrays["gallery_counts"].tolist()
        content.arrays["gallery_counts"] = np.array([0, *counts, first], np.uint8)
        names, summary = content.facts["class_names"], content.facts["summary"]
        content.facts["class_names"] = [*names[1:], names[0]]
        unseen = content.facts["class_names"][-10:]
        summary["unseen_classes"] = summary["holdouts"][0]["unseen_classes"] = unseen

    shutil.rmtree(results / TABLE / EPSHN)
    row_of_its_own(record_of(42), results, "mine", "somebody", answers_of_its_own)
    path = row_of_its_own(record_of(43), results, "mine", "somebody", another_id)
    collection = collect([results])
    assert [run.seed for run in collection.runs] == [42]
    assert collection.problems == [
        f"{path} is left out: {path.with_name('seed-42.json')} has the same experiment on queries"
        " of other classes"
    ]


def test_a_copy_whose_answers_are_exchanged_within_classes_is_for_review(results):
    """Each number stays as it is, and few answers are those of the copied row."""

    def exchange(content):
        labels = content.arrays["query_labels"].astype(np.int64)
        order = np.arange(len(labels))
        for label in np.unique(labels):
            places = np.flatnonzero(labels == label)
            order[places] = places[::-1]
        for name, array in content.arrays.items():
            if array.shape == labels.shape:
                content.arrays[name] = array[order]

    path = row_of_its_own(record_of(42), results, "mine", "somebody", exchange)
    [(name, text)] = said_of(path, results, "review")
    assert name == "same answers"
    copied = f"{EPSHN}/seed-42.json has as many right in each class and phase"
    assert text == f"{copied}, by other queries"
