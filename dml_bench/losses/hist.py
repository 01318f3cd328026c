"""HIST (Lim et al. 2022, "Hypergraph-induced semantic tuplet loss for deep metric learning"):
distributions of classes, and a graph network that classifies the images of a batch by what they
share with classes."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["HIST"]

SLOPE = 0.1
"""Of the leaky ReLU, as in the authors' code."""


class HIST(nn.Module):
    """The sum of two cross-entropies, each a mean over images.

    One is of a softmax over -`tau` * squared Mahalanobis distance between the unit vector of an
    image and normal distributions of classes, which have a mean of unit length and a variance of
    e^v for each dimension, v cut to 0 .. 6.

    The other is of two layers of a hypergraph network (Feng et al. 2019) on the embeddings as they
    are. Its edges are the classes that the batch has; an image belongs to its own fully, and to
    another by e^(-`alpha` * distance). In evaluation and in gallery searches only the embedding
    counts; the logits are those of the first softmax.

    The authors' code leaves an image out of the first mean whose probability underflows to 0; here
    it counts with its logarithm. A batch of one image has no graph, and only the first part.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        tau: float,
        alpha: float,
        hidden: int,
        graph_weight: float,
        graph_lr_factor: float,
    ):
        super().__init__()
        self.means = nn.Parameter(torch.empty(num_classes, dim))
        self.log_variances = nn.Parameter(torch.empty(num_classes, dim))
        for parameter in (self.means, self.log_variances):
            nn.init.kaiming_normal_(parameter, mode="fan_out")
        self.first = nn.Linear(dim, hidden)
        self.norm = nn.BatchNorm1d(hidden)
        self.second = nn.Linear(hidden, num_classes)
        self.tau = tau
        self.alpha = alpha
        self.graph_weight = graph_weight
        self.lr_factors = dict.fromkeys(("first", "norm", "second"), graph_lr_factor)

    def distances(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes) squared Mahalanobis distances."""
        unit = functional.normalize(embeddings, dim=1)
        means = functional.normalize(self.means, dim=1)
        precision = torch.exp(-functional.relu6(self.log_variances))
        squares = unit.square() @ precision.T + (means.square() * precision).sum(dim=1)
        return (squares - 2 * unit @ (means * precision).T).clamp_min(0)

    def logits(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch, num_classes)."""
        return -self.tau * self.distances(embeddings)

    def forward(
        self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(batch, dim) embeddings and (batch) labels -> the loss of the batch."""
        distances = self.distances(embeddings)
        loss = functional.cross_entropy(-self.tau * distances, labels)
        if len(labels) == 1:
            return loss
        spread = propagation(distances, labels, self.alpha)
        hidden = self.norm(spread @ self.first(embeddings))
        classified = spread @ self.second(functional.leaky_relu(hidden, SLOPE))
        return loss + self.graph_weight * functional.cross_entropy(classified, labels)


def propagation(distances: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """(batch, classes) distances, (batch) labels -> (batch, batch) how much of each image reaches
    each other one through the edges: D^-1/2 H E^-1 H' D^-1/2, where D and E are the sums of the
    rows and of the columns of H."""
    # A class that the batch lacks has a column of zeros, and an edge of length 0 in place of none.
    of_class = torch.arange(distances.shape[1], device=labels.device)
    own = labels[:, None] == of_class
    belongs = torch.where(own, 1.0, torch.exp(-alpha * distances)) * own.any(dim=0)
    of_edges = belongs.sum(dim=0).clamp_min(torch.finfo(belongs.dtype).tiny)
    scaled = belongs * belongs.sum(dim=1, keepdim=True).rsqrt()
    return (scaled / of_edges) @ scaled.T
