"""The training loop. It builds nothing, logs nothing and knows no technique by name."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dml_bench.system import distributed
from dml_bench.system.seeding import seed_everything
from dml_bench.training import checkpoint
from dml_bench.training.batches import epoch_batches, training_batch
from dml_bench.training.training_state import TrainingState
from dml_bench.training.validation import validate

__all__ = ["NonFiniteLoss", "fit"]


class NonFiniteLoss(ValueError):
    """Training diverged."""


def fit(run: TrainingState, keep: Callable[[TrainingState], None]) -> None:
    """Train to the last epoch from where `run.records` end; `keep` is called after each epoch to
    save all state.

    The run ends with the weights of the epoch that `train.checkpoint` chooses. Raises
    AssertionError if a layer that has to stay as it was loaded has changed.
    """
    evaluate = run.experiment.evaluate
    for epoch in range(len(run.records) + 1, run.experiment.train.epochs + 1):
        record = train_epoch(run, epoch)
        if epoch % evaluate.every == 0 or epoch == run.experiment.train.epochs:
            record |= validate(run)
        run.records.append(distributed.broadcast_object(record.copy))
        checkpoint.keep_if_best(run, run.records[-1])
        keep(run)
        run.callback.on_epoch(run.records[-1])
    checkpoint.restore_best(run)
    run.check_frozen()


def train_epoch(run: TrainingState, epoch: int) -> dict[str, Any]:
    """One pass over the training images. Raises NonFiniteLoss, naming phase and epoch, before any
    state is kept."""
    seed_everything(run.experiment.seed, run.phase.name, epoch)
    run.embedder.train()
    run.objective.train()
    run.objective.batches_without_tuples = 0
    batches = epoch_batches(run, epoch)
    losses = torch.zeros(len(batches), device=run.device)
    learning_rate = run.optimizer.param_groups[0]["lr"]
    start = time.perf_counter()
    for step, images in enumerate(batches):
        losses[step], embeddings = train_step(run, images, epoch, step)
        if run.labels.corrected:
            run.labels.observe(images, run.objective.logits(embeddings[: len(images)]))
        run.callback.on_step(len(images), losses[step])
    distributed.broadcast_tensors_(run.embedder.buffers())
    run.labels.correct(run.images, epoch, run.experiment.train.epochs)
    values = losses.cpu().numpy()
    seconds = time.perf_counter() - start
    check_finite(run, epoch, values)
    return {
        "phase": run.phase.name,
        "epoch": epoch,
        f"train_loss{run.phase.suffix}": float(values.mean()),
        "learning_rate": learning_rate,
        "batches_without_tuples": run.objective.batches_without_tuples,
        "train_images": sum(map(len, batches)),
        "train_seconds": seconds,
    }


def check_finite(run: TrainingState, epoch: int, losses: np.ndarray) -> None:
    """Raises NonFiniteLoss where the (steps) losses of an epoch, or the weights after it, are not
    finite."""
    place = f"in phase {run.phase.name}, epoch {epoch}"
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise NonFiniteLoss(
            f"the loss is {losses[step - 1]} {place}, step {step}: try a smaller optimizer.lr"
        )
    for name, tensor in run.embedder.state_dict().items():
        if not tensor.isfinite().all():
            raise NonFiniteLoss(
                f"the weights {name} are not finite {place}: try a smaller optimizer.lr"
            )


def train_step(
    run: TrainingState, images: np.ndarray, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """One step on a batch of image indices. Returns the loss and the (views * batch, dim)
    embeddings from before it.

    Of several processes each embeds its part of the batch, and all compute the loss of the whole.
    """
    batch = training_batch(run, images, epoch, step)
    with (
        run.autocast(),
        distributed.per_rank_rng(
            run.device, len(images), run.experiment.seed, run.phase.name, epoch, step
        ),
    ):
        embeddings = run.forward(batch.inputs, batch.layer, batch.inside)
    embeddings = distributed.all_gather_with_grad(
        embeddings, len(images), run.experiment.train.views
    )
    loss = run.objective.weighted_loss(embeddings, batch.targets, interpolate=batch.interpolate)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    distributed.broadcast_tensors_(parameter.grad for parameter in run.objective.parameters())
    run.optimizer.step()
    run.schedule.step()
    return loss.detach(), embeddings.detach()
