"""Both loops compute the same: a check before anything is timed."""

from dataclasses import replace

import numpy as np
import torch
from contestants import Ours, Setting, Usual
from torch import Tensor

from dml_bench.data.split import Split
from dml_bench.training.batches import targets_of

__all__ = ["TOLERANCES", "check_same"]

TOLERANCES = {"inputs": 1e-5, "loss": 1e-4, "update": 5e-2, "embeddings": 1e-5}
"""Largest differences between the loops in float32: absolute for inputs and embeddings, relative
for the loss and for the norm of a step's change of the weights. The last is large because rounding
decides ReLUs that are close to zero: at 128 px both loops were .3% from the same step in float64.
"""


def check_same(setting: Setting) -> dict[str, float]:
    """From equal weights one training step each, then from equal weights P@1 each, in float32
    without augmentation: they must agree.

    P@1 may differ for queries whose nearest image of their own class and nearest image of another
    class are closer together than what the embeddings differ by.
    """
    labels, few = setting.dataset.labels, setting.experiment.train.batch_size
    # of a dozen classes: a batch of single images has no positive pairs, and changes nothing
    classes = np.unique(labels)
    classes = spread(classes, min(12, len(classes)))
    train, test = (
        images[np.isin(labels[images], classes)]
        for images in (setting.split.train, setting.split.test)
    )
    few = min(few, len(test), len(train) // 2)
    train = spread(train, 2 * few)
    split = Split(train, spread(test, few), "", train, train[:0])
    setting = replace(setting, split=split)
    ours, usual = Ours(setting, "float32"), Usual(setting)
    measured = {"queries": len(split.test)} | same_step(setting, ours, usual)
    copy_weights(ours, usual)
    gallery, query = ours.run.embed(split.train), ours.run.embed(split.test)
    pairs = ((gallery, usual.loop.gallery_set), (query, usual.loop.query_set))
    difference = max(
        float(np.abs(own - usual.loop.embed(images)[0].cpu().numpy()).max())
        for own, images in pairs
    )
    similar, same_class = query @ gallery.T, labels[split.test][:, None] == labels[split.train]
    margin = np.where(same_class, similar, -2).max(1) - np.where(same_class, -2, similar).max(1)
    undecided = int((np.abs(margin) <= 4 * difference).sum())
    scores = ours.evaluate(), usual.evaluate()
    measured |= {
        "embeddings": difference,
        "undecided": undecided,
        "ours_precision_at_1": scores[0],
        "usual_precision_at_1": scores[1],
    }
    for what, tolerance in TOLERANCES.items():
        assert measured[what] <= tolerance, (
            f"the loops differ in their {what} by more than {tolerance}: {measured}"
        )
    assert round(abs(scores[0] - scores[1]) * len(split.test)) <= undecided, (
        f"the loops differ in P@1: {measured}"
    )
    return measured


def same_step(setting: Setting, ours: Ours, usual: Usual) -> dict[str, float]:
    """How far inputs, loss and change of the weights differ in one training step of each loop from
    equal weights."""
    copy_weights(ours, usual)
    before = weights_of(ours.run.embedder)
    images = setting.split.train[::2]
    pixels = setting.pixels.view(images)
    normalised = ((pixels.float() - ours.run.embedder.mean) / ours.run.embedder.std).permute(
        0, 3, 1, 2
    )
    other = torch.stack([usual.loop.gallery_set[2 * row][0] for row in range(len(images))]).to(
        setting.device
    )
    labels = targets_of(ours.run, images)[0].labels
    losses = ours.step(pixels, labels), usual.loop.step(other, labels)
    own, others = (weights_of(module) - before for module in (ours.run.embedder, usual.loop.model))
    assert losses[0] > 0 and own.norm() > 0, "a step that changes nothing shows nothing"
    return {
        "inputs": float((normalised - other).abs().max()),
        "loss": float((losses[0] - losses[1]).abs() / losses[1]),
        "update": float((own - others).norm() / own.norm()),
    }


def copy_weights(ours: Ours, usual: Usual) -> None:
    usual.loop.trunk.load_state_dict(ours.run.embedder.backbone.state_dict())
    usual.loop.embedder.load_state_dict(ours.run.embedder.head.state_dict())


def weights_of(module: torch.nn.Module) -> Tensor:
    """(weights) all parameters, copied in a row."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """`count` of the images, evenly spread over the classes, in which they are sorted."""
    return images[np.linspace(0, len(images) - 1, count).round().astype(int)]
