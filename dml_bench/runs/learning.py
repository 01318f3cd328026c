"""Whether a training will learn what it says: components of one's own may leave nothing to learn,
or give logits of other classes, and the numbers of such a run would look like any other's."""

import torch
from torch.nn import functional

from dml_bench.registry import backbones, heads, losses
from dml_bench.training.batches import epoch_batches
from dml_bench.training.training_state import TrainingState

__all__ = ["require_learning"]

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
