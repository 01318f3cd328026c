"""Losses. Adding one is adding a function here: `dml-bench list losses`, the docs and the conformance test find it.

A registered function takes the number of trained classes and the embedding's dimension, and returns a module
`(embeddings (batch, dim), labels (batch) in 0 .. num_classes-1, mined indices or None) -> scalar`. Facts:
`takes_miner`: it looks at pairs or triplets; `trains_proxies`: it has parameters of its own; `unit_vectors`: it wants
embeddings of unit length.
"""

from typing import TYPE_CHECKING, Literal

from dml_bench.registry import losses

if TYPE_CHECKING:
    from torch import Tensor, nn


@losses.register(
    "NTXent",
    summary="normalised temperature-scaled cross-entropy of each positive pair against its negatives",
    source="Sohn 2016; Chen et al. 2020, SimCLR",
    takes_miner=True,
)
def nt_xent(num_classes: int, dim: int, *, temperature: float = 0.1, distance: Literal["cosine", "euclidean"] = "cosine") -> "nn.Module":
    from pytorch_metric_learning.losses import NTXentLoss

    from dml_bench.objectives.distances import distance_named

    return NTXentLoss(temperature=temperature, distance=distance_named(distance))


@losses.register(
    "crossentropy",
    summary="softmax classifier: a linear layer on the embedding, cross-entropy on its logits",
    source="the usual classifier",
    trains_proxies=True,
    unit_vectors=False,
)
def crossentropy(num_classes: int, dim: int, *, label_smoothing: float = 0.0) -> "nn.Module":
    import torch
    from torch import nn

    class SoftmaxClassifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = nn.Linear(dim, num_classes)
            self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

        def forward(self, embeddings: "Tensor", labels: "Tensor", mined: tuple[torch.Tensor, ...] | None = None) -> "Tensor":
            return self.cross_entropy(self.classifier(embeddings), labels)

    return SoftmaxClassifier()
