"""The networks that are asked: one for each phase of a run, and one with random weights to compare
with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dml_bench.explain.hooks import HookedEmbedder
from dml_bench.explain.images import ExplainedImage, RunImages
from dml_bench.explain.methods import methods
from dml_bench.explain.targets import ScoreDirection, closest_rows, toward_class
from dml_bench.gallery.embedder import precision_of, trained_embedder, without_first_weights
from dml_bench.models.embedder import build_embedder
from dml_bench.runs.run import Run
from dml_bench.system.devices import choose_device
from dml_bench.training.training_state import unit

__all__ = ["ImageTarget", "Model", "Target", "check_target", "model_of_phase", "random_model"]

Target = Literal["class", "predicted", "nearest", "logit"]
"""`class`: the image's own class; `predicted`: that of its closest gallery image; `nearest`: that
image alone; `logit`: the softmax classifier's score of the image's own class."""

AT_ONCE = 16
"""Images that go through a network together."""


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """An image as one network is asked about it."""

    direction: Tensor
    """(dim)"""
    nearest: int
    """Row of the gallery that is closest to the image; -1 where it was not looked up."""
    similarity: float
    toward: np.ndarray
    """Rows of the gallery that the direction points to,"""
    away: np.ndarray
    """and away from."""
    unit: bool = True
    """See `Question`."""


class Model:
    """A network with the gallery that it made."""

    def __init__(
        self,
        name: str,
        lens: HookedEmbedder,
        run: Run,
        gallery_images: np.ndarray,
        gallery: np.ndarray,
        labels: np.ndarray,
        query_images: np.ndarray,
    ):
        self.name = name
        self.lens = lens
        self.run = run
        self.gallery_images = gallery_images
        self.gallery = gallery
        """(gallery, dim) unit vectors."""
        self.labels = labels
        """(gallery) class ids."""
        self.asked_before = {int(image): row for row, image in enumerate(query_images)}
        """By image, the row of the run's own search that answered it."""
        self.precision = precision_of(run)

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(images, size, size, 3) uint8 -> (images, dim) unit vectors, in the precision in which
        the run answered."""
        with torch.autocast(
            self.lens.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        ):
            return unit(self.lens.outputs(torch.from_numpy(pixels)))

    def nearest(self, subject: ExplainedImage, embedding: np.ndarray) -> tuple[int, float]:
        """Row of the gallery image that is closest to a subject, and its similarity: what the run
        answered, if it was asked."""
        if (row := self.asked_before.get(subject.image)) is not None:
            found = self.run.neighbours[self.name]
            return int(found.indices[row, 0]), float(found.similarities[row, 0])
        there = self.gallery_images != subject.image
        closest = int(closest_rows(embedding, self.gallery, there, 1)[0])
        return closest, float(self.gallery[closest] @ embedding)

    def asked(
        self,
        subject: ExplainedImage,
        embedding: np.ndarray,
        target: Target,
        other: np.ndarray | None = None,
    ) -> ImageTarget:
        """What a subject is asked. `other` is the embedding of a chosen image, which then is the
        target; a subject without a class is asked about the one that is predicted. Raises
        ValueError where the gallery has no other image of its class."""
        there = self.gallery_images != subject.image
        nearest, similarity = self.nearest(subject, embedding)
        none = np.empty(0, np.int64)
        plain = ImageTarget(
            torch.from_numpy(self.gallery[nearest]), nearest, similarity, np.array([nearest]), none
        )
        if other is not None:
            return replace(plain, direction=torch.from_numpy(other), toward=none)
        if target == "nearest":
            return plain
        label = (
            int(self.labels[nearest])
            if target == "predicted" or subject.label < 0
            else subject.label
        )
        if target == "logit":
            return replace(plain, direction=self.class_weight(label), toward=none, unit=False)
        toward = closest_rows(embedding, self.gallery, there & (self.labels == label))
        away = closest_rows(embedding, self.gallery, there & (self.labels != label))
        if not len(toward):
            raise ValueError(
                f"the gallery has no other image of the class of {subject.file}: --target nearest"
                " asks about the closest one"
            )
        return replace(
            plain,
            direction=toward_class(self.gallery[toward], self.gallery[away]),
            toward=toward,
            away=away,
        )

    def class_weight(self, label: int) -> Tensor:
        """(dim) the softmax classifier's weights of a class; zeros for one that it was not trained
        on."""
        weights = self.run.objective_weights(self.name)["loss.classifier.weight"].float()
        held_out = self.run.held_out.get(self.name, np.empty(0, np.int64))
        trained = np.setdiff1d(np.arange(len(weights) + len(held_out)), held_out)
        return (
            weights[np.searchsorted(trained, label)]
            if label in trained
            else torch.zeros(weights.shape[1])
        )

    def maps(
        self, names: Sequence[str], pixels: np.ndarray, asked: Sequence[ImageTarget]
    ) -> dict[str, np.ndarray]:
        """(images, size, size) maps by method, of (images, size, size, 3) uint8."""
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for first in range(0, len(pixels), AT_ONCE):
            batch = torch.from_numpy(pixels[first : first + AT_ONCE])
            question = self.question(asked[first : first + AT_ONCE])
            for name in names:
                parts[name].append(
                    methods[name].build(self.lens, batch, question).float().cpu().numpy()
                )
        return {name: np.concatenate(each) for name, each in parts.items()}

    def answers(self, asked: ImageTarget, pixels: Tensor) -> np.ndarray:
        """(images, size, size, 3) variants of one image -> (images) the numbers that its maps
        explain."""
        return (
            self.question([asked])
            .score(self.lens.outputs(pixels).to(self.lens.device))
            .cpu()
            .numpy()
        )

    def question(self, asked: Sequence[ImageTarget]) -> ScoreDirection:
        return ScoreDirection(
            torch.stack([each.direction for each in asked]).to(self.lens.device), unit=asked[0].unit
        )

    def asked_alike(self, asked: Sequence[ImageTarget], material: RunImages) -> list[ImageTarget]:
        """Another model's questions, put to this one, which may have no gallery: it embeds the
        images that they name itself. The direction of a classifier's weights stays."""
        rows = np.unique(
            np.concatenate([np.concatenate([each.toward, each.away]) for each in asked])
        )
        if not len(rows):
            return list(asked)
        pixels = np.stack(
            [material.pixels(material.subject(int(self.gallery_images[row]))) for row in rows]
        )
        made = dict(zip(rows.tolist(), self.embed(pixels), strict=True))
        alike = []
        for each in asked:
            toward, away = (
                np.stack([made[row] for row in part]) if len(part) else None
                for part in (each.toward.tolist(), each.away.tolist())
            )
            assert toward is not None
            direction = torch.from_numpy(toward[0]) if away is None else toward_class(toward, away)
            alike.append(replace(each, direction=direction, nearest=-1, similarity=np.nan))
        return alike


def model_of_phase(material: RunImages, phase: str, device: str, layer: str) -> Model:
    run = material.run
    embedder = trained_embedder(run, phase).to(choose_device(device))
    embeddings = run.embeddings(phase)
    images = embeddings.gallery_images
    lens = HookedEmbedder(
        embedder, run.experiment.model.backbone.name, run.experiment.images.size, layer
    )
    return Model(
        phase,
        lens,
        run,
        images,
        embeddings.gallery,
        material.labels[images],
        embeddings.query_images,
    )


def random_model(like: Model) -> Model:
    """The network of another model before any training, by the run's seed, which sees pixels as
    that one does. It has no gallery."""
    experiment = like.run.experiment
    embedder = build_embedder(without_first_weights(experiment))
    embedder.mean.copy_(like.lens.embedder.mean)
    embedder.std.copy_(like.lens.embedder.std)
    lens = HookedEmbedder(
        embedder.to(like.lens.device),
        experiment.model.backbone.name,
        experiment.images.size,
        like.lens.layer,
    )
    return Model(
        "random",
        lens,
        like.run,
        like.gallery_images,
        np.empty((0, embedder.dim), np.float32),
        like.labels,
        np.empty(0, np.int64),
    )


def check_target(run: Run, target: Target) -> None:
    """Raises ValueError for a target that the run's loss does not have."""
    loss = run.experiment.loss.name
    if target == "logit" and loss != "crossentropy":
        raise ValueError(
            "--target logit needs the softmax classifier of loss crossentropy, and this run has"
            f" {loss}: leave --target out"
        )
