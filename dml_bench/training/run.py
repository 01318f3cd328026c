"""One phase, ready to train: everything that the loop touches, made by one function."""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.sources import Features, Pixels, Source
from dml_bench.data.split import Phase, Split
from dml_bench.files import write_atomically
from dml_bench.model.embedder import Embedder, build_embedder
from dml_bench.objectives.objective import Objective, build_objective
from dml_bench.registry import optimizers
from dml_bench.training.watch import Watch

__all__ = ["Run", "build", "choose_device", "choose_precision"]


@dataclass(kw_only=True)
class Run:
    """A phase of an experiment. `records` holds one row per finished epoch."""

    experiment: Experiment
    phase: Phase
    dataset: Dataset
    images: np.ndarray
    """Indices of the training images."""
    gallery: np.ndarray
    """Indices of the training images of known classes, against which P@1 is watched during training."""
    query: np.ndarray
    """Indices of the test images of known classes."""
    source: Source
    embedder: Embedder
    objective: Objective
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: str
    watch: Watch
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def suffix(self) -> str:
        """What the study appends to the names of the second phase: train_loss2, test_accuracy2."""
        return "2" if self.phase.excluded else ""

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of the source -> (batch, dim), before normalisation."""
        return self.embedder.project(inputs) if isinstance(self.source, Features) else self.embedder(inputs)

    def targets(self, images: np.ndarray) -> Tensor:
        """(batch) labels 0 .. trained classes - 1."""
        trained = np.setdiff1d(np.arange(self.dataset.num_classes), self.phase.excluded)
        return torch.from_numpy(np.searchsorted(trained, self.dataset.labels[images])).to(self.device)

    @torch.no_grad()
    def embed(self, images: np.ndarray) -> np.ndarray:
        """(images) indices -> (images, dim) float32 unit vectors, under the deterministic view."""
        self.embedder.eval()
        embedded = []
        for start in range(0, len(images), self.experiment.train.batch_size):
            batch = images[start : start + self.experiment.train.batch_size]
            with self.autocast():
                embeddings = self.forward(self.source.view(batch))
            embedded.append(functional.normalize(embeddings.float(), dim=1).cpu())
            self.watch.embedded(len(batch))
        return torch.cat(embedded).numpy()


def choose_device(name: str) -> torch.device:
    """`auto` is cuda where there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("no CUDA device is visible to torch; --device cpu, or see `dml-bench doctor`")
    return torch.device(name)


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device computes in it faster than in float32: CUDA with bf16, CPUs with AMX tiles."""
    if wanted != "auto":
        return wanted
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def build(
    experiment: Experiment,
    phase: Phase,
    dataset: Dataset,
    split: Split,
    pixels: Pixels,
    *,
    device: torch.device,
    precision: str,
    watch: Watch,
    start: dict[str, Tensor] | None = None,
) -> Run:
    """The run of one phase, at its first epoch. `start` are backbone weights that replace the configured ones."""
    images = phase.trains_on(dataset, split)
    statistics = pixels.statistics(images) if experiment.images.normalization == "train" else None
    embedder = build_embedder(experiment, statistics)
    if start is not None:
        embedder.backbone.load_state_dict(start)
    embedder.to(device)
    num_classes = dataset.num_classes - len(phase.excluded)
    objective = build_objective(experiment, num_classes, embedder.dim).to(device)
    parameters = [p for p in (*embedder.parameters(), *objective.parameters()) if p.requires_grad]
    run = Run(
        experiment=experiment,
        phase=phase,
        dataset=dataset,
        images=images,
        gallery=images,
        query=phase.known(dataset, split.test),
        source=pixels,
        embedder=embedder,
        objective=objective,
        optimizer=optimizers[experiment.optimizer.name].build(parameters, **experiment.optimizer.options),
        device=device,
        precision=precision,
        watch=watch,
    )
    if experiment.model.trainable == "head":
        run.source = Features(frozen_features(run, pixels))
    return run


def frozen_features(run: Run, pixels: Pixels) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set; computed once and kept beside the image cache,
    under a digest of the weights, the precision and the images' cache."""
    state = hashlib.sha256(f"{run.precision} {pixels.view_cache.folder.name}".encode())
    for name, tensor in {**run.embedder.backbone.state_dict(), "mean": run.embedder.mean, "std": run.embedder.std}.items():
        state.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    path = (
        pixels.view_cache.folder.parents[1]
        / "features"
        / f"{run.experiment.model.backbone.name.replace(':', '_')}-{state.hexdigest()[:16]}.safetensors"
    )
    if path.exists():
        return load_file(path)["features"].to(run.device)
    features = compute_features(run, pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(save({"features": features.cpu().contiguous()})))
    return features


@torch.no_grad()
def compute_features(run: Run, pixels: Pixels) -> Tensor:
    run.embedder.eval()
    table = []
    everything = np.arange(len(run.dataset))
    size = run.experiment.train.batch_size
    for start in range(0, len(everything), size):
        with run.autocast():
            table.append(run.embedder.features(pixels.view(everything[start : start + size])).float())
        run.watch.progress("features of the frozen backbone", min(start + size, len(everything)), len(everything))
    return torch.cat(table)
