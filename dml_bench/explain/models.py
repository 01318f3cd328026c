"""The networks that are explained: one for each phase of a run, and one with random weights to
compare with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

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
from dml_bench.system.seeding import callers_draws_kept
from dml_bench.training.training_state import unit

__all__ = ["ImageTarget", "Model", "Target", "check_target", "model_of_phase", "random_model"]

Target = Literal["class", "predicted", "nearest", "logit"]
"""`class`: the image's own class; `predicted`: that of its closest gallery image; `nearest`: that
image alone; `logit`: the softmax classifier's score of the image's own class."""

BATCH_SIZE = 16
"""How many images go through a network together."""


@dataclass(frozen=True, slots=True)
class ImageTarget:
    """What the maps of one image explain in one network."""

    direction: Tensor
    """(dim) the direction of the embedding space along which the image is scored."""
    nearest: int
    """The row of the gallery that is closest to the image; -1 where it was not searched."""
    similarity: float
    """The similarity of that row, -1 to 1."""
    toward: np.ndarray
    """(rows) the rows of the gallery that the direction points to."""
    away: np.ndarray
    """(rows) the rows of the gallery that the direction points away from."""
    unit: bool = True
    """Whether embeddings are brought to unit length first, see `ScoreDirection`."""


class Model:
    """A network with the gallery that it made."""

    def __init__(
        self,
        name: str,
        network: HookedEmbedder,
        run: Run,
        gallery_images: np.ndarray,
        gallery: np.ndarray,
        labels: np.ndarray,
        query_images: np.ndarray,
    ):
        self.name = name
        self.network = network
        self.run = run
        self.gallery_images = gallery_images
        self.gallery = gallery
        """(gallery, dim) unit vectors."""
        self.labels = labels
        """(gallery) class ids."""
        self.query_rows = {int(image): row for row, image in enumerate(query_images)}
        """By index of an image, its row in the run's own search."""

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """(images, size, size, 3) uint8 -> (images, dim) unit vectors, in the precision in which
        the run embedded its images."""
        return unit(self.network.outputs(torch.from_numpy(pixels)))

    def nearest(self, image: ExplainedImage, embedding: np.ndarray) -> tuple[int, float]:
        """The row of the gallery image that is closest to an image, and its similarity: of a query,
        what the run found."""
        row = self.query_rows.get(image.index)
        if row is not None:
            neighbours = self.run.neighbours[self.name]
            return int(neighbours.indices[row, 0]), float(neighbours.similarities[row, 0])
        other_images = self.gallery_images != image.index
        closest = int(closest_rows(embedding, self.gallery, other_images, 1)[0])
        return closest, float(self.gallery[closest] @ embedding)

    def target_of(
        self,
        image: ExplainedImage,
        embedding: np.ndarray,
        target: Target,
        other: np.ndarray | None = None,
    ) -> ImageTarget:
        """What the maps of an image explain. `other` is the embedding of a chosen image, which then
        is the target. An image without a class takes the class that is predicted. Raises ValueError
        where the gallery has no other image of its class."""
        nearest, similarity = self.nearest(image, embedding)
        none = np.empty(0, np.int64)
        to_nearest = ImageTarget(
            torch.from_numpy(self.gallery[nearest]), nearest, similarity, np.array([nearest]), none
        )
        if other is not None:
            return replace(to_nearest, direction=torch.from_numpy(other), toward=none)
        if target == "nearest":
            return to_nearest
        label = image.label
        if target == "predicted" or image.label < 0:
            label = int(self.labels[nearest])
        if target == "logit":
            direction = self.class_weight(label)
            return replace(to_nearest, direction=direction, toward=none, unit=False)
        other_images = self.gallery_images != image.index
        toward = closest_rows(embedding, self.gallery, other_images & (self.labels == label))
        away = closest_rows(embedding, self.gallery, other_images & (self.labels != label))
        if not len(toward):
            raise ValueError(
                f"the gallery has no other image of the class of {image.file}: --target nearest"
                " explains the similarity to the closest one"
            )
        direction = toward_class(self.gallery[toward], self.gallery[away])
        return replace(to_nearest, direction=direction, toward=toward, away=away)

    def class_weight(self, label: int) -> Tensor:
        """(dim) the softmax classifier's weights of a class; zeros for one that it was not trained
        on."""
        weights = self.run.objective_weights(self.name)["loss.classifier.weight"].float()
        held_out = self.run.held_out.get(self.name, np.empty(0, np.int64))
        trained = np.setdiff1d(np.arange(len(weights) + len(held_out)), held_out)
        if label not in trained:
            return torch.zeros(weights.shape[1])
        return weights[np.searchsorted(trained, label)]

    def maps(
        self, names: Sequence[str], pixels: np.ndarray, targets: Sequence[ImageTarget]
    ) -> dict[str, np.ndarray]:
        """(images, size, size) maps by method, of (images, size, size, 3) uint8."""
        batches: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for first in range(0, len(pixels), BATCH_SIZE):
            batch = torch.from_numpy(pixels[first : first + BATCH_SIZE])
            direction = self.direction_of(targets[first : first + BATCH_SIZE])
            for name in names:
                maps = methods[name].build(self.network, batch, direction)
                batches[name].append(maps.float().cpu().numpy())
        return {name: np.concatenate(maps) for name, maps in batches.items()}

    def scores(self, target: ImageTarget, pixels: Tensor) -> np.ndarray:
        """(images, size, size, 3) variants of one image -> (images) the numbers that its maps
        explain."""
        outputs = self.network.outputs(pixels).to(self.network.device)
        return self.direction_of([target]).score(outputs).cpu().numpy()

    def direction_of(self, targets: Sequence[ImageTarget]) -> ScoreDirection:
        """The directions of a batch of images."""
        directions = torch.stack([target.direction for target in targets])
        return ScoreDirection(directions.to(self.network.device), unit=targets[0].unit)

    def same_targets(
        self, targets: Sequence[ImageTarget], run_images: RunImages
    ) -> list[ImageTarget]:
        """Another model's targets for this one, which may have no gallery: it embeds the gallery
        images that they name itself. The direction of a classifier's weights stays."""
        rows = np.unique(
            np.concatenate([np.append(target.toward, target.away) for target in targets])
        )
        if not len(rows):
            return list(targets)
        images = [run_images.image(int(self.gallery_images[row])) for row in rows]
        embeddings = self.embed(np.stack([run_images.pixels(image) for image in images]))
        targets_here = []
        for target in targets:
            toward = embeddings[np.searchsorted(rows, target.toward)]
            away = embeddings[np.searchsorted(rows, target.away)]
            direction = toward_class(toward, away) if len(away) else torch.from_numpy(toward[0])
            targets_here.append(replace(target, direction=direction, nearest=-1, similarity=np.nan))
        return targets_here


def model_of_phase(run_images: RunImages, phase: str, device: str, layer: str) -> Model:
    """The trained network of a phase, with the gallery that the run embedded."""
    run = run_images.run
    embedder = trained_embedder(run, phase).to(choose_device(device))
    embeddings = run.embeddings(phase)
    images = embeddings.gallery_images
    network = HookedEmbedder(
        embedder,
        run.experiment.model.backbone.name,
        run.experiment.images.size,
        layer,
        precision_of(run),
    )
    return Model(
        phase,
        network,
        run,
        images,
        embeddings.gallery,
        run_images.labels[images],
        embeddings.query_images,
    )


@callers_draws_kept()
def random_model(like: Model) -> Model:
    """The network of another model before any training, by the run's seed, which sees pixels as
    that one does. It has no gallery."""
    experiment = like.run.experiment
    embedder = build_embedder(without_first_weights(experiment))
    embedder.mean.copy_(like.network.embedder.mean)
    embedder.std.copy_(like.network.embedder.std)
    network = HookedEmbedder(
        embedder.to(like.network.device),
        experiment.model.backbone.name,
        experiment.images.size,
        like.network.layer,
        like.network.precision,
    )
    return Model(
        "random",
        network,
        like.run,
        like.gallery_images,
        np.empty((0, embedder.dim), np.float32),
        like.labels,
        np.empty(0, np.int64),
    )


def check_target(run: Run, target: Target) -> None:
    """Raises ValueError for what is no target, or one that the run's loss does not have."""
    if target not in get_args(Target):
        raise ValueError(
            f"target must be one of {', '.join(get_args(Target))}, got {target!r}: leave it out for"
            " class"
        )
    loss = run.experiment.loss.name
    if target == "logit" and loss != "crossentropy":
        raise ValueError(
            f"the loss must be crossentropy for --target logit, got {loss}: leave --target out"
        )
