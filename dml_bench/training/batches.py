"""What the loop is fed with at each step: inputs as the sources, augmentations and mixing make
them, and what they are labelled as."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dml_bench.config import Experiment
from dml_bench.data.augmentations import Boxes
from dml_bench.data.mixing import BatchRng, Mix
from dml_bench.data.split import Phase
from dml_bench.losses.objective import Targets
from dml_bench.registry import samplers
from dml_bench.system import distributed
from dml_bench.system.devices import to_device
from dml_bench.training.training_state import TrainingState

__all__ = ["Batch", "blend", "epoch_batches", "paste", "sampled", "targets_of", "training_batch"]


class Batch(NamedTuple):
    """One step's worth."""

    inputs: Tensor
    """(views * own part of the batch, ...) of the source, view after view."""
    targets: tuple[Targets, ...]
    """What each image of the joint batch is: one label, or several with their weights."""
    layer: str = ""
    """The backbone's layer whose output is mixed; empty where none is."""
    inside: Callable[[Tensor], Tensor] | None = None
    """How the output of that layer is mixed."""
    interpolate: bool = False
    """Whether the loss has its term of mixed embeddings."""


def epoch_batches(state: TrainingState, epoch: int) -> list[np.ndarray]:
    """The training images of this epoch, as the sampler cuts them into batches."""
    return sampled(
        state.experiment, state.phase, state.images, state.labels.initial[state.images], epoch
    )


def sampled(
    experiment: Experiment, phase: Phase, images: np.ndarray, labels: np.ndarray, epoch: int = 1
) -> list[np.ndarray]:
    """(images) indices and labels -> their batches in an epoch; as many, of the same sizes, in
    every epoch. Raises ValueError where a plug-in draws an image that is not among them: one of the
    queries, perhaps, or of a class that is held out."""
    sampler, key = experiment.sampler, (experiment.seed, phase.name, epoch)
    batches = samplers.of(sampler).build(
        images, labels, experiment.train.batch_size, key, **sampler.options
    )
    drawn = np.concatenate([*batches, images[:0]])
    others = np.setdiff1d(drawn, images)
    if len(others):
        raise ValueError(
            f"sampler {sampler.name} draws image {others[0]}, on which phase {phase.name} does not"
            " train: return numbers out of `images`, not places in it"
        )
    return batches


def training_batch(state: TrainingState, images: np.ndarray, epoch: int, step: int) -> Batch:
    """(batch) image indices -> what is trained on; a pure function of its arguments and of the
    labels so far. Of several processes each gets the inputs of its own part, and the labels of all.
    """
    mixing, own = state.experiment.mixing, distributed.local_slice(len(images))
    views = [
        source_view(state, images[own], epoch, view) for view in range(state.experiment.train.views)
    ]
    inputs = views[0] if len(views) == 1 else torch.cat(views)
    if state.mixer is None or not mixing.active(epoch):
        return Batch(inputs, targets_of(state, images), interpolate=mixing.active(epoch))
    rng = BatchRng(
        images, len(state.dataset), (state.experiment.seed, state.phase.name, epoch), step
    )
    mix = state.mixer.mix(rng, state.images, inputs.shape[1])
    mixed = Batch(inputs, targets_of(state, images, mix))
    layer, kept = mixing_layer(state.mixer.layers, rng), mix.kept[own]
    rows = (
        to_device(mix.rows, inputs.device)
        if mix.rows is not None and len(inputs) == len(images)
        else None
    )
    if layer != "input":
        assert rows is not None, "values inside the network can't be had from other processes"
        return mixed._replace(layer=layer, inside=lambda values: blend(values, values[rows], kept))
    others = source_view(state, mix.others[own], epoch, 0) if rows is None else inputs[rows]
    if mix.boxes is None:
        return mixed._replace(inputs=blend(inputs, others, kept))
    return mixed._replace(inputs=paste(inputs, others, Boxes(*(side[own] for side in mix.boxes))))


def source_view(state: TrainingState, images: np.ndarray, epoch: int, view: int) -> Tensor:
    """(batch, ...) inputs of the source for one view of an epoch."""
    return state.source.train(images, phase=state.phase.name, epoch=epoch, view=view)


def mixing_layer(layers: tuple[str, ...] | None, rng: BatchRng) -> str:
    """The layer at which a batch is mixed: `input`, or one of the technique's, each as likely."""
    if layers is None:
        return "input"
    return layers[int(rng.per_batch("layer")[0, 0] * len(layers))]


def targets_of(
    state: TrainingState, images: np.ndarray, mix: Mix | None = None
) -> tuple[Targets, ...]:
    """What the images are labelled as; of mixed images also what the others are, each by its
    share."""
    if state.experiment.train.labels == "image":
        # By the place where an image comes first: a sampler may draw one twice.
        _, first, number = np.unique(images, return_index=True, return_inverse=True)
        labelled: list[tuple[np.ndarray, np.ndarray | None]] = [(first[number], None)]
    else:
        labelled = state.labels.targets(images)
    if mix is not None and not (mix.share == 1).all():
        own = shared(labelled, mix.share)
        labelled = own + shared(state.labels.targets(mix.others), 1 - mix.share)
    return tuple(targets(state, labels, weights) for labels, weights in labelled)


def shared(
    labelled: list[tuple[np.ndarray, np.ndarray | None]], share: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """The same labels, whose weights are only a share of what they were."""
    return [(labels, share if weights is None else weights * share) for labels, weights in labelled]


def targets(state: TrainingState, labels: np.ndarray, weights: np.ndarray | None) -> Targets:
    """On the device. Weights that are all the same become one number, which any loss can be
    multiplied by."""
    views = state.experiment.train.views
    on_device = None
    if weights is not None:
        if np.ptp(weights) == 0:
            on_device = to_device(weights[:1].astype(np.float32), state.device)[0]
        else:
            on_device = to_device(np.tile(weights, views).astype(np.float32), state.device)
    return Targets(to_device(np.tile(labels, views), state.device), on_device)


def blend(values: Tensor, others: Tensor, kept: np.ndarray) -> Tensor:
    """(batch, ...) -> kept * values + (1 - kept) * others; integers become float32."""
    if not values.is_floating_point():
        values, others = values.float(), others.float()
    weights = to_device(torch.from_numpy(kept).to(values.dtype), values.device)
    weights = weights.view([-1] + [1] * (values.dim() - 1))
    # Where the weight is 1, lerp returns exactly `values`: images that are not mixed keep their
    # bits.
    return torch.lerp(others, values, weights)


def paste(pixels: Tensor, others: Tensor, boxes: Boxes) -> Tensor:
    """(batch, height, width, 3) with the box of each image taken from the other."""
    top, left, height, width = to_device(np.stack(boxes), pixels.device)[:, :, None]
    place = torch.arange(max(pixels.shape[1:3]), device=pixels.device)
    vertical = (place >= top) & (place < top + height)
    horizontal = (place >= left) & (place < left + width)
    inside = vertical[:, : pixels.shape[1], None] & horizontal[:, None, : pixels.shape[2]]
    return torch.where(inside[..., None], others, pixels)
