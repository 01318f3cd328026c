"""A run's trained embedder, with the view of images and the precision that the run embedded its
gallery with."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.data.cache import View
from dml_bench.data.images import Unreadable, bytes_of, decode
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.runs.run import Run
from dml_bench.system.devices import choose_device
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
    """What became of some image files."""

    paths: tuple[Path, ...]
    """(images) those that could be read, in the order given."""
    embeddings: np.ndarray
    """(images, dim) float32 unit vectors."""
    unreadable: tuple[Unreadable, ...]
    seconds: float


class GalleryEmbedder:
    """Image files to embeddings, as the run embedded its own."""

    def __init__(self, run: Run, phase: str, device: str = "auto"):
        experiment = run.experiment
        check_views(run)
        self.view = View(experiment.images.fit, experiment.images.size)
        self.batch_size = experiment.train.batch_size
        self.precision = precision_of(run)
        self.device = choose_device(device)
        self.embedder = trained_network(run, phase).to(self.device)

    def embed(
        self,
        paths: Sequence[Path],
        progress: Callable[[int], None] = lambda done: None,
        digests: Mapping[Path, str] = MappingProxyType({}),
    ) -> Embedded:
        """`progress` is called with the number of files that are done. Raises ValueError where a
        file's SHA-256 is not that of `digests`."""
        start = time.perf_counter()
        readable: list[Path] = []
        problems: list[Unreadable] = []
        outputs = [np.empty((0, self.embedder.dim), np.float32)]
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(paths), self.batch_size):
                batch = paths[first : first + self.batch_size]
                viewed = dict(
                    zip(
                        batch,
                        pool.map(self._view, batch, [digests.get(path, "") for path in batch]),
                        strict=True,
                    )
                )
                problems += [
                    problem for problem in viewed.values() if isinstance(problem, Unreadable)
                ]
                pixels = {
                    path: array for path, array in viewed.items() if isinstance(array, np.ndarray)
                }
                if pixels:
                    readable += pixels
                    outputs.append(self.embed_pixels(np.stack(list(pixels.values()))))
                progress(first + len(batch))
        return Embedded(
            tuple(readable), np.concatenate(outputs), tuple(problems), time.perf_counter() - start
        )

    def _view(self, path: Path, sha256: str) -> np.ndarray | Unreadable:
        """(size, size, 3) uint8, or why there is none."""
        try:
            return self.view.apply(decode(path, data=bytes_of(path, sha256)))
        except Unreadable as problem:
            return problem

    @torch.no_grad()
    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """(batch, size, size, 3) uint8 -> (batch, dim) float32 unit vectors."""
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        ):
            outputs = self.embedder(torch.from_numpy(pixels).to(self.device))
        return unit(outputs.float().cpu())


def precision_of(run: Run) -> str:
    """In which it embedded its images."""
    return str(run.last_session("precision")["precision"])


class MirrorTTA(nn.Module):
    """An embedder that looks at each image and its mirror image, as `evaluate.tta = mirror`
    does."""

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
    """The models of several folds as one: unit vectors side by side, so that an inner product is
    the sum of theirs."""

    def __init__(self, embedders: Sequence[Embedder | MirrorTTA]):
        super().__init__()
        self.embedders = nn.ModuleList(embedders)
        self.dim = sum(embedder.dim for embedder in embedders)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, height, width, 3) values 0-255 -> (batch, dim), before normalisation."""
        return torch.cat(
            [functional.normalize(embedder(pixels).float(), dim=1) for embedder in self.embedders],
            1,
        )


def check_views(run: Run) -> None:
    """Raises ValueError where the run looks at its queries in a way in which a new photo is not
    looked at."""
    evaluate = run.experiment.evaluate
    if evaluate.tta == "crops" or evaluate.tta_by == "max":
        raise ValueError(
            f"{run.folder} was evaluated with evaluate.tta = {evaluate.tta} by {evaluate.tta_by},"
            " in which new photos are not embedded; run it with --set evaluate.tta=mirror --set"
            " evaluate.tta_by=mean, or without"
        )


def trained_network(run: Run, phase: str) -> Embedder | MirrorTTA | FoldEnsemble:
    """What answers in a phase: its embedder, or those of its folds together; each looks at an image
    as in the run's evaluation."""
    trained = [trained_embedder(run, model) for model in run.models(phase)]
    embedders = [
        MirrorTTA(embedder) if run.experiment.evaluate.tta == "mirror" else embedder
        for embedder in trained
    ]
    return embedders[0] if len(embedders) == 1 else FoldEnsemble(embedders)


def trained_embedder(run: Run, phase: str) -> Embedder:
    """The embedder of a phase, or of a fold (`all/fold-1`), in evaluation mode. It is built without
    first weights, which may be out of reach here, and filled. Raises ValueError where the folds of
    a phase answer together."""
    if run.models(phase) != [phase]:
        folds = ", ".join(run.models(phase))
        raise ValueError(
            f"{run.folder}: phase {phase} is answered by several models together; name one of them:"
            f" {folds}"
        )
    embedder = build_embedder(without_first_weights(run.experiment))
    embedder.load_state_dict(run.weights(phase))
    return embedder.eval()


def without_first_weights(experiment: Experiment) -> Experiment:
    return replace(experiment, model=replace(experiment.model, weights="none"), pretrain=None)
