"""The model that is trained and kept: pixels in, embeddings out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.model.weights import load_backbone
from dml_bench.registry import backbones, heads
from dml_bench.seeding import seed_everything

__all__ = ["Embedder", "build_embedder"]


class Embedder(nn.Module):
    """Normalisation of pixels, backbone, head. The channel statistics are buffers, so a weights file holds all there is."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", mean * 255)
        self.register_buffer("std", (std * 255).clamp(min=1))  # a channel without contrast stays finite

    @property
    def dim(self) -> int:
        return int(self.head.dim)  # type: ignore[arg-type]

    def features(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 of any type -> (batch, num_features) pooled features."""
        images = torch.addcmul(-self.mean / self.std, pixels.float(), 1 / self.std)
        return self.backbone(images.permute(0, 3, 1, 2))  # channels-last memory, seen as (batch, 3, height, width)

    def project(self, features: Tensor) -> Tensor:
        """(batch, num_features) -> (batch, dim), before normalisation."""
        return self.head(features)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim), before normalisation."""
        return self.project(self.features(pixels))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim) float32 unit vectors."""
        return functional.normalize(self(pixels).float(), dim=1)


def build_embedder(experiment: Experiment, statistics: tuple[Tensor, Tensor] | None = None) -> Embedder:
    """The embedder of an experiment with its first weights; `source` weights are filled in by the caller.

    The same seed gives the same weights in every phase. `statistics` are channel means and deviations in 0-1, and default
    to those that the backbone's weights were made with.
    """
    config = experiment.model
    entry = backbones[config.backbone.name]
    seed_everything(experiment.seed, "weights")
    backbone = entry.build(config.backbone.name, **config.backbone.options)
    load_backbone(backbone, config.backbone.name, entry, "none" if config.weights == "source" else config.weights)
    head = heads[config.head.name].build(backbone.num_features, **config.head.options)
    mean, std = statistics or (torch.tensor(entry.facts["mean"]), torch.tensor(entry.facts["std"]))
    embedder = Embedder(backbone, head, mean, std)
    if config.trainable == "head":
        backbone.requires_grad_(False)
    return embedder.to(memory_format=torch.channels_last)
