"""The precision drop: what the model that never trained on some classes loses against the one that
did."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.metrics import by_class, precision_at_1
from dml_bench.evaluation.search import Neighbours

__all__ = ["Drop", "drop_of", "lost_to"]


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
    to_unseen: np.ndarray
    """(classes) the part of `per_class` that is lost to images of unseen classes."""

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

    def mean_to_unseen(self) -> float:
        """The part of the mean drop of the seen classes that is lost to images of unseen ones."""
        return float(np.nanmean(self.to_unseen[~self.unseen]))


def drop_of(
    trained_on_all: Neighbours,
    trained_without: Neighbours,
    unseen: Sequence[int] | np.ndarray,
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
    both = (trained_on_all, trained_without)
    first, second = (by_class(precision_at_1(n), n.query_labels, num_classes) for n in both)
    to_unseen = by_class(lost_to(*both, unseen), trained_on_all.query_labels, num_classes)
    return Drop(first, second, np.isin(np.arange(num_classes), unseen), to_unseen)


def lost_to(
    trained_on_all: Neighbours,
    trained_without: Neighbours,
    classes: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """(query) 1 for a right answer that is lost to an image of one of `classes`, -1 for one that is
    won back from such an image, else 0.

    A query is lost where only the model of all classes is right, and it is lost to the class of the
    other model's nearest image. It is won back where only the other model is right, and from the
    class of the nearest image of the model of all classes. A query that both get wrong counts
    nowhere. So the values of all classes of the gallery add up to the drop of each query.
    """
    right, right_without = (precision_at_1(n) == 1 for n in (trained_on_all, trained_without))
    lost = right & ~right_without & np.isin(trained_without.labels[:, 0], classes)
    won = ~right & right_without & np.isin(trained_on_all.labels[:, 0], classes)
    return lost.astype(float) - won
