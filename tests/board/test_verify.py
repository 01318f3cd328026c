"""A submission is refused by name where its answers don't give what it says, and where they can
only come of an accident that happened to others: the query in its own gallery, mixed revisions."""

import hashlib
import json
import lzma
import re
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forgery import (
    answer_otherwise,
    forget_the_summary,
    only_answer_otherwise,
    read,
    say_otherwise,
)
from tiny import dml_bench, refusal

import dml_bench as db
from dml_bench.board import against_images, rerun
from dml_bench.board.rerun import differs
from dml_bench.board.submission import Finding, open_submission
from dml_bench.board.verify import VerifyRequest, verify, verify_all
from dml_bench.data import synthetic
from dml_bench.data.datasets import open_dataset
from dml_bench.evaluation.calibration import Calibration
from dml_bench.runs import record_format, record_schema
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.record import rewrite_record
from dml_bench.runs.run import read_folder, read_record

RESULTS = Path(__file__).parents[2] / "results"
EXPERIMENTS = sorted({path.parent for path in RESULTS.rglob("seed-*.json")})
BIRDS = "demo/stratified-last-10/{}/seed-{}.json"
EPSHN, ARCFACE = "EPSHN_cosine_resnet18_sgd_aug", "ArcFace_cosine_resnet18_sgd_aug"
CLASSIFIER = "crossentropy_resnet18_sgd_aug"
KINDS = {
    "rotated": ("unseen=random:2 x 2",),
    "logits": ("loss=crossentropy", "miner=none", "model.head=identity"),
    "disjoint": ("protocol=class_disjoint", "data.split=half", "unseen=", "evaluate.nmi=true"),
}
ROTATED = f"demo/stratified-random-10-x-4/{EPSHN}/seed-42.json"
FROZEN = "grocery/given-random-20-x-4/frozen_efficientnet_lite0/seed-42.json"


@pytest.fixture
def submitted(tmp_path):
    """`submitted(name)` is a copy of a record of the repository, at its place below `results`."""

    def copy(name: str = BIRDS.format(EPSHN, 42), as_name: str = "") -> Path:
        path = tmp_path / "results" / (as_name or name)
        path.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".json", record_format.ANSWERS_SUFFIX):
            shutil.copyfile((RESULTS / name).with_suffix(suffix), path.with_suffix(suffix))
        return path

    return copy


@pytest.fixture(scope="module")
def of_trained(trained, tmp_path_factory) -> Path:
    """A submission of a run of these tests, whose images are at hand; nobody may change it."""
    results = tmp_path_factory.mktemp("submissions") / "results"
    return db.submit_run(trained("train.epochs=1").folder, results, by="me", revision="drawn")


@pytest.fixture
def copy_of_submission(of_trained, tmp_path) -> Path:
    results = tmp_path / "handed_in"
    shutil.copytree(of_trained.parents[3], results)
    return results / of_trained.relative_to(of_trained.parents[3])


def findings_of(path: Path, **request) -> tuple[Finding, ...]:
    return verify(path, VerifyRequest(**({"cache_dir": path.parent} | request))).findings


def refused_for(path: Path, **request) -> set[str]:
    """The names under which it is refused."""
    findings = findings_of(path, **request)
    return {finding.name for finding in findings if finding.verdict == "refused"}


def for_review(path: Path) -> dict[str, str]:
    return {one.name: one.text for one in findings_of(path) if one.verdict == "review"}


# The records of this repository


@pytest.mark.slow
@pytest.mark.parametrize("folder", EXPERIMENTS, ids=lambda folder: "/".join(folder.parts[-3:]))
def test_every_record_of_the_repository_adds_up(folder):
    for one in verify_all([folder], VerifyRequest(cache_dir=folder)):
        assert not one.is_refused, f"{one.lines()}: dml-bench submit {one.path}"


# What a forger says


@pytest.mark.parametrize("metric", ["cost_of_being_unseen", "precision_at_1_macro"])
def test_a_metric_that_is_off_by_1e_9_is_refused(metric, submitted):
    def flatter(description):
        description["numbers"][metric] += 1e-9

    path = submitted()
    say_otherwise(path, flatter)
    (finding,) = findings_of(path)
    assert (finding.verdict, finding.name) == ("refused", "metric")
    assert f"numbers.{metric} is" in f"numbers{finding.text}" or metric in finding.text


def test_an_interval_that_the_method_does_not_give_is_refused(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said["intervals"]["cost_of_being_unseen"].__setitem__(0, 0.0))
    assert refused_for(path) == {"interval"}


def test_single_classes_that_the_answers_do_not_give_are_refused(submitted):
    def better(description):
        row = next(iter(description["classes"]["rows"].values()))
        row[1] += 1

    path = submitted()
    say_otherwise(path, better)
    assert refused_for(path) == {"single classes"}


def test_many_classes_are_left_to_the_answers(submitted, monkeypatch):
    path = submitted()
    weight, names = path.stat().st_size, read(path)[0]["classes"]["rows"]
    monkeypatch.setattr(record_schema, "MOST_CLASSES", 39)
    assert refused_for(path) == {"schema"}
    rewrite_record(path)
    assert refused_for(path) == set()
    assert read(path)[0]["classes"]["rows"] == {}
    assert path.stat().st_size < weight - len("".join(names))


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("configuration_sha256", "0" * 64, "configuration sha256"),
        ("queries_sha256", "0" * 64, "query set"),
        ("nearest_sha256", "0" * 64, "answers"),
        ("copies_in_gallery", 7, "copies in gallery"),
        ("trained", False, "trained"),
        ("unseen", "last:9", "unseen"),
        ("profile", "", "profile"),
    ],
)
def test_a_fact_that_the_answers_contradict_is_refused_by_its_name(key, value, name, submitted):
    path = submitted()
    say_otherwise(path, lambda said: said.__setitem__(key, value))
    assert name in refused_for(path)


def test_a_lower_cost_than_the_run_recorded_is_refused(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said["cost"].__setitem__("train_seconds", 1.0))
    assert refused_for(path) == {"cost"}


def test_another_configuration_beside_the_same_answers_is_refused(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said["configuration"]["train"].__setitem__("epochs", 1))
    assert refused_for(path) == {"configuration sha256", "settings"}


def test_better_answers_than_those_of_the_summary_are_refused(submitted):
    """The summary was written when the run ended, and the forger forgot it."""

    def all_right(content):
        content.arrays["limited.nearest"][:] = 0

    path = submitted()
    answer_otherwise(path, all_right)
    assert refused_for(path) == {"summary"}


@pytest.mark.parametrize("experiment", [CLASSIFIER, EPSHN])
def test_what_tables_show_of_the_summary_has_to_be_of_the_answers(experiment, submitted):
    def praise(content):
        content.facts["summary"]["phases"]["all"]["logits_accuracy_macro_known"] = 1.0
        content.facts["summary"]["precision_drop_all_classes"] = 0.0

    path = submitted(BIRDS.format(experiment, 42))
    answer_otherwise(path, praise)
    findings = findings_of(path)
    assert [finding.name for finding in findings] == ["summary", "summary"]
    assert "logits" in findings[0].text
    assert "precision_drop_all_classes is 0.0 in it" in findings[1].text


def test_what_load_runs_shows_of_the_summary_has_to_be_of_the_answers(submitted):
    def praise(content):
        summary = content.facts["summary"]
        summary["phases"]["limited-2"]["precision_at_1_macro_unseen"] = 1.0
        summary["precision_drop_seen_classes"] = summary["cost_of_being_unseen_low"] = 0.0
        summary["precision_drop_unseen_classes_between_holdouts"] = 0.0

    path = submitted(ROTATED)
    answer_otherwise(path, praise)
    texts = [finding.text.partition(" is ")[0] for finding in findings_of(path)]
    assert texts == [
        "limited-2 precision_at_1_macro_unseen",
        "precision_drop_unseen_classes_between_holdouts",
        "precision_drop_seen_classes",
        "cost_of_being_unseen_low",
    ]


def test_a_summary_from_which_numbers_were_removed_is_refused(submitted):
    def remove(content):
        del content.facts["summary"]["phases"]["limited-2"]["precision_at_1_macro_unseen"]
        del content.facts["summary"]["precision_drop_seen_classes"]

    path = submitted(ROTATED)
    answer_otherwise(path, remove)
    assert [finding.text.partition(",")[0] for finding in findings_of(path)] == [
        "limited-2 has no precision_at_1_macro_unseen in it",
        "it has no precision_drop_seen_classes",
    ]


# What can't be read


def test_a_file_that_was_changed_after_it_was_written_is_refused(submitted):
    path = submitted()
    path.write_text(path.read_text().replace('"seed": 42', '"seed": 43'))
    assert refused_for(path) == {"damaged"}


def test_answers_of_another_run_are_refused(submitted):
    path, other = submitted(), submitted(BIRDS.format(EPSHN, 43))
    shutil.copyfile(
        other.with_suffix(record_format.ANSWERS_SUFFIX),
        path.with_suffix(record_format.ANSWERS_SUFFIX),
    )
    assert refused_for(path) == {"answers"}


def test_missing_answers_are_refused(submitted):
    path = submitted()
    path.with_suffix(record_format.ANSWERS_SUFFIX).unlink()
    assert refused_for(path) == {"answers"}


def test_a_stale_record_is_refused_with_the_command_that_writes_it_anew(submitted):
    path = submitted()
    text = path.read_text().replace('"record_version": 5', '"record_version": 3')
    seal_anew(path, text)
    (finding,) = findings_of(path)
    assert finding.name == "earlier version"
    assert f"dml-bench submit {path}" in finding.text
    db.submit_run(path)
    assert findings_of(path) == ()


def seal_anew(path: Path, text: str) -> None:
    """Write a text of JSON with a seal that fits it."""
    from dml_bench.system.files import UNSEALED, write_sealed

    unsealed = re.sub(r"xxh3_128:[0-9a-f]{32}", UNSEALED, text)
    write_sealed(path, lambda file: file.write(unsealed.encode()))


def test_facts_of_a_kind_that_no_page_can_show_are_refused(submitted):
    path = submitted()
    answer_otherwise(path, lambda content: content.facts["summary"]["cost"]["all"].update(spoilt()))
    assert refused_for(path) == {"cost"}
    say_otherwise(path, lambda said: said["session"].__setitem__("started_at", 5))
    assert refused_for(path) == {"schema"}


def spoilt() -> dict[str, object]:
    return {"start_seconds": "<script>", "embed_seconds": True, "search_seconds": -1.0}


@pytest.mark.parametrize("text", ["\x1b[2J", "one\ntwo", "\u202eroot", "\x9b31m", "\u2028"])
def test_text_that_a_terminal_would_obey_is_refused(text, submitted):
    path = submitted()
    say_otherwise(path, lambda said: said.__setitem__("submitted_by", text))
    assert refused_for(path) == {"schema"}
    submitted()
    say_otherwise(path, lambda said: said["session"]["packages"].__setitem__(text, "1.0"))
    assert refused_for(path) == {"schema"}
    submitted()
    answer_otherwise(path, lambda content: content.facts["class_names"].__setitem__(0, text))
    assert refused_for(path) & {"schema", "answers"}


@pytest.mark.parametrize("name", [" ", " me", "me\u00a0"])
def test_a_name_with_blanks_around_it_is_refused(name, submitted):
    """It would look like another's, or like nobody's."""
    path = submitted()
    say_otherwise(path, lambda said: said.__setitem__("submitted_by", name))
    assert refused_for(path) == {"schema"}


def test_a_name_is_shown_as_text_and_not_obeyed(submitted, monkeypatch, capsys):
    path = submitted()
    name = "[/red]\x1b[31mX\u202e"
    say_otherwise(path, lambda said: said["split"].__setitem__("kind", name))
    say_otherwise(path, lambda said: said["classes"]["rows"].__setitem__(name, [40, 40, 40]))
    assert dml_bench(monkeypatch, "verify", path) == 1
    printed = capsys.readouterr()
    assert not re.search("[\x1b\u202e]", printed.out + printed.err)
    line = refusal(monkeypatch, capsys, "verify", "\x1b[31m")
    assert r"error: \x1b[31m does not exist" in line


def test_an_unknown_key_is_refused(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said.__setitem__("rank", 1))
    (finding,) = findings_of(path)
    assert (finding.name, "rank" in finding.text) == ("schema", True)


def test_the_same_values_in_another_form_are_refused(submitted):
    path = submitted()
    values = json.loads(path.read_text())
    seal_anew(path, json.dumps(values))
    assert refused_for(path) == {"form"}


def test_a_record_above_50_kb_is_refused(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said["session"].__setitem__("platform", "x" * 50_000))
    assert refused_for(path) == {"size"}


def test_a_small_file_of_answers_that_unpacks_to_very_much_is_refused(submitted, monkeypatch):
    path = submitted()
    monkeypatch.setattr(record_format, "LARGEST_ANSWERS", 1000)
    (finding,) = findings_of(path)
    assert (finding.name, "under 1,000 bytes" in finding.text) == ("answers", True)


def test_answers_of_the_wrong_kind_are_a_refusal_and_no_crash(submitted):
    path = submitted()
    answer_otherwise(path, lambda content: content.facts["summary"].__setitem__("phases", 5))
    assert refused_for(path) == {"answers"}


@pytest.mark.parametrize("place", ["seed", "configuration.train.epochs", "dataset.num_images"])
def test_a_number_that_no_fraction_can_hold_is_a_refusal_and_no_crash(place, submitted):
    def enlarge(description):
        *tables, key = place.split(".")
        for table in tables:
            description = description[table]
        description[key] = 10**400

    path = submitted()
    say_otherwise(path, enlarge)
    assert refused_for(path)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (np.full(40, 2**57, np.uint64), "at most 67,108,864 images"),
        (np.full(40, -1, np.int64), "unsigned integers, got int64"),
        (np.full(40, np.nan), "unsigned integers, got float64"),
    ],
)
def test_counts_of_no_gallery_are_a_refusal_and_no_crash(counts, text, submitted):
    """Repeating class ids that often ended the process."""
    path = submitted()
    only_answer_otherwise(path, lambda content: content.arrays.update(gallery_counts=counts))
    (finding,) = findings_of(path)
    assert (finding.name, text in finding.text) == ("answers", True)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"[" * 100_000,
        b'{"__metadata__":{"run":"{}"},"x":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}',
    ],
    ids=["other", "nested", "cut off"],
)
def test_a_file_that_holds_no_arrays_is_a_refusal_and_no_crash(header, submitted):
    path = submitted()
    answers = lzma.compress(len(header).to_bytes(8, "little") + header)
    digest = hashlib.sha256(answers).hexdigest()
    say_otherwise(path, lambda said: said.__setitem__("answers_sha256", digest))
    path.with_suffix(record_format.ANSWERS_SUFFIX).write_bytes(answers)
    assert refused_for(path) == {"answers"}


@pytest.mark.parametrize("suffix", [".json", record_format.ANSWERS_SUFFIX])
def test_a_link_is_refused_wherever_it_leads_and_does_not_stop_others(suffix, submitted):
    path, other = submitted(), submitted(BIRDS.format(EPSHN, 43))
    link = other.with_suffix(suffix)
    link.unlink()
    link.symlink_to("/nowhere")
    (finding,) = findings_of(other)
    assert (finding.name, f"{link} is a link" in finding.text) == ("damaged", True)
    assert findings_of(path) == ()


def test_records_of_a_linked_folder_are_said_not_to_be_checked(
    submitted, tmp_path, monkeypatch, capsys
):
    path = submitted()
    link = path.parents[1] / "linked"
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    assert dml_bench(monkeypatch, "verify", tmp_path / "results") == 0
    printed = capsys.readouterr()
    assert f"warning: {link} is a link, so nothing in it is checked" in printed.err
    assert printed.out.startswith("1 checked")


def test_a_version_that_is_no_whole_number_is_said_to_be_none(submitted):
    path = submitted()
    seal_anew(path, path.read_text().replace('"record_version": 5', '"record_version": 5.0'))
    (finding,) = findings_of(path)
    assert "must be a whole number, got a number with a decimal point" in finding.text


def test_answers_hold_nothing_else(submitted):
    def hide(content):
        content.arrays["hidden"] = np.zeros(9, np.uint8)
        content.facts["last_step"] = 0

    path = submitted()
    only_answer_otherwise(path, hide)
    texts = [finding.text for finding in findings_of(path)]
    assert texts[0] == "they hold 'hidden', which is no answer"
    assert "last_step must be a number from 1 to 255" in texts[1]
    add_to_the_answers(submitted(), b"hidden")
    (finding,) = findings_of(path)
    assert "holds more than the answers" in finding.text


def add_to_the_answers(path: Path, data: bytes) -> None:
    answers = path.with_suffix(record_format.ANSWERS_SUFFIX)
    data = answers.read_bytes() + data
    digest = hashlib.sha256(data).hexdigest()
    say_otherwise(path, lambda said: said.__setitem__("answers_sha256", digest))
    answers.write_bytes(data)


def test_measurements_of_another_kind_are_not_there(submitted):
    def spoil(content):
        content.facts["diagnostics"] = {"calibration": "none", "votes": {"ks": 5}}

    path = submitted()
    only_answer_otherwise(path, spoil)
    with pytest.raises(ValueError, match="is a record, which has no calibration of this version"):
        read_record(path).diagnostic("calibration", Calibration)


# Accidents that happened to others


def gallery_of_all_images(content) -> None:
    """Each query is in the gallery too, and finds itself."""
    queries = np.bincount(content.arrays["query_labels"])
    content.arrays["gallery_counts"] = (content.arrays["gallery_counts"] + queries).astype(np.uint8)
    find_themselves(content)


def find_themselves(content) -> None:
    """Nearly every query has itself as its nearest image: P@1 is .9994."""
    for phase in content.facts["similarities"]:
        content.arrays[f"{phase}.nearest"][:] = 0
        content.arrays[f"{phase}.nearest"][0] = 2
        content.arrays[f"{phase}.elected"][:] = 0
        content.facts["similarities"][phase] = [1.0, 1.0]
    forget_the_summary(content)


def find_themselves_wrong(content) -> None:
    """Every query has itself as its nearest image, which doesn't count as right: P@1 is 0.0."""
    labels, classes = content.arrays["query_labels"].astype(int), 40
    for phase in content.facts["similarities"]:
        content.arrays[f"{phase}.nearest"][:] = (labels + 1) % classes + 1
        content.arrays[f"{phase}.elected"][:] = 0
    forget_the_summary(content)


def test_nearly_perfect_scores_of_queries_that_lie_in_the_gallery_are_refused(submitted):
    """RP2k at .9998 for every model: embeddings-benchmark/results 487 and 589."""
    path = submitted()
    answer_otherwise(path, gallery_of_all_images)
    assert read_record(path).metrics["precision_at_1_macro"] > 0.999
    findings = findings_of(path)
    assert {finding.name for finding in findings} == {"query in the gallery"}
    assert any("1,920 were searched" in finding.text for finding in findings)
    assert any("as good as the query itself" in finding.text for finding in findings)


def test_they_are_refused_where_the_gallery_is_said_to_have_the_right_size(submitted):
    path = submitted()
    answer_otherwise(path, find_themselves)
    assert refused_for(path) == {"query in the gallery"}


def test_they_are_refused_where_a_few_queries_did_not_find_themselves(submitted):
    def all_but_one(content):
        find_themselves(content)
        for phase in content.facts["similarities"]:
            content.facts["similarities"][phase] = [0.9, 1.0]
            content.arrays[f"{phase}.similarity"][:] = content.facts["last_step"]
            content.arrays[f"{phase}.similarity"][0] = 0

    path = submitted()
    answer_otherwise(path, all_but_one)
    texts = [finding.text for finding in findings_of(path) if finding.verdict == "refused"]
    assert "in phase all the nearest image of 1,599 of 1,600 queries is as good" in texts[0]


@pytest.mark.parametrize(("copies", "verdicts"), [(0, {"review"}), (10, set())])
def test_some_queries_that_find_themselves_are_for_review_and_known_copies_are_not(
    copies, verdicts, submitted
):
    def some(content):
        content.facts["summary"]["copies"]["queries"] = copies
        for phase in content.facts["similarities"]:
            content.facts["similarities"][phase] = [0.4, 1.0]
            steps = content.arrays[f"{phase}.similarity"]
            steps[:] = np.minimum(steps, content.facts["last_step"] - 1)
            steps[:85] = content.facts["last_step"]

    path = submitted()
    answer_otherwise(path, some)
    findings = [one for one in findings_of(path) if one.name == "query in the gallery"]
    assert {one.verdict for one in findings} == verdicts


def test_scores_of_zero_of_queries_that_are_not_their_own_answer_are_refused(submitted):
    """CUB-200 at 0.0: embeddings-benchmark/results 487."""
    path = submitted()
    answer_otherwise(path, find_themselves_wrong)
    assert read_record(path).metrics["precision_at_1_macro"] == 0
    assert refused_for(path) == {"below chance"}


def test_a_model_that_guesses_is_not_below_chance(submitted):
    def guess(content):
        draws = np.random.default_rng(0).integers(0, 40, len(content.arrays["query_labels"]))
        labels = content.arrays["query_labels"].astype(int)
        for phase in content.facts["similarities"]:
            content.arrays[f"{phase}.nearest"] = record_format.encoded_classes(draws, labels)
            content.arrays[f"{phase}.elected"][:] = 0
        forget_the_summary(content)

    path = submitted()
    answer_otherwise(path, guess)
    assert findings_of(path) == ()


def test_scores_that_are_the_same_for_other_models_are_for_review(submitted):
    path, other = submitted(), submitted(BIRDS.format("EPSHN_cosine_resnet18_sgd", 42))
    answers = read(path)[1].arrays
    answer_otherwise(
        other,
        lambda content: content.arrays.update(answers) or forget_the_summary(content),
        weights={"all": "a" * 64},
    )
    assert refused_for(other) == set()
    assert "has the same ones by other weights" in for_review(other)["same answers"]


def test_the_same_answers_by_other_people_are_for_review(submitted):
    path = submitted()
    other = submitted(as_name=f"demo/stratified-last-10/{EPSHN}_again/seed-42.json")
    for record, by in ((path, "one"), (other, "another")):
        say_otherwise(record, lambda said, by=by: said.__setitem__("submitted_by", by))
    assert "by 'one' and 'another'" in for_review(path)["same answers"]


def test_the_same_answers_by_other_settings_in_another_folder_are_for_review(submitted, tmp_path):
    path = submitted()
    other = submitted(as_name=f"more/{BIRDS.format(EPSHN, 42)}")
    assert str(db.verify_submissions(tmp_path)) == "2 checked: 0 refused, 0 for review\n"

    def other_settings(content):
        content.facts["experiment"]["optimizer"]["momentum"] = 0.5

    answer_otherwise(other, other_settings)
    text = str(db.verify_submissions(tmp_path))
    assert text.endswith("2 checked: 0 refused, 2 for review\n")
    assert f"{path}: review: same answers: {other} has the same, by other settings" in text


def test_the_best_seeds_of_many_are_for_review_once_a_row(submitted):
    """Nothing in their answers is wrong."""
    kept = [submitted(BIRDS.format(EPSHN, seed)) for seed in (42, 44, 46)]
    reasons = [for_review(path) for path in kept]
    assert [list(one) for one in reasons] == [[], [], ["seeds"]]
    assert "its row has seeds 42, 44, 46 where seeds 42, 43, 44 should be" in reasons[-1]["seeds"]
    for seed in (43, 45):
        submitted(BIRDS.format(EPSHN, seed))
    assert for_review(kept[-1]) == {}
    alone = submitted(BIRDS.format(ARCFACE, 43))
    assert "its row has seed 43 where seed 42 should be" in for_review(alone)["seeds"]


def test_seeds_of_a_row_with_other_settings_are_refused(submitted):
    def other_settings(content):
        content.facts["experiment"]["optimizer"]["momentum"] = 0.5

    path, other = submitted(), submitted(BIRDS.format(EPSHN, 43))
    answer_otherwise(path, other_settings)
    assert refused_for(path) == refused_for(other) == {"settings"}
    say_otherwise(path, lambda said: said.__setitem__("submitted_by", "mallory"))
    (finding,) = [one for one in findings_of(path) if one.name == "settings"]
    assert "seed-43.json of its row has other settings (optimizer.momentum)" in finding.text
    assert findings_of(other) == ()


def test_seeds_with_a_search_each_may_differ_in_what_it_chose(submitted):
    tuned = (
        "tuned/demo/stratified-random-10-1-x-2/ArcFace_cosine_resnet18_sgd_aug~tuned/seed-{}.json"
    )
    path, other = (submitted(tuned.format(seed)) for seed in (42, 43))
    assert findings_of(path) == findings_of(other) == ()

    def another_schedule(content):
        content.facts["experiment"]["optimizer"]["momentum"] = 0.5

    answer_otherwise(path, another_schedule)
    assert refused_for(other) == {"settings"}


def fewer_epochs(content):
    content.facts["experiment"]["train"]["epochs"] = 1


def folded(content):
    content.facts["experiment"]["train"]["folds"] = 5


def larger(content):
    content.facts["experiment"]["data"]["dataset"]["per_class"] = 9999


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (fewer_epochs, "its train.epochs is 1, and all was trained for 72 epochs"),
        (folded, "its train.folds is 5, and phase all has the epochs of 0"),
        (larger, "its data.dataset draws 399,960 images, and it is of 1,920"),
    ],
)
def test_settings_of_which_the_run_recorded_otherwise_are_refused(change, text, submitted):
    path = submitted()
    answer_otherwise(path, change)
    assert next((one.name, one.text) for one in findings_of(path)) == ("settings", text)


def test_images_that_would_take_hours_to_draw_are_not_drawn(submitted):
    path = submitted()

    def of_huge_images(content):
        content.facts["experiment"]["data"]["dataset"]["size"] = 30_000

    answer_otherwise(path, of_huge_images)
    unchecked = [one.text for one in findings_of(path, draws=True) if one.verdict == "unchecked"]
    assert ["its data set draws 1,920 images of 30000 px" in text for text in unchecked] == [True]


def test_drawn_images_have_no_given_parts(submitted):
    path = submitted(as_name=f"demo/given-last-10/{EPSHN}/seed-42.json")

    def as_given(content):
        content.facts["experiment"]["data"]["split"] = "given"

    answer_otherwise(path, as_given)
    (finding,) = findings_of(path)
    assert (finding.name, "no given parts" in finding.text) == ("settings", True)


@pytest.mark.parametrize(
    ("table", "key", "value", "name"),
    [
        ("split", "fingerprint", "f" * 64, "split facts"),
        ("split", "valid_images", 10**9, "split facts"),
        ("dataset", "num_images", 99_999, "data facts"),
    ],
)
def test_published_images_have_their_published_split_and_size(table, key, value, name, submitted):
    path = submitted(FROZEN)
    answer_otherwise(path, lambda content: content.facts["summary"][table].update({key: value}))
    assert name in refused_for(path)


def test_one_fingerprint_has_one_size_and_one_drawing(submitted):
    path, other = submitted(), submitted(BIRDS.format(ARCFACE, 42))

    def drawn_otherwise(content):
        content.facts["experiment"]["data"]["dataset"]["seed"] = 8

    answer_otherwise(path, drawn_otherwise)
    assert list(for_review(path)) == list(for_review(other)) == ["data facts"]
    say_otherwise(path, lambda said: said.__setitem__("submitted_by", "mallory"))
    assert "data facts" in refused_for(path)
    assert findings_of(other) == ()


def no_training_time(content):
    content.facts["summary"]["cost"]["all"]["train_seconds"] = 0.0


def too_long(content):
    content.facts["summary"]["cost"]["total_seconds"] = 1e300


def too_short(content):
    content.facts["summary"]["cost"]["total_seconds"] = 0.0


@pytest.mark.parametrize("change", [no_training_time, too_long, too_short])
def test_times_that_do_not_add_up_are_refused(change, submitted):
    path = submitted()
    answer_otherwise(path, change)
    assert refused_for(path) == {"cost"}


def test_a_cpu_time_that_is_not_that_of_the_epochs_is_refused(submitted):
    def no_cpu_time(content):
        content.facts["summary"]["cost"]["all"]["train_cpu_seconds"] = 0.0

    path = submitted(f"attacks/{BIRDS.format(f'{CLASSIFIER}~evaluate.attack_epsilon=4.0', 42)}")
    answer_otherwise(path, no_cpu_time)
    assert refused_for(path) == {"cost"}


def test_weights_are_of_the_phases(submitted):
    path = submitted()
    say_otherwise(path, lambda said: said["weights"].update({"../all": "0" * 64}))
    assert refused_for(path) == {"weights"}


def test_a_copy_with_a_few_other_answers_is_for_review(submitted):
    submitted()
    other = submitted(as_name=BIRDS.format("mine", 42))

    def change_two(content):
        content.facts["experiment"]["name"] = "mine"
        content.arrays["all.nearest"][np.flatnonzero(content.arrays["all.nearest"])[:2]] = 0
        forget_the_summary(content)

    answer_otherwise(other, change_two)
    text = f"{EPSHN}/seed-42.json has 99.94% of the answers, errors too"
    assert for_review(other) == {"same answers": text}
    honest = submitted(BIRDS.format(ARCFACE, 42))
    assert findings_of(honest) == ()


def test_a_row_without_training_is_submitted_once(submitted):
    first = submitted(FROZEN)
    second = submitted(FROZEN, FROZEN.replace("seed-42", "seed-43"))

    def with_seed(content):
        content.facts["experiment"]["seed"] = content.facts["summary"]["seed"] = 43

    answer_otherwise(second, with_seed)
    assert refused_for(second) == {"submitted once"}
    assert refused_for(first) == set()


def test_two_rows_that_make_no_error_share_none(submitted):
    """A mean was taken of errors that there are not, and numpy warned of it on the terminal."""

    def all_right(content):
        for name, array in content.arrays.items():
            if name.endswith((".nearest", ".elected")):
                array[:] = 0
        forget_the_summary(content)

    paths = [submitted(BIRDS.format(name, 42)) for name in (EPSHN, ARCFACE)]
    for path in paths:
        answer_otherwise(path, all_right)
    with warnings.catch_warnings(action="error"):
        assert "same answers" not in for_review(paths[0])


def test_of_copies_without_training_the_one_by_somebody_else_is_refused(submitted):
    """Its name comes before that of the original."""
    first, copy = submitted(FROZEN), submitted(FROZEN, FROZEN.replace("frozen_", "a_copy_"))

    def rename(content):
        name = content.facts["experiment"]["name"]
        content.facts["experiment"]["name"] = name.replace("frozen_", "a_copy_")

    answer_otherwise(copy, rename, submitted_by="mallory")
    assert "submitted once" in refused_for(copy)
    assert refused_for(first) == set()


def test_another_revision_of_the_data_is_refused_in_a_table_of_one(submitted):
    """Leaderboards have ranked results of several revisions of a data set side by side."""
    kept = submitted(BIRDS.format(ARCFACE, 42))
    paths = [submitted(BIRDS.format(EPSHN, seed)) for seed in (42, 43, 44)]
    for path in paths:
        answer_otherwise(path, revise)
    assert list(for_review(paths[0])) == list(for_review(kept)) == ["data revision"]
    for path in paths:
        say_otherwise(path, lambda said: said.__setitem__("submitted_by", "mallory"))
    assert "data revision" in refused_for(paths[0])
    assert findings_of(kept) == (), "three forged ones don't outvote it"


def revise(content) -> None:
    content.facts["summary"]["dataset"]["fingerprint"] = "e" * 64


def test_a_published_data_set_has_its_published_images_or_a_folder_of_its_own(submitted):
    path = submitted(FROZEN)
    answer_otherwise(path, revise)
    (finding,) = findings_of(path)
    assert (finding.name, "--revision NAME" in finding.text) == ("data revision", True)
    own = submitted(FROZEN, FROZEN.replace("grocery/", "grocery_64px/"))
    assert refused_for(own) == {"data revision"}
    answer_otherwise(own, revise)
    assert findings_of(own) == ()


@pytest.mark.slow
def test_images_in_the_layout_of_a_published_data_set_are_not_that_data_set(
    trained, tmp_path, monkeypatch, capsys
):
    """No copy of CUB-200-2011 was at hand to know its fingerprint, but its size is known."""
    folder = trained("train.epochs=1").folder
    typed = ("submit", folder, "--results", tmp_path / "results", "--by", "me")
    line = refusal(monkeypatch, capsys, *typed)
    assert (
        "refused: data revision: it is of 64 images of 8 classes, the published cub of 11,788"
        in line
    )
    assert line.endswith("or submit it with --revision NAME")


def test_queries_that_differ_from_those_of_the_table_are_refused(submitted):
    for experiment in (ARCFACE, CLASSIFIER):
        submitted(BIRDS.format(experiment, 42))
    path = submitted()
    answer_otherwise(path, lambda content: content.facts.__setitem__("queries", "f" * 64))
    assert list(for_review(path)) == ["query set"]
    say_otherwise(path, lambda said: said.__setitem__("submitted_by", "me"))
    assert "query set" in refused_for(path)


def test_a_phase_that_answers_fewer_queries_than_another_is_refused(submitted):
    def leave_out(content):
        content.arrays["limited.nearest"] = content.arrays["limited.nearest"][:-1]

    path = submitted()
    only_answer_otherwise(path, leave_out)
    (finding,) = findings_of(path)
    assert finding.name == "query set"
    assert "must answer the same 1,600 queries as the others (nearest), got 1,599" in finding.text


def test_fewer_queries_than_the_split_has_are_refused(submitted):
    def leave_out(content):
        for name in content.arrays:
            if name != "gallery_counts":
                content.arrays[name] = content.arrays[name][1:]
        forget_the_summary(content)

    path = submitted()
    answer_otherwise(path, leave_out)
    assert refused_for(path) == {"query set"}


def test_fewer_classes_than_the_data_set_has_are_refused(submitted):
    def of_forty_one(content):
        content.facts["summary"]["dataset"]["num_classes"] = 41

    path = submitted()
    answer_otherwise(path, of_forty_one)
    assert refused_for(path) == {"class count"}


def test_fewer_held_out_classes_than_the_rule_says_are_refused(submitted):
    path = submitted()
    answer_otherwise(path, lambda content: content.facts["summary"]["holdouts"][0].update(nine()))
    assert "hold-outs" in refused_for(path)


def nine() -> dict[str, list[str]]:
    names = read_record(RESULTS / BIRDS.format(EPSHN, 42)).class_names
    return {"unseen_classes": list(names.values())[-9:]}


def test_held_out_classes_that_the_rule_does_not_draw_are_refused(submitted):
    def easier(content):
        names = content.facts["class_names"][:10]
        content.facts["summary"]["holdouts"][0]["unseen_classes"] = names
        forget_the_summary(content)

    path = submitted()
    answer_otherwise(path, easier)
    (finding,) = findings_of(path)
    assert (finding.name, "classes that last:10 draws" in finding.text) == ("hold-outs", True)


def test_a_hold_out_that_went_badly_can_not_be_left_out(submitted):
    def forget_the_last(content):
        phase = content.facts["summary"]["holdouts"].pop()["phase"]
        del content.facts["similarities"][phase]
        for name in [name for name in content.arrays if name.startswith(f"{phase}.")]:
            del content.arrays[name]
        forget_the_summary(content)

    path = submitted(ROTATED)
    answer_otherwise(path, forget_the_last)
    (finding,) = findings_of(path)
    assert (finding.name, "limited-4" in finding.text) == ("hold-outs", True)


@pytest.mark.parametrize(
    "place",
    [
        f"demo/given-last-10/{EPSHN}/seed-42.json",
        f"demo/stratified-last-20/{EPSHN}/seed-42.json",
        f"demo/stratified-last-10/{ARCFACE}/seed-42.json",
        f"demo/stratified-last-10/{EPSHN}/seed-43.json",
        f"cub/stratified-last-10/{EPSHN}/seed-42.json",
    ],
)
def test_a_record_in_the_table_of_another_protocol_split_or_data_set_is_refused(place, submitted):
    assert refused_for(submitted(as_name=place)) == {"place"}


# By content, and by the images


def test_a_submission_adds_up_beside_its_images(of_trained, birds, cache_dir):
    assert findings_of(of_trained, data_dir=birds, cache_dir=cache_dir) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_every_kind_can_be_submitted(kind, trained, birds, cache_dir, tmp_path):
    folder = trained("train.epochs=1", *KINDS[kind]).folder
    path = db.submit_run(folder, tmp_path / "results", by="me", revision="drawn")
    assert findings_of(path, data_dir=birds, cache_dir=cache_dir) == ()


def test_somebodys_submission_has_the_digests_of_its_images(copy_of_submission):
    def forget(content):
        del content.arrays["query_images"]

    answer_otherwise(copy_of_submission, forget)
    (finding,) = findings_of(copy_of_submission)
    assert finding.name == "query in the gallery"
    assert "digests of the queries and of the gallery are missing" in finding.text


def test_a_query_whose_file_is_also_in_the_gallery_is_refused(copy_of_submission):
    def copied(content):
        content.arrays["query_images"] = np.sort(content.arrays["gallery_images"][:13])

    answer_otherwise(copy_of_submission, copied)
    (finding,) = findings_of(copy_of_submission)
    assert finding.name == "query in the gallery"
    assert "13 of 13 queries are the same image as one of the gallery" in finding.text


def test_queries_with_other_labels_than_their_images_are_refused(
    copy_of_submission, birds, cache_dir
):
    def swapped(content):
        labels = content.arrays["query_labels"]
        labels[:] = labels[::-1].copy()
        forget_the_summary(content)

    answer_otherwise(copy_of_submission, swapped)
    assert refused_for(copy_of_submission) == set()
    request = {"data_dir": birds, "cache_dir": cache_dir}
    assert refused_for(copy_of_submission, **request) == {"query set"}


def test_the_digest_of_queries_is_that_of_the_images(copy_of_submission, birds, cache_dir):
    """With another one a row is compared with no other."""
    answer_otherwise(copy_of_submission, lambda content: content.facts.update(queries="0" * 64))
    assert refused_for(copy_of_submission, data_dir=birds, cache_dir=cache_dir) == {"query set"}


@pytest.mark.parametrize(("stated", "names"), [("bird", set()), ("fish", {"query set"})])
def test_coarse_classes_are_those_of_the_images(
    stated, names, copy_of_submission, birds, cache_dir, monkeypatch
):
    """By them errors count as near ones."""

    def with_coarse_classes(*arguments):
        dataset = open_dataset(*arguments)
        return replace(dataset, coarse_classes=("bird",) * len(dataset.class_names))

    def say_coarse_classes(content):
        content.facts["coarse_classes"] = [stated] * len(content.facts["class_names"])

    monkeypatch.setattr(against_images, "open_dataset", with_coarse_classes)
    answer_otherwise(copy_of_submission, say_coarse_classes)
    assert refused_for(copy_of_submission, data_dir=birds, cache_dir=cache_dir) == names


def test_a_run_that_is_made_again_gives_its_answers_again(of_trained, birds, cache_dir):
    request = {"data_dir": birds, "cache_dir": cache_dir, "rerun": True, "device": "cpu"}
    assert findings_of(of_trained, **request) == ()


def test_answers_that_the_run_does_not_give_again_are_refused(copy_of_submission, birds, cache_dir):
    def all_right(content):
        content.arrays["all.nearest"][:] = 0
        content.arrays["all.elected"][:] = 0
        forget_the_summary(content)

    answer_otherwise(copy_of_submission, all_right)
    assert findings_of(copy_of_submission) == ()
    request = {"data_dir": birds, "cache_dir": cache_dir, "rerun": True, "device": "cpu"}
    assert refused_for(copy_of_submission, **request) == {"rerun"}


def test_images_of_another_data_set_leave_a_submission_unchecked(submitted, birds, cache_dir):
    findings = findings_of(submitted(FROZEN), data_dir=birds, cache_dir=cache_dir)
    assert [(one.verdict, one.name) for one in findings] == [("unchecked", "images")]


@pytest.mark.parametrize("counts", [[8] * 9, []], ids=["other images", "no images"])
def test_a_run_is_not_made_again_on_other_images_than_its_own(
    counts, of_trained, cache_dir, tmp_path
):
    """It was trained on these: the answers differed, or could not be compared at all, and the
    checks of all other submissions ended with that."""
    if counts:
        synthetic.write(tmp_path / "CUB_200_2011", counts=counts, size=40, seed=4)
    request = {"data_dir": tmp_path, "cache_dir": cache_dir, "rerun": True, "device": "cpu"}
    images, again = findings_of(of_trained, **request)
    assert (images.verdict, images.name) in (("refused", "data revision"), ("unchecked", "images"))
    assert (again.verdict, again.name) == ("unchecked", "rerun")


def test_a_run_of_photos_is_not_made_again_without_them(of_trained, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "verify", of_trained, "--rerun")
    assert line.endswith("made again without its images: give their folder with --data DIR")


def test_a_run_made_again_elsewhere_is_refused_where_a_metric_is_another_one(submitted):
    submission = open_submission(submitted())
    others = "EPSHN_cosine_resnet18_sgd", EPSHN
    metric = metrics_of(submission.run.experiment)["precision_at_1_macro"]
    other, same = (read_record(RESULTS / BIRDS.format(name, 42)) for name in others)
    (finding,) = differs(metric, submission, other)
    assert finding.name == "rerun"
    assert "(99% interval" in finding.text
    assert [*differs(metric, submission, same)] == []


# Nothing is imported


def test_what_a_submission_names_is_never_imported(
    copy_of_submission, birds, cache_dir, tmp_path, monkeypatch
):
    ran = tmp_path / "ran"
    (tmp_path / "evil_plugin.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = {"kind": "loss", "name": "Evil", "module": "evil_plugin", "attribute": "Evil"}
    record = {**kind, "file": "", "sha256": "0" * 64, "summary": "evil", "source": "nobody 2026"}

    def name_a_plugin(content):
        table = content.facts["experiment"]
        table["loss"] = {"name": "Evil"}
        table["miner"] = {"name": "none"}
        table["plugins"] = {"imports": ["evil_plugin"], "components": [record]}

    answer_otherwise(copy_of_submission, name_a_plugin)
    request = {"data_dir": birds, "cache_dir": cache_dir, "rerun": True}
    findings = findings_of(copy_of_submission, **request)
    assert [(one.verdict, one.name) for one in findings] == [("unchecked", "rerun")]
    assert "evil_plugin" not in sys.modules
    assert not ran.exists()


def test_a_file_of_weights_that_a_submission_names_is_never_read(
    copy_of_submission, birds, cache_dir
):
    def name_a_file(content):
        content.facts["experiment"]["model"]["weights"] = "~/weights.pth"

    answer_otherwise(copy_of_submission, name_a_file)
    request = {"data_dir": birds, "cache_dir": cache_dir, "rerun": True}
    (finding,) = findings_of(copy_of_submission, **request)
    assert (finding.verdict, finding.name) == ("unchecked", "rerun")


def test_a_backbone_that_another_library_loads_by_its_name_is_never_read(
    copy_of_submission, birds, cache_dir, monkeypatch
):
    """A hub holds whatever anybody uploads, and a folder is a folder of this machine."""

    def name_a_backbone(content):
        content.facts["experiment"]["model"]["backbone"] = {"name": "hf:mallory/encoder"}
        content.facts["experiment"]["model"]["weights"] = "imagenet"

    def never(request):
        raise AssertionError("it was run")

    monkeypatch.setattr(rerun, "execute", never)
    answer_otherwise(copy_of_submission, name_a_backbone)
    request = {"data_dir": birds, "cache_dir": cache_dir, "rerun": True}
    (finding,) = findings_of(copy_of_submission, **request)
    assert (finding.verdict, finding.name) == ("unchecked", "rerun")


@pytest.mark.parametrize("table", ["../secret.csv", "/etc/secret.csv"])
def test_a_table_outside_of_the_folder_of_images_is_never_read(
    table, copy_of_submission, birds, cache_dir
):
    """An error about its header would tell what is in it."""

    def name_a_table(content):
        content.facts["experiment"]["data"]["dataset"] = {"name": "csv", "table": table}

    answer_otherwise(copy_of_submission, name_a_table)
    findings = findings_of(copy_of_submission, data_dir=birds, cache_dir=cache_dir)
    texts = [one.text for one in findings if one.name == "images"]
    assert texts == [
        f"its table {table} is outside of the folder of the images, where nothing is read"
    ]


# Submitting, and the commands


def test_a_run_is_submitted_with_its_name_its_images_and_the_digests_of_its_weights(
    of_trained, trained
):
    run = read_folder(trained("train.epochs=1").folder)
    description, content = read(of_trained)
    assert description["submitted_by"] == "me"
    assert description["weights"] == {phase: run.weights_digest(phase) for phase in run.neighbours}
    assert len(content.arrays["query_images"]) == description["split"]["test_images"]
    assert read_record(of_trained).metrics == run.metrics


@pytest.mark.parametrize("name", [(), ("--by", " ")], ids=["none", "blank"])
def test_a_submission_needs_a_name_that_answers_for_it(
    name, trained, tmp_path, monkeypatch, capsys
):
    folder = trained("train.epochs=1").folder
    line = refusal(monkeypatch, capsys, "submit", folder, "--results", tmp_path / "results", *name)
    assert line == "error: a submission needs a name that answers for it: give --by NAME"
    assert not (tmp_path / "results").exists()


def test_a_record_of_others_or_of_another_run_is_not_written_over(
    copy_of_submission, trained, monkeypatch, capsys
):
    folder, results = trained("train.epochs=1").folder, copy_of_submission.parents[3]
    typed = ("submit", folder, "--results", results, "--revision", "drawn")
    assert dml_bench(monkeypatch, *typed, "--by", "me") == 0, "the same run"
    capsys.readouterr()
    before = copy_of_submission.read_bytes()
    line = refusal(monkeypatch, capsys, *typed, "--by", "another")
    assert f"{copy_of_submission} is a record of 'me': run the experiment under another" in line
    assert line.endswith("or replace the record with --replace")
    assert copy_of_submission.read_bytes() == before
    line = refusal(monkeypatch, capsys, "submit", copy_of_submission, "--by", "another")
    assert line.endswith("not of 'another': submit the folder of the run instead")
    say_otherwise(copy_of_submission, lambda said: said["session"].update(started_at="2026-01-01"))
    line = refusal(monkeypatch, capsys, *typed, "--by", "me")
    assert "is a record of another run" in line
    assert dml_bench(monkeypatch, *typed, "--by", "another", "--replace") == 0
    assert read(copy_of_submission)[0]["submitted_by"] == "another"
    copy_of_submission.write_bytes(before[:-9])  # cut off
    line = refusal(monkeypatch, capsys, *typed, "--by", "me")
    assert line.endswith(
        "record the run again with `dml-bench record RUN`; --replace writes over it"
    )
    assert dml_bench(monkeypatch, *typed, "--by", "me", "--replace") == 0
    assert read(copy_of_submission)[0]["submitted_by"] == "me"


def test_a_record_of_the_repository_is_written_anew_as_the_same_bytes(submitted):
    path = submitted()
    before = path.read_bytes()
    assert db.submit_run(path) == path
    assert path.read_bytes() == before


def test_intervals_of_an_earlier_method_are_refused_until_the_record_is_written_anew(submitted):
    path = submitted()

    def with_an_earlier_interval(content):
        content.facts["summary"]["precision_drop_seen_classes_low"] -= 0.01

    answer_otherwise(path, with_an_earlier_interval)
    assert refused_for(path) == {"summary"}
    assert db.submit_run(path) == path
    assert findings_of(path) == ()


def test_verify_names_each_refusal_and_ends_with_exit_code_1(submitted, monkeypatch, capsys):
    path, forged = submitted(), submitted(BIRDS.format(EPSHN, 43))
    say_otherwise(forged, lambda said: said["numbers"].__setitem__("test_accuracy", 1.0))
    assert dml_bench(monkeypatch, "verify", path) == 0
    assert capsys.readouterr().out == "1 checked: 0 refused, 0 for review\n"
    assert dml_bench(monkeypatch, "verify", path.parents[3]) == 1
    line, counts = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{forged}: refused: metric: test_accuracy is 1.0, the answers give")
    assert counts == "2 checked: 1 refused, 0 for review"


def test_a_folder_without_submissions_is_said_to_have_none(tmp_path, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "verify", tmp_path)
    assert line.startswith(f"error: {tmp_path} holds no submission: name a file that")
