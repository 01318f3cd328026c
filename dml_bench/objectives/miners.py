"""Miners: which pairs or triplets of a batch a loss looks at.

A registered function returns a module `(embeddings (batch, dim), labels (batch)) -> tuple of index tensors`.
"""

from typing import TYPE_CHECKING, Literal

from dml_bench.registry import miners

if TYPE_CHECKING:
    from torch import nn


@miners.register("none", summary="every pair or triplet of the batch", source="")
def none() -> None:
    return None


@miners.register(
    "EPSHN",
    summary="for each anchor its easiest positive and its hardest negative that is farther than it",
    source="Xuan, Stylianou and Pless 2020, Improved embeddings with easy positive triplet mining",
)
def easy_positive_semihard_negative(*, distance: Literal["cosine", "euclidean"] = "cosine") -> "nn.Module":
    from pytorch_metric_learning.miners import BatchEasyHardMiner

    from dml_bench.objectives.distances import distance_named

    return BatchEasyHardMiner(pos_strategy="easy", neg_strategy="semihard", distance=distance_named(distance))
