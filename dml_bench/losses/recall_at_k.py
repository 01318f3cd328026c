"""A surrogate of recall@k that has a gradient (Patel, Tolias and Matas 2022, "Recall@k surrogate
loss with large batches and similarity mixup")."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["RecallAtK"]

COMPARED = 2**25
"""Comparisons of two images for a query that are in memory at a time."""


class RecallAtK(nn.Module):
    """1 - the mean over queries and k of a smooth recall@k.

    The rank of a positive is 1 plus a sigmoid, of temperature `rank_temperature`, for each other
    image by how much more similar it is; a positive counts as within k by a sigmoid of k - rank,
    of temperature `k_temperature`. The sum over positives is at most k, and is divided by the
    largest that there can be. As in the authors' code the query itself is among the images that
    are ranked, so the nearest positive has rank 2.

    With `simix` = m, each pair of the m images of a class that stand together in a batch, as
    sampler `m_per_class` deals them, adds a virtual one: a mean of the two with a uniform weight,
    not brought back to unit length. Similarities with it are then the means of similarities.
    """

    def __init__(
        self, k: tuple[int, ...], rank_temperature: float, k_temperature: float, simix: int
    ):
        super().__init__()
        self.register_buffer("k", torch.tensor(k, dtype=torch.float32), persistent=False)
        self.rank_temperature = rank_temperature
        self.k_temperature = k_temperature
        self.simix = simix

    k: Tensor

    def forward(
        self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(batch, dim) unit vectors and (batch) labels -> the loss of the batch."""
        if self.simix and self.training:
            embeddings, labels = with_virtual_images(embeddings, labels, self.simix)
        similarity = embeddings @ embeddings.T
        there = labels >= 0
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        positives = (labels[:, None] == labels) & there & ~itself
        together = max(1, COMPARED // len(labels) ** 2)
        recalls = [
            checkpoint(self.recall, similarity[some], positives[some], there, use_reentrant=False)
            for some in torch.arange(len(labels), device=labels.device).split(together)
        ]
        asking = positives.any(dim=1)
        return ((1 - torch.cat(recalls)) * asking).sum() / asking.sum().clamp_min(1)

    def recall(self, similarity: Tensor, positives: Tensor, there: Tensor) -> Tensor:
        """(queries, images) similarities and whether they are positives, (images) whether there is
        an image -> (queries) recall, the mean over k."""
        # beats[query, i, j]: how far j stands before i for the query, 0 .. 1.
        ahead = similarity[:, None, :] - similarity[:, :, None]
        beats = torch.sigmoid(ahead / self.rank_temperature) * there
        rank = 1 + beats.sum(dim=2) - 0.5 * there  # without i itself, which is half before itself
        k = self.k.clamp_max(similarity.shape[1])
        within = torch.sigmoid((k - rank[:, :, None]) / self.k_temperature)
        counted = (within * positives[:, :, None]).sum(dim=1)
        possible = torch.minimum(k, positives.sum(dim=1)[:, None]).clamp_min(1)
        return (torch.minimum(counted, k) / possible).mean(dim=1)


def with_virtual_images(embeddings: Tensor, labels: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """(batch, dim), (batch) -> the same with a virtual image for each pair of the m images that
    stand together; its label is -1 where the two have different ones."""
    blocks = torch.arange(len(labels) // m * m, device=labels.device).view(-1, m)
    first, second = torch.triu_indices(m, m, offset=1, device=labels.device)
    one, other = blocks[:, first].flatten(), blocks[:, second].flatten()
    weights = torch.rand(len(one), 1, device=labels.device)
    virtual = torch.lerp(embeddings[other], embeddings[one], weights)
    their_labels = torch.where(labels[one] == labels[other], labels[one], -1)
    return torch.cat([embeddings, virtual]), torch.cat([labels, their_labels])
