"""Maps of queries that are spread over the classes, scored for each phase and for the same network
with random weights."""

from collections.abc import Callable, Sequence

import numpy as np

from dml_bench.explain.annotations import Annotations, inside, seen, telling_parts
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.models import ImageTarget, Model, Target, random_model
from dml_bench.explain.scoring import SCORES, curves, energy, pointing, rank_correlation
from dml_bench.explain.tables import MapScores
from dml_bench.system.seeding import uniform

__all__ = ["score"]

CHANCE = "chance"
"""Stands among the methods for a map of noise."""

Progress = Callable[[str, int, int], None]


def score(
    material: RunImages,
    models: Sequence[Model],
    names: Sequence[str],
    truth: Annotations,
    target: Target,
    subjects: Sequence[ExplainedImage],
    progress: Progress,
) -> MapScores:
    """The scores of each method's maps by each model, and by one with random weights, which is
    asked as the first one is."""
    pixels = np.stack([material.pixels(subject) for subject in subjects])
    random = random_model(models[0])
    asked = {model.name: asked_of(model, subjects, pixels, target) for model in models}
    asked[random.name] = random.asked_alike(asked[models[0].name], material)
    untrained = random.maps(names, pixels, asked[random.name])
    noise = np.stack(
        [
            uniform(
                material.run.seed,
                "explain",
                each.image,
                rows=pixels.shape[1],
                columns=pixels.shape[2],
            )
            for each in subjects
        ]
    )
    bird = OnTheBird(material, truth, subjects)
    values: dict[tuple[str, str, str], np.ndarray] = {}
    for done, model in enumerate((*models, random)):
        progress("scoring maps", done, len(models) + 1)
        maps = untrained if model is random else model.maps(names, pixels, asked[model.name])
        for name, heats in {**maps, CHANCE: noise}.items():
            found = bird.scores(heats) | change_curves(model, asked[model.name], pixels, heats)
            found["empty"] = (heats.max(axis=(1, 2)) <= 0).astype(float)
            if model is not random and name != CHANCE:
                found["sanity"] = np.array(
                    [rank_correlation(*pair) for pair in zip(heats, untrained[name], strict=True)]
                )
            values |= {(key, name, model.name): value for key, value in found.items()}
    progress("scoring maps", len(models) + 1, len(models) + 1)
    order = list(SCORES)
    ordered = dict(sorted(values.items(), key=lambda item: order.index(item[0][0])))
    return MapScores(
        np.array([subject.label for subject in subjects]), material.run.unseen, ordered
    )


def asked_of(
    model: Model, subjects: Sequence[ExplainedImage], pixels: np.ndarray, target: Target
) -> list[ImageTarget]:
    return [
        model.asked(subject, embedding, target)
        for subject, embedding in zip(subjects, model.embed(pixels), strict=True)
    ]


def change_curves(
    model: Model, asked: Sequence[ImageTarget], pixels: np.ndarray, heats: np.ndarray
) -> dict[str, np.ndarray]:
    """(images) insertion and deletion."""
    found = []
    for image, heat, each in zip(pixels, heats, asked, strict=True):
        found.append(curves(lambda variants, each=each: model.answers(each, variants), image, heat))  # type: ignore[misc]
    return dict(zip(("insertion", "deletion"), np.array(found).T, strict=True))


class OnTheBird:
    """Scores against the boxes of the data set, as the network sees them."""

    def __init__(self, material: RunImages, truth: Annotations, subjects: Sequence[ExplainedImage]):
        size = material.view.size
        told = telling_parts(material.run.experiment.data.dataset)
        self.objects: list[np.ndarray | None] = []
        self.parts: list[np.ndarray | None] = []
        for subject in subjects:
            there = subject.path in truth.objects
            self.objects.append(
                inside([seen(truth.objects[subject.path], material.view, subject.file)], size)
                if there
                else None
            )
            parts = truth.parts.get(subject.path, {})
            boxes = [
                seen(box, material.view, subject.file)
                for part, box in parts.items()
                if part in told.get(subject.label, ())
            ]
            self.parts.append(inside(boxes, size) if boxes else None)

    def scores(self, heats: np.ndarray) -> dict[str, np.ndarray]:
        """(images) by name of the score; nan where there is no box to score against."""
        rows = [
            (
                (np.nan,) * 3
                if whole is None
                else (
                    pointing(heat, whole),
                    energy(heat, whole),
                    np.nan if parts is None else energy(heat, parts, whole),
                )
            )
            for heat, whole, parts in zip(heats, self.objects, self.parts, strict=True)
        ]
        return dict(zip(("pointing", "energy", "telling"), np.array(rows, float).T, strict=True))
