"""Heads: from pooled features (batch, num_features) to embeddings (batch, dim), not yet normalised.

A registered function takes `num_features` and returns a module with an attribute `dim`.
"""

from typing import TYPE_CHECKING

from dml_bench.registry import heads

if TYPE_CHECKING:
    from torch import nn


@heads.register("linear", summary="one linear projection", source="the usual head of metric learning")
def linear(num_features: int, *, dim: int = 128) -> "nn.Module":
    from torch import nn

    head = nn.Linear(num_features, dim)
    head.dim = dim  # type: ignore[assignment]
    return head


@heads.register("identity", summary="the backbone's pooled features themselves", source="Zhai and Wu 2019 use classifier features so")
def identity(num_features: int) -> "nn.Module":
    from torch import nn

    head = nn.Identity()
    head.dim = num_features  # type: ignore[assignment]
    return head
