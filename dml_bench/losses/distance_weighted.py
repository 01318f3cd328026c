"""Negatives drawn evenly over distances."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DistanceWeighted"]


class DistanceWeighted(nn.Module):
    """For each positive pair a negative of its anchor, drawn with the inverse of the density of its
    distance.

    On the unit sphere in n dimensions, distances d of random points have density d^(n-2) (1 - d^2 /
    4)^((n-3) / 2) up to a factor (Wu et al. 2017, section 4). Distances below `cutoff` count as
    `cutoff`; negatives from `nonzero_loss_cutoff` on are never drawn, and anchors without a nearer
    one get no triplet. Draws come from torch's global generator. pytorch-metric-learning 2.9 scales
    the weights of the whole batch by one factor, under which most rows underflow in 512 dimensions:
    126 of 128 anchors lost their triplets.
    """

    def __init__(self, cutoff: float, nonzero_loss_cutoff: float):
        super().__init__()
        self.cutoff = cutoff
        self.nonzero_loss_cutoff = nonzero_loss_cutoff

    @torch.no_grad()
    def forward(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, dim), (batch) -> anchors, positives, negatives."""
        same = labels[:, None] == labels
        distances, eligible = self.eligible(embeddings, ~same)
        anchors, positives = torch.where(same.fill_diagonal_(False) & eligible.any(dim=1)[:, None])
        if len(anchors) == 0:
            return anchors, positives, anchors
        weights = self.log_weights(distances, embeddings.shape[1]).masked_fill(
            ~eligible, -torch.inf
        )
        negatives = torch.multinomial(weights[anchors].softmax(dim=1), 1)[:, 0]
        return anchors, positives, negatives

    def eligible(self, embeddings: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, batch) distances, and which of the negatives may be drawn."""
        vectors = functional.normalize(embeddings, dim=1)
        distances = torch.cdist(vectors, vectors)
        return distances, negatives & (distances < self.nonzero_loss_cutoff)

    def log_weights(self, distances: Tensor, dim: int) -> Tensor:
        """The logarithm of 1 / density of distances between random points of a sphere, up to a
        constant."""
        near = distances.clamp(self.cutoff, self.nonzero_loss_cutoff)
        return (2 - dim) * near.log() - (dim - 3) / 2 * (1 - near.square() / 4).log()
