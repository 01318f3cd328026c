"""Distances between unit vectors, as pytorch-metric-learning knows them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_metric_learning.distances import BaseDistance


def distance_named(name: str) -> "BaseDistance":
    """`cosine` similarity (higher is closer) or `euclidean` distance."""
    from pytorch_metric_learning.distances import CosineSimilarity, LpDistance

    return CosineSimilarity() if name == "cosine" else LpDistance(p=2, power=1, normalize_embeddings=True)
