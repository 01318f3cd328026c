"""What becomes of an answer when more neighbours than the nearest are asked, and which classes are
taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dml_bench.evaluation.metrics import by_class, macro, precision_at_1, vote
from dml_bench.evaluation.search import Neighbours

__all__ = [
    "AccuracyByK",
    "Confusion",
    "VoteChanges",
    "accuracy_by_k",
    "confusions",
    "recall_and_precision",
    "vote_changes",
]


@dataclass(frozen=True, slots=True)
class AccuracyByK:
    """Accuracy of the vote of the k nearest, averaged over classes, against k."""

    ks: tuple[int, ...]
    """Rising."""
    majority: np.ndarray
    """(ks) one vote each (Cover & Hart 1967)."""
    distance: np.ndarray
    """(ks) votes that weigh 1 / distance (after Dudani 1976; the weight is scikit-learn's)."""


@dataclass(frozen=True, slots=True)
class VoteChanges:
    """Where the vote of k changes the answer of the nearest for better or worse."""

    saved: np.ndarray
    """(query) bool: the vote is right where the nearest is wrong."""
    broken: np.ndarray
    """(query) bool: the vote is wrong where the nearest is right."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """One class that is taken for another."""

    of: int
    """Class id of the queries."""
    as_: int
    """Class id of their nearest images."""
    count: int
    """Queries of the one taken for the other."""
    share: float
    """The same as a share of all queries of class `of`."""
    queries: tuple[int, ...]
    """Their positions among the queries, rising."""


def accuracy_by_k(neighbours: Neighbours, ks: Sequence[int] = (1, 3, 5, 10, 20)) -> AccuracyByK:
    """Both votes for every k. A k beyond the neighbours that were searched is cut to them. Raises
    ValueError where a k is not positive."""
    if min(ks, default=1) < 1:
        raise ValueError(f"a vote must have at least one neighbour, got ks {tuple(ks)}")
    searched = tuple(sorted({min(int(k), neighbours.k) for k in ks}))

    def accuracies(weights: Literal["majority", "distance"]) -> np.ndarray:
        labels = neighbours.query_labels
        return np.array(
            [macro(right(neighbours, k, weights).astype(float), labels) for k in searched]
        )

    return AccuracyByK(searched, accuracies("majority"), accuracies("distance"))


def vote_changes(
    neighbours: Neighbours, k: int = 10, weights: Literal["majority", "distance"] = "majority"
) -> VoteChanges:
    """Queries that the vote of k (cut to the neighbours that were searched) saves and breaks."""
    by_nearest, by_vote = (
        precision_at_1(neighbours).astype(bool),
        right(neighbours, min(k, neighbours.k), weights),
    )
    return VoteChanges(by_vote & ~by_nearest, by_nearest & ~by_vote)


def right(neighbours: Neighbours, k: int, weights: Literal["majority", "distance"]) -> np.ndarray:
    """(query) whether the vote elects the query's class."""
    return vote(neighbours, k, weights=weights)[0] == neighbours.query_labels


def confusions(neighbours: Neighbours, most: int = 20) -> list[Confusion]:
    """The most frequent confusions by nearest image, at most `most`; equally frequent ones by class
    ids, `of` first.

    The two directions of a pair are two confusions.
    """
    labels, nearest = neighbours.query_labels, neighbours.labels[:, 0]
    wrong = np.flatnonzero(labels != nearest)
    pairs, which, counts = np.unique(
        np.stack([labels[wrong], nearest[wrong]], 1),
        axis=0,
        return_inverse=True,
        return_counts=True,
    )
    queries_of = np.bincount(labels)
    return [
        Confusion(
            of=int(pairs[row, 0]),
            as_=int(pairs[row, 1]),
            count=int(counts[row]),
            share=float(counts[row] / queries_of[pairs[row, 0]]),
            queries=tuple(wrong[which.ravel() == row].tolist()),
        )
        for row in np.argsort(-counts, kind="stable")[:most]
    ]


def recall_and_precision(neighbours: Neighbours, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes) share of a class's queries whose nearest image is of it; (classes) share of the
    queries taken for it that are of it.

    nan for a class without queries, and for one that no query is taken for.
    """
    correct = precision_at_1(neighbours)
    return by_class(correct, neighbours.query_labels, num_classes), by_class(
        correct, neighbours.labels[:, 0], num_classes
    )
