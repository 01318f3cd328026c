"""One phase, ready to train: everything that the loop touches, made by one function."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from dml_bench.config import Experiment
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import PLAIN, FeatureInputs, ImageInputs, InputSource, TTAView
from dml_bench.data.label_strategies import Corrected, Soft
from dml_bench.data.mixing import Mixer
from dml_bench.data.split import Monitored, Phase, Split
from dml_bench.losses.objective import Objective, build_objective
from dml_bench.models.backbones import stage_names
from dml_bench.models.embedder import Embedder, build_embedder
from dml_bench.registry import UnknownName, labellings, mixings, near_miss, optimizers, schedules
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback
from dml_bench.system.files import is_whole, write_tensors
from dml_bench.training.batches import sampled
from dml_bench.training.labels import TrainingLabels, balanced, given_labels

__all__ = ["TrainingState", "build", "check_together", "choose_device", "choose_precision", "unit"]


@dataclass(kw_only=True)
class TrainingState:
    """A phase of an experiment. `records` holds one row per finished epoch."""

    experiment: Experiment
    phase: Phase
    dataset: Dataset
    images: np.ndarray
    """Indices of the training images."""
    labels: TrainingLabels
    monitored: Monitored
    mixer: Mixer | None
    source: InputSource
    embedder: Embedder
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    device: torch.device
    precision: str
    callback: Callback
    replica: nn.Module | None = None
    """What inputs go through, where several processes train it together."""
    frozen: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that training must leave as they are, by name."""
    best: dict[str, Any] | None = None
    """The weights of the best epoch so far, where one is chosen; see `selection`."""
    records: list[dict[str, Any]] = field(default_factory=list)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    def forward(
        self, inputs: Tensor, layer: str = "", inside: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Inputs of the source -> (batch, dim), before normalisation. `inside` changes what comes
        out of a layer of the backbone."""
        model = self.replica or self.trained_part
        if inside is None:
            return model(inputs)
        hook = self.embedder.backbone.get_submodule(layer).register_forward_hook(
            lambda module, args, output: inside(output)
        )
        try:
            return model(inputs)
        finally:
            hook.remove()

    @property
    def trained_part(self) -> nn.Module:
        """Of the embedder, what inputs of the source go through."""
        return self.embedder.head if isinstance(self.source, FeatureInputs) else self.embedder

    @property
    def trained(self) -> np.ndarray:
        """(trained classes) ascending class ids: label i of the objective is class trained[i]."""
        return self.labels.trained

    @torch.no_grad()
    def outputs(self, images: np.ndarray, variant: TTAView = PLAIN) -> Tensor:
        """(images) indices -> (images, dim) float32 on the CPU, before normalisation, under a
        deterministic view. Of several processes, which must all ask, each computes a part and has
        all."""
        self.embedder.eval()
        outputs, own = [], images[distributed.local_slice(len(images))]
        for start in range(0, len(own), self.experiment.train.batch_size):
            batch = own[start : start + self.experiment.train.batch_size]
            with self.autocast():
                embeddings = self.forward(self.source.view(batch, variant))
            outputs.append(embeddings.float().cpu())
            self.callback.on_embedded(len(batch) * len(images) // len(own))
        found = distributed.all_gather_with_grad(torch.cat(outputs), len(images))
        length = functional.normalize(found, dim=1).norm(dim=1)
        if not ((length > 0.5) & found.isfinite().all(dim=1)).all():
            raise ValueError(
                f"embeddings of phase {self.phase.name} are not finite, or all 0: the training"
                " diverged; try a smaller optimizer.lr"
            )
        return found

    def embed(self, images: np.ndarray) -> np.ndarray:
        """(images) indices -> (images, dim) float32 unit vectors, under the deterministic view."""
        return unit(self.outputs(images))

    def classify(self, outputs: Tensor) -> np.ndarray:
        """(images, dim) before normalisation -> (images) the class id that the objective's own
        logits choose."""
        self.objective.eval()
        return self.trained[self.objective.classify(outputs.to(self.device)).cpu().numpy()]

    @torch.no_grad()
    def probabilities(self, outputs: Tensor) -> np.ndarray:
        """(images, dim) before normalisation -> (images, trained classes) float32 softmax of the
        objective's own logits."""
        self.objective.eval()
        return self.objective.logits(outputs.to(self.device)).float().softmax(dim=1).cpu().numpy()

    def check_frozen(self) -> None:
        """Raises AssertionError if a frozen tensor is not bit-equal to what was loaded."""
        now = self.embedder.state_dict()
        changed = [
            name for name, tensor in self.frozen.items() if not torch.equal(now[name], tensor)
        ]
        assert not changed, (
            f"{len(changed)} frozen tensors were changed by training, e.g. {changed[0]}"
        )


def unit(outputs: Tensor) -> np.ndarray:
    """(images, dim) -> the same directions at unit length."""
    return functional.normalize(outputs, dim=1).numpy()


def choose_device(name: str) -> torch.device:
    """`auto` is cuda where there is one; each process that torchrun starts on a machine has its
    own. Raises ValueError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "no CUDA device is visible to torch; --device cpu, or see `dml-bench doctor`"
        )
    place = distributed.torchrun_rank()
    if place.size == 1 or name == "cpu":
        return torch.device(name)
    if name != "cuda":
        raise ValueError(
            f"--device {name}: torchrun gives each process a GPU of its own; leave --device out"
        )
    if place.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"there are more processes than GPUs; --nproc-per-node {torch.cuda.device_count()}, or"
            " --device cpu"
        )
    return torch.device("cuda", place.local_rank)


def check_together(experiment: Experiment, device: torch.device) -> None:
    """Raises ValueError for what several processes can't do together."""
    if distributed.world_size() == 1:
        return
    technique = experiment.mixing.technique
    if mixings[technique.name].facts["where"] == "layer" and technique.options["layers"] != (
        "input",
    ):
        raise ValueError(
            f"{technique.name} mixes images inside the network, and other processes hold some of"
            " them; start one process, or --set mixing.technique=mixup"
        )
    if experiment.train.sync_bn and device.type == "cpu":
        raise ValueError(
            "train.sync_bn needs GPUs: torch's SyncBatchNorm has no form for CPUs; start one"
            " process, or --set train.sync_bn=false"
        )


def choose_precision(wanted: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the device computes in it faster than in float32: CUDA with bf16,
    CPUs with AMX tiles."""
    if wanted != "auto":
        return wanted
    fast = (
        torch.cuda.is_bf16_supported()
        if device.type == "cuda"
        else torch.cpu._is_amx_tile_supported()
    )
    return "bfloat16" if fast else "float32"


def build(
    experiment: Experiment,
    phase: Phase,
    dataset: Dataset,
    split: Split,
    pixels: ImageInputs,
    *,
    device: torch.device,
    precision: str,
    callback: Callback,
    start: dict[str, Tensor] | None = None,
    predicted: np.ndarray | None = None,
) -> TrainingState:
    """The run of one phase, at its first epoch. `start` are backbone weights that replace the
    configured ones; `predicted` are (images) the class ids that labelling `softlabels` weighs
    against those that are given."""
    images = phase.trains_on(dataset, split)
    labels = build_labels(experiment, phase, dataset, split, images, predicted)
    statistics = pixels.statistics(images) if experiment.images.normalization == "train" else None
    embedder = build_embedder(experiment, statistics)
    if start is not None:
        embedder.backbone.load_state_dict(start)
    if experiment.train.sync_bn:
        embedder = synchronised(embedder, experiment)
    embedder.to(device)
    objective = build_objective(
        experiment, dataset.num_classes - len(phase.held_out_classes), embedder.dim
    ).to(device)
    optimizer = build_optimizer(experiment, embedder, objective)
    run = TrainingState(
        experiment=experiment,
        phase=phase,
        dataset=dataset,
        images=images,
        labels=labels,
        monitored=phase.monitored(dataset, split),
        mixer=build_mixer(experiment, embedder),
        source=pixels,
        embedder=embedder,
        objective=objective,
        optimizer=optimizer,
        schedule=build_schedule(experiment, phase, optimizer, images, labels.initial[images]),
        device=device,
        precision=precision,
        callback=callback,
        frozen=embedder.frozen_state(),
    )
    if experiment.model.trainable == "head":
        run.source = FeatureInputs(frozen_features(run, pixels))
    else:
        pixels.keep_on_device()
    if distributed.world_size() > 1:
        run.replica = distributed.wrap_ddp(run.trained_part)
    return run


def synchronised(embedder: Embedder, experiment: Experiment) -> Embedder:
    """The embedder with BatchNorm statistics of the joint batch, which one process has anyway.
    Raises ValueError where it has none."""
    from timm.layers import convert_sync_batchnorm
    from torch.nn.modules.batchnorm import _BatchNorm

    if not any(isinstance(layer, _BatchNorm) for layer in embedder.modules()):
        raise ValueError(
            f"train.sync_bn has no effect: {experiment.model.backbone.name} has no BatchNorm; leave"
            " train.sync_bn out"
        )
    return embedder if distributed.world_size() == 1 else convert_sync_batchnorm(embedder)


def build_labels(
    experiment: Experiment,
    phase: Phase,
    dataset: Dataset,
    split: Split,
    images: np.ndarray,
    predicted: np.ndarray | None,
) -> TrainingLabels:
    """The labels of the training images. Raises ValueError where labelling `softlabels` lacks its
    predictions."""
    trained = np.setdiff1d(np.arange(dataset.num_classes), phase.held_out_classes)
    given = given_labels(experiment, phase, dataset, split)
    balance = experiment.train.class_weights == "balanced"
    labelling = labellings[experiment.labelling.name].build(**experiment.labelling.options)
    assert (predicted is not None) == isinstance(labelling, Soft), (
        "softlabels needs predictions, and nothing else does"
    )
    return TrainingLabels(
        trained=trained,
        clean=dataset.labels,
        initial=given,
        out_of_fold=predicted,
        a=labelling.a if isinstance(labelling, Soft) else 1.0,
        class_weights=balanced(given[images], dataset.num_classes) if balance else None,
        corrected=labelling if isinstance(labelling, Corrected) else None,
    )


def build_mixer(experiment: Experiment, embedder: Embedder) -> Mixer | None:
    """Raises ValueError where a layer that is to be mixed is not there."""
    technique = experiment.mixing.technique
    mixer = mixings[technique.name].build(**technique.options)
    if mixer is None or mixer.layers is None:
        return mixer
    known = ("input", *stage_names(embedder.backbone))
    for layer in mixer.layers:
        if layer not in known:
            raise UnknownName(
                f"mixing.technique.layers names {layer!r}{near_miss(layer, list(known))}; there"
                f" are: {', '.join(known)}"
            )
    return replace(mixer, layers=mixer.layers or known)


def build_optimizer(
    experiment: Experiment, embedder: Embedder, objective: Objective
) -> torch.optim.Optimizer:
    """The optimiser of all that learns; the objective's own parameters have their own rate."""
    config = experiment.optimizer
    groups: list[dict[str, Any]] = [
        {"params": [p for p in embedder.parameters() if p.requires_grad]}
    ]
    if proxies := [p for p in objective.parameters() if p.requires_grad]:
        groups.append(
            {"params": proxies, "lr": config.options["lr"] * experiment.train.proxy_lr_factor}
        )
    return optimizers[config.name].build(groups, **config.options)


def build_schedule(
    experiment: Experiment,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule over all steps of the phase."""
    schedule, steps = (
        experiment.schedule,
        len(sampled(experiment, phase, images, labels)) * experiment.train.epochs,
    )
    return schedules[schedule.name].build(**schedule.options)(optimizer, steps)


def frozen_features(run: TrainingState, pixels: ImageInputs) -> Tensor:
    """(images, num_features) of the frozen backbone for every image of the data set; computed once
    and kept beside the image cache, under a digest of the weights, the way of computing and the
    images' cache. Of several processes the first computes them."""
    state = hashlib.sha256(
        f"{run.device.type} {torch.get_num_threads()} {run.precision}"
        f" {pixels.view_cache.folder.name}".encode()
    )
    for name, tensor in {
        **run.embedder.backbone.state_dict(),
        "mean": run.embedder.mean,
        "std": run.embedder.std,
    }.items():
        state.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    path = (
        pixels.view_cache.folder.parents[1]
        / "features"
        / f"{run.experiment.model.backbone.name.replace(':', '_')}-{state.hexdigest()[:16]}.safetensors"
    )
    with distributed.main_process_first():
        if is_whole(path):
            return load_file(path)["features"].to(run.device)
        features = compute_features(run, pixels)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, save({"features": features.cpu().contiguous()}))
        return features


@torch.no_grad()
def compute_features(run: TrainingState, pixels: ImageInputs) -> Tensor:
    run.embedder.eval()
    table = []
    everything = np.arange(len(run.dataset))
    size = run.experiment.train.batch_size
    for start in range(0, len(everything), size):
        with run.autocast():
            table.append(
                run.embedder.features(pixels.view(everything[start : start + size])).float()
            )
        run.callback.progress(
            "features of the frozen backbone", min(start + size, len(everything)), len(everything)
        )
    return torch.cat(table)
