"""What a GPU would be asked to do with a batch, held against fake CUDA tensors: they know their
device, type and shape and hold no numbers, so that an operation on two devices fails, and so does
one whose shape only the numbers tell, for which a GPU would be waited for. So does here a copy
between host and device that the host has to wait for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dml_bench.data import inputs
from dml_bench.data.datasets import open_dataset
from dml_bench.data.inputs import open_image_inputs, tta_views
from dml_bench.data.split import make_split, phases
from dml_bench.losses.objective import Objective
from dml_bench.losses.sample_weights import weigh
from dml_bench.registry import losses, miners
from dml_bench.system.callbacks import Callback
from dml_bench.system.devices import to_device
from dml_bench.training.batches import epoch_batches, training_batch
from dml_bench.training.build import build, build_optimizer, build_schedule
from dml_bench.training.loop import train_step
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


class Waits(AssertionError):
    """A copy that the host waits for."""


class NeverWaiting(TorchDispatchMode):
    """Raises Waits where numbers go from one device to another while the host waits."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, tensors = str(func), [x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)]
        before = {tensor.device.type for tensor in tensors if tensor.dim()}
        if name.startswith(("aten._to_copy", "aten.copy_")):
            wanted = kwargs.get("device")
            devices = before | ({wanted.type} if wanted is not None else set())
            in_the_background = kwargs.get("non_blocking") or args[2:3] == (True,)
            if len(devices) == 2 and not in_the_background:
                raise Waits(f"{name} between {sorted(devices)}")
        elif name.startswith(("aten.index", "aten._index")) and len(before) == 2:
            raise Waits(f"{name} by places that are not on the device")
        return func(*args, **kwargs)


@contextmanager
def fake_gpu(mode: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is asked of it may not be waited for. There is no memory to pin without a GPU."""
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    with mode, NeverWaiting():
        yield


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
    with fake_gpu(mode, monkeypatch):
        batch = training_batch(run, images, epoch=1, step=0)
        with run.autocast():
            embeddings = run.forward(batch.inputs, batch.layer, batch.inside)
        loss = run.objective.weighted_loss(embeddings, batch.targets, interpolate=batch.interpolate)
        views = [run.source.view(images, look) for look in tta_views("mirror")]
    assert (loss.device.type, loss.shape, loss.dtype) == ("cuda", (), torch.float32)
    assert {part.device.type for part in (batch.inputs, embeddings, *views)} == {"cuda"}


def give_gradients(run: TrainingState) -> None:
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)


SIMCLR = (
    *("loss=NTXent", "miner=none", "train.views=2", "train.labels=image"),
    *("augment.resized_crop=0.2", "augment.random_crop_from=0", *COLOURS[:3]),
)


def test_a_gpu_embeds_more_images_at_a_time_than_it_trains_on_unless_it_is_told():
    sizes = {}
    for device in ("cpu", "cuda"):
        for overrides in ((), ("train.batch_size=600",), ("evaluate.batch_size=64",)):
            run = TrainingState.__new__(TrainingState)
            run.experiment, run.device = tiny(*overrides), torch.device(device)
            sizes[device, *overrides] = run.embedded_at_a_time
    assert list(sizes.values()) == [16, 600, 64, 512, 600, 64]


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss=NTXent", "miner=EPSHN"),
        ("loss=NTXent", "miner=EPSHN", "optimizer=ranger"),
        ("loss=ArcFace", "optimizer=adam"),
        ("loss=ProxyNCA", "mixing.technique=cutmix"),
        ("loss=MultiSimilarity", "miner=MultiSimilarity", "train.class_weights=balanced"),
        ("loss=ProxyAnchor", "miner=none", "mixing.technique=metrix"),
        ("loss=Contrastive", "miner=none", "mixing.technique=metrix"),
        ("loss=MultiSimilarity", "miner=none", "mixing.technique=metrix"),
        PLC,
        SIMCLR,
    ],
    ids=",".join,
)
@pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")
def test_the_host_never_waits_in_a_training_step(birds, cache_dir, monkeypatch, overrides):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    run = on_gpu(mode, birds, cache_dir, monkeypatch, *overrides)
    with mode:
        run.optimizer = build_optimizer(run.experiment, run.embedder, run.objective)
    labels = run.labels.initial[run.images]
    run.schedule = build_schedule(run.experiment, run.phase, run.optimizer, run.images, labels)
    images = epoch_batches(run, 1)[0]
    # Autograd's engine needs a GPU that is there. Gradients have the shapes of their parameters.
    monkeypatch.setattr(Tensor, "backward", lambda loss: give_gradients(run))
    with fake_gpu(mode, monkeypatch):
        loss, embeddings = train_step(run, images, epoch=1, step=0)
        if run.labels.corrected:
            run.labels.observe(images, run.objective.logits(embeddings))
    assert (loss.device.type, embeddings.device.type) == ("cuda", "cuda")


@pytest.mark.parametrize(
    ("loss", "miner"),
    [
        *((entry.name, "none") for entry in losses),
        *(("TripletMargin", name) for name in miners.names()),
    ],
)
def test_the_host_never_waits_for_a_loss_or_a_miner(monkeypatch, loss, miner):
    entry, mode = losses[loss], FakeTensorMode(allow_non_fake_inputs=True)
    objective = Objective(
        weigh(entry.build(4, 8, **entry.resolve({}, "loss"))),
        miners[miner].build(),
        entry.facts["unit_vectors"],
    )
    to_gpu(objective, mode)
    for weights in [None] if entry.facts["one_number"] else [None, torch.ones(16)]:
        with mode:
            embeddings = torch.randn(16, 8, device=CUDA)
            labels = torch.zeros(16, dtype=torch.long, device=CUDA)
            counts = None if weights is None else torch.ones(16, device=CUDA)
        with fake_gpu(mode, monkeypatch):
            value = objective(embeddings, labels, counts)
        assert (value.device.type, value.shape) == ("cuda", ())


def test_a_copy_that_is_waited_for_would_be_seen(monkeypatch):
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_gpu(mode, monkeypatch):
        numbers = to_device(torch.ones(3), CUDA)
        for waits in (
            numbers.cpu,
            lambda: torch.ones(3).to(CUDA),
            lambda: numbers[torch.arange(2)],
        ):
            with pytest.raises(Waits):
                waits()
        with pytest.raises(DataDependentOutputException):
            bool(numbers.sum() > 0)


def test_fake_tensors_would_tell():
    elsewhere = torch.ones(3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        numbers = torch.ones(3, device=CUDA)
        with pytest.raises(FakeTensorDeviceMismatchError):
            numbers + elsewhere
        with pytest.raises(DynamicOutputShapeException):
            numbers[numbers > 0]
