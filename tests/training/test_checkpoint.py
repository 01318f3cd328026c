"""Validation images: who they are, what they decide, and that neither queries nor held-out classes
have a say in it."""

import csv
import io
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import StopsAfter, tiny, train

from dml_bench.data.split import Phase, make_split, split_of
from dml_bench.runs import layout
from dml_bench.runs.arrays import read_arrays
from dml_bench.runs.request import Outcome
from dml_bench.system.files import read_json_lines
from dml_bench.training import checkpoint, validation


@pytest.fixture(scope="module")
def outcome(birds: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    settings = (
        "data.valid_fraction=0.2",
        "train.checkpoint=valid_loss",
        "train.epochs=5",
        "optimizer.lr=4.0",
    )  # so high that losses go up and down
    return train(birds, cache_dir, tmp_path_factory.mktemp("runs"), *settings)


def records(folder: Path, phase: str) -> list[dict[str, float]]:
    all_records = read_json_lines(folder / "metrics.jsonl")
    return [record for record in all_records if record["phase"] == phase]


def test_validation_images_come_from_the_training_part_of_each_class_and_the_queries_stay():
    from test_folds import dataset_of

    dataset = dataset_of([10, 20, 7])
    plain = make_split(dataset, method="stratified", test_fraction=0.2, seed=3)
    split = make_split(dataset, method="stratified", test_fraction=0.2, valid_fraction=0.2, seed=3)
    assert split.test.tolist() == plain.test.tolist()
    assert np.sort(np.concatenate([split.train, split.valid])).tolist() == plain.train.tolist()
    assert np.bincount(dataset.labels[split.valid]).tolist() == [2, 3, 1]
    assert split.gallery is split.train
    assert split.fingerprint != plain.fingerprint


def test_a_class_too_small_to_be_watched_is_refused():
    from test_folds import dataset_of

    with pytest.raises(
        ValueError,
        match=(
            r"1 classes have fewer than 2 images left \(c1\): one for validation and one for the"
            r" gallery"
        ),
    ):
        make_split(
            dataset_of([10, 2]), method="stratified", test_fraction=0.2, valid_fraction=0.2, seed=3
        )


def test_the_epoch_with_the_lowest_validation_loss_is_kept(outcome: Outcome):
    for phase, suffix in (("all", ""), ("limited", "2")):
        losses = [record[f"valid_loss{suffix}"] for record in records(outcome.folder, phase)]
        chosen = outcome.summary["phases"][phase]["chosen"]
        assert chosen == {"epoch": 1 + int(np.argmin(losses)), "valid_loss": min(losses)}


def test_the_weights_that_answer_are_those_of_the_chosen_epoch(
    birds, cache_dir, tmp_path, outcome: Outcome
):
    """The run stopped at the chosen epoch ends with the same weights: a constant rate has no plan
    that depends on the last epoch."""
    chosen = {
        phase: outcome.summary["phases"][phase]["chosen"]["epoch"] for phase in ("all", "limited")
    }
    phase = min(chosen, key=lambda phase: chosen[phase])
    epoch = chosen[phase]
    assert epoch < 5, (
        "on this processor the last epoch is the best of both phases, which shows nothing"
    )
    short = train(
        birds,
        cache_dir,
        tmp_path,
        "data.valid_fraction=0.2",
        f"train.epochs={epoch}",
        "optimizer.lr=4.0",
    )
    assert (short.folder / phase / "weights.safetensors").read_bytes() == (
        outcome.folder / phase / "weights.safetensors"
    ).read_bytes()


def test_validation_images_are_embedded_for_thresholds_and_never_looked_up(outcome: Outcome):
    with open(outcome.folder / "split.csv", newline="") as file:
        parts = np.array([row["part"] for row in csv.DictReader(file)])
    arrays = read_arrays(outcome.folder / "all" / "embeddings.safetensors")
    assert arrays["valid_images"].tolist() == np.flatnonzero(parts == "valid").tolist()
    assert arrays["valid"].shape == (len(arrays["valid_images"]), 128)
    assert not set(arrays["gallery_images"]) & set(arrays["valid_images"])


@pytest.mark.parametrize("chosen_by", ["valid_loss", "valid_accuracy"])
def test_neither_queries_nor_held_out_classes_choose_the_epoch(
    chosen_by, birds, cache_dir, tmp_path, monkeypatch
):
    seen: dict[str, set[int]] = {}
    original = validation.valid_loss

    def spy(run, images, outputs):
        seen.setdefault(run.phase.name, set()).update(images.tolist())
        return original(run, images, outputs)

    monkeypatch.setattr(validation, "valid_loss", spy)
    folder = train(
        birds,
        cache_dir,
        tmp_path,
        "data.valid_fraction=0.2",
        f"train.checkpoint={chosen_by}",
        "train.epochs=1",
    ).folder
    with open(folder / "split.csv", newline="") as file:
        parts = np.array([row["part"] for row in csv.DictReader(file)])
    valid, unseen = np.flatnonzero(parts == "valid"), np.arange(64) // 8 >= 6
    assert seen == {"all": set(valid.tolist()), "limited": set(valid[~unseen[valid]].tolist())}


def test_the_earlier_of_equally_good_epochs_is_kept(birds, cache_dir, tmp_path):
    frozen = train(
        birds,
        cache_dir,
        tmp_path,
        "data.valid_fraction=0.2",
        "train.checkpoint=valid_accuracy",
        "optimizer.lr=0.0",
        "model.batch_norm=frozen",
    )
    assert frozen.summary["phases"]["all"]["chosen"]["epoch"] == 1


def test_a_checkpoint_to_be_chosen_without_validation_images_is_refused():
    with pytest.raises(
        ValueError,
        match=(
            r"train.checkpoint = valid_loss needs validation images; --set data.valid_fraction=0.1"
        ),
    ):
        tiny("train.checkpoint=valid_loss")
    with pytest.raises(
        ValueError, match="validation classes have no loss; --set train.checkpoint=valid_accuracy"
    ):
        tiny(
            "train.checkpoint=valid_loss",
            "protocol=class_disjoint",
            "data.split=half",
            "data.valid_fraction=0.2",
        )


FOLLOWING = {
    "train.checkpoint": ("train.checkpoint=valid_accuracy",),
    "labelling.listen_from": (
        *("loss=crossentropy", "miner=none", "labelling=plc", "labelling.listen_from=0.5"),
    ),
    "schedule plateau": ("schedule=plateau",),
}


@pytest.mark.parametrize("follows", FOLLOWING)
def test_what_follows_validation_images_is_refused_before_training_where_a_given_split_has_none(
    follows, birds, cache_dir, tmp_path
):
    data = shutil.copytree(birds, tmp_path / "CUB_200_2011")
    parts = [f"{image} {int(image % 4 > 0)}\n" for image in range(1, 65)]
    (data / "train_test_split.txt").write_text("".join(parts))
    refused = f"{follows} follows validation images, and cub has none in its own parts: add some"
    with pytest.raises(ValueError, match=refused):
        train(data, cache_dir, tmp_path, "data.split=given", *FOLLOWING[follows])
    assert not list(tmp_path.rglob(layout.RECORDS))
    with pytest.raises(
        ValueError, match=r"needs validation images; --set data\.valid_fraction=0.1"
    ):
        tiny("data.split=given", "protocol=class_disjoint", "schedule=plateau")


def test_a_fraction_that_a_given_split_does_not_take_is_said():
    from test_folds import dataset_of

    dataset = replace(dataset_of([4, 4]), parts=("train", "train", "valid", "test") * 2)
    split = make_split(dataset, method="given", test_fraction=0.2, valid_fraction=0.2, seed=3)
    (note,) = split.notes
    assert note == (
        f"data.valid_fraction has no effect with data.split = given: {dataset.name} has 2"
        " validation images in its own parts"
    )


@pytest.mark.parametrize(
    ("settings", "notes"),
    [
        (
            ("data.split=given", "data.test_fraction=0.5"),
            ["data.test_fraction has no effect with data.split = given, which is the data set's"],
        ),
        (
            ("data.split=half", "protocol=class_disjoint", "data.test_fraction=0.5"),
            [
                "data.test_fraction has no effect with data.split = half, which divides by class",
                "unseen has no effect with protocol class_disjoint, which does not ask which",
            ],
        ),
        (("data.split=half", "protocol=class_disjoint", "unseen=last:20"), []),
        (("data.split=given",), []),
        (("data.test_fraction=0.5",), []),
    ],
)
def test_a_setting_of_the_split_that_changes_nothing_is_said(settings, notes):
    from test_folds import dataset_of

    parts = ("train", "valid", "test", "test")
    dataset = replace(dataset_of([4, 4, 4, 4]), parts=parts * 4)
    said = split_of(tiny(*settings), dataset).notes
    assert len(said) == len(notes)
    for sentence, beginning in zip(said, notes, strict=True):
        assert sentence.startswith(beginning)


def test_a_loss_that_is_nan_on_validation_images_chooses_no_epoch(
    birds, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(validation, "valid_loss", lambda *_: float("nan"))
    settings = ("data.valid_fraction=0.2", "train.checkpoint=valid_loss")
    with pytest.raises(ValueError, match="valid_loss is nan in phase all, epoch 1, so no epoch"):
        train(birds, cache_dir, tmp_path, *settings)


def test_a_phase_validates_on_its_fold_together_with_the_validation_images():
    from test_folds import dataset_of

    dataset = dataset_of([10, 10])
    split = make_split(dataset, method="stratified", test_fraction=0.2, valid_fraction=0.2, seed=3)
    phase = Phase("all-fold-1", fold_images=tuple(split.train[:3].tolist()))
    assert phase.monitored_images(dataset, split).queries["valid"].tolist() == sorted(
        [*split.train[:3].tolist(), *split.valid.tolist()]
    )


def test_the_best_epoch_is_said_to_be_looked_for_among_those_that_are_measured():
    assert (
        checkpoint.epochs_seen(tiny("data.valid_fraction=0.2", "train.checkpoint=valid_loss")) == ""
    )
    assert checkpoint.epochs_seen(tiny("evaluate.every=2")) == ""
    seldom = tiny("data.valid_fraction=0.2", "train.checkpoint=valid_loss", "evaluate.every=2")
    line = (
        "train.checkpoint = valid_loss chooses among epochs 2, 3, which evaluate.every = 2"
        " measures; --set evaluate.every=1 for all"
    )
    assert checkpoint.epochs_seen(seldom) == line


class Beside(checkpoint.CheckpointWriter):
    """A writer as a GPU has it."""

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.beside_training = True


def test_a_run_whose_checkpoints_are_written_beside_training_goes_on_with_the_same_bits(
    birds, cache_dir, tmp_path, trained, monkeypatch
):
    undisturbed = trained().folder
    monkeypatch.setattr(checkpoint, "CheckpointWriter", Beside)
    with pytest.raises(KeyboardInterrupt):
        train(birds, cache_dir, tmp_path, callback=StopsAfter(2))
    parts = train(birds, cache_dir, tmp_path).folder
    for phase in ("all", "limited"):
        model = Path(phase) / layout.WEIGHTS
        assert (parts / model).read_bytes() == (undisturbed / model).read_bytes()
        assert [record["epoch"] for record in records(parts, phase)] == [1, 2, 3]


def test_what_is_written_beside_training_is_the_state_of_its_epoch_in_the_order_of_its_steps(
    tmp_path, monkeypatch
):
    weights = {"weight": torch.ones(2)}
    monkeypatch.setattr(checkpoint, "contents", lambda state: {"embedder": weights, "records": [1]})
    may_write, order = threading.Event(), []
    monkeypatch.setattr(
        checkpoint, "write", lambda saved, path: may_write.wait() and order.append(saved)
    )
    writer = Beside(torch.device("cpu"))
    writer.save(None, tmp_path, lambda: order.append("record"), lambda: order.append("mirror"))
    weights["weight"].fill_(7)  # training goes on
    assert order == []
    may_write.set()
    writer.finish()
    assert order[0]["embedder"]["weight"].tolist() == [1, 1]
    assert order[1:] == ["record", "mirror"]


def test_a_checkpoint_that_could_not_be_written_beside_training_ends_the_run(tmp_path, monkeypatch):
    def is_full(saved: object, path: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "contents", lambda state: {})
    monkeypatch.setattr(checkpoint, "write", is_full)
    writer, after = Beside(torch.device("cpu")), []
    writer.save(None, tmp_path, lambda: after.append("record"), lambda: after.append("mirror"))
    with pytest.raises(OSError, match="No space left"):
        writer.finish()
    assert after == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a disk that is always full")
def test_a_disk_that_is_full_is_said_and_a_checkpoint_takes_no_checksums_besides_its_seal(
    tmp_path, monkeypatch
):
    saved = {"weight": torch.arange(10_000.0)}
    checkpoint.write(saved, tmp_path / "checkpoint")
    content = (tmp_path / "checkpoint").read_bytes()[len(checkpoint.FIRST_LINE) :]
    assert torch.equal(torch.load(io.BytesIO(content))["weight"], saved["weight"])
    assert torch.serialization.get_crc32_options()

    def on_full_disk(path, fill):
        with open("/dev/full", "wb") as file:  # whose buffer takes the first line
            fill(file)

    monkeypatch.setattr(checkpoint, "write_sealed", on_full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(saved, tmp_path / "checkpoint")
    assert torch.serialization.get_crc32_options()
