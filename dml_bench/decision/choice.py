"""Which row and which way to answer: chosen by the test photos of the development part alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dml_bench.evaluation.class_means import nearest_class_mean
from dml_bench.evaluation.metrics import precision_at_1
from dml_bench.evaluation.statistics import (
    DIFFERENCE,
    PROPORTION,
    Interval,
    Scores,
    by_class,
    interval,
)
from dml_bench.protocols.holdout_metrics import ALL, logits_scores
from dml_bench.protocols.metric import scores_of_phase
from dml_bench.runs.run import Run

__all__ = ["By", "Candidate", "Row", "Selection", "candidates_of", "choose", "expected", "lead"]

Way = Literal["nearest photo", "class means", "classifier"]
By = Literal["photo", "mean"]
Row = tuple[Run, ...]
"""The runs of its seeds, or a single one where all would be the same."""
NOTHING = 1e-18
"""A sum of squares that is rounding."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row and a way to answer with it."""

    label: str
    way: Way
    scores: tuple[Scores, ...]
    """By seed, of the test photos of the development part: whether each is answered right."""
    by: By
    """How the gallery answers, for `dml-bench predict`; of a classifier, how the gallery of the
    same network answers best, which is for new classes."""
    photos: tuple[str, ...] = ()
    """By seed, a digest of these test photos: seeds that draw the split have others."""

    @property
    def name(self) -> str:
        """Of both."""
        return f"{self.label}: {self.way}"

    @property
    def sorts(self) -> tuple[str, str, str]:
        """Its backbone, its training and its way to answer."""
        backbone, _, training = self.label.partition(", ")
        return backbone, training, self.way

    @property
    def is_gallery(self) -> bool:
        """Whether a new class needs photos and no training."""
        return self.way != "classifier"

    @property
    def precision(self) -> Interval:
        """P@1, the mean over classes and seeds."""
        return interval(self.scores, within=PROPORTION)

    def on(self, photos: Sequence[str]) -> tuple[Scores, ...]:
        """The scores of the seeds that were tested on such photos."""
        pairs = zip(self.scores, self.photos, strict=True)
        return tuple(scores for scores, own in pairs if own in photos)


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen before the final part was opened."""

    candidates: tuple[Candidate, ...]
    chosen: Candidate
    classifier: Candidate | None
    """The best one, perhaps not the chosen one."""
    ahead: Interval | None
    """P@1 of the best classifier minus that of the best gallery."""

    @property
    def expected(self) -> dict[str, float]:
        """By name, the P@1 by which galleries and classifiers were chosen; a sum of three effects
        may leave its range, to which it is cut here."""
        values: dict[str, float] = {}
        for kind in (True, False):
            alike = [one for one in self.candidates if one.is_gallery == kind]
            for one, value in zip(alike, expected(alike), strict=True):
                values[one.name] = float(np.clip(value, *PROPORTION))
        return values

    def as_table(self) -> dict[str, Any]:
        """For JSON."""
        expected = self.expected
        rows = {}
        for candidate in self.candidates:
            value = candidate.precision.as_table()
            rows[candidate.name] = {**value, "expected": expected[candidate.name]}
        return {
            "row": self.chosen.label,
            "way": self.chosen.way,
            "rows": rows,
            "classifier_ahead": None if self.ahead is None else self.ahead.as_table(),
        }


def candidates_of(rows: Mapping[str, Row]) -> Iterator[Candidate]:
    """Each row's ways to answer, in the order of the rows. A linear probe has the features, and so
    the gallery, of the row without training."""
    for label, runs in rows.items():
        optimizer = runs[0].experiment.optimizer.name
        nearest = tuple(scores_of_phase(precision_at_1, ALL, run) for run in runs)
        means = tuple(scores_by_means(run) for run in runs)
        photos = tuple(run.queries_digest for run in runs)
        of_gallery = (
            Candidate(label, "nearest photo", nearest, "photo", photos),
            Candidate(label, "class means", means, "mean", photos),
        )
        if optimizer != "linear_probe":
            yield from of_gallery
        # The logits of class means are these means again.
        if optimizer != "class_means" and runs[0].logits(ALL).path.is_file():
            better = max(of_gallery, key=lambda candidate: candidate.precision.estimate)
            scores = tuple(logits_scores(run) for run in runs)
            yield Candidate(label, "classifier", scores, better.by, photos)


def scores_by_means(run: Run) -> Scores:
    """Per query: whether the nearest class mean is that of its class."""
    embeddings, neighbours = run.embeddings(ALL), run.neighbours[ALL]
    predicted = nearest_class_mean(embeddings.gallery, embeddings.query, neighbours.gallery_labels)
    labels = neighbours.query_labels
    return Scores((predicted == labels).astype(float), labels)


def on_same_photos(
    first: Candidate, second: Candidate
) -> tuple[tuple[Scores, ...], tuple[Scores, ...]]:
    """The scores of both by seed. Where one has a single seed, as all would be the same or as the
    time was short, those of the other that were tested on its photos."""
    if len(first.scores) == 1:
        return first.scores, second.on(first.photos)
    if len(second.scores) == 1:
        return first.on(second.photos), second.scores
    return first.scores, second.scores


def lead(first: tuple[Scores, ...], second: tuple[Scores, ...]) -> Interval:
    """P@1 of the first minus that of the second, seed by seed, of the seeds that both have. What
    has a single seed, because all would be the same, stands beside each of the other's."""
    first = first * len(second) if len(first) == 1 else first
    second = second * len(first) if len(second) == 1 else second
    pairs = zip(first, second, strict=False)
    return interval([one.minus(other) for one, other in pairs], within=DIFFERENCE)


def expected(candidates: Sequence[Candidate]) -> list[float]:
    """P@1 that each would have on other photos, as far as these can tell.

    The best of many owes a part of its lead to chance. So each is drawn towards what its backbone,
    its training and its way to answer reach on average, a sum of the three, by as much as chance
    explains of the candidates' distances from that: empirical Bayes (Efron and Morris 1975, Journal
    of the American Statistical Association 70:311). Chance is how much classes differ in it.
    """
    if not candidates:
        return []
    means = np.stack([means_of_classes(candidate.scores) for candidate in candidates])
    columns = []
    for values in zip(*(candidate.sorts for candidate in candidates), strict=True):
        columns += [np.array(values) == value for value in dict.fromkeys(values)]
    model = np.stack(columns, axis=1).astype(float)
    typical = model @ np.linalg.pinv(model) @ means
    apart = means - typical
    distance = (apart.mean(axis=1) ** 2).sum()
    chance = apart.var(axis=1, ddof=1).sum() / means.shape[1]
    kept = max(0.0, 1 - chance / distance) if distance > NOTHING else 1.0
    return [round(float(value), 9) for value in (typical + kept * apart).mean(axis=1)]


def means_of_classes(scores: Sequence[Scores]) -> np.ndarray:
    """(classes) the means over seeds."""
    return np.mean([cells.means for cells in by_class(scores)], axis=0)


def choose(rows: Mapping[str, Row]) -> Selection:
    """The gallery that is expected to answer best; a classifier only where its lead can't be
    chance, as a new class would cost it a training. Of equal ones the first."""
    candidates = tuple(candidates_of(rows))
    best = best_of([candidate for candidate in candidates if candidate.is_gallery])
    rival = best_of([candidate for candidate in candidates if not candidate.is_gallery])
    assert best is not None  # each row but a linear probe is one, and no training comes first
    if rival is None:
        return Selection(candidates, best, None, None)
    ahead = lead(*on_same_photos(rival, best))
    return Selection(candidates, rival if ahead.low > 0 else best, rival, ahead)


def best_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """The one of which most is expected."""
    values = expected(candidates)
    return candidates[int(np.argmax(values))] if values else None
