"""The training loop. It builds nothing, logs nothing and knows no technique by name."""

import time
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dml_bench.system import distributed
from dml_bench.system.callbacks import EpochRecord
from dml_bench.system.seeding import seed_everything
from dml_bench.system.spare_threads import SPARE, weight_gradients_beside
from dml_bench.training import checkpoint
from dml_bench.training.at_once import fit_at_once
from dml_bench.training.batches import epoch_batches, training_batch
from dml_bench.training.training_state import Diverged, TrainingState
from dml_bench.training.validation import validate

__all__ = ["NonFiniteLoss", "fit"]


class NonFiniteLoss(Diverged):
    """The loss, or a weight after an epoch, is not finite."""


def fit(state: TrainingState, keep: Callable[[TrainingState], None]) -> None:
    """Train to the last epoch from where `state.records` end; `keep` is called after each epoch to
    save a checkpoint. Without epochs the last layer is fitted at once.

    The phase ends with the weights of the epoch that `train.checkpoint` chooses. Raises
    AssertionError if a layer that has to stay as it was loaded has changed.
    """
    evaluate = state.experiment.evaluate
    for epoch in range(len(state.records) + 1, state.experiment.train.epochs + 1):
        record = train_epoch(state, epoch)
        if epoch % evaluate.every == 0 or epoch == state.experiment.train.epochs:
            record |= cast(EpochRecord, validate(state))
        state.records.append(distributed.broadcast_object(record.copy))
        state.end_epoch(state.records[-1])
        checkpoint.keep_if_best(state, state.records[-1])
        keep(state)
        state.callback.on_epoch(state.records[-1])
    if not state.experiment.train.epochs:
        fit_at_once(state)
    checkpoint.restore_best(state)
    state.check_frozen()


def train_epoch(state: TrainingState, epoch: int) -> EpochRecord:
    """One pass over the training images. Raises NonFiniteLoss, naming phase and epoch, before any
    state is kept."""
    seed_everything(state.experiment.seed, state.phase.name, epoch)
    state.begin_epoch(epoch)
    batches = epoch_batches(state, epoch)
    losses = torch.zeros(len(batches), device=state.device)
    learning_rate = state.optimizer.param_groups[0]["lr"]
    start, cpu_start = time.perf_counter(), time.process_time()
    for step, images in enumerate(batches):
        losses[step], embeddings = train_step(state, images, epoch, step)
        if state.labels.corrected:
            state.labels.observe(images, state.objective.logits(embeddings[: len(images)]))
        state.callback.on_step(len(images), losses[step])
    distributed.broadcast_tensors_(state.embedder.buffers())
    values = losses.cpu().numpy()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    check_finite(state, epoch, values)
    record = {
        "phase": state.phase.name,
        "epoch": epoch,
        f"train_loss{state.phase.suffix}": float(values.mean()),
        "learning_rate": learning_rate,
        "batches_without_tuples": state.objective.batches_without_tuples,
        "train_images": sum(map(len, batches)),
        "train_seconds": seconds,
        "train_cpu_seconds": cpu_seconds,
    }
    return cast(EpochRecord, record)


def check_finite(state: TrainingState, epoch: int, losses: np.ndarray) -> None:
    """Raises NonFiniteLoss where the (steps) losses of an epoch, or the weights after it, are not
    finite."""
    place = f"in phase {state.phase.name}, epoch {epoch}"
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise NonFiniteLoss(
            f"the loss is {losses[step - 1]} {place}, step {step}: try a smaller optimizer.lr"
        )
    tensors = state.embedder.state_dict()
    for name, tensor in state.objective.named_parameters():
        tensors[f"of the loss, {name},"] = tensor.detach()
    # The least and the largest number of a tensor take a sixth of the time of a look at each.
    extremes = [torch.stack(tensor.aminmax()).float() for tensor in tensors.values()]
    are_finite = torch.stack(extremes).isfinite().all(dim=1)
    for name, is_finite in zip(tensors, are_finite.tolist(), strict=True):  # waited for once
        if not is_finite:
            raise NonFiniteLoss(
                f"the weights {name} are not finite {place}: try a smaller optimizer.lr"
            )


def train_step(
    state: TrainingState, images: np.ndarray, epoch: int, step: int
) -> tuple[Tensor, Tensor]:
    """One step on a batch of image indices. Returns the loss and the (views * batch, dim)
    embeddings from before it.

    Of several processes each embeds its part of the batch, and all compute the loss of the whole.
    """
    SPARE.next_step()
    batch = training_batch(state, images, epoch, step)
    with (
        state.autocast(),
        distributed.per_rank_rng(
            state.device, len(images), state.experiment.seed, state.phase.name, epoch, step
        ),
    ):
        embeddings = state.forward(batch.inputs, batch.layer, batch.inside)
    embeddings = distributed.all_gather_with_grad(
        embeddings, len(images), state.experiment.train.views
    )
    loss = state.objective.weighted_loss(
        embeddings,
        batch.targets,
        interpolate=batch.interpolate,
        embed_again=partial(state.embed_mixed, batch.inputs),
    )
    state.optimizer.zero_grad(set_to_none=True)
    with weight_gradients_beside():
        loss.backward()
    distributed.broadcast_tensors_(parameter.grad for parameter in state.objective.parameters())
    state.optimizer.step()
    state.schedule.step()
    return loss.detach(), embeddings.detach()
