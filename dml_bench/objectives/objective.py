"""What a phase minimises: a loss, with its miner, in float32."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.registry import losses, miners
from dml_bench.seeding import seed_everything

__all__ = ["Objective", "build_objective"]


class Objective(nn.Module):
    """Loss over the mined part of a batch. Counts the batches in which the miner found nothing."""

    def __init__(self, loss: nn.Module, miner: nn.Module | None, unit_vectors: bool, classifies: bool = False):
        super().__init__()
        self.loss = loss
        self.miner = miner
        self.unit_vectors = unit_vectors
        self.classifies = classifies
        """Whether the loss can say the class of an embedding by itself, without a gallery."""
        self.batches_without_tuples = 0

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(batch, dim), (batch) labels in 0 .. classes-1 -> scalar, float32 whatever the embeddings were computed in."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = self._as_wanted(embeddings)
            if self.miner is None:
                return self.loss(embeddings, labels)
            mined = self.miner(embeddings, labels)
            if all(part.numel() <= 1 for part in mined):
                self.batches_without_tuples += 1
                return embeddings.sum() * 0
            return self.loss(embeddings, labels, mined)

    @torch.no_grad()
    def classify(self, embeddings: Tensor) -> Tensor:
        """(batch, dim) -> (batch) the label 0 .. classes-1 with the highest logit. Only where `classifies`."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.loss.logits(self._as_wanted(embeddings)).argmax(dim=1)  # type: ignore[operator]

    def _as_wanted(self, embeddings: Tensor) -> Tensor:
        """float32, and of unit length where the loss wants that."""
        return functional.normalize(embeddings.float(), dim=1) if self.unit_vectors else embeddings.float()


def build_objective(experiment: Experiment, num_classes: int, dim: int) -> Objective:
    """The objective of an experiment for a phase that trains on `num_classes` classes."""
    seed_everything(experiment.seed, "objective")
    entry = losses[experiment.loss.name]
    loss = entry.build(num_classes, dim, **experiment.loss.options)
    miner = miners[experiment.miner.name].build(**experiment.miner.options)
    return Objective(loss, miner, entry.facts["unit_vectors"], entry.facts["classifies"])
