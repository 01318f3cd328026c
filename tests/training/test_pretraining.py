"""Starts: stages that see only what their phase sees, carry everything over, resume, and are
shared."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny, train

from dml_bench.config import as_table, load
from dml_bench.config.experiments import resolve
from dml_bench.data.inputs import ImageInputs
from dml_bench.registry import starts
from dml_bench.training import checkpoint, loop, pretraining
from dml_bench.training.batches import Batch, training_batch
from dml_bench.training.pretraining import Stage, source_experiment, without_later_settings
from dml_bench.training.training_state import TrainingState

CLASSIFIER = "start={name='classifier', epochs=2, batch_size=16, lr=0.05}"
SIMCLR = "start={name='simclr', epochs=2, batch_size=16}"
SHORT = "train.epochs=1"


def rows(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "split.csv").read_text().splitlines()[1:]
    return [(line.split(",")[1], line.split(",")[2]) for line in lines]


@pytest.mark.parametrize("start", [CLASSIFIER, SIMCLR], ids=["classifier", "simclr"])
def test_no_start_ever_sees_a_held_out_class_or_a_test_image(
    birds, cache_dir, tmp_path, monkeypatch, start
):
    fed: dict[tuple[str, str], set[int]] = {}
    original = ImageInputs.train

    def spy(
        self: ImageInputs, images: np.ndarray, *, phase: str, epoch: int, view: int = 0
    ) -> torch.Tensor:
        fed.setdefault((self.experiment.name, phase), set()).update(images.tolist())
        return original(self, images, phase=phase, epoch=epoch, view=view)

    monkeypatch.setattr(ImageInputs, "train", spy)
    folder = train(birds, tmp_path / "cache", tmp_path / "runs", start, SHORT).folder
    split = rows(folder)
    unseen = set(sorted({name for name, _ in split})[-2:])
    training = {image for image, (_, part) in enumerate(split) if part == "train"}
    known = {image for image in training if split[image][0] not in unseen}
    stage = start.partition("'")[2].partition("'")[0]
    assert fed[stage, "all"] == training
    assert fed[stage, "limited"] == known
    assert len(fed) == 4


@pytest.mark.parametrize("start", [CLASSIFIER, SIMCLR], ids=["classifier", "simclr"])
def test_a_phase_begins_with_the_weights_and_the_statistics_of_its_own_start(
    birds, tmp_path, monkeypatch, start
):
    begun: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    ended: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    fit = loop.fit

    def recorded(run: TrainingState, keep: object) -> None:
        key = run.experiment.name, run.phase.name
        begun[key] = {
            name: tensor.clone() for name, tensor in run.embedder.backbone.state_dict().items()
        }
        fit(run, keep)
        ended[key] = {
            name: tensor.clone() for name, tensor in run.embedder.backbone.state_dict().items()
        }

    monkeypatch.setattr(loop, "fit", recorded)
    folder = train(birds, tmp_path / "cache", tmp_path / "runs", start, SHORT).folder
    stage = start.partition("'")[2].partition("'")[0]
    for phase in ("all", "limited"):
        before, after = ended[stage, phase], begun["EPSHN_cosine_resnet18_sgd_aug", phase]
        assert before.keys() == after.keys()
        assert any(name.endswith("running_var") for name in after)
        assert all(torch.equal(before[name], after[name]) for name in before)
        start_record = json.loads((folder / phase / "start.json").read_text())
        assert start_record["experiment"]["name"] == stage
        assert [record["epoch"] for record in start_record["records"]] == [1, 2]
        assert len(start_record["weights_sha256"]) == 64
    assert not torch.equal(
        begun["EPSHN_cosine_resnet18_sgd_aug", "all"]["conv1.0.weight"],
        begun["EPSHN_cosine_resnet18_sgd_aug", "limited"]["conv1.0.weight"],
    )


def test_experiments_that_need_the_same_start_share_one(birds, tmp_path, monkeypatch):
    trained: list[str] = []
    original = Stage._train

    def counted(self: Stage, callback: object) -> TrainingState:
        trained.append(self.phase.name)
        return original(self, callback)

    monkeypatch.setattr(Stage, "_train", counted)
    train(birds, tmp_path / "cache", tmp_path / "one", CLASSIFIER, SHORT)
    train(
        birds,
        tmp_path / "cache",
        tmp_path / "two",
        CLASSIFIER,
        SHORT,
        "model.head.dim=16",
        "optimizer.lr=0.01",
    )
    assert trained == ["all", "limited"]
    train(birds, tmp_path / "cache", tmp_path / "three", CLASSIFIER, SHORT, "unseen=last:3")
    assert trained == ["all", "limited", "limited"], (
        "phase all has nothing to do with what is held out of the other"
    )
    train(birds, tmp_path / "cache", tmp_path / "four", CLASSIFIER, SHORT, "seed=43")
    assert len(trained) == 5


def test_a_start_that_was_interrupted_goes_on_and_ends_with_the_same_bits(
    birds, tmp_path, monkeypatch
):
    saves = 0
    original = checkpoint.write

    def stopping(saved: dict[str, object], path: Path) -> None:
        nonlocal saves
        original(saved, path)
        saves += 1
        if saves == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pretraining.checkpoint, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(birds, tmp_path / "cache", tmp_path / "runs", SIMCLR, SHORT)
    assert list((tmp_path / "cache" / "pretrained").glob("*.state.pt"))
    resumed = train(birds, tmp_path / "cache", tmp_path / "runs", SIMCLR, SHORT).folder
    assert not list((tmp_path / "cache" / "pretrained").glob("*.state.pt"))
    straight = train(birds, tmp_path / "other", tmp_path / "straight", SIMCLR, SHORT).folder
    for phase in ("all", "limited"):
        assert (resumed / phase / "weights.safetensors").read_bytes() == (
            straight / phase / "weights.safetensors"
        ).read_bytes()


def test_simclr_makes_two_views_of_an_image_each_other_s_only_positives(
    birds, tmp_path, monkeypatch
):
    seen: list[torch.Tensor] = []

    def spy(run: TrainingState, images: np.ndarray, epoch: int, step: int) -> Batch:
        batch = training_batch(run, images, epoch, step)
        if run.experiment.name == "simclr":
            [(labels, weights)] = batch.targets
            assert weights is None and len(labels) == len(batch.inputs) == 2 * len(images)
            seen.append(labels)
        return batch

    monkeypatch.setattr(loop, "training_batch", spy)
    train(birds, tmp_path / "cache", tmp_path / "runs", SIMCLR, SHORT)
    assert seen
    assert all(torch.equal(labels, torch.arange(len(labels) // 2).repeat(2)) for labels in seen)


@pytest.mark.parametrize("name", starts.names())
def test_every_start_is_an_experiment_of_its_own_or_none(name):
    experiment = resolve(
        "EPSHN_cosine_resnet18x512_sgd_aug", overrides=[f"start={name}", "model.weights=none"]
    )
    stage = starts[name].build(experiment, **experiment.start.options)
    if name == "none":
        assert stage is None
        return
    assert stage.start.name == "none"
    assert (stage.data, stage.images, stage.seed, stage.model.backbone) == (
        experiment.data,
        experiment.images,
        experiment.seed,
        experiment.model.backbone,
    )
    assert load(as_table(stage)) == stage
    baseline = resolve(
        "EPSHN_cosine_resnet18_sgd",
        overrides=[
            "images.fit=crop",
            "augment.random_crop_from=246",
            "augment.horizontal_flip=0.5",
            f"start={name}",
            "model.weights=none",
        ],
    )
    assert starts[name].build(baseline, **baseline.start.options) == stage, (
        "it depends on nothing of the objective"
    )


def test_frozen_batch_norm_is_bit_equal_to_the_start_after_training(trained):
    frozen = trained(SHORT, "model.batch_norm=frozen").folder
    learning = trained(SHORT).folder
    from tiny import tiny

    from dml_bench.models.embedder import build_embedder

    start = build_embedder(tiny()).state_dict()
    norms = [name.rpartition(".")[0] for name in start if name.endswith("running_mean")]
    assert norms
    names = [
        f"{norm}.{part}"
        for norm in norms
        for part in ("weight", "bias", "running_mean", "running_var")
    ]
    for phase in ("all", "limited"):
        kept, changed = (
            load_file(folder / phase / "weights.safetensors") for folder in (frozen, learning)
        )
        assert all(torch.equal(kept[name], start[name]) for name in names)
        assert not any(torch.equal(changed[name], start[name]) for name in names)
        assert not torch.equal(kept["head.weight"], start["head.weight"])


def test_a_frozen_layer_that_changes_is_noticed(birds, cache_dir, tmp_path, monkeypatch):
    from dml_bench.models.embedder import Embedder

    monkeypatch.setattr(Embedder, "train", torch.nn.Module.train)
    with pytest.raises(
        AssertionError, match="frozen tensors were changed by training, e.g. backbone"
    ):
        train(birds, cache_dir, tmp_path, SHORT, "model.batch_norm=frozen")


def test_simclr_looks_at_no_label_and_so_at_no_wrong_one():
    experiment = tiny("start=simclr", "data.label_noise=0.2")
    assert experiment.data.label_noise == 0.2
    assert stage(experiment).data.label_noise == 0.0
    assert stage(experiment) == stage(tiny("start=simclr"))


def test_simclr_on_squashed_images_says_which_of_its_own_settings_crops():
    squashed = ("start=simclr", "images.fit=squash", "augment.random_crop_from=0")
    with pytest.raises(
        ValueError,
        match=r"start simclr can't train on .* --set start.resized_crop=0, or images.fit=crop",
    ):
        tiny(*squashed)
    assert stage(tiny(*squashed, "start.resized_crop=0")).images.fit == "squash"


def stage(experiment):
    return starts[experiment.start.name].build(experiment, **experiment.start.options)


def test_weights_that_an_earlier_version_trained_are_found_again():
    table = without_later_settings(
        as_table(source_experiment(resolve("EPSHN_cosine_resnet18_sgd_aug", profile="demo")))
    )
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    assert digest[:16] == "7e5703ca5fb55e2e", "add new settings to LATER_SETTINGS"
