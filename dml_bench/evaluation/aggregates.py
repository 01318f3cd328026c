"""Several seeds, and several data sets, in one number: probability of improvement, interquartile
mean, performance profile (Agarwal et al. 2021, NeurIPS), and mean rank (Demšar 2006, JMLR 7).

Only estimates. The bootstrap that is usual for them resamples the seeds of fixed tasks, as if other
classes and queries could not give other numbers.
"""

from collections.abc import Sequence

import numpy as np

__all__ = [
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
