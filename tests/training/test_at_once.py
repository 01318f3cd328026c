"""Rivals that make no steps: what is fitted on which images, and what a run says of it."""

import csv
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import tiny

import dml_bench as db
from dml_bench.analysis.collect import collect, studies_of
from dml_bench.config.experiments import resolve
from dml_bench.report.tables import results_data, results_table
from dml_bench.runs.metrics import metrics_of
from dml_bench.runs.run import read_folder

AT_ONCE = (
    "loss=crossentropy",
    "miner=none",
    "model.head=identity",
    "model.trainable=head",
    "augment.random_crop_from=0",
    "augment.horizontal_flip=0.0",
    "train.epochs=0",
)
NO_TRAINING = (*AT_ONCE, "optimizer=class_means", "name=frozen")
PROBE = (*AT_ONCE, "optimizer=linear_probe", "name=probe")


@pytest.fixture(scope="module")
def untrained(trained):
    return trained(*NO_TRAINING).folder


@pytest.fixture(scope="module")
def probed(trained):
    return trained(*PROBE).folder


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def test_without_training_both_phases_find_the_same_images(untrained):
    first, second = (
        load_file(untrained / phase / "neighbours.safetensors") for phase in ("all", "limited")
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_without_training_the_last_layer_names_the_nearest_class_mean(untrained):
    run = read_folder(untrained)
    for phase in ("all", "limited"):
        stored, neighbours = run.embeddings(phase), run.neighbours[phase]
        classes = np.unique(neighbours.gallery_labels)
        classes = classes[~np.isin(classes, run.held_out.get(phase, ()))]
        means = np.stack([stored.gallery[neighbours.gallery_labels == c].mean(0) for c in classes])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        expected = classes[(stored.query @ means.T).argmax(1)]
        assert np.array_equal(run.logits(phase).predicted, expected)


def test_a_run_without_training_says_so_instead_of_a_drop_of_0(untrained):
    summary = summary_of(untrained)
    assert summary["no_drop_because"] == "no training"
    assert not [key for key in summary if key.startswith(("precision_drop", "cost_of"))]
    assert set(summary["holdouts"][0]) == {"phase", "unseen_classes"}
    run = read_folder(untrained)
    assert "no training" in run.protocol.headline(run.summary)
    [table] = run.protocol.outcome(run.summary)
    assert ("cost of being unseen", "no training", "") in table.rows
    assert not {"cost_of_being_unseen", "precision_drop_unseen_classes"} & set(
        metrics_of(run.experiment)
    )


def test_a_table_and_a_data_frame_have_no_number_where_nothing_was_trained(
    untrained, probed, trained
):
    folders = [untrained, probed, trained("train.epochs=1").folder]
    [study] = studies_of(collect(folders))
    table = results_table(study.group)
    place = next(i for i, c in enumerate(table.columns) if c.head.startswith("cost of being"))
    cells = {row.cells[0].hover: row.cells[place].text for row in table.rows}
    assert (cells.pop("frozen"), cells.pop("probe")) == ("no training", "features not trained")
    assert next(iter(cells.values()))[0] in "+-0123456789"
    data = results_data(study.group)
    place = data.heads.index("cost_of_being_unseen")
    assert {row[0] for row in data.rows if row[place] == ""} == {"frozen", "probe"}
    frame = db.load_runs(untrained)
    assert "cost_of_being_unseen" not in frame
    assert frame["no_drop_because"].tolist() == ["no training"]


def test_the_probe_knows_the_training_classes_of_its_phase_and_no_other(probed):
    run = read_folder(probed)
    assert run.logits("limited").predicted.max() < 6 and run.logits("all").predicted.max() <= 7
    fitted = summary_of(probed)["phases"]["limited"]["fitted"]
    with open(probed / "split.csv", newline="") as file:
        trains = [row for row in csv.DictReader(file) if row["part"] == "train"]
    unseen = set(run.summary["unseen_classes"])
    assert fitted["images"] == len([row for row in trains if row["class"] not in unseen])
    assert fitted["chosen_on"] == "training images that were set aside"


def test_the_probe_chooses_its_l2_on_validation_images_where_there_are_some(trained):
    folder = trained(*PROBE, "data.valid_fraction=0.3").folder
    fitted = summary_of(folder)["phases"]
    with open(folder / "split.csv", newline="") as file:
        valid = [row["class"] for row in csv.DictReader(file) if row["part"] == "valid"]
    unseen = set(summary_of(folder)["unseen_classes"])
    for phase, images in (("all", valid), ("limited", [c for c in valid if c not in unseen])):
        assert fitted[phase]["fitted"]["chosen_on"] == "validation images"
        assert fitted[phase]["fitted"]["chosen_on_images"] == len(images)


def test_a_profile_lengthens_no_training_that_is_none():
    experiment = resolve("linearprobe_resnet18", profile="demo")
    assert (experiment.train.epochs, experiment.schedule.name) == (0, "constant")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("train.epochs=0",), "train.epochs must be at least 1 with optimizer sgd, got 0"),
        ((*PROBE, "train.epochs=2"), "train.epochs must be 0 with optimizer linear_probe"),
        ((*PROBE, "loss=ProxyNCA"), "loss must be crossentropy with optimizer linear_probe"),
        ((*NO_TRAINING, "start=simclr"), "start must be none with optimizer class_means"),
        ((*NO_TRAINING, "model.head=linear"), "model.head must be identity with optimizer"),
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(overrides, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        tiny(*overrides)
