"""Whether a training will learn what it says, and goes on after an interruption as if there had
been none: components of one's own may leave nothing to learn, give logits of other classes, or keep
what no checkpoint has, and the numbers of such a run would look like any other's."""

import io
import pickle
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from dml_bench.registry import backbones, heads, losses, miners, optimizers
from dml_bench.training.batches import epoch_batches
from dml_bench.training.training_state import TrainingState

__all__ = ["UnkeptState", "require_learning"]

SAME = 0.99
"""Of an image's embeddings in two batches the least cosine: rounding makes them differ, too."""


def require_learning(state: TrainingState) -> None:
    """Raises ValueError where the sampler gives no batch of two images, the optimizer lacks a
    parameter that learns, or a network or loss of one's own gives other shapes than it says."""
    experiment = state.experiment
    if experiment.train.epochs:
        require_batches(state)
        require_all_parameters(state)
    model = experiment.model
    if backbones.of(model.backbone).origin is not None or heads.of(model.head).origin is not None:
        require_embeddings(state)
        require_gradients(state)
    if losses.of(experiment.loss).origin is not None and state.objective.classifies:
        require_logits(state)


def require_batches(state: TrainingState) -> None:
    """Of images to train on."""
    sizes = [len(batch) for batch in epoch_batches(state, 1)]
    if min(sizes, default=0) < 2:
        got = f"one of {min(sizes)}" if sizes else "none"
        raise ValueError(
            f"sampler {state.experiment.sampler.name} must give batches of at least 2 images in"
            f" phase {state.phase.name}, got {got}: return arrays of image numbers"
        )


def require_all_parameters(state: TrainingState) -> None:
    """Of the network and of the loss."""
    learned: set[int] = set()
    for group in state.optimizer.param_groups:
        learned.update(map(id, group["params"]))
    named = [*state.embedder.named_parameters(), *state.objective.named_parameters()]
    left = [name for name, one in named if one.requires_grad and id(one) not in learned]
    if left:
        raise ValueError(
            f"optimizer {state.experiment.optimizer.name} lacks {len(left)} of {len(named)}"
            f" parameters (first: {left[0]}), which would stay as they are: hand it all of"
            " `parameters`"
        )


@torch.no_grad()
def require_embeddings(state: TrainingState) -> None:
    """By those of two images, together and alone."""
    state.embedder.eval()
    pixels = state.source.view(state.images[:2])
    with state.autocast():
        together, alone = state.forward(pixels).float(), state.forward(pixels[:1]).float()
    wanted = (len(pixels), state.embedder.dim)
    if together.shape != wanted:
        raise ValueError(
            f"the network must give embeddings of shape {wanted}, as its head says by dim, got"
            f" {tuple(together.shape)}: mend the head or the backbone"
        )
    if functional.cosine_similarity(together[0], alone[0], dim=0) < SAME:
        raise ValueError(
            "the network gives an image another embedding beside another image, so that queries"
            " would depend on each other: mend the head or the backbone in evaluation"
        )


def require_gradients(state: TrainingState) -> None:
    """By the embeddings of two images, of which each part that learns has to be a cause."""
    state.embedder.eval()
    with state.autocast():
        embeddings = state.trained_part(state.source.view(state.images[:2])).float().sum()
    model = state.experiment.model
    parts = {
        f"head {model.head.name}": state.embedder.head,  # first: behind it no backbone learns
        f"backbone {model.backbone.name}": state.embedder.backbone,
    }
    for what, part in parts.items():
        learned = [parameter for parameter in part.parameters() if parameter.requires_grad]
        if not learned or (embeddings.requires_grad and reaches(embeddings, learned)):
            continue
        raise ValueError(
            f"{what} has parameters, and the embeddings depend on none of them: they would stay as"
            " they are; compute without torch.no_grad(), detach() and NumPy"
        )


def reaches(result: torch.Tensor, parameters: list[nn.Parameter]) -> bool:
    gradients = torch.autograd.grad(result, parameters, retain_graph=True, allow_unused=True)
    return any(gradient is not None for gradient in gradients)


@torch.no_grad()
def require_logits(state: TrainingState) -> None:
    """By those of two embeddings."""
    state.objective.eval()
    dim, wanted = state.embedder.dim, (2, len(state.answers))
    embeddings = torch.full((2, dim), dim**-0.5, device=state.device)
    logits = state.objective.loss.logits(embeddings)  # type: ignore[operator]
    got = str(tuple(logits.shape)) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got == str(wanted) and not logits.isfinite().all():
        got = "numbers that are not finite"
    if got != str(wanted):
        raise ValueError(
            f"loss {state.experiment.loss.name} must have logits(embeddings) of one number for each"
            f" class, {wanted} for 2 embeddings, got {got}: mend them, or leave classifies out"
        )


OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes that each module has, parameters and buffers among them."""
OF_OPTIMIZERS = frozenset({"defaults", "state", "param_groups", "_opt_called"})
"""Attributes that an optimizer's state_dict has, and what a schedule sets."""


class UnkeptState:
    """What components of one's own hold when a training begins and no checkpoint keeps."""

    def __init__(self, state: TrainingState):
        self.before = dict(unkept_attributes(state))

    def check(self, state: TrainingState) -> list[str]:
        """After an epoch: sentences about what has changed since. Raises ValueError where what
        checkpoints keep could not be read back."""
        require_readable(state)
        sentences = []
        nothing = content_of(None)
        for (what, attribute), content in unkept_attributes(state):
            if self.before.get((what, attribute), nothing) != content:
                sentences.append(
                    f"{what} changes {attribute} as it trains, and no checkpoint keeps it: a run"
                    " that is interrupted goes on without it, to other numbers; make it a buffer,"
                    " or part of the state_dict()"
                )
        return sentences


def require_readable(state: TrainingState) -> None:
    """Raises ValueError where optimizer, schedule or loss keep other things than tensors and values
    of Python: of these alone a checkpoint is read back."""
    experiment = state.experiment
    parts = {
        f"optimizer {experiment.optimizer.name}": state.optimizer,
        f"schedule {experiment.schedule.name}": state.schedule,
        f"loss {experiment.loss.name}": state.objective,
    }
    for what, part in parts.items():
        content = io.BytesIO()
        try:
            torch.save(part.state_dict(), content)  # type: ignore[attr-defined]
            content.seek(0)
            torch.load(content, weights_only=True)
        except (AttributeError, TypeError, pickle.PickleError) as problem:
            kind = re.search(r"GLOBAL (\S+)", str(problem))
            reason = kind[1] if kind else str(problem).partition("\n")[0]
            raise ValueError(
                f"{what} keeps what no checkpoint could be read back with ({reason}): keep tensors"
                " and numbers of Python in its state_dict()"
            ) from None


def unkept_attributes(state: TrainingState) -> Iterator[tuple[tuple[str, str], bytes]]:
    """Of components of one's own each attribute that no state_dict has, with its content."""
    experiment, embedder, objective = state.experiment, state.embedder, state.objective
    model = experiment.model
    modules = [
        (backbones, model.backbone, embedder.backbone),
        (heads, model.head, embedder.head),
        (losses, experiment.loss, objective.loss),
        (miners, experiment.miner, objective.miner),
    ]
    for registry, component, module in modules:
        if registry.of(component).origin is not None and module is not None:
            for attribute, value in unkept_of(module):
                yield (f"{registry.kind} {component.name}", attribute), content_of(value)
    if optimizers.of(experiment.optimizer).origin is not None:
        known = OF_OPTIMIZERS | vars(torch.optim.SGD([torch.zeros(1)])).keys()
        for attribute, value in vars(state.optimizer).items():
            if attribute not in known:
                what = f"optimizer {experiment.optimizer.name}"
                yield (what, attribute), content_of(value)


def unkept_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Attributes of a module and of those inside it, but for what says itself what it keeps."""
    for place, part in module.named_modules():
        if type(part).get_extra_state is not nn.Module.get_extra_state:
            continue
        held = {name: vars(part)[name] for name in vars(part).keys() - OF_MODULES}
        held |= {name: part._buffers[name] for name in part._non_persistent_buffers_set}
        for name in sorted(held):
            yield f"{place}.{name}".removeprefix("."), held[name]


def content_of(value: Any) -> bytes:
    """Bytes that differ where values do; none of what can't be written."""
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if callable(value):
        return b""
    try:
        return pickle.dumps(value)
    except Exception:
        return b""
