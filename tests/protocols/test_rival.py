"""The softmax classifier as the rival: its logits on what it knows, its features through the same
gallery, in both phases."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import train

from dml_bench.runs.arrays import read_neighbours

RIVAL = ("loss=crossentropy", "miner=none", "model.head=identity", "train.epochs=2")


@pytest.fixture(scope="module")
def folder(trained) -> Path:
    return trained(*RIVAL).folder


def test_both_phases_report_the_accuracy_of_the_logits_on_the_classes_that_they_know(folder):
    phases = json.loads((folder / "summary.json").read_text())["phases"]
    with open(folder / "predictions.csv", newline="") as file:
        queries = list(csv.DictReader(file))
    for phase in ("all", "limited"):
        known = [q for q in queries if phase == "all" or q["unseen"] == "False"]
        right = np.mean([q[f"{phase}_logits_predicted"] == q["class"] for q in known])
        assert phases[phase]["logits_accuracy_micro_known"] == pytest.approx(right)
    unseen = {q["class"] for q in queries if q["unseen"] == "True"}
    assert len(unseen) == 2
    assert unseen.isdisjoint({q["limited_logits_predicted"] for q in queries}), (
        "it can't name a class that it never saw"
    )


def test_the_penultimate_features_are_what_the_gallery_holds(folder):
    for phase, classes in (("all", 8), ("limited", 6)):
        embeddings = load_file(folder / phase / "embeddings.safetensors")
        weights = load_file(folder / phase / "objective.safetensors")
        num_features = embeddings["query"].shape[1]
        assert [value.shape for name, value in weights.items() if name.endswith("weight")] == [
            (classes, num_features)
        ]
        assert np.allclose(np.linalg.norm(embeddings["gallery"], axis=1), 1, atol=1e-5)
        neighbours = read_neighbours(folder / phase / "neighbours.safetensors")
        nearest = (embeddings["query"] @ embeddings["gallery"].T).max(axis=1)
        assert np.allclose(neighbours.similarities[:, 0], nearest, atol=1e-5)


def test_each_epoch_records_the_accuracy_of_the_logits_under_a_name_of_its_own(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(
        0 <= record[f"test_logits_accuracy{'2' if record['phase'] == 'limited' else ''}"] <= 1
        for record in records
    )


def test_a_loss_without_logits_reports_none(trained):
    outcome = trained("train.epochs=1")
    summary = outcome.summary
    assert not any("logits" in name for phase in summary["phases"].values() for name in phase)
    assert "logits" not in (outcome.folder / "predictions.csv").read_text()


def test_proxies_learn_at_their_own_rate(birds, cache_dir, tmp_path):
    def moved(*more: str) -> tuple[np.ndarray, np.ndarray]:
        """What one epoch made of the proxies and of the backbone, with a rate at which the backbone
        stays."""
        run = train(
            birds,
            cache_dir,
            tmp_path / "-".join(more),
            *RIVAL,
            "train.epochs=1",
            "optimizer.lr=1e-8",
            *more,
        ).folder
        return tuple(
            next(iter(load_file(run / "all" / f"{part}.safetensors").values()))
            for part in ("objective", "weights")
        )

    slow, fast = moved(), moved("train.proxy_lr_factor=1e6")
    assert not np.allclose(slow[0], fast[0], atol=1e-4)
    assert np.allclose(slow[1], fast[1], atol=1e-4)
