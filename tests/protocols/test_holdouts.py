"""Rotated hold-outs: one model of all classes, one without each set, and the drop as their mean
with what they differ by."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dml_bench.runs.arrays import read_neighbours

RULE = "unseen=random:2:5 x 3"


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return trained("train.epochs=1", RULE).folder


@pytest.fixture(scope="module")
def summary(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_one_model_sees_all_classes_and_one_is_trained_without_each_set(folder, summary):
    assert list(summary["phases"]) == ["all", "limited-1", "limited-2", "limited-3"]
    held = [set(holdout["unseen_classes"]) for holdout in summary["holdouts"]]
    assert [len(names) for names in held] == [2, 2, 2]
    assert len(set.union(*held)) == 6 == len(summary["unseen_classes"])
    for holdout in summary["holdouts"]:
        with open(folder / f"{holdout['phase']}_classes_metrics.csv", newline="") as file:
            untrained = {
                row["class name"] for row in csv.DictReader(file) if row["training samples"] == "0"
            }
        assert untrained == set(holdout["unseen_classes"])


def test_the_drop_is_the_mean_over_the_hold_outs_with_their_deviation(folder, summary):
    everything = read_neighbours(folder / "all" / "neighbours.safetensors")
    with open(folder / "all_classes_metrics.csv", newline="") as file:
        names = [row["class name"] for row in csv.DictReader(file)]
    drops = []
    for holdout in summary["holdouts"]:
        limited = read_neighbours(folder / holdout["phase"] / "neighbours.safetensors")
        of_classes = []
        for name in holdout["unseen_classes"]:
            queries = everything.query_labels == names.index(name)
            right = [
                (neighbours.labels[queries, 0] == names.index(name)).mean()
                for neighbours in (everything, limited)
            ]
            of_classes.append(right[0] - right[1])
        drops.append(np.mean(of_classes))
        assert holdout["precision_drop_unseen_classes"] == pytest.approx(drops[-1])
    assert summary["precision_drop_unseen_classes"] == pytest.approx(np.mean(drops))
    assert summary["precision_drop_unseen_classes_between_holdouts"] == pytest.approx(
        np.std(drops, ddof=1)
    )


def test_the_cost_is_measured_on_the_same_classes_with_what_the_hold_outs_differ_by(
    folder, summary
):
    with open(folder / "all_classes_metrics.csv", newline="") as file:
        names = [row["class name"] for row in csv.DictReader(file)]
    limited = {
        holdout["phase"]: read_neighbours(folder / holdout["phase"] / "neighbours.safetensors")
        for holdout in summary["holdouts"]
    }
    costs = []
    for holdout in summary["holdouts"]:
        of_classes = []
        for name in holdout["unseen_classes"]:
            label = names.index(name)
            right = {
                phase: (neighbours.labels[neighbours.query_labels == label, 0] == label).mean()
                for phase, neighbours in limited.items()
            }
            untrained = right.pop(holdout["phase"])
            of_classes.append(np.mean(list(right.values())) - untrained)
        costs.append(np.mean(of_classes))
    assert summary["cost_of_being_unseen"] == pytest.approx(np.mean(costs))
    assert summary["cost_of_being_unseen_between_holdouts"] == pytest.approx(np.std(costs, ddof=1))
    assert summary["cost_of_being_unseen_compares"] == "same classes"
    parts = [summary[f"precision_drop_seen_to_{group}_classes"] for group in ("unseen", "seen")]
    assert sum(parts) == pytest.approx(summary["precision_drop_seen_classes"])


def test_the_comparison_lists_each_class_under_the_model_that_never_saw_it(folder, summary):
    with open(folder / "comparison_unseen_classes_metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class name"] for row in rows] == summary["unseen_classes"]
    for row in rows:
        (phase,) = [
            holdout["phase"]
            for holdout in summary["holdouts"]
            if row["class name"] in holdout["unseen_classes"]
        ]
        with open(folder / f"{phase}_classes_metrics.csv", newline="") as file:
            (precision,) = [
                r["precision@1"]
                for r in csv.DictReader(file)
                if r["class name"] == row["class name"]
            ]
        assert row["P@1 trained without the unseen classes"] == precision


def test_each_phase_has_records_of_its_own_names(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = [key for record in records for key in record if key.startswith("train_loss")]
    assert names == ["train_loss", "train_loss2", "train_loss3", "train_loss4"]
