"""The picture of a training batch: the pixels that the network is fed with, and below them what
they are labelled as."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from dml_bench.cli.app import main
from dml_bench.losses.objective import Targets
from dml_bench.system.callbacks import Callback
from dml_bench.system.lettering import Pen
from dml_bench.training.batches import Batch, epoch_batches, training_batch
from dml_bench.training.contact_sheet import GAP, LINE, captions, contact_sheet, facts, wrapped
from dml_bench.training.preview import first_run, preview
from dml_bench.training.training_state import TrainingState

SIDE = 128
"""Of a tile: 32 px, four times as large."""


@pytest.fixture
def run_of(birds: Path, cache_dir: Path):
    return lambda *overrides: first_run(tiny(*overrides), birds, cache_dir, Callback())


def tile(sheet: Image.Image, place: int) -> np.ndarray:
    """(32, 32, 3) the image at a place of a sheet whose title takes one line, as small as it
    was."""
    left, top = GAP + place * (SIDE + GAP), LINE + 2 * GAP
    return np.asarray(
        sheet.crop((left, top, left + SIDE, top + SIDE)).resize((32, 32), Image.Resampling.NEAREST)
    )


def fed(run: TrainingState, epoch: int, step: int = 0) -> Batch:
    return training_batch(run, epoch_batches(run, epoch)[step], epoch, step)


AUGMENTED = ("augment.rotate=30", "augment.lighting=0.4")


@pytest.mark.parametrize(
    "settings", [(), AUGMENTED, ("mixing.technique=cutmix",)], ids=["plain", "augmented", "mixed"]
)
def test_the_picture_shows_the_pixels_that_the_loop_is_fed_with(run_of, settings):
    run = run_of(*settings)
    sheet = contact_sheet(run, epoch=2, images=5)
    for place in range(5):
        assert np.array_equal(tile(sheet, place), fed(run, 2).inputs[place].numpy())


def test_blended_pixels_are_rounded(run_of):
    run = run_of("mixing.technique=mixup")
    sheet = contact_sheet(run, images=3)
    for place in range(3):
        assert np.abs(tile(sheet, place) - fed(run, 1).inputs[place].numpy()).max() <= 0.5


def test_views_of_an_image_stand_side_by_side(run_of):
    run = run_of("train.views=2")
    sheet, inputs = contact_sheet(run, images=3), fed(run, 1).inputs.numpy()
    for place, row in enumerate([0, 16, 1, 17, 2, 18]):
        assert np.array_equal(tile(sheet, place), inputs[row])


def test_batches_stand_below_each_other_as_many_as_the_epoch_has(run_of):
    run = run_of()
    heights = [contact_sheet(run, batches=batches, images=8).height for batches in (1, 4, 99)]
    assert len(epoch_batches(run, 1)) == 4
    assert heights[1] == pytest.approx(4 * heights[0], abs=8 * LINE) and heights[2] == heights[1]


def test_each_image_is_labelled_with_its_class(run_of):
    run = run_of()
    images = epoch_batches(run, 1)[0]
    names = [
        run.dataset.class_names[label].replace("_", " ") for label in run.dataset.labels[images]
    ]
    assert captions(run, fed(run, 1), list(range(16))) == [[name] for name in names]


def test_of_several_labels_each_is_named_with_its_weight(run_of):
    run = run_of()
    one, two, three = (name.replace("_", " ") for name in run.dataset.class_names[:3])
    first = Targets(torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0.7, 1.0, 0.25, 1.5, 0.998]))
    second = Targets(torch.tensor([1, 0, 2, 0, 0]), torch.tensor([0.3, 0.0, 0.75, 0.0, 0.002]))
    texts = captions(run, Batch(torch.zeros(5, 32, 32, 3), (first, second)), [0, 1, 2, 3, 4])
    assert texts == [[f"0.70 {one}", f"0.30 {two}"], [two], [three], [f"1.50 {one}"], [two]]


def test_a_weight_may_be_that_of_the_whole_batch(run_of):
    run = run_of()
    one, two = (name.replace("_", " ") for name in run.dataset.class_names[:2])
    halves = (
        Targets(torch.tensor([0, 1]), torch.tensor(0.6)),
        Targets(torch.tensor([1, 0]), torch.tensor(0.4)),
    )
    assert captions(run, Batch(torch.zeros(2, 32, 32, 3), halves), [1]) == [
        [f"0.60 {two}", f"0.40 {one}"]
    ]


def test_images_that_are_their_own_classes_are_numbered(run_of):
    run = run_of("train.views=2", "train.labels=image")
    assert captions(run, fed(run, 1), [0, 16, 3, 19]) == [
        ["image 1"],
        ["image 1"],
        ["image 4"],
        ["image 4"],
    ]


def test_the_title_tells_what_the_pixels_do_not_show(run_of):
    run = run_of("images.progressive=[16, 24, 32]")
    assert [facts(fed(run, epoch), 5, 16) for epoch in (1, 2, 3)] == [
        f"5 of 16 images, {side} px" for side in (16, 24, 32)
    ]
    inside = Batch(torch.zeros(2, 32, 32, 3), (), layer="layer2", inside=lambda values: values)
    assert facts(inside, 2, 2) == "2 images, 32 px, mixed at the output of layer2"
    assert (
        facts(inside._replace(inside=None, interpolate=True), 2, 2)
        == "2 images, 32 px, embeddings mixed in the loss"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Wren",
        "Blue mirror winged Tit",
        "Slate crowned long tailed Tit of the north and the far south",
        "x" * 80,
    ],
)
def test_names_are_broken_at_spaces_and_never_wider_than_their_image(text):
    pen = Pen(11)
    lines = wrapped(text, 100, pen, most=2)
    assert 1 <= len(lines) <= 2 and all(0 < pen.width(line) <= 100 for line in lines)
    complete = " ".join(lines) == text
    assert complete or lines[-1].endswith("…")
    assert complete == (text in ("Wren", "Blue mirror winged Tit"))


def previewed(birds: Path, cache_dir: Path, *overrides: str, epoch: int = 1) -> Image.Image:
    return preview(
        tiny(*overrides),
        data_dir=birds,
        cache_dir=cache_dir,
        epoch=epoch,
        batches=1,
        images=4,
        callback=Callback(),
    )


def test_a_preview_needs_no_weights_and_trains_no_start(birds, cache_dir):
    plain = previewed(birds, cache_dir)
    for settings in (("model.weights=gone.pt",), ("model.weights=source",), ("start=classifier",)):
        assert np.array_equal(previewed(birds, cache_dir, *settings), plain)


@pytest.mark.parametrize("settings", [("train.folds=2",), ("labelling=softlabels",)], ids=str)
def test_a_preview_is_of_the_first_training_where_there_are_several(birds, cache_dir, settings):
    run = first_run(tiny(*settings), birds, cache_dir, Callback())
    assert len(run.images) < len(first_run(tiny(), birds, cache_dir, Callback()).images)
    contact_sheet(run)


def test_an_epoch_that_there_is_not_and_frozen_features_are_refused(birds, cache_dir):
    with pytest.raises(
        ValueError, match="--epoch 4: EPSHN_cosine_resnet18_sgd_aug has epochs 1 to 3"
    ):
        previewed(birds, cache_dir, epoch=4)
    with pytest.raises(ValueError, match="has no batches of images: model.trainable = head"):
        previewed(
            birds,
            cache_dir,
            "model.trainable=head",
            "augment.random_crop_from=0",
            "augment.horizontal_flip=0",
        )


def command(
    monkeypatch: pytest.MonkeyPatch, birds: Path, cache_dir: Path, out: Path, *more: str
) -> None:
    settings = [
        part
        for setting in ("unseen=last:2", "model.backbone=timm:test_resnet")
        for part in ("--set", setting)
    ]
    places = ["--data-dir", str(birds), "--cache-dir", str(cache_dir), "--out", str(out)]
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "dml-bench",
            "show-batch",
            "EPSHN_cosine_resnet18_sgd_aug+heavyaug",
            *settings,
            *places,
            *more,
        ],
    )
    main()


def test_the_command_writes_a_picture_and_says_where(
    monkeypatch, capsys, birds, cache_dir, tmp_path
):
    with pytest.raises(SystemExit) as ended:
        command(
            monkeypatch,
            birds,
            cache_dir,
            tmp_path / "new" / "sheet.png",
            "--images",
            "3",
            "--epoch",
            "7",
        )
    assert ended.value.code == 0
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        assert sheet.width == 8 * (224 + GAP) + GAP
        assert (
            f"{tmp_path / 'new' / 'sheet.png'}: {sheet.width} x {sheet.height} pixels"
            in capsys.readouterr().out.replace("\n", "")
        )


def test_what_is_no_picture_s_name_is_refused_in_one_line(
    monkeypatch, capsys, birds, cache_dir, tmp_path
):
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, birds, cache_dir, tmp_path / "sheet.txt")
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("error: --out") and "sheet.png" in line
