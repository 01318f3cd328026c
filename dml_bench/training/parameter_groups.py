"""What learns at which rate: the network's stages, its head, and the loss's own parameters; what
decays; and how long a gradient may be."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from dml_bench.config import Experiment
from dml_bench.losses.objective import Objective
from dml_bench.models.backbones import stage_names
from dml_bench.models.embedder import Embedder
from dml_bench.registry import optimizers

__all__ = ["build_optimizer", "parameter_groups"]


class Learner(NamedTuple):
    """A parameter, and how it learns."""

    parameter: nn.Parameter
    factor: float
    """Multiple of `optimizer.lr`."""
    decays: bool
    """Whether the optimiser's weight decay, if it has any, is for it."""


def build_optimizer(
    experiment: Experiment, embedder: Embedder, objective: Objective
) -> torch.optim.Optimizer:
    """The optimiser of all that learns, which clips gradients where the experiment does."""
    config = experiment.optimizer
    if optimizers.of(config).facts["at_once"]:
        return optimizers.of(config).build(list(objective.parameters()), **config.options)
    groups = parameter_groups(experiment, embedder, objective)
    optimizer = optimizers.of(config).built(torch.optim.Optimizer, groups, **config.options)
    limits = (experiment.train.clip_value, experiment.train.clip_norm)
    if any(limits):
        optimizer.register_step_pre_hook(clipping(*limits))
    return optimizer


def parameter_groups(
    experiment: Experiment, embedder: Embedder, objective: Objective
) -> list[dict[str, Any]]:
    """Groups for an optimiser: those of the network, the ones at `optimizer.lr` itself first, then
    those of the loss's own parameters."""
    of_network = grouped(network_learners(experiment, embedder), experiment)
    of_network.sort(key=lambda group: "lr" in group)  # stable: else in the network's order
    decays = experiment.train.weight_decay_on == "all"
    of_loss = []
    for name, parameter in objective.named_parameters():
        factor = experiment.train.proxy_lr_factor * objective.lr_factor(name)
        if parameter.requires_grad:
            of_loss.append(Learner(parameter, factor, decays))
    return of_network + grouped(of_loss, experiment)


def network_learners(experiment: Experiment, embedder: Embedder) -> Iterator[Learner]:
    """All parameters of the network that learn, in its own order."""
    train = experiment.train
    factors = stage_factors(embedder.backbone, train.layer_lr_decay)
    for name, parameter in embedder.named_parameters():
        if not parameter.requires_grad:
            continue
        # By name and shape: a transformer's positions and class token have several dimensions too.
        is_kernel = name.endswith("weight") and parameter.dim() >= 2
        decays = train.weight_decay_on == "all" or is_kernel
        if name.startswith("backbone."):
            factor = factors(name.removeprefix("backbone."))
        else:
            factor = train.head_lr_factor
        yield Learner(parameter, factor, decays)


def stage_factors(backbone: nn.Module, decay: float) -> Callable[[str], float]:
    """(name of a parameter) -> its multiple of the rate: `decay` in the last stage, and once more
    for each stage towards the input and for what stands before the first; 1 for what follows the
    last.

    The counting of BEiT (Bao et al. 2022), which also has the norm after the last stage at 1.
    Raises ValueError where the backbone has no stages, or one without parameters.
    """
    if decay == 1:
        return lambda name: 1.0
    stages = stage_names(backbone)
    if not stages:
        raise ValueError(
            "train.layer_lr_decay needs a backbone with stages, and this one says of none: set it"
            " to 1"
        )
    names = [name for name, _ in backbone.named_parameters()]
    first, ends = len(names), []
    for stage in stages:
        places = [place for place, name in enumerate(names) if name.startswith(f"{stage}.")]
        if not places:
            raise ValueError(
                f"train.layer_lr_decay needs stages with weights, and {stage} of this backbone has"
                " none: set it to 1"
            )
        first = min(first, places[0])
        ends.append(places[-1])
    depth_of = {}
    for place, name in enumerate(names):
        # What stands between two stages belongs to the one that follows.
        passed = sum(end < place for end in ends)
        depth_of[name] = 1 + passed if place >= first else 0
    return lambda name: decay ** (len(stages) + 1 - depth_of[name])


def grouped(learners: Iterable[Learner], experiment: Experiment) -> list[dict[str, Any]]:
    """One group for all that learn alike, in the order of their first."""
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for learner in learners:
        alike = (learner.factor, learner.decays)
        if alike not in groups:
            group: dict[str, Any] = {"params": []}
            if learner.factor != 1:
                group["lr"] = rate(experiment) * learner.factor
            if not learner.decays:
                group["weight_decay"] = 0.0
            groups[alike] = group
        groups[alike]["params"].append(learner.parameter)
    return list(groups.values())


def rate(experiment: Experiment) -> float:
    """Raises ValueError where the optimiser, a plug-in, has no option for it."""
    optimizer = experiment.optimizer
    if "lr" not in optimizer.options:
        raise ValueError(
            f"optimizer {optimizer.name} has no option lr, so no part can learn at a multiple of"
            " it: call its rate lr"
        )
    return float(optimizer.options["lr"])


def clipping(value: float, norm: float) -> Callable[..., None]:
    """What an optimiser calls before each step. A limit of 0 is none."""

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = []
        for group in optimizer.param_groups:
            parameters += group["params"]
        if value:
            nn.utils.clip_grad_value_(parameters, value)
        if norm:
            nn.utils.clip_grad_norm_(parameters, norm)

    return clip
