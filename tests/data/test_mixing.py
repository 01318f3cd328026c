"""Mixing: each technique's arithmetic by hand, its randomness, its schedule, and what the loop is
then fed with."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from handmade import BASELINE
from scipy import stats
from tiny import tiny

from dml_bench.config import Mixing
from dml_bench.config.experiments import resolve
from dml_bench.data.augmentations import Boxes
from dml_bench.data.mixing import BatchRng, beta
from dml_bench.registry import UnknownName, mixings
from dml_bench.training import loop
from dml_bench.training.batches import Batch, blend, paste, training_batch
from dml_bench.training.build import build_mixer
from dml_bench.training.training_state import TrainingState

POOL = np.arange(100, 400)


def chance(
    images: list[int] | np.ndarray, step: int = 0, key: tuple[object, ...] = (42, "all", 1)
) -> BatchRng:
    return BatchRng(np.asarray(images), 1000, key, step)


def technique(name: str, **options: object):
    return mixings[name].build(**mixings[name].resolve(options, "mixing.technique")).mix


# Arithmetic


def test_a_blend_is_the_weighted_mean_of_two_images():
    images, others = (
        torch.tensor([[[10]], [[200]]], dtype=torch.uint8),
        torch.tensor([[[30]], [[100]]], dtype=torch.uint8),
    )
    mixed = blend(images, others, np.array([0.75, 0.5]))
    assert mixed.dtype == torch.float32
    assert mixed.flatten().tolist() == [15.0, 150.0]


def test_a_box_is_pasted_whole_and_the_rest_stays():
    images, others = (
        torch.zeros(2, 4, 4, 3, dtype=torch.uint8),
        torch.full((2, 4, 4, 3), 9, dtype=torch.uint8),
    )
    boxes = Boxes(*(np.array(sides) for sides in ([1, 0], [2, 0], [2, 0], [1, 4])))
    mixed = paste(images, others, boxes)
    assert mixed.dtype == torch.uint8
    assert (mixed[0, :, :, 0] == 9).nonzero().tolist() == [[1, 2], [2, 2]]
    assert not mixed[1].any()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_lambda_has_the_beta_distribution(alpha):
    drawn = beta(alpha, (np.arange(2000) + 0.5) / 2000)
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).statistic < 0.001


def test_mixup_keeps_at_least_half_and_gives_the_label_the_same_share():
    images = np.arange(50, 90)
    mix = technique("mixup", alpha=0.4)(chance(images), POOL, 32)
    assert sorted(mix.rows.tolist()) == list(range(40))
    assert (mix.others == images[mix.rows]).all()
    assert (mix.kept >= 0.5).all() and (mix.kept <= 1).all()
    assert (mix.share == mix.kept).all()
    assert np.unique(mix.kept).size == 40


def test_one_lambda_serves_the_batch_where_that_is_asked_for():
    assert np.unique(technique("mixup", share="batch")(chance(range(40)), POOL, 32).kept).size == 1
    boxes = technique("cutmix", share="batch")(chance(range(40)), POOL, 32).boxes
    assert {np.unique(side).size for side in boxes} == {1}


def test_samplepairing_takes_any_training_image_in_equal_parts_and_keeps_the_label():
    mix = technique("samplepairing")(chance(range(1000)), POOL, 32)
    assert mix.rows is None
    assert set(mix.others.tolist()) <= set(POOL.tolist())
    assert np.unique(mix.others).size > 250
    assert (mix.kept == 0.5).all() and (mix.share == 1).all()


def test_random_samplepairing_leaves_about_half_of_the_images_alone():
    mix = technique("samplepairing", p=0.5)(chance(range(1000)), POOL, 32)
    assert set(mix.kept.tolist()) == {0.5, 1.0}
    assert 450 < (mix.kept == 0.5).sum() < 550


def test_cutmix_labels_by_the_area_that_is_there_after_the_border_has_cut_the_box():
    mix = technique("cutmix")(chance(range(1000)), POOL, 32)
    tops, lefts, heights, widths = mix.boxes
    assert ((tops >= 0) & (lefts >= 0) & (tops + heights <= 32) & (lefts + widths <= 32)).all()
    assert mix.share == pytest.approx(1 - heights * widths / 1024)
    assert (heights != widths).any()  # cut at the border
    inside = (tops > 0) & (lefts > 0) & (tops + heights < 32) & (lefts + widths < 32)
    assert (heights[inside] == widths[inside]).mean() > 0.4  # squares, but for rounding
    pasted = technique("cutmix", p=0.3)(chance(range(1000)), POOL, 32)
    assert 0.2 < (pasted.share < 1).mean() < 0.35


# Randomness


@pytest.mark.parametrize("name", ["samplepairing", "mixup", "cutmix"])
def test_what_an_image_draws_is_its_own_whatever_batch_it_is_in(name):
    mix = technique(name)
    together, apart = (
        mix(chance([5, 6, 7, 8], step=0), POOL, 32),
        mix(chance([8, 5], step=3), POOL, 32),
    )
    assert (together.kept[[3, 0]] == apart.kept).all()
    if name == "samplepairing":
        assert (together.others[[3, 0]] == apart.others).all()
    assert (mix(chance([5, 6, 7, 8], key=(42, "all", 2)), POOL, 32).others != together.others).any()


# Schedule


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, range(1, 13)),
        ({"start_from": 2}, range(3, 13)),
        ({"finetuning_epoch": 9}, range(1, 10)),
        ({"start_from": 1, "on": 3, "off": 2, "finetuning_epoch": 11}, [2, 3, 4, 7, 8, 9]),
    ],
)
def test_the_schedule_has_a_start_periods_and_an_end(settings, on):
    mixing = Mixing(technique=tiny("mixing.technique=mixup").mixing.technique, **settings)
    assert [epoch for epoch in range(1, 13) if mixing.active(epoch)] == list(on)


def test_samplepairing_of_the_study_is_off_ten_epochs_then_eight_on_and_two_off_until_ninety():
    mixing = resolve("EPSHN_cosine_resnet18_sgd_aug+samplepairing").mixing
    on = [epoch for epoch in range(1, 101) if mixing.active(epoch)]
    assert on == [epoch for epoch in range(11, 91) if (epoch - 11) % 10 < 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ("mixing.technique=mixup", "mixing.technique.alpha=0"),
            "mixing.technique.alpha must be a number above 0, got 0.0",
        ),
        (
            ("mixing.technique=samplepairing", "mixing.technique.p=1.5"),
            "mixing.technique.p must be a number from 0 to 1, got 1.5",
        ),
        (("mixing.technique=mixup", "mixing.on=0"), "mixing.on must be at least 1, got 0"),
        (
            ("mixing.technique=mixup", "mixing.start_from=3"),
            "mixing.start_from is 3, but there are 3 epochs: mixup would never be on",
        ),
        (
            ("mixing.technique=mixup", "mixing.start_from=2", "mixing.finetuning_epoch=2"),
            "mixing.finetuning_epoch is 2, not after",
        ),
        (
            ("mixing.start_from=1",),
            "mixing has a schedule and no technique; --set mixing.technique=mixup",
        ),
        (
            ("mixing.technique=mixup", "loss=ProxyAnchor", "miner=none"),
            "loss ProxyAnchor is one number for a whole batch",
        ),
        (
            ("mixing.technique=metrix",),
            (
                "metrix is not defined for loss NTXent, only for Contrastive, MultiSimilarity,"
                " ProxyAnchor"
            ),
        ),
        (
            ("mixing.technique=mixup", "train.views=2"),
            "mixup mixes images of a batch, and train.views = 2",
        ),
        (
            (
                "mixing.technique=mixup",
                "model.trainable=head",
                "augment.random_crop_from=0",
                "augment.horizontal_flip=0",
            ),
            "computed once",
        ),
        (
            ("mixing.technique=mixup", "mixing.pair_weight=all", "loss=crossentropy", "miner=none"),
            "mixing.pair_weight has no effect with mixup and loss crossentropy",
        ),
        (
            ("mixing.technique=mixup", "mixing.pair_weight=all", "loss=SupCon", "miner=none"),
            "mixing.pair_weight has no effect with mixup and loss SupCon: it is for losses",
        ),
        (
            (
                "mixing.technique={name='metrix', level='input', pairs='either'}",
                "loss=ProxyAnchor",
                "miner=none",
            ),
            "the anchors of loss ProxyAnchor are no images that metrix could mix",
        ),
        (
            (
                "mixing.technique={name='metrix', hardest=3}",
                "loss=MultiSimilarity",
                "miner=none",
            ),
            "mixing.technique.hardest has no effect with level = embeddings",
        ),
        (
            (
                "mixing.technique=metrix",
                "loss=MultiSimilarity",
                "miner=none",
                "train.class_weights=balanced",
            ),
            "train.class_weights has no effect on the mixtures of metrix",
        ),
    ],
)
def test_what_can_t_be_mixed_is_refused_in_one_line(settings, message):
    with pytest.raises(ValueError) as caught:
        tiny(*settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_that_the_backbone_has_not_is_refused(birds, cache_dir, tmp_path):
    from tiny import train

    with pytest.raises(
        UnknownName,
        match=(
            r"mixing.technique.layers names 'layer9' .*; there are: input, layer1, layer2, layer3,"
            r" layer4"
        ),
    ):
        train(
            birds,
            cache_dir,
            tmp_path,
            "mixing.technique=manifoldmixup",
            'mixing.technique.layers=["layer9"]',
        )


def test_manifold_mixup_of_a_backbone_without_stages_is_refused():
    """It mixed the input alone, in silence, under the name of what mixes inside the network."""
    flat = SimpleNamespace(backbone=torch.nn.Flatten())
    inside = resolve(BASELINE, overrides=["mixing.technique=manifoldmixup"])
    with pytest.raises(ValueError, match="no stages after which manifoldmixup .*technique=mixup"):
        build_mixer(inside, flat)
    overrides = ["mixing.technique=manifoldmixup", "mixing.technique.layers=['input']"]
    assert build_mixer(resolve(BASELINE, overrides=overrides), flat).layers == ("input",)


# What the loop is fed with


def fed(
    monkeypatch: pytest.MonkeyPatch, birds, cache_dir, tmp_path, *settings: str
) -> list[tuple[TrainingState, np.ndarray, int, Batch]]:
    from tiny import train

    seen = []

    def spy(run: TrainingState, images: np.ndarray, epoch: int, step: int) -> Batch:
        batch = training_batch(run, images, epoch, step)
        seen.append((run, images, epoch, batch))
        return batch

    monkeypatch.setattr(loop, "training_batch", spy)
    train(birds, cache_dir, tmp_path, *settings)
    return seen


def test_a_mixed_batch_has_the_labels_of_both_images_by_their_shares(
    monkeypatch, birds, cache_dir, tmp_path
):
    seen = fed(
        monkeypatch,
        birds,
        cache_dir,
        tmp_path,
        "mixing.technique=mixup",
        "mixing.start_from=1",
        "augment.horizontal_flip=0",
    )
    mixed = 0
    for run, images, epoch, batch in seen:
        if epoch == 1:
            assert len(batch.targets) == 1 and batch.inputs.dtype == torch.uint8
            continue
        (own, share), (other, rest) = batch.targets
        assert run.trained[own].tolist() == run.dataset.labels[images].tolist()
        assert torch.allclose(share + rest, torch.ones(len(images)))
        assert sorted(other.tolist()) == sorted(own.tolist())  # a permutation of the batch
        plain = run.source.train(images, phase=run.phase.name, epoch=epoch).float()
        assert batch.inputs.shape == plain.shape
        mixed += not torch.equal(batch.inputs, plain)
    assert mixed > 0.8 * sum(
        epoch > 1 for _, _, epoch, _ in seen
    )  # a small batch may be permuted into itself


@pytest.mark.parametrize("name", ["samplepairing", "mixup", "cutmix", "manifoldmixup"])
def test_neither_a_held_out_class_nor_a_test_image_is_ever_mixed_in(
    name, monkeypatch, birds, cache_dir, tmp_path
):
    loaded: dict[str, set[int]] = {"all": set(), "limited": set()}
    from dml_bench.data.inputs import ImageInputs

    original = ImageInputs.train

    def spy(
        self: ImageInputs, images: np.ndarray, *, phase: str, epoch: int, view: int = 0
    ) -> torch.Tensor:
        loaded[phase] |= set(images.tolist())
        return original(self, images, phase=phase, epoch=epoch, view=view)

    monkeypatch.setattr(ImageInputs, "train", spy)
    seen = fed(monkeypatch, birds, cache_dir, tmp_path, f"mixing.technique={name}")
    assert {run.phase.name for run, *_ in seen} == {"all", "limited"}
    for run, _, _, batch in seen:
        assert loaded[run.phase.name] == set(run.images.tolist())
        assert all(int(labels.max()) < len(run.trained) for labels, _ in batch.targets)
    limited = next(run for run, *_ in seen if run.phase.name == "limited")
    assert len(limited.trained) == 6


def test_manifold_mixup_mixes_inside_the_network_at_layers_drawn_for_each_batch(
    monkeypatch, birds, cache_dir, tmp_path
):
    seen = fed(
        monkeypatch, birds, cache_dir, tmp_path, "mixing.technique=manifoldmixup", "train.epochs=4"
    )
    layers = {batch.layer or "input" for *_, batch in seen}
    assert layers <= {"input", "layer1", "layer2", "layer3", "layer4"}
    assert len(layers) >= 3
    _run, _, _, batch = next(row for row in seen if row[-1].layer)
    values = torch.arange(len(batch.targets[0].labels), dtype=torch.float32)[:, None]
    assert batch.inside is not None
    mixed = batch.inside(values)
    assert mixed.sum().item() == pytest.approx(
        values.sum().item(), rel=1e-4
    )  # one lambda, a permutation: the sum stays
    assert batch.inputs.dtype == torch.uint8  # the pixels are not mixed as well
