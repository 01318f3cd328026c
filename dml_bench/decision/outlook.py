"""What more photos would bring: of a new class, and of all classes. By the test photos of the
development part."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.decision.choice import By
from dml_bench.evaluation.class_means import nearest_class_mean
from dml_bench.evaluation.few_shot import few_shot_curve
from dml_bench.evaluation.metrics import macro
from dml_bench.evaluation.search import search
from dml_bench.protocols.holdout_metrics import ALL
from dml_bench.runs.run import Run

__all__ = ["Enrolment", "Outlook", "enrolment_of", "outlook_of"]

NEAR_ENOUGH = 0.02
DRAWS = 10
COUNTS = (1, 2, 5, 10, 20, 50)
APART = 1.5
"""How many times the last count is at least the one before it: between nearer ones P@1 differs by a
few photos' chance, which the outlook would stretch."""
MOST_QUERIES = 1000
"""Of more test photos, so many are drawn: these are estimates, and time is short."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """P@1 on classes that the model was not trained on, by their photos in the gallery."""

    photos: tuple[int, ...]
    precision: tuple[float, ...]
    needed: int
    """The fewest that are within 2 points of the most; 0 where there is no curve."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """P@1 by the photos of each class in the gallery."""

    photos_per_class: tuple[int, ...]
    precision: tuple[float, ...]
    gain: float
    """About how much P@1 100 more labelled photos would bring, an equal number of each class."""


def enrolment_of(run: Run, by: By) -> Enrolment:
    """The mean of the hold-outs."""
    curves = []
    for phase, held_out in run.held_out.items():
        embeddings, neighbours = run.embeddings(phase), run.neighbours[phase]
        # Queries of other classes have no say in the curve of new ones.
        queries = drawn(np.flatnonzero(np.isin(neighbours.query_labels, held_out)))
        curve = few_shot_curve(
            embeddings.gallery,
            embeddings.query[queries],
            neighbours.gallery_labels,
            neighbours.query_labels[queries],
            held_out,
            ks=COUNTS[:-1],
            draws=DRAWS,
            by="centroids" if by == "mean" else "images",
        )
        curves.append(dict(zip(curve.ks, curve.unseen.mean(1), strict=True)))
    shared = set(curves[0])
    for curve_of_phase in curves:
        shared &= set(curve_of_phase)
    common = sorted(shared - {0})
    if not common:
        return Enrolment((), (), 0)
    table = np.empty((len(curves), len(common)))
    for row, curve_of_phase in enumerate(curves):
        table[row] = [curve_of_phase[k] for k in common]
    means = table.mean(axis=0).tolist()
    enough = [k for k, mean in zip(common, means, strict=True) if mean >= means[-1] - NEAR_ENOUGH]
    return Enrolment(tuple(common), tuple(means), enough[0])


def outlook_of(run: Run, by: By, more_photos: float) -> Outlook:
    """By the test photos of the development part, searched in smaller galleries."""
    embeddings, neighbours = run.embeddings(ALL), run.neighbours[ALL]
    labels = neighbours.gallery_labels
    queries = drawn(np.arange(len(neighbours.query_labels)))
    query, query_labels = embeddings.query[queries], neighbours.query_labels[queries]
    typical = int(np.median(np.bincount(labels)))
    counts = sorted({count for count in COUNTS if APART * count <= typical} | {typical})
    precision = np.zeros(len(counts))
    for draw in range(DRAWS):
        places = places_in_class(labels, draw)
        for column, count in enumerate(counts):
            kept = places < count
            gallery, kept_labels = embeddings.gallery[kept], labels[kept]
            predicted = predict_classes(gallery, kept_labels, query, by)
            correct = (predicted == query_labels).astype(float)
            precision[column] += macro(correct, query_labels) / DRAWS
    gain = gain_of(counts, precision.tolist(), more_photos / len(np.unique(labels)))
    return Outlook(tuple(counts), tuple(precision.tolist()), gain)


def drawn(queries: np.ndarray) -> np.ndarray:
    """The positions of queries, of many a random part."""
    if len(queries) <= MOST_QUERIES:
        return queries
    return np.sort(np.random.default_rng(0).choice(queries, MOST_QUERIES, replace=False))


def predict_classes(
    gallery: np.ndarray, labels: np.ndarray, query: np.ndarray, by: By
) -> np.ndarray:
    """(query) class ids."""
    if by == "mean":
        return nearest_class_mean(gallery, query, labels)
    return search(gallery, query, labels, np.zeros(len(query), np.int64), 1).labels[:, 0]


def places_in_class(labels: np.ndarray, draw: int) -> np.ndarray:
    """(photos) the place of each photo in a random order of its class, from 0."""
    order = np.random.default_rng(draw).permutation(len(labels))
    places = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        rows = order[labels[order] == label]
        places[rows] = np.arange(len(rows))
    return places


def gain_of(counts: Sequence[int], precision: Sequence[float], more: float) -> float:
    """What `more` photos of each class would bring: P@1 goes on as between the last two counts,
    against the logarithm of the photos; nan where there is one count."""
    if len(counts) < 2:
        return float("nan")
    slope = (precision[-1] - precision[-2]) / np.log(counts[-1] / counts[-2])
    gain = slope * np.log((counts[-1] + more) / counts[-1])
    return float(np.clip(gain, 0, 1 - precision[-1]))
