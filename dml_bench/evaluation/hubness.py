"""How unevenly gallery images answer: hubs are among the nearest of many queries, others of none.

Source: Radovanović, Nanopoulos & Ivanović, "Hubs in Space: Popular Nearest Neighbors in
High-Dimensional Data" (JMLR 11, 2010). Their N_k counts how often an image is among the k nearest
of others; here, of queries.
"""

from dataclasses import asdict, dataclass

import numpy as np

from dml_bench.evaluation.search import Neighbours

__all__ = ["NEAREST", "Hubness", "hubness", "occurrences"]

NEAREST = 10
"""The k of N_k in that paper."""


@dataclass(frozen=True, slots=True)
class Hubness:
    """How unevenly a gallery answers."""

    skewness: float
    """Skewness of N_10, the third standardised moment: 0 where images answer as often as rarely,
    above 1 where a few answer very often; nan where all answer alike."""
    never: float
    """Share of gallery images that are among the ten nearest of no query, 0 to 1."""
    largest: float
    """How often the most frequent image is among them, as a multiple of the mean."""

    def as_table(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def occurrences(neighbours: Neighbours, k: int = NEAREST) -> np.ndarray:
    """(gallery) how many queries have an image among their k nearest, or among as many as were
    kept."""
    nearest = neighbours.indices[:, :k]
    return np.bincount(nearest.ravel(), minlength=len(neighbours.gallery_labels))


def hubness(neighbours: Neighbours, k: int = NEAREST) -> Hubness:
    """Of the gallery, by its queries. Of neighbours that keep one image a class, as records do,
    it says nothing."""
    counts = occurrences(neighbours, k).astype(float)
    mean, deviation = counts.mean(), counts.std()
    skewness = float("nan")
    if deviation > 0:
        skewness = float((((counts - mean) / deviation) ** 3).mean())
    return Hubness(skewness, float((counts == 0).mean()), float(counts.max() / mean))
