"""Queries of classes that the gallery lacks: does the similarity of the nearest image tell them
from the known, and can it be trusted?

Known is positive throughout, and a query is accepted where its nearest similarity is at least the
threshold; equally similar queries are accepted together. With counts over all known and all unknown
queries, at each threshold:

- true positive rate: known queries accepted / known queries; false positive rate: unknown accepted
  / unknown.
- correct classification rate: known queries accepted whose nearest image is of their class / known
  queries (Dhamija, Günther & Boult 2018, "Reducing network agnostophobia").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.search import Neighbours, search

__all__ = ["OpenSetResult", "open_set_result", "search_without_classes"]


@dataclass(frozen=True, slots=True)
class OpenSetResult:
    """How well the nearest similarity tells known queries from unknown ones. All nan, with empty
    curves, where either are missing."""

    auroc: float
    """Area under the true over the false positive rate: the chance that a known query is more
    similar than an unknown one."""
    aupr: float
    """Average precision, sum of precision times gain in recall, as scikit-learn's; no interpolation
    (Davis & Goadrich 2006)."""
    fpr_at_95_tpr: float
    """False positive rate at the highest threshold that accepts at least 95% of the known
    (Hendrycks & Gimpel 2017, Liang et al. 2018)."""
    oscr: float
    """Area under the correct classification rate over the false positive rate, by trapezoids
    (Dhamija et al. 2018; so named by Vaze et al. 2022, "Open-set recognition: a good closed-set
    classifier is all you need"). At most the P@1 of the known (mean over images)."""
    false_positive_rate: np.ndarray
    """(thresholds + 1) rising from 0, where nothing is accepted, to 1; thresholds are the distinct
    similarities, falling."""
    true_positive_rate: np.ndarray
    """(thresholds + 1) at the same thresholds."""
    correct_rate: np.ndarray
    """(thresholds + 1) correct classification rate at the same thresholds."""
    known: int
    """Queries of classes in the gallery."""
    unknown: int


def search_without_classes(
    gallery: np.ndarray,
    query: np.ndarray,
    gallery_labels: np.ndarray,
    query_labels: np.ndarray,
    left_out: Sequence[int] | np.ndarray,
    *,
    k: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Neighbours:
    """Search all queries in the gallery without the images of the classes `left_out`.

    Its `indices` and `gallery_labels` are those of the smaller gallery,
    `gallery[~np.isin(gallery_labels, left_out)]`. A query is unknown where `np.isin(query_labels,
    left_out)`, and never right. Raises ValueError where no gallery image is left.
    """
    kept = ~np.isin(gallery_labels, left_out)
    if not kept.any():
        raise ValueError("no class is left in the gallery; leave out fewer")
    return search(gallery[kept], query, gallery_labels[kept], query_labels, k, progress)


def open_set_result(
    similarity: np.ndarray, correct: np.ndarray, is_unknown: np.ndarray
) -> OpenSetResult:
    """From (query) nearest similarity, (query) whether the nearest image is of the query's class,
    (query) whether the gallery lacks it."""
    is_unknown = np.asarray(is_unknown, bool)
    known, unknown = int((~is_unknown).sum()), int(is_unknown.sum())
    if not known or not unknown:
        nothing = np.empty(0)
        return OpenSetResult(
            np.nan, np.nan, np.nan, np.nan, nothing, nothing, nothing, known, unknown
        )
    right = np.asarray(correct, bool) & ~is_unknown
    _, (accepted_known, accepted_right, accepted_unknown) = accept(
        similarity, ~is_unknown, right, is_unknown
    )
    accepted = accepted_known + accepted_unknown
    positive = np.concatenate([[0], accepted_known]) / known
    correct_rate = np.concatenate([[0], accepted_right]) / known
    false_positive = np.concatenate([[0], accepted_unknown]) / unknown
    return OpenSetResult(
        auroc=area_under(positive, false_positive),
        aupr=float((np.diff(positive) * accepted_known / accepted).sum()),
        fpr_at_95_tpr=float(false_positive[np.argmax(positive >= 0.95)]),
        oscr=area_under(correct_rate, false_positive),
        false_positive_rate=false_positive,
        true_positive_rate=positive,
        correct_rate=correct_rate,
        known=known,
        unknown=unknown,
    )


def area_under(y: np.ndarray, x: np.ndarray) -> float:
    """By trapezoids; NumPy 1 and 2 call it differently."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def accept(similarity: np.ndarray, *weights: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """(thresholds) the distinct similarities, falling; and, for each of several (queries) weights,
    (thresholds) the sum over the queries that are accepted."""
    similarity = np.asarray(similarity, float)
    assert not np.isnan(similarity).any(), "a similarity is nan"
    order = np.argsort(-similarity, kind="stable")
    falling = similarity[order]
    last = np.flatnonzero(np.append(falling[:-1] != falling[1:], len(falling) > 0))
    return falling[last], [np.cumsum(weight[order])[last] for weight in weights]
