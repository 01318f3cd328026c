"""The training loop. It builds nothing, logs nothing and knows no technique by name."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from dml_bench.evaluation.metrics import macro, micro, precision_at_1
from dml_bench.evaluation.neighbours import search, search_leaving_one_out
from dml_bench.registry import samplers
from dml_bench.seeding import seed_everything
from dml_bench.training.run import Run, unit

__all__ = ["NonFiniteLoss", "fit"]


class NonFiniteLoss(ValueError):
    """Training diverged."""


def fit(run: Run, keep: Callable[[Run], None]) -> None:
    """Train to the last epoch from where `run.records` end; `keep` is called after each epoch to save all state.

    Raises AssertionError if a layer that has to stay as it was loaded has changed.
    """
    evaluate = run.experiment.evaluate
    for epoch in range(len(run.records) + 1, run.experiment.train.epochs + 1):
        record = train_epoch(run, epoch)
        if epoch % evaluate.every == 0 or epoch == run.experiment.train.epochs:
            record |= measure(run)
        run.records.append(record)
        keep(run)
        run.watch.epoch(record)
    run.check_frozen()


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
        inputs = run.training_inputs(images, epoch)
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
        f"train_loss{run.phase.suffix}": float(values.mean()),
        "batches_without_tuples": run.objective.batches_without_tuples,
        "train_images": sum(map(len, batches)),
        "train_seconds": seconds,
    }


def epoch_batches(run: Run, epoch: int) -> list[np.ndarray]:
    """The training images of this epoch, as the sampler cuts them into batches."""
    sampler, key = run.experiment.sampler, (run.experiment.seed, run.phase.name, epoch)
    sample = samplers[sampler.name].build
    return sample(run.images, run.dataset.labels[run.images], run.experiment.train.batch_size, key, **sampler.options)


def measure(run: Run) -> dict[str, Any]:
    """P@1 of the images that the phase watches; and the accuracy of the objective's logits on them, if it has any."""
    if not len(run.query):
        return {}
    start = time.perf_counter()
    labels = run.dataset.labels[run.query]
    outputs = run.outputs(run.query)
    if run.gallery is run.query:
        found, images = search_leaving_one_out(unit(outputs), labels, k=1), len(run.query)
    else:
        found = search(run.embed(run.gallery), unit(outputs), run.dataset.labels[run.gallery], labels, k=1)
        images = len(run.gallery) + len(run.query)
    correct = precision_at_1(found)
    name, suffix = run.phase.watches, run.phase.suffix
    record = {f"{name}_accuracy{suffix}": micro(correct), f"{name}_accuracy{suffix}_macro": macro(correct, labels)}
    if run.objective.classifies and name == "test":
        record[f"test_logits_accuracy{suffix}"] = micro((run.classify(outputs) == labels).astype(float))
    return {**record, "evaluate_images": images, "evaluate_seconds": time.perf_counter() - start}
