"""A loss: one decorated function, whose keyword parameters are its options."""

import torch
from torch import Tensor, nn

import dml_bench


@dml_bench.register_loss(
    summary="pairs of a class are pulled to one another, others pushed below a margin",
    source="Hadsell et al. 2006, Dimensionality reduction by learning an invariant mapping",
    takes_miner=True,
    one_number=True,
)
def MarginPairs(*, margin: float = 0.5) -> nn.Module:
    return PairLoss(margin)


class PairLoss(nn.Module):
    """The mean of 1 - similarity over positive pairs, plus the mean excess over the margin."""

    def __init__(self, margin: float):
        super().__init__()
        self.margin = margin

    def forward(
        self, embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """(batch, dim), (batch) -> scalar."""
        anchors, positives, strangers_of, negatives = mined or every_pair(labels)
        pull = 1 - (embeddings[anchors] * embeddings[positives]).sum(dim=1)
        similarity = (embeddings[strangers_of] * embeddings[negatives]).sum(dim=1)
        push = (similarity - self.margin).relu()
        nothing = embeddings.sum() * 0
        return nothing + sum(part.mean() for part in (pull, push) if len(part))


def every_pair(labels: Tensor) -> tuple[Tensor, ...]:
    """(batch) -> indices of all positive pairs, then of all negative ones."""
    same = labels[:, None] == labels
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return (*torch.where(same & ~itself), *torch.where(~same))
