"""What a GPU would be asked to do with a batch, held against fake CUDA tensors: they know their
device, type and shape and hold no numbers, so that an operation on two devices fails, and so does
one whose shape only the numbers tell, for which a GPU would be waited for."""

from pathlib import Path

import pytest
import torch
from tiny import tiny
from torch import nn
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)

from dml_bench.data import inputs
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs, tta_views
from dml_bench.data.split import make_split, phases
from dml_bench.system.callbacks import Callback
from dml_bench.training.batches import epoch_batches, training_batch
from dml_bench.training.build import build
from dml_bench.training.training_state import TrainingState

CUDA = torch.device("cuda")
PLC = (
    "labelling=plc",
    "labelling.warm_up=0",
    "labelling.theta=0",
    "labelling.theta_end=0",
    "data.label_noise=0.3",
)
COLOURS = (
    "augment.color_jitter=0.8",
    "augment.grayscale=0.5",
    "augment.gaussian_blur=0.5",
    "augment.lighting=0.3",
)
GEOMETRY = ("augment.dihedral=0.5", "augment.rotate=20", "augment.zoom=1.3", "augment.warp=0.2")


def to_gpu(module: nn.Module, mode: FakeTensorMode) -> None:
    """As `module.to("cuda")`, which can't swap real tensors for fake ones."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = mode.from_tensor(tensor.detach())
                    with mode:
                        fake = fake.to(CUDA)
                    tensors[name] = (
                        nn.Parameter(fake, tensor.requires_grad)
                        if isinstance(tensor, nn.Parameter)
                        else fake
                    )


def on_gpu(
    mode: FakeTensorMode,
    birds: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *overrides: str,
) -> TrainingState:
    """A run with its model and its images on a GPU that is not there."""
    experiment = tiny("loss=crossentropy", "miner=none", *overrides)
    dataset = open_dataset(experiment.data.dataset, birds, cache_dir)
    split = make_split(dataset, method="stratified", test_fraction=0.2, seed=1)
    pixels, (phase, *_) = (
        open_image_inputs(experiment, dataset, cache_dir, torch.device("cpu")),
        phases(((6, 7),)),
    )
    run = build(
        experiment,
        phase,
        dataset,
        split,
        pixels,
        device=torch.device("cpu"),
        precision="bfloat16",
        callback=Callback(),
    )
    to_gpu(run.embedder, mode)
    to_gpu(run.objective, mode)
    run.device = pixels.device = CUDA
    monkeypatch.setattr(inputs, "room_for_images", lambda device: 10**9)
    with mode:
        pixels.keep_on_device()
    return run


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        COLOURS,
        GEOMETRY,
        ("augment.resized_crop=0.2",),
        ("augment.random_crop_from=0", "images.progressive=[16, 32]"),
        ("mixing.technique=mixup",),
        ("mixing.technique=cutmix",),
        ("mixing.technique=manifoldmixup",),
        ("loss.label_smoothing=0.1", "train.class_weights=balanced"),
        PLC,
    ],
    ids=lambda overrides: ",".join(overrides[:1]) or "plain",
)
@pytest.mark.filterwarnings(
    "ignore:CUDA is not available:UserWarning"
)  # autocast says that it stays out of this
def test_a_batch_stays_on_its_gpu_which_is_not_waited_for(birds, cache_dir, monkeypatch, overrides):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    run = on_gpu(mode, birds, cache_dir, monkeypatch, *overrides)
    images = epoch_batches(run, 1)[0]
    with mode:
        batch = training_batch(run, images, epoch=1, step=0)
        with run.autocast():
            embeddings = run.forward(batch.inputs, batch.layer, batch.inside)
        loss = run.objective.weighted_loss(embeddings, batch.targets, interpolate=batch.interpolate)
        views = [run.source.view(images, look) for look in tta_views("mirror")]
    assert (loss.device.type, loss.shape, loss.dtype) == ("cuda", (), torch.float32)
    assert {part.device.type for part in (batch.inputs, embeddings, *views)} == {"cuda"}


def test_fake_tensors_would_tell():
    elsewhere = torch.ones(3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        numbers = torch.ones(3, device=CUDA)
        with pytest.raises(FakeTensorDeviceMismatchError):
            numbers + elsewhere
        with pytest.raises(DynamicOutputShapeException):
            numbers[numbers > 0]
