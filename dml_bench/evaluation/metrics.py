"""Metrics: each returns one value per query; averaging happens at the edge. What is undefined is
nan.

All take a `Neighbours` value. Relevant means: of the query's class.
"""

from dataclasses import replace
from typing import Annotated

import numpy as np

from dml_bench.evaluation.search import Neighbours
from dml_bench.system.shapes import Bool, Float, Int, shaped

__all__ = [
    "by_class",
    "chance_of_errors_within",
    "decided_by_order",
    "errors_within",
    "macro",
    "map_at_r",
    "micro",
    "precision_at_1",
    "r_precision",
    "recall_at",
    "shortened",
    "vote",
]


@shaped
def precision_at_1(neighbours: Neighbours) -> Annotated[np.ndarray, Float("query")]:
    """(query) 1 where the nearest gallery image is relevant, else 0. Equals R@1 and 1-NN
    accuracy."""
    return (neighbours.labels[:, 0] == neighbours.query_labels).astype(float)


@shaped
def decided_by_order(neighbours: Neighbours) -> Annotated[np.ndarray, Bool("query")]:
    """(query) bool: whether an image of another class is exactly as near as the nearest, so that
    the order of the gallery decides P@1."""
    as_near = neighbours.similarities == neighbours.similarities[:, :1]
    return (as_near & (neighbours.labels != neighbours.labels[:, :1])).any(1)


@shaped
def errors_within(
    neighbours: Neighbours, groups: np.ndarray
) -> Annotated[np.ndarray, Float("query")]:
    """(query) what each query adds to the share of the errors whose nearest image is of the query's
    group; `groups` (class) are numbers, e.g. of coarse classes.

    A share of errors is a ratio of two means, so it is written to first order: the mean over
    queries is the share itself, and their variance that of the ratio (Cochran 1977, Sampling
    Techniques, chapter 6). So runs with other errors are compared query by query. A single value
    may lie outside of 0 to 1. Without errors all are 0.
    """
    nearest, labels = neighbours.labels[:, 0], neighbours.query_labels
    wrong = nearest != labels
    if not wrong.any():
        return np.zeros(len(labels))
    within = wrong & (groups[nearest] == groups[labels])
    share = within.sum() / wrong.sum()
    return share + (within - share * wrong) / wrong.mean()


def chance_of_errors_within(neighbours: Neighbours, groups: np.ndarray) -> float:
    """The share of `errors_within` if each wrong answer were a gallery image of another class,
    drawn at random; 0 without errors."""
    labels = neighbours.query_labels
    wrong = labels[neighbours.labels[:, 0] != labels]
    if not len(wrong):
        return 0.0
    of_class = np.bincount(neighbours.gallery_labels, minlength=len(groups))
    of_group = np.bincount(groups, weights=of_class)
    in_group = of_group[groups[wrong]] - of_class[wrong]
    return float((in_group / (of_class.sum() - of_class[wrong])).mean())


@shaped
def recall_at(neighbours: Neighbours, k: int) -> Annotated[np.ndarray, Float("query")]:
    """(query) 1 where at least one of the k nearest is relevant, the R@k of metric learning (Jégou
    et al. 2011)."""
    if neighbours.first_relevant is not None:
        place = neighbours.first_relevant
        return ((place >= 1) & (place <= k)).astype(float)
    assert 1 <= k <= neighbours.k
    return (neighbours.labels[:, :k] == neighbours.query_labels[:, None]).any(1).astype(float)


@shaped
def r_precision(neighbours: Neighbours) -> Annotated[np.ndarray, Float("query")]:
    """(query) relevant among the R nearest / R, where the gallery holds R relevant images (Musgrave
    et al. 2020)."""
    if neighbours.at_r is not None:
        return neighbours.at_r[:, 0]
    relevant, within_r, r = _relevance(neighbours)
    return _divide((relevant & within_r).sum(1), r)


@shaped
def map_at_r(neighbours: Neighbours) -> Annotated[np.ndarray, Float("query")]:
    """(query) mean over the R nearest of precision@i where the i-th is relevant, else 0 (Musgrave
    et al. 2020).

    Divides by R, unlike the usual average precision, which divides by the number of relevant images
    retrieved.
    """
    if neighbours.at_r is not None:
        return neighbours.at_r[:, 1]
    relevant, within_r, r = _relevance(neighbours)
    hits = relevant & within_r
    precision = np.cumsum(hits, axis=1) / np.arange(1, neighbours.k + 1)
    return _divide((precision * hits).sum(1), r)


def shortened(neighbours: Neighbours, k: int) -> Neighbours:
    """The k nearest of each query, with what the metrics at R say of all of them."""
    if k >= neighbours.k:
        return neighbours
    at_r = np.stack([r_precision(neighbours), map_at_r(neighbours)], axis=1)
    return replace(
        neighbours,
        indices=neighbours.indices[:, :k].copy(),
        similarities=neighbours.similarities[:, :k].copy(),
        at_r=at_r,
    )


def _relevance(neighbours: Neighbours) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(query, k) relevant, (query, k) within the first R, (query) R. Raises ValueError where the
    search was too short for R."""
    counts = np.bincount(
        neighbours.gallery_labels, minlength=int(neighbours.query_labels.max(initial=0)) + 1
    )
    r = counts[neighbours.query_labels] - neighbours.leaves_one_out
    if r.max(initial=0) > neighbours.k:
        raise ValueError(
            f"a class has {r.max()} gallery images, but only {neighbours.k} neighbours were"
            " searched"
        )
    return (
        neighbours.labels == neighbours.query_labels[:, None],
        np.arange(neighbours.k) < r[:, None],
        r,
    )


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


@shaped
def vote(
    neighbours: Neighbours, k: int, *, weights: str = "majority"
) -> tuple[Annotated[np.ndarray, Int("query")], Annotated[np.ndarray, Float("query")]]:
    """(query) the class that the k nearest elect, and (query) its share of the votes, 0 to 1.

    `majority`: one vote each. `distance`: each weighs 1 / Euclidean distance, as scikit-learn's
    `weights="distance"`. A tie goes to the class whose nearest member is nearer.
    """
    assert 1 <= k <= neighbours.k and weights in ("majority", "distance")
    labels = neighbours.labels[:, :k]
    distances = np.sqrt(np.maximum(2 - 2 * neighbours.similarities[:, :k].astype(float), 1e-12))
    weight = np.ones(labels.shape) if weights == "majority" else 1 / distances
    # Votes for the class of each neighbour. Sums of the same weights in another order differ in
    # their last bits, so a tie is what is within 1e-12; argmax then takes the nearest of the tied.
    votes = np.einsum("qij,qj->qi", labels[:, :, None] == labels[:, None, :], weight)
    winner = np.argmax(votes >= votes.max(1, keepdims=True) * (1 - 1e-12), axis=1)[:, None]
    elected = np.take_along_axis(labels, winner, 1)[:, 0]
    return elected, np.take_along_axis(votes, winner, 1)[:, 0] / weight.sum(1)


@shaped
def by_class(
    values: Annotated[np.ndarray, Float("query")],
    labels: Annotated[np.ndarray, Int("query")],
    num_classes: int,
) -> Annotated[np.ndarray, Float("classes")]:
    """(num_classes) mean of the values of each class's queries; nan for a class without defined
    values."""
    defined = ~np.isnan(values)
    sums = np.bincount(labels[defined], weights=values[defined], minlength=num_classes)
    return _divide(sums, np.bincount(labels[defined], minlength=num_classes))


@shaped
def macro(
    values: Annotated[np.ndarray, Float("query")], labels: Annotated[np.ndarray, Int("query")]
) -> float:
    """Mean over classes of the mean over each class's queries."""
    return _mean(by_class(values, labels, int(labels.max(initial=0)) + 1))


@shaped
def micro(values: Annotated[np.ndarray, Float("query")]) -> float:
    """Mean over queries."""
    return _mean(values)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
