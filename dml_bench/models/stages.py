"""A backbone in two parts: its first stages, which stay as they were loaded and compute each image
once, and its last stages, which are trained on what the first ones made."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dml_bench.models.backbones import stage_names

__all__ = ["LastStages", "cut_backbone", "first_stages"]


class LastStages(nn.Module):
    """What is trained: the last stages of a backbone, and the head. It shares its parameters with
    them."""

    def __init__(self, backbone: nn.Module, head: nn.Module, cut_after: str, finished: set[str]):
        """`finished` names the modules of the backbone that the first stages use."""
        super().__init__()
        self.cut_after = cut_after
        self.finished = finished
        self.backbone = without(backbone, "", finished)
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        """What `first_stages` returns -> (batch, dim), before normalisation."""
        return self.head(self.pooled(features))

    def pooled(self, features: Tensor) -> Tensor:
        """What `first_stages` returns -> what the backbone returns."""
        return self.backbone(features.permute(0, 3, 1, 2) if features.dim() == 4 else features)


class PassThrough(nn.Module):
    """In the place of a module that has done its work already."""

    def forward(self, values: Tensor, *_: Any, **__: Any) -> Tensor:
        return values


class ReachedStage(Exception):
    """What a forward pass is ended with."""

    def __init__(self, output: Tensor):
        self.output = output


def cut_backbone(
    backbone: nn.Module, head: nn.Module, name: str, count: int, size: int
) -> LastStages:
    """The last `count` stages of the backbone called `name`, for images of `size` pixels. All else
    in the backbone no longer learns. Raises ValueError where there are not so many, or where the
    backbone is not a row of stages."""
    stages = stage_names(backbone)
    setting = f"model.trainable = last:{count}"
    if len(stages) < 2:
        raise ValueError(f"{setting}: {name} has no stages: --set model.trainable=all, or head")
    if count >= len(stages):
        raise ValueError(
            f"{setting} must be from last:1 to last:{len(stages) - 1}, because {name} has"
            f" {len(stages)} stages: to train them all, --set model.trainable=all"
        )
    stage = stages[-count - 1]
    training = backbone.training
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        backbone.eval()
        last = LastStages(backbone, head, stage, finished_modules(backbone, stage, image))
        with torch.no_grad():
            parted = last.eval().pooled(first_stages(backbone, stage, image))
            is_same = torch.equal(parted, backbone(image))
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        is_same = False
    finally:
        backbone.train(training)
        head.train(training)
    if not is_same:
        raise ValueError(
            f"{setting}: {name} can't be cut after {stage}, because it is no plain row of stages:"
            " --set model.trainable=all, or head"
        )
    let_only_learn(backbone, last)
    return last


def first_stages(backbone: nn.Module, cut_after: str, images: Tensor) -> Tensor:
    """(batch, 3, height, width) -> (batch, height, width, channels) the map that comes out of a
    stage, or its (batch, tokens, dim)."""

    def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
        raise ReachedStage(output)

    hook = backbone.get_submodule(cut_after).register_forward_hook(stop)
    try:
        backbone(images)
    except ReachedStage as reached:
        output = reached.output
    finally:
        hook.remove()
    return output.permute(0, 2, 3, 1) if output.dim() == 4 else output


@torch.no_grad()
def finished_modules(backbone: nn.Module, stage: str, image: Tensor) -> set[str]:
    """Names of the modules that have ended for the last time when the stage ends, itself too."""
    order: list[str] = []

    def remember(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: order.append(name)

    hooks = [
        module.register_forward_hook(remember(name)) for name, module in backbone.named_modules()
    ]
    try:
        backbone(image)
    finally:
        for hook in hooks:
            hook.remove()
    end = order.index(stage)
    return set(order[: end + 1]) - set(order[end + 1 :])


def without(module: nn.Module, name: str, finished: set[str]) -> nn.Module:
    """The module with those that have finished passed through. What lost nothing is the module
    itself; what lost something is a shallow copy."""
    if name in finished:
        return PassThrough()
    inside = f"{name}." if name else ""
    if not any(other.startswith(inside) for other in finished):
        return module
    rest: Any = copy.copy(module)
    rest._modules = {
        child: part if part is None else without(part, f"{inside}{child}", finished)
        for child, part in module._modules.items()
    }
    if hasattr(rest, "_pos_embed"):  # timm's transformers add positions in a method
        rest._pos_embed = lambda tokens: tokens
    return rest


def let_only_learn(backbone: nn.Module, last: LastStages) -> None:
    """Take the parameters from training that the last stages don't use; a copied module's own,
    e.g. the positions of a transformer, are used before them."""
    kept = set()
    for name, module in last.backbone.named_modules():
        if module is backbone.get_submodule(name):
            kept |= {id(parameter) for parameter in module.parameters()}
    for parameter in backbone.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)
