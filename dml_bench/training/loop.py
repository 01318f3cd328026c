"""The training loop. It builds nothing, logs nothing and knows no technique by name."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.neighbours import search
from dml_bench.seeding import permutation, seed_everything
from dml_bench.training.run import Run

__all__ = ["NonFiniteLoss", "fit"]


class NonFiniteLoss(ValueError):
    """Training diverged."""


def fit(run: Run, keep: Callable[[Run], None]) -> None:
    """Train to the last epoch from where `run.records` end; `keep` is called after each epoch to save all state."""
    evaluate = run.experiment.evaluate
    for epoch in range(len(run.records) + 1, run.experiment.train.epochs + 1):
        record = train_epoch(run, epoch)
        if epoch % evaluate.every == 0 or epoch == run.experiment.train.epochs:
            record |= measure(run)
        run.records.append(record)
        keep(run)
        run.watch.epoch(record)


def train_epoch(run: Run, epoch: int) -> dict[str, Any]:
    """One pass over the training images. Raises NonFiniteLoss, naming phase, epoch and step, before any state is kept."""
    seed_everything(run.experiment.seed, run.phase.name, epoch)
    run.embedder.train()
    run.objective.train()
    run.objective.batches_without_tuples = 0
    batches = epoch_batches(run, epoch)
    losses = torch.zeros(len(batches), device=run.device)
    start = time.perf_counter()
    for step, images in enumerate(batches):
        inputs = run.source.train(images, phase=run.phase.name, epoch=epoch)
        with run.autocast():
            embeddings = run.forward(inputs)
        loss = run.objective(embeddings, run.targets(images))
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.optimizer.step()
        losses[step] = loss.detach()
        run.watch.step(len(images), losses[step])
    values = losses.cpu().numpy()
    seconds = time.perf_counter() - start
    if not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values))[0]) + 1
        raise NonFiniteLoss(
            f"the loss is {values[step - 1]} in phase {run.phase.name}, epoch {epoch}, step {step}: try a smaller optimizer.lr"
        )
    return {
        "phase": run.phase.name,
        "epoch": epoch,
        f"train_loss{run.suffix}": float(values.mean()),
        "batches_without_tuples": run.objective.batches_without_tuples,
        "train_images": sum(map(len, batches)),
        "train_seconds": seconds,
    }


def epoch_batches(run: Run, epoch: int) -> list[np.ndarray]:
    """The training images in this epoch's order, cut into batches; a last batch of a single image is left out."""
    order = permutation(run.experiment.seed, run.phase.name, epoch, "order", items=run.images)
    size = run.experiment.train.batch_size
    return [batch for start in range(0, len(order), size) if len(batch := order[start : start + size]) > 1]


def measure(run: Run) -> dict[str, Any]:
    """P@1 of the phase's known classes: their test images among their training images."""
    start = time.perf_counter()
    labels = run.dataset.labels
    found = search(run.embed(run.gallery), run.embed(run.query), labels[run.gallery], labels[run.query], k=1)
    correct = precision_at_1(found)
    return {
        f"test_accuracy{run.suffix}": micro(correct),
        f"test_accuracy{run.suffix}_macro": macro(correct, labels[run.query]),
        "evaluate_images": len(run.gallery) + len(run.query),
        "evaluate_seconds": time.perf_counter() - start,
    }
