"""One phase, ready to train: everything that the loop touches, made by one function."""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
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

__all__ = ["Run", "build", "choose_device", "choose_precision", "unit"]


@dataclass(kw_only=True)
class Run:
    """A phase of an experiment. `records` holds one row per finished epoch."""

    experiment: Experiment
    phase: Phase
    dataset: Dataset
    images: np.ndarray
    """Indices of the training images."""
    gallery: np.ndarray
    """Indices of the images among which P@1 is watched during training."""
    query: np.ndarray
    """Indices of the images that are looked up there: of known classes, or of validation classes."""
    source: Source
    embedder: Embedder
    objective: Objective
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: str
    watch: Watch
    frozen: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that training must leave as they are, by name."""
    records: list[dict[str, Any]] = field(default_factory=list)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs of the source -> (batch, dim), before normalisation."""
        return self.embedder.project(inputs) if isinstance(self.source, Features) else self.embedder(inputs)

    @cached_property
    def trained(self) -> np.ndarray:
        """(trained classes) ascending class ids: label i of the objective is class trained[i]."""
        return np.setdiff1d(np.arange(self.dataset.num_classes), self.phase.excluded)

    def training_inputs(self, images: np.ndarray, epoch: int) -> Tensor:
        """(views * batch, ...) inputs of the source, view after view."""
        views = [self.source.train(images, phase=self.phase.name, epoch=epoch, view=view) for view in range(self.experiment.train.views)]
        return views[0] if len(views) == 1 else torch.cat(views)

    def targets(self, images: np.ndarray) -> Tensor:
        """(views * batch) labels 0 .. trained classes - 1, or, where images are their own classes, 0 .. batch - 1."""
        by_class = self.experiment.train.labels == "class"
        labels = np.searchsorted(self.trained, self.dataset.labels[images]) if by_class else np.arange(len(images))
        return torch.from_numpy(labels).repeat(self.experiment.train.views).to(self.device)

    @torch.no_grad()
    def outputs(self, images: np.ndarray) -> Tensor:
        """(images) indices -> (images, dim) float32 on the CPU, before normalisation, under the deterministic view."""
        self.embedder.eval()
        outputs = []
        for start in range(0, len(images), self.experiment.train.batch_size):
            batch = images[start : start + self.experiment.train.batch_size]
            with self.autocast():
                embeddings = self.forward(self.source.view(batch))
            outputs.append(embeddings.float().cpu())
            self.watch.embedded(len(batch))
        return torch.cat(outputs)

    def embed(self, images: np.ndarray) -> np.ndarray:
        """(images) indices -> (images, dim) float32 unit vectors, under the deterministic view."""
        return unit(self.outputs(images))

    def classify(self, outputs: Tensor) -> np.ndarray:
        """(images, dim) before normalisation -> (images) the class id that the objective's own logits choose."""
        self.objective.eval()
        return self.trained[self.objective.classify(outputs.to(self.device)).cpu().numpy()]

    def check_frozen(self) -> None:
        """Raises AssertionError if a frozen tensor is not bit-equal to what was loaded."""
        now = self.embedder.state_dict()
        changed = [name for name, tensor in self.frozen.items() if not torch.equal(now[name], tensor)]
        assert not changed, f"{len(changed)} frozen tensors were changed by training, e.g. {changed[0]}"


def unit(outputs: Tensor) -> np.ndarray:
    """(images, dim) -> the same directions at unit length."""
    return functional.normalize(outputs, dim=1).numpy()


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
    gallery, query = phase.watched(dataset, split)
    objective = build_objective(experiment, dataset.num_classes - len(phase.excluded), embedder.dim).to(device)
    run = Run(
        experiment=experiment,
        phase=phase,
        dataset=dataset,
        images=images,
        gallery=gallery,
        query=query,
        source=pixels,
        embedder=embedder,
        objective=objective,
        optimizer=build_optimizer(experiment, embedder, objective),
        device=device,
        precision=precision,
        watch=watch,
        frozen=embedder.frozen_state(),
    )
    if experiment.model.trainable == "head":
        run.source = Features(frozen_features(run, pixels))
    return run


def build_optimizer(experiment: Experiment, embedder: Embedder, objective: Objective) -> torch.optim.Optimizer:
    """The optimiser of all that learns; the objective's own parameters have their own rate."""
    config = experiment.optimizer
    groups: list[dict[str, Any]] = [{"params": [p for p in embedder.parameters() if p.requires_grad]}]
    if proxies := [p for p in objective.parameters() if p.requires_grad]:
        groups.append({"params": proxies, "lr": config.options["lr"] * experiment.train.proxy_lr_factor})
    return optimizers[config.name].build(groups, **config.options)


def frozen_features(run: Run, pixels: Pixels) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set; computed once and kept beside the image cache,
    under a digest of the weights, the way of computing and the images' cache."""
    state = hashlib.sha256(f"{run.device.type} {torch.get_num_threads()} {run.precision} {pixels.view_cache.folder.name}".encode())
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
