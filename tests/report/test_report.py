"""The report: what can be read and what can't, sentences that follow the numbers, figures, and one
page that needs nothing else."""

import csv
import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from chromium import CHROMIUM, needs_chromium
from handmade import COST, SESSION, Vectors, experiment, finish, store
from processor_time import with_slow
from tiny import train

from dml_bench.analysis import diagnostics
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.analysis.diagnostics import (
    Diagnostics,
    class_drop,
    diagnose,
    diagnose_chosen,
    spread,
)
from dml_bench.analysis.study import Study
from dml_bench.cli import app
from dml_bench.config import Component, Data, as_table
from dml_bench.config.experiments import resolve
from dml_bench.config.tables import read_table
from dml_bench.evaluation.calibration import calibration_of
from dml_bench.evaluation.few_shot import FewShotCurve
from dml_bench.evaluation.statistics import Interval, Scores, interval
from dml_bench.evaluation.thresholds import SearchOutcomes, guaranteed_threshold
from dml_bench.plots import canvas, curves, figures
from dml_bench.protocols import protocol_named
from dml_bench.report import assets, format
from dml_bench.report.answers import (
    QUESTIONS,
    STUDY_QUESTIONS,
    answers,
    enrolment,
    facts,
    photo_rate,
    rarity,
    recipe,
    training,
)
from dml_bench.report.compose import compose, report
from dml_bench.report.document import Details, Document, Heading, Panels, Text
from dml_bench.report.sections import missing
from dml_bench.report.tables import (
    OWN_RULE,
    enrolment_table,
    explanations,
    main_table,
    names_table,
    rival_table,
    values_in,
)
from dml_bench.report.thumbnails import Thumbnails
from dml_bench.runs import record_format
from dml_bench.runs.arrays import write_arrays
from dml_bench.runs.run import NotFinished, Run, read_folder
from dml_bench.system.files import read_json, write_json

RIVAL = ("name=rival", "loss=crossentropy", "miner=none", "model.head=identity")
BASELINE = "EPSHN_cosine_resnet18_sgd_aug"

# Runs written by hand: four known and two unseen classes with four queries each


def queries(*right: int, of: int = 4) -> list[list[int]]:
    """Per class, so many of its queries right."""
    return [[1] * count + [0] * (of - count) for count in right]


def made(
    out: Path, name: str, all_: list[list[int]], limited: list[list[int]], seed: int = 42
) -> Run:
    return finish(out, experiment(name, seed=seed), {"all": all_, "limited": limited})


def made_rival(
    out: Path,
    all_: list[list[int]],
    limited: list[list[int]],
    logits: list[list[int]],
    unseen: int = 2,
    seed: int = 42,
) -> Run:
    crossentropy = replace(
        experiment("rival", seed=seed),
        loss=Component("crossentropy", {"label_smoothing": 0.0}),
        miner=Component("none", {}),
    )
    run = finish(out, crossentropy, {"all": all_, "limited": limited}, unseen)
    labels = np.repeat(np.arange(len(logits)), [len(of_class) for of_class in logits])
    right = np.concatenate([np.array(of_class, bool) for of_class in logits])
    write_arrays(
        run.folder / "all" / "logits.safetensors",
        {"predicted": np.where(right, labels, (labels + 1) % len(logits))},
    )
    return run


def test_pairs_of_mixed_images_are_said_to_count_by_a_rule_of_this_project(tmp_path):
    made(tmp_path, "plain", queries(4, 4, 4, 4, 4, 4), queries(4, 4, 4, 4, 2, 2))
    assert OWN_RULE not in " ".join(explanations(only_study(tmp_path).group).items)
    mixing = resolve(f"{BASELINE}+mixup").mixing
    mixed = replace(experiment("mixed"), mixing=mixing)
    both = {"all": queries(4, 4, 4, 4, 4, 4), "limited": queries(4, 4, 4, 4, 2, 2)}
    finish(tmp_path, mixed, both)
    assert explanations(only_study(tmp_path).group).items[-1] == f"mixed: {OWN_RULE}"
    assert not resolve("ArcFace_cosine_resnet18_sgd_aug+mixup").mixes_pairs


def only_study(*paths: Path) -> Study:
    [study] = studies_of(collect(paths))
    return study


def sentences(study: Study) -> list[str]:
    """The sentence of each answer."""
    return [answer.sentence for answer in answers(study, {})]


# Which runs


def test_an_experiment_on_photos_that_has_not_ended_stands_beside_those_that_have(tmp_path):
    """The report ended with "too many values to unpack": its data set was called `folder`."""
    photos = Data(dataset=Component("folder", {}))
    answers = {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)}
    for name in ("ended", "begun"):
        run = finish(tmp_path, experiment(name, data=photos), answers)
        summary = read_json(run.folder / "summary.json", {"dataset": dict})
        summary["dataset"]["name"] = "gulls"
        write_json(run.folder / "summary.json", summary)
    environment = {"sessions": [SESSION], "dataset": summary["dataset"]}
    write_json(run.folder / "environment.json", environment)
    (run.folder / "summary.json").unlink()
    study = only_study(tmp_path)
    assert study.group.dataset == "gulls"
    assert {line.name: len(line.runs) for line in study.group.lines} == {"begun": 0, "ended": 1}


def test_a_run_folder_is_read_wherever_it_was_moved_to(tmp_path):
    run = made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    moved = shutil.move(run.folder, tmp_path / "elsewhere")
    moved_run = read_folder(Path(moved))
    assert (moved_run.experiment, moved_run.summary) == (
        run.experiment,
        read_json(Path(moved) / "summary.json"),
    )


def test_without_any_run_the_error_says_what_was_looked_at_and_how_to_make_one(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError,
        match=(
            r"nothing to report on: .*empty holds no run; .*gone is not a folder\. `dml-bench run"
            r" EXPERIMENT --demo`"
        ),
    ):
        collect([tmp_path / "empty", tmp_path / "gone"])


def test_a_half_finished_run_is_named_and_the_others_are_reported(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    half = made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1), seed=43)
    (half.folder / "summary.json").unlink()
    (half.folder / "metrics.jsonl").write_text('{"phase": "limited", "epoch": 7}\n')
    environment = read_json(half.folder / "environment.json")
    dataset = {"name": "cub", "fingerprint": "d" * 64}
    write_json(half.folder / "environment.json", environment | {"dataset": dataset})
    collection = collect([tmp_path])
    assert [run.seed for run in collection.runs] == [42]
    [line] = collection.problems
    assert (
        line
        == f"{half.folder} is not finished (stopped in phase limited after epoch 7 of 100): the"
        " command that began it goes on with it"
    )
    [study] = studies_of(collection)
    assert study.group.lines[0].failures == (
        "seed 43: not finished (stopped in phase limited after epoch 7 of 100)",
    )
    assert study.group.lines[0].wanted == 2
    with pytest.raises(NotFinished):
        read_folder(half.folder)


def test_a_file_that_was_changed_after_the_run_is_named_in_one_line(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    broken = made(tmp_path, "b", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    with open(broken.folder / "all" / "neighbours.safetensors", "r+b") as file:
        file.write(b"\0\0")
    torn = made(tmp_path, "c", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    (torn.folder / "experiment.json").write_text('{"name": ')
    collection = collect([tmp_path])
    assert [run.experiment.name for run in collection.runs] == ["a"]
    changed, unreadable = collection.problems
    assert changed.startswith(
        f"{broken.folder}/all/neighbours.safetensors is missing or was changed after the run"
    )
    assert unreadable.startswith(
        f"{torn.folder}/experiment.json can't be read: it is not JSON (line 1, column 10)"
    )
    assert "\n" not in changed + unreadable


def test_seeds_with_a_search_each_are_one_row_that_names_what_was_chosen():
    """Drawn birds have another split with each seed, and so a search for each."""
    drawn = Path(__file__).parents[2] / "results/tuned/demo/stratified-random-10-1-x-2"
    name = "ArcFace_cosine_resnet18_sgd_aug"
    collection = collect([drawn / f"{name}~tuned"])
    assert collection.problems == []
    [study] = studies_of(collection)
    [row] = study.finished
    rates = [run.experiment.optimizer.options["lr"] for run in row.runs]
    assert len(set(rates)) == len(rates) >= 2
    assert values_in([as_table(run.experiment) for run in row.runs], "optimizer.lr") == (
        " and ".join(map(str, rates))
    )
    [beside] = studies_of(collect([drawn / name, drawn / f"{name}~tuned"]))
    settings = [row.cells[2].text for row in names_table(beside).rows]
    assert settings[0] == "those of the list below"
    assert settings[1].endswith(", tuned=8 trials of EPSHN_cosine_resnet18_sgd_aug")


def test_the_same_experiment_is_not_counted_twice_nor_mixed_with_other_settings(tmp_path):
    made(tmp_path / "1", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    again = made(tmp_path / "2", "a", queries(4, 4, 4, 4), queries(4, 3, 0, 1))
    longer = replace(experiment("a").train, epochs=7)
    others = [
        finish(
            tmp_path / folder,
            experiment("a", seed=seed, train=longer),
            {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)},
        )
        for folder, seed in (("3", 42), ("4", 43))
    ]
    collection = collect([tmp_path])
    assert [run.folder.parts[-4] for run in collection.runs] == ["1"]
    assert [line.partition(" is left out: ")[0] for line in collection.problems] == [
        str(run.folder) for run in (again, *others)
    ]
    assert collection.problems[0].endswith("has the same experiment with the same seed")
    for line in collection.problems[1:]:
        assert line.endswith(
            "has an experiment of the same name with other settings (train.epochs)"
        )


def test_runs_that_differ_only_in_what_is_said_and_expected_of_them_stand_in_one_row(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    reworded = experiment("a", seed=43, summary="said otherwise", expects=())
    finish(tmp_path, reworded, {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)})
    [line] = only_study(tmp_path).group.lines
    assert [run.seed for run in line.runs] == [42, 43]


def test_other_classes_held_out_or_other_images_are_other_sections_whose_titles_tell_them_apart(
    tmp_path,
):
    for folder, unseen in (("1", "last:2"), ("2", "random:2:0 x 2")):
        finish(
            tmp_path / folder,
            experiment("a", unseen=unseen),
            {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)},
        )
    collection = collect([tmp_path])
    studies = studies_of(collection)
    assert [study.title for study in studies] == [
        "Precision drop on cub, unseen random:2:0 x 2",
        "Precision drop on cub, unseen last:2",
    ]
    assert len({study.slug for study in studies}) == 2
    [alone] = studies_of(collect([tmp_path / "1"]))
    assert (alone.title, alone.slug) == ("Precision drop on cub", "precision_drop-cub-dddddd")


def test_other_kinds_of_split_get_parts_of_their_own(tmp_path):
    kinds = (Data(), Data(split="grouped", group="session"), Data(split="time", time="exif"))
    for folder, data in enumerate(kinds):
        finish(
            tmp_path / str(folder),
            experiment("a", data=data),
            {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)},
        )
    studies = studies_of(collect([tmp_path]))
    assert [study.title for study in studies] == [
        "Precision drop on cub, split stratified",
        "Precision drop on cub, split grouped by session",
        "Precision drop on cub, split time by exif",
    ]
    assert len({study.slug for study in studies}) == 3


def test_other_profiles_get_sections_of_their_own_and_a_line_says_so(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    demo = experiment("b", profile="demo")
    finish(tmp_path, demo, {"all": queries(4, 3, 2, 4), "limited": queries(4, 3, 0, 1)})
    collection = collect([tmp_path])
    first, second = studies_of(collection)
    assert [line.name for line in first.group.lines] == ["a"]
    assert [line.name for line in second.group.lines] == ["b"]
    assert not collection.problems
    assert collection.remarks == [
        "these runs cannot all be compared; the report has one part for each of Precision drop on"
        " cub; Precision drop on cub, profile demo"
    ]


def test_rows_stand_in_the_study_s_order_and_its_absent_rows_are_known(tmp_path):
    for name in ("own", "EPSHN_cosine_resnet50_sgd_aug", BASELINE):
        made(tmp_path, name, queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    study = only_study(tmp_path)
    assert [line.name for line in study.group.lines] == [
        BASELINE,
        "EPSHN_cosine_resnet50_sgd_aug",
        "own",
    ]
    assert len(study.absent) == 14
    assert "crossentropy_resnet18_sgd_aug" in study.absent


# Numbers in words


def between(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high, 0.95, 0.02, 9.0)


def around(estimate: float, half: float) -> Interval:
    """With 30 degrees of freedom."""
    return Interval.around(estimate, half / 2.0423, 30)


def test_numbers_are_said_with_their_intervals():
    assert format.percent(around(0.704, 0.08)) == "70.4% [62.4, 78.4]"
    assert format.percent(0.025) == "2.5%"
    assert format.percent(Interval.around(1.0, np.nan, np.nan)) == "100.0%"
    assert format.points(around(-0.05, 0.06)) == "-5.0 points [-11.0, +1.0]"
    assert format.cost_points(around(0.05, 0.06)) == "5.0 points [-1.0, 11.0]"
    assert format.counted(1, "class") == "1 class"
    assert format.counted(20, "class") == "20 classes"


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (0.03, "a difference of +3.0 points [+1.0, +5.0]"),
        (-0.03, "a difference of -3.0 points [-5.0, -1.0]"),
        (0.01, "a difference of +1.0 points [-1.0, +3.0], which includes 0"),
        (np.nan, "a difference of +nan points"),
    ],
)
def test_an_exploratory_difference_has_an_interval_and_no_word_of_a_verdict(estimate, expected):
    half = np.nan if np.isnan(estimate) else 0.02
    assert format.compared(around(estimate, half)) == expected


def test_a_spread_of_draws_never_stands_in_the_brackets_of_intervals():
    assert format.draws_cell(0.522, 0.36, 0.605) == "52.2 (36.0 to 60.5)"
    assert format.draws_cell(0.522, 0.522, 0.522) == "52.2"


# The four answers


MANY = 30
"""Classes enough to be sure."""


def uniform(right: int, classes: int = MANY, of: int = 4) -> list[list[int]]:
    return queries(*[right + (label % 2) for label in range(classes)], of=of)


SEEDS = (42, 43, 44)


@pytest.mark.parametrize(
    ("method", "logits", "verdict"),
    [
        (3, 0, "a difference of +75.0 points"),
        (0, 3, "a difference of -75.0 points"),
        (2, 2, "a difference of +0.0 points"),
    ],
)
@pytest.mark.usefixtures("blank_figures")
def test_how_well_they_classify_is_held_against_the_classifier_s_logits(
    tmp_path, method, logits, verdict
):
    for seed in SEEDS:
        made(tmp_path, BASELINE, uniform(method), uniform(method), seed)
        made_rival(tmp_path, uniform(1), uniform(1), uniform(logits), seed=seed)
    first = sentences(only_study(tmp_path))[0]
    assert first.startswith(f"`EPSHN` is right for {100 * (method + 0.5) / 4:.1f}%")
    assert f"the classifier's logits for {100 * (logits + 0.5) / 4:.1f}%" in first
    assert f": {verdict}" in first


@pytest.mark.usefixtures("blank_figures")
def test_of_one_seed_a_difference_is_given_without_a_verdict_and_the_page_says_so(tmp_path):
    made(tmp_path, BASELINE, uniform(3), uniform(3))
    made_rival(tmp_path, uniform(1), uniform(1), uniform(0))
    study = only_study(tmp_path)
    assert ": a difference of +75.0 points" in sentences(study)[0]
    assert dict(facts(study))["Runs"] == (
        "2 experiments, 1 seed; brackets, lines: 95% intervals, no verdicts; under 3 seeds: of"
        " these networks only"
    )


@pytest.mark.usefixtures("blank_figures")
def test_without_a_classifier_the_answers_say_so(tmp_path):
    made(tmp_path, "a", uniform(3), uniform(2))
    first, second, cost = sentences(only_study(tmp_path))
    assert first == (
        "`a` is right for 87.5% [81.9, 91.5] of test images; no classifier is among these runs."
    )
    assert "of images of new classes; that costs " in second
    assert cost == (
        "`a` (87.5% [81.9, 91.5]) trained for 1:40 of CPU time; enrolling a photo takes"
        " 2 ms by the clock."
    )


@pytest.mark.usefixtures("blank_figures")
def test_of_new_classes_the_answer_says_what_no_training_finds(tmp_path):
    """Of flowers every head finds fewer, which only the table told."""
    frozen = replace(resolve("frozen_resnet18"), name="frozen")
    finish(tmp_path, frozen, {"all": uniform(3), "limited": uniform(3)})
    made(tmp_path, "a", uniform(3), uniform(2))
    study = only_study(tmp_path)
    assert study.no_training is not None
    _, second, _ = sentences(study)
    untrained = format.percent(study.measure(study.no_training, "unseen_limited"))
    assert second.endswith(f"; no training finds {untrained}.")


def times_of_two(tmp_path: Path, method: dict[str, Any], classifier: dict[str, Any]) -> Study:
    """A study of a method and a classifier with these costs of each phase, where `processor` is
    that of the run."""
    made_rival(tmp_path, uniform(1), uniform(1), uniform(2))
    made(tmp_path, BASELINE, uniform(3), uniform(2))
    for name, changes in ((BASELINE, method), ("rival", classifier)):
        [folder] = (tmp_path / name).glob("*/seed-42")
        processor = changes.pop("processor", "")
        summary = read_json(folder / "summary.json")
        for phase in ("all", "limited"):
            summary["cost"][phase] |= changes
            for key in [key for key, value in changes.items() if value is None]:
                del summary["cost"][phase][key]
        write_json(folder / "summary.json", summary)
        if processor:
            write_json(
                folder / "environment.json", {"sessions": [SESSION | {"processor": processor}]}
            )
    return only_study(tmp_path)


@pytest.mark.usefixtures("blank_figures")
def test_training_times_are_compared_by_cpu_time_and_never_by_the_clock(tmp_path):
    slow_clock = {"train_seconds": 900.0, "train_cpu_seconds": 55.0}
    study = times_of_two(tmp_path, slow_clock, {"train_seconds": 60.0, "train_cpu_seconds": 50.0})
    assert training(study).startswith(
        "`EPSHN` (87.5% [81.9, 91.5]) trained for 1:50 of CPU time, the classifier for 1:40 of CPU"
        " time"
    )
    assert "EPSHN` (87.5% [81.9, 91.5]) needs 1.1 times the classifier's CPU time" in rarity(study)
    table = rival_table(study)
    assert table is not None
    assert [row.cells[-1].text for row in table.rows] == ["1.1", "1.0"]
    first = main_table(study.group)
    assert [column.head for column in first.columns][-1] == "CPU time"


@pytest.mark.parametrize(
    "method",
    [
        {"train_cpu_seconds": None},
        {"start_seconds": 30.0},
        {"labelling_seconds": 30.0},
        {"processor": "another processor"},
    ],
)
@pytest.mark.usefixtures("blank_figures")
def test_times_that_are_not_comparable_are_said_to_be_so(tmp_path, method):
    """Without CPU time, with a start or other models whose CPU time is not known, on another
    processor."""
    study = times_of_two(tmp_path, method, {})
    assert training(study).startswith("The training times of `EPSHN` (87.5% [81.9, 91.5]) and the")
    assert "the classifier are not comparable; " in training(study)
    assert "are not comparable; other fields" in rarity(study)
    table = rival_table(study)
    assert table is not None
    assert table.rows[0].cells[-1].text == "not comparable"
    last = answers(study, {})[-1]
    assert last.question == QUESTIONS[3]


@pytest.mark.usefixtures("blank_figures")
def test_a_processor_of_a_known_generation_is_preferred_and_another_is_said_to_be_unknown(tmp_path):
    """Of runs on two machines called `AMD EPYC` one took half the time of the other."""
    later = "later processor (family 26, model 2)"
    known = times_of_two(tmp_path / "a", {"processor": later}, {})
    assert known.group.processor == later
    assert [line.cpu_seconds for line in known.finished] == [100.0, None]
    doubt = "Several generations have this name"
    assert doubt not in str(explanations(known.group))
    unknown = times_of_two(tmp_path / "b", {}, {})
    assert unknown.group.processor == "a processor"
    assert doubt in str(explanations(unknown.group))


@pytest.mark.parametrize("part", ["start", "labelling"])
def test_a_start_and_other_models_count_where_their_cpu_time_is_known(part, tmp_path):
    counted = {f"{part}_seconds": 30.0, f"{part}_cpu_seconds": 25.0}
    study = times_of_two(tmp_path, counted, {})
    assert [line.cpu_seconds for line in study.finished] == [150.0, 100.0]


@pytest.mark.usefixtures("blank_figures")
def test_with_a_classifier_alone_nothing_is_said_of_metric_learning(tmp_path):
    made_rival(tmp_path, uniform(1), uniform(1), uniform(2))
    study = only_study(tmp_path)
    assert [answer.question for answer in answers(study, {})] == [QUESTIONS[0], QUESTIONS[3]]
    assert sentences(study)[0].startswith("These runs have only `rival`, right for 62.5%")


@pytest.mark.usefixtures("blank_figures")
def test_of_several_rows_without_metric_learning_one_is_not_said_to_be_all(tmp_path):
    """A page on 15 classifiers said that the runs have only one of them, and set the time of the
    first row beside that of the best."""
    frozen = replace(resolve("frozen_resnet18"), name="frozen")
    finish(tmp_path, frozen, {"all": uniform(0), "limited": uniform(0)})
    made_rival(tmp_path, uniform(1), uniform(1), uniform(2))
    study = only_study(tmp_path)
    assert [line.name for line in study.finished] == ["frozen", "rival"]
    first, *_, cost = sentences(study)
    assert first.startswith("None of these runs is metric learning; `rival` is right for 62.5%")
    assert study.no_training is not None
    known = format.percent(study.measure(study.no_training, "known"))
    assert first.endswith(f" of test images, no training for {known}.")
    assert cost.startswith("`rival` (")


@pytest.mark.usefixtures("blank_figures")
def test_the_third_question_of_the_study_is_asked_on_its_own_page_alone(tmp_path):
    rows = read_table("study").rows
    for name in rows[:8]:
        made(tmp_path / "study", name, uniform(3), uniform(2))
    made(tmp_path / "own", rows[0], uniform(3), uniform(2))
    made(tmp_path / "own", "mine", uniform(3), uniform(2))
    of_study, own = only_study(tmp_path / "study"), only_study(tmp_path / "own")
    assert [answer.question for answer in answers(of_study, {})][-1] == STUDY_QUESTIONS[3]
    assert STUDY_QUESTIONS[3].startswith("Why is a method")
    assert {answer.question for answer in answers(own, {})} <= set(QUESTIONS)


@pytest.mark.usefixtures("blank_figures")
def test_each_answer_names_the_best_for_its_own_question(tmp_path):
    seen = uniform(3, MANY - 12)
    for name, right, kept in (("known", 3, 0), ("unseen", 2, 3)):
        everywhere = uniform(right)
        finish(
            tmp_path,
            experiment(name),
            {"all": everywhere, "limited": seen + uniform(kept, 12)},
            unseen=12,
        )
    first, second = sentences(only_study(tmp_path))[:2]
    assert first.startswith("`known`, best of 2, is right for 87.5%")
    assert second.startswith("`unseen`, best of 2, is right for 87.5%")


def test_the_table_beside_the_classifier_asks_its_features_on_unseen_classes(tmp_path):
    seen = uniform(3, MANY - 12)
    finish(
        tmp_path,
        experiment(BASELINE),
        {"all": uniform(3), "limited": seen + uniform(3, 12)},
        unseen=12,
    )
    made_rival(tmp_path, uniform(3), seen + uniform(0, 12), uniform(3), unseen=12)
    table = rival_table(only_study(tmp_path))
    assert table is not None
    method, classifier = table.rows
    assert method.cells[0].text == "EPSHN"
    assert method.cells[1].text.startswith("+0.0")
    assert method.cells[2].text.startswith("+75.0 [")
    assert classifier.cells[2].text.startswith("12.5 [")


def three_holdouts(out: Path, name: str, *limited: list[list[int]], seed: int = 42) -> Run:
    """Seven classes; of the last six, two are held out of each of three phases."""
    right = {"all": queries(4, 4, 4, 4, 4, 4, 4)} | {
        f"limited-{i}": correct for i, correct in enumerate(limited, start=1)
    }
    held = {f"limited-{i}": [2 * i - 1, 2 * i] for i in (1, 2, 3)}
    return finish(
        out, experiment(name, seed=seed, unseen="random:2 x 3"), right, unseen=6, holdouts=held
    )


HELD = queries(4, 2, 2, 4, 4, 0, 4), queries(4, 4, 4, 3, 1, 4, 4), queries(0, 4, 4, 0, 4, 4, 3)
"""Drops of 1/2 and 1/2, of 1/4 and 3/4, of 0 and 1/4 on the classes held out; the other mistakes
are on classes that were seen."""


def test_of_rotated_hold_outs_the_drop_of_each_and_what_they_differ_by_is_told(tmp_path):
    three_holdouts(tmp_path, "a", *HELD)
    study = only_study(tmp_path)
    assert study.holdouts == ("limited-1", "limited-2", "limited-3")
    assert study.holdout_drops(study.group.lines[0])[:, 0].tolist() == [0.5, 0.5, 0.125]
    assert dict(facts(study))["Unseen"] == (
        "2 classes in each of 3 rotated hold-outs (random:2 x 3)"
    )
    unseen = study.measure(study.group.lines[0], "unseen_limited")
    assert unseen is not None
    assert unseen.estimate == pytest.approx(1 - (0.5 + 0.5 + 0.125) / 3)


def test_a_class_that_is_unseen_in_two_hold_outs_counts_once(tmp_path):
    right = {"all": queries(4, 4, 4), "limited-1": queries(0, 4, 4), "limited-2": queries(4, 2, 4)}
    finish(
        tmp_path,
        experiment("a", unseen="random:2 x 2"),
        right,
        unseen=2,
        holdouts={"limited-1": [1, 2], "limited-2": [1, 2]},
    )
    study = only_study(tmp_path)
    assert [
        study.measure(study.group.lines[0], name).estimate
        for name in ("unseen_limited", "unseen_all")
    ] == [0.875, 1.0]


def test_all_methods_together_are_the_mean_query_by_query(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    made(tmp_path, "b", queries(4, 3, 2, 4), queries(4, 3, 1, 4))
    pooled = only_study(tmp_path).pooled("drop_unseen")
    by_hand = np.array([1, 1, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 0, 0, 0, 0, 0])
    scores = Scores(np.mean(by_hand, axis=0), np.repeat([2, 3], 4))
    assert pooled == interval([scores], within=(-1, 1))


# Closer looks


ANGLES = {"class 0": [0], "class 1": [40], "class 2": [80], "class 3": [120]}
"""Of the gallery's images; the last two classes are unseen."""
ASKED = {"class 0": [3], "class 1": [50], "class 2": [42], "class 3": [120]}
"""Queries: without the unseen classes they are right 3 and 10 degrees away, and unknown at 2 and
80."""
VALID = {"class 0": [5, 22], "class 1": [45, 10], "class 2": [41], "class 3": [120]}
"""Right at 5 and 5 degrees, wrong at 18 and 10; of the unseen classes one lies 1 degree from an
image of another class."""


def with_embeddings(out: Path, **parts: Vectors) -> Study:
    run = made(out, "a", queries(1, 1, 1, 1, of=1), queries(1, 1, 1, 1, of=1))
    store(run, "limited", gallery=ANGLES, query=ASKED, **parts)
    return only_study(out)


def test_thresholds_are_chosen_on_validation_images_and_tested_on_queries(tmp_path):
    study = with_embeddings(tmp_path, valid=VALID)
    look = diagnose(study, study.group.lines[0], draws=2)
    [open_set] = look.open_set
    assert (open_set.validation_images, look.chosen_on) == (
        4,
        "validation images of the known classes",
    )
    assert open_set.chosen.precision.tolist() == [1, pytest.approx(2 / 3), 0.5]
    assert open_set.tested.precision.tolist() == [1, 1], "queries at 3 and 10 degrees"
    threshold = open_set.threshold(0.9, 0.0)
    assert (threshold.promise.promised, threshold.promise.known) == (False, 4)


def test_of_a_run_without_validation_images_one_half_of_the_queries_chooses_and_the_other_tests(
    tmp_path,
):
    """60 queries of a class lie within 30 degrees, of which 30 choose."""
    few = {"class 1": [50], "class 2": [42], "class 3": [120]}
    counts = queries(60, 1, 1, 1, of=1)
    run = made(tmp_path, "a", counts, counts)
    degrees = list(np.linspace(-15, 15, 60))
    store(run, "limited", gallery=ANGLES, query={"class 0": degrees, **few})
    study = only_study(tmp_path)
    look = diagnose(study, study.group.lines[0], draws=2)
    [open_set] = look.open_set
    assert look.chosen_on == "one half of the queries of the known classes"
    threshold = open_set.threshold(0.9, 0.0)
    assert (threshold.promise.known, threshold.promise.promised) == (31, True)
    assert (threshold.precision, threshold.coverage) == (1.0, 1.0)
    summary = look.summary_of(0.9, 0.0)
    assert (summary.promised, summary.missed, summary.models) == (1, 0, 1)
    assert look.test_images == (diagnostics.TestImages(known=30, unseen=1),)
    mixed = open_set.threshold(0.9, 0.2).promise
    assert (mixed.unknown, mixed.promised) == (1, False), "one of the two unseen classes chooses"


def threshold_with(
    precision: float, coverage: float, unknown_share: float = 0.0
) -> diagnostics.TestedThreshold:
    """One that promised .9, and what it does on other images."""
    outcomes = SearchOutcomes(np.linspace(1, 0, 100), np.ones(100, bool))
    promise = replace(guaranteed_threshold(outcomes, 0.9), unknown_share=unknown_share)
    return diagnostics.TestedThreshold(promise, precision, coverage)


def test_a_threshold_is_missed_only_where_the_bound_of_its_test_lies_below_the_goal():
    few = diagnostics.TestImages(known=100, unseen=20)
    many = diagnostics.TestImages(known=1000, unseen=20)
    assert not few.are_missed_by(threshold_with(0.88, 0.5)), "44 of 50 may be .9"
    assert many.are_missed_by(threshold_with(0.86, 0.5)), "430 of 500 are surely fewer"
    mixed = threshold_with(0.86, 0.5, 0.2)
    assert not many.are_missed_by(mixed), "20 unseen images allow 100 in the mix"
    assert not many.are_missed_by(threshold_with(np.nan, 0.0))


def test_at_all_images_the_answer_has_the_interval_of_the_table_and_draws_have_no_brackets(
    tmp_path,
):
    study = with_embeddings(tmp_path)
    line = study.best_unseen
    assert line is not None
    measured = study.measure(line, "unseen_limited")
    assert measured is not None
    sentence = enrolment(study, diagnose_chosen(study))
    assert sentence == (
        f"Of a new class, `a` finds {format.percent(measured.estimate)} with all, at most 1."
    )


def test_curves_of_galleries_of_other_sizes_stand_beside_each_other_by_their_images(tmp_path):
    """What 3 images reach, all of a small gallery, stood in the row of 5."""
    study = with_embeddings(tmp_path)
    look = diagnose(study, study.group.lines[0], draws=2)

    def of_curve(*points: tuple[int, float]) -> Diagnostics:
        values = np.array([[value] for _, value in points])
        curve = FewShotCurve(tuple(k for k, _ in points), values, values, "images")
        return replace(look, enrolment={"images": curve})

    small = of_curve((0, 0.0), (1, 0.1), (2, 0.2), (3, 0.3))
    large = of_curve((0, 0.0), (1, 0.11), (2, 0.22), (5, 0.55), (8, 0.88))
    table = enrolment_table({"small": small, "large": large})
    assert table is not None
    rows = [(row.cells[0].text, row.cells[1].text, row.cells[3].text) for row in table.rows]
    assert rows == [
        *(("0", "0.0", "0.0"), ("1", "10.0", "11.0"), ("2", "20.0", "22.0")),
        *(("3", "30.0", "-"), ("5", "-", "55.0"), ("8", "-", "88.0")),
    ]


def test_a_curve_of_several_hold_outs_ends_at_the_images_of_the_largest_class_of_any(
    tmp_path, monkeypatch
):
    """All images stood in the row of the hold-out with the smallest: "at most 46", where others
    had 70."""
    study = with_embeddings(tmp_path)
    line = study.group.lines[0]

    def of_phase(run: object, phase: str, by: str, draws: int) -> FewShotCurve:
        ks = {"limited-1": (0, 1, 2, 4), "limited-2": (0, 1, 2, 5, 9), "limited-3": (0, 1, 2, 3)}
        values = np.linspace(0, 1, len(ks[phase]))[:, None]
        return FewShotCurve(ks[phase], values, values, "images")

    monkeypatch.setattr(diagnostics, "curve_of_phase", of_phase)
    phases = [(line.runs[0], f"limited-{number}") for number in (1, 2, 3)]
    curve = diagnostics.enrolment_curve(phases, "images", 1)
    assert curve.ks == (0, 1, 2, 9)
    assert curve.unseen[-1].tolist() == [1, 1, 1]


@pytest.mark.usefixtures("blank_figures")
def test_the_answer_on_enrolment_is_of_a_row_that_has_a_curve(tmp_path):
    """The best one's record is of a version that measured none, and the report had a KeyError."""
    folder = Path("demo") / "stratified-last-10"
    for name in (BASELINE, "crossentropy_resnet18_sgd_aug"):
        (tmp_path / folder / name).mkdir(parents=True)
        for suffix in (".json", record_format.ANSWERS_SUFFIX):
            file = folder / name / f"seed-42{suffix}"
            shutil.copyfile(Path(__file__).parents[2] / "results" / file, tmp_path / file)
    path = tmp_path / folder / BASELINE / "seed-42.json"
    description = record_format.read_description(path)
    content = record_format.read_content(path, description)
    del content.facts["diagnostics"]["open_set.limited"]
    record_format.write_content(path, description, content)
    study = only_study(tmp_path)
    assert study.best_unseen is not None and study.best_unseen.name == BASELINE
    sentence = answers(study, diagnose_chosen(study))[2].sentence
    assert sentence.startswith("Of a new class, `classifier` finds ")


def test_the_calibration_of_several_seeds_is_drawn_of_all_their_queries_together(tmp_path):
    study = with_embeddings(tmp_path)
    look = diagnose(study, study.group.lines[0], draws=2)
    first = calibration_of(np.array([0.5, 0.5, 1.0]), np.array([1, 0, 1]), bins=2)
    second = calibration_of(np.array([0.5]), np.array([1]), bins=2)
    both = replace(look, calibration=(first, second))
    share, accuracy, part = both.reliability
    assert (share.tolist(), accuracy.tolist(), part.tolist()) == (
        [0.5, 1.0],
        [pytest.approx(2 / 3), 1.0],
        [0.75, 0.25],
    )
    assert both.calibration_error == pytest.approx((0 + 0.5) / 2)


@pytest.mark.usefixtures("blank_figures")
def test_page_and_markdown_say_what_the_threshold_was_chosen_on(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", ())
    with_embeddings(tmp_path / "runs", valid=VALID)
    report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    sentence = (
        "Thresholds are chosen on validation images of the known classes, and tested on the other"
        " queries."
    )
    for name in ("index.html", "report.md"):
        assert sentence in (tmp_path / "out" / name).read_text(encoding="utf-8")
    with open(tmp_path / "out" / "closer.csv", newline="") as file:
        numbers = {row["number"]: row["value"] for row in csv.DictReader(file)}
    assert float(numbers["threshold_validation_images"]) == 4


def test_the_curve_of_test_images_is_shown_though_validation_images_are_watched_too():
    names = ("test_accuracy", "valid_accuracy")
    assert (
        curves.recorded(
            {"valid_accuracy2": 0.25, "test_accuracy2": 0.5, "test_accuracy2_macro": 0.75}, names
        )
        == 0.5
    )
    assert curves.recorded({"valid_accuracy": 0.25, "train_loss": 1.0}, names) == 0.25
    assert curves.recorded({"train_loss": 1.0}, names) is None
    assert (
        curves.recorded({"valid_accuracy2_fold_1": 0.25, "test_accuracy2_fold_1": 0.5}, names)
        == 0.5
    )


def test_the_drop_of_a_class_is_its_mean_over_seeds(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 4, 2, 2), seed=43)
    [line] = only_study(tmp_path).group.lines
    drops = class_drop(line)
    assert drops.names == ("class 0", "class 1", "class 2", "class 3")
    assert drops.drop.tolist() == [0, -0.125, 0.25, 0.625]
    assert drops.unseen.tolist() == [False, False, True, True]
    assert drops.spread == pytest.approx(np.std([[0, 0, 0.5, 0.75], [0, -0.25, 0, 0.5]], 0, ddof=1))


def test_one_seed_has_no_spread_of_a_class(tmp_path):
    made(tmp_path, "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    [line] = only_study(tmp_path).group.lines
    assert np.isnan(class_drop(line).spread).all()


def test_examples_are_half_of_unseen_classes_as_far_as_there_are_some():
    chosen, unseen = np.ones(10, bool), np.arange(10) >= 6
    assert spread(chosen, unseen, 4) == [6, 9, 0, 5]
    assert spread(chosen & unseen, unseen, 4) == [6, 7, 8, 9]
    assert spread(chosen & ~unseen, unseen, 2) == [0, 5]
    assert spread(np.zeros(10, bool), unseen, 4) == []


def test_an_image_that_is_not_there_any_more_is_counted(tmp_path):
    thumbnails = Thumbnails(tmp_path)
    (tmp_path / "torn.jpg").write_bytes(b"no image")
    assert [thumbnails.get(path) for path in ("gone.jpg", "torn.jpg", "gone.jpg")] == [None] * 3
    assert thumbnails.gone == ["gone.jpg", "torn.jpg"]


def test_the_ink_of_a_figure_in_the_page_is_the_page_s_and_its_ids_are_its_own():
    svg = (
        '<?xml?><svg width="10pt" height="5pt"><g id="axes_1"><path id="m1" style="stroke:'
        ' #010203"/><use href="#m1"/></g></svg>'
    )
    assert (
        canvas.inline(svg, "drop", "A title")
        == '<svg role="img" aria-label="A title" style="width:10pt"><g><path id="drop-m1"'
        ' style="stroke: currentColor"/><use href="#drop-m1"/></g></svg>'
    )


# The whole report, of two real runs on images that are there, and of runs without what figures need


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    for overrides in ((), RIVAL):
        run = trained(*overrides).folder
        shutil.copytree(run, out.joinpath(*run.parts[-3:]))
    return out


@pytest.fixture(scope="module")
def made_report(runs, tmp_path_factory) -> tuple[Path, Document, list[str]]:
    out, said = tmp_path_factory.mktemp("reports") / "two", []
    return out, report([runs], out, ["dml-bench", "report", "two words"], said.append), said


class Page(HTMLParser):
    """What a page holds; asserts that its tags are closed in order."""

    VOID = frozenset({"meta", "link", "br", "img", "wbr", "input"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in self.VOID else [tag]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] not in (["style"], ["script"]) else ""


def answers_of(document: Document) -> list[str]:
    """The sentence of each answer."""
    [panels] = [block for block in document.blocks if isinstance(block, Panels)]
    sentences = []
    for panel in panels.panels:
        [sentence] = [block.text for block in panel if isinstance(block, Text)]
        sentences.append(sentence)
    return sentences


@pytest.fixture(scope="module")
def page(made_report) -> tuple[str, Page]:
    text = (made_report[0] / "index.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_needs_nothing_but_itself(page):
    text, parsed = page
    assert len(parsed.links) > 10
    assert {link[:5] for link in parsed.links} <= {"data:"} | {
        link[:5] for link in parsed.links if link.startswith("#")
    }
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_what_it_is_about_and_the_answers_come_first_then_the_table_and_all_else_is_folded(page):
    order = [
        "Data",
        "Split",
        *QUESTIONS,
        "The experiments",
        "P@1 all",
        "What the columns mean",
        "Precision drop per experiment.",
        "Confusions",
        "Examples",
        "How it was made",
    ]
    places = [page[1].text.index(text) for text in order]
    assert places == sorted(places)


def test_all_figures_are_there_in_both_formats_and_in_the_page(made_report, page):
    names = [
        "answer-accuracy",
        "answer-unseen",
        "answer-enrolment",
        "answer-training",
        "drop",
        "test_accuracy",
        "loss",
        "classes",
        "enrolment",
        "open-set",
        "coverage-precision",
        "votes",
        "reliability",
    ]
    out, document, _ = made_report
    [part] = [block for block in document.blocks if isinstance(block, Heading) and block.level == 2]
    assert [drawn.name.removeprefix(f"{part.anchor}-") for drawn in document.figures] == names
    for drawn in document.figures:
        assert f'aria-label="{drawn.title}"' in page[0]
        assert drawn.svg.count("currentColor") > 10
        assert canvas.INK not in drawn.svg
        assert (out / "figures" / f"{drawn.name}.png").read_bytes().startswith(b"\x89PNG")
        assert "prefers-color-scheme" in (out / "figures" / f"{drawn.name}.svg").read_text()


@pytest.mark.parametrize(
    ("protocol", "title", "of"),
    [
        ("class_disjoint", "Validation accuracy per epoch", "validation classes"),
        ("multi_label", "Test accuracy per epoch", "test images"),
    ],
)
def test_figures_by_epoch_say_of_which_images_they_are(monkeypatch, protocol, title, of):
    """Accuracy on validation classes was headed as that on test images, the test images of several
    labels stood for validation images, and the training loss for one on either."""
    part = "valid" if protocol == "class_disjoint" else "test"
    records = [
        {"phase": "p", "epoch": epoch, f"{part}_accuracy": 0.5, "train_loss": 1.0}
        for epoch in (1, 2)
    ]
    first = SimpleNamespace(protocol=protocol_named(protocol), records=records)
    study = SimpleNamespace(
        first=first,
        finished=[SimpleNamespace(short="a", runs=[first])],
        has_drop=False,
        has_label_sets=first.protocol.label_sets,
        holdouts=(),
        slug="s",
        missing=[],
    )

    def keys(figure: Any, name: str, title: str, caption: str) -> tuple[str, list[str]]:
        [legend] = figure.legends
        return title, [text.get_text() for text in legend.get_texts()]

    monkeypatch.setattr(curves, "saved", keys)
    assert curves.accuracy_curves(study, {}) == (title, [of])
    assert curves.loss_curves(study, {}) == ("Training loss per epoch", ["training images"])


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["*-answer-*", "*-votes"], ["answer-accuracy", "answer-training", "votes"]),
        (["*-votes"], ["votes"]),
        ([""], []),
    ],
)
def test_only_the_figures_that_are_wanted_stay_and_no_empty_fold(made_report, patterns, kept):
    _, document, _ = made_report
    chosen = document.with_figures(patterns)
    names = [drawn.name for drawn in chosen.figures]
    for end in kept:
        assert [name for name in names if name.endswith(end)], end
    assert bool(names) == bool(kept)
    folds = [block.summary for block in chosen.walk() if isinstance(block, Details)]
    assert ("More figures" in folds) == any("votes" in end for end in kept)
    assert len(chosen.data) == len(document.data)


def test_the_numbers_are_those_of_the_runs(made_report, page, runs):
    out, document, _ = made_report
    summary = json.loads((runs / BASELINE / "cub" / "seed-42" / "summary.json").read_text())
    expected = summary["phases"]["all"]["precision_at_1_macro"]
    assert f'data-sort="{expected!r}"' in page[0]
    with open(out / "table.csv", newline="") as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    assert float(rows[BASELINE]["precision_at_1_macro"]) == pytest.approx(expected)
    drop = summary["precision_drop_unseen_classes"]
    assert float(rows[BASELINE]["precision_drop_unseen_classes"]) == pytest.approx(drop)
    unseen = summary["phases"]["limited"]["precision_at_1_macro_unseen"]
    assert f"is right for {100 * unseen:.1f}%" in answers_of(document)[1]
    with open(out / "closer.csv", newline="") as file:
        enrolled = {
            (row["experiment"], row["number"], row["k"]): float(row["value"])
            for row in csv.DictReader(file)
        }
    last = max(
        int(k)
        for name, number, k in enrolled
        if name == BASELINE and number == "enrolment_unseen_by_images"
    )
    assert enrolled[BASELINE, "enrolment_unseen_by_images", "0"] == 0
    assert enrolled[BASELINE, "enrolment_unseen_by_images", str(last)] == pytest.approx(unseen), (
        "all enrolled is what the run measured"
    )


def test_page_and_markdown_give_the_same_answers(made_report, page):
    out, document, _ = made_report
    markdown = (out / "report.md").read_text(encoding="utf-8")
    sentences = answers_of(document)
    assert len(sentences) == 4
    for sentence in sentences:
        assert sentence in markdown
        assert sentence.replace("`", "") in page[1].text


def test_images_that_the_markdown_shows_exist(made_report):
    out = made_report[0]
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (out / "report.md").read_text(encoding="utf-8"))
    assert len(shown) > 12
    assert [path for path in shown if not (out / path).is_file()] == []


def test_the_report_says_what_made_it(made_report, page, runs):
    text = page[1].text
    assert "dml-bench report 'two words'" in text
    split = json.loads((runs / BASELINE / "cub" / "seed-42" / "summary.json").read_text())["split"][
        "fingerprint"
    ]
    assert split in text
    assert 'backbone]\nname = "timm:test_resnet"' in text
    assert BASELINE in text, "the full name behind the short one"
    assert "Python 3." in text


def test_rows_of_the_study_without_a_run_are_named_on_its_own_page(tmp_path, page):
    assert "experiments of the study have no run here" not in page[1].text
    for name in read_table("study").rows[1:]:
        made(tmp_path, name, queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    document = compose("Report", [], [only_study(tmp_path)], sections=(missing,))
    folded = document.blocks[-1]
    assert isinstance(folded, Details)
    [items] = folded.blocks
    assert "1 experiments of the study have no run here: EPSHN_euclidean_resnet18" in items.items


def test_what_can_t_be_shown_is_named_and_the_rest_is_reported(tmp_path):
    run = made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    document = report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    assert [drawn.name.rpartition("-")[2] for drawn in document.figures] == [
        "accuracy",
        "unseen",
        "training",
        "drop",
        "classes",
        "votes",
        "reliability",
    ]
    text = Page((tmp_path / "out" / "index.html").read_text(encoding="utf-8")).text
    assert "Confusions and examples" not in text, "a fold without anything in it"
    missing = text[text.index("What is missing") : text.index("How it was made")]
    for line in (
        "a softmax classifier to compare with: none of these runs is one",
        f"enrolment and open-set numbers of a: {run.folder} has no stored embeddings",
        "example images: ",
        "test accuracy per epoch: ",
        "training loss per epoch: ",
    ):
        assert line in missing


@pytest.mark.usefixtures("blank_figures")
def test_example_images_that_are_gone_are_named(runs, tmp_path):
    folder = shutil.copytree(runs / BASELINE, tmp_path / "runs" / BASELINE)
    path = folder / "cub" / "seed-42" / "summary.json"
    summary = read_json(path)
    summary["dataset"]["root"] = str(tmp_path / "moved")
    write_json(path, summary)
    report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert re.search(
        rf"- (\d+) of \1 example images: they are no longer in {tmp_path}/moved, or cannot"
        r" be read",
        text,
    )
    assert list((tmp_path / "out" / "images").iterdir()) == []


@pytest.mark.usefixtures("blank_figures")
def test_other_protocols_never_share_a_table(birds, cache_dir, tmp_path):
    made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    train(
        birds,
        cache_dir,
        tmp_path / "runs",
        "protocol=class_disjoint",
        "data.split=half",
        "data.valid_fraction=0.25",
        "train.epochs=1",
    )
    said: list[str] = []
    left: dict[str, list[int]] = {}
    report(
        [tmp_path / "runs"],
        tmp_path / "out",
        ["dml-bench", "report"],
        said.append,
        progress=lambda message, done, total: left.setdefault(message, []).append(total - done),
    )
    assert [*left] == ["reading runs", "sections of the report"]
    for steps in left.values():
        assert steps == [*reversed(range(len(steps)))]
    assert said[0].startswith(
        "these runs cannot all be compared; the report has one part for each of "
    )
    tables = sorted(path.name for path in (tmp_path / "out").glob("table-*.csv"))
    assert [name.partition("-")[2].partition("-")[0] for name in tables] == [
        "class_disjoint",
        "precision_drop",
    ]
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "How well does it find classes never trained on?" in text
    assert "all of classes that it never trained on." in text


@pytest.mark.usefixtures("blank_figures")
def test_a_report_that_is_stopped_leaves_no_page_beside_figures_and_tables_of_another(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "FIGURES", ())
    made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    out = tmp_path / "out"
    report([tmp_path / "runs"], out, ["dml-bench", "report"])
    (out / "changes-of-old.csv").touch()

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assets, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        report([tmp_path / "runs"], out, ["dml-bench", "report"])
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == [
        "closer.csv",
        "expectations.csv",
        "table.csv",
    ]


PHOTOS = "path,class\nimages/mine.jpg,gull\n"


@pytest.mark.parametrize("name", ["index.html", "report.md", "table.csv"])
def test_a_page_or_table_of_others_is_not_written_over(tmp_path, name):
    """`--out .` took the table of a folder of photos away."""
    made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    (tmp_path / name).write_text(PHOTOS)
    with pytest.raises(ValueError, match=f"{name} was made by no report and would be lost"):
        report([tmp_path / "runs"], tmp_path, ["dml-bench", "report"])
    assert (tmp_path / name).read_text() == PHOTOS
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["runs", name])


@pytest.mark.usefixtures("blank_figures")
def test_a_report_removes_what_an_earlier_one_left_and_no_files_of_others(tmp_path):
    made(tmp_path / "runs", "a", queries(4, 3, 2, 4), queries(4, 3, 0, 1))
    figures, images = tmp_path / "figures", tmp_path / "images"
    others = [images / "mine.jpg", figures / "mine.png", figures / "mine.svg"]
    others.append(tmp_path / "table-2026.csv")
    earlier = [images / "gull-0a1b2c3d.jpg", figures / "old.png", figures / "old.svg"]
    earlier.append(tmp_path / "table-of-old.csv")
    for path in (*others, *earlier):
        path.parent.mkdir(exist_ok=True)
        path.write_text(PHOTOS)
    earlier[2].write_text(canvas.standalone("<svg></svg>"))
    earlier[3].write_text("experiment,seeds\na,1\n")
    for _ in range(2):
        report([tmp_path / "runs"], tmp_path, ["dml-bench", "report"])
        assert [path for path in earlier if path.exists()] == []
        assert {path.read_text() for path in others} == {PHOTOS}


# In a browser


def told_by_chromium(path: Path, text: str) -> Any:
    """What a page's script left as JSON in the attribute data-told of its body."""
    path.write_text(text, encoding="utf-8")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-quic",
        "--no-first-run",
        f"--user-data-dir={path.parent / 'profile'}",
        "--dump-dom",
    )
    ended = subprocess.run(
        [CHROMIUM, *flags, path.as_uri()], capture_output=True, text=True, check=False
    )
    match = re.search(r'<body data-told="([^"]*)"', ended.stdout)
    assert match, f"Chromium ended with {ended.returncode} and {ended.stderr[-500:]}"
    return json.loads(html.unescape(match[1]))


CLICKS = """<script>
const table = document.querySelector("table.sortable");
const names = () => [...table.tBodies[0].rows].map(row => row.cells[0].dataset.sort);
const told = {};
for (const head of ["P@1 all", "logits top-1", "experiment"]) {
  const cell = [...table.tHead.rows[0].cells].find(cell => cell.textContent === head);
  const sorted = () => [cell.getAttribute("aria-sort"), ...names()];
  told[head] = [0, 1].map(() => { cell.querySelector("button").click(); return sorted(); });
}
document.body.dataset.told = JSON.stringify(told);
</script></body>"""


@needs_chromium
@pytest.mark.usefixtures("blank_figures")
def test_a_click_on_a_head_sorts_the_table_and_another_turns_it_with_what_is_missing_last(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "FIGURES", ())
    for name, right in (("b", 1), ("c", 4), ("a", 2)):
        made(tmp_path / "runs", name, queries(right, right, right, right), queries(4, 3, 0, 1))
    rival = made_rival(
        tmp_path / "runs", queries(3, 3, 3, 3), queries(1, 1, 1, 1), queries(1, 1, 1, 1)
    )
    rival.summary["phases"]["all"]["logits_accuracy_macro_known"] = 0.25
    (rival.folder / "summary.json").write_text(json.dumps(rival.summary | {"files": {}}))
    report([tmp_path / "runs"], tmp_path / "out", ["dml-bench", "report"])
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert told_by_chromium(tmp_path / "page.html", text.replace("</body>", CLICKS)) == {
        "P@1 all": [["descending", "c", "rival", "a", "b"], ["ascending", "b", "a", "rival", "c"]],
        "logits top-1": [
            ["descending", "rival", "b", "a", "c"],
            ["ascending", "rival", "b", "a", "c"],
        ],
        "experiment": [
            ["ascending", "a", "b", "c", "rival"],
            ["descending", "rival", "c", "b", "a"],
        ],
    }


@needs_chromium
@pytest.mark.parametrize("width", with_slow([390, 1280], 1280))
def test_nothing_is_wider_than_the_screen_of_a_phone_or_a_desktop(page, tmp_path, width):
    measure = (
        "parent.document.body.dataset.told = JSON.stringify(document.documentElement.scrollWidth)"
    )
    inside = html.escape(page[0].replace("</body>", f"<script>{measure}</script></body>"))
    outside = (
        f'<!doctype html><body><iframe style="width: {width}px; height: 800px; border: 0"'
        f' srcdoc="{inside}"></iframe></body>'
    )
    assert told_by_chromium(tmp_path / "page.html", outside) <= width


# The command


def command(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["dml-bench", "report", *arguments])
    app.main()


def test_the_command_refuses_to_report_on_nothing_in_one_line(monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, str(tmp_path), "--out", str(tmp_path / "out"))
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: there is nothing to report on: {tmp_path} holds no run.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("trainable", "cost", "rate"),
    [
        ("all", {"embed_images_per_second": 400.0, "photos_per_second": 90.0}, 90.0),
        ("all", {"embed_images_per_second": 400.0}, 400.0),
        ("head", {"embed_images_per_second": 90_000.0, "photos_per_second": 60.0}, 60.0),
        ("head", {"embed_images_per_second": 90_000.0}, None),
    ],
)
def test_enrolling_is_timed_by_photos_and_never_by_features_that_were_computed_before(
    trainable, cost, rate
):
    name = {
        "all": "EPSHN_cosine_resnet18_sgd_aug",
        "head": "EPSHN_cosine_efficientnet_lite0_head_sgd",
    }[trainable]
    assert photo_rate(Run(Path(), resolve(name), {"cost": {"all": cost}})) == rate


@pytest.mark.usefixtures("blank_figures")
def test_the_time_of_enrolling_is_not_lengthened_by_other_work(tmp_path):
    """Runs that had a quarter of a core said 202 ms in place of 20."""

    def last_sentence(name: str, *costs: dict[str, float]) -> str:
        for seed, cost in enumerate(costs):
            right = {"all": uniform(3), "limited": uniform(2)}
            finish(tmp_path / name, experiment("a", seed=seed), right, cost=COST | cost)
        return sentences(only_study(tmp_path / name))[-1]

    slow, fast = {"photos_per_second": 2.0}, {"photos_per_second": 50.0}
    assert last_sentence("clock", slow, fast).endswith("a photo takes 20 ms by the clock.")
    counted = slow | {"photo_cpu_seconds": 0.018}
    assert last_sentence("cpu", counted, fast).endswith("a photo takes 18 ms of CPU time.")


def test_the_training_of_a_page_is_that_of_rows_which_train():
    rows = [
        *("frozen_efficientnet_lite0", "linearprobe_efficientnet_lite0"),
        *("crossentropy_characters", "EPSHN_cosine_characters"),
    ]
    lines = [SimpleNamespace(runs=(SimpleNamespace(experiment=resolve(row)),)) for row in rows]
    of = SimpleNamespace(profile="")
    study = SimpleNamespace(finished=lines, group=of)
    assert recipe(study) == "resnet18, weights at random; 60 epochs at 64 pixels"
    longer = resolve("SupCon_cosine_characters", overrides=["train.epochs=90"])
    more = [*lines, SimpleNamespace(runs=(SimpleNamespace(experiment=longer),))]
    described = recipe(SimpleNamespace(finished=more, group=of))
    assert described == "resnet18, weights at random; 60 epochs (90 of some) at 64 pixels"
    untrained = SimpleNamespace(finished=lines[:2], group=of)
    assert recipe(untrained) == "efficientnet_lite0, weights from ImageNet; 0 epochs at 224 pixels"
