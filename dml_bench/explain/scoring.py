"""How good a map is: whether it lies on the bird, whether its pixels carry the answer, and whether
it needs the trained weights."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

__all__ = ["SCORES", "blurred", "curves", "energy", "pointing", "rank_correlation"]

SCORES = {
    "pointing": (
        "part of the images in which the map's highest pixel lies in the object's box (Zhang et al."
        " 2018, without their tolerance)"
    ),
    "energy": "share of the map's positive sum that lies in the object's box (Wang et al. 2020)",
    "telling": (
        "of what lies in the object's box, the share in boxes of parts that tell the species from"
        " all others of its family"
    ),
    "empty": (
        "part of the maps that are nowhere positive: they say where nothing speaks for the answer,"
        " and have none of the scores above"
    ),
    "insertion": (
        "mean answer while pixels of a blurred image become sharp, most important first; higher is"
        " better (Petsiuk et al. 2018)"
    ),
    "deletion": (
        "mean answer while pixels become blurred, most important first; lower is better (Petsiuk et"
        " al. 2018)"
    ),
    "sanity": (
        "rank correlation with the map of the same network with random weights; near 0 is better"
        " (Adebayo et al. 2018)"
    ),
}
"""What each score is, in the order of the table."""
STEPS = 8
"""Equal parts of the pixels that are changed one after the other."""


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """Whether the highest pixel is inside; of several equally high ones, the share of them. nan for
    a map that is nowhere positive.

    heat: (size, size); mask: (size, size) bool.
    """
    top = heat.max()
    return float(mask[heat == top].mean()) if top > 0 else np.nan


def energy(heat: np.ndarray, mask: np.ndarray, within: np.ndarray | None = None) -> float:
    """Share of the positive sum inside `mask`, of all or of that `within` another mask; nan where
    that is nothing."""
    positive = heat.clip(min=0)
    if within is not None:
        positive, mask = positive * within, mask & within
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else np.nan


def blurred(pixels: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 without what tells species apart: a Gaussian of a tenth of the side."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 10)))


def curves(
    answer: Callable[[Tensor], np.ndarray], pixels: np.ndarray, heat: np.ndarray
) -> tuple[float, float]:
    """Areas under the insertion and the deletion curve, by the trapezoid rule over the part of
    pixels that were changed, 0 .. 1.

    `answer` makes (images) numbers of (images, size, size, 3) pixels. Equally hot pixels go from
    left to right, top to bottom.
    """
    size = len(pixels)
    order = np.empty(size * size, np.int64)
    order[np.argsort(-heat.ravel(), kind="stable")] = np.arange(size * size)
    rank = order.reshape(size, size)
    soft = blurred(pixels)
    chosen = [rank < round(step * size * size / STEPS) for step in range(STEPS + 1)]
    inserted = [np.where(mask[:, :, None], pixels, soft) for mask in chosen]
    deleted = [np.where(mask[:, :, None], soft, pixels) for mask in chosen[1:-1]]
    answers = answer(torch.from_numpy(np.stack([*inserted, *deleted])))
    insertion, middle = answers[: STEPS + 1], answers[STEPS + 1 :]
    deletion = np.concatenate([insertion[-1:], middle, insertion[:1]])
    return float(np.trapezoid(insertion) / STEPS), float(np.trapezoid(deletion) / STEPS)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of two (size, size) maps; nan where one is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(heat) - (heat.size + 1) / 2 for heat in (one, other))
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else np.nan
