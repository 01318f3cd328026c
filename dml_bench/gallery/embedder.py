"""A run's trained embedder, with the view of images and the precision that the run embedded its
gallery with."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.data.cache import view_of
from dml_bench.data.images import Unreadable
from dml_bench.data.photos import photo_batches
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.models.precision import autocast
from dml_bench.runs.run import Run
from dml_bench.system.devices import choose_device
from dml_bench.system.memory import keep_freed_memory
from dml_bench.system.seeding import callers_draws_kept
from dml_bench.training.training_state import unit

__all__ = [
    "Embedded",
    "FoldEnsemble",
    "GalleryEmbedder",
    "MirrorTTA",
    "precision_of",
    "trained_embedder",
    "trained_network",
]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of image files."""

    paths: tuple[Path, ...]
    """(images) the files that could be read, in their order."""
    embeddings: np.ndarray
    """(images, dim) float32 unit vectors."""
    outputs: np.ndarray
    """(images, dim) float32 the same before normalisation, which a classifier takes."""
    unreadable: tuple[Unreadable, ...]
    """The files that could not be read as images."""
    seconds: float
    """The time that reading and embedding took."""

    @property
    def milliseconds(self) -> float:
        """The same of a file."""
        return 1000 * self.seconds / max(len(self.paths) + len(self.unreadable), 1)


class GalleryEmbedder:
    """Embeds image files as the run embedded its own."""

    def __init__(self, run: Run, phase: str, device: str = "auto"):
        keep_freed_memory()  # on a CPU, half of the time of a batch
        experiment = run.experiment
        check_views(run)
        self.view = view_of(experiment.images)
        self.batch_size = experiment.train.batch_size
        self.precision = precision_of(run)
        self.device = choose_device(device)
        self.embedder = trained_network(run, phase).to(self.device)

    @property
    def no_embeddings(self) -> np.ndarray:
        """(0, dim) float32."""
        return np.empty((0, self.embedder.dim), np.float32)

    def embed(
        self,
        paths: Sequence[Path],
        progress: Callable[[int], None] = lambda done: None,
        digests: Mapping[Path, str] = MappingProxyType({}),
    ) -> Embedded:
        """Embed files. `progress` is called with the number of files that are done. Raises
        ValueError where a file's SHA-256 is not that of `digests`."""
        start = time.perf_counter()
        readable: list[Path] = []
        problems: list[Unreadable] = []
        outputs = [self.no_embeddings]
        done = 0
        for batch in photo_batches(self.view, paths, self.batch_size, digests):
            readable += batch.paths
            problems += batch.problems
            if batch.paths:
                outputs.append(self.outputs_of(batch.pixels))
            done += len(batch.paths) + len(batch.problems)
            progress(done)
        raw = np.concatenate(outputs)
        return Embedded(
            paths=tuple(readable),
            embeddings=unit(torch.from_numpy(raw)),
            outputs=raw,
            unreadable=tuple(problems),
            seconds=time.perf_counter() - start,
        )

    @torch.no_grad()
    def outputs_of(self, pixels: np.ndarray) -> np.ndarray:
        """(batch, size, size, 3) uint8 -> (batch, dim) float32, before normalisation."""
        with autocast(self.device, self.precision):
            outputs = self.embedder(torch.from_numpy(pixels).to(self.device))
        raw: np.ndarray = outputs.float().cpu().numpy()
        return raw


def precision_of(run: Run) -> str:
    """The precision in which the run embedded its images."""
    return str(run.last_session("precision")["precision"])


class MirrorTTA(nn.Module):
    """An embedder that sees each image and its mirror image, as `evaluate.tta = mirror` does."""

    def __init__(self, embedder: Embedder):
        super().__init__()
        self.embedder = embedder
        self.dim = embedder.dim

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim) the sum of two unit vectors."""
        views = (pixels, pixels.flip(2))
        first, second = (functional.normalize(self.embedder(view).float(), dim=1) for view in views)
        return first + second


class FoldEnsemble(nn.Module):
    """The models of several folds as one ensemble: unit vectors side by side, so that an inner
    product is the sum of theirs."""

    def __init__(self, embedders: Sequence[Embedder | MirrorTTA]):
        super().__init__()
        self.embedders = nn.ModuleList(embedders)
        self.dim = sum(embedder.dim for embedder in embedders)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim), before normalisation."""
        outputs = [embedder(pixels).float() for embedder in self.embedders]
        return torch.cat([functional.normalize(output, dim=1) for output in outputs], 1)


def check_views(run: Run) -> None:
    """Raises ValueError where the run's evaluation sees its queries as no new photo is seen
    here."""
    evaluate = run.experiment.evaluate
    if evaluate.tta in ("crops", "random") or evaluate.tta_by == "max":
        raise ValueError(
            f"{run.folder} was evaluated with evaluate.tta = {evaluate.tta} by {evaluate.tta_by},"
            " which new photos don't support: run it with --set evaluate.tta=mirror --set"
            " evaluate.tta_by=mean, or without"
        )


def trained_network(run: Run, phase: str) -> Embedder | MirrorTTA | FoldEnsemble:
    """The network of a phase: its embedder, or the ensemble of its folds. Each sees an image as in
    the run's evaluation."""
    trained = [trained_embedder(run, model) for model in run.models(phase)]
    embedders = [
        MirrorTTA(embedder) if run.experiment.evaluate.tta == "mirror" else embedder
        for embedder in trained
    ]
    return embedders[0] if len(embedders) == 1 else FoldEnsemble(embedders)


@callers_draws_kept()
def trained_embedder(run: Run, phase: str) -> Embedder:
    """The embedder of a phase, or of a fold (`all/fold-1`), in evaluation mode, which embeds as the
    run did. It is built without pretrained weights, which may be out of reach here, and filled.
    Raises ValueError where a phase has an ensemble of folds."""
    if run.models(phase) != [phase]:
        folds = ", ".join(run.models(phase))
        raise ValueError(
            f"{run.folder}: phase {phase} has an ensemble of several models: name one of them, of"
            f" {folds}"
        )
    embedder = build_embedder(without_first_weights(run.experiment))
    embedder.load_state_dict(run.weights(phase))
    if run.last_session().get("folded_batch_norm"):
        embedder.fold_batch_norm(precision_of(run))
    return embedder.eval()


def without_first_weights(experiment: Experiment) -> Experiment:
    """The experiment with a network that begins with random weights."""
    return replace(experiment, model=replace(experiment.model, weights="none"), pretrain=None)
