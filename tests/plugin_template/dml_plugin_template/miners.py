"""A miner."""

import torch
from torch import Tensor, nn

import dml_bench
from dml_plugin_template.losses import every_pair


@dml_bench.register_miner(
    summary="all positive pairs, and for each image the most similar ones of other classes",
    source="a template",
)
def NearestStrangers(*, per_image: int = 1) -> nn.Module:
    return StrangerMiner(per_image)


class StrangerMiner(nn.Module):
    def __init__(self, per_image: int):
        super().__init__()
        self.per_image = per_image

    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """(batch, dim), (batch) -> indices of positive pairs, then of negative ones."""
        anchors, positives, _, _ = every_pair(labels)
        similarity = embeddings @ embeddings.T
        similarity = similarity.masked_fill(labels[:, None] == labels, -torch.inf)
        nearest = similarity.topk(min(self.per_image, len(labels)), dim=1)
        images = torch.arange(len(labels), device=labels.device)[:, None].expand_as(nearest.indices)
        other = nearest.values > -torch.inf
        return anchors, positives, images[other], nearest.indices[other]
