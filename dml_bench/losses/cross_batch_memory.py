"""Pairs with the embeddings of earlier batches (Wang et al. 2020, "Cross-batch memory for embedding
learning")."""

import torch
from torch import Tensor, nn

__all__ = ["CrossBatchMemory"]

ITSELF = 1 - 1e-5
"""A positive as similar as this is the image itself."""


class CrossBatchMemory(nn.Module):
    """The contrastive loss of a batch, plus `weight` times that of the batch against the last
    `size` embeddings, which are constants and those of the batch among them.

    As in the authors' code, the memory is empty until `start` steps were made: embeddings drift
    too fast before. There are no lists, so a GPU is not waited for. What is remembered is part of
    the state, so that a resumed training goes on with it.
    """

    embeddings: Tensor
    labels: Tensor
    steps: Tensor
    remembered: Tensor

    def __init__(self, dim: int, *, size: int, weight: float, start: int, neg_margin: float):
        super().__init__()
        self.weight, self.start, self.neg_margin = weight, start, neg_margin
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("remembered", torch.zeros((), dtype=torch.long))

    def forward(
        self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(batch, dim) unit vectors and (batch) labels -> the loss of the batch. In evaluation the
        memory has no part in it."""
        loss = self.contrastive(embeddings, labels, embeddings, labels)
        if not self.training:
            return loss
        self.remember(embeddings.detach(), labels)
        return loss + self.weight * self.contrastive(
            embeddings, labels, self.embeddings, self.labels
        )

    @torch.no_grad()
    def remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """The oldest are overwritten. Of a batch larger than the memory its last ones stay."""
        size = len(self.labels)
        embeddings, labels = embeddings[-size:], labels[-size:]
        self.steps += 1
        starts = self.steps > self.start
        places = torch.arange(len(labels), device=labels.device)
        places = (places + self.remembered) % size
        self.embeddings.index_copy_(0, places, embeddings)
        self.labels.index_copy_(0, places, torch.where(starts, labels, -1))
        self.remembered += starts * len(labels)

    def contrastive(
        self, anchors: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor
    ) -> Tensor:
        """Over anchors the mean of their sums: 1 - s of each positive, s of each negative that is
        more similar than the margin. A label of -1 is no image."""
        similarity = anchors @ others.T
        same = labels[:, None] == other_labels
        positive = same & (similarity < ITSELF)
        negative = ~same & (other_labels >= 0) & (similarity > self.neg_margin)
        return (positive * (1 - similarity) + negative * similarity).sum() / len(anchors)
