"""Calibration: how far a stated confidence is from the accuracy that comes with it."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Calibration", "calibration_of"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far a stated confidence is from the accuracy that comes with it, by bins of
    confidence."""

    ece: float
    """Expected calibration error: mean over queries of |accuracy - confidence| of their bin (Guo et
    al. 2017); nan without queries."""
    confidence: np.ndarray
    """(bins) mean; nan in an empty bin."""
    accuracy: np.ndarray
    """(bins) mean; nan in an empty bin."""
    count: np.ndarray
    """(bins) queries."""


def calibration_of(share: np.ndarray, correct: np.ndarray, bins: int = 10) -> Calibration:
    """Of (query) the elected class's share of the votes, 0 to 1, as its confidence, and (query)
    whether it is right.

    Bins have equal width and hold their upper edge, the first one also 0 (Guo et al. 2017, "On
    calibration of modern neural networks"). Raises ValueError without bins.
    """
    if bins < 1:
        raise ValueError(f"a calibration must have at least one bin, got {bins}")
    share, correct = np.asarray(share, float), np.asarray(correct, float)
    bin_of = np.searchsorted(np.arange(1, bins) / bins, share, side="left")
    count = np.bincount(bin_of, minlength=bins)

    def mean_of_bins(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(bin_of, weights=values, minlength=bins)
        return np.where(count > 0, sums / np.maximum(count, 1), np.nan)

    confidence, accuracy = mean_of_bins(share), mean_of_bins(correct)
    gap = np.nansum(np.abs(accuracy - confidence) * count)
    ece = float(gap / len(share)) if len(share) else np.nan
    return Calibration(ece, confidence, accuracy, count)
