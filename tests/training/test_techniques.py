"""Every training technique: deterministic, and killed and resumed as if it had never stopped; off,
it changes no bit."""

from pathlib import Path

import pytest
from processor_time import with_slow
from tiny import train

from dml_bench.runs import session

CLASSIFIER = ("loss=crossentropy", "miner=none", "model.head=identity")
TECHNIQUES = {
    "samplepairing": ("mixing.technique=samplepairing", "mixing.start_from=1"),
    "mixup": ("mixing.technique=mixup", "mixing.finetuning_epoch=2"),
    "manifoldmixup": ("mixing.technique=manifoldmixup",),
    "cutmix": ("mixing.technique=cutmix", *CLASSIFIER),
    "metrix": ("mixing.technique=metrix", "loss=MultiSimilarity", "miner=none"),
    "metrix of maps": (
        "mixing.technique={name='metrix', level='features', pairs='either', share='batch'}",
        "loss=Contrastive",
        "miner=none",
    ),
    "mixed features of a head": (
        "mixing.technique={name='manifoldmixup', layers=['input'], share='image'}",
        "mixing.pair_weight=all",
        "model.trainable=head",
        "augment.random_crop_from=0",
        "augment.horizontal_flip=0",
    ),
    "label smoothing": (*CLASSIFIER, "loss.label_smoothing=0.1"),
    "soft labels": ("labelling=softlabels", "labelling.folds=2", *CLASSIFIER),
    "progressive label correction": (
        "labelling=plc",
        "labelling.theta=0.02",
        "labelling.theta_end=0.01",
        "data.label_noise=0.3",
        *CLASSIFIER,
    ),
    "label correction by ratios, once validation allows it": (
        "labelling=plc_ratio",
        "labelling.window=2",
        "labelling.delta=0.8",
        "labelling.listen_from=0.01",
        "data.label_noise=0.3",
        "data.valid_fraction=0.2",
        *CLASSIFIER,
    ),
    "folds": ("train.folds=2", *CLASSIFIER),
    "best checkpoint": ("data.valid_fraction=0.2", "train.checkpoint=valid_loss"),
    "class weights": ("train.class_weights=balanced", *CLASSIFIER),
    "oversampling": ("sampler=class_balanced",),
    "progressive resizing": ("images.progressive=[16, 24, 32]",),
    "rotation and lighting": (
        "augment.rotate=10",
        "augment.warp=0.2",
        "augment.lighting=0.2",
        "augment.dihedral=0.5",
    ),
    "ranger with flat cosine": ("optimizer={name='ranger', lr=0.001}", "schedule=flat_cosine"),
    "one cycle": ("schedule=one_cycle",),
    "cam head": ("model.head=cam",),
    "parts that learn apart": (
        "train.head_epochs=1",
        "train.head_lr_factor=2",
        "train.layer_lr_decay=0.7",
        "train.weight_decay_on=kernels",
        "train.clip_norm=0.5",
        "optimizer.momentum=0.9",
        "optimizer.nesterov=true",
        "optimizer.weight_decay=0.01",
        "data.valid_fraction=0.2",
        "schedule=plateau",
        "schedule.patience=0",
    ),
}
NEWER = ("label correction by ratios, once validation allows it", "parts that learn apart")
"""Killed in `make test-all` alone; like all, they have to change the result in `make test`."""
FILES = ("weights", "objective", "embeddings", "neighbours")


class Killed(BaseException):
    """The process is gone."""


def bits(folder: Path) -> dict[str, bytes]:
    files = {
        f"{phase}/{name}": (folder / phase / f"{name}.safetensors")
        for phase in ("all", "limited")
        for name in FILES
    }
    return {name: path.read_bytes() for name, path in files.items() if path.exists()} | {
        "predictions": (folder / "predictions.csv").read_bytes()
    }


@pytest.mark.parametrize("name", with_slow(TECHNIQUES, *NEWER))
def test_killed_and_resumed_equals_never_stopped(
    name, birds, cache_dir, tmp_path, monkeypatch, trained
):
    """Killed after the second epoch that is saved, after the state and before its record, and again
    three epochs later."""
    saves = {"left": 0}
    original = session.checkpoint.write

    def dying(saved, path):
        original(saved, path)
        saves["left"] -= 1
        if saves["left"] == 0:
            raise Killed

    monkeypatch.setattr(session.checkpoint, "write", dying)
    for epochs in (2, 3):
        saves["left"] = epochs
        with pytest.raises(Killed):
            train(birds, cache_dir, tmp_path / "interrupted", *TECHNIQUES[name])
    saves["left"] = -1
    resumed = train(birds, cache_dir, tmp_path / "interrupted", *TECHNIQUES[name]).folder
    straight = trained(*TECHNIQUES[name]).folder
    assert bits(resumed) == bits(straight)
    assert len(bits(straight)) >= 5


@pytest.mark.parametrize(
    "name", sorted(set(TECHNIQUES) - {"class weights", "oversampling", "cam head"})
)
def test_every_technique_changes_the_result(name, trained):
    """All but those that have nothing to do where classes are of one size, and a linear head that
    is averaged after it instead of before."""
    parts = TECHNIQUES[name]
    without = [part for part in parts if part in (*CLASSIFIER, "loss=MultiSimilarity")]
    plain, technique = trained(*without).folder, trained(*parts).folder
    assert bits(plain)["limited/embeddings"] != bits(technique)["limited/embeddings"]


def test_a_class_that_the_data_lack_is_not_repeated(birds, cache_dir, tmp_path):
    with pytest.raises(ValueError, match=r"sampler.label must be at most \d+, the last class of"):
        train(birds, cache_dir, tmp_path, "sampler=repeated_class", "sampler.label=999")
