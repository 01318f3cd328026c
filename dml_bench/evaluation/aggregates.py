"""Several seeds, and several data sets, in one number: probability of improvement, interquartile
mean, performance profile (Agarwal et al. 2021, NeurIPS), and mean rank (Demšar 2006, JMLR 7).

The bootstrap that is usual for them resamples the seeds of fixed tasks, as if other classes could
not give other numbers. The one here draws classes and seeds, the same for both methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dml_bench.evaluation.statistics import Average, Scores, classes_of, defined_of

__all__ = [
    "ClassMeans",
    "improvement_bounds",
    "interquartile_mean",
    "mean_ranks",
    "performance_profile",
    "probability_of_improvement",
]


def probability_of_improvement(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """How likely a run of the first scores above a run of the second, on a data set at random: the
    mean over data sets of the share of pairs of seeds in which it does; a tie counts half.

    `first` and `second` hold, for each data set in the same order, one score a seed.
    """
    shares = []
    for ours, theirs in zip(first, second, strict=True):
        above = ours[:, None] > theirs[None, :]
        equal = ours[:, None] == theirs[None, :]
        shares.append(float((above + 0.5 * equal).mean()))
    return float(np.mean(shares))


@dataclass(frozen=True, slots=True)
class ClassMeans:
    """What the seeds of a method score on the classes of a data set."""

    means: np.ndarray
    """(class, seed)"""
    counts: np.ndarray
    """(class, seed) how much a class counts in the mean: all the same, or by its queries."""
    subtracted: np.ndarray
    """(class) whether it belongs to the group whose mean is subtracted."""

    @classmethod
    def of(cls, seeds: Sequence[Scores], average: Average = "macro") -> "ClassMeans":
        """One array of scores for each seed, all of the same classes, or with those that some seed
        lacks taken for one. Undefined ones are left out. Raises ValueError where seeds have other
        classes."""
        defined = defined_of(seeds)
        classes = classes_of(defined)
        means = np.empty((len(classes), len(seeds)))
        counts = np.ones_like(means)
        for column, scores in enumerate(defined):
            places = np.searchsorted(classes, scores.labels)
            queries = np.bincount(places, minlength=len(classes))
            means[:, column] = np.bincount(places, scores.values, len(classes)) / queries
            if average == "micro":
                counts[:, column] = queries
        sides = np.zeros(len(classes), bool)
        sides[np.searchsorted(classes, defined[0].labels)] = defined[0].sides
        return cls(means, counts, sides)

    def scores(self, weights: np.ndarray) -> np.ndarray:
        """(draws, class) how often a class is drawn -> (draws, seed) the means."""
        total = np.zeros((len(weights), self.means.shape[1]))
        for group, sign in ((~self.subtracted, 1), (self.subtracted, -1)):
            if group.any():
                counts, drawn = self.counts[group], weights[:, group]
                total += sign * (drawn @ (counts * self.means[group])) / (drawn @ counts)
        return total


def improvement_bounds(
    first: Sequence[ClassMeans],
    second: Sequence[ClassMeans],
    *,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Between which bounds the probability of improvement lies with other classes and seeds of
    these data sets: a bootstrap that draws both anew, the same for both methods. For each data set
    both have the same classes and the same seeds, in the same order."""
    generator = np.random.default_rng(0)
    shares = np.zeros(draws)
    for ours, theirs in zip(first, second, strict=True):
        weights = drawn_weights(ours.subtracted, draws, generator)
        seeds = generator.integers(ours.means.shape[1], size=(draws, ours.means.shape[1]))
        mine = np.take_along_axis(ours.scores(weights), seeds, 1)[:, :, None]
        others = np.take_along_axis(theirs.scores(weights), seeds, 1)[:, None, :]
        shares += ((mine > others) + 0.5 * (mine == others)).mean((1, 2)) / len(first)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def drawn_weights(subtracted: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """(draws, class) how often each class was drawn, with replacement and within its group."""
    weights = np.zeros((draws, len(subtracted)))
    for group in (~subtracted, subtracted):
        if count := int(group.sum()):
            weights[:, group] = generator.multinomial(count, np.full(count, 1 / count), draws)
    return weights


def interquartile_mean(scores: Sequence[np.ndarray]) -> float:
    """The mean of the middle half of all runs on all data sets; one array of seeds a data set. As
    many are cut off at both ends: a quarter of the number, rounded down."""
    values = np.sort(np.concatenate(scores))
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean())


def performance_profile(scores: Sequence[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """(thresholds) the share of runs that score above a threshold; each data set counts alike."""
    shares = [(values[:, None] > thresholds[None, :]).mean(0) for values in scores]
    return np.mean(shares, axis=0)


def mean_ranks(scores: np.ndarray) -> np.ndarray:
    """(data sets, methods) -> (methods) the mean over data sets of the rank, 1 for the highest
    score; tied methods share the mean of their ranks."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-scores, axis=1).mean(0))
