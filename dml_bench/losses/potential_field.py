"""PFML (Bhatnagar and Ahuja 2025, "Potential field based deep metric learning"): images and proxies
attract their own class and repel others, the less the further they are."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["PotentialField"]

NEAREST = 1e-3
"""Two vectors that are nearer than this count as this far: at 0 a force would be infinite."""


class PotentialField(nn.Module):
    """The energy of the batch's images and of all proxies, each in the field of its class.

    With d the Euclidean distance of two unit vectors, one of the same class adds -d^-`alpha`, and
    -`delta`^-`alpha` within `delta`; one of another class d^-`alpha` within `delta`, and
    `delta`^-`alpha` beyond. So there is no force between two of a class that are near, nor between
    two of different classes that are far. As in the paper's eq. 6 the terms are summed, not
    averaged; each pair counts twice, and a vector has no part in its own field.

    The class with the greatest logit is the one in whose field of proxies the embedding has the
    least energy. A softmax gives each class its part of the sum of all d^-`alpha`.
    """

    labels: Tensor

    def __init__(
        self, num_classes: int, dim: int, *, alpha: float, delta: float, proxies_per_class: int
    ):
        super().__init__()
        self.proxies = nn.Parameter(torch.randn(num_classes * proxies_per_class, dim))
        labels = torch.arange(num_classes).repeat_interleave(proxies_per_class)
        self.register_buffer("labels", labels, persistent=False)
        self.alpha = alpha
        self.delta = delta
        self.num_classes = num_classes

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        squares = squared_distances(embeddings, self.proxies).clamp_min(NEAREST**2)
        return (-self.alpha / 2 * squares.log()).unflatten(1, (self.num_classes, -1)).logsumexp(2)

    def forward(
        self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        vectors = torch.cat([embeddings, self.proxies])
        labels = torch.cat([labels, self.labels])
        squares = squared_distances(vectors, vectors)
        attracting = -(squares.clamp_min(self.delta**2) ** (-self.alpha / 2))
        repelling = squares.clamp(NEAREST**2, self.delta**2) ** (-self.alpha / 2)
        energies = torch.where(labels[:, None] == labels, attracting, repelling)
        return energies.fill_diagonal_(0).sum()


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """(n, dim), (m, dim) -> (n, m) squared Euclidean distances of the vectors made unit length."""
    return 2 - 2 * functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T
