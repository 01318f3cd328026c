"""The precision drop: what the model that never trained on some classes loses against the one that
did."""

from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.metrics import by_class, precision_at_1
from dml_bench.evaluation.search import Neighbours

__all__ = ["Drop", "drop_of"]


@dataclass(frozen=True, slots=True)
class Drop:
    """Per class and averaged: P@1 trained on all classes minus P@1 trained without the unseen ones,
    on the same queries."""

    trained_on_all: np.ndarray
    """(classes) P@1 of phase `all`."""
    trained_without: np.ndarray
    """(classes) P@1 of phase `limited`."""
    unseen: np.ndarray
    """(classes) true for the classes that phase `limited` never saw."""

    @property
    def per_class(self) -> np.ndarray:
        """(classes) first minus second; positive where precision is lost."""
        return self.trained_on_all - self.trained_without

    def mean(self, group: str) -> float:
        """Mean over the `unseen`, `seen` or `all` classes."""
        chosen = {"unseen": self.unseen, "seen": ~self.unseen, "all": np.ones_like(self.unseen)}[
            group
        ]
        return float(np.nanmean(self.per_class[chosen]))


def drop_of(
    trained_on_all: Neighbours,
    trained_without: Neighbours,
    unseen: tuple[int, ...],
    num_classes: int,
) -> Drop:
    """Compare two models on the same queries and gallery. Raises ValueError where they were asked
    different questions."""
    for ours, theirs in (
        (trained_on_all.query_labels, trained_without.query_labels),
        (trained_on_all.gallery_labels, trained_without.gallery_labels),
    ):
        if not np.array_equal(ours, theirs):
            raise ValueError(
                "the two phases were evaluated on different images: their precision can't be"
                " compared"
            )
    first, second = (
        by_class(precision_at_1(n), n.query_labels, num_classes)
        for n in (trained_on_all, trained_without)
    )
    return Drop(first, second, np.isin(np.arange(num_classes), unseen))
