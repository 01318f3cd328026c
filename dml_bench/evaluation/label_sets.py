"""How well scores of labels are right where an image has several labels: average precision."""

from typing import Annotated

import numpy as np

from dml_bench.system.seeding import uniform
from dml_bench.system.shapes import Bool, Float, Int, shaped

__all__ = ["average_precision", "mean_with_interval", "resamples", "voted"]

DRAWS = 400
"""Resamples of the queries for an interval."""


@shaped
def voted(
    neighbours: Annotated[np.ndarray, Int("query k")],
    members: Annotated[np.ndarray, Bool("classes labels")],
) -> Annotated[np.ndarray, Float("query labels")]:
    """(query, k) class ids of the nearest images and (classes, labels) the labels of each class ->
    (query, labels) the share of these images that have a label, 0 to 1."""
    return members[neighbours].mean(axis=1)


@shaped
def average_precision(
    truth: Annotated[np.ndarray, Bool("query labels")],
    scores: Annotated[np.ndarray, Float("query labels")],
    counts: Annotated[np.ndarray, Float("draws query")] | None = None,
) -> Annotated[np.ndarray, Float("draws labels")]:
    """(draws, labels) of each label: the sum over thresholds of precision times the growth of
    recall, as scikit-learn defines it; equal scores share a threshold. nan for a label that no
    query has.

    `counts` says how often each query counts, one row for each draw; without it there is one draw
    in which all count once.
    """
    weights = np.ones((1, len(truth))) if counts is None else counts
    result = np.full((len(weights), truth.shape[1]), np.nan)
    for label in range(truth.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        ranked = scores[order, label]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        weight = weights[:, order]
        right = (weight * truth[order, label]).cumsum(axis=1)[:, ends]
        chosen = weight.cumsum(axis=1)[:, ends]
        grown = np.diff(right, axis=1, prepend=0.0)
        precision = np.divide(right, chosen, out=np.zeros_like(right), where=chosen > 0)
        positives = right[:, -1]
        sums = (grown * precision).sum(axis=1)
        result[:, label] = np.divide(
            sums, positives, out=np.full(len(sums), np.nan), where=positives > 0
        )
    return result


def resamples(queries: int, seed: int) -> np.ndarray:
    """(draws, queries) how often each query is in a resample, drawn with replacement."""
    drawn = (uniform(seed, "resamples", rows=DRAWS, columns=queries) * queries).astype(int)
    return np.stack([np.bincount(row, minlength=queries) for row in drawn]).astype(float)


def mean_with_interval(
    truth: np.ndarray, scores: np.ndarray, counts: np.ndarray
) -> tuple[float, float, float]:
    """The mean average precision (mAP) over the labels that a query has, and the 95% interval of
    the bootstrap over queries. It says nothing about other seeds.

    A query that is drawn twice stands beside itself in the ranking, which raises the mAP of
    resamples. So their percentiles are moved by what their mean is above the mAP (Efron and
    Tibshirani 1993, An introduction to the bootstrap, chapter 10)."""
    present = truth.any(axis=0)
    own = average_precision(truth[:, present], scores[:, present]).mean()
    drawn = np.nanmean(average_precision(truth[:, present], scores[:, present], counts), axis=1)
    bounds = np.percentile(drawn, [2.5, 97.5]) - (drawn.mean() - own)
    low, high = bounds.clip(0, 1).tolist()
    return float(own), low, high
