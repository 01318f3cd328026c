"""What a map explains: a number that the network makes of an image, chosen so that it says why the
look-up answers as it does.

An embedding has no class scores. For a class the number is what triplet losses raise, averaged over
all triplets of the image, the class's closest gallery images and the closest images of other
classes (Chen et al. 2020 aggregate over triplets alike, of training images; all count the same
here, and none is left out for being solved): the mean similarity to the former minus that to the
latter. For a pair it is their similarity, for a softmax classifier the class's logit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CLOSEST", "ScoreDirection", "closest_rows", "toward_class"]

CLOSEST = 10
"""Gallery images of the class, and of the others, that make the triplets of an image."""


@dataclass(frozen=True, slots=True)
class ScoreDirection:
    """One direction in the space of embeddings per image: the number is the embedding's extent
    along it."""

    directions: Tensor
    """(batch, dim)"""
    unit: bool = True
    """Whether the embedding is brought to unit length first, as in a look-up, or taken as it is, as
    by a softmax classifier."""

    def score(self, outputs: Tensor) -> Tensor:
        """(batch, dim) outputs of the embedder before normalisation -> (batch)."""
        embeddings = functional.normalize(outputs, dim=1) if self.unit else outputs
        return (embeddings * self.directions).sum(dim=1)

    def linear(self, outputs: Tensor) -> Tensor:
        """The same number as a linear function of the outputs, their length being taken for a
        constant: what can be shared out among the positions of a map, as Stylianou et al. 2019 do.
        (batch, dim) -> (batch)"""
        length = outputs.detach().norm(dim=1) if self.unit else 1.0
        return (outputs * self.directions).sum(dim=1) / length


def closest_rows(
    embedding: np.ndarray, gallery: np.ndarray, among: np.ndarray, k: int = CLOSEST
) -> np.ndarray:
    """(at most k) rows of `gallery` where the mask `among` holds, closest to the unit vector
    `embedding` first."""
    rows = np.flatnonzero(among)
    return rows[np.argsort(-(gallery[rows] @ embedding), kind="stable")[:k]]


def toward_class(closest: np.ndarray, others: np.ndarray) -> Tensor:
    """The direction that the mean over all triplets has: (k, dim) unit vectors of the class, (k,
    dim) of others -> (dim)."""
    return torch.from_numpy(closest.mean(axis=0) - others.mean(axis=0))
