"""One phase, ready to train: everything that the loop touches, made by one function."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dml_bench.config import Component, Experiment
from dml_bench.config.experiment import follows_validation
from dml_bench.data.datasets import Dataset
from dml_bench.data.inputs import FeatureInputs, ImageInputs
from dml_bench.data.label_strategies import Correcting, Soft
from dml_bench.data.mixing import Mixer
from dml_bench.data.split import Monitored, Phase, Split
from dml_bench.losses.objective import Objective, build_objective
from dml_bench.models.backbones import stage_names
from dml_bench.models.embedder import Embedder, build_embedder, fold_where_it_pays
from dml_bench.models.lora import load_without_adapters
from dml_bench.registry import UnknownName, labellings, losses, mixings, near_miss, schedules
from dml_bench.system import distributed
from dml_bench.system.callbacks import Callback
from dml_bench.training.batches import sampled
from dml_bench.training.cuda_graphs import GraphedNetwork
from dml_bench.training.frozen_features import frozen_features
from dml_bench.training.labels import TrainingLabels, balanced, given_labels
from dml_bench.training.parameter_groups import build_optimizer
from dml_bench.training.training_state import TrainingState

__all__ = ["build", "check_distributed"]


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
    untrained: Embedder | None = None,
) -> TrainingState:
    """The state of one phase before its first epoch. `start` are backbone weights that replace the
    configured ones; `predicted` are (images) the class ids that labelling `softlabels` weighs
    against those that are given; `untrained` is the embedder of the experiment where it has been
    built already, which is trained then unless it lacks channel statistics of its images."""
    images, monitored = phase.trains_on(dataset, split), phase.monitored_images(dataset, split)
    require_validation(experiment, dataset, monitored)
    labels = build_labels(experiment, phase, dataset, split, images, predicted)
    embedder = build_start(experiment, pixels, images, start, untrained).to(device)
    fold_where_it_pays(embedder, experiment, device, precision)
    objective = build_phase_objective(experiment, phase, dataset, labels, embedder.dim).to(device)
    optimizer = build_optimizer(experiment, embedder, objective)
    state = TrainingState(
        experiment=experiment,
        phase=phase,
        dataset=dataset,
        images=images,
        labels=labels,
        monitored=monitored,
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
        backbone_learns=tuple(
            parameter for parameter in embedder.backbone.parameters() if parameter.requires_grad
        ),
    )
    if experiment.model.trainable != "all":
        state.source = FeatureInputs(frozen_features(state, pixels))
    else:
        pixels.keep_on_device()
    state.replica = build_replica(state)
    return state


def build_start(
    experiment: Experiment,
    pixels: ImageInputs,
    images: np.ndarray,
    start: dict[str, Tensor] | None,
    untrained: Embedder | None,
) -> Embedder:
    """The embedder that training begins with; see `build`."""
    if experiment.images.normalization == "train":
        embedder = build_embedder(experiment, pixels.statistics(images))
    else:
        embedder = untrained or build_embedder(experiment)
    if start is not None:
        load_without_adapters(embedder.backbone, start)
    return synchronised(embedder, experiment) if experiment.train.sync_bn else embedder


def build_phase_objective(
    experiment: Experiment, phase: Phase, dataset: Dataset, labels: TrainingLabels, dim: int
) -> Objective:
    """The loss on the classes of a phase, or on the label sets of its images."""
    if dataset.label_sets is None:
        return build_objective(
            experiment, dataset.num_classes - len(phase.held_out_classes), dim, None
        )
    # By the labels that are trained on: without all classes, these are others than the class ids.
    members = dataset.label_sets.members[labels.trained]
    return build_objective(experiment, members.shape[1], dim, members)


def require_validation(experiment: Experiment, dataset: Dataset, monitored: Monitored) -> None:
    """Raises ValueError where something follows validation images, and the data set's own parts
    have none: it would do nothing."""
    follows = follows_validation(experiment)
    if follows and "valid" not in monitored.queries:
        raise ValueError(
            f"{follows[0]} follows validation images, and {dataset.name} has none in its own parts:"
            " add some, or --set data.split=stratified --set data.valid_fraction=0.1"
        )


def build_replica(state: TrainingState) -> nn.Module | None:
    """What inputs go through in place of the network; None for the network itself."""
    if distributed.world_size() > 1:
        return distributed.wrap_ddp(state.trained_part)
    if state.device.type != "cuda":
        return None
    train = state.experiment.train
    return GraphedNetwork(
        state.trained_part,
        rows=train.batch_size * train.views,
        device=state.device,
        precision=state.precision,
        warn=state.callback.warn,
    )


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
    initial = given_labels(experiment, phase, dataset, split)
    balance = experiment.train.class_weights == "balanced"
    labelling = labellings[experiment.labelling.name].build(**experiment.labelling.options)
    assert (predicted is not None) == isinstance(labelling, Soft), (
        "softlabels needs predictions, and nothing else does"
    )
    return TrainingLabels(
        trained=trained,
        clean=dataset.labels,
        initial=initial,
        out_of_fold=predicted,
        a=labelling.a if isinstance(labelling, Soft) else 1.0,
        class_weights=balanced(initial[images], dataset.num_classes) if balance else None,
        corrected=labelling if isinstance(labelling, Correcting) else None,
    )


def build_mixer(experiment: Experiment, embedder: Embedder) -> Mixer | None:
    """Raises ValueError where a layer that is to be mixed is not there."""
    technique, stages = experiment.mixing.technique, stage_names(embedder.backbone)
    if technique.options.get("level") == "features" and not stages:
        raise ValueError(
            f"{experiment.model.backbone.name} has no stages whose maps {technique.name} could mix;"
            " --set mixing.technique.level=embeddings"
        )
    mixer = mixings[technique.name].build(**technique.options)
    if mixer is None or mixer.layers is None:
        return mixer
    if not (mixer.layers or stages):
        raise ValueError(
            f"{experiment.model.backbone.name} has no stages after which {technique.name} could"
            " mix; --set mixing.technique=mixup mixes its input"
        )
    known = ("input", *stages)
    for layer in mixer.layers:
        if layer not in known:
            raise UnknownName(
                f"mixing.technique.layers names {layer!r}{near_miss(layer, list(known))}; there"
                f" are: {', '.join(known)}"
            )
    return replace(mixer, layers=mixer.layers or known)


def build_schedule(
    experiment: Experiment,
    phase: Phase,
    optimizer: torch.optim.Optimizer,
    images: np.ndarray,
    labels: np.ndarray,
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule over all steps of the phase."""
    schedule = experiment.schedule
    steps = len(sampled(experiment, phase, images, labels)) * experiment.train.epochs
    require_memory(experiment.loss, steps)
    # Without epochs nothing asks for a rate, and no schedule has no steps.
    return schedules.of(schedule).build(**schedule.options)(optimizer, max(steps, 1))


def require_memory(loss: Component, steps: int) -> None:
    """Raises ValueError where a loss would begin to remember after the last step."""
    if not losses.of(loss).facts["remembers"] or not steps:
        return
    start = loss.options.get("start", 0)
    if start >= steps:
        raise ValueError(
            f"loss.start = {start}: loss {loss.name} begins to remember after so many steps, and"
            f" this training has {steps}: --set loss.start={steps // 10}"
        )


def check_distributed(experiment: Experiment, device: torch.device) -> None:
    """Raises ValueError for what several processes can't do together."""
    if distributed.world_size() == 1:
        return
    technique = experiment.mixing.technique
    if technique.options.get("level", "embeddings") != "embeddings":
        raise ValueError(
            f"{technique.name} mixes images with those that other processes hold; start one"
            " process, or --set mixing.technique.level=embeddings"
        )
    if mixings[technique.name].facts["where"] == "layer" and technique.options["layers"] != (
        "input",
    ):
        raise ValueError(
            f"{technique.name} mixes images inside the network, and other processes hold some of"
            " them; start one process, or --set mixing.technique=mixup"
        )
    if experiment.evaluate.attack_epsilon:
        raise ValueError(
            "evaluate.attack_epsilon changes images in one process; start one process, or --set"
            " evaluate.attack_epsilon=0"
        )
    if experiment.train.head_epochs:
        raise ValueError(
            "train.head_epochs changes what learns, which several processes can't follow; start one"
            " process, or --set train.head_epochs=0"
        )
    if experiment.train.sync_bn and device.type == "cpu":
        raise ValueError(
            "train.sync_bn needs GPUs: torch's SyncBatchNorm has no form for CPUs; start one"
            " process, or --set train.sync_bn=false"
        )
