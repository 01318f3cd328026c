"""How good maps are: whether they lie on the object, whether their pixels carry the score, and
whether they need the trained weights.

Maps of queries that are spread over the classes are scored for each phase, and for the same network
with random weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from dml_bench.evaluation.statistics import Scores
from dml_bench.explain.annotations import (
    Annotations,
    Box,
    box_in_view,
    box_mask,
    distinguishing_parts,
)
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.models import ImageTarget, Model, Target, random_model
from dml_bench.system.seeding import uniform

__all__ = [
    "SCORES",
    "MapScores",
    "areas_under_curves",
    "blurred",
    "energy",
    "pointing",
    "rank_correlation",
    "score_maps",
]

SCORES = {
    "pointing": (
        "share of the images whose map has its highest pixel in the object's box (Zhang et al."
        " 2018, without their tolerance)"
    ),
    "energy": "share of the map's positive sum that lies in the object's box (Wang et al. 2020)",
    "telling": (
        "of what lies in the object's box, the share in boxes of parts that tell the species from"
        " all others of its family"
    ),
    "empty": (
        "share of the maps that are nowhere positive: they show no evidence, and have none of the"
        " scores above"
    ),
    "insertion": (
        "mean score while pixels of a blurred image become sharp, the most important first; higher"
        " is better (Petsiuk et al. 2018)"
    ),
    "deletion": (
        "mean score while pixels become blurred, the most important first; lower is better (Petsiuk"
        " et al. 2018)"
    ),
    "sanity": (
        "rank correlation with the map of the same network with random weights; near 0 is better"
        " (Adebayo et al. 2018)"
    ),
}
"""What each score is, in the order of the table."""
STEPS = 8
"""In how many equal parts the pixels are changed, one after the other."""
CHANCE = "chance"
"""The name of a map of noise among the methods."""
Progress = Callable[[str, int, int], None]


def pointing(heat: np.ndarray, mask: np.ndarray) -> float:
    """Whether the highest pixel is inside; of several equally high ones, the share of them. nan for
    a map that is nowhere positive. Enlarging a map rounds pixels apart that are equally high.

    heat: (size, size); mask: (size, size) bool.
    """
    top = heat.max()
    return float(mask[heat >= top * (1 - 1e-5)].mean()) if top > 0 else np.nan


def energy(heat: np.ndarray, mask: np.ndarray, within: np.ndarray | None = None) -> float:
    """Share of the positive sum that lies inside `mask`: of the whole sum, or of the sum `within`
    another mask. nan where the sum is 0."""
    positive = heat.clip(min=0)
    if within is not None:
        positive, mask = positive * within, mask & within
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else np.nan


def blurred(pixels: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 without fine detail, by a Gaussian of a tenth of the side."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(len(pixels) / 10)))


def areas_under_curves(
    score: Callable[[Tensor], np.ndarray], pixels: np.ndarray, heat: np.ndarray
) -> tuple[float, float]:
    """Areas under the insertion and the deletion curve, by the trapezoid rule over the share of
    pixels that were changed, 0 .. 1.

    `score` makes (images) numbers of (images, size, size, 3) pixels. Pixels with equal values are
    changed from left to right and from top to bottom.
    """
    size = len(pixels)
    order = np.empty(size * size, np.int64)
    order[np.argsort(-heat.ravel(), kind="stable")] = np.arange(size * size)
    rank = order.reshape(size, size)
    soft = blurred(pixels)
    masks = [rank < round(step * size * size / STEPS) for step in range(STEPS + 1)]
    inserted = [np.where(mask[:, :, None], pixels, soft) for mask in masks]
    # The ends of the deletion curve are those of the insertion curve, and need no pass again.
    deleted = [np.where(mask[:, :, None], soft, pixels) for mask in masks[1:-1]]
    scores = score(torch.from_numpy(np.stack(inserted + deleted)))
    insertion, middle = scores[: STEPS + 1], scores[STEPS + 1 :]
    deletion = np.concatenate([insertion[-1:], middle, insertion[:1]])
    return area_of(insertion), area_of(deletion)


def area_of(curve: np.ndarray) -> float:
    """Of (STEPS + 1) scores over 0 .. 1, by trapezoids; NumPy 1 and 2 call it differently."""
    return float(((curve[1:] + curve[:-1]) / 2).sum() / STEPS)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation of two (size, size) maps; nan where one is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(heat) - (heat.size + 1) / 2 for heat in (one, other))
    norm = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / norm) if norm > 0 else np.nan


@dataclass(frozen=True)
class MapScores:
    """Scores of the maps of some queries."""

    labels: np.ndarray
    """(query) class ids."""
    unseen: np.ndarray
    """The ids of the classes that some phase held out."""
    values: dict[tuple[str, str, str], np.ndarray]
    """(query) values by score, method and model; nan where a score is not defined."""
    held_out: Mapping[str, np.ndarray] = field(default_factory=dict)
    """By phase that held classes out, their ids."""

    def of(
        self, score: str, method: str, model: str, classes: str, beside: str = ""
    ) -> Scores | None:
        """The values of the queries of `all`, `seen` or `unseen` classes; None where none is
        defined. Unseen are those that the model never trained on; of a model of all classes, or
        one with random weights, those that the model `beside` it, or else any, held out."""
        if (score, method, model) not in self.values:
            return None
        unseen = self.held_out.get(model, self.held_out.get(beside, self.unseen))
        held_out = np.isin(self.labels, unseen)
        rows = {"all": np.ones(len(self.labels), bool), "seen": ~held_out, "unseen": held_out}
        values = self.values[score, method, model][rows[classes]]
        if not np.isfinite(values).any():
            return None
        return Scores(values, self.labels[rows[classes]])


def score_maps(
    run_images: RunImages,
    models: Sequence[Model],
    names: Sequence[str],
    annotations: Annotations,
    target: Target,
    images: Sequence[ExplainedImage],
    progress: Progress,
) -> MapScores:
    """The scores of each method's maps by each model, and by a model with random weights whose maps
    explain the targets of the first one."""
    pixels = np.stack([run_images.pixels(image) for image in images])
    random = random_model(models[0])
    targets = {model.name: targets_of(model, images, pixels, target) for model in models}
    targets[random.name] = random.same_targets(targets[models[0].name], run_images)
    random_maps = random.maps(names, pixels, targets[random.name])
    noise = noise_maps(run_images.run.seed, images, pixels.shape[1])
    box_scores = BoxScores(run_images, annotations, images)
    values: dict[tuple[str, str, str], np.ndarray] = {}
    for done, model in enumerate((*models, random)):
        progress("scoring maps", done, len(models) + 1)
        own_targets = targets[model.name]
        maps = random_maps if model is random else model.maps(names, pixels, own_targets)
        for name, heats in {**maps, CHANCE: noise}.items():
            scores = box_scores.scores(heats)
            scores |= insertion_and_deletion(model, own_targets, pixels, heats)
            scores["empty"] = (heats.max(axis=(1, 2)) <= 0).astype(float)
            if model is not random and name != CHANCE:
                pairs = zip(heats, random_maps[name], strict=True)
                scores["sanity"] = np.array([rank_correlation(*pair) for pair in pairs])
            for score, numbers in scores.items():
                values[score, name, model.name] = numbers
    progress("scoring maps", len(models) + 1, len(models) + 1)
    order = list(SCORES)
    ordered = dict(sorted(values.items(), key=lambda item: order.index(item[0][0])))
    labels = np.array([image.label for image in images])
    return MapScores(labels, run_images.run.unseen, ordered, run_images.run.held_out)


def noise_maps(seed: int, images: Sequence[ExplainedImage], size: int) -> np.ndarray:
    """(images, size, size) uniform noise, drawn by image."""
    maps = [uniform(seed, "explain", image.index, rows=size, columns=size) for image in images]
    return np.stack(maps)


def targets_of(
    model: Model, images: Sequence[ExplainedImage], pixels: np.ndarray, target: Target
) -> list[ImageTarget]:
    """What the maps of each image explain in one model."""
    return [
        model.target_of(image, embedding, target)
        for image, embedding in zip(images, model.embed(pixels), strict=True)
    ]


def insertion_and_deletion(
    model: Model, targets: Sequence[ImageTarget], pixels: np.ndarray, heats: np.ndarray
) -> dict[str, np.ndarray]:
    """(images) insertion and deletion."""
    areas = []
    for image, heat, target in zip(pixels, heats, targets, strict=True):
        areas.append(areas_under_curves(partial(model.scores, target), image, heat))
    insertion, deletion = np.array(areas).T
    return {"insertion": insertion, "deletion": deletion}


class BoxScores:
    """Scores against the boxes of the data set, as the network sees them."""

    def __init__(
        self, run_images: RunImages, annotations: Annotations, images: Sequence[ExplainedImage]
    ):
        distinguishing = distinguishing_parts(run_images.run.experiment.data.dataset)
        self.objects: list[np.ndarray | None] = []
        """(size, size) bool masks of the objects; None where no box is known."""
        self.parts: list[np.ndarray | None] = []
        """(size, size) bool masks of the parts that tell the class from its family."""
        for image in images:
            objects = []
            if image.path in annotations.objects:
                objects.append(annotations.objects[image.path])
            parts = []
            for part, box in annotations.parts.get(image.path, {}).items():
                if part in distinguishing.get(image.label, ()):
                    parts.append(box)
            self.objects.append(mask_in_view(objects, run_images, image))
            self.parts.append(mask_in_view(parts, run_images, image))

    def scores(self, heats: np.ndarray) -> dict[str, np.ndarray]:
        """(images) by name of the score; nan where there is no box to score against."""
        scores = {name: np.full(len(heats), np.nan) for name in ("pointing", "energy", "telling")}
        for row, (heat, mask, parts) in enumerate(
            zip(heats, self.objects, self.parts, strict=True)
        ):
            if mask is None:
                continue
            scores["pointing"][row] = pointing(heat, mask)
            scores["energy"][row] = energy(heat, mask)
            if parts is not None:
                scores["telling"][row] = energy(heat, parts, mask)
        return scores


def mask_in_view(
    boxes: Sequence[Box], run_images: RunImages, image: ExplainedImage
) -> np.ndarray | None:
    """(size, size) bool of an image as the network sees it; None where there is no box."""
    if not boxes:
        return None
    view = run_images.view
    return box_mask([box_in_view(box, view, image.file) for box in boxes], view.size)
