"""What no run can give, or none of this configuration: times, epochs, parts of the images, and
phases that were not trained apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from forgery import answer_otherwise, answers_of_its_own, row_of_its_own

import dml_bench as db
from dml_bench.board.verify import VerifyRequest, verify
from dml_bench.runs import record_format

RESULTS = Path(__file__).parents[2] / "results"
EPSHN = "EPSHN_cosine_resnet18_sgd_aug"
TRAINED = RESULTS / "demo/stratified-last-10" / EPSHN / "seed-42.json"
FROZEN = RESULTS / "demo/stratified-random-10-x-4/frozen_resnet18/seed-42.json"
TIMES = ("train", "start", "watch", "embed", "search")


def findings_of(path: Path) -> list[tuple[str, str, str]]:
    verified = verify(path, VerifyRequest(cache_dir=path.parent))
    return [(one.verdict, one.name, one.text) for one in verified.findings]


def submitted(tmp_path, change, record=TRAINED, **settings) -> Path:
    def change_all(content):
        answers_of_its_own(content)
        change(content)

    return row_of_its_own(record, tmp_path / "results", "mine", "me", change_all, **settings)


def unchanged(content):
    pass


def costing(**costs):
    """The costs of each phase, and a total that fits."""

    def change(content):
        cost = content.facts["summary"]["cost"]
        phases = [part for part in cost.values() if isinstance(part, dict)]
        for part in phases:
            part.update(costs)
        seconds = [part[f"{name}_seconds"] for part in phases for name in TIMES]
        cost["total_seconds"] = sum(seconds)

    return change


def in_no_time(content):
    for epoch in content.facts["records"]:
        epoch["train_seconds"] = 0.0
    costing(train_seconds=0.0)(content)


def without_times(content):
    for epoch in content.facts["records"]:
        del epoch["train_seconds"]
    costing(train_seconds=1.0)(content)


def on_more_cores(content):
    for epoch in content.facts["records"]:
        epoch["train_cpu_seconds"] = 10 * epoch["train_seconds"]
    for part in content.facts["summary"]["cost"].values():
        if isinstance(part, dict):
            part["train_cpu_seconds"] = 10 * part["train_seconds"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (in_no_time, "phase all was trained, and its train_seconds are 0"),
        (without_times, "train_seconds of phase all is stated, and not of each epoch"),
        (costing(train_cpu_seconds=1.0), "train_cpu_seconds of phase all is stated, and not of"),
        (
            costing(train_images_per_second=1e6),
            "train_images of phase all is 8.956e+07",
        ),
        (costing(train_images_per_second=10**400), "train_images_per_second of phase all must be"),
        (on_more_cores, "and 2 cores had 189.1"),
        (costing(peak_memory_bytes=1), "peak_memory_bytes of phase all is 1, and its network has"),
    ],
)
def test_costs_that_no_run_has_are_refused(change, text, tmp_path):
    findings = findings_of(submitted(tmp_path, change))
    assert {(verdict, name) for verdict, name, _ in findings} == {("refused", "cost")}
    assert text in findings[0][2]


def only_the_last_epoch(content):
    """The sums of the times are those of all."""
    kept = []
    for phase in ("all", "limited"):
        *_, last = (one for one in content.facts["records"] if one["phase"] == phase)
        part = content.facts["summary"]["cost"][phase]
        images = part["train_images_per_second"] * part["train_seconds"]
        kept.append({**last, "train_seconds": part["train_seconds"], "train_images": images})
    content.facts["records"] = kept


def as_another_data_set(content):
    content.facts["summary"]["dataset"]["name"] = "grocery"


@pytest.mark.parametrize(
    ("change", "settings", "text"),
    [
        (only_the_last_epoch, {}, "all was trained for some of these epochs"),
        (as_another_data_set, {}, "its data.dataset is demo, and it is of grocery"),
        (
            unchanged,
            {"data__test_fraction": 0.5},
            "data.test_fraction is 0.5, and has 1,600 of 1,920",
        ),
        (unchanged, {"data__valid_fraction": 0.5}, "data.valid_fraction is 0.5, and has 0 of 320"),
        (
            unchanged,
            {"data__per_class": 4},
            "data.per_class is 4, and a class of the gallery has 8",
        ),
    ],
)
def test_settings_of_which_the_run_shows_otherwise_are_refused(change, settings, text, tmp_path):
    findings = findings_of(submitted(tmp_path, change, **settings))
    assert ("refused", "settings") in {(verdict, name) for verdict, name, _ in findings}
    assert text in "\n".join(text for _, _, text in findings)


@pytest.mark.parametrize(
    ("searched", "text"),
    [
        ({"split": "0" * 64}, "used another split, whose training images are partly queries"),
        ({"unseen": "random:10:2 x 2"}, "of the classes that are held out"),
    ],
)
def test_a_search_that_saw_what_is_measured_is_refused(searched, text, tmp_path):
    """`run` refuses it before it trains."""
    [record] = RESULTS.glob("tuned/demo/*/EPSHN_cosine_resnet18_sgd_aug~tuned/seed-42.json")
    tuned = record_format.read_description(record)["configuration"]["tuned"]
    path = submitted(tmp_path, unchanged, record, tuned={**tuned, **searched})
    (finding,) = [one for one in findings_of(path) if one[0] == "refused"]
    assert finding[1] == "settings"
    assert text in finding[2]


def test_without_training_all_phases_answer_alike(tmp_path):
    """A trained run that says that it was not would be the best of what needs no training."""

    def trained(content):
        content.arrays["all.nearest"][::7] = 0

    (finding,) = findings_of(submitted(tmp_path, trained, FROZEN))
    assert finding[:2] == ("refused", "trained")
    assert "phases all and limited-1 answer otherwise" in finding[2]


def test_phases_that_trained_on_other_classes_and_answer_alike_are_for_review(tmp_path):
    """Their cost of being unseen would be nothing."""

    def twice(content):
        for name in list(content.arrays):
            phase, _, kind = name.partition(".")
            if phase == "limited":
                content.arrays[name] = np.copy(content.arrays[f"all.{kind}"])

    (finding,) = findings_of(submitted(tmp_path, twice))
    assert finding[:2] == ("review", "same answers")
    assert "phases all and limited, which trained on other classes, have 100.00%" in finding[2]


@pytest.fixture(scope="module")
def of_disjoint(trained, tmp_path_factory) -> Path:
    """A submission whose queries are ranked; nobody may change it."""
    settings = ("protocol=class_disjoint", "data.split=half", "unseen=", "train.epochs=1")
    results = tmp_path_factory.mktemp("disjoint") / "results"
    return db.submit_run(trained(*settings).folder, results, by="me", revision="drawn")


def first(content):
    content.arrays["disjoint.first_relevant"][:] = 1


def at_r(content):
    content.arrays["disjoint.at_r"][:] = 254


def undefined(content):
    content.arrays["disjoint.at_r"][0] = 255


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (first, "first_relevant of phase disjoint is not that of its nearest images"),
        (at_r, "at_r of phase disjoint can't be, where its nearest images are these"),
        (undefined, "at_r of phase disjoint is undefined elsewhere than without such images"),
    ],
)
def test_rankings_that_the_nearest_images_contradict_are_refused(
    change, text, of_disjoint, tmp_path
):
    """R@1 and MAP@R were ranked as they stood beside the answers."""
    results = of_disjoint.parents[3]
    shutil.copytree(results, tmp_path / "results")
    path = tmp_path / "results" / of_disjoint.relative_to(results)
    assert findings_of(path) == []

    def change_and_forget(content):
        content.facts["summary"]["retrieval"] = {}
        change(content)

    answer_otherwise(path, change_and_forget)
    assert ("refused", "answers", text) in findings_of(path)


def test_logits_choose_no_class_that_was_never_trained_on(tmp_path):
    """An answer by logits is one of the classes that a classifier has."""
    record = TRAINED.parents[1] / "crossentropy_resnet18_sgd_aug" / "seed-42.json"

    def all_right(content):
        content.arrays["limited.logits"][:] = 0

    findings = findings_of(submitted(tmp_path, all_right, record))
    text = "logits of phase limited choose a class that it did not train on"
    assert ("refused", "hold-outs", text) in findings
