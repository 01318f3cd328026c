"""Distances between unit vectors, as pytorch-metric-learning knows them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_metric_learning.distances import BaseDistance
    from torch import Tensor

__all__ = ["as_threshold", "clamped_cosine", "distance_named"]


def distance_named(name: str) -> "BaseDistance":
    """`cosine` similarity (higher is closer) or `euclidean` distance."""
    from pytorch_metric_learning.distances import CosineSimilarity, LpDistance

    return (
        CosineSimilarity()
        if name == "cosine"
        else LpDistance(p=2, power=1, normalize_embeddings=True)
    )


def clamped_cosine() -> "BaseDistance":
    """Cosine similarity kept so far from -1 and 1 that its angle has a finite derivative, also for
    two equal images in a batch."""
    from pytorch_metric_learning.distances import CosineSimilarity

    class ClampedCosine(CosineSimilarity):
        def compute_mat(self, query_emb: "Tensor", ref_emb: "Tensor") -> "Tensor":
            return super().compute_mat(query_emb, ref_emb).clamp(-1 + 1e-6, 1 - 1e-6)

    return ClampedCosine()


def as_threshold(distance: float, name: str) -> float:
    """A distance in the units of `distance_named(name)`. Options are always distances: Euclidean (0
    .. 2), or 1 - cosine (0 .. 2)."""
    return 1 - distance if name == "cosine" else distance
