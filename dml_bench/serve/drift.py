"""Whether the photos that a server answers still resemble those on which its threshold was chosen.

A promise is about new photos of the same kind and mix. Labels of new photos are not known, but
their similarities are. If these are spread otherwise than those of the calibration images, the
photos are of another kind, and the promise says nothing about them. Equal similarities don't prove
the opposite.

Photos are tested in windows of 200 by the statistic of Kolmogorov and Smirnov. Window k has the
level .05 / (k (k + 1)), and these sum up to .05: looking at every window, as often as one likes,
raises a false alarm in at most 5% of the galleries. Windows count from the first answer that was
ever logged, whether its line is still there or not. The test takes photos to be independent: many
photos of one thing in a row count as another kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.thresholds import PrecisionCurve
from dml_bench.serve.answer_log import LoggedAnswer

__all__ = ["Drift", "Window", "find_drift"]

SIZE = 200
"""Photos of a window."""
LEVEL = 0.05
"""The probability of a false alarm, over all windows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Photos in a row."""

    first: str
    """When the first was answered; `last` likewise."""
    last: str
    unknown_share: float
    """The share of them that was unknown."""
    similarity: float
    """Their median similarity."""
    gap: float
    """The largest difference between their shares above a similarity and those of the calibration
    images."""
    p_value: float
    level: float
    """The p-value below which they differ from the calibration images."""

    @property
    def differs(self) -> bool:
        """Whether the photos are of another kind than the calibration images."""
        return self.p_value < self.level


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The windows of a log, held against the calibration images."""

    photos: int
    """The photos of the log."""
    windows: tuple[Window, ...]
    """Whole windows whose lines are there, in their order."""
    expected_unknown: float
    """The share of the calibration images, in the mix, that the threshold makes unknown."""
    expected_similarity: float
    """Their median similarity."""

    @property
    def drifted(self) -> bool:
        """Whether the last window differs."""
        return bool(self.windows) and self.windows[-1].differs


def find_drift(
    answers: Sequence[LoggedAnswer],
    curve: PrecisionCurve,
    threshold: float,
    independent: float,
    gone: int = 0,
) -> Drift:
    """Hold answers, in their order, against the similarities of calibration images: their curve in
    the mix of the promise. `independent` is how many independent images they are worth, `gone` how
    many answers there were before these."""
    similarity = np.array([answer.similarity for answer in answers], float)
    windows = []
    for number in range(-(-gone // SIZE), (gone + len(answers)) // SIZE):
        chosen = slice(number * SIZE - gone, (number + 1) * SIZE - gone)
        part = answers[chosen]
        gap = largest_gap(similarity[chosen], curve)
        windows.append(
            Window(
                first=part[0].time,
                last=part[-1].time,
                unknown_share=float(np.mean([not answer.known for answer in part])),
                similarity=float(np.median(similarity[chosen])),
                gap=gap,
                p_value=p_value_of(gap, SIZE, independent),
                level=LEVEL / ((number + 1) * (number + 2)),
            )
        )
    half = int(np.searchsorted(curve.coverage, 0.5))
    return Drift(
        photos=len(answers),
        windows=tuple(windows),
        expected_unknown=1 - curve.at(threshold)[1],
        expected_similarity=float(curve.similarity[min(half, len(curve.similarity) - 1)]),
    )


def largest_gap(similarity: np.ndarray, curve: PrecisionCurve) -> float:
    """The statistic of Kolmogorov and Smirnov: the largest difference of the shares that are at
    least as similar, over all similarities of either sample."""
    rising = np.sort(similarity)
    places = np.union1d(rising, curve.similarity)
    share = 1 - np.searchsorted(rising, places, side="left") / len(rising)
    # The curve falls: as many of its thresholds are at least as high as a place.
    above = np.searchsorted(-curve.similarity, -places, side="right")
    expected = np.concatenate([[0.0], curve.coverage])[above]
    return float(np.abs(share - expected).max())


def p_value_of(gap: float, photos: float, images: float) -> float:
    """Of a gap between two samples of these sizes (Smirnov's limit, which is exact enough from some
    dozens on and else on the safe side)."""
    from scipy.special import kolmogorov

    return float(kolmogorov(gap * np.sqrt(photos * images / (photos + images))))
