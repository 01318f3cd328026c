"""Folds: who trains on what, what each model reports, and what their ensemble answers."""

import csv
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

from dml_bench.data.datasets import Dataset
from dml_bench.data.split import Phase, Split, fold_phases, make_split
from dml_bench.runs import embed_and_search
from dml_bench.runs.arrays import read_arrays, read_neighbours
from dml_bench.runs.request import Outcome

CLASSIFIER = ("loss=crossentropy", "miner=none", "model.head=identity")


def dataset_of(counts: list[int]) -> Dataset:
    paths = tuple(f"c{label}/{i}.jpg" for label, count in enumerate(counts) for i in range(count))
    names = tuple(f"c{i}" for i in range(len(counts)))
    return Dataset(
        name="made",
        root=Path(),
        paths=paths,
        labels=np.repeat(np.arange(len(counts)), counts),
        class_names=names,
    )


def test_folds_divide_the_training_images_evenly_within_each_class_and_alike_in_both_phases():
    dataset = dataset_of([10, 11, 13, 9])
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    everything, limited = (
        fold_phases(phase, dataset, split, dataset.labels, 3, 1)
        for phase in (Phase("all"), Phase("limited", (3,)))
    )
    parts = [np.array(phase.fold_images) for phase in everything]
    assert np.sort(np.concatenate(parts)).tolist() == split.train.tolist()
    sizes = np.array([np.bincount(dataset.labels[part], minlength=4) for part in parts])
    assert (np.ptp(sizes, axis=0) <= 1).all() and np.ptp(sizes.sum(axis=1)) <= 1
    for phase, other in zip(everything, limited, strict=True):
        assert set(phase.trains_on(dataset, split)) | set(phase.fold_images) == set(
            split.train.tolist()
        )
        assert set(other.fold_images) == {
            image for image in phase.fold_images if dataset.labels[image] != 3
        }
        assert not set(other.trains_on(dataset, split)) & set(np.flatnonzero(dataset.labels == 3))
        assert phase.monitored_images(dataset, split).queries["valid"].tolist() == sorted(
            phase.fold_images
        )


def test_more_folds_than_a_class_has_images_are_refused():
    dataset = dataset_of([10, 4])
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    with pytest.raises(
        ValueError,
        match="5 folds, but class c1 has 3 training images: at most 3 folds are possible",
    ):
        fold_phases(Phase("all"), dataset, split, dataset.labels, 5, 1)


@pytest.mark.parametrize("folds", [1, -2])
def test_one_fold_is_none(folds):
    with pytest.raises(
        ValueError, match=f"train.folds must be 0 \\(off\\) or at least 2, got {folds}"
    ):
        tiny(f"train.folds={folds}")


@pytest.fixture(scope="module")
def outcome(trained) -> Outcome:
    return trained("train.folds=3", *CLASSIFIER)


@pytest.mark.parametrize("phase", ["all", "limited"])
def test_the_models_answer_with_the_mean_of_their_similarities_and_of_their_probabilities(
    outcome: Outcome, phase: str
):
    folder = outcome.folder / phase
    members = [
        read_arrays(folder / f"fold-{number}" / "embeddings.safetensors") for number in (1, 2, 3)
    ]
    mean = np.mean([arrays["query"] @ arrays["gallery"].T for arrays in members], axis=0)
    neighbours = read_neighbours(folder / "neighbours.safetensors")
    assert neighbours.similarities[:, 0] == pytest.approx(mean.max(axis=1), abs=1e-5)
    together = read_arrays(folder / "embeddings.safetensors")
    assert np.linalg.norm(together["query"], axis=1) == pytest.approx(1, abs=1e-5)
    logits = [read_arrays(folder / f"fold-{number}" / "logits.safetensors") for number in (1, 2, 3)]
    voted = np.mean([arrays["probabilities"] for arrays in logits], axis=0).argmax(axis=1)
    assert (
        read_arrays(folder / "logits.safetensors")["predicted"].tolist()
        == logits[0]["classes"][voted].tolist()
    )


def test_the_look_up_of_an_ensemble_is_timed_among_its_own_vectors(
    outcome: Outcome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Which are as long as those of its models together; the time of one model is not it."""
    members = [outcome.folder / "all" / f"fold-{number}" for number in (1, 2, 3)]
    stored = read_arrays(members[0] / "embeddings.safetensors")
    dataset = dataset_of([len(stored["gallery"]), len(stored["query"])])
    gallery, query = (np.flatnonzero(dataset.labels == label) for label in (0, 1))
    split = Split(gallery, query, "", gallery, gallery[:0])
    seen = []
    monkeypatch.setattr(
        embed_and_search, "seconds_of_look_up", lambda index, row: seen.append(index.d) or 0.25
    )
    monkeypatch.setattr(embed_and_search, "write_answers", lambda *values: seen.append(values[-1]))
    embed_and_search.evaluate_ensemble(members, tiny(), dataset, split, tmp_path)
    *dims, cost = seen
    assert set(dims) == {3 * stored["gallery"].shape[1]}
    assert cost["look_up_ms_median"] == cost["look_up_ms_p95"] == 250


def test_each_fold_is_reported_and_their_mean_with_its_interval(outcome: Outcome):
    for phase in ("all", "limited"):
        folds = outcome.summary["phases"][phase]["folds"]
        assert len(folds["precision_at_1_macro"]) == 3
        assert folds["mean"] == pytest.approx(np.mean(folds["precision_at_1_macro"]))
        assert folds["low"] <= folds["mean"] <= folds["high"]
        neighbours = read_neighbours(outcome.folder / phase / "fold-2" / "neighbours.safetensors")
        right = neighbours.labels[:, 0] == neighbours.query_labels
        macro = np.mean([right[neighbours.query_labels == label].mean() for label in range(8)])
        assert folds["precision_at_1_macro"][1] == pytest.approx(macro)


def test_no_fold_trains_on_a_test_image_and_the_record_tells_the_folds_apart(outcome: Outcome):
    with open(outcome.folder / "split.csv", newline="") as file:
        parts = [row["part"] for row in csv.DictReader(file)]
    assert parts.count("train") == 51
    import json

    records = [
        json.loads(line) for line in (outcome.folder / "metrics.jsonl").read_text().splitlines()
    ]
    assert {record["phase"] for record in records} == {
        f"{phase}-fold-{n}" for phase in ("all", "limited") for n in (1, 2, 3)
    }
    assert {record["train_images"] for record in records if record["phase"].startswith("all")} == {
        34
    }
    assert {key for record in records for key in record if key.startswith("train_loss")} == {
        f"train_loss{suffix}_fold_{n}" for suffix in ("", "2") for n in (1, 2, 3)
    }
